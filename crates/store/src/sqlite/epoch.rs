//! A new epoch: what a restored database forgets, keeps and remembers.

use super::{conn::Conn, errors::Done, rows, space::Space};
use crate::LOCAL_ID_LEAP;
use ropeway_core::{
    epoch::{self, Gap},
    id::{Collection, Epoch, Key, RecordId, SpaceId},
    time::{Stamp, Time},
};

const SPACES: &str = "SELECT id FROM rw_spaces";
const EPOCH: &str = "UPDATE rw_meta SET value = ?1 WHERE name = '@epoch'";
const AHEAD: &str = "SELECT count(*) FROM rw_records WHERE space = ?1 AND stamp > ?2";
const KEPT: &str = "SELECT coalesce(max(stamp), 0) FROM rw_records WHERE space = ?1 AND stamp <= ?2";
/// Out of the way first: stamps are unique, and the new ones may be the old ones of other records.
const LIFT: &str = "UPDATE rw_records SET stamp = -stamp WHERE space = ?1 AND stamp > ?2";
const LIFTED: &str = "SELECT no FROM rw_records WHERE space = ?1 AND stamp < 0 ORDER BY stamp DESC";
const SET_DOWN: &str = "UPDATE rw_records SET stamp = ?2 WHERE no = ?1";
const HISTORY: &str = "UPDATE rw_history SET stamp = ?2 WHERE space = ?1 AND stamp > ?2";
const RECEIPTS: &str = "UPDATE rw_receipts SET stamp = ?2 WHERE space = ?1 AND stamp > ?2";
const CURSORS: &str = "UPDATE rw_devices SET pulled = ?2 WHERE space = ?1 AND pulled > ?2";
const SHARED_CURSORS: &str = "UPDATE rw_devices SET pulled_shared = ?1 WHERE pulled_shared > ?1";
const GAP: &str =
    "INSERT OR REPLACE INTO rw_gaps (space, begins, after, lost, epoch) VALUES (?1, ?2, ?3, ?4, ?5)";
const UNFED: &str = "SELECT stamp, collection, id FROM rw_records WHERE space = ?1 AND up_version > 0
  AND up_epoch <> ?2 AND stamp > ?3 ORDER BY stamp LIMIT ?4";
const GAPS: &str = "SELECT after, begins, lost FROM rw_gaps WHERE space = ?1 ORDER BY begins";

/// Begins an epoch in every space, in the caller's transaction.
pub(super) fn begin(conn: &mut Conn, next: &Epoch, now: Time, restamp: bool) -> Done<()> {
    let spaces: Vec<String> =
        conn.db.prepare(SPACES)?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for id in spaces {
        let mut space = Space::read(conn, &SpaceId::trusted(id.as_str()))?;
        let ahead = restamp.then(|| ahead(conn, space.no, now)).transpose()?;
        let begin = epoch::begin(space.head, now, ahead);
        if let Some(first) = begin.restamp {
            restamp_from(conn, space.no, now, first)?;
            for sql in [HISTORY, RECEIPTS] {
                conn.db.execute(sql, (space.no, begin.head.0))?;
            }
        }
        let Gap { after, begins, lost } = begin.gap;
        conn.db.execute(CURSORS, (&id, after.0))?;
        if id == *SpaceId::shared() {
            conn.db.execute(SHARED_CURSORS, [after.0])?;
        }
        conn.db.execute(GAP, (space.no, begins.0, after.0, lost.0, space.epoch.as_str()))?;
        space.head = begin.head;
        space.purged = space.purged.min(begin.head);
        space.next_local_id += LOCAL_ID_LEAP;
        space.save(conn)?;
    }
    conn.db.execute(EPOCH, [next.as_str()])?;
    Ok(())
}

/// The gaps behind a space's epochs, oldest first.
pub(super) fn gaps(conn: &Conn, space: i64) -> Done<Vec<Gap>> {
    let mut stmt = conn.db.prepare_cached(GAPS)?;
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Gap { after: Stamp(r.get(0)?), begins: Stamp(r.get(1)?), lost: Stamp(r.get(2)?) })
    };
    Ok(stmt.query_map([space], read)?.collect::<Result<_, _>>()?)
}

/// Records last heard of from the upstream in another epoch.
pub(super) fn unfed(
    conn: &mut Conn,
    space: i64,
    epoch: &Epoch,
    after: Stamp,
    limit: usize,
) -> Done<Vec<(Stamp, Key)>> {
    let Conn { db, names, .. } = conn;
    let epoch = names.find(db, epoch)?.unwrap_or(0);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut stmt = db.prepare_cached(UNFED)?;
    let mut at = stmt.query((space, epoch, after.0, most))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        let collection = Collection::trusted(names.name(db, row.get(1)?)?);
        found.push((Stamp(row.get(0)?), Key { collection, id: RecordId::trusted(rows::text(row, 2)?) }));
    }
    Ok(found)
}

fn ahead(conn: &Conn, space: i64, now: Time) -> Done<(i64, Stamp)> {
    let count = conn.db.query_row(AHEAD, (space, now.0), |r| r.get(0))?;
    let kept = conn.db.query_row(KEPT, (space, now.0), |r| r.get(0))?;
    Ok((count, Stamp(kept)))
}

fn restamp_from(conn: &Conn, space: i64, now: Time, first: Stamp) -> Done<()> {
    conn.db.execute(LIFT, (space, now.0))?;
    let lifted: Vec<i64> =
        conn.db.prepare(LIFTED)?.query_map([space], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let mut stmt = conn.db.prepare(SET_DOWN)?;
    for (no, stamp) in lifted.into_iter().zip(first.0..) {
        stmt.execute((no, stamp))?;
    }
    Ok(())
}
