//! A follower that its upstream has revoked (I9): what it makes is handed in to quarantine once and stays
//! pending here; when the upstream answers again, all of it goes.

use crate::{Node, ReplicaError, sync::Stop};
use ropeway_core::{aside, id::SpaceId, outbox::EntryState, plan::Keys, time::Time};
use ropeway_protocol::{Problem, ProblemCode, Transport, TransportError};
use ropeway_store::Decide;

/// Entries taken up in one transaction.
const CHUNK: usize = 500;

impl Node {
    /// Since when the upstream has refused this device as revoked.
    pub async fn revoked_at(&self, space: &SpaceId) -> Result<Option<Time>, ReplicaError> {
        let text = self.inner.store.meta(&name(space)).await?;
        Ok(text.and_then(|text| text.parse().ok()).map(Time))
    }

    /// The upstream has revoked this device and refused a batch of so many changes. Where it keeps all of
    /// them in quarantine they are put aside; else the batch stays sealed. Whether they were put aside.
    pub(crate) async fn put_aside(
        &self,
        space: &SpaceId,
        batch: &str,
        count: usize,
        problem: &Problem,
    ) -> Result<bool, ReplicaError> {
        if problem.quarantined.is_none_or(|kept| kept < count as u64) {
            return Ok(false);
        }
        let now = self.inner.clock.now();
        if self.revoked_at(space).await?.is_none() {
            self.inner.store.put_meta(&name(space), &now.0.to_string()).await?;
        }
        let (batch, why) = (batch.to_owned(), problem.detail.clone());
        let keys = self.keys_of_batch(space).await?;
        let decide: Decide = Box::new(move |snapshot| aside::put_aside(snapshot, &batch, &why));
        self.inner.store.transact(space, now, keys, decide).await?;
        Ok(true)
    }

    /// Where this device was revoked, asks whether it still is, before anything goes: what was put aside
    /// goes first, in its order. Where something that goes may have been decided already, asks whether the upstream
    /// still knows everything since this node has read it: it may know this device under another name by now.
    pub(crate) async fn knock(
        &self,
        space: &SpaceId,
        transport: &dyn Transport,
        unanswered: bool,
    ) -> Result<(), Stop> {
        let revoked = self.revoked_at(space).await?.is_some();
        if !revoked && !unanswered {
            return Ok(());
        }
        let token = self.inner.store.followed(space).await?.token;
        match transport.pull(token.as_deref(), 1).await {
            Err(TransportError::Problem(p)) if p.code == ProblemCode::ResyncRequired => {
                self.begin_doubt(space).await?;
            }
            // What was made since is handed in, and the push or the pull says it again.
            Err(TransportError::Problem(p)) if !revoked || p.code == ProblemCode::DeviceRevoked => {
                return Ok(());
            }
            Err(TransportError::Problem(p)) if crate::sync::starts_over(&p) => {}
            answered => drop(answered?),
        }
        if revoked {
            self.take_up(space).await?;
        }
        Ok(())
    }

    async fn take_up(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        let mut after = i64::MIN;
        loop {
            let page = self.inner.store.outbox(space, &[EntryState::Pending], after, CHUNK).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let outbox = page.into_iter().map(|e| e.over).collect();
            let decide: Decide = Box::new(aside::take_up);
            let keys = Keys { outbox, ..Keys::default() };
            self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        }
        Ok(self.inner.store.put_meta(&name(space), "").await?)
    }
}

fn name(space: &SpaceId) -> String {
    format!("revoked.{space}")
}
