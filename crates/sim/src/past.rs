//! Machines that go back in time: a node restored from its backup, a device put back to an old disk, and what
//! must be found again afterwards.

use crate::{
    host::{Host, locked},
    ledger::{Token, tokens},
    machine::Machine,
    world::World,
};
use ropeway_core::{
    conflict::Conflict,
    doc::Doc,
    id::{CONFLICT, Key},
    outbox::EntryState,
    record::{Held, Record, State},
};
use ropeway_replica::ReplicaError;
use ropeway_store::{Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

/// What a follower of a restored node holds of what that node had fed it.
pub(crate) struct Awaited {
    restored: usize,
    follower: usize,
    record: Key,
    values: BTreeSet<Token>,
}

/// The newest version of a record that a follower holds.
struct Newest {
    version: u64,
    follower: usize,
    held: Held,
    /// Whether it is shared among the spaces.
    of_app: bool,
}

impl World {
    /// A node goes back to its last backup and begins a new epoch. What its followers hold must come back.
    pub(crate) async fn restore(&self, host: &Host, restamp: bool) {
        if !host.has_backup() {
            return;
        }
        let worlds = self.stage.worlds();
        let restored = async {
            for world in &worlds {
                let host = &world.hosts[host.index];
                let lost = world.held_by_followers(host).await?;
                world.expect(host, lost);
                world.keep_by_themselves(host).await?;
                world.goes_back(host);
                // Its upstream knows how far it had read before, until it says how far it has read now.
                *locked(&host.heard) = None;
            }
            host.restore(restamp).await
        };
        if let Err(error) = restored.await {
            self.fault(&format!("node {} cannot be restored: {error}", host.index));
        }
        // It has forgotten when it heard of them.
        for world in &worlds {
            for follower in world.followers_of(&world.hosts[host.index]) {
                *locked(&follower.heard) = None;
                world.look_at_status(follower).await;
            }
        }
    }

    /// A device goes on with the disk of its last backup, as if nothing had happened.
    pub(crate) async fn put_back(&self, host: &Host) {
        let follows =
            |other: &Machine| other.parent == Some(host.index) && !other.asleep.load(Ordering::Relaxed);
        let is_followed = self.stage.machines.iter().any(|other| follows(other));
        if !host.has_backup() || host.parent.is_none() || is_followed {
            return;
        }
        for world in self.stage.worlds() {
            let host = &world.hosts[host.index];
            *locked(&host.put_back) = Some(());
            world.expect(host, Vec::new());
            world.goes_back(host);
        }
        if let Err(error) = host.start_on_backup().await {
            self.fault(&format!("node {} does not start on its old disk: {error}", host.index));
        }
    }

    /// What a machine had acknowledged when its backup was taken is asked of it again. What was deleted and
    /// forgotten at the top meanwhile leaves a machine that holds only a part, and is nowhere.
    fn goes_back(&self, host: &Host) {
        host.went_back();
        if self.is_partial(host) {
            let forgotten = locked(&self.stage.forgotten);
            locked(&host.ledger).values.retain(|value| !forgotten.contains(value));
        }
    }

    pub(crate) fn followers_of<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Host> {
        self.hosts.iter().filter(|follower| follower.parent == Some(host.index) && follower.is_there())
    }

    /// What left the audiences of machines beneath is theirs no more when the node that kept it goes back.
    async fn keep_by_themselves(&self, host: &Host) -> Result<(), StoreError> {
        for beneath in self.partial_beneath(host) {
            let mut held = BTreeSet::new();
            self.held_in(beneath, &self.sight(beneath).await?, &mut held).await?;
            locked(&beneath.ledger).values.retain(|value| held.contains(value));
        }
        Ok(())
    }

    /// From now on `lost` must come back to `host`; whatever was awaited from it went with its disk.
    fn expect(&self, host: &Host, lost: Vec<Awaited>) {
        let mut awaited = locked(&self.awaited);
        awaited.retain(|other| other.restored != host.index && other.follower != host.index);
        awaited.extend(lost);
    }

    /// What was deleted at a restored node, and forgotten there, does not come back.
    pub(crate) fn give_up(&self, host: &Host, gone: &BTreeSet<Token>) {
        for awaited in locked(&self.awaited).iter_mut().filter(|awaited| awaited.restored == host.index) {
            awaited.values.retain(|value| !gone.contains(value));
        }
    }

    /// Of each record what the follower holds that has heard of its newest version: older ones are history. What is
    /// shared is heard of in all spaces.
    async fn held_by_followers(&self, host: &Host) -> Result<Vec<Awaited>, StoreError> {
        let mut newest = self.newest(host).await?;
        for world in self.stage.worlds().iter().filter(|world| world.number != self.number) {
            for (key, there) in world.newest(&world.hosts[host.index]).await? {
                if there.of_app && newest.get(&key).is_some_and(|here| here.version < there.version) {
                    newest.remove(&key);
                }
            }
        }
        let mut awaited = Vec::new();
        let live = newest.into_iter().filter(|(_, newest)| newest.held.state == State::Live);
        for (record, Newest { follower, held, .. }) in live {
            let mut values = BTreeSet::new();
            match &*record.collection {
                // A question that was settled is history, and history is not handed in. Nor is what a question
                // shows of the record that it is about: that comes back by itself, or was replaced since.
                CONFLICT => {
                    if let Some(conflict) = Conflict::read(&held.data).filter(Conflict::is_open) {
                        tokens(Doc::of(conflict.incoming.values).text(), &mut values);
                        tokens(Doc::of(conflict.merged.unwrap_or_default()).text(), &mut values);
                    }
                }
                _ => tokens(held.data.text(), &mut values),
            }
            awaited.push(Awaited { restored: host.index, follower, record, values });
        }
        Ok(awaited)
    }

    /// Of each record the newest version of a node's that one of its followers holds and may hand in: what is shared
    /// is taken from those only who may write it.
    async fn newest(&self, host: &Host) -> Result<BTreeMap<Key, Newest>, StoreError> {
        let epoch = host.image().space(&self.space).await?.epoch;
        let mut newest: BTreeMap<Key, Newest> = BTreeMap::new();
        for follower in self.followers_of(host) {
            for (key, record) in self.sight(follower).await?.records {
                let of_app = host.parent.is_none() && self.is_about_app(&key, &record);
                let Some(upstream) = record.upstream.filter(|u| u.epoch == epoch && u.version > 0) else {
                    continue;
                };
                if of_app && !self.machine_shares(follower.index) {
                    continue;
                }
                let (version, follower) = (upstream.version, follower.index);
                let held =
                    upstream.held.unwrap_or(Held { state: record.state, data: record.data, left: false });
                if newest.get(&key).is_none_or(|before| before.version < version) {
                    newest.insert(key, Newest { version, follower, held, of_app });
                }
            }
        }
        Ok(newest)
    }

    /// At rest: what the followers of a restored node held is there again, in a record or in a question
    /// about it, or above that node, which never lost it; unless a person gave it up, or deleted the record with it
    /// before their eyes, whatever was made under its name since.
    pub(crate) async fn came_back(&self) -> Result<(), ReplicaError> {
        let awaited = std::mem::take(&mut *locked(&self.awaited));
        for Awaited { restored, follower, record, values } in awaited {
            let (there, here) = (&self.hosts[restored], &self.hosts[follower]);
            let mut found = self.everything(there).await?;
            let stands = self.sight(there).await?.records.remove(&record);
            let was = self.history(there, &record).await?;
            let is_deleted = |record: &Record| record.state == State::Deleted;
            if stands.as_ref().is_none_or(is_deleted) || was.iter().any(|was| is_deleted(&was.record)) {
                found.extend(locked(&self.stage.deleted).iter());
            }
            for above in self.above(there) {
                found.append(&mut self.everything(above).await?);
            }
            for entry in
                here.image().outbox(&self.space, &[EntryState::Discarded], i64::MIN, usize::MAX).await?
            {
                found.append(&mut crate::ledger::tokens_of(&entry.change.fields));
            }
            if let Some(lost) = values.difference(&found).next() {
                let text =
                    format!("node {restored} was restored, and `v{lost}v` did not come back from {follower}");
                self.violated("I3", text);
            }
        }
        Ok(())
    }

    async fn everything(&self, host: &Host) -> Result<BTreeSet<Token>, StoreError> {
        let mut found = BTreeSet::new();
        let mut take = |record: &Record| tokens(record.data.text(), &mut found);
        for (key, record) in &self.sight(host).await?.records {
            take(record);
            self.history(host, key).await?.iter().for_each(|was| take(&was.record));
        }
        Ok(found)
    }
}
