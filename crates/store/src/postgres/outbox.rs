//! The outbox table and the sealed batches.

use super::{
    conn::Tx,
    errors::{Done, bad_json},
    load,
    rows::{opt_json, to_json},
};
use crate::{Counts, codes};
use ropeway_core::{
    change::Base,
    id::{Collection, Epoch, Key, RecordId},
    outbox::{Entry, EntryState},
    plan::Sealed,
    time::{Stamp, Time},
};
use std::collections::BTreeSet;
use tokio_postgres::{Row, types::ToSql};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT o.seq, o.change, o.collection, o.record, o.also, o.own, o.state, o.batch, o.held, o.attempts,
             o.due, o.accepted_at, o.tried_at, o.verdict, o.reason, o.receipt_stamp, o.granted_epoch,
             o.granted_version, o.conflicts FROM ",
            $rest
        )
    };
}
const OF_RECORDS: &str = select!(
    "unnest($2::text[], $3::text[]) AS k (collection, id) CROSS JOIN LATERAL (SELECT * FROM rw_outbox o
     WHERE o.space = $1 AND o.state = ANY ('{0,1,2,3,4}') AND o.collection = k.collection AND o.record = k.id
     OFFSET 0) o ORDER BY o.seq"
);
const BY_SEQ: &str = select!(
    "unnest($2::bigint[]) AS k (seq) CROSS JOIN LATERAL (SELECT * FROM rw_outbox o
     WHERE o.space = $1 AND o.seq = k.seq OFFSET 0) o ORDER BY o.seq"
);
const BY_STATE: &str = select!(
    "rw_outbox o WHERE o.space = $1 AND o.state = ANY ($2::smallint[]) AND o.seq > $3 ORDER BY o.seq LIMIT $4"
);
const REACHED: &str = select!(
    "rw_outbox o WHERE o.space = $1 AND o.state = 4 AND o.receipt_stamp <= $2 ORDER BY o.seq LIMIT $3"
);
const PUT: &str =
    "INSERT INTO rw_outbox (space, seq, change, collection, record, also, own, state, batch, held,
  attempts, due, accepted_at, tried_at, verdict, reason, receipt_stamp, granted_epoch, granted_version,
  conflicts)
  SELECT $1::int, n.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[],
  $8::smallint[], $9::text[], $10::text[], $11::int[], $12::bigint[], $13::bigint[], $14::bigint[],
  $15::smallint[], $16::text[], $17::bigint[], $18::text[], $19::bigint[], $20::text[]) AS n
  ON CONFLICT (space, seq) WHERE seq IS NOT NULL DO UPDATE SET change = excluded.change, collection = excluded.collection,
  record = excluded.record, also = excluded.also, own = excluded.own, state = excluded.state,
  batch = excluded.batch, held = excluded.held, attempts = excluded.attempts, due = excluded.due,
  accepted_at = excluded.accepted_at, tried_at = excluded.tried_at, verdict = excluded.verdict,
  reason = excluded.reason, receipt_stamp = excluded.receipt_stamp, granted_epoch = excluded.granted_epoch,
  granted_version = excluded.granted_version, conflicts = excluded.conflicts";
const COUNTS: &str = "SELECT state, count(*) FROM rw_outbox WHERE space = $1 AND state >= 0
  GROUP BY state ORDER BY state";
const SEAL: &str = "INSERT INTO rw_batches (space, no, id, changes, body)
  SELECT $1::int, coalesce(max(no), 0) + 1, $2, $3, $4 FROM rw_batches WHERE space = $1::int";
const UNSEAL: &str = "DELETE FROM rw_batches WHERE space = $1 AND id = ANY ($2::text[])";
const SEALED: &str = "SELECT id, body, changes FROM rw_batches WHERE space = $1 ORDER BY no LIMIT 1";

/// Adds or replaces entries.
pub(super) async fn put(tx: &Tx, space: i32, entries: &[Entry]) -> Done<()> {
    if entries.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(entries: &'a [Entry], value: impl Fn(&'a Entry) -> T) -> Vec<T> {
        entries.iter().map(value).collect()
    }
    let list = |is: fn(&Entry) -> bool, text: fn(&Entry) -> Done<String>| -> Done<Vec<Option<String>>> {
        entries.iter().map(|e| is(e).then(|| text(e)).transpose()).collect()
    };
    let changes: Vec<String> = entries.iter().map(|e| to_json(&e.change, "a change")).collect::<Done<_>>()?;
    let also = list(|e| !e.also.is_empty(), |e| to_json(&e.also, "touched records"))?;
    let held = list(|e| !e.held.is_empty(), |e| to_json(&e.held, "held fields"))?;
    let reasons = list(|e| e.reason.is_some(), |e| to_json(&e.reason, "a reason"))?;
    let conflicts = list(|e| !e.conflicts.is_empty(), |e| to_json(&e.conflicts, "conflicts"))?;
    let (collections, records) = load::columns(entries.iter().map(|e| &e.over));
    let params: [&(dyn ToSql + Sync); 20] = [
        &space,
        &column(entries, |e| e.seq),
        &changes,
        &collections,
        &records,
        &also,
        &column(entries, |e| e.own),
        &column(entries, |e| codes::of_entry(e.state) as i16),
        &column(entries, |e| e.batch.as_deref()),
        &held,
        &column(entries, |e| e.attempts.cast_signed()),
        &column(entries, |e| e.due.0),
        &column(entries, |e| e.accepted_at.0),
        &column(entries, |e| e.tried_at.map(|t| t.0)),
        &column(entries, |e| e.verdict.map(|v| codes::of_verdict(v) as i16)),
        &reasons,
        &column(entries, |e| e.receipt_stamp.map(|s| s.0)),
        &column(entries, |e| e.granted.as_ref().map(|b| b.epoch.as_str())),
        &column(entries, |e| e.granted.as_ref().map(|b| b.version.cast_signed())),
        &conflicts,
    ];
    tx.execute(PUT, &params).await?;
    Ok(())
}

