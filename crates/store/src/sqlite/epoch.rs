//! A new epoch: what a restored database forgets, keeps and remembers.

use super::{conn::Conn, errors::Done, rows, space::Space};
use crate::LOCAL_ID_LEAP;
use ropeway_core::{
    epoch::{self, Gap},
    id::{Collection, Epoch, Key, RecordId, SpaceId},
    time::{Stamp, Time},
};
use std::collections::HashMap;

const SPACES: &str = "SELECT id FROM rw_spaces";
const EPOCH: &str = "UPDATE rw_meta SET value = ?1 WHERE name = '@epoch'";
const AHEAD: &str = "SELECT stamp FROM rw_records WHERE space = ?1 AND stamp > ?2
  UNION SELECT entered FROM rw_audiences WHERE space = ?1 AND entered > ?2
  UNION SELECT left_at FROM rw_audiences WHERE space = ?1 AND left_at > ?2
  UNION SELECT entered FROM rw_subscriptions WHERE space = ?1 AND entered > ?2
  UNION SELECT left_at FROM rw_subscriptions WHERE space = ?1 AND left_at > ?2 ORDER BY 1";
const KEPT: &str = "SELECT max(
  coalesce((SELECT max(stamp) FROM rw_records WHERE space = ?1 AND stamp <= ?2), 0),
  coalesce((SELECT max(entered) FROM rw_audiences WHERE space = ?1 AND entered <= ?2), 0),
  coalesce((SELECT max(left_at) FROM rw_audiences WHERE space = ?1 AND left_at <= ?2), 0),
  coalesce((SELECT max(entered) FROM rw_subscriptions WHERE space = ?1 AND entered <= ?2), 0),
  coalesce((SELECT max(left_at) FROM rw_subscriptions WHERE space = ?1 AND left_at <= ?2), 0))";
/// Out of the way first: stamps are unique, and the new ones may be the old ones of other records.
const LIFT: &str = "UPDATE rw_records SET stamp = -stamp WHERE space = ?1 AND stamp > ?2";
const LIFTED: &str = "SELECT no, -stamp FROM rw_records WHERE space = ?1 AND stamp < 0";
const SET_DOWN: &str = "UPDATE rw_records SET stamp = ?2 WHERE no = ?1";
macro_rules! moves {
    ($table:literal) => {
        (
            concat!(
                "SELECT no, entered, left_at FROM ",
                $table,
                " WHERE space = ?1 AND (entered > ?2 OR left_at > ?2)"
            ),
            concat!("UPDATE ", $table, " SET entered = ?2, left_at = ?3 WHERE no = ?1"),
        )
    };
}
/// Rows that say when something entered and left, and how they are set.
const MOVES: [(&str, &str); 2] = [moves!("rw_audiences"), moves!("rw_subscriptions")];
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
        let (stamps, asked) = ahead.map_or((Vec::new(), None), |(stamps, kept)| {
            let count = i64::try_from(stamps.len()).unwrap_or(i64::MAX);
            (stamps, Some((count, kept)))
        });
        let begin = epoch::begin(space.head, now, asked);
        if let Some(first) = begin.restamp {
            let anew: HashMap<i64, i64> = stamps.into_iter().zip(first.0..).collect();
            restamp_by(conn, space.no, now, &anew)?;
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

/// The stamps that lie ahead of the clock, of whatever has one, in order; and the newest that does not.
fn ahead(conn: &Conn, space: i64, now: Time) -> Done<(Vec<i64>, Stamp)> {
    let mut stmt = conn.db.prepare(AHEAD)?;
    let ahead = stmt.query_map((space, now.0), |r| r.get(0))?.collect::<Result<_, _>>()?;
    let kept = conn.db.query_row(KEPT, (space, now.0), |r| r.get(0))?;
    Ok((ahead, Stamp(kept)))
}

fn restamp_by(conn: &Conn, space: i64, now: Time, anew: &HashMap<i64, i64>) -> Done<()> {
    let set = |stamp: i64| anew.get(&stamp).copied().unwrap_or(stamp);
    conn.db.execute(LIFT, (space, now.0))?;
    let lifted: Vec<(i64, i64)> = conn
        .db
        .prepare(LIFTED)?
        .query_map([space], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut stmt = conn.db.prepare(SET_DOWN)?;
    for (no, stamp) in lifted {
        stmt.execute((no, set(stamp)))?;
    }
    for (ask, put) in MOVES {
        let moved: Vec<(i64, i64, Option<i64>)> = conn
            .db
            .prepare(ask)?
            .query_map((space, now.0), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let mut stmt = conn.db.prepare(put)?;
        for (no, entered, left) in moved {
            stmt.execute((no, set(entered), left.map(set)))?;
        }
    }
    Ok(())
}
