//! Forgetting on a schedule and by hand: what may go is drawn by the cursors of live devices, and it goes in
//! steps that nobody at the desk has to wait for.

use crate::{Node, ReplicaError};
use ropeway_core::{
    id::SpaceId,
    limits::HEAD_AHEAD_ALARM,
    planted::{self, Bug},
    retention::{self, Keep, Lines, Reader},
    time::{Stamp, Time},
};
use ropeway_store::{Device, DeviceStatus, Walk};
use std::{collections::BTreeMap, time::Duration};
use tokio::task::JoinHandle;

/// Rows of one step. A step is one transaction, and a local write waits for one at most.
const STEP: usize = 250;
/// Readers whose share is counted, the one furthest behind first.
const COUNTED: usize = 20;

/// What a purge did, or would do.
#[derive(Debug, Clone)]
pub struct Purge {
    /// Up to where things could go.
    pub lines: Lines,
    /// Rows that went, or would go, by kind.
    pub rows: BTreeMap<&'static str, u64>,
    /// Who holds back how much. Counted in a dry run only.
    pub held: Vec<Held>,
}

/// A reader that holds something back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its device id, or `upstream`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// When it was last seen.
    pub seen: Time,
    /// How far it has read.
    pub read: Stamp,
    /// When it stops holding anything back, unless it is seen again.
    pub until: Time,
    /// Rows that could go if it had read everything and nobody else were behind.
    pub rows: u64,
}

impl Node {
    /// Forgets what no live device can need any more, of what is shared too. With `dry` nothing goes, and it is
    /// counted who holds back how much.
    ///
    /// Errors: [`ReplicaError::Invalid`] while the head is ahead of the clock: a clock that jumps must not
    /// make devices look long gone.
    pub async fn purge(&self, space: &SpaceId, keep: &Keep, dry: bool) -> Result<Purge, ReplicaError> {
        let mut devices = self.inner.store.devices().await?;
        let mut all = self.purge_one(space, &devices, keep, dry).await?;
        if let Some(shared) = self.beside(space).await? {
            if planted::has(Bug::SharedByOneSpace) {
                devices.retain(|device| device.space == *space);
            }
            let Purge { rows, held, .. } = self.purge_one(&shared, &devices, keep, dry).await?;
            for (what, rows) in rows {
                *all.rows.entry(what).or_default() += rows;
            }
            all.held.extend(held.into_iter().filter(|held| held.rows > 0));
        }
        Ok(all)
    }

    /// Purges every space that somebody is registered in, this one, and what is shared.
    async fn purge_all(&self, space: &SpaceId, keep: &Keep) -> Result<(), ReplicaError> {
        let devices = self.inner.store.devices().await?;
        let mut spaces = self.named_spaces().await?;
        spaces.insert(space.clone());
        spaces.extend(self.beside(space).await?);
        for space in spaces {
            match self.purge_one(&space, &devices, keep, false).await {
                Ok(purge) if purge.rows.is_empty() => {}
                Ok(purge) => tracing::info!(%space, rows = ?purge.rows, "purged what no live device needs"),
                Err(error) => tracing::warn!(%space, %error, "nothing could be purged"),
            }
        }
        Ok(())
    }

    async fn purge_one(
        &self,
        space: &SpaceId,
        devices: &[Device],
        keep: &Keep,
        dry: bool,
    ) -> Result<Purge, ReplicaError> {
        let now = self.inner.clock.now();
        let ahead = self.inner.store.space(space).await?.head.time().since(now);
        if ahead > i64::try_from(HEAD_AHEAD_ALARM.as_micros()).unwrap_or(i64::MAX) {
            let text = format!(
                "the head is {} s ahead of the clock, so nobody knows who was seen when: nothing was purged",
                ahead / 1_000_000
            );
            return Err(ReplicaError::Invalid(text));
        }
        let readers = self.readers(space, devices, now).await?;
        let lines = retention::lines(&readers, now, keep);
        let mut rows = self.walk(space, &lines, dry).await?;
        let mut held = Vec::new();
        if dry {
            let free = self.walk(space, &retention::lines(&[], now, keep), true).await?;
            for reader in retention::holders(&readers, now, keep).into_iter().take(COUNTED) {
                let alone = retention::lines(std::slice::from_ref(reader), now, keep);
                let left = self.walk(space, &alone, true).await?;
                let rows = free.values().sum::<u64>().saturating_sub(left.values().sum());
                held.push(held_by(reader, keep, rows));
            }
        } else {
            let quarantined = self.inner.store.purge_quarantine(space, lines.settled).await?;
            if quarantined > 0 {
                rows.insert("quarantine", quarantined);
            }
            self.forgot(&rows);
        }
        Ok(Purge { lines, rows, held })
    }

    /// Everybody whose cursor counts: the space's devices, and the upstream for a node in the middle. What is shared
    /// is read by the devices of every space.
    async fn readers(
        &self,
        space: &SpaceId,
        devices: &[Device],
        now: Time,
    ) -> Result<Vec<Reader>, ReplicaError> {
        let is_shared = *space == SpaceId::shared();
        let mut readers: Vec<Reader> = devices
            .iter()
            .filter(|device| is_shared || device.space == *space)
            .map(|device| Reader {
                name: (device.id.to_string(), device.name.clone()),
                read: if is_shared { device.pulled_shared } else { device.pulled },
                seen: device.last_seen_at.unwrap_or(device.created_at),
                active: device.status == DeviceStatus::Active,
            })
            .collect();
        if self.inner.follows {
            let followed = self.inner.store.followed(space).await?;
            let name = ("upstream".to_owned(), "the upstream of this node".to_owned());
            let read = followed.epoch.map(|_| followed.cursor);
            readers.push(Reader { name, read, seen: now, active: true });
        }
        Ok(readers)
    }

    async fn walk(
        &self,
        space: &SpaceId,
        lines: &Lines,
        dry: bool,
    ) -> Result<BTreeMap<&'static str, u64>, ReplicaError> {
        let (mut at, mut rows) = (Some(Walk::start()), BTreeMap::new());
        while let Some(walk) = at {
            let what = walk.what();
            let step = self.inner.store.purge(space, lines, walk, STEP, dry).await?;
            if step.rows > 0 {
                *rows.entry(what).or_default() += step.rows;
            }
            at = step.next;
            // Whoever waits for the writer has it between two steps.
            tokio::task::yield_now().await;
        }
        Ok(rows)
    }
}

fn held_by(reader: &Reader, keep: &Keep, rows: u64) -> Held {
    let (id, name) = reader.name.clone();
    let horizon = i64::try_from(keep.horizon.as_micros()).unwrap_or(i64::MAX);
    let read = reader.read.unwrap_or_default();
    Held { id, name, seen: reader.seen, read, until: reader.seen.plus(horizon), rows }
}

/// Purges again and again while it is kept.
#[derive(Debug)]
pub struct Purger(JoinHandle<()>);

impl Drop for Purger {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Purger {
    /// Begins after one interval, so that a node that is started often is not always at it.
    pub fn spawn(node: Node, space: SpaceId, keep: Keep, every: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                if let Err(error) = node.purge_all(&space, &keep).await {
                    tracing::warn!(%error, "nothing could be purged");
                }
            }
        }))
    }
}
