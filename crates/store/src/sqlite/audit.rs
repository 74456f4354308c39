//! An audit of the file: every row is read and counted anew.

use super::{
    conn::Conn,
    errors::{Done, corrupt},
    outbox, rows,
    space::Space,
};
use crate::audit::{Audit, Tally};
use ropeway_core::{
    id::{Collection, Epoch, Key, SpaceId},
    outbox::EntryState,
    time::Stamp,
};
use std::collections::BTreeSet;

const EPOCH: &str = "SELECT value FROM rw_meta WHERE name = '@epoch'";
const SPACES: &str = "SELECT id FROM rw_spaces ORDER BY id";
const RECORDS: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    ", collection FROM rw_records WHERE space = ?1 ORDER BY stamp"
);
const HISTORY: &str = "SELECT count(*) FROM rw_history WHERE space = ?1";
const RECEIPTS: &str = "SELECT count(*) FROM rw_receipts WHERE space = ?1";
const BATCHES: &str = "SELECT id FROM rw_batches WHERE space = ?1";
const NEWER: &str = "SELECT count(*) FROM rw_records WHERE space = ?1 AND stamp > ?2";
/// Entries read at once.
const ENTRIES: usize = 1_000;

/// Reads everything, in the caller's transaction.
pub(super) fn audit(conn: &mut Conn) -> Done<Audit> {
    let epoch: String = conn.db.query_row(EPOCH, [], |r| r.get(0))?;
    let spaces: Vec<String> =
        conn.db.prepare(SPACES)?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let mut audit = Audit {
        epoch: Epoch::parse(&epoch).map_err(|bad| corrupt(bad.to_string()))?,
        spaces: Vec::new(),
        faults: Vec::new(),
    };
    for space in spaces {
        let id = SpaceId::parse(&space).map_err(|bad| corrupt(bad.to_string()))?;
        let space = Space::read(conn, &id)?;
        let mut tally = Tally::new(id, space.head, space.digest);
        records(conn, space.no, &mut tally)?;
        tally.history(count(conn, HISTORY, space.no)?);
        tally.receipts(count(conn, RECEIPTS, space.no)?);
        entries(conn, space.no, &mut tally)?;
        let batches: BTreeSet<String> =
            conn.db.prepare(BATCHES)?.query_map([space.no], |r| r.get(0))?.collect::<Result<_, _>>()?;
        let (holding, faults) = tally.close(&batches, space.next_local_id, space.next_entry);
        audit.spaces.push(holding);
        audit.faults.extend(faults);
    }
    Ok(audit)
}

/// How many records of a space are newer than a stamp.
pub(super) fn newer(conn: &Conn, space: &SpaceId, than: Stamp) -> Done<u64> {
    let space = Space::read(conn, space)?.no;
    let found: i64 = conn.db.query_row(NEWER, (space, than.0), |r| r.get(0))?;
    Ok(found.cast_unsigned())
}

fn records(conn: &mut Conn, space: i64, tally: &mut Tally) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare(RECORDS)?;
    let mut at = stmt.query([space])?;
    while let Some(row) = at.next()? {
        let (id, record) = rows::record(db, names, row)?;
        let collection = Collection::trusted(names.name(db, row.get(16)?)?);
        tally.record(&Key { collection, id }, &record);
    }
    Ok(())
}

fn entries(conn: &mut Conn, space: i64, tally: &mut Tally) -> Done<()> {
    use EntryState::*;
    let mut after = i64::MIN;
    loop {
        let all = [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded];
        let page = outbox::list(conn, space, &all, after, ENTRIES)?;
        page.iter().for_each(|entry| tally.entry(entry));
        match page.last().filter(|_| page.len() == ENTRIES) {
            Some(last) => after = last.seq,
            None => return Ok(()),
        }
    }
}

fn count(conn: &Conn, sql: &str, space: i64) -> Done<u64> {
    let found: i64 = conn.db.query_row(sql, [space], |r| r.get(0))?;
    Ok(found.cast_unsigned())
}
