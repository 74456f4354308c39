//! When the upstream was restored from a backup: noticed before anything is sent, what it lost is offered
//! again, the rest is handed in as one list, and what waited for it goes on.

use crate::{Desk, Node, ReplicaError, sync::Stop};
use ropeway_core::{
    change::{Author, Base, Change, Door, Grant, Op},
    conflict::{Conflict, Kind, Resolution},
    id::{CONFLICT, ChangeId, Collection, Epoch, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::Keys,
    planted::{self, Bug},
    receipt::Reason,
    restored,
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, PageEnd, Transport};
use ropeway_store::{Decide, Followed};
use std::collections::BTreeSet;

/// Entries or records gone over in one transaction.
const CHUNK: usize = 500;

/// An upstream that is of another epoch than the one absorbed.
pub(crate) struct Restored {
    /// Its epoch now.
    pub(crate) epoch: Epoch,
    /// Its clock.
    pub(crate) now: Time,
}

/// What became of a list that was answered at once.
#[derive(Debug, Clone, Default)]
pub struct AnsweredAll {
    /// How many were answered.
    pub answered: usize,
    /// Those that could not be, and why; they stay open.
    pub left: Vec<(RecordId, Option<Reason>)>,
}

impl Node {
    /// The upstream's epoch for which what is sent is made: the one that was offered what the former one lost, or
    /// else the one known. Sent to one that went back in time, a later edit would arrive before the earlier one
    /// that was lost, so a push says it and is refused there.
    pub(crate) async fn dealt_with(&self, space: &SpaceId) -> Result<Option<Epoch>, ReplicaError> {
        if planted::has(Bug::IgnoredEpoch) {
            return Ok(None);
        }
        match self.offered(space).await? {
            None => self.known(space, &self.inner.store.followed(space).await?).await,
            offered => Ok(offered),
        }
    }

    /// The upstream's epoch: the one absorbed, or before a first pull has ended the one that receipts came from.
    async fn known(&self, space: &SpaceId, followed: &Followed) -> Result<Option<Epoch>, ReplicaError> {
        match &followed.epoch {
            None => self.noted(&answered_name(space)).await,
            absorbed => Ok(absorbed.clone()),
        }
    }

    /// Notes which epoch receipts are of, before they are taken in: where no pull has ended yet nothing else tells
    /// that it was lost.
    pub(crate) async fn note_answered(&self, space: &SpaceId, epoch: &Epoch) -> Result<(), ReplicaError> {
        let followed = self.inner.store.followed(space).await?;
        if followed.epoch.is_some() || self.known(space, &followed).await?.as_ref() == Some(epoch) {
            return Ok(());
        }
        Ok(self.inner.store.put_meta(&answered_name(space), epoch).await?)
    }

    /// What the upstream is that refused a push made for another epoch.
    pub(crate) async fn refused_as_restored(&self, transport: &dyn Transport) -> Stop {
        match transport.hello().await {
            Ok(Hello { epoch, now, .. }) => Stop::Restored(Restored { epoch, now }),
            Err(error) => error.into(),
        }
    }

    /// Whether a page is of another epoch than the one known, and what that lost was not offered yet.
    pub(crate) async fn must_offer(
        &self,
        space: &SpaceId,
        followed: &Followed,
        end: &PageEnd,
    ) -> Result<bool, ReplicaError> {
        let known = self.known(space, followed).await?;
        let changed = known.is_some_and(|known| known != end.epoch) && !planted::has(Bug::IgnoredEpoch);
        Ok(changed && self.offered(space).await?.as_ref() != Some(&end.epoch))
    }

    /// Makes this node's own acknowledged changes pending again, those that the backup window keeps on both
    /// sides. Done once for each epoch; cut in the middle it is done again, which changes nothing.
    pub(crate) async fn offer_again(&self, space: &SpaceId, to: &Restored) -> Result<(), ReplicaError> {
        if self.offered(space).await?.as_ref() == Some(&to.epoch) {
            return Ok(());
        }
        tracing::warn!(%space, epoch = %to.epoch, "the upstream was restored: what it lost is handed in");
        if let Some((batch, ..)) = self.sealed(space).await? {
            // Sealed for the lost epoch: its changes take their place behind those they were made on.
            self.unseal(space, &batch, None).await?;
        }
        let now = self.inner.clock.now();
        let mut after = i64::MIN;
        loop {
            let states = [EntryState::Receipted, EntryState::Settled];
            let page = self.inner.store.outbox(space, &states, after, CHUNK).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let kept = |e: &&Entry| restored::is_in_window(e, to.now, now);
            let seqs: BTreeSet<i64> = page.iter().filter(kept).map(|e| e.seq).collect();
            let keys = Keys { entries: seqs.clone(), ..Keys::default() };
            let decide: Decide = Box::new(move |snapshot| restored::offer_again(snapshot, &seqs));
            self.inner.store.transact(space, now, keys, decide).await?;
        }
        Ok(self.inner.store.put_meta(&offered_name(space), &to.epoch).await?)
    }

    /// After the restored upstream's epoch was absorbed: goes over what it has not fed. Whether there is
    /// anything new to send.
    pub(crate) async fn hand_in_unfed(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        let Some(epoch) = self.offered(space).await? else { return Ok(false) };
        if self.inner.store.followed(space).await?.epoch.as_ref() != Some(&epoch) {
            return Ok(false);
        }
        let mut after = Stamp(i64::MIN);
        loop {
            let page = self.inner.store.unfed(space, &epoch, after, CHUNK).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let keys: Vec<_> = page.into_iter().map(|(_, key)| key).collect();
            let (profile, epoch) = (self.inner.profile.clone(), epoch.clone());
            let decide: Decide =
                Box::new(move |snapshot| restored::hand_in(snapshot, &keys, &epoch, &profile));
            let now = self.inner.clock.now();
            let plan = self.inner.store.transact(space, now, Keys::default(), decide).await?;
            self.announce(space, plan.head);
        }
        self.inner.store.put_meta(&offered_name(space), "").await?;
        Ok(true)
    }

    /// Notes that a first pull began anew in the middle: what came in before may not be fed again.
    pub(crate) async fn expect_unfed(&self, space: &SpaceId, epoch: &Epoch) -> Result<(), ReplicaError> {
        Ok(self.inner.store.put_meta(&offered_name(space), epoch).await?)
    }

    async fn offered(&self, space: &SpaceId) -> Result<Option<Epoch>, ReplicaError> {
        self.noted(&offered_name(space)).await
    }

    async fn noted(&self, name: &str) -> Result<Option<Epoch>, ReplicaError> {
        let text = self.inner.store.meta(name).await?.filter(|text| !text.is_empty());
        Ok(text.map(Epoch::trusted))
    }

    /// Answers all that was lost with an epoch at once. Parents come before what refers to them; what cannot
    /// be answered stays open and is named. Each answer is a change like any other.
    pub async fn resolve_lost(
        &self,
        space: &SpaceId,
        desk: &Desk,
        lost: &Epoch,
        resolution: Resolution,
        notes: Option<String>,
    ) -> Result<AnsweredAll, ReplicaError> {
        let mut told = AnsweredAll::default();
        loop {
            let open = self.conflicts(space, true).await?;
            let mut open: Vec<_> = open
                .into_iter()
                .filter(|v| v.conflict.kind == Kind::Lost)
                .filter(|v| v.conflict.lost.as_ref().is_some_and(|l| l.epoch == *lost))
                .collect();
            // What was handed in together has one time: then in the order in which it was written.
            open.sort_by_key(|v| v.conflict.opened_at);
            let before = told.answered;
            told.left.clear();
            for views in open.chunks(CHUNK) {
                let asked = views.iter().map(|v| (v.id.clone(), v.version));
                for (id, refused) in self.answer_each(space, desk, asked, resolution, notes.as_ref()).await? {
                    match refused {
                        Some(reason) => told.left.push((id, reason)),
                        None => told.answered += 1,
                    }
                }
            }
            if told.left.is_empty() || told.answered == before {
                return Ok(told);
            }
        }
    }

    async fn answer_each(
        &self,
        space: &SpaceId,
        desk: &Desk,
        asked: impl Iterator<Item = (RecordId, u64)>,
        resolution: Resolution,
        notes: Option<&String>,
    ) -> Result<Vec<(RecordId, Option<Option<Reason>>)>, ReplicaError> {
        let epoch = self.inner.store.space(space).await?.epoch;
        let author = Author { device: self.inner.device.clone(), person: desk.person.clone() };
        let mut changes = Vec::new();
        for (id, version) in asked {
            changes.push(Change {
                id: ChangeId::parse(&self.inner.ids.id())?,
                collection: Collection::trusted(CONFLICT),
                record: id,
                op: Op::Patch,
                fields: Conflict::answer(resolution, None, notes.cloned()),
                seen: None,
                base: Some(Base { epoch: epoch.clone(), version }),
                lost: None,
                author: author.clone(),
                at: Some(self.author_time()),
            });
        }
        let grant = Grant { door: Door::Desk, device: self.inner.device.clone(), role: desk.role.clone() };
        let receipts = self.ingest(space, grant, changes).await?;
        let outcome = |r: ropeway_core::receipt::Receipt| {
            let refused = (!r.verdict.is_settled()).then_some(r.reason);
            (r.key.id, refused)
        };
        Ok(receipts.into_iter().map(outcome).collect())
    }
}

fn offered_name(space: &SpaceId) -> String {
    format!("restored.{space}")
}

fn answered_name(space: &SpaceId) -> String {
    format!("answered.{space}")
}

impl Restored {
    /// What a page says about the epoch it is of.
    pub(crate) fn of(end: &PageEnd) -> Self {
        Self { epoch: end.epoch.clone(), now: end.now }
    }
}
