//! Devices without a replica of their own: what they saw, what they send, and what they send again.

use crate::{
    act::key_of,
    host::{Host, locked},
    story::Edit,
    world::{Client, World},
};
use ropeway_core::{
    change::{Author, Base, Change, Op},
    doc::Fields,
    id::{ChangeId, DeviceId, Key},
    receipt::{Code, Receipt},
    time::AuthorTime,
};
use ropeway_replica::Clock;
use std::collections::BTreeMap;

impl World {
    /// A device pushes a batch.
    pub(crate) async fn push(&self, host: &Host, client: usize, edits: &[Edit], looks: bool) {
        let slot = (host.index, client);
        if !locked(&self.clients).contains_key(&slot) {
            // What is shared has one list of devices and of their changes for all spaces.
            let elsewhere = if self.number > 0 && self.profile.has_shared() { "-elsewhere" } else { "" };
            let name = format!("device-{}-{client}{elsewhere}", host.index);
            let id = Some(DeviceId::trusted(name.clone()));
            let is_scout = !self.setting.scouts.is_empty() && client == 1;
            let roles = self.roles_of(self.client_shares(client));
            let role = if is_scout { &roles.scout } else { &roles.field };
            let Some(Ok(enrolled)) = host.alive(host.node().enrol(self.enrolment(&name, id, role))).await
            else {
                return;
            };
            let fresh = Client { device: enrolled.device, seen: BTreeMap::new(), last: Vec::new(), count: 0 };
            locked(&self.clients).insert(slot, fresh);
        }
        if looks {
            self.look(host, slot, edits).await;
        }
        let changes = {
            let mut clients = locked(&self.clients);
            let Some(client) = clients.get_mut(&slot) else { return };
            let may = self.client_shares(slot.1);
            let edits =
                edits.iter().map(|edit| self.addressed(edit)).inspect(|edit| self.enters(host, edit, may));
            let changes: Vec<Change> =
                edits.filter_map(|edit| client.change(&edit, host.clock.now())).collect();
            for change in &changes {
                let seen = client.seen.get(&change.key()).map(|(_, _, seen)| seen);
                self.sees(seen, &change.fields);
                seen.filter(|_| change.op == Op::Delete).into_iter().for_each(|seen| self.deletes(seen));
            }
            client.last.clone_from(&changes);
            changes
        };
        if let Some(receipts) = self.send(host, slot, changes).await {
            self.learn(slot, &receipts);
        }
    }

    /// A device sends its last batch again. What it altered under the old ids must be refused.
    pub(crate) async fn push_again(&self, host: &Host, client: usize, altered: bool) {
        let slot = (host.index, client);
        let Some(mut changes) = locked(&self.clients).get(&slot).map(|client| client.last.clone()) else {
            return;
        };
        if !altered {
            self.send(host, slot, changes).await;
            return;
        }
        let known = |change: &Change| locked(&host.ledger).answers.contains_key(&change.id);
        changes.retain(|change| known(change) && change.op != Op::Delete);
        for change in &mut changes {
            change.fields.insert("altered".into(), true.into());
        }
        let Some(client) = locked(&self.clients).get(&slot).map(|client| client.device.clone()) else {
            return;
        };
        let node = host.node();
        let grant = node.grant_of(&client);
        let answered = host.alive(node.ingest(&self.space, grant, changes)).await;
        for receipt in answered.iter().flatten().flatten() {
            if receipt.reason.as_ref().is_none_or(|reason| reason.code != Code::ChangeReused) {
                self.violated("I1", format!("{} was taken with another content", receipt.change));
            }
        }
        self.done("an altered push", answered);
    }

    async fn send(&self, host: &Host, slot: (usize, usize), changes: Vec<Change>) -> Option<Vec<Receipt>> {
        let device = locked(&self.clients).get(&slot)?.device.clone();
        let node = host.node();
        let grant = node.grant_of(&device);
        let answered = host.alive(node.ingest(&self.space, grant, changes.clone())).await;
        if let Some(Ok(receipts)) = &answered {
            self.note(host.index, &changes, receipts);
            self.answered(host, &device, receipts).await;
            for receipt in receipts {
                self.say(|| {
                    format!("  {} {} v{}", receipt.change, receipt.verdict.as_str(), receipt.version)
                });
            }
        }
        let receipts = answered.as_ref().and_then(|a| a.as_ref().ok()).cloned();
        self.done("a push", answered);
        receipts
    }

    /// A device reads the records that it is about to change.
    async fn look(&self, host: &Host, slot: (usize, usize), edits: &[Edit]) {
        let node = host.node();
        let Ok(state) = node.store().space(&self.space).await else { return };
        for key in edits.iter().filter_map(key_of) {
            let Ok(Some(record)) = node.get(&self.space, &key).await else { continue };
            let device = locked(&self.clients).get(&slot).map(|client| client.device.clone());
            let Some(device) = device else { continue };
            if !node.sees(&device, &key).await.unwrap_or(false) {
                continue;
            }
            if let Some(client) = locked(&self.clients).get_mut(&slot) {
                let sight = (state.epoch.clone(), record.version, record.data.fields().clone());
                client.seen.insert(key, sight);
            }
        }
    }

    /// What receipts show is what a device has seen. A version alone never is.
    fn learn(&self, slot: (usize, usize), receipts: &[Receipt]) {
        let mut clients = locked(&self.clients);
        let Some(client) = clients.get_mut(&slot) else { return };
        for receipt in receipts {
            match &receipt.record {
                Some(shown) if shown.id == receipt.key.id => {
                    if let Some(seen) = client.seen.get_mut(&receipt.key) {
                        (seen.1, seen.2) = (shown.version, shown.data.fields().clone());
                    }
                }
                _ => {
                    client.seen.remove(&receipt.key);
                }
            }
        }
    }
}

impl Client {
    fn change(&mut self, edit: &Edit, now: ropeway_core::time::Time) -> Option<Change> {
        let key: Key = key_of(edit)?;
        self.count += 1;
        let sight = self.seen.get(&key);
        let named = |seen: &Fields| -> Fields {
            let wanted = seen.iter().filter(|(name, _)| edit.fields.contains_key(*name));
            wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        Some(Change {
            id: ChangeId::parse(&format!("{}-{}", self.device.id, self.count)).ok()?,
            collection: key.collection.clone(),
            record: key.id.clone(),
            op: edit.op,
            fields: edit.fields.clone(),
            seen: sight.map(|(_, _, seen)| if edit.op == Op::Delete { seen.clone() } else { named(seen) }),
            base: sight.map(|(epoch, version, _)| Base { epoch: epoch.clone(), version: *version }),
            lost: None,
            author: Author { device: self.device.id.clone(), person: Some(format!("at {}", self.device.id)) },
            at: Some(AuthorTime::wall(now)),
        })
    }
}
