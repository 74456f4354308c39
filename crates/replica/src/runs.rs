//! Syncs of devices with this node, as those who look after it want to see them (ISMF-147).

use crate::{Node, ReplicaError};
use ropeway_core::id::SpaceId;
use ropeway_store::SyncRun;

impl Node {
    /// Notes a sync of a device that is over.
    pub async fn note_device_run(&self, space: &SpaceId, run: &SyncRun) -> Result<(), ReplicaError> {
        Ok(self.inner.store.put_run(space, run).await?)
    }

    /// The latest noted syncs of devices, newest first.
    pub async fn device_runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, ReplicaError> {
        Ok(self.inner.store.device_runs(space, limit).await?)
    }
}
