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
/// Rows as [`Columns`] binds them: a column that is the same everywhere has one value, or none where it is null.
macro_rules! given {
    () => {
        "(SELECT coalesce(g.state, ($2::smallint[])[1]), coalesce(g.contested, ($3::bool[])[1]), g.local_id,
          coalesce(g.version, ($5::bigint[])[1]), g.stamp, coalesce(g.modified_at, ($7::bigint[])[1]),
          coalesce(g.collection, ($8::text[])[1]), g.id, g.joined_into, coalesce(g.owner, ($11::text[])[1]),
          coalesce(g.author, ($12::text[])[1]), g.person, g.up_epoch, g.up_version, g.up_held, g.marks, g.data
          FROM unnest($2::smallint[], $3::bool[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
          $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[],
          $16::text[], $17::text[], $18::text[]) AS g (state, contested, local_id, version, stamp, modified_at,
          collection, id, joined_into, owner, author, person, up_epoch, up_version, up_held, marks, data))"
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
const FORGET: &str = rows::delete!(
    "rw_records",
    "$2::text[], $3::text[]",
    "collection, id",
    "r.collection = k.collection AND r.id = k.id"
);
const FORGET_PAST: &str = rows::delete!(
    "rw_history",
    "$2::text[], $3::text[]",
    "collection, id",
    "r.collection = k.collection AND r.id = k.id"
);
const RECEIPTS: &str = "INSERT INTO rw_receipts
  (space, change, content, device, verdict, collection, record, version, stamp, detail)
  SELECT $1::int, n.change, n.content, coalesce(n.device, ($4::text[])[1]),
  coalesce(n.verdict, ($5::smallint[])[1]), coalesce(n.collection, ($6::text[])[1]), n.record,
  coalesce(n.version, ($8::bigint[])[1]), n.stamp, n.detail
  FROM unnest($2::text[], $3::bigint[], $4::text[], $5::smallint[], $6::text[], $7::text[], $8::bigint[],
  $9::bigint[], $10::text[]) AS n (change, content, device, verdict, collection, record, version, stamp, detail)";
pub(super) const PRINTS_GONE: &str = rows::delete!(
    "rw_fingerprints",
    "$2::text[], $3::text[]",
    "collection, id",
    "r.collection = k.collection AND r.id = k.id"
);
const PRINTS: &str = "INSERT INTO rw_fingerprints (space, collection, print, at, id)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) AS n ON CONFLICT DO NOTHING";
const LINKS_GONE: &str = rows::delete!(
    "rw_links",
    "$2::text[], $3::text[], $4::text[], $5::text[], $6::text[]",
    "parent_collection, parent, field, child_collection, child",
    "r.parent_collection = k.parent_collection AND r.parent = k.parent AND r.field = k.field
     AND r.child_collection = k.child_collection AND r.child = k.child"
);
const LINKS: &str = "INSERT INTO rw_links (space, parent_collection, parent, field, child_collection, child)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS n
  ON CONFLICT DO NOTHING";

/// Writes `plan` and moves `space`, which the caller saves. Whether there was anything to write.
pub(super) async fn apply(tx: &Tx, space: &mut Space, plan: &mut Plan) -> Done<bool> {
    let Some(before) = enter(space, plan) else { return Ok(false) };
    write(tx, &before, plan).await?;
    Ok(true)
}

/// Moves `space` to where it is after `plan`, in which new rows get their local ids. Where it was, unless
/// there is nothing to write.
pub(super) fn enter(space: &mut Space, plan: &mut Plan) -> Option<Space> {
    if is_idle(plan, space.head) {
        return None;
    }
    let before = space.clone();
    number(space, &mut plan.rows);
    space.head = plan.head;
    space.digest.count += plan.digest.count;
    space.digest.sum = space.digest.sum.wrapping_add(plan.digest.sum);
    let last = plan.outbox.iter().map(|e| e.seq).max().unwrap_or(0);
    space.next_entry = space.next_entry.max(last + 1);
    Some(before)
}

/// Writes a plan that was entered; `space` is as it was `before`.
pub(super) async fn write(tx: &Tx, before: &Space, plan: &Plan) -> Done<()> {
    let space = before.no;
    let (mut new, mut changed, mut quiet) = (Columns::default(), Columns::default(), Columns::default());
    for (row, is_new) in last_of_each(&plan.rows) {
        let among = match (is_new, row.record.stamp <= before.head) {
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
    forget(tx, space, &plan.forget).await?;
    prints_gone(tx, space, &plan.prints_gone).await?;
    links(tx, space, LINKS_GONE, &plan.links_gone).await?;
    together!(
        new: new.write(tx, space, ADD),
        changed: changed.write(tx, space, CHANGE),
        quiet: quiet.write(tx, space, QUIET),
        kept: kept.write(tx, space, KEEP),
        receipts: receipts(tx, space, &plan.receipts),
        prints: prints(tx, space, &plan.prints),
        links: links(tx, space, LINKS, &plan.links),
        audiences: audience::apply(tx, space, plan),
        outbox: outbox::put(tx, space, &plan.outbox),
        batches: outbox::seal(tx, space, &plan.sealed, &plan.unsealed),
    )?;
    Ok(())
}

/// Gives new rows their local ids; a record made and changed in one plan has that of its first row.
fn number(space: &mut Space, rows: &mut [Row]) {
    let mut again = false;
    for row in rows.iter_mut() {
        if row.is_new {
            row.record.local_id = space.next_local_id;
            space.next_local_id += 1;
        }
        again |= row.record.local_id == 0;
    }
    if !again {
        return;
    }
    let given = rows.iter().filter(|row| row.is_new).map(|row| (row.key.clone(), row.record.local_id));
    let given: BTreeMap<Key, i64> = given.collect();
    for row in rows.iter_mut().filter(|row| row.record.local_id == 0) {
        row.record.local_id = given.get(&row.key).copied().unwrap_or(0);
    }
}

/// One statement writes a row once: of several rows of a record the last one counts. With each, whether
/// the record is new.
fn last_of_each(rows: &[Row]) -> Vec<(&Row, bool)> {
    let mut all: Vec<(&Row, bool)> = rows.iter().map(|row| (row, row.is_new)).collect();
    all.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
    all.dedup_by(|(later, later_new), (kept, is_new)| {
        let same = later.key == kept.key;
        if same {
            (*kept, *is_new) = (*later, *is_new || *later_new);
        }
        same
    });
    all
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

    /// Says once what is the same in all rows, and nothing of what is null in all.
    fn fold(&mut self) {
        same(&mut self.state);
        same(&mut self.contested);
        same(&mut self.version);
        same(&mut self.modified_at);
        same(&mut self.collection);
        same(&mut self.owner);
        same(&mut self.author);
        unless_null(&mut self.joined_into);
        unless_null(&mut self.person);
        unless_null(&mut self.up_epoch);
        unless_null(&mut self.up_version);
        unless_null(&mut self.up_held);
        unless_null(&mut self.marks);
    }

    /// Runs a statement over the rows: each must find its place.
    async fn write(mut self, tx: &Tx, space: i32, sql: &'static str) -> Done<()> {
        if self.id.is_empty() {
            return Ok(());
        }
        self.fold();
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

/// A column whose values are all the same as one value.
fn same<T: PartialEq>(column: &mut Vec<T>) {
    if let Some((first, rest)) = column.split_first()
        && rest.iter().all(|value| value == first)
    {
        column.truncate(1);
    }
}

/// A column whose values are all null as none.
fn unless_null<T>(column: &mut Vec<Option<T>>) {
    if column.iter().all(Option::is_none) {
        column.clear();
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
    let mut details: Vec<Option<String>> = receipts.iter().map(detail).collect::<Done<_>>()?;
    let changes: Vec<&str> = receipts.iter().map(|r| r.change.as_str()).collect();
    let contents: Vec<i64> = receipts.iter().map(|r| r.content.cast_signed()).collect();
    let mut devices: Vec<&str> = receipts.iter().map(|r| r.device.as_str()).collect();
    let mut verdicts: Vec<i16> = receipts.iter().map(|r| codes::of_verdict(r.verdict) as i16).collect();
    let (mut collections, records) = load::columns(receipts.iter().map(|r| &r.key));
    let mut versions: Vec<i64> = receipts.iter().map(|r| r.version.cast_signed()).collect();
    let stamps: Vec<i64> = receipts.iter().map(|r| r.stamp.0).collect();
    same(&mut devices);
    same(&mut verdicts);
    same(&mut collections);
    same(&mut versions);
    unless_null(&mut details);
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
