//! The outbox table and the sealed batches.

use super::{
    conn::Conn,
    errors::{Done, bad_json},
    names::Names,
    rows,
};
use crate::{Counts, codes};
use ropeway_core::{
    change::Base,
    id::{Collection, Epoch, Key, RecordId},
    outbox::{Entry, EntryState},
    plan::Sealed,
    time::{Stamp, Time},
};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use std::collections::{BTreeSet, HashMap, HashSet};

macro_rules! columns {
    () => {
        "seq, state, own, batch, attempts, due, accepted_at, tried_at, verdict, reason, receipt_stamp, held, \
         conflicts, change, collection, record, also, granted_epoch, granted_version"
    };
}

const PUT: &str = "INSERT INTO rw_outbox (space, seq, collection, record, state, own, batch, attempts, due,
  accepted_at, tried_at, verdict, reason, receipt_stamp, held, conflicts, change, also, granted_epoch,
  granted_version)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
  ON CONFLICT (space, seq) DO UPDATE SET collection = excluded.collection, record = excluded.record,
  state = excluded.state, own = excluded.own, batch = excluded.batch, attempts = excluded.attempts,
  due = excluded.due, accepted_at = excluded.accepted_at, tried_at = excluded.tried_at,
  verdict = excluded.verdict, reason = excluded.reason, receipt_stamp = excluded.receipt_stamp,
  held = excluded.held, conflicts = excluded.conflicts, change = excluded.change, also = excluded.also,
  granted_epoch = excluded.granted_epoch, granted_version = excluded.granted_version";
/// In no order: [`put_entry`](crate::asking::put_entry) sorts, and a sorter costs more than the look itself.
const OF_RECORD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rw_outbox INDEXED BY rw_outbox_state WHERE space = ?1 AND state IN (0, 1, 2, 3, 4)
      AND collection = ?2 AND record = ?3"
);
/// The records over which something is unsettled. Most pulls find few: one short scan instead of one look a
/// record.
const UNSETTLED: &str = "SELECT collection, record FROM rw_outbox INDEXED BY rw_outbox_state
  WHERE space = ?1 AND state IN (0, 1, 2, 3, 4) LIMIT ?2";
const BY_SEQ: &str = concat!("SELECT ", columns!(), " FROM rw_outbox WHERE space = ?1 AND seq = ?2");
const BY_STATE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rw_outbox INDEXED BY rw_outbox_state
      WHERE space = ?1 AND state = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
);
const REACHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rw_outbox INDEXED BY rw_outbox_state
      WHERE space = ?1 AND state = 4 AND receipt_stamp <= ?2 ORDER BY seq LIMIT ?3"
);
const COUNTS: &str = "SELECT state, count(*) FROM rw_outbox WHERE space = ?1 GROUP BY state";
const SEAL: &str = "INSERT INTO rw_batches (space, id, changes, body) VALUES (?1, ?2, ?3, ?4)";
const UNSEAL: &str = "DELETE FROM rw_batches WHERE space = ?1 AND id = ?2";
const SEALED: &str = "SELECT id, body, changes FROM rw_batches WHERE space = ?1 ORDER BY no LIMIT 1";

/// Adds or replaces entries.
pub(super) fn put(conn: &mut Conn, space: i64, entries: &[Entry]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(PUT)?;
    for entry in entries {
        let reason = entry.reason.as_ref().map(|r| rows::to_json(r, "a reason")).transpose()?;
        let held = some(!entry.held.is_empty(), &entry.held)?;
        let conflicts = some(!entry.conflicts.is_empty(), &entry.conflicts)?;
        let change = rows::to_json(&entry.change, "a change")?;
        let also = some(!entry.also.is_empty(), &entry.also)?;
        let granted = entry.granted.as_ref().map(|b| names.intern(db, &b.epoch)).transpose()?;
        stmt.execute(rusqlite::params![
            space,
            entry.seq,
            names.intern(db, &entry.over.collection)?,
            entry.over.id.as_str(),
            codes::of_entry(entry.state),
            entry.own,
            entry.batch,
            entry.attempts,
            entry.due.0,
            entry.accepted_at.0,
            entry.tried_at.map(|t| t.0),
            entry.verdict.map(codes::of_verdict),
            reason,
            entry.receipt_stamp.map(|s| s.0),
            held,
            conflicts,
            change,
            also,
            granted,
            entry.granted.as_ref().map(|b| b.version.cast_signed())
        ])?;
    }
    Ok(())
}

/// Unsettled entries of these records.
pub(super) fn of_records(conn: &mut Conn, space: i64, keys: &BTreeSet<Key>) -> Done<Vec<Entry>> {
    let mut found = Vec::new();
    if keys.is_empty() {
        return Ok(found);
    }
    let unsettled = unsettled(conn, space, keys.len())?;
    if unsettled.as_ref().is_some_and(HashMap::is_empty) {
        return Ok(found);
    }
    for key in keys {
        let Some(no) = conn.names.find(&conn.db, &key.collection)? else { continue };
        let is_there = |all: &Unsettled| all.get(&no).is_some_and(|ids| ids.contains(&*key.id));
        if unsettled.as_ref().is_none_or(is_there) {
            select(conn, OF_RECORD, (space, no, key.id.as_str()), &mut found)?;
        }
    }
    Ok(found)
}

/// The ids of records by collection.
type Unsettled = HashMap<i64, HashSet<String>>;

