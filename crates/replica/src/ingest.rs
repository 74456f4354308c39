//! Rooms 2 to 4 for changes that others push: from the door to the receipts.

use crate::{
    Node, ReplicaError,
    shared::{Parted, in_order},
};
use futures_util::future::join_all;
use ropeway_core::{
    change::{Batch, Change, Grant},
    id::{Epoch, SpaceId},
    ingest, limits,
    receipt::{Code, Detail, Reason, Receipt, Verdict},
    time::Stamp,
};
use ropeway_store::{SpaceState, StoreError};
use std::sync::Arc;

/// What came of a batch.
#[derive(Debug)]
pub struct Taken {
    /// One receipt a change, in order.
    pub receipts: Vec<Receipt>,
    /// The epoch that they speak of.
    pub epoch: Epoch,
    /// The head when the last of them was decided.
    pub head: Stamp,
}

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
        Ok(self.take(space, Batch::new(grant, changes)).await?.receipts)
    }

    /// The same for a batch of which more is known: what is tried for the last time, and for which epoch it was made.
    ///
    /// Errors: [`ReplicaError::EpochChanged`] where this node is of another one, or came to be while it decided.
    pub async fn take(&self, space: &SpaceId, batch: Batch) -> Result<Taken, ReplicaError> {
        if batch.changes.len() > limits::PUSH_CHANGES_MAX {
            let (most, sent) = (limits::PUSH_CHANGES_MAX, batch.changes.len());
            return Err(ReplicaError::TooLarge(format!(
                "a push may carry {most} changes, this one carries {sent}"
            )));
        }
        match self.parted(space, batch).await? {
            Parted::Whole(batch) => self.take_all(space, batch).await,
            Parted::Both { shared, theirs, own } => {
                let first = self.take_all(&shared, theirs.1).await?;
                let second = self.take_all(space, own.1).await?;
                if first.epoch != second.epoch {
                    return Err(ReplicaError::EpochChanged);
                }
                let receipts = in_order([(theirs.0, first.receipts), (own.0, second.receipts)]);
                Ok(Taken { receipts, ..second })
            }
        }
    }

    /// Decides what is all of one space.
    async fn take_all(&self, space: &SpaceId, batch: Batch) -> Result<Taken, ReplicaError> {
        if batch.changes.is_empty() {
            let state = self.must_be_of(space, batch.epoch.as_ref()).await?;
            return Ok(Taken { receipts: Vec::new(), epoch: state.epoch, head: state.head });
        }
        let batches = match self.inner.store.batch_changes() {
            Some(best) => batch.cut(best),
            None => vec![batch],
        };
        let decided = batches.into_iter().map(|batch| self.take_one(space, Arc::new(batch)));
        let decided: Result<Vec<_>, _> = join_all(decided).await.into_iter().collect();
        one_epoch(decided?)
    }

    async fn take_one(&self, space: &SpaceId, batch: Arc<Batch>) -> Result<Taken, ReplicaError> {
        match self.decide(space, batch.clone()).await {
            Err(ReplicaError::Store(StoreError::Fault { what, .. })) if !batch.changes.is_empty() => {
                tracing::error!(what, "a batch could not be decided as a whole");
                self.one_by_one(space, &batch).await
            }
            decided => decided,
        }
    }

    /// Decides a batch in one transaction.
    pub(crate) async fn decide(&self, space: &SpaceId, batch: Arc<Batch>) -> Result<Taken, ReplicaError> {
        let (profile, wanted) = (self.inner.profile.clone(), batch.epoch.clone());
        let keys = ingest::keys(&batch, &profile, self.inner.follows);
        let decide = Box::new(move |snapshot: &_| ingest::decide(snapshot, &batch, &profile));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        let epoch = match (plan.epoch, wanted) {
            (Some(epoch), None) => epoch,
            (Some(epoch), Some(wanted)) if wanted == epoch => epoch,
            _ => return Err(ReplicaError::EpochChanged),
        };
        self.announce(space, plan.head);
        Ok(Taken { receipts: plan.answers, epoch, head: plan.head })
    }

    async fn one_by_one(&self, space: &SpaceId, batch: &Batch) -> Result<Taken, ReplicaError> {
        let mut taken = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            match self.decide(space, Arc::new(batch.with(vec![change.clone()]))).await {
                Ok(answered) => taken.push(answered),
                Err(ReplicaError::Store(StoreError::Fault { what, .. })) => {
                    let SpaceState { epoch, head, .. } = self.inner.store.space(space).await?;
                    taken.push(Taken { receipts: vec![fault(change, what)], epoch, head });
                }
                Err(error) => return Err(error),
            }
        }
        one_epoch(taken)
    }
}

/// What came of the parts of a batch: receipts of two epochs are no answer.
fn one_epoch(parts: Vec<Taken>) -> Result<Taken, ReplicaError> {
    let join = |mut all: Taken, part: Taken| {
        if all.epoch != part.epoch {
            return Err(ReplicaError::EpochChanged);
        }
        all.receipts.extend(part.receipts);
        Ok(Taken { head: all.head.max(part.head), ..all })
    };
    let mut parts = parts.into_iter();
    let first = parts.next().ok_or_else(|| ReplicaError::Invalid("the batch was empty".into()))?;
    parts.try_fold(first, join)
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
