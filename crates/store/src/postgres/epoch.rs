//! A new epoch: what a restored database forgets, keeps and remembers.

use super::{conn::Tx, errors::Done, registry, space::Space};
use crate::LOCAL_ID_LEAP;
use ropeway_core::{
    epoch::{self, Gap},
    id::{Collection, Epoch, Key, RecordId, SpaceId},
    time::{Stamp, Time},
};

const SPACES: &str = "SELECT id FROM rw_spaces ORDER BY id";
const EPOCH: &str = "UPDATE rw_meta SET value = $1 WHERE name = '@epoch'";
/// Every stamp of a space, of whatever has one.
macro_rules! stamps {
    () => {
        "WITH stamps AS (SELECT stamp FROM rw_records WHERE space = $1 AND id >= ''
          UNION SELECT entered FROM rw_audiences WHERE space = $1 AND record >= ''
          UNION SELECT left_at FROM rw_audiences WHERE space = $1 AND left_at IS NOT NULL
          UNION SELECT entered FROM rw_subscriptions WHERE space = $1
          UNION SELECT left_at FROM rw_subscriptions WHERE space = $1 AND left_at IS NOT NULL)"
    };
}
const AHEAD: &str = concat!(
    stamps!(),
    " SELECT count(*) FILTER (WHERE stamp > $2), coalesce(max(stamp) FILTER (WHERE stamp <= $2), 0) FROM stamps"
);
/// In one statement, whose parts all read what was there before. Records go out of the way first: their stamps are
/// unique, and the new ones may be the old ones of others.
const LIFT: &str = concat!(
    stamps!(),
    ", moved AS MATERIALIZED (SELECT stamp, $3::bigint - 1 + row_number() OVER (ORDER BY stamp) AS anew
         FROM stamps WHERE stamp > $2),
       audiences AS (UPDATE rw_audiences t
         SET entered = coalesce(e.anew, k.entered), left_at = coalesce(l.anew, k.left_at)
         FROM rw_audiences k LEFT JOIN moved e ON e.stamp = k.entered LEFT JOIN moved l ON l.stamp = k.left_at
         WHERE k.space = $1 AND k.record >= '' AND (k.entered > $2 OR k.left_at > $2)
           AND t.space = $1 AND t.collection = k.collection AND t.record = k.record
           AND t.audience = k.audience AND t.via_collection = k.via_collection AND t.via = k.via),
       subscriptions AS (UPDATE rw_subscriptions t
         SET entered = coalesce(e.anew, k.entered), left_at = coalesce(l.anew, k.left_at)
         FROM rw_subscriptions k LEFT JOIN moved e ON e.stamp = k.entered
           LEFT JOIN moved l ON l.stamp = k.left_at
         WHERE k.space = $1 AND (k.entered > $2 OR k.left_at > $2)
           AND t.space = $1 AND t.reader = k.reader AND t.audience = k.audience
           AND t.via_collection = k.via_collection AND t.via = k.via)
     UPDATE rw_records r SET stamp = -moved.anew FROM moved WHERE r.space = $1 AND r.stamp = moved.stamp"
);
const SET_DOWN: &str = "UPDATE rw_records SET stamp = -stamp WHERE space = $1 AND stamp < 0";
const HISTORY: &str = "UPDATE rw_history SET stamp = $2 WHERE space = $1 AND stamp > $2";
const RECEIPTS: &str = "UPDATE rw_receipts SET stamp = $2 WHERE space = $1 AND stamp > $2";
const CURSORS: &str = "UPDATE rw_devices SET pulled = $2 WHERE space = $1 AND pulled > $2";
const SHARED_CURSORS: &str = "UPDATE rw_devices SET pulled_shared = $1 WHERE pulled_shared > $1";
const GAP: &str = "INSERT INTO rw_gaps (space, begins, after, lost, epoch) VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (space, begins) DO UPDATE SET after = excluded.after, lost = excluded.lost,
  epoch = excluded.epoch";
const UNFED: &str = "SELECT stamp, collection, id FROM rw_records WHERE space = $1 AND up_version > 0
  AND up_epoch <> $2 AND stamp > $3 ORDER BY stamp LIMIT $4";
const GAPS: &str = "SELECT after, begins, lost FROM rw_gaps WHERE space = $1 ORDER BY begins";

/// Begins an epoch in every space.
pub(super) async fn begin(tx: &Tx, next: &Epoch, now: Time, restamp: bool) -> Done<()> {
    for row in tx.query(SPACES, &[]).await? {
        let id: &str = row.try_get(0)?;
        let mut space = Space::lock(tx, &SpaceId::trusted(id)).await?;
        let ahead = match restamp {
            true => ahead(tx, space.no, now).await?,
            false => None,
        };
        let begin = epoch::begin(space.head, now, ahead);
        if let Some(first) = begin.restamp {
            tx.execute(LIFT, &[&space.no, &now.0, &first.0]).await?;
            tx.execute(SET_DOWN, &[&space.no]).await?;
            for sql in [HISTORY, RECEIPTS] {
                tx.execute(sql, &[&space.no, &begin.head.0]).await?;
            }
        }
        let Gap { after, begins, lost } = begin.gap;
        tx.execute(CURSORS, &[&id, &after.0]).await?;
        if id == &*SpaceId::shared() {
            tx.execute(SHARED_CURSORS, &[&after.0]).await?;
        }
        tx.execute(GAP, &[&space.no, &begins.0, &after.0, &lost.0, &space.epoch.as_str()]).await?;
        space.head = begin.head;
        space.purged = space.purged.min(begin.head);
        space.next_local_id += LOCAL_ID_LEAP;
        space.save(tx).await?;
    }
    tx.execute(EPOCH, &[&next.as_str()]).await?;
    registry::count(tx).await
}

/// The gaps behind a space's epochs, oldest first.
pub(super) async fn gaps(tx: &Tx, space: i32) -> Done<Vec<Gap>> {
    let read = |row: &tokio_postgres::Row| {
        let stamp = |at: usize| row.try_get(at).map(Stamp);
        Ok(Gap { after: stamp(0)?, begins: stamp(1)?, lost: stamp(2)? })
    };
    tx.query(GAPS, &[&space]).await?.iter().map(read).collect()
}

/// Records last heard of from the upstream in another epoch.
pub(super) async fn unfed(
    tx: &Tx,
    space: i32,
    epoch: &Epoch,
    after: Stamp,
    limit: usize,
) -> Done<Vec<(Stamp, Key)>> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &tokio_postgres::Row| {
        let (collection, id): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
        let key = Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) };
        Ok((Stamp(row.try_get(0)?), key))
    };
    tx.query(UNFED, &[&space, &epoch.as_str(), &after.0, &most]).await?.iter().map(read).collect()
}

async fn ahead(tx: &Tx, space: i32, now: Time) -> Done<Option<(i64, Stamp)>> {
    let Some(row) = tx.one(AHEAD, &[&space, &now.0]).await? else { return Ok(None) };
    Ok(Some((row.try_get(0)?, Stamp(row.try_get(1)?))))
}
