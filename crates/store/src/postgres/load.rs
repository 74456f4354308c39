//! Loads what a decision asks for: one statement a kind, however much is asked.
//!
//! `OFFSET 0` keeps a lookup by keys what it is, one descent of the index for each: turned round, it would read
//! the whole space and look for each row among the keys.

use super::{
    audience,
    conn::{Tx, together},
    errors::Done,
    outbox, rows,
};
use crate::{
    asking::{put_entry, take_in},
    codes,
};
use ropeway_core::{
    id::{ChangeId, Collection, DeviceId, Key, RecordId, SpaceId},
    plan::{Keys, Link, Print, Probe, Snapshot},
    receipt::Remembered,
    record::Record,
    time::Stamp,
};
use std::collections::BTreeSet;

macro_rules! records {
    ($space:literal) => {
        concat!(
            "SELECT ",
            rows::record_columns!(),
            " FROM unnest($2::text[], $3::text[]) AS k (collection, id) CROSS JOIN LATERAL (SELECT *
              FROM rw_records r WHERE r.space = ",
            $space,
            " AND r.collection = k.collection AND r.id = k.id OFFSET 0) r"
        )
    };
}
const RECORDS: &str = records!("$1");
const SHARED: &str = records!("(SELECT no FROM rw_spaces WHERE id = $1)");
const RECEIPTS: &str = "SELECT r.change, r.content, r.device, r.verdict, r.collection, r.record, r.version,
  r.stamp, r.detail FROM unnest($2::text[]) AS k (change)
  CROSS JOIN LATERAL (SELECT * FROM rw_receipts r WHERE r.space = $1 AND r.change = k.change OFFSET 0) r";
const TWINS: &str = "SELECT k.no, f.id, f.at
  FROM unnest($2::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) AS k (no, collection, print, a, z)
  CROSS JOIN LATERAL (SELECT * FROM rw_fingerprints f WHERE f.space = $1 AND f.collection = k.collection
    AND f.print = k.print AND f.at BETWEEN k.a AND k.z OFFSET 0) f";
const LINKS: &str = "SELECT l.parent_collection, l.parent, l.field, l.child_collection, l.child
  FROM unnest($2::text[], $3::text[]) AS k (collection, id)
  CROSS JOIN LATERAL (SELECT * FROM rw_links l
    WHERE l.space = $1 AND l.parent_collection = k.collection AND l.parent = k.id OFFSET 0) l";

/// Adds what `keys` names to the snapshot. The reads travel together.
pub(super) async fn load(tx: &Tx, space: i32, keys: &Keys, into: &mut Snapshot) -> Done<()> {
    let (found, beside, receipts, twins, links, over, by_seq, audiences, readers) = together!(
        found: records(tx, space, keys.records.iter()),
        beside: shared(tx, keys.shared.iter()),
        receipts: receipts(tx, space, &keys.receipts),
        twins: twins(tx, space, &keys.twins),
        links: links(tx, space, &keys.links),
        over: outbox::of_records(tx, space, &keys.outbox),
        by_seq: outbox::by_seq(tx, space, &keys.entries),
        audiences: audience::rows_of(tx, space, keys.audiences.iter()),
        readers: audience::subscriptions(tx, space, keys.readers.iter()),
    )?;
    let mut survivors = take_in(into, found);
    while !survivors.is_empty() {
        let found = records(tx, space, survivors.iter()).await?;
        survivors = take_in(into, found);
    }
    let mut survivors = take_in(into, beside);
    while !survivors.is_empty() {
        survivors = take_in(into, shared(tx, survivors.iter()).await?);
    }
    into.receipts.extend(receipts.into_iter().map(|r| (r.change.clone(), r)));
    for (probe, print) in twins {
        into.twins.entry(probe).or_default().push(print);
    }
    into.twins.values_mut().for_each(|prints| prints.sort());
    for link in links {
        into.links.entry(link.parent.clone()).or_default().push(link);
    }
    into.links.values_mut().for_each(|links| links.sort());
    for entry in over.into_iter().chain(by_seq) {
        put_entry(&mut into.outbox, entry);
    }
    for row in audiences {
        into.audiences.entry(row.record.clone()).or_default().push(row);
    }
    for one in readers {
        into.subscriptions.entry(one.reader.clone()).or_default().push(one);
    }
    Ok(())
}

