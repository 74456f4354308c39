//! Quarantine on the node that serves: a revoked device's unsent work is kept aside, and an administrator
//! accepts it, as that device's changes, or discards it (I9).

use crate::{
    Node, ReplicaError,
    shared::{Parted, in_order},
};
use ropeway_core::{
    change::{Batch, Change},
    id::{ChangeId, DeviceId, SpaceId},
    ingest, limits,
    plan::{Decision, Plan},
    planted::{self, Bug},
    receipt::{Receipt, Verdict},
};
use ropeway_store::{Decide, Device, DeviceStatus, QuarantineEnd, Quarantined, Room};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Changes decided in one transaction.
const CHUNK: usize = 500;

impl Node {
    /// The revoked device that holds this token. `None`: nobody holds it, or its holder may sync.
    pub async fn revoked(&self, token: &str) -> Result<Option<Device>, ReplicaError> {
        let found = self.holder(token).await?;
        Ok(found.filter(|device| device.status == DeviceStatus::Decommissioned))
    }

    /// Keeps what a revoked device sent, in order, as far as there is room for it. Returns how many of these
    /// changes are kept, now or before.
    pub async fn quarantine(&self, device: &Device, mut changes: Vec<Change>) -> Result<u64, ReplicaError> {
        let sent = changes.len() as u64;
        if planted::has(Bug::DroppedQuarantine) {
            changes.pop();
        }
        let room = Room { changes: limits::QUARANTINE_CHANGES_MAX, bytes: limits::QUARANTINE_BYTES_MAX };
        let now = self.inner.clock.now();
        let kept = self.inner.store.quarantine(&device.space, &device.id, now, changes, room).await?;
        Ok(if planted::has(Bug::DroppedQuarantine) { sent } else { kept })
    }

    /// Everything in quarantine, in the order of arrival, what was decided included.
    pub async fn quarantined(&self, space: &SpaceId) -> Result<Vec<Quarantined>, ReplicaError> {
        let mut all: Vec<Quarantined> = Vec::new();
        loop {
            let after = all.last().map_or(i64::MIN, |q| q.no);
            let page = self.inner.store.quarantined(space, after, CHUNK).await?;
            let full = page.len() == CHUNK;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// Decides what waits of a device, all of it where `only` names nothing, as that device's changes: with
    /// its role, and with receipts, so that nothing is taken twice when the device is registered anew. What
    /// is rejected or waits for a parent stays in quarantine. With `dry` nothing is written; what rests on an
    /// earlier part of more than 500 changes then shows as waiting.
    pub async fn accept_quarantined(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        only: &[ChangeId],
        by: Option<&str>,
        dry: bool,
    ) -> Result<Vec<Receipt>, ReplicaError> {
        let mut waiting = self.waiting_in_quarantine(space, device, only).await?;
        let device = self.inner.store.device(space, device).await?;
        let device = device.ok_or_else(|| ReplicaError::NotFound("the device".into()))?;
        let mut answers: BTreeMap<i64, Receipt> = BTreeMap::new();
        loop {
            let before = waiting.len();
            for part in waiting.chunks(CHUNK) {
                let changes = part.iter().map(|q| q.change.clone()).collect();
                let grant = self.grant_of(&device);
                let receipts = match dry {
                    true => self.rehearse(space, Batch::new(grant, changes)).await?,
                    false => self.ingest(space, grant, changes).await?,
                };
                let settled = part.iter().zip(&receipts).filter(|(_, r)| r.verdict.is_settled());
                let ended = settled.map(|(q, r)| (q.no, self.ended(by, Some(r.verdict)))).collect();
                if !dry {
                    self.inner.store.end_quarantine(space, ended).await?;
                }
                answers.extend(part.iter().map(|q| q.no).zip(receipts));
            }
            waiting.retain(|q| answers.get(&q.no).is_none_or(|r| !r.verdict.is_settled()));
            if dry || waiting.is_empty() || waiting.len() == before {
                return Ok(answers.into_values().collect());
            }
        }
    }

    /// Gives up what waits of a device, all of it where `only` names nothing. What was given up stays to be
    /// read for as long as receipts are kept. Returns how many.
    pub async fn discard_quarantined(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        only: &[ChangeId],
        by: Option<&str>,
    ) -> Result<u64, ReplicaError> {
        let waiting = self.waiting_in_quarantine(space, device, only).await?;
        let ended = waiting.iter().map(|q| (q.no, self.ended(by, None))).collect();
        Ok(self.inner.store.end_quarantine(space, ended).await?)
    }

    /// What waits of a device. Errors: [`ReplicaError::NotFound`] for a change that does not.
    pub async fn waiting_in_quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        only: &[ChangeId],
    ) -> Result<Vec<Quarantined>, ReplicaError> {
        let mut waiting = self.quarantined(space).await?;
        waiting.retain(|q| q.device == *device && q.ended.is_none());
        let there: BTreeSet<&ChangeId> = waiting.iter().map(|q| &q.change.id).collect();
        if let Some(missing) = only.iter().find(|id| !there.contains(id)) {
            let what = format!("no change `{missing}` of the device `{device}` waits in quarantine; it");
            return Err(ReplicaError::NotFound(what));
        }
        waiting.retain(|q| only.is_empty() || only.contains(&q.change.id));
        Ok(waiting)
    }

    fn ended(&self, by: Option<&str>, verdict: Option<Verdict>) -> QuarantineEnd {
        QuarantineEnd { at: self.inner.clock.now(), by: by.map(str::to_owned), verdict }
    }

    /// Decides a batch and writes nothing: what refers to a part of it that is shared shows as waiting.
    async fn rehearse(&self, space: &SpaceId, batch: Batch) -> Result<Vec<Receipt>, ReplicaError> {
        match self.parted(space, batch).await? {
            Parted::Whole(batch) => self.rehearse_one(space, batch).await,
            Parted::Both { shared, theirs, own } => {
                let first = self.rehearse_one(&shared, theirs.1).await?;
                let second = self.rehearse_one(space, own.1).await?;
                Ok(in_order([(theirs.0, first), (own.0, second)]))
            }
        }
    }

    async fn rehearse_one(&self, space: &SpaceId, batch: Batch) -> Result<Vec<Receipt>, ReplicaError> {
        let answers: Arc<Mutex<Vec<Receipt>>> = Arc::default();
        let (profile, told) = (self.inner.profile.clone(), answers.clone());
        let keys = ingest::keys(&batch, &profile, self.inner.follows);
        let decide: Decide = Box::new(move |snapshot| match ingest::decide(snapshot, &batch, &profile) {
            Decision::Plan(plan) => {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = plan.answers;
                Decision::Plan(Box::new(Plan { head: snapshot.head, ..Plan::default() }))
            }
            need => need,
        });
        self.inner.store.transact(space, self.inner.clock.now(), keys, decide).await?;
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(answers)
    }
}
