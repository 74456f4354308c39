//! Following an upstream: staging what a pull brings, and taking it in all at once (I6).

use super::{
    apply::apply,
    conn::Tx,
    errors::Done,
    load::{self, load},
    outbox, resync,
    rows::{self, of_state, to_json},
    space::Space,
};
use crate::{
    Absorb, Followed, Portion, PullEnd, Step,
    asking::{Asked, Asking, CHUNK, Settling, fault, waits_for_the_end},
    codes,
};
use ropeway_core::{
    id::{CONFLICT, Epoch, Key, SpaceId},
    plan::{Fed, Keys, Snapshot},
    time::{Stamp, Time},
};
use std::collections::BTreeSet;
use tokio_postgres::types::ToSql;

const READ: &str = "SELECT epoch, cursor, token, staged, audiences, anew FROM rw_follow WHERE space = $1";
const STAGED: &str = "INSERT INTO rw_follow (space, epoch, cursor, staged, staged_epoch, filling)
  VALUES ($1, NULL, 0, $2, $3, $4)
  ON CONFLICT (space) DO UPDATE SET staged = excluded.staged, staged_epoch = excluded.staged_epoch,
  filling = rw_follow.filling OR excluded.filling";
const STAGED_EPOCH: &str = "SELECT staged_epoch FROM rw_follow WHERE space = $1";
const UNSTAGED: &str = "UPDATE rw_follow SET staged = NULL, staged_epoch = NULL WHERE space = $1";
const ABSORBED: &str = "INSERT INTO rw_follow (space, epoch, cursor, token, audiences)
  VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (space) DO UPDATE SET epoch = excluded.epoch, cursor = excluded.cursor,
  token = excluded.token, audiences = excluded.audiences, staged = NULL, staged_epoch = NULL, filling = false";
const LAST: &str = "SELECT coalesce(max(no), 0) FROM rw_staging WHERE space = $1 AND is_conflict = $2";
const STAGE: &str = "INSERT INTO rw_staging (space, is_conflict, no, state, version, stamp, modified_at,
  collection, id, joined_into, owner, author, person, data)
  SELECT $1::int, $2, $3 + n.ordinality, n.a, n.b, n.c, n.d, n.e, n.f, n.g, n.h, n.i, n.j, n.k
  FROM unnest($4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[],
  $11::text[], $12::text[], $13::text[], $14::text[]) WITH ORDINALITY
  AS n (a, b, c, d, e, f, g, h, i, j, k, ordinality)";
const CHUNK_OF: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    ", r.no FROM rw_staging r WHERE r.space = $1 AND r.is_conflict = $2 AND r.no > $3 ORDER BY r.no LIMIT $4"
);
const CLEAR: &str = "DELETE FROM rw_staging WHERE space = $1";

/// How far the upstream has been read.
pub(super) async fn followed(tx: &Tx, space: i32) -> Done<Followed> {
    let Some(row) = tx.one(READ, &[&space]).await? else { return Ok(Followed::default()) };
    let epoch: Option<&str> = row.try_get(0)?;
    Ok(Followed {
        epoch: epoch.map(Epoch::trusted),
        cursor: Stamp(row.try_get(1)?),
        token: row.try_get(2)?,
        staged: row.try_get(3)?,
        audiences: rows::opt_json(&row, 4, "the audiences that are followed")?,
        anew: row.try_get(5)?,
    })
}

/// Adds pulled rows to the staging table.
pub(super) async fn stage(tx: &Tx, space: &SpaceId, epoch: &Epoch, fed: &[Fed], upto: &str) -> Done<()> {
    let space = Space::lock(tx, space).await?.no;
    resync::see(tx, space, fed).await?;
    add(tx, space, epoch, fed.iter().collect()).await?;
    tx.execute(STAGED, &[&space, &upto, &epoch.as_str(), &false]).await?;
    Ok(())
}

/// Takes a page of a first pull in; what waits for the pull's end is staged.
pub(super) async fn portion(
    tx: &Tx,
    space: &SpaceId,
    now: Time,
    portion: &Portion,
    decide: &mut Absorb,
) -> Done<u64> {
    let mut space = Space::lock(tx, space).await?;
    let mut waiting = Vec::new();
    for rows in portion.rows.chunks(CHUNK) {
        waiting.extend(take_in_new(tx, &mut space, now, rows, decide).await?);
    }
    space.save(tx).await?;
    resync::see(tx, space.no, &portion.rows).await?;
    let taken = portion.rows.len() - waiting.len();
    add(tx, space.no, &portion.epoch, waiting).await?;
    tx.execute(STAGED, &[&space.no, &portion.upto, &portion.epoch.as_str(), &true]).await?;
    Ok(taken as u64)
}

/// Takes in what nobody sees yet, and returns the rows that wait for the pull's end.
async fn take_in_new<'a>(
    tx: &Tx,
    space: &mut Space,
    now: Time,
    rows: &'a [Fed],
    decide: &mut Absorb,
) -> Done<Vec<&'a Fed>> {
    let named: BTreeSet<Key> = rows.iter().map(|row| row.key.clone()).collect();
    let keys = Keys { records: named.clone(), outbox: named, ..Keys::default() };
    let mut snapshot = space.snapshot(tx.follows, now);
    load(tx, space.no, &keys, &mut snapshot).await?;
    snapshot.keys.extend(keys);
    let waits = |row: &&Fed| waits_for_the_end(row, snapshot.records.get(&row.key));
    let (waiting, others): (Vec<&Fed>, Vec<&Fed>) = rows.iter().partition(waits);
    let some: Vec<Fed>;
    let now_taken = match waiting.is_empty() {
        true => rows, // As nearly always: no row is copied.
        false => {
            some = others.into_iter().cloned().collect();
            &some
        }
    };
    if !now_taken.is_empty() {
        ask(tx, space, snapshot, Step::Rows(now_taken), decide).await?;
    }
    Ok(waiting)
}

