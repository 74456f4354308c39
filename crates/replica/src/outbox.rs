//! Room 1 on the way out: batches are sealed on disk, sent, and settled receipt by receipt.

use crate::{Node, ReplicaError};
use bytes::Bytes;
use ropeway_core::{
    id::{ChangeId, SpaceId},
    outbox::{Entry, EntryState},
    plan::Keys,
    settle::{self, BatchLimit},
};
use ropeway_protocol::{Push, Pushed};
use ropeway_store::Decide;

/// How many unsettled entries one look at the outbox takes in.
const WINDOW: usize = 5_000;

impl Node {
    /// All unsettled entries, oldest first.
    pub(crate) async fn unsettled(&self, space: &SpaceId) -> Result<Vec<Entry>, ReplicaError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(i64::MIN, |e: &Entry| e.seq);
            let page = self.inner.store.outbox(space, &[], after, WINDOW).await?;
            let full = page.len() == WINDOW;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// Seals the next batch, where there is something to send. Its bytes are on disk when this returns.
    /// `newest` is the newest entry that this sync sends, noted at the first call: a desk that writes faster
    /// than the network carries would else keep the sync from ever pulling.
    pub(crate) async fn seal_next(
        &self,
        space: &SpaceId,
        limit: BatchLimit,
        newest: &mut Option<i64>,
    ) -> Result<bool, ReplicaError> {
        let now = self.inner.clock.now();
        let mut entries = self.unsettled(space).await?;
        let last = settle::last_tries(&entries, &self.inner.profile);
        let upto = *newest.get_or_insert(entries.last().map_or(i64::MIN, |e| e.seq));
        entries.retain(|e| e.seq <= upto);
        let chosen = settle::sendable(&entries, now, limit, &self.inner.profile);
        if chosen.is_empty() {
            return Ok(false);
        }
        let chosen: Vec<&Entry> = entries.iter().filter(|e| chosen.binary_search(&e.seq).is_ok()).collect();
        let keys = Keys { outbox: chosen.iter().map(|e| e.over.clone()).collect(), ..Keys::default() };
        let wanted: Vec<(i64, ChangeId)> = chosen.iter().map(|e| (e.seq, e.change.id.clone())).collect();
        let id = self.inner.ids.id();
        let boots = self.boots();
        let epoch = self.dealt_with(space).await?;
        let decide: Decide = Box::new(move |snapshot| {
            settle::seal(snapshot, &id, &wanted, &boots, |entries| {
                let changes = entries.iter().map(|e| e.change.clone()).collect();
                let sent = entries.iter().map(|e| &e.change.id).filter(|id| last.contains(*id));
                let last = sent.cloned().collect();
                let push = Push { batch: Some(id.clone()), epoch: epoch.clone(), changes, last };
                serde_json::to_vec(&push).unwrap_or_default()
            })
        });
        let plan = self.inner.store.transact(space, now, keys, decide).await?;
        Ok(!plan.sealed.is_empty())
    }

    /// The batch that is on disk and not answered, as it is to be sent.
    pub(crate) async fn sealed(
        &self,
        space: &SpaceId,
    ) -> Result<Option<(String, Bytes, usize)>, ReplicaError> {
        let sealed = self.inner.store.sealed(space).await?;
        Ok(sealed.map(|s| (s.id, Bytes::from(s.body), s.changes)))
    }

    /// Takes a batch's receipts in: each settles its own change.
    pub(crate) async fn receive(
        &self,
        space: &SpaceId,
        batch: &str,
        pushed: Pushed,
    ) -> Result<(), ReplicaError> {
        let (batch, retry) = (batch.to_owned(), self.inner.profile.retry.clone());
        let keys = self.keys_of_batch(space).await?;
        let decide: Decide = Box::new(move |snapshot| {
            settle::receive(snapshot, &batch, &pushed.receipts, &pushed.epoch, &retry)
        });
        self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        Ok(())
    }

    /// Opens a batch again. With a reason its changes go on the retry schedule.
    pub(crate) async fn unseal(
        &self,
        space: &SpaceId,
        batch: &str,
        why: Option<String>,
    ) -> Result<(), ReplicaError> {
        let (batch, retry) = (batch.to_owned(), self.inner.profile.retry.clone());
        let keys = self.keys_of_batch(space).await?;
        let decide: Decide = Box::new(move |snapshot| {
            settle::unseal(snapshot, &batch, why.as_deref().map(|why| (&retry, why)))
        });
        self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        Ok(())
    }

    pub(crate) async fn keys_of_batch(&self, space: &SpaceId) -> Result<Keys, ReplicaError> {
        let mut keys = Keys::default();
        let mut after = i64::MIN;
        loop {
            let page = self.inner.store.outbox(space, &[EntryState::Sealed], after, WINDOW).await?;
            after = page.last().map_or(after, |e| e.seq);
            let full = page.len() == WINDOW;
            keys.outbox.extend(page.into_iter().map(|e| e.over));
            if !full {
                return Ok(keys);
            }
        }
    }
}
