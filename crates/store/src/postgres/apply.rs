//! Writes a plan: one statement a table, however large the plan, all of them on their way together.

use super::{
    audience,
    conn::{Tx, together},
    errors::Done,
    load, outbox,
    rows::{self, of_state, to_json},
    space::Space,
};
use crate::{
    asking::{fault, is_idle},
    codes,
};
use ropeway_core::{
    id::Key,
    plan::{Link, Plan, Print, Row},
    receipt::Remembered,
    record::Record,
};
use std::collections::BTreeMap;
use tokio_postgres::types::ToSql;

macro_rules! columns {
    () => {
        "state, contested, local_id, version, stamp, modified_at, collection, id, joined_into, owner, author, \
         person, up_epoch, up_version, up_held, marks, data"
    };
}
macro_rules! given {
    () => {
        "unnest($2::smallint[], $3::bool[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[],
         $16::text[], $17::text[], $18::text[])"
    };
}
const ADD: &str =
    concat!("INSERT INTO rw_records (space, ", columns!(), ") SELECT $1::int, n.* FROM ", given!(), " AS n");
const KEEP: &str =
    concat!("INSERT INTO rw_history (space, ", columns!(), ") SELECT $1::int, n.* FROM ", given!(), " AS n");
const CHANGE: &str = concat!(
    "UPDATE rw_records r SET state = n.state, contested = n.contested, version = n.version, stamp = n.stamp,
     modified_at = n.modified_at, joined_into = n.joined_into, owner = n.owner, author = n.author,
     person = n.person, up_epoch = n.up_epoch, up_version = n.up_version, up_held = n.up_held,
     marks = n.marks, data = n.data FROM (SELECT $1::int AS space, n.* FROM ",
    given!(),
    " AS n (",
    columns!(),
    ") ",
    rows::few!(),
    ") n WHERE r.space = n.space AND r.collection = n.collection AND r.id = n.id AND r.local_id = n.local_id"
);
/// Rows whose stamp stays: no reader is told, so nothing that a reader sees may move.
const QUIET: &str = concat!(
    "UPDATE rw_records r SET contested = n.contested, owner = n.owner, up_epoch = n.up_epoch,
     up_version = n.up_version, up_held = n.up_held, marks = n.marks FROM (SELECT $1::int AS space, n.* FROM ",
    given!(),
    " AS n (",
    columns!(),
    ") ",
    rows::few!(),
    ") n WHERE r.space = n.space AND r.collection = n.collection AND r.id = n.id AND r.stamp = n.stamp"
);
const FORGET: &str = concat!(
    "DELETE FROM rw_records r USING (SELECT $1::int AS space, k.*
     FROM unnest($2::text[], $3::text[]) AS k (collection, id) ",
    rows::few!(),
    ") k WHERE r.space = k.space AND r.collection = k.collection AND r.id = k.id"
);
const FORGET_PAST: &str = concat!(
    "DELETE FROM rw_history h USING (SELECT $1::int AS space, k.*
     FROM unnest($2::text[], $3::text[]) AS k (collection, id) ",
    rows::few!(),
    ") k WHERE h.space = k.space AND h.collection = k.collection AND h.id = k.id"
);
const RECEIPTS: &str = "INSERT INTO rw_receipts
  (space, change, content, device, verdict, collection, record, version, stamp, detail)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::bigint[], $4::text[], $5::smallint[], $6::text[], $7::text[],
  $8::bigint[], $9::bigint[], $10::text[]) AS n";
pub(super) const PRINTS_GONE: &str = concat!(
    "DELETE FROM rw_fingerprints f USING (SELECT $1::int AS space, k.*
     FROM unnest($2::text[], $3::text[]) AS k (collection, id) ",
    rows::few!(),
    ") k WHERE f.space = k.space AND f.collection = k.collection AND f.id = k.id"
);
const PRINTS: &str = "INSERT INTO rw_fingerprints (space, collection, print, at, id)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) AS n ON CONFLICT DO NOTHING";
const LINKS_GONE: &str = concat!(
    "DELETE FROM rw_links l USING (SELECT $1::int AS space, n.*
     FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS n (pc, p, field, cc, c) ",
    rows::few!(),
    ") n WHERE l.space = n.space AND l.parent_collection = n.pc AND l.parent = n.p AND l.field = n.field
     AND l.child_collection = n.cc AND l.child = n.c"
);
const LINKS: &str = "INSERT INTO rw_links (space, parent_collection, parent, field, child_collection, child)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS n
  ON CONFLICT DO NOTHING";

/// Writes `plan` and moves `space`, which the caller saves. New rows get their local ids in the plan too.
pub(super) async fn apply(tx: &Tx, space: &mut Space, plan: &mut Plan) -> Done<bool> {
    if is_idle(plan, space.head) {
        return Ok(false);
    }
    number(space, &mut plan.rows);
    let plan = &*plan;
    let rows = last_of_each(&plan.rows);
    let (mut new, mut changed, mut quiet) = (Columns::default(), Columns::default(), Columns::default());
    for (row, is_new) in rows {
        let among = match (is_new, row.record.stamp <= space.head) {
            (true, _) => &mut new,
            (false, true) => &mut quiet,
            (false, false) => &mut changed,
        };
        among.push(&row.key, &row.record)?;
    }
    let mut kept = Columns::default();
    for was in &plan.history {
        kept.push(&was.key, &was.record)?;
    }
    forget(tx, space.no, &plan.forget).await?;
    prints_gone(tx, space.no, &plan.prints_gone).await?;
    links(tx, space.no, LINKS_GONE, &plan.links_gone).await?;
    together!(
        new: new.write(tx, space.no, ADD),
        changed: changed.write(tx, space.no, CHANGE),
        quiet: quiet.write(tx, space.no, QUIET),
        kept: kept.write(tx, space.no, KEEP),
        receipts: receipts(tx, space.no, &plan.receipts),
        prints: prints(tx, space.no, &plan.prints),
        links: links(tx, space.no, LINKS, &plan.links),
        audiences: audience::apply(tx, space.no, plan),
        outbox: outbox::put(tx, space.no, &plan.outbox),
        batches: outbox::seal(tx, space, &plan.sealed, &plan.unsealed),
    )?;
    space.head = plan.head;
    space.digest.count += plan.digest.count;
    space.digest.sum = space.digest.sum.wrapping_add(plan.digest.sum);
    let last = plan.outbox.iter().map(|e| e.seq).max().unwrap_or(0);
    space.next_entry = space.next_entry.max(last + 1);
    Ok(true)
}

/// Gives new rows their local ids; a record made and changed in one plan has that of its first row.
fn number(space: &mut Space, rows: &mut [Row]) {
    let mut given: BTreeMap<Key, i64> = BTreeMap::new();
    for row in rows {
        if row.is_new {
            row.record.local_id = space.next_local_id;
            space.next_local_id += 1;
            given.insert(row.key.clone(), row.record.local_id);
        } else if row.record.local_id == 0 {
            row.record.local_id = given.get(&row.key).copied().unwrap_or(0);
        }
    }
}

/// One statement writes a row once: of several rows of a record the last one counts. With each, whether
/// the record is new.
fn last_of_each(rows: &[Row]) -> Vec<(&Row, bool)> {
    let mut last: BTreeMap<&Key, (&Row, bool)> = BTreeMap::new();
    for row in rows {
        let is_new = row.is_new || last.get(&row.key).is_some_and(|(_, is_new)| *is_new);
        last.insert(&row.key, (row, is_new));
    }
    last.into_values().collect()
}

/// Records as columns.
#[derive(Default)]
struct Columns<'a> {
    state: Vec<i16>,
    contested: Vec<bool>,
    local_id: Vec<i64>,
    version: Vec<i64>,
    stamp: Vec<i64>,
    modified_at: Vec<i64>,
    collection: Vec<&'a str>,
    id: Vec<&'a str>,
    joined_into: Vec<Option<&'a str>>,
    owner: Vec<&'a str>,
    author: Vec<&'a str>,
    person: Vec<Option<&'a str>>,
    up_epoch: Vec<Option<&'a str>>,
    up_version: Vec<Option<i64>>,
    up_held: Vec<Option<String>>,
    marks: Vec<Option<String>>,
    data: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, key: &'a Key, record: &'a Record) -> Done<()> {
        let (state, joined_into) = of_state(&record.state);
        let upstream = record.upstream.as_ref();
        let held = upstream.and_then(|u| u.held.as_ref()).map(|h| to_json(h, "upstream data")).transpose()?;
        let marks = (!record.marks.is_empty()).then(|| to_json(&record.marks, "marks")).transpose()?;
        self.state.push(state);
        self.contested.push(record.contested);
        self.local_id.push(record.local_id);
        self.version.push(record.version.cast_signed());
        self.stamp.push(record.stamp.0);
        self.modified_at.push(record.modified_at.0);
        self.collection.push(&key.collection);
        self.id.push(&key.id);
        self.joined_into.push(joined_into);
        self.owner.push(&record.owner);
        self.author.push(&record.author.device);
        self.person.push(record.author.person.as_deref());
        self.up_epoch.push(upstream.map(|u| u.epoch.as_str()));
        self.up_version.push(upstream.map(|u| u.version.cast_signed()));
        self.up_held.push(held);
        self.marks.push(marks);
        self.data.push(record.data.text());
        Ok(())
    }

    /// Runs a statement over the rows: each must find its place.
    async fn write(&self, tx: &Tx, space: i32, sql: &'static str) -> Done<()> {
        if self.id.is_empty() {
            return Ok(());
        }
        let params: [&(dyn ToSql + Sync); 18] = [
            &space,
            &self.state,
            &self.contested,
            &self.local_id,
            &self.version,
            &self.stamp,
            &self.modified_at,
            &self.collection,
            &self.id,
            &self.joined_into,
            &self.owner,
            &self.author,
            &self.person,
            &self.up_epoch,
            &self.up_version,
            &self.up_held,
            &self.marks,
            &self.data,
        ];
        let (wrote, asked) = (tx.execute(sql, &params).await?, self.id.len());
        match usize::try_from(wrote) == Ok(asked) {
            true => Ok(()),
            false => Err(fault(format!("{wrote} of {asked} rows do not fit what is there"))),
        }
    }
}

