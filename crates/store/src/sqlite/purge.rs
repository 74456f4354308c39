//! Forgetting what no live reader can ask about any more, a bounded step at a time.

use super::{conn::Conn, errors::Done};
use crate::purge::{Purged, RUNS_KEPT, Walk};
use ropeway_core::{retention::Lines, time::Stamp};
use rusqlite::{Params, Row};

/// Nothing may be laid over the row that goes: an unsettled entry, or what the upstream last said. No open
/// question may be about it, and no joined row may lead to it.
const TOMBSTONES: &str = "SELECT no, stamp, version, collection, id,
    up_held IS NULL AND contested = 0 AND NOT EXISTS (
    SELECT 1 FROM rw_outbox AS o INDEXED BY rw_outbox_state WHERE o.space = ?1 AND o.state IN (0, 1, 2, 3, 4)
    AND o.collection = rw_records.collection AND o.record = rw_records.id) AND NOT EXISTS (
    SELECT 1 FROM rw_links WHERE rw_links.space = ?1 AND parent_collection = rw_records.collection
    AND parent = rw_records.id AND field = '@joined')
  FROM rw_records INDEXED BY rw_records_gone
  WHERE space = ?1 AND state = 1 AND stamp > ?2 AND stamp <= ?3 ORDER BY stamp LIMIT ?4";
const BURIED: &str = "DELETE FROM rw_records WHERE no = ?1";
const PRINTS: &str = "DELETE FROM rw_fingerprints WHERE space = ?1 AND collection = ?2 AND id = ?3";
const WORN: &str = "DELETE FROM rw_audiences WHERE space = ?1 AND collection = ?2 AND record = ?3";
const LEFT: &str = "SELECT no, left_at FROM rw_audiences INDEXED BY rw_audiences_left
  WHERE space = ?1 AND left_at <= ?2 ORDER BY left_at LIMIT ?3";
const LEFT_ROW: &str = "DELETE FROM rw_audiences WHERE no = ?1";
const ENDED: &str = "SELECT no, left_at FROM rw_subscriptions WHERE space = ?1 AND left_at <= ?2
  ORDER BY left_at LIMIT ?3";
const ENDED_ROW: &str = "DELETE FROM rw_subscriptions WHERE no = ?1";
const NOTE: &str = "UPDATE rw_spaces SET purged = max(purged, ?2), buried = max(buried, ?3) WHERE no = ?1";
const RECEIPTS: &str =
    "SELECT change, stamp FROM rw_receipts WHERE space = ?1 AND change > ?2 ORDER BY change LIMIT ?3";
const RECEIPT: &str = "DELETE FROM rw_receipts WHERE space = ?1 AND change = ?2";
const HISTORY: &str = "SELECT no, space, stamp, collection, id, version FROM rw_history
  WHERE no > ?1 ORDER BY no LIMIT ?2";
const SUPERSEDED: &str = "SELECT min(stamp) FROM (
  SELECT stamp FROM rw_history WHERE space = ?1 AND collection = ?2 AND id = ?3 AND version > ?4
  UNION ALL SELECT stamp FROM rw_records WHERE space = ?1 AND collection = ?2 AND id = ?3)";
const VERSION: &str = "DELETE FROM rw_history WHERE no = ?1";
const ENTRIES: &str = "SELECT seq, state >= 5 AND coalesce(tried_at, accepted_at) < ?3 FROM rw_outbox
  WHERE space = ?1 AND seq > ?2 ORDER BY seq LIMIT ?4";
const ENTRY: &str = "DELETE FROM rw_outbox WHERE space = ?1 AND seq = ?2";
const RUNS: &str = "SELECT no FROM rw_runs WHERE space = ?1 AND started_at < ?2 AND no NOT IN (
  SELECT no FROM rw_runs WHERE space = ?1 ORDER BY no DESC LIMIT ?3) ORDER BY no LIMIT ?4";
const RUN: &str = "DELETE FROM rw_runs WHERE no = ?1";

/// One step, in the caller's transaction.
pub(super) fn step(
    conn: &mut Conn,
    space: i64,
    lines: &Lines,
    at: Walk,
    rows: usize,
    dry: bool,
) -> Done<Purged> {
    let most = i64::try_from(rows.max(1)).unwrap_or(i64::MAX);
    let (gone, last) = match &at {
        Walk::Tombstones(after) => tombstones(conn, space, *after, lines.tombstones, most, dry)?,
        Walk::Audiences => audiences(conn, space, lines.tombstones, most, dry)?,
        Walk::Receipts(after) => receipts(conn, space, after, lines.receipts, most, dry)?,
        Walk::History(after) => history(conn, space, *after, lines.history, most, dry)?,
        Walk::Outbox(after) => outbox(conn, space, *after, lines, most, dry)?,
        Walk::Runs => runs(conn, space, lines, most, dry)?,
    };
    Ok(Purged { rows: gone, next: last.or_else(|| at.then()) })
}

/// What went, and where this kind goes on when the step was full.
type Step = (u64, Option<Walk>);

/// A tombstone before the line.
struct Dead {
    no: i64,
    stamp: i64,
    version: i64,
    collection: i64,
    id: String,
    may_go: bool,
}