/// The records over which something is unsettled. `None` where there are more than `most` entries.
fn unsettled(conn: &Conn, space: i64, most: usize) -> Done<Option<Unsettled>> {
    let limit = i64::try_from(most + 1).unwrap_or(i64::MAX);
    let mut stmt = conn.db.prepare_cached(UNSETTLED)?;
    let mut at = stmt.query((space, limit))?;
    let (mut found, mut entries) = (Unsettled::new(), 0);
    while let Some(row) = at.next()? {
        entries += 1;
        found.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok((entries <= most).then_some(found))
}

/// Entries by number.
pub(super) fn by_seq(conn: &mut Conn, space: i64, seqs: &BTreeSet<i64>) -> Done<Vec<Entry>> {
    let mut found = Vec::new();
    for seq in seqs {
        select(conn, BY_SEQ, (space, seq), &mut found)?;
    }
    Ok(found)
}

/// Entries in these states (empty: all unsettled ones) after a sequence number.
pub(super) fn list(
    conn: &mut Conn,
    space: i64,
    states: &[EntryState],
    after: i64,
    limit: usize,
) -> Done<Vec<Entry>> {
    let unsettled: Vec<EntryState> = codes::ENTRY.into_iter().filter(|s| s.is_unsettled()).collect();
    let mut states = if states.is_empty() { unsettled } else { states.to_vec() };
    states.sort_by_key(|s| codes::of_entry(*s));
    states.dedup();
    let mut found = Vec::new();
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    for state in states {
        select(conn, BY_STATE, (space, codes::of_entry(state), after, most), &mut found)?;
    }
    found.sort_by_key(|e| e.seq);
    found.truncate(limit);
    Ok(found)
}

/// Receipted entries whose stamp the cursor has reached.
pub(super) fn reached(conn: &mut Conn, space: i64, cursor: Stamp, limit: usize) -> Done<Vec<Entry>> {
    let mut found = Vec::new();
    select(conn, REACHED, (space, cursor.0, i64::try_from(limit).unwrap_or(i64::MAX)), &mut found)?;
    Ok(found)
}

/// How many entries there are in each state, in the order of [`codes::ENTRY`].
pub(super) fn counts(conn: &Conn, space: i64) -> Done<Counts> {
    let mut stmt = conn.db.prepare_cached(COUNTS)?;
    let mut at = stmt.query([space])?;
    let mut counts = Counts::new();
    while let Some(row) = at.next()? {
        counts.push((codes::entry(row.get(0)?)?, row.get::<_, i64>(1)?.cast_unsigned()));
    }
    Ok(counts)
}

/// Writes sealed batches down and drops answered ones.
pub(super) fn seal(conn: &Conn, space: i64, sealed: &[Sealed], unsealed: &[String]) -> Done<()> {
    for id in unsealed {
        conn.db.prepare_cached(UNSEAL)?.execute((space, id))?;
    }
    for batch in sealed {
        let changes = i64::try_from(batch.changes).unwrap_or(i64::MAX);
        conn.db.prepare_cached(SEAL)?.execute((space, &batch.id, changes, &batch.body))?;
    }
    Ok(())
}

/// The oldest batch that is not answered.
pub(super) fn sealed(conn: &Conn, space: i64) -> Done<Option<Sealed>> {
    let read = |r: &Row<'_>| {
        let changes: i64 = r.get(2)?;
        Ok(Sealed { id: r.get(0)?, body: r.get(1)?, changes: usize::try_from(changes).unwrap_or(0) })
    };
    Ok(conn.db.prepare_cached(SEALED)?.query_row([space], read).optional()?)
}

fn select(conn: &mut Conn, sql: &str, params: impl Params, into: &mut Vec<Entry>) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(sql)?;
    let mut at = stmt.query(params)?;
    while let Some(row) = at.next()? {
        into.push(entry(db, names, row)?);
    }
    Ok(())
}

fn entry(db: &Connection, names: &mut Names, row: &Row<'_>) -> Done<Entry> {
    let change = rows::text(row, 13)?;
    let collection = Collection::trusted(names.name(db, row.get(14)?)?);
    let granted = match row.get::<_, Option<i64>>(17)? {
        None => None,
        Some(epoch) => Some(Base {
            epoch: Epoch::trusted(names.name(db, epoch)?),
            version: row.get::<_, i64>(18)?.cast_unsigned(),
        }),
    };
    Ok(Entry {
        seq: row.get(0)?,
        change: serde_json::from_str(&change).map_err(|e| bad_json("an outbox entry's change", e))?,
        over: Key { collection, id: RecordId::trusted(rows::text(row, 15)?) },
        also: rows::opt_json(row, 16, "touched records")?.unwrap_or_default(),
        granted,
        own: row.get(2)?,
        state: codes::entry(row.get(1)?)?,
        batch: row.get(3)?,
        held: rows::opt_json(row, 11, "held fields")?.unwrap_or_default(),
        attempts: row.get(4)?,
        due: Time(row.get(5)?),
        accepted_at: Time(row.get(6)?),
        tried_at: row.get::<_, Option<i64>>(7)?.map(Time),
        verdict: row.get::<_, Option<i64>>(8)?.map(codes::verdict).transpose()?,
        reason: rows::opt_json(row, 9, "a reason")?,
        receipt_stamp: row.get::<_, Option<i64>>(10)?.map(Stamp),
        conflicts: rows::opt_json(row, 12, "conflicts")?.unwrap_or_default(),
    })
}

fn some<T: serde::Serialize>(is: bool, value: &T) -> Done<Option<String>> {
    is.then(|| rows::to_json(value, "a list")).transpose()
}
