//! A follower's changes that went without an answer, at an upstream that may have forgotten meanwhile what it
//! answered: nothing goes before everything was pulled anew, and then a person is asked (ADR 0017).

use crate::{Node, ReplicaError};
use ropeway_core::{doubt, id::SpaceId, outbox::EntryState, plan::Keys, settle::NEVER};
use ropeway_store::Decide;

impl Node {
    /// Notes on what an earlier sync left sealed that it may have been sent. Whether anything that may have been
    /// decided would go now.
    pub(crate) async fn note_unanswered(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        let entries = self.unsettled(space).await?;
        if entries.iter().any(|e| e.state == EntryState::Sealed && !e.is_unanswered()) {
            let keys = self.keys_of_batch(space).await?;
            let decide: Decide = Box::new(doubt::unanswered);
            self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        }
        let goes = |state: EntryState, due| state == EntryState::Sealed || state.is_unsent() && due < NEVER;
        Ok(entries.iter().any(|e| goes(e.state, e.due) && (e.is_unanswered() || e.batch.is_some())))
    }

    /// Notes that the upstream has forgotten something that was not read here: nothing goes before everything was
    /// pulled anew, whatever happens in between.
    pub(crate) async fn begin_doubt(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        Ok(self.inner.store.put_meta(&name(space), "pull first").await?)
    }

    /// Whether that was noted.
    pub(crate) async fn in_doubt(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        Ok(self.inner.store.meta(&name(space)).await?.is_some_and(|text| !text.is_empty()))
    }

    /// After everything was pulled anew: what went without an answer waits for a person, where the upstream does
    /// not have what it makes.
    pub(crate) async fn doubt(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        let mut entries = self.unsettled(space).await?;
        entries.retain(|e| e.is_unanswered());
        if !entries.is_empty() {
            let outbox = entries.iter().map(|e| e.over.clone()).collect();
            let records = entries.iter().map(|e| e.change.key()).collect();
            let keys = Keys { outbox, records, ..Keys::default() };
            let decide: Decide = Box::new(doubt::doubt);
            self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        }
        Ok(self.inner.store.put_meta(&name(space), "").await?)
    }
}

fn name(space: &SpaceId) -> String {
    format!("doubted.{space}")
}
