//! Writes a plan: every part by one cached statement run over its rows, in the caller's transaction.

use super::{audience, conn::Conn, errors::Done, names::Names, outbox, rows, space::Space};
use crate::asking::{fault, is_idle};
use crate::codes;
use ropeway_core::{
    id::Key,
    plan::{Link, Plan, Print, Row, Superseded},
    receipt::Remembered,
    record::Record,
    time::Stamp,
};
use rusqlite::{CachedStatement, Connection, ToSql};

const ADD: &str = "INSERT INTO rw_records (space, collection, id, local_id, version, stamp, state,
  joined_into, owner, author, person, modified_at, contested, up_epoch, up_version, up_held, marks, data)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
/// The same for rows that are live, without marks and with nothing held: almost every new one.
///
/// `OR FAIL`: whoever fails undoes more than the statement, which need not keep a journal of its own for that.
const ADD_PLAIN: &str =
    "INSERT OR FAIL INTO rw_records (space, collection, id, local_id, version, stamp, state,
  owner, author, person, modified_at, contested, up_epoch, up_version, data) VALUES";
const PLAIN: &str = "(?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 0, ?, ?, ?)";
const CHANGE: &str = "UPDATE rw_records SET version = ?5, stamp = ?6, state = ?7, joined_into = ?8,
  owner = ?9, author = ?10, person = ?11, modified_at = ?12, contested = ?13, up_epoch = ?14,
  up_version = ?15, up_held = ?16, marks = ?17, data = ?18
  WHERE space = ?1 AND collection = ?2 AND id = ?3 AND local_id = ?4";
/// A row whose stamp stays: no reader is told, so nothing that a reader sees may move.
const QUIET: &str = "UPDATE rw_records SET contested = ?5, up_epoch = ?6, up_version = ?7, up_held = ?8,
  marks = ?9, owner = ?10 WHERE space = ?1 AND collection = ?2 AND id = ?3 AND stamp = ?4";
const FORGET: &str = "DELETE FROM rw_records WHERE space = ?1 AND collection = ?2 AND id = ?3";
const FORGET_PAST: &str = "DELETE FROM rw_history WHERE space = ?1 AND collection = ?2 AND id = ?3";
const KEEP: &str = "INSERT INTO rw_history (space, collection, id, local_id, version, stamp, state,
  joined_into, owner, author, person, modified_at, contested, up_epoch, up_version, up_held, marks, data)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
const RECEIPTS: &str = "INSERT OR FAIL INTO rw_receipts
  (space, change, content, device, verdict, collection, record, version, stamp, detail) VALUES";
const RECEIPT: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
/// Running a statement is most of what a narrow row costs: receipts and plain rows are written by blocks.
const BLOCK: usize = 25;
const PRINTS_GONE: &str = "DELETE FROM rw_fingerprints WHERE space = ?1 AND collection = ?2 AND id = ?3";
const PRINT: &str = "INSERT OR IGNORE INTO rw_fingerprints (space, collection, print, at, id)
  VALUES (?1, ?2, ?3, ?4, ?5)";
const LINK_GONE: &str = "DELETE FROM rw_links WHERE space = ?1 AND parent_collection = ?2 AND parent = ?3
  AND field = ?4 AND child_collection = ?5 AND child = ?6";
const LINK: &str = "INSERT OR IGNORE INTO rw_links
  (space, parent_collection, parent, field, child_collection, child) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Writes `plan` and moves `space`, which the caller saves. New rows get their local ids in the plan too.
pub(super) fn apply(conn: &mut Conn, space: &mut Space, plan: &mut Plan) -> Done<bool> {
    if is_idle(plan, space.head) {
        return Ok(false);
    }
    for key in &plan.forget {
        let collection = conn.names.intern(&conn.db, &key.collection)?;
        conn.db.prepare_cached(FORGET)?.execute((space.no, collection, key.id.as_str()))?;
        conn.db.prepare_cached(FORGET_PAST)?.execute((space.no, collection, key.id.as_str()))?;
    }
    records(conn, space, &mut plan.rows)?;
    history(conn, space.no, &plan.history)?;
    receipts(conn, space.no, &plan.receipts)?;
    prints(conn, space.no, &plan.prints_gone, &plan.prints)?;
    links(conn, space.no, LINK_GONE, &plan.links_gone)?;
    links(conn, space.no, LINK, &plan.links)?;
    audience::apply(conn, space.no, plan)?;
    outbox::put(conn, space.no, &plan.outbox)?;
    outbox::seal(conn, space.no, &plan.sealed, &plan.unsealed)?;
    space.head = plan.head;
    space.digest.count += plan.digest.count;
    space.digest.sum = space.digest.sum.wrapping_add(plan.digest.sum);
    let last = plan.outbox.iter().map(|e| e.seq).max().unwrap_or(0);
    space.next_entry = space.next_entry.max(last + 1);
    Ok(true)
}

