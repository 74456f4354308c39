//! The end of a competition: what a node took along is given back, and nothing is deleted.

use crate::{Node, ReplicaError, SyncReport};
use ropeway_core::{id::SpaceId, time::Stamp};
use ropeway_store::DeviceStatus;

impl Node {
    /// The keys that the upstream gives this node; `None`: it gives everything.
    pub async fn taken_along(&self, space: &SpaceId) -> Result<Option<Vec<String>>, ReplicaError> {
        Ok(self.inner.store.followed(space).await?.audiences)
    }

    /// Why what this node took along may not go yet, after a sync that ended like this: a sentence each.
    /// Nothing may wait here or in a device that follows this node, no conflict may be open, and this
    /// replica and its upstream must hold the same.
    pub async fn holds_back_clear(
        &self,
        space: &SpaceId,
        report: &SyncReport,
    ) -> Result<Vec<String>, ReplicaError> {
        let mut reasons = Vec::new();
        let unsettled = self.unsettled(space).await?.len();
        if unsettled > 0 {
            reasons.push(format!("{unsettled} changes wait for the upstream"));
        }
        let open = self.conflicts_open(space).await?;
        if open > 0 {
            reasons.push(format!("{open} conflicts are open"));
        }
        match report.digests {
            Some((theirs, ours)) if theirs == ours => {}
            Some(_) => reasons.push("this replica and its upstream hold different records".into()),
            None => reasons.push("this replica was not compared with its upstream".into()),
        }
        let head = self.inner.store.space(space).await?.head;
        for device in self.inner.store.devices().await? {
            let follows = device.space == *space
                && device.status == DeviceStatus::Active
                && device.last_seen_at.is_some();
            if follows && device.pulled.unwrap_or(Stamp(i64::MIN)) < head {
                reasons.push(format!("the device `{}` may hold work: it is behind this node", device.name));
            }
        }
        Ok(reasons)
    }
}
