//! Following an upstream: staging what a pull brings, and taking it in all at once (I6).

use super::{apply::apply, conn::Conn, errors::Done, load::load, outbox, resync, rows, space::Space};
use crate::codes;
use crate::{
    Absorb, Followed, Portion, PullEnd, Step,
    asking::{Asked, Asking, CHUNK, Settling, fault, waits_for_the_end},
};
use ropeway_core::{
    id::{CONFLICT, Epoch, Key, SpaceId},
    outbox::Entry,
    plan::{Fed, Keys, Snapshot},
    time::{Stamp, Time},
};
use rusqlite::OptionalExtension;
use std::collections::BTreeSet;

const READ: &str = "SELECT epoch, cursor, token, staged, audiences, anew FROM rw_follow WHERE space = ?1";
const STAGED: &str = "INSERT INTO rw_follow (space, epoch, cursor, staged, staged_epoch, filling)
  VALUES (?1, NULL, 0, ?2, ?3, ?4)
  ON CONFLICT (space) DO UPDATE SET staged = excluded.staged, staged_epoch = excluded.staged_epoch,
  filling = filling OR excluded.filling";
const STAGED_EPOCH: &str = "SELECT staged_epoch FROM rw_follow WHERE space = ?1";
const UNSTAGED: &str = "UPDATE rw_follow SET staged = NULL, staged_epoch = NULL WHERE space = ?1";
const ABSORBED: &str =
    "INSERT INTO rw_follow (space, epoch, cursor, token, audiences) VALUES (?1, ?2, ?3, ?4, ?5)
  ON CONFLICT (space) DO UPDATE SET epoch = excluded.epoch, cursor = excluded.cursor,
  token = excluded.token, audiences = excluded.audiences, staged = NULL, staged_epoch = NULL, filling = 0";
const STAGE: &str = "INSERT INTO rw_staging (space, collection, id, version, stamp, state, joined_into,
  owner, author, person, modified_at, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const CHUNK_OF: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    ", no FROM rw_staging WHERE space = ?1 AND no > ?2 AND (collection = ?4) = ?5 ORDER BY no LIMIT ?3"
);
const OTHERS: &str = "SELECT 1 FROM rw_staging WHERE space <> ?1 LIMIT 1";
const CLEAR: &str = "DELETE FROM rw_staging WHERE space = ?1";
/// Without a condition SQLite drops the pages instead of visiting each row.
const CLEAR_ALL: &str = "DELETE FROM rw_staging";