fn is_conflict(row: &Fed) -> bool {
    &*row.key.collection == CONFLICT
}

/// Writes rows to the staging table. Those of another epoch go first.
async fn add(tx: &Tx, space: i32, epoch: &Epoch, fed: Vec<&Fed>) -> Done<()> {
    if staged_epoch(tx, space).await?.is_some_and(|staged| staged != epoch.as_str()) {
        tx.execute(CLEAR, &[&space]).await?;
    }
    let (conflicts, others): (Vec<&Fed>, Vec<&Fed>) = fed.into_iter().partition(|row| is_conflict(row));
    for (conflicts, rows) in [(false, others), (true, conflicts)] {
        add_some(tx, space, conflicts, &rows).await?;
    }
    Ok(())
}

async fn add_some(tx: &Tx, space: i32, conflicts: bool, rows: &[&Fed]) -> Done<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let last: i64 = match tx.one(LAST, &[&space, &conflicts]).await? {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    fn column<'a, T>(rows: &[&'a Fed], value: impl Fn(&'a Fed) -> T) -> Vec<T> {
        rows.iter().map(|row| value(row)).collect()
    }
    let (collections, ids) = load::columns(rows.iter().map(|row| &row.key));
    let params: [&(dyn ToSql + Sync); 14] = [
        &space,
        &conflicts,
        &last,
        &column(rows, |r| if r.left { codes::LEFT as i16 } else { of_state(&r.state).0 }),
        &column(rows, |r| r.version.cast_signed()),
        &column(rows, |r| r.stamp.0),
        &column(rows, |r| r.modified_at.0),
        &collections,
        &ids,
        &column(rows, |r| of_state(&r.state).1),
        &column(rows, |r| r.owner.as_str()),
        &column(rows, |r| r.author.device.as_str()),
        &column(rows, |r| r.author.person.as_deref()),
        &column(rows, |r| r.data.text()),
    ];
    tx.execute(STAGE, &params).await?;
    Ok(())
}

/// Empties the staging table.
pub(super) async fn unstage(tx: &Tx, space: &SpaceId) -> Done<()> {
    let space = Space::lock(tx, space).await?.no;
    tx.execute(CLEAR, &[&space]).await?;
    tx.execute(UNSTAGED, &[&space]).await?;
    Ok(())
}

async fn staged_epoch(tx: &Tx, space: i32) -> Done<Option<String>> {
    match tx.one(STAGED_EPOCH, &[&space]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(None),
    }
}

/// Takes in what is staged with the last page, and settles what the cursor has reached.
pub(super) async fn absorb(
    tx: &Tx,
    space: &SpaceId,
    now: Time,
    end: &PullEnd,
    decide: &mut Absorb,
) -> Done<u64> {
    if let Some(page) = &end.page {
        stage(tx, space, &end.epoch, page, &end.token).await?;
    }
    let mut space = Space::lock(tx, space).await?;
    if let Some(staged) = staged_epoch(tx, space.no).await?.filter(|staged| *staged != *end.epoch) {
        return Err(fault(format!("rows of epoch {staged} are staged, not of {}", end.epoch)));
    }
    let mut taken = 0;
    // Conflicts come last: what they are about is there by then.
    for conflicts in [false, true] {
        let mut last = 0_i64;
        loop {
            let found = tx.query(CHUNK_OF, &[&space.no, &conflicts, &last, &(CHUNK as i64)]).await?;
            let Some(end) = found.last() else { break };
            last = end.try_get(11)?;
            let rows: Vec<Fed> = found.iter().map(rows::fed).collect::<Done<_>>()?;
            taken += rows.len() as u64;
            step(tx, &mut space, now, Step::Rows(&rows), decide).await?;
        }
    }
    let mut settling = Settling::default();
    loop {
        let entries = outbox::reached(tx, space.no, end.cursor, CHUNK).await?;
        if settling.is_done(&entries)? {
            break;
        }
        step(tx, &mut space, now, Step::Settle(&entries), decide).await?;
    }
    space.save(tx).await?;
    tx.execute(CLEAR, &[&space.no]).await?;
    let audiences = end.audiences.as_ref().map(|keys| to_json(keys, "keys")).transpose()?;
    tx.execute(ABSORBED, &[&space.no, &end.epoch.as_str(), &end.cursor.0, &end.token, &audiences]).await?;
    Ok(taken)
}

async fn step(tx: &Tx, space: &mut Space, now: Time, step: Step<'_>, decide: &mut Absorb) -> Done<()> {
    let snapshot = space.snapshot(tx.follows, now);
    ask(tx, space, snapshot, step, decide).await
}

async fn ask(
    tx: &Tx,
    space: &mut Space,
    snapshot: Snapshot,
    step: Step<'_>,
    decide: &mut Absorb,
) -> Done<()> {
    let mut asking = Asking::new(snapshot, Keys::default());
    loop {
        match asking.next(&mut |snapshot| decide(snapshot, step))? {
            Asked::Load(keys) => {
                load(tx, space.no, &keys, &mut asking.snapshot).await?;
                asking.loaded(*keys);
            }
            Asked::Plan(mut plan) => {
                apply(tx, space, &mut plan).await?;
                return Ok(());
            }
        }
    }
}
