//! Loads what a decision asks for, by cached point lookups; a scan first shows what need not be looked up.

use super::{audience, conn::Conn, errors::Done, outbox, rows, space::Space};
use crate::asking::{put_entry, take_in};
use crate::codes;
use ropeway_core::{
    id::{ChangeId, Collection, DeviceId, Key, RecordId, SpaceId},
    plan::{Keys, Link, Print, Probe, Snapshot},
    receipt::Remembered,
    record::Record,
    time::Stamp,
};
use rusqlite::{Params, Row};
use std::collections::{BTreeSet, HashSet};

const RECORD: &str = concat!(
    "SELECT ",
    rows::record_columns!(),
    " FROM rw_records WHERE space = ?1 AND collection = ?2 AND id = ?3"
);
const RECEIPT: &str = "SELECT content, device, verdict, collection, record, version, stamp, detail
  FROM rw_receipts WHERE space = ?1 AND change = ?2";
const TWINS: &str = "SELECT id, at FROM rw_fingerprints
  WHERE space = ?1 AND collection = ?2 AND print = ?3 AND at BETWEEN ?4 AND ?5";
const LINKS: &str = "SELECT field, child_collection, child FROM rw_links
  WHERE space = ?1 AND parent_collection = ?2 AND parent = ?3";

/// Which ids are there between two. One short scan tells for a whole batch of new ids, which are made in
/// the order of time, that none of them is there; each would else cost a descent of the tree.
const RECORDS_BETWEEN: &str = "SELECT id FROM rw_records
  WHERE space = ?1 AND collection = ?2 AND id BETWEEN ?3 AND ?4 LIMIT ?5";
const RECEIPTS_BETWEEN: &str = "SELECT change FROM rw_receipts
  WHERE space = ?1 AND change BETWEEN ?2 AND ?3 LIMIT ?4";
/// Fewer lookups than this are made one by one.
const SCAN_FROM: usize = 16;

/// Adds what `keys` names to the snapshot.
pub(super) fn load(conn: &mut Conn, space: i64, keys: &Keys, into: &mut Snapshot) -> Done<()> {
    load_records(conn, space, &keys.records, into)?;
    if !keys.shared.is_empty()
        && let Some(shared) = Space::find(conn, &SpaceId::shared())?
    {
        load_records(conn, shared.no, &keys.shared, into)?;
    }
    receipts(conn, space, &keys.receipts, into)?;
    twins(conn, space, &keys.twins, into)?;
    links(conn, space, &keys.links, into)?;
    for record in &keys.audiences {
        let rows = audience::rows_of(conn, space, record)?;
        if !rows.is_empty() {
            into.audiences.insert(record.clone(), rows);
        }
    }
    for reader in &keys.readers {
        let found = audience::subscriptions(conn, space, reader)?;
        if !found.is_empty() {
            into.subscriptions.insert(reader.clone(), found);
        }
    }
    for entry in outbox::of_records(conn, space, &keys.outbox)? {
        put_entry(&mut into.outbox, entry);
    }
    for entry in outbox::by_seq(conn, space, &keys.entries)? {
        put_entry(&mut into.outbox, entry);
    }
    Ok(())
}

/// Adds records to the snapshot, with the survivors of those that are joined.
fn load_records(conn: &mut Conn, space: i64, asked: &BTreeSet<Key>, into: &mut Snapshot) -> Done<()> {
    let likely = likely_records(conn, space, asked)?;
    let mut found = records(conn, space, likely.into_iter())?;
    while !found.is_empty() {
        let survivors = take_in(into, found);
        found = records(conn, space, survivors.iter())?;
    }
    Ok(())
}

/// `asked` without those that a scan shows not to be there.
fn likely_records<'a>(conn: &mut Conn, space: i64, asked: &'a BTreeSet<Key>) -> Done<Vec<&'a Key>> {
    let all: Vec<&Key> = asked.iter().collect();
    let mut likely = Vec::new();
    for group in all.chunk_by(|a, b| a.collection == b.collection) {
        let Some(collection) = conn.names.find(&conn.db, &group[0].collection)? else { continue };
        let (first, last) = (group[0].id.as_str(), group[group.len() - 1].id.as_str());
        let between = |most| (space, collection, first, last, most);
        match scan(conn, RECORDS_BETWEEN, group.len(), between)? {
            Some(there) => likely.extend(group.iter().filter(|k| there.contains(&*k.id))),
            None => likely.extend(group),
        }
    }
    Ok(likely)
}

