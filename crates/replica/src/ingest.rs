//! Rooms 2 to 4 for changes that others push: from the door to the receipts.

use crate::{Node, ReplicaError};
use ropeway_core::{
    change::{Batch, Change, Grant},
    id::SpaceId,
    ingest, limits,
    receipt::Receipt,
};

impl Node {
    /// Decides a batch of changes in one transaction and answers one receipt a change, in order. What a
    /// receipt says is durable. Errors mean that the machine failed and nothing was decided.
    pub async fn ingest(
        &self,
        space: &SpaceId,
        grant: Grant,
        changes: Vec<Change>,
    ) -> Result<Vec<Receipt>, ReplicaError> {
        if changes.len() > limits::PUSH_CHANGES_MAX {
            let (most, sent) = (limits::PUSH_CHANGES_MAX, changes.len());
            return Err(ReplicaError::TooLarge(format!(
                "a push may carry {most} changes, this one carries {sent}"
            )));
        }
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch { grant, changes };
        let profile = self.inner.profile.clone();
        let keys = ingest::keys(&batch, &profile, self.inner.follows);
        let decide = Box::new(move |snapshot: &_| ingest::decide(snapshot, &batch, &profile));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        self.announce(space, plan.head);
        Ok(plan.answers)
    }
}