/// How far the upstream has been read.
pub(super) fn followed(conn: &Conn, space: i64) -> Done<Followed> {
    let found = conn.db.prepare_cached(READ)?.query_row([space], |r| {
        Ok(Followed {
            epoch: r.get::<_, Option<String>>(0)?.map(Epoch::trusted),
            cursor: Stamp(r.get(1)?),
            token: r.get(2)?,
            staged: r.get(3)?,
            audiences: r.get::<_, Option<String>>(4)?.and_then(|keys| serde_json::from_str(&keys).ok()),
            anew: r.get(5)?,
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Adds pulled rows to the staging table.
pub(super) fn stage(conn: &mut Conn, space: &SpaceId, epoch: &Epoch, fed: &[Fed], upto: &str) -> Done<()> {
    let space = Space::read(conn, space)?.no;
    resync::see(conn, space, fed)?;
    add(conn, space, epoch, fed.iter())?;
    conn.db.prepare_cached(STAGED)?.execute((space, upto, epoch.as_str(), false))?;
    Ok(())
}

/// Takes a page of a first pull in, in the caller's transaction; what waits for the pull's end is staged.
/// How many records were taken in.
pub(super) fn portion(
    conn: &mut Conn,
    space: &SpaceId,
    now: Time,
    portion: &Portion,
    decide: &mut Absorb,
) -> Done<u64> {
    let mut space = Space::read(conn, space)?;
    let mut waiting = Vec::new();
    for rows in portion.rows.chunks(CHUNK) {
        waiting.extend(take_in_new(conn, &mut space, now, rows, decide)?);
    }
    space.save(conn)?;
    resync::see(conn, space.no, &portion.rows)?;
    let taken = portion.rows.len() - waiting.len();
    add(conn, space.no, &portion.epoch, waiting.into_iter())?;
    let row = (space.no, &portion.upto, portion.epoch.as_str(), true);
    conn.db.prepare_cached(STAGED)?.execute(row)?;
    Ok(taken as u64)
}

/// Takes in what nobody sees yet, and returns the rows that wait for the pull's end.
fn take_in_new<'a>(
    conn: &mut Conn,
    space: &mut Space,
    now: Time,
    rows: &'a [Fed],
    decide: &mut Absorb,
) -> Done<Vec<&'a Fed>> {
    let named: BTreeSet<Key> = rows.iter().map(|row| row.key.clone()).collect();
    let keys = Keys { records: named.clone(), outbox: named, ..Keys::default() };
    let mut snapshot = space.snapshot(conn.follows, now);
    load(conn, space.no, &keys, &mut snapshot)?;
    snapshot.keys.extend(keys);
    let waits = |row: &&Fed| waits_for_the_end(row, snapshot.records.get(&row.key));
    let waiting: Vec<&Fed> = rows.iter().filter(waits).collect();
    let others: Vec<Fed>;
    let now_taken = match waiting.is_empty() {
        true => rows, // As nearly always: no row is copied.
        false => {
            others = rows.iter().filter(|row| !waits(row)).cloned().collect();
            &others
        }
    };
    if !now_taken.is_empty() {
        ask(conn, space, snapshot, Step::Rows(now_taken), decide)?;
    }
    Ok(waiting)
}

/// Writes rows to the staging table. Those of another epoch go first.
fn add<'a>(conn: &mut Conn, space: i64, epoch: &Epoch, fed: impl Iterator<Item = &'a Fed>) -> Done<()> {
    if staged_epoch(conn, space)?.is_some_and(|staged| staged != epoch.as_str()) {
        clear(conn, space)?;
    }
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(STAGE)?;
    for row in fed {
        let (state, joined_into) = if row.left { (codes::LEFT, None) } else { rows::of_state(&row.state) };
        let (author, person) = rows::of_author(db, names, &row.author)?;
        stmt.execute(rusqlite::params![
            space,
            names.intern(db, &row.key.collection)?,
            row.key.id.as_str(),
            row.version.cast_signed(),
            row.stamp.0,
            state,
            joined_into,
            names.intern(db, &row.owner)?,
            author,
            person,
            row.modified_at.0,
            row.data.text()
        ])?;
    }
    Ok(())
}

/// Empties the staging table.
pub(super) fn unstage(conn: &mut Conn, space: &SpaceId) -> Done<()> {
    let space = Space::read(conn, space)?.no;
    clear(conn, space)?;
    conn.db.prepare_cached(UNSTAGED)?.execute([space])?;
    Ok(())
}

fn staged_epoch(conn: &Conn, space: i64) -> Done<Option<String>> {
    let found = conn.db.prepare_cached(STAGED_EPOCH)?.query_row([space], |r| r.get(0)).optional()?;
    Ok(found.flatten())
}

/// Takes in what is staged with the last page, and settles what the cursor has reached, in the caller's transaction.
pub(super) fn absorb(
    conn: &mut Conn,
    space: &SpaceId,
    now: Time,
    end: &PullEnd,
    decide: &mut Absorb,
) -> Done<u64> {
    if let Some(page) = &end.page {
        stage(conn, space, &end.epoch, page, &end.token)?;
    }
    let mut space = Space::read(conn, space)?;
    if let Some(staged) = staged_epoch(conn, space.no)?.filter(|staged| *staged != *end.epoch) {
        return Err(fault(format!("rows of epoch {staged} are staged, not of {}", end.epoch)));
    }
    let mut taken = 0;
    // Conflicts come last: what they are about is there by then.
    for conflicts in [false, true] {
        let mut last = 0;
        loop {
            let (rows, upto) = chunk(conn, space.no, last, conflicts)?;
            if rows.is_empty() {
                break;
            }
            taken += rows.len() as u64;
            last = upto;
            step(conn, &mut space, now, Step::Rows(&rows), decide)?;
        }
    }
    let mut settling = Settling::default();
    loop {
        let entries: Vec<Entry> = outbox::reached(conn, space.no, end.cursor, CHUNK)?;
        if settling.is_done(&entries)? {
            break;
        }
        step(conn, &mut space, now, Step::Settle(&entries), decide)?;
    }
    space.save(conn)?;
    clear(conn, space.no)?;
    let audiences = end.audiences.as_ref().map(|keys| rows::to_json(keys, "keys")).transpose()?;
    let row = (space.no, end.epoch.as_str(), end.cursor.0, &end.token, audiences);
    conn.db.prepare_cached(ABSORBED)?.execute(row)?;
    Ok(taken)
}

fn step(conn: &mut Conn, space: &mut Space, now: Time, step: Step<'_>, decide: &mut Absorb) -> Done<()> {
    let snapshot = space.snapshot(conn.follows, now);
    ask(conn, space, snapshot, step, decide)
}

fn ask(
    conn: &mut Conn,
    space: &mut Space,
    snapshot: Snapshot,
    step: Step<'_>,
    decide: &mut Absorb,
) -> Done<()> {
    let mut asking = Asking::new(snapshot, Keys::default());
    loop {
        match asking.next(&mut |snapshot| decide(snapshot, step))? {
            Asked::Load(keys) => {
                load(conn, space.no, &keys, &mut asking.snapshot)?;
                asking.loaded(*keys);
            }
            Asked::Plan(mut plan) => {
                apply(conn, space, &mut plan)?;
                return Ok(());
            }
        }
    }
}

fn chunk(conn: &mut Conn, space: i64, after: i64, conflicts: bool) -> Done<(Vec<Fed>, i64)> {
    let Conn { db, names, .. } = conn;
    let conflict = names.find(db, CONFLICT)?.unwrap_or(0);
    let mut stmt = db.prepare_cached(CHUNK_OF)?;
    let mut at = stmt.query((space, after, CHUNK as i64, conflict, conflicts))?;
    let (mut found, mut last) = (Vec::with_capacity(CHUNK), after);
    while let Some(row) = at.next()? {
        found.push(rows::fed(db, names, row)?);
        last = row.get(11)?;
    }
    Ok((found, last))
}

fn clear(conn: &Conn, space: i64) -> Done<()> {
    let others = conn.db.prepare_cached(OTHERS)?.query_row([space], |_| Ok(())).optional()?;
    match others {
        None => conn.db.prepare_cached(CLEAR_ALL)?.execute([])?,
        Some(()) => conn.db.prepare_cached(CLEAR)?.execute([space])?,
    };
    Ok(())
}