/// Unsettled entries of these records.
pub(super) async fn of_records(tx: &Tx, space: i32, keys: &BTreeSet<Key>) -> Done<Vec<Entry>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let (collections, ids) = load::columns(keys.iter());
    select(tx, OF_RECORDS, &[&space, &collections, &ids]).await
}

/// Entries by number.
pub(super) async fn by_seq(tx: &Tx, space: i32, seqs: &BTreeSet<i64>) -> Done<Vec<Entry>> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let seqs: Vec<i64> = seqs.iter().copied().collect();
    select(tx, BY_SEQ, &[&space, &seqs]).await
}

/// Entries in these states (empty: all unsettled ones) after a sequence number.
pub(super) async fn list(
    tx: &Tx,
    space: i32,
    states: &[EntryState],
    after: i64,
    limit: usize,
) -> Done<Vec<Entry>> {
    let is_asked = |s: &EntryState| if states.is_empty() { s.is_unsettled() } else { states.contains(s) };
    let asked: Vec<i16> =
        codes::ENTRY.into_iter().filter(is_asked).map(|s| codes::of_entry(s) as i16).collect();
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    select(tx, BY_STATE, &[&space, &asked, &after, &most]).await
}

/// Receipted entries whose stamp the cursor has reached.
pub(super) async fn reached(tx: &Tx, space: i32, cursor: Stamp, limit: usize) -> Done<Vec<Entry>> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    select(tx, REACHED, &[&space, &cursor.0, &most]).await
}

/// How many entries there are in each state, in the order of [`codes::ENTRY`].
pub(super) async fn counts(tx: &Tx, space: i32) -> Done<Counts> {
    let rows = tx.query(COUNTS, &[&space]).await?;
    let read = |row: &Row| {
        let state = codes::entry(row.try_get::<_, i16>(0)?.into())?;
        Ok((state, row.try_get::<_, i64>(1)?.cast_unsigned()))
    };
    rows.iter().map(read).collect()
}

/// Writes sealed batches down and drops answered ones.
pub(super) async fn seal(tx: &Tx, space: i32, sealed: &[Sealed], unsealed: &[String]) -> Done<()> {
    if !unsealed.is_empty() {
        tx.execute(UNSEAL, &[&space, &unsealed]).await?;
    }
    for batch in sealed {
        let changes = i64::try_from(batch.changes).unwrap_or(i64::MAX);
        tx.execute(SEAL, &[&space, &batch.id, &changes, &batch.body]).await?;
    }
    Ok(())
}

/// The oldest batch that is not answered.
pub(super) async fn sealed(tx: &Tx, space: i32) -> Done<Option<Sealed>> {
    let Some(row) = tx.one(SEALED, &[&space]).await? else { return Ok(None) };
    let changes = usize::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
    Ok(Some(Sealed { id: row.try_get(0)?, body: row.try_get(1)?, changes }))
}

async fn select(tx: &Tx, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Done<Vec<Entry>> {
    tx.query(sql, params).await?.iter().map(entry).collect()
}

fn entry(row: &Row) -> Done<Entry> {
    let change: &str = row.try_get(1)?;
    let (collection, id): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
    let granted = match (row.try_get::<_, Option<&str>>(16)?, row.try_get::<_, Option<i64>>(17)?) {
        (Some(epoch), Some(version)) => {
            Some(Base { epoch: Epoch::trusted(epoch), version: version.cast_unsigned() })
        }
        _ => None,
    };
    let verdict = row.try_get::<_, Option<i16>>(13)?;
    Ok(Entry {
        seq: row.try_get(0)?,
        change: serde_json::from_str(change).map_err(|e| bad_json("an outbox entry's change", e))?,
        over: Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) },
        also: opt_json(row, 4, "touched records")?.unwrap_or_default(),
        own: row.try_get(5)?,
        state: codes::entry(row.try_get::<_, i16>(6)?.into())?,
        batch: row.try_get(7)?,
        held: opt_json(row, 8, "held fields")?.unwrap_or_default(),
        attempts: row.try_get::<_, i32>(9)?.cast_unsigned(),
        due: Time(row.try_get(10)?),
        accepted_at: Time(row.try_get(11)?),
        tried_at: row.try_get::<_, Option<i64>>(12)?.map(Time),
        verdict: verdict.map(|code| codes::verdict(code.into())).transpose()?,
        reason: opt_json(row, 14, "a reason")?,
        receipt_stamp: row.try_get::<_, Option<i64>>(15)?.map(Stamp),
        granted,
        conflicts: opt_json(row, 18, "conflicts")?.unwrap_or_default(),
    })
}