fn tombstones(conn: &Conn, space: i64, after: Stamp, line: Stamp, most: i64, dry: bool) -> Done<Step> {
    let found: Vec<Dead> = all(conn, TOMBSTONES, (space, after.0, line.0, most), |r| {
        let (no, stamp, version) = (r.get(0)?, r.get(1)?, r.get(2)?);
        Ok(Dead { no, stamp, version, collection: r.get(3)?, id: r.get(4)?, may_go: r.get(5)? })
    })?;
    let going: Vec<&Dead> = found.iter().filter(|dead| dead.may_go).collect();
    if let Some(newest) = going.last().filter(|_| !dry) {
        for Dead { no, collection, id, .. } in &going {
            conn.db.prepare_cached(BURIED)?.execute([no])?;
            conn.db.prepare_cached(PRINTS)?.execute((space, collection, id))?;
            conn.db.prepare_cached(WORN)?.execute((space, collection, id))?;
        }
        let version = going.iter().map(|dead| dead.version).max();
        conn.db.prepare_cached(NOTE)?.execute((space, newest.stamp, version))?;
    }
    let last = found.last().filter(|_| is_full(&found, most));
    Ok((going.len() as u64, last.map(|dead| Walk::Tombstones(Stamp(dead.stamp)))))
}

/// What goes is as good as a deletion to a reader who had not read so far: it is noted with those.
fn audiences(conn: &Conn, space: i64, line: Stamp, most: i64, dry: bool) -> Done<Step> {
    let most = if dry { i64::MAX } else { most };
    let (mut gone, mut full) = (0, false);
    for (find, forget) in [(LEFT, LEFT_ROW), (ENDED, ENDED_ROW)] {
        let found: Vec<(i64, i64)> = all(conn, find, (space, line.0, most), |r| Ok((r.get(0)?, r.get(1)?)))?;
        gone += found.len() as u64;
        full |= is_full(&found, most);
        if let Some((_, newest)) = found.last().filter(|_| !dry) {
            for (no, _) in &found {
                conn.db.prepare_cached(forget)?.execute([no])?;
            }
            conn.db.prepare_cached(NOTE)?.execute((space, newest, 0))?;
        }
    }
    Ok((gone, full.then_some(Walk::Audiences)))
}

fn receipts(conn: &Conn, space: i64, after: &str, line: Stamp, most: i64, dry: bool) -> Done<Step> {
    let found: Vec<(String, i64)> =
        all(conn, RECEIPTS, (space, after, most), |r| Ok((r.get(0)?, r.get(1)?)))?;
    let mut gone = 0;
    for (change, _) in found.iter().filter(|(_, stamp)| *stamp <= line.0) {
        gone += 1;
        if !dry {
            conn.db.prepare_cached(RECEIPT)?.execute((space, change))?;
        }
    }
    let last = found.last().filter(|_| is_full(&found, most));
    Ok((gone, last.map(|(change, _)| Walk::Receipts(change.clone()))))
}

/// A version counts from when it was superseded, not from when it was written.
fn history(conn: &Conn, space: i64, after: i64, line: Stamp, most: i64, dry: bool) -> Done<Step> {
    if line.0 == i64::MIN {
        return Ok((0, None));
    }
    let found: Vec<(i64, i64, i64, i64, String, i64)> = all(conn, HISTORY, (after, most), |r| {
        Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
    })?;
    let mut gone = 0;
    for (no, of, stamp, collection, id, version) in &found {
        if *of != space || *stamp > line.0 {
            continue;
        }
        let at = conn
            .db
            .prepare_cached(SUPERSEDED)?
            .query_row((space, collection, id, version), |r| r.get::<_, Option<i64>>(0))?;
        if at.is_none_or(|at| at <= line.0) {
            gone += 1;
            if !dry {
                conn.db.prepare_cached(VERSION)?.execute([no])?;
            }
        }
    }
    let last = found.last().filter(|_| is_full(&found, most));
    Ok((gone, last.map(|row| Walk::History(row.0))))
}

fn outbox(conn: &Conn, space: i64, after: i64, lines: &Lines, most: i64, dry: bool) -> Done<Step> {
    let row = (space, after, lines.settled.0, most);
    let found: Vec<(i64, bool)> = all(conn, ENTRIES, row, |r| Ok((r.get(0)?, r.get(1)?)))?;
    let mut gone = 0;
    for (seq, _) in found.iter().filter(|(_, is_old)| *is_old) {
        gone += 1;
        if !dry {
            conn.db.prepare_cached(ENTRY)?.execute((space, seq))?;
        }
    }
    let last = found.last().filter(|_| is_full(&found, most));
    Ok((gone, last.map(|(seq, _)| Walk::Outbox(*seq))))
}

fn runs(conn: &Conn, space: i64, lines: &Lines, most: i64, dry: bool) -> Done<Step> {
    let row = (space, lines.settled.0, RUNS_KEPT as i64, if dry { i64::MAX } else { most });
    let found: Vec<i64> = all(conn, RUNS, row, |r| r.get(0))?;
    if !dry {
        for no in &found {
            conn.db.prepare_cached(RUN)?.execute([no])?;
        }
    }
    Ok((found.len() as u64, (!dry && is_full(&found, most)).then_some(Walk::Runs)))
}

fn is_full<T>(found: &[T], most: i64) -> bool {
    found.len() as i64 == most
}

fn all<T>(
    conn: &Conn,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Done<Vec<T>> {
    let mut stmt = conn.db.prepare_cached(sql)?;
    let found = stmt.query_map(params, read)?.collect::<Result<_, _>>()?;
    Ok(found)
}
