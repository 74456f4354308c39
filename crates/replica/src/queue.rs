//! The outbox as people meet it: what waits, why, and what they can do about it.

use crate::{Node, ReplicaError};
use ropeway_core::{
    absorb,
    change::Op,
    id::{Collection, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::Keys,
    receipt::{Reason, Verdict},
    settle,
    time::Time,
};
use ropeway_store::Decide;

/// One line of the queue.
#[derive(Debug, Clone)]
pub struct QueueItem {
    /// Its number, to name it.
    pub seq: i64,
    /// The record.
    pub collection: Collection,
    /// The record.
    pub record: RecordId,
    /// Where it stands.
    pub state: EntryState,
    /// The documents' word: `pending`, `synced`, `conflict`, `failed` (ISMF-056).
    pub status: &'static str,
    /// How often the upstream did not take it.
    pub attempts: u32,
    /// When it is tried next; `None`: at the next sync, or only when a person says so.
    pub due: Option<Time>,
    /// When it was last tried.
    pub tried_at: Option<Time>,
    /// What the upstream said.
    pub verdict: Option<Verdict>,
    /// Why not.
    pub reason: Option<Reason>,
    /// When it was accepted here.
    pub accepted_at: Time,
}

impl QueueItem {
    fn of(entry: Entry) -> Self {
        let status = match (entry.state, entry.verdict) {
            (_, Some(Verdict::Parked)) => "conflict",
            (EntryState::Receipted | EntryState::Settled, _) => "synced",
            _ if entry.due == settle::NEVER => "failed",
            _ => "pending",
        };
        let is_timed = entry.due != settle::NEVER && entry.due > Time(0) && entry.state.is_unsent();
        Self {
            seq: entry.seq,
            collection: entry.change.collection,
            record: entry.change.record,
            state: entry.state,
            status,
            attempts: entry.attempts,
            due: is_timed.then_some(entry.due),
            tried_at: entry.tried_at,
            verdict: entry.verdict,
            reason: entry.reason,
            accepted_at: entry.accepted_at,
        }
    }
}

impl Node {
    /// What waits for the upstream, oldest first.
    pub async fn queue(&self, space: &SpaceId) -> Result<Vec<QueueItem>, ReplicaError> {
        Ok(self.unsettled(space).await?.into_iter().map(QueueItem::of).collect())
    }

    /// Arms entries again that wait for their time or have failed; all of them when none is named.
    /// Returns how many.
    pub async fn queue_retry(&self, space: &SpaceId, seqs: &[i64]) -> Result<usize, ReplicaError> {
        let chosen = self.choose(space, seqs).await?;
        let keys = Keys { outbox: chosen.iter().map(|e| e.over.clone()).collect(), ..Keys::default() };
        let seqs: Vec<i64> = chosen.iter().map(|e| e.seq).collect();
        let decide: Decide = Box::new(move |snapshot| settle::rearm(snapshot, &seqs));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        Ok(plan.outbox.len())
    }

    /// Gives entries up for good: the records show the upstream's values again. The values given up stay
    /// in the record's history and in the entry. Only entries that the upstream has not taken in, and a
    /// create only together with what rests on it ([`Node::queue_resting_on`]).
    pub async fn queue_discard(&self, space: &SpaceId, seqs: &[i64]) -> Result<usize, ReplicaError> {
        if seqs.is_empty() {
            return Err(ReplicaError::Invalid("name the entries to give up".into()));
        }
        let chosen = self.choose(space, seqs).await?;
        let resting = self.queue_resting_on(space, seqs).await?;
        if !resting.is_empty() {
            let names: Vec<String> = resting.iter().map(ToString::to_string).collect();
            return Err(ReplicaError::Invalid(format!(
                "other entries rest on what you give up and could never go without it: {}; nothing was \
                 given up; name them too, or send the entry after a correction",
                names.join(", ")
            )));
        }
        let keys = Keys {
            outbox: chosen.iter().map(|e| e.over.clone()).collect(),
            records: chosen.iter().map(|e| e.change.key()).collect(),
            ..Keys::default()
        };
        let profile = self.inner.profile.clone();
        let decide: Decide = Box::new(move |snapshot| absorb::discard(snapshot, &chosen, &profile));
        let plan = self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        self.announce(space, plan.head);
        Ok(plan.outbox.len())
    }

    /// The unsent entries that rest on creates among `seqs` and are not named themselves: later edits of
    /// those records, and what refers to them. Without their creates they could never go.
    pub async fn queue_resting_on(&self, space: &SpaceId, seqs: &[i64]) -> Result<Vec<i64>, ReplicaError> {
        let entries = self.unsettled(space).await?;
        let named = |e: &&Entry| e.change.op == Op::Create && seqs.contains(&e.seq);
        let creates: Vec<Key> = entries.iter().filter(named).map(|e| e.change.key()).collect();
        if creates.is_empty() {
            return Ok(Vec::new());
        }
        // What rests on a create may make records itself.
        let all = entries.iter().filter(|e| e.change.op == Op::Create).map(|e| e.change.key());
        let keys: Vec<Key> = all.collect();
        let found = self.inner.store.records(space, &keys).await?;
        let made_here = found.into_iter().filter(|(_, r)| r.upstream.is_none()).map(|(key, _)| key).collect();
        Ok(settle::resting_on(&entries, seqs, &made_here, &self.inner.profile))
    }

    async fn choose(&self, space: &SpaceId, seqs: &[i64]) -> Result<Vec<Entry>, ReplicaError> {
        let entries = self.unsettled(space).await?;
        for seq in seqs {
            let entry = entries.iter().find(|e| e.seq == *seq);
            let entry = entry.ok_or_else(|| ReplicaError::NotFound(format!("the queue entry {seq}")))?;
            if !entry.state.is_unsent() {
                let state = entry.state.as_str();
                return Err(ReplicaError::Invalid(format!(
                    "the queue entry {seq} is {state}: it is on its way already"
                )));
            }
        }
        let named = |e: &Entry| e.state.is_unsent() && (seqs.is_empty() || seqs.contains(&e.seq));
        Ok(entries.into_iter().filter(named).collect())
    }
}
