//! Changes that wait for a parent, and the pull that brings it: they go at once, whatever their schedule says.

use crate::{Node, ReplicaError};
use ropeway_core::{
    id::{Epoch, Key, SpaceId},
    outbox::EntryState,
    plan::Keys,
    settle,
};
use ropeway_store::Decide;
use std::collections::BTreeMap;

/// What waiting changes wait for: each record with what the upstream had said about it before the pull.
pub(crate) type Awaited = BTreeMap<Key, Option<(Epoch, u64)>>;

impl Node {
    /// What is waited for now. Nothing is read where nothing waits.
    pub(crate) async fn awaited(&self, space: &SpaceId) -> Result<Awaited, ReplicaError> {
        let counts = self.inner.store.outbox_counts(space).await?;
        if !counts.iter().any(|(state, n)| *state == EntryState::Waiting && *n > 0) {
            return Ok(Awaited::new());
        }
        let entries = self.unsettled(space).await?;
        let waiting = entries.iter().filter(|e| e.state == EntryState::Waiting);
        let keys: Vec<Key> = waiting.flat_map(|e| settle::awaits(e, &self.inner.profile)).collect();
        self.said(space, keys).await
    }

    async fn said(&self, space: &SpaceId, keys: Vec<Key>) -> Result<Awaited, ReplicaError> {
        let found = self.inner.store.records(space, &keys).await?;
        let mut said: Awaited = keys.into_iter().map(|key| (key, None)).collect();
        for (key, record) in found {
            said.insert(key, record.upstream.filter(|u| u.version > 0).map(|u| (u.epoch, u.version)));
        }
        Ok(said)
    }

    /// Lets those go whose parent a pull has brought since. How many.
    pub(crate) async fn arm(&self, space: &SpaceId, awaited: Awaited) -> Result<usize, ReplicaError> {
        if awaited.is_empty() {
            return Ok(0);
        }
        let now = self.said(space, awaited.keys().cloned().collect()).await?;
        let came: Vec<Key> = now
            .into_iter()
            .filter(|(key, said)| said.is_some() && awaited.get(key) != Some(said))
            .map(|(key, _)| key)
            .collect();
        if came.is_empty() {
            return Ok(0);
        }
        let profile = self.inner.profile.clone();
        let entries = self.unsettled(space).await?;
        let keys = Keys { outbox: entries.into_iter().map(|e| e.over).collect(), ..Keys::default() };
        let decide: Decide = Box::new(move |snapshot| settle::arm(snapshot, &came, &profile));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        Ok(plan.outbox.len())
    }
}
