//! An audit of the database: every row is read and counted anew.

use super::{
    conn::Tx,
    errors::{Done, corrupt},
    outbox, rows,
    space::Space,
};
use crate::audit::{Audit, Tally};
use ropeway_core::{
    id::{Epoch, SpaceId},
    outbox::EntryState,
    time::Stamp,
};
use std::collections::BTreeSet;

const EPOCH: &str = "SELECT value FROM rw_meta WHERE name = '@epoch'";
const SPACES: &str = "SELECT id FROM rw_spaces ORDER BY id";
const RECORDS: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_records r WHERE r.space = $1 AND r.stamp > $2 ORDER BY r.stamp LIMIT $3"
);
const HISTORY: &str = "SELECT count(*) FROM rw_history WHERE space = $1 AND id >= ''";
const RECEIPTS: &str = "SELECT count(*) FROM rw_receipts WHERE space = $1";
const BATCHES: &str = "SELECT id FROM rw_batches WHERE space = $1";
const NEWER: &str = "SELECT count(*) FROM rw_records WHERE space = $1 AND stamp > $2";
/// Rows read at once.
const PAGE: usize = 1_000;

/// Reads everything, in the caller's transaction.
pub(super) async fn audit(tx: &Tx) -> Done<Audit> {
    let epoch: String = match tx.one(EPOCH, &[]).await? {
        Some(row) => row.try_get(0)?,
        None => return Err(corrupt("the database has no epoch")),
    };
    let mut audit = Audit {
        epoch: Epoch::parse(&epoch).map_err(|bad| corrupt(bad.to_string()))?,
        spaces: Vec::new(),
        faults: Vec::new(),
    };
    for row in tx.query(SPACES, &[]).await? {
        let id = SpaceId::parse(row.try_get(0)?).map_err(|bad| corrupt(bad.to_string()))?;
        let space = Space::read(tx, &id).await?;
        let mut tally = Tally::new(id, space.head, space.digest);
        records(tx, space.no, &mut tally).await?;
        if let Some(row) = tx.one(HISTORY, &[&space.no]).await? {
            tally.history(row.try_get::<_, i64>(0)?.cast_unsigned());
        }
        if let Some(row) = tx.one(RECEIPTS, &[&space.no]).await? {
            tally.receipts(row.try_get::<_, i64>(0)?.cast_unsigned());
        }
        entries(tx, space.no, &mut tally).await?;
        let batches = tx.query(BATCHES, &[&space.no]).await?;
        let batches: BTreeSet<String> = batches.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let (holding, faults) = tally.close(&batches, space.next_local_id, space.next_entry);
        audit.spaces.push(holding);
        audit.faults.extend(faults);
    }
    Ok(audit)
}

/// How many records of a space are newer than a stamp.
pub(super) async fn newer(tx: &Tx, space: &SpaceId, than: Stamp) -> Done<u64> {
    let space = Space::read(tx, space).await?.no;
    match tx.one(NEWER, &[&space, &than.0]).await? {
        Some(row) => Ok(row.try_get::<_, i64>(0)?.cast_unsigned()),
        None => Ok(0),
    }
}

async fn records(tx: &Tx, space: i32, tally: &mut Tally) -> Done<()> {
    let mut after = i64::MIN;
    loop {
        let page = tx.query(RECORDS, &[&space, &after, &(PAGE as i64)]).await?;
        for row in &page {
            let (key, record) = rows::record(row)?;
            after = record.stamp.0;
            tally.record(&key, &record);
        }
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

async fn entries(tx: &Tx, space: i32, tally: &mut Tally) -> Done<()> {
    use EntryState::*;
    let all = [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded];
    let mut after = i64::MIN;
    loop {
        let page = outbox::list(tx, space, &all, after, PAGE).await?;
        page.iter().for_each(|entry| tally.entry(entry));
        match page.last().filter(|_| page.len() == PAGE) {
            Some(last) => after = last.seq,
            None => return Ok(()),
        }
    }
}
