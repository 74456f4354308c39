//! What a node says about itself, for people and for scripts.

use crate::{Node, ReplicaError};
use ropeway_core::{
    digest::Digest,
    id::{DeviceId, Epoch, SpaceId},
    outbox::EntryState,
    time::{Stamp, Time},
};
use ropeway_store::SyncRun;
use std::{collections::BTreeMap, sync::PoisonError};

/// The state of one space on this node.
#[derive(Debug, Clone)]
pub struct Status {
    /// The node's own device id.
    pub device: DeviceId,
    /// The space.
    pub space: SpaceId,
    /// The profile's name.
    pub profile: String,
    /// Which database.
    pub store: &'static str,
    /// Bytes on disk.
    pub bytes: u64,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The space's head.
    pub head: Stamp,
    /// How far the head is ahead of the clock, in microseconds.
    pub head_ahead: i64,
    /// Why that is an alarm and what to do, where it is one.
    pub head_alarm: Option<String>,
    /// Microseconds to add to this node's clock to get the time at the top, where it is known in this boot.
    pub offset_to_top: Option<i64>,
    /// The space's digest.
    pub digest: Digest,
    /// Whether the node follows an upstream.
    pub follows: bool,
    /// Outbox entries by state.
    pub outbox: Vec<(EntryState, u64)>,
    /// Open conflicts.
    pub conflicts_open: u64,
    /// The upstream's epoch and head that were absorbed last.
    pub upstream: Option<(Epoch, Stamp)>,
    /// The newest tombstone that was purged.
    pub purged: Stamp,
    /// Rows that this process has purged, by kind.
    pub forgotten: BTreeMap<&'static str, u64>,
    /// Since when the upstream has refused this node as a copy of another.
    pub cloned_at: Option<Time>,
    /// Since when the upstream has refused this device as revoked.
    pub revoked_at: Option<Time>,
    /// The last sync.
    pub last_sync: Option<SyncRun>,
    /// The node's clock.
    pub now: Time,
}

impl Node {
    /// Reads the state of a space.
    pub async fn status(&self, space: &SpaceId) -> Result<Status, ReplicaError> {
        let store = &self.inner.store;
        let state = self.state(space).await?;
        let followed = store.followed(space).await?;
        let now = self.inner.clock.now();
        let forgotten = self.inner.forgotten.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Status {
            device: self.inner.device.clone(),
            space: space.clone(),
            profile: self.inner.profile.name.clone(),
            store: store.kind(),
            bytes: store.size().await?,
            epoch: state.epoch,
            head: state.head,
            head_ahead: state.head.time().since(now).max(0),
            head_alarm: self.head_alarm(state.head),
            offset_to_top: self.offset_to_top(),
            digest: state.digest,
            follows: self.inner.follows,
            outbox: store.outbox_counts(space).await?,
            conflicts_open: self.conflicts_open(space).await?,
            upstream: followed.epoch.map(|epoch| (epoch, followed.cursor)),
            purged: state.purged,
            forgotten,
            cloned_at: self.cloned_at(space).await?,
            revoked_at: self.revoked_at(space).await?,
            last_sync: store.runs(space, 1).await?.pop(),
            now,
        })
    }
}
