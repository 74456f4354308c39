//! A space's row: its head, its digest and its counters. Its lock orders everything in the space.

use super::{
    conn::Tx,
    errors::{Done, corrupt},
};
use crate::{SpaceState, StoreError};
use ropeway_core::{
    digest::Digest,
    id::{Epoch, SpaceId},
    plan::Snapshot,
    time::{Stamp, Time},
};
use tokio_postgres::Row;

/// Two nodes that open a first space at the same moment want one number: the loser asks again.
const ADD: &str = "INSERT INTO rw_spaces
  (no, id, head, digest_count, digest_sum, next_local_id, next_entry, writes)
  SELECT coalesce(max(no), 0) + 1, $1, 0, 0, 0, 1, 1, 0 FROM rw_spaces ON CONFLICT DO NOTHING";
macro_rules! row {
    ($beside:literal) => {
        concat!(
            "SELECT s.no, s.head, s.digest_count, s.digest_sum, s.next_local_id, s.next_entry, s.purged, s.buried",
            $beside
        )
    };
}
macro_rules! beside {
    () => {
        "m.value, coalesce((SELECT f.filling FROM rw_follow f WHERE f.space = s.no), false)
         FROM rw_spaces s JOIN rw_meta m ON m.name = '@epoch' WHERE s.id = $1"
    };
}
const READ: &str = concat!(row!(", "), beside!());
const LOCK: &str = row!(" FROM rw_spaces s WHERE s.id = $1 FOR UPDATE");
/// What stands in other rows: a statement that waited for the lock knows them as they were before it.
const BESIDE: &str = concat!("SELECT ", beside!());
const SAVE: &str = "UPDATE rw_spaces SET head = $2, digest_count = $3, digest_sum = $4, next_local_id = $5,
  next_entry = $6, purged = $7, writes = writes + 1 WHERE no = $1";

/// A space as one transaction sees and moves it.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) no: i32,
    pub(super) epoch: Epoch,
    pub(super) head: Stamp,
    pub(super) digest: Digest,
    pub(super) next_local_id: i64,
    pub(super) next_entry: i64,
    pub(super) filling: bool,
    pub(super) purged: Stamp,
    pub(super) buried: u64,
}

impl Space {
    /// Makes the space where it is not there.
    pub(super) async fn create(tx: &Tx, id: &SpaceId) -> Done<Self> {
        while tx.one(READ, &[&id.as_str()]).await?.is_none() {
            tx.execute(ADD, &[&id.as_str()]).await?;
        }
        Self::read(tx, id).await
    }

    /// Reads the space's row; [`StoreError::NoSpace`] where there is none.
    pub(super) async fn read(tx: &Tx, id: &SpaceId) -> Done<Self> {
        let row = tx.one(READ, &[&id.as_str()]).await?.ok_or_else(|| none(id))?;
        Self::of(&row, &row, 8)
    }

    /// The same, and nobody else writes in the space before this transaction ends. Taken first: whatever
    /// is read afterwards is what the last writer left (ADR 0002).
    pub(super) async fn lock(tx: &Tx, id: &SpaceId) -> Done<Self> {
        let (row, beside) = tx.one_then(LOCK, BESIDE, &[&id.as_str()]).await?;
        let row = row.ok_or_else(|| none(id))?;
        Self::of(&row, &beside.ok_or_else(|| none(id))?, 0)
    }

    /// What stands beside the space begins at the column `at` of its row.
    fn of(row: &Row, beside: &Row, at: usize) -> Done<Self> {
        let epoch: &str = beside.try_get(at)?;
        Ok(Self {
            no: row.try_get(0)?,
            head: Stamp(row.try_get(1)?),
            digest: Digest { count: row.try_get(2)?, sum: row.try_get(3)? },
            next_local_id: row.try_get(4)?,
            next_entry: row.try_get(5)?,
            epoch: Epoch::parse(epoch).map_err(|bad| corrupt(bad.to_string()))?,
            filling: beside.try_get(at + 1)?,
            purged: Stamp(row.try_get(6)?),
            buried: row.try_get::<_, i64>(7)?.cast_unsigned(),
        })
    }

    /// Writes back what moved.
    pub(super) async fn save(&self, tx: &Tx) -> Done<()> {
        let Digest { count, sum } = self.digest;
        let (local, entry, purged) = (&self.next_local_id, &self.next_entry, &self.purged.0);
        tx.execute(SAVE, &[&self.no, &self.head.0, &count, &sum, local, entry, purged]).await?;
        Ok(())
    }

    /// As readers know it.
    pub(super) fn state(&self) -> SpaceState {
        let (epoch, filling) = (self.epoch.clone(), self.filling);
        SpaceState { epoch, head: self.head, digest: self.digest, filling, purged: self.purged }
    }

    /// A snapshot of it in which nothing is loaded yet.
    pub(super) fn snapshot(&self, follows: bool, now: Time) -> Snapshot {
        let mut snapshot = Snapshot::empty(self.epoch.clone(), self.head, follows, now);
        self.bring(&mut snapshot);
        snapshot.buried = self.buried;
        snapshot.filling = self.filling;
        snapshot
    }

    /// Brings a snapshot to where this transaction has moved the space since.
    pub(super) fn bring(&self, snapshot: &mut Snapshot) {
        (snapshot.head, snapshot.next_entry) = (self.head, self.next_entry);
    }
}

fn none(id: &SpaceId) -> StoreError {
    StoreError::NoSpace(id.to_string())
}