/// The texts that a scan of a range finds. `None` where too few are asked or too many are there.
fn scan<P: Params>(
    conn: &Conn,
    sql: &str,
    asked: usize,
    params: impl FnOnce(i64) -> P,
) -> Done<Option<HashSet<String>>> {
    let most = asked / 4 + 1;
    if asked < SCAN_FROM {
        return Ok(None);
    }
    let mut stmt = conn.db.prepare_cached(sql)?;
    let found = stmt.query_map(params(most as i64), |r| r.get(0))?.collect::<Result<HashSet<_>, _>>()?;
    Ok((found.len() < most).then_some(found))
}

/// The records among `keys` that exist.
pub(super) fn records<'a>(
    conn: &mut Conn,
    space: i64,
    keys: impl Iterator<Item = &'a Key>,
) -> Done<Vec<(Key, Record)>> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(RECORD)?;
    let mut found = Vec::new();
    for key in keys {
        let Some(collection) = names.find(db, &key.collection)? else { continue };
        let mut at = stmt.query((space, collection, key.id.as_str()))?;
        if let Some(row) = at.next()? {
            found.push((key.clone(), rows::record(db, names, row)?.1));
        }
    }
    Ok(found)
}

fn receipts(conn: &mut Conn, space: i64, asked: &BTreeSet<ChangeId>, into: &mut Snapshot) -> Done<()> {
    let (Some(first), Some(last)) = (asked.first(), asked.last()) else { return Ok(()) };
    let between = |most| (space, first.as_str(), last.as_str(), most);
    let there = scan(conn, RECEIPTS_BETWEEN, asked.len(), between)?;
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(RECEIPT)?;
    for change in asked.iter().filter(|c| there.as_ref().is_none_or(|there| there.contains(c.as_str()))) {
        let mut at = stmt.query((space, change.as_str()))?;
        let Some(row) = at.next()? else { continue };
        let collection = Collection::trusted(names.name(db, row.get(3)?)?);
        let remembered = Remembered {
            change: change.clone(),
            content: row.get::<_, i64>(0)?.cast_unsigned(),
            device: DeviceId::trusted(names.name(db, row.get(1)?)?),
            verdict: codes::verdict(row.get(2)?)?,
            key: Key { collection, id: RecordId::trusted(rows::text(row, 4)?) },
            version: row.get::<_, i64>(5)?.cast_unsigned(),
            stamp: Stamp(row.get(6)?),
            detail: rows::opt_json(row, 7, "a receipt's detail")?.unwrap_or_default(),
        };
        into.receipts.insert(change.clone(), remembered);
    }
    Ok(())
}

fn twins(conn: &mut Conn, space: i64, asked: &BTreeSet<Probe>, into: &mut Snapshot) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(TWINS)?;
    for probe in asked {
        let Some(collection) = names.find(db, &probe.collection)? else { continue };
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let window = (space, collection, probe.print.as_str(), probe.from, probe.to);
        let found: Vec<(String, i64)> = stmt.query_map(window, read)?.collect::<Result<_, _>>()?;
        let print = |(id, at): (String, i64)| Print {
            key: Key { collection: probe.collection.clone(), id: RecordId::trusted(id) },
            print: probe.print.clone(),
            at,
        };
        let mut prints: Vec<Print> = found.into_iter().map(print).collect();
        prints.sort();
        if !prints.is_empty() {
            into.twins.insert(probe.clone(), prints);
        }
    }
    Ok(())
}

fn links(conn: &mut Conn, space: i64, asked: &BTreeSet<Key>, into: &mut Snapshot) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(LINKS)?;
    for parent in asked {
        let Some(collection) = names.find(db, &parent.collection)? else { continue };
        let mut found = Vec::new();
        let mut at = stmt.query((space, collection, parent.id.as_str()))?;
        while let Some(row) = at.next()? {
            let collection = Collection::trusted(names.name(db, row.get(1)?)?);
            let child = Key { collection, id: RecordId::trusted(rows::text(row, 2)?) };
            found.push(Link { parent: parent.clone(), child, field: row.get(0)? });
        }
        found.sort();
        if !found.is_empty() {
            into.links.insert(parent.clone(), found);
        }
    }
    Ok(())
}
