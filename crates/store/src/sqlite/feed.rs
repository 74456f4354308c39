//! Reads of records: the feed in stamp order, a collection in id order, single ones, superseded ones.

use super::{conn::Conn, errors::Done, load, rows, space::Space};
use crate::FeedPage;
use ropeway_core::{
    id::{Collection, Key, RecordId, SpaceId},
    limits,
    plan::Superseded,
    record::Record,
    time::Stamp,
};

const FEED: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records WHERE space = ?1 AND stamp > ?2 ORDER BY stamp LIMIT ?3"
);
/// The `+` keeps the planner on the index in stamp order.
const FEED_OF: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records WHERE space = ?1 AND stamp > ?2
      AND +collection IN (SELECT value FROM json_each(?4)) ORDER BY stamp LIMIT ?3"
);
const CONTESTED: &str = "SELECT count(*) FROM rw_records INDEXED BY rw_records_contested
  WHERE space = ?1 AND collection = ?2 AND contested = 1";
/// From one collection to the next by the index on the key, without a look at their records.
const COLLECTIONS: &str = "WITH RECURSIVE found (no) AS (
    SELECT min(collection) FROM rw_records WHERE space = ?1
    UNION ALL
    SELECT (SELECT min(collection) FROM rw_records WHERE space = ?1 AND collection > found.no)
    FROM found WHERE found.no IS NOT NULL)
  SELECT n.name FROM found JOIN rw_names n ON n.no = found.no ORDER BY n.name";
const LIST: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_records WHERE space = ?1 AND collection = ?2 AND id > ?3
      AND (NOT ?5 OR coalesce(up_version, 0) = 0 OR up_held IS NOT NULL) ORDER BY id LIMIT ?4"
);
const HISTORY: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_history WHERE space = ?1 AND collection = ?2 AND id = ?3 ORDER BY no DESC"
);

/// A page of the feed. Runs in a read transaction, so rows and head are of one moment.
pub(super) fn feed(
    conn: &mut Conn,
    space: &SpaceId,
    after: Stamp,
    limit: usize,
    collections: &[Collection],
) -> Done<FeedPage> {
    let space = Space::read(conn, space)?;
    let Conn { db, names, .. } = conn;
    let limit = limit.max(1);
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1); // one more shows whether it ends
    let mut page = Vec::with_capacity(limit.min(8_192));
    let mut stmt;
    let mut at = if collections.is_empty() {
        stmt = db.prepare_cached(FEED)?;
        stmt.query((space.no, after.0, most))?
    } else {
        let mut wanted = Vec::with_capacity(collections.len());
        for collection in collections {
            wanted.extend(names.find(db, collection)?);
        }
        stmt = db.prepare_cached(FEED_OF)?;
        stmt.query((space.no, after.0, most, rows::to_json(&wanted, "collections")?))?
    };
    let mut bytes = 0;
    while let Some(row) = at.next()? {
        if page.len() == limit || bytes >= limits::PAGE_BYTES_MAX {
            return Ok(FeedPage { rows: page, space: space.state(), complete: false });
        }
        let fed = rows::fed(db, names, row)?;
        bytes += fed.data.text().len();
        page.push(fed);
    }
    Ok(FeedPage { rows: page, space: space.state(), complete: true })
}

/// Records of one collection in id order.
pub(super) fn list(
    conn: &mut Conn,
    space: &SpaceId,
    collection: &Collection,
    after: Option<&RecordId>,
    limit: usize,
) -> Done<Vec<(RecordId, Record)>> {
    let Space { no: space, filling, .. } = Space::read(conn, space)?;
    let Conn { db, names, .. } = conn;
    let Some(collection) = names.find(db, collection)? else { return Ok(Vec::new()) };
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut stmt = db.prepare_cached(LIST)?;
    let mut at = stmt.query((space, collection, after.map_or("", |id| id.as_str()), most, filling))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        found.push(rows::record(db, names, row)?);
    }
    Ok(found)
}

/// How many records of a collection are contested.
pub(super) fn contested(conn: &mut Conn, space: i64, collection: &Collection) -> Done<u64> {
    let Conn { db, names, .. } = conn;
    let Some(collection) = names.find(db, collection)? else { return Ok(0) };
    let count: i64 = db.prepare_cached(CONTESTED)?.query_row((space, collection), |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// The collections that have records, by name.
pub(super) fn collections(conn: &mut Conn, space: &SpaceId) -> Done<Vec<Collection>> {
    let space = Space::read(conn, space)?.no;
    let mut stmt = conn.db.prepare_cached(COLLECTIONS)?;
    let names = stmt.query_map([space], |row| row.get::<_, String>(0))?;
    Ok(names.map(|name| name.map(Collection::trusted)).collect::<Result<_, _>>()?)
}

/// These records, those that exist and that a reader may see.
pub(super) fn records(conn: &mut Conn, space: &SpaceId, keys: &[Key]) -> Done<Vec<(Key, Record)>> {
    let Space { no, filling, .. } = Space::read(conn, space)?;
    let mut found = load::records(conn, no, keys.iter())?;
    found.retain(|(_, record)| !filling || !record.is_as_pulled());
    Ok(found)
}

/// Superseded versions of one record, newest first.
pub(super) fn history(conn: &mut Conn, space: &SpaceId, key: &Key) -> Done<Vec<Superseded>> {
    let space = Space::read(conn, space)?.no;
    let Conn { db, names, .. } = conn;
    let Some(collection) = names.find(db, &key.collection)? else { return Ok(Vec::new()) };
    let mut stmt = db.prepare_cached(HISTORY)?;
    let mut at = stmt.query((space, collection, key.id.as_str()))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        let (_, record) = rows::record(db, names, row)?;
        found.push(Superseded { key: key.clone(), record });
    }
    Ok(found)
}
