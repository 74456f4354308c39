//! What every wire does with the replica: what a door has decoded is decided in its turn, what was read and
//! who was revoked is noted.

use crate::{Caller, Failure, Host};
use ropeway_core::{
    change::{Batch, Change},
    id::{DeviceId, Epoch},
    receipt::Receipt,
    time::Stamp,
};
use ropeway_protocol::{Problem, ProblemCode};
use ropeway_replica::{Device, Enrolled, ReplicaError, Taken};
use tokio::{sync::SemaphorePermit, time::Instant};

/// Changes that were decided.
#[derive(Debug)]
pub struct Decided {
    /// One receipt a change, in order.
    pub receipts: Vec<Receipt>,
    /// The epoch that they speak of.
    pub epoch: Epoch,
    /// The head before they were decided: a receipt that is not newer was given before.
    pub before: Stamp,
    /// The head when the last of them was decided.
    pub head: Stamp,
}

impl Host {
    /// Waits for a turn to decode and decide: only so many are held in memory at once.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let stopping = || {
            let why = "the node is stopping; nothing was taken in";
            Failure(Problem::new(ProblemCode::Unavailable, why).after(5))
        };
        self.inner.pushes.acquire().await.map_err(|_| stopping())
    }

    /// Changes that a device brings, by what it is granted.
    pub fn batch(&self, caller: &Caller, changes: Vec<Change>) -> Batch {
        Batch::new(self.node().grant_of(&caller.device), changes)
    }

    /// Decides changes in the name of a device, whichever wire they came by.
    pub async fn decide(&self, caller: &Caller, batch: Batch) -> Result<Decided, Failure> {
        let node = self.node();
        let started = Instant::now();
        let before = node.may_push(&caller.device, batch.epoch.as_ref()).await?.head;
        let decided = node.take(caller.space(), batch).await;
        self.wrote(&decided);
        let Taken { receipts, epoch, head } = decided?;
        self.saw(&epoch);
        self.inner.metrics.pushed(started.elapsed(), &receipts);
        Ok(Decided { receipts, epoch, before, head })
    }

    /// Notes how far a device has read, whichever wire it reads by ([`Node::note_read`](ropeway_replica::Node::note_read)).
    pub async fn note_read(&self, caller: &Caller, cursor: Option<&str>) {
        if let Err(error) = self.node().note_read(&caller.device, cursor).await {
            tracing::warn!(%error, "how far a device has pulled could not be noted");
        }
    }

    /// Takes a device's right to sync away and ends what it has open here. A device of another space is as
    /// absent as one that never was.
    pub async fn revoke(&self, caller: &Caller, id: &str) -> Result<Device, Failure> {
        caller.must_be_admin()?;
        let id = self.device_of(caller, id).await?.id;
        let revoked = self.node().revoke(caller.space(), &id).await?;
        self.inner.revoked.send_replace(());
        Ok(revoked)
    }

    /// Gives a device a new token and ends what it has open here with the old one (GP-13).
    pub async fn rotate(&self, caller: &Caller, id: &str) -> Result<Enrolled, Failure> {
        caller.must_be_admin()?;
        let id = self.device_of(caller, id).await?.id;
        let enrolled = self.node().rotate(caller.space(), &id).await?;
        self.inner.revoked.send_replace(());
        Ok(enrolled)
    }

    /// A device of the caller's space.
    pub async fn device_of(&self, caller: &Caller, id: &str) -> Result<Device, Failure> {
        let absent = || Failure::new(ProblemCode::NotFound, "there is no device of this id");
        let id = DeviceId::parse(id).map_err(|_| absent())?;
        let found = self.node().store().device(caller.space(), &id).await.map_err(ReplicaError::from)?;
        found.ok_or_else(absent)
    }

    /// Keeps the changes of a revoked device aside, whichever wire they came by, and gives their refusal:
    /// nothing of them is decided (I9).
    pub async fn quarantine(&self, device: &Device, changes: Vec<Change>) -> Result<Failure, Failure> {
        let sent = changes.len();
        let kept = self.node().quarantine(device, changes).await;
        self.wrote(&kept);
        let kept = kept?;
        tracing::warn!(device = %device.id, kept, sent, "a revoked device handed its work in to quarantine");
        let why = format!(
            "the device `{}` was revoked: nothing was taken in, and {kept} of these changes are kept in quarantine \
             until an administrator decides",
            device.name
        );
        let mut problem = Problem::new(ProblemCode::DeviceRevoked, why);
        problem.quarantined = Some(kept);
        Ok(Failure(problem))
    }
}
