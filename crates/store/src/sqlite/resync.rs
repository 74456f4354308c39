//! Pulling everything anew: after a restored backup of this device, or from beyond the horizon.

use super::{conn::Conn, errors::Done, follow, load, space::Space};
use ropeway_core::{
    id::{Collection, Key, RecordId, SpaceId},
    plan::Fed,
    record::Record,
};
use rusqlite::OptionalExtension;

const ANEW: &str = "UPDATE rw_follow SET token = NULL, anew = 1 WHERE space = ?1";
const IS_ANEW: &str = "SELECT anew FROM rw_follow WHERE space = ?1";
const SEE: &str = "INSERT OR IGNORE INTO rw_seen (space, collection, id) VALUES (?1, ?2, ?3)";
const FORGET: &str = "DELETE FROM rw_seen WHERE space = ?1";
const DONE: &str = "UPDATE rw_follow SET anew = 0 WHERE space = ?1";
const UNSEEN: &str = "SELECT collection, id FROM rw_records AS r INDEXED BY rw_records_key
  WHERE space = ?1 AND (collection, id) > (?2, ?3) AND up_version > 0 AND NOT EXISTS (
    SELECT 1 FROM rw_seen AS s WHERE s.space = ?1 AND s.collection = r.collection AND s.id = r.id)
  ORDER BY collection, id LIMIT ?4";

/// Forgets how far the upstream was read, and notes from now on what comes.
pub(super) fn pull_anew(conn: &mut Conn, space: &SpaceId) -> Done<()> {
    follow::unstage(conn, space)?;
    let space = Space::read(conn, space)?.no;
    conn.db.prepare_cached(FORGET)?.execute([space])?;
    conn.db.prepare_cached(ANEW)?.execute([space])?;
    Ok(())
}

/// Notes that these rows came, where everything is pulled anew.
pub(super) fn see(conn: &mut Conn, space: i64, rows: &[Fed]) -> Done<()> {
    if !is_anew(conn, space)? {
        return Ok(());
    }
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(SEE)?;
    for row in rows {
        stmt.execute((space, names.intern(db, &row.key.collection)?, row.key.id.as_str()))?;
    }
    Ok(())
}

/// Records that the upstream knew and that have not come.
pub(super) fn unseen(
    conn: &mut Conn,
    space: i64,
    after: Option<&Key>,
    limit: usize,
) -> Done<Vec<(Key, Record)>> {
    if !is_anew(conn, space)? {
        return Ok(Vec::new());
    }
    let Conn { db, names, .. } = &mut *conn;
    let (collection, id) = match after {
        None => (0, ""),
        Some(key) => (names.find(db, &key.collection)?.unwrap_or(0), key.id.as_str()),
    };
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut stmt = db.prepare_cached(UNSEEN)?;
    let mut at = stmt.query((space, collection, id, most))?;
    let mut keys = Vec::new();
    while let Some(row) = at.next()? {
        let collection = Collection::trusted(names.name(db, row.get(0)?)?);
        keys.push(Key { collection, id: RecordId::trusted(row.get::<_, String>(1)?) });
    }
    drop(at);
    drop(stmt);
    load::records(conn, space, keys.iter())
}

/// Forgets what came.
pub(super) fn pulled_anew(conn: &Conn, space: i64) -> Done<()> {
    conn.db.prepare_cached(FORGET)?.execute([space])?;
    conn.db.prepare_cached(DONE)?.execute([space])?;
    Ok(())
}

fn is_anew(conn: &Conn, space: i64) -> Done<bool> {
    Ok(conn.db.prepare_cached(IS_ANEW)?.query_row([space], |r| r.get(0)).optional()?.unwrap_or(false))
}