fn records(conn: &mut Conn, space: &mut Space, rows: &mut [Row]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    number(space, rows);
    let mut add = db.prepare_cached(ADD)?;
    let mut change = db.prepare_cached(CHANGE)?;
    for run in rows.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
        if is_plain(&run[0]) {
            in_blocks(db, ADD_PLAIN, PLAIN, run, |stmt, block| plain_rows(db, names, stmt, space.no, block))?;
            continue;
        }
        for row in run {
            if row.is_new {
                put(db, names, &mut add, space.no, &row.key, &row.record)?;
            } else if row.record.stamp <= space.head {
                quiet(db, names, space.no, row)?;
            } else if put(db, names, &mut change, space.no, &row.key, &row.record)? != 1 {
                return Err(missing(&row.key, row.record.stamp));
            }
        }
    }
    Ok(())
}

/// Gives new records their local ids. A record made and changed in one plan has its own from its first row.
fn number(space: &mut Space, rows: &mut [Row]) {
    for at in 0..rows.len() {
        let (earlier, rest) = rows.split_at_mut(at);
        let Some(row) = rest.first_mut() else { break };
        if row.is_new {
            row.record.local_id = space.next_local_id;
            space.next_local_id += 1;
        } else if row.record.local_id == 0 {
            row.record.local_id =
                earlier.iter().rev().find(|r| r.key == row.key).map_or(0, |r| r.record.local_id);
        }
    }
}

