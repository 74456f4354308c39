//! Pulling everything anew: after a restored backup of this device, or from beyond the horizon.

use super::{conn::Tx, errors::Done, follow, load, space::Space};
use ropeway_core::{
    id::{Collection, Key, RecordId, SpaceId},
    plan::Fed,
    record::Record,
};

const ANEW: &str = "UPDATE rw_follow SET token = NULL, anew = true WHERE space = $1";
const IS_ANEW: &str = "SELECT anew FROM rw_follow WHERE space = $1";
const SEE: &str = "INSERT INTO rw_seen (space, collection, id)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[]) AS n ON CONFLICT DO NOTHING";
const FORGET: &str = "DELETE FROM rw_seen WHERE space = $1";
const DONE: &str = "UPDATE rw_follow SET anew = false WHERE space = $1";
const UNSEEN: &str = "SELECT r.collection, r.id FROM rw_records r
  WHERE r.space = $1 AND (r.collection, r.id) > ($2, $3) AND r.id >= '' AND r.up_version > 0 AND NOT EXISTS (
    SELECT 1 FROM rw_seen s WHERE s.space = $1 AND s.collection = r.collection AND s.id = r.id)
  ORDER BY r.collection, r.id LIMIT $4";

/// Forgets how far the upstream was read, and notes from now on what comes.
pub(super) async fn pull_anew(tx: &Tx, space: &SpaceId) -> Done<()> {
    follow::unstage(tx, space).await?;
    let space = Space::read(tx, space).await?.no;
    tx.execute(FORGET, &[&space]).await?;
    tx.execute(ANEW, &[&space]).await?;
    Ok(())
}

/// Notes that these rows came, where everything is pulled anew.
pub(super) async fn see(tx: &Tx, space: i32, rows: &[Fed]) -> Done<()> {
    if !rows.is_empty() && is_anew(tx, space).await? {
        let (collections, ids) = load::columns(rows.iter().map(|row| &row.key));
        tx.execute(SEE, &[&space, &collections, &ids]).await?;
    }
    Ok(())
}

/// Records that the upstream knew and that have not come.
pub(super) async fn unseen(
    tx: &Tx,
    space: i32,
    after: Option<&Key>,
    limit: usize,
) -> Done<Vec<(Key, Record)>> {
    if !is_anew(tx, space).await? {
        return Ok(Vec::new());
    }
    let (collection, id) = after.map_or(("", ""), |key| (&*key.collection, &*key.id));
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut keys = Vec::new();
    for row in tx.query(UNSEEN, &[&space, &collection, &id, &most]).await? {
        let (collection, id): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        keys.push(Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) });
    }
    let mut found = load::records(tx, space, keys.iter()).await?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Forgets what came.
pub(super) async fn pulled_anew(tx: &Tx, space: &SpaceId) -> Done<()> {
    let space = Space::lock(tx, space).await?.no;
    tx.execute(FORGET, &[&space]).await?;
    tx.execute(DONE, &[&space]).await?;
    Ok(())
}

async fn is_anew(tx: &Tx, space: i32) -> Done<bool> {
    match tx.one(IS_ANEW, &[&space]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(false),
    }
}
