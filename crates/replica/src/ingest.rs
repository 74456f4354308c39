//! Rooms 2 to 4 for changes that others push: from the door to the receipts.

use crate::{Node, ReplicaError};
use futures_util::future::join_all;
use ropeway_core::{
    change::{Batch, Change, Grant},
    id::SpaceId,
    ingest, limits,
    receipt::{Code, Detail, Reason, Receipt, Verdict},
    time::Stamp,
};
use ropeway_store::StoreError;
use std::sync::Arc;

impl Node {
    /// Decides a batch of changes and answers one receipt a change, in order. What a receipt says is durable. Errors
    /// mean that the machine failed; what was decided nevertheless is answered as a replay.
    ///
    /// A batch that cannot be decided as a whole is decided one change at a time: one bad change never
    /// blocks its neighbours.
    pub async fn ingest(
        &self,
        space: &SpaceId,
        grant: Grant,
        changes: Vec<Change>,
    ) -> Result<Vec<Receipt>, ReplicaError> {
        self.take(space, Batch::new(grant, changes)).await
    }

    /// The same for a batch of which some changes are tried for the last time.
    pub async fn take(&self, space: &SpaceId, batch: Batch) -> Result<Vec<Receipt>, ReplicaError> {
        if batch.changes.len() > limits::PUSH_CHANGES_MAX {
            let (most, sent) = (limits::PUSH_CHANGES_MAX, batch.changes.len());
            return Err(ReplicaError::TooLarge(format!(
                "a push may carry {most} changes, this one carries {sent}"
            )));
        }
        let batches = match self.inner.store.batch_changes() {
            Some(best) => batch.cut(best),
            None => vec![batch],
        };
        let decided = batches.into_iter().map(|batch| self.take_one(space, Arc::new(batch)));
        let decided: Result<Vec<_>, _> = join_all(decided).await.into_iter().collect();
        Ok(decided?.into_iter().flatten().collect())
    }

    async fn take_one(&self, space: &SpaceId, batch: Arc<Batch>) -> Result<Vec<Receipt>, ReplicaError> {
        match self.decide(space, batch.clone()).await {
            Err(ReplicaError::Store(StoreError::Fault { what, .. })) if !batch.changes.is_empty() => {
                tracing::error!(what, "a batch could not be decided as a whole");
                self.one_by_one(space, &batch).await
            }
            decided => decided,
        }
    }

    /// Decides a batch in one transaction.
    pub(crate) async fn decide(
        &self,
        space: &SpaceId,
        batch: Arc<Batch>,
    ) -> Result<Vec<Receipt>, ReplicaError> {
        if batch.changes.is_empty() {
            return Ok(Vec::new());
        }
        let profile = self.inner.profile.clone();
        let keys = ingest::keys(&batch, &profile, self.inner.follows);
        let decide = Box::new(move |snapshot: &_| ingest::decide(snapshot, &batch, &profile));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        self.announce(space, plan.head);
        Ok(plan.answers)
    }

    async fn one_by_one(&self, space: &SpaceId, batch: &Batch) -> Result<Vec<Receipt>, ReplicaError> {
        let mut receipts = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            let alone = Batch {
                grant: batch.grant.clone(),
                changes: vec![change.clone()],
                repeatable: batch.repeatable,
                last: batch.last.get(&change.id).cloned().into_iter().collect(),
            };
            match self.decide(space, Arc::new(alone)).await {
                Ok(answered) => receipts.extend(answered),
                Err(ReplicaError::Store(StoreError::Fault { what, .. })) => {
                    receipts.push(fault(change, what))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(receipts)
    }
}

/// A change over which this node itself failed: refused, not remembered, kept by its author.
fn fault(change: &Change, what: String) -> Receipt {
    tracing::error!(change = %change.id, what, "a change could not be decided");
    let text =
        format!("this node failed over the change ({what}): it is kept where it is; tell the operator");
    Receipt {
        key: change.key(),
        change: change.id.clone(),
        verdict: Verdict::Rejected,
        version: 0,
        stamp: Stamp::default(),
        record: None,
        detail: Detail::default(),
        reason: Some(Reason { code: Code::Fault, field: None, text }),
    }
}
