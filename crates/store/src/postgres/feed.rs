//! Reads of records: the feed in stamp order, a collection in id order, single ones, superseded ones.

use super::{conn::Tx, errors::Done, load, rows, space::Space};
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
    " FROM rw_records r WHERE r.space = $1 AND r.stamp > $2 ORDER BY r.stamp LIMIT $3"
);
const FEED_OF: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records r WHERE r.space = $1 AND r.stamp > $2 AND r.collection = ANY ($4::text[])
      ORDER BY r.stamp LIMIT $3"
);
const LIST: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_records r WHERE r.space = $1 AND r.collection = $2 AND r.id > $3
      AND (NOT $5 OR coalesce(r.up_version, 0) = 0 OR r.up_held IS NOT NULL) ORDER BY r.id LIMIT $4"
);
/// From one collection to the next by the index on the key, without a look at their records.
const COLLECTIONS: &str = "WITH RECURSIVE found (name) AS (
    SELECT min(collection) FROM rw_records WHERE space = $1 AND id >= ''
    UNION ALL
    SELECT (SELECT min(collection) FROM rw_records WHERE space = $1 AND collection > found.name AND id >= '')
    FROM found WHERE found.name IS NOT NULL)
  SELECT name FROM found WHERE name IS NOT NULL ORDER BY name";
const CONTESTED: &str = "SELECT count(*) FROM rw_records WHERE space = $1 AND collection = $2 AND contested";
const HISTORY: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_history r WHERE r.space = $1 AND r.collection = $2 AND r.id = $3
      ORDER BY r.version DESC, r.stamp DESC"
);

/// Which page of the feed.
pub(super) struct Ask {
    pub(super) space: SpaceId,
    pub(super) after: Stamp,
    pub(super) limit: usize,
    pub(super) collections: Vec<Collection>,
}

/// A page of the feed. Runs in a read transaction, so rows and head are of one moment.
pub(super) async fn feed(tx: &Tx, ask: &Ask) -> Done<FeedPage> {
    let space = Space::read(tx, &ask.space).await?;
    let limit = ask.limit.max(1);
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1); // one more shows whether it ends
    let found = match ask.collections.is_empty() {
        true => tx.query(FEED, &[&space.no, &ask.after.0, &most]).await?,
        false => {
            let wanted: Vec<&str> = ask.collections.iter().map(|c| c.as_str()).collect();
            tx.query(FEED_OF, &[&space.no, &ask.after.0, &most, &wanted]).await?
        }
    };
    let (mut page, mut bytes) = (Vec::with_capacity(found.len()), 0);
    for row in &found {
        if page.len() == limit || bytes >= limits::PAGE_BYTES_MAX {
            return Ok(FeedPage { rows: page, space: space.state(), complete: false });
        }
        let fed = rows::fed(row)?;
        bytes += fed.data.text().len();
        page.push(fed);
    }
    Ok(FeedPage { rows: page, space: space.state(), complete: true })
}

/// Records of one collection in id order.
pub(super) async fn list(
    tx: &Tx,
    space: &SpaceId,
    collection: &Collection,
    after: Option<&RecordId>,
    limit: usize,
) -> Done<Vec<(RecordId, Record)>> {
    let space = Space::read(tx, space).await?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or("", |id| id.as_str());
    let found = tx.query(LIST, &[&space.no, &collection.as_str(), &after, &most, &space.filling]).await?;
    found.iter().map(|row| rows::record(row).map(|(key, record)| (key.id, record))).collect()
}

/// How many records of a collection are contested.
pub(super) async fn contested(tx: &Tx, space: &SpaceId, collection: &Collection) -> Done<u64> {
    let space = Space::read(tx, space).await?.no;
    let counted = tx.query(CONTESTED, &[&space, &collection.as_str()]).await?;
    counted.first().map_or(Ok(0), |row| Ok(row.try_get::<_, i64>(0)?.cast_unsigned()))
}

/// The collections that have records, by name.
pub(super) async fn collections(tx: &Tx, space: &SpaceId) -> Done<Vec<Collection>> {
    let space = Space::read(tx, space).await?.no;
    let found = tx.query(COLLECTIONS, &[&space]).await?;
    found.iter().map(|row| Ok(Collection::trusted(row.try_get::<_, &str>(0)?))).collect()
}

/// These records, those that exist and that a reader may see.
pub(super) async fn records(tx: &Tx, space: &SpaceId, keys: &[Key]) -> Done<Vec<(Key, Record)>> {
    let space = Space::read(tx, space).await?;
    let mut found = load::records(tx, space.no, keys.iter()).await?;
    found.retain(|(_, record)| !space.filling || !record.is_as_pulled());
    Ok(found)
}

/// Superseded versions of one record, newest first.
pub(super) async fn history(tx: &Tx, space: &SpaceId, key: &Key) -> Done<Vec<Superseded>> {
    let space = Space::read(tx, space).await?.no;
    let found = tx.query(HISTORY, &[&space, &key.collection.as_str(), &key.id.as_str()]).await?;
    found.iter().map(|row| rows::record(row).map(|(key, record)| Superseded { key, record })).collect()
}