/// Runs an insert over rows, a block of them at a time.
fn in_blocks<T>(
    db: &Connection,
    insert: &str,
    one: &str,
    rows: &[T],
    mut put: impl FnMut(&mut CachedStatement<'_>, &[T]) -> Done<()>,
) -> Done<()> {
    let (blocks, rest) = rows.as_chunks::<BLOCK>();
    if !blocks.is_empty() {
        let mut stmt = db.prepare_cached(&format!("{insert} {}", vec![one; BLOCK].join(", ")))?;
        blocks.iter().try_for_each(|block| put(&mut stmt, block))?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let mut stmt = db.prepare_cached(&format!("{insert} {one}"))?;
    rest.chunks(1).try_for_each(|row| put(&mut stmt, row))
}

fn is_plain(row: &Row) -> bool {
    let record = &row.record;
    let holds = record.upstream.as_ref().is_some_and(|u| u.held.is_some());
    row.is_new && record.is_live() && record.marks.is_empty() && !record.contested && !holds
}

fn plain_rows(
    db: &Connection,
    names: &mut Names,
    stmt: &mut CachedStatement<'_>,
    space: i64,
    rows: &[Row],
) -> Done<()> {
    let mut at = 0;
    for Row { key, record, .. } in rows {
        let (author, person) = rows::of_author(db, names, &record.author)?;
        let upstream = record.upstream.as_ref();
        let mut bind = |value: &dyn ToSql| {
            at += 1;
            stmt.raw_bind_parameter(at, value)
        };
        bind(&space)?;
        bind(&names.intern(db, &key.collection)?)?;
        bind(&key.id.as_str())?;
        bind(&record.local_id)?;
        bind(&record.version.cast_signed())?;
        bind(&record.stamp.0)?;
        bind(&names.intern(db, &record.owner)?)?;
        bind(&author)?;
        bind(&person)?;
        bind(&record.modified_at.0)?;
        bind(&upstream.map(|u| names.intern(db, &u.epoch)).transpose()?)?;
        bind(&upstream.map(|u| u.version.cast_signed()))?;
        bind(&record.data.text())?;
    }
    stmt.raw_execute()?;
    Ok(())
}

fn put(
    db: &Connection,
    names: &mut Names,
    stmt: &mut CachedStatement<'_>,
    space: i64,
    key: &Key,
    record: &Record,
) -> Done<usize> {
    let collection = names.intern(db, &key.collection)?;
    let bound = rows::bind(db, names, record)?;
    let done = stmt.execute(rusqlite::params![
        space,
        collection,
        key.id.as_str(),
        record.local_id,
        record.version.cast_signed(),
        record.stamp.0,
        bound.state,
        bound.joined_into,
        bound.owner,
        bound.author,
        bound.person,
        record.modified_at.0,
        record.contested,
        bound.up_epoch,
        bound.up_version,
        bound.up_held,
        bound.marks,
        record.data.text()
    ])?;
    Ok(done)
}

fn quiet(db: &Connection, names: &mut Names, space: i64, row: &Row) -> Done<()> {
    let collection = names.intern(db, &row.key.collection)?;
    let bound = rows::bind(db, names, &row.record)?;
    let done = db.prepare_cached(QUIET)?.execute(rusqlite::params![
        space,
        collection,
        row.key.id.as_str(),
        row.record.stamp.0,
        row.record.contested,
        bound.up_epoch,
        bound.up_version,
        bound.up_held,
        bound.marks,
        bound.owner
    ])?;
    if done == 1 { Ok(()) } else { Err(missing(&row.key, row.record.stamp)) }
}

fn missing(key: &Key, stamp: Stamp) -> crate::StoreError {
    fault(format!("a plan rewrites {key} at {stamp}, but no such row is there"))
}

fn history(conn: &mut Conn, space: i64, superseded: &[Superseded]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let mut keep = db.prepare_cached(KEEP)?;
    for was in superseded {
        put(db, names, &mut keep, space, &was.key, &was.record)?;
    }
    Ok(())
}

fn receipts(conn: &mut Conn, space: i64, receipts: &[Remembered]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    in_blocks(db, RECEIPTS, RECEIPT, receipts, |stmt, block| receipt_rows(db, names, stmt, space, block))
}

fn receipt_rows(
    db: &Connection,
    names: &mut Names,
    stmt: &mut CachedStatement<'_>,
    space: i64,
    receipts: &[Remembered],
) -> Done<()> {
    for (receipt, row) in receipts.iter().zip(0..) {
        let detail = match receipt.detail.is_empty() {
            true => None,
            false => Some(rows::to_json(&receipt.detail, "a receipt's detail")?),
        };
        let mut at = row * 10;
        let mut bind = |value: &dyn ToSql| {
            at += 1;
            stmt.raw_bind_parameter(at, value)
        };
        bind(&space)?;
        bind(&receipt.change.as_str())?;
        bind(&receipt.content.cast_signed())?;
        bind(&names.intern(db, &receipt.device)?)?;
        bind(&codes::of_verdict(receipt.verdict))?;
        bind(&names.intern(db, &receipt.key.collection)?)?;
        bind(&receipt.key.id.as_str())?;
        bind(&receipt.version.cast_signed())?;
        bind(&receipt.stamp.0)?;
        bind(&detail)?;
    }
    stmt.raw_execute()?;
    Ok(())
}

fn prints(conn: &mut Conn, space: i64, gone: &[Key], added: &[Print]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    for key in gone {
        let collection = names.intern(db, &key.collection)?;
        db.prepare_cached(PRINTS_GONE)?.execute((space, collection, key.id.as_str()))?;
    }
    for print in added {
        let collection = names.intern(db, &print.key.collection)?;
        let row = (space, collection, &print.print, print.at, print.key.id.as_str());
        db.prepare_cached(PRINT)?.execute(row)?;
    }
    Ok(())
}

fn links(conn: &mut Conn, space: i64, sql: &str, links: &[Link]) -> Done<()> {
    let Conn { db, names, .. } = conn;
    for link in links {
        let parent = names.intern(db, &link.parent.collection)?;
        let child = names.intern(db, &link.child.collection)?;
        let row = (space, parent, link.parent.id.as_str(), &link.field, child, link.child.id.as_str());
        db.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}