/// Keys as two columns.
pub(super) fn columns<'a>(keys: impl Iterator<Item = &'a Key>) -> (Vec<&'a str>, Vec<&'a str>) {
    keys.map(|key| (key.collection.as_str(), key.id.as_str())).unzip()
}

/// The records among `keys` that exist.
pub(super) async fn records(
    tx: &Tx,
    space: i32,
    keys: impl Iterator<Item = &Key>,
) -> Done<Vec<(Key, Record)>> {
    let (collections, ids) = columns(keys);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    tx.query(RECORDS, &[&space, &collections, &ids]).await?.iter().map(rows::record).collect()
}

/// The records of the app's shared space among `keys` that exist.
async fn shared(tx: &Tx, keys: impl Iterator<Item = &Key>) -> Done<Vec<(Key, Record)>> {
    let (collections, ids) = columns(keys);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let space = SpaceId::shared();
    tx.query(SHARED, &[&space.as_str(), &collections, &ids]).await?.iter().map(rows::record).collect()
}

async fn receipts(tx: &Tx, space: i32, asked: &BTreeSet<ChangeId>) -> Done<Vec<Remembered>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let changes: Vec<&str> = asked.iter().map(|c| c.as_str()).collect();
    let read = |row: &tokio_postgres::Row| {
        let text = |at: usize| row.try_get::<_, &str>(at);
        Ok(Remembered {
            change: ChangeId::trusted(text(0)?),
            content: row.try_get::<_, i64>(1)?.cast_unsigned(),
            device: DeviceId::trusted(text(2)?),
            verdict: codes::verdict(row.try_get::<_, i16>(3)?.into())?,
            key: Key { collection: Collection::trusted(text(4)?), id: RecordId::trusted(text(5)?) },
            version: row.try_get::<_, i64>(6)?.cast_unsigned(),
            stamp: Stamp(row.try_get(7)?),
            detail: rows::opt_json(row, 8, "a receipt's detail")?.unwrap_or_default(),
        })
    };
    tx.query(RECEIPTS, &[&space, &changes]).await?.iter().map(read).collect()
}

async fn twins(tx: &Tx, space: i32, asked: &BTreeSet<Probe>) -> Done<Vec<(Probe, Print)>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let probes: Vec<&Probe> = asked.iter().collect();
    let numbers: Vec<i32> = (0..).take(probes.len()).collect();
    let collections: Vec<&str> = probes.iter().map(|p| p.collection.as_str()).collect();
    let prints: Vec<&str> = probes.iter().map(|p| p.print.as_str()).collect();
    let (from, to): (Vec<i64>, Vec<i64>) = probes.iter().map(|p| (p.from, p.to)).unzip();
    let rows = tx.query(TWINS, &[&space, &numbers, &collections, &prints, &from, &to]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let place = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
        let Some(probe) = probes.get(place) else { continue };
        let id = RecordId::trusted(row.try_get::<_, &str>(1)?);
        let key = Key { collection: probe.collection.clone(), id };
        found.push(((*probe).clone(), Print { key, print: probe.print.clone(), at: row.try_get(2)? }));
    }
    Ok(found)
}

async fn links(tx: &Tx, space: i32, asked: &BTreeSet<Key>) -> Done<Vec<Link>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let (collections, ids) = columns(asked.iter());
    let read = |row: &tokio_postgres::Row| {
        let key = |at: usize| -> Done<Key> {
            let (collection, id): (&str, &str) = (row.try_get(at)?, row.try_get(at + 1)?);
            Ok(Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) })
        };
        Ok(Link { parent: key(0)?, field: row.try_get(2)?, child: key(3)? })
    };
    tx.query(LINKS, &[&space, &collections, &ids]).await?.iter().map(read).collect()
}
