//! Devices that are revoked in the middle of their work, tokens that are changed, and the oracle of I9: who is
//! barred neither reads nor writes, and what quarantine says that it keeps is there.

use crate::{
    host::{Host, locked},
    world::World,
};
use ropeway_core::{change::Change, id::ChangeId};
use ropeway_protocol::{Problem, ProblemCode, TransportError};
use ropeway_replica::{Device, Enrolled, ReplicaError};
use ropeway_store::{DeviceStatus, Quarantine, Store, StoreError};
use std::collections::BTreeSet;

impl World {
    /// A machine as its upstream knows it.
    pub(crate) async fn known(&self, host: &Host) -> Option<(&Host, Device)> {
        let (upstream, id) = (&self.hosts[host.parent?], locked(&host.device).clone()?);
        let device = upstream.image().device(&self.space, &id).await.ok()??;
        Some((upstream, device))
    }

    /// An administrator at its upstream revokes a machine. From then on its token opens nothing.
    pub(crate) async fn revoke(&self, host: &Host) {
        let Some((upstream, device)) = self.known(host).await else { return };
        let done = upstream.alive(upstream.node().revoke(&self.space, &device.id)).await;
        self.done("revoke", done);
        self.look_at_status(host).await;
    }

    /// Notes what the disk of its upstream says of a machine: a restored one knows of no later revocation.
    pub(crate) async fn look_at_status(&self, host: &Host) {
        let known = self.known(host).await;
        *locked(&host.barred) =
            known.is_some_and(|(_, device)| device.status == DeviceStatus::Decommissioned);
    }

    /// A machine gets a new token; it may be told so only later.
    pub(crate) async fn rotate(&self, host: &Host, told: bool) {
        let Some((upstream, device)) = self.known(host).await else { return };
        let before = locked(&host.token).clone();
        let Some(rotated) = upstream.alive(upstream.node().rotate(&self.space, &device.id)).await else {
            return;
        };
        let Ok(Enrolled { token, .. }) = rotated else { return };
        if upstream.node().authenticate(&before).await.is_ok() {
            self.violated("I9", format!("the token before of node {} still opens the door", host.index));
        }
        *locked(if told { &host.token } else { &host.issued }) = token;
    }

    /// Somebody gives a machine what opens the door: the token that was issued, or a new registration with
    /// the audiences of the old one.
    pub(crate) async fn admit(&self, host: &Host) -> Result<(), ReplicaError> {
        let Some(parent) = host.parent else { return Ok(()) };
        let upstream = &self.hosts[parent];
        let issued = std::mem::take(&mut *locked(&host.issued));
        if !issued.is_empty() {
            *locked(&host.token) = issued;
        }
        let token = locked(&host.token).clone();
        if upstream.node().authenticate(&token).await.is_ok() {
            return Ok(());
        }
        let known = self.known(host).await;
        if let Some((_, device)) = known.as_ref().filter(|(_, d)| d.status == DeviceStatus::Active) {
            *locked(&host.token) = upstream.node().rotate(&self.space, &device.id).await?.token;
            return Ok(());
        }
        let number = upstream.node().devices().await?.len();
        self.register(host, &format!("node-{}-{number}", host.index), None).await?;
        *locked(&host.barred) = false;
        // As the new device it has read nothing, and holds nothing back before it does.
        *locked(&host.heard) = None;
        if let (Some((_, before)), Some((_, device))) = (known, self.known(host).await) {
            let held = upstream.image().subscriptions(&self.space, &before.id).await?;
            for choice in held.iter().filter(|s| s.left.is_none() && s.via.is_none()) {
                // What its upstream does not get any more it cannot give.
                let _ = upstream.node().subscribe(&device, &choice.audience, true).await;
            }
        }
        Ok(())
    }

    /// What a barred machine sends is put aside, as the server does.
    pub(crate) async fn put_aside(
        &self,
        host: &Host,
        upstream: &Host,
        changes: Vec<Change>,
    ) -> Result<TransportError, ReplicaError> {
        let token = locked(&host.token).clone();
        let Some(device) = upstream.node().revoked(&token).await? else {
            return Err(ReplicaError::Unauthenticated);
        };
        let before = self.state(upstream).await?;
        let ids: Vec<ChangeId> = changes.iter().map(|change| change.id.clone()).collect();
        let kept = upstream.node().quarantine(&device, changes).await?;
        let all = usize::try_from(kept).unwrap_or(usize::MAX).min(ids.len());
        locked(&upstream.aside).extend(ids.into_iter().take(all));
        if self.state(upstream).await? != before {
            self.violated("I9", format!("a barred machine moved the head of node {}", upstream.index));
        }
        let mut problem = Problem::new(ProblemCode::DeviceRevoked, "this device was revoked");
        problem.quarantined = Some(kept);
        Ok(TransportError::Problem(problem))
    }

    /// An administrator decides what waits of a machine: takes it as that device's work, or gives it up.
    pub(crate) async fn judge(&self, host: &Host, take: bool) {
        let Some((upstream, device)) = self.known(host).await else { return };
        let node = upstream.node();
        let judged = async {
            let waiting = node.waiting_in_quarantine(&self.space, &device.id, &[]).await?;
            let changes: Vec<Change> = waiting.into_iter().map(|q| q.change).collect();
            if !take {
                node.discard_quarantined(&self.space, &device.id, &[], Some("ada")).await?;
                return Ok((changes, Vec::new()));
            }
            let receipts = node.accept_quarantined(&self.space, &device.id, &[], Some("ada"), false).await?;
            Ok::<_, ReplicaError>((changes, receipts))
        };
        let done = upstream.alive(judged).await;
        if let Some(Ok((changes, receipts))) = &done {
            if take {
                self.note(upstream.index, changes, receipts);
            }
            let ended = |id: &ChangeId| {
                let receipt = receipts.iter().find(|receipt| receipt.change == *id);
                receipt.is_none_or(|receipt| receipt.verdict.is_settled())
            };
            let ids = changes.iter().map(|change| &change.id).filter(|id| ended(id)).collect::<BTreeSet<_>>();
            locked(&upstream.aside).retain(|id| !ids.contains(id));
            self.say(|| format!("  {} of {}", ids.len(), changes.len()));
        }
        self.done("judge", done);
    }

    /// I9: what was said to be kept in quarantine is there.
    pub(crate) async fn kept_aside(&self, host: &Host) -> Result<(), StoreError> {
        let wanted = locked(&host.aside).clone();
        if wanted.is_empty() {
            return Ok(());
        }
        let there = host.image().quarantined(&self.space, i64::MIN, usize::MAX).await?;
        let there: BTreeSet<ChangeId> = there.into_iter().map(|q| q.change.id).collect();
        if let Some(lost) = wanted.difference(&there).next() {
            let text = format!("node {} said that it keeps {lost} in quarantine, and has it not", host.index);
            self.violated("I9", text);
        }
        Ok(())
    }
}