async fn forget(tx: &Tx, space: i32, keys: &[Key]) -> Done<()> {
    if !keys.is_empty() {
        let (collections, ids) = load::columns(keys.iter());
        tx.execute(FORGET, &[&space, &collections, &ids]).await?;
        tx.execute(FORGET_PAST, &[&space, &collections, &ids]).await?;
    }
    Ok(())
}

async fn receipts(tx: &Tx, space: i32, receipts: &[Remembered]) -> Done<()> {
    if receipts.is_empty() {
        return Ok(());
    }
    let detail = |r: &Remembered| match r.detail.is_empty() {
        true => Ok(None),
        false => to_json(&r.detail, "a receipt's detail").map(Some),
    };
    let details: Vec<Option<String>> = receipts.iter().map(detail).collect::<Done<_>>()?;
    let changes: Vec<&str> = receipts.iter().map(|r| r.change.as_str()).collect();
    let contents: Vec<i64> = receipts.iter().map(|r| r.content.cast_signed()).collect();
    let devices: Vec<&str> = receipts.iter().map(|r| r.device.as_str()).collect();
    let verdicts: Vec<i16> = receipts.iter().map(|r| codes::of_verdict(r.verdict) as i16).collect();
    let (collections, records) = load::columns(receipts.iter().map(|r| &r.key));
    let versions: Vec<i64> = receipts.iter().map(|r| r.version.cast_signed()).collect();
    let stamps: Vec<i64> = receipts.iter().map(|r| r.stamp.0).collect();
    let params: [&(dyn ToSql + Sync); 10] = [
        &space,
        &changes,
        &contents,
        &devices,
        &verdicts,
        &collections,
        &records,
        &versions,
        &stamps,
        &details,
    ];
    tx.execute(RECEIPTS, &params).await?;
    Ok(())
}

