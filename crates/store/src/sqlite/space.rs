//! A space's row: its head, its digest and its counters.

use super::{
    conn::Conn,
    errors::{Done, corrupt},
};
use crate::{SpaceState, StoreError};
use ropeway_core::{
    digest::Digest,
    id::{Epoch, SpaceId},
    plan::Snapshot,
    time::{Stamp, Time},
};
use rusqlite::OptionalExtension;

const ADD: &str = "INSERT OR IGNORE INTO rw_spaces
  (id, head, digest_count, digest_sum, next_local_id, next_entry) VALUES (?1, 0, 0, 0, 1, 1)";
const READ: &str = "SELECT no, head, digest_count, digest_sum, next_local_id, next_entry,
  (SELECT value FROM rw_meta WHERE name = '@epoch'),
  coalesce((SELECT filling FROM rw_follow WHERE space = no), 0), purged, buried FROM rw_spaces WHERE id = ?1";
const SAVE: &str = "UPDATE rw_spaces SET head = ?2, digest_count = ?3, digest_sum = ?4,
  next_local_id = ?5, next_entry = ?6, purged = ?7 WHERE no = ?1";

/// A space as one transaction sees and moves it.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) no: i64,
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
    pub(super) fn create(conn: &mut Conn, id: &SpaceId) -> Done<()> {
        conn.db.prepare_cached(ADD)?.execute([id.as_str()])?;
        Ok(())
    }

    /// Reads the space's row.
    pub(super) fn find(conn: &Conn, id: &SpaceId) -> Done<Option<Self>> {
        let mut stmt = conn.db.prepare_cached(READ)?;
        let found = stmt
            .query_row([id.as_str()], |r| {
                let epoch: Option<String> = r.get(6)?;
                let digest = Digest { count: r.get(2)?, sum: r.get(3)? };
                Ok((
                    r.get(0)?,
                    epoch,
                    Stamp(r.get(1)?),
                    digest,
                    r.get(4)?,
                    r.get(5)?,
                    (r.get(7)?, Stamp(r.get(8)?), r.get::<_, i64>(9)?),
                ))
            })
            .optional()?;
        let Some((no, epoch, head, digest, next_local_id, next_entry, (filling, purged, buried))) = found
        else {
            return Ok(None);
        };
        let epoch = Epoch::trusted(epoch.ok_or_else(|| corrupt("the database has no epoch"))?);
        Ok(Some(Self {
            no,
            epoch,
            head,
            digest,
            next_local_id,
            next_entry,
            filling,
            purged,
            buried: buried.cast_unsigned(),
        }))
    }

    /// Reads the space's row; [`StoreError::NoSpace`] where there is none.
    pub(super) fn read(conn: &Conn, id: &SpaceId) -> Done<Self> {
        Self::find(conn, id)?.ok_or_else(|| StoreError::NoSpace(id.to_string()))
    }

    /// Writes back what moved.
    pub(super) fn save(&self, conn: &Conn) -> Done<()> {
        let Digest { count, sum } = self.digest;
        let row = (self.no, self.head.0, count, sum, self.next_local_id, self.next_entry, self.purged.0);
        conn.db.prepare_cached(SAVE)?.execute(row)?;
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
        snapshot.next_entry = self.next_entry;
        snapshot.buried = self.buried;
        snapshot.filling = self.filling;
        snapshot
    }
}