async fn prints_gone(tx: &Tx, space: i32, gone: &[Key]) -> Done<()> {
    if !gone.is_empty() {
        let (collections, ids) = load::columns(gone.iter());
        tx.execute(PRINTS_GONE, &[&space, &collections, &ids]).await?;
    }
    Ok(())
}

async fn prints(tx: &Tx, space: i32, added: &[Print]) -> Done<()> {
    if !added.is_empty() {
        let (collections, ids) = load::columns(added.iter().map(|p| &p.key));
        let prints: Vec<&str> = added.iter().map(|p| p.print.as_str()).collect();
        let times: Vec<i64> = added.iter().map(|p| p.at).collect();
        tx.execute(PRINTS, &[&space, &collections, &prints, &times, &ids]).await?;
    }
    Ok(())
}

async fn links(tx: &Tx, space: i32, sql: &'static str, links: &[Link]) -> Done<()> {
    if !links.is_empty() {
        let (parent_collections, parents) = load::columns(links.iter().map(|l| &l.parent));
        let (child_collections, children) = load::columns(links.iter().map(|l| &l.child));
        let fields: Vec<&str> = links.iter().map(|l| l.field.as_str()).collect();
        let params: [&(dyn ToSql + Sync); 6] =
            [&space, &parent_collections, &parents, &fields, &child_collections, &children];
        tx.execute(sql, &params).await?;
    }
    Ok(())
}
