//! Forgetting on purpose, and the oracle of I10: no tombstone goes while a live device has not read it.

use crate::{
    host::{Host, locked},
    ledger::{Token, tokens},
    world::World,
};
use ropeway_core::{id::Key, record::State, retention::Keep, time::Stamp};
use ropeway_replica::ReplicaError;
use ropeway_store::{Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// When a device was seen is noted at most once in so long.
const NOTED_EVERY: Duration = Duration::from_secs(10);

impl World {
    /// Forgets what no live device needs.
    ///
    /// Not while its clock is wrong: to one that is a year ahead everything looks old enough.
    pub(crate) async fn purge(&self, host: &Host) {
        if host.clock.is_wrong() {
            return;
        }
        let keep = Keep {
            horizon: Duration::from_millis(self.setting.kept.horizon_ms),
            tombstones: Duration::from_millis(self.setting.kept.tombstones_ms),
            ..Keep::default()
        };
        let purged = async {
            let before = self.tombstones(host).await?;
            let mut values = BTreeMap::new();
            for key in before.keys() {
                values.insert(key.clone(), self.values_of(host, key).await?);
            }
            let needed = self.unread(host, &keep, false).await?;
            let worlds = self.stage.worlds();
            // What is shared is read by the devices of every space.
            let mut needed_of_app: Option<(usize, Stamp)> = None;
            for world in &worlds {
                let theirs = world.unread(&world.hosts[host.index], &keep, true).await?;
                needed_of_app = needed_of_app.into_iter().chain(theirs).min_by_key(|(_, read)| *read);
            }
            let node = host.node();
            let purged = host.alive(node.purge(&self.space, &keep, false)).await;
            let after = self.tombstones(host).await?;
            self.say(|| format!("  {} of {} tombstones stay", after.len(), before.len()));
            for (key, stamp) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
                // What was deleted by somebody who knew it is nobody's any more.
                let gone = values.remove(key).unwrap_or_default();
                for world in &worlds {
                    world.let_go(&world.hosts[host.index], &gone);
                    if world.number == self.number || self.is_beside(host, key) {
                        locked(&world.hosts[host.index].buried).insert(key.clone());
                    }
                }
                let needed = if self.is_beside(host, key) { needed_of_app } else { needed };
                if host.parent.is_none() {
                    locked(&self.stage.forgotten).extend(&gone);
                }
                if let Some((follower, read)) = needed.filter(|(_, read)| read < stamp) {
                    let text = format!(
                        "node {} forgot {key} at {stamp}, and node {follower} has read up to {read} only",
                        host.index
                    );
                    self.violated("I10", text);
                }
            }
            match purged {
                // Its head lies ahead of its clock.
                Some(Err(ReplicaError::Invalid(_))) | None => Ok(()),
                Some(purged) => purged.map(drop),
            }
        };
        if let Err(error) = purged.await {
            self.fault(&format!("node {} cannot purge: {error}", host.index));
        }
    }

    /// What a node forgot is nobody's any more.
    fn let_go(&self, host: &Host, gone: &BTreeSet<Token>) {
        for ledger in std::iter::once(host).chain(self.partial_beneath(host)).map(|h| &h.ledger) {
            locked(ledger).values.retain(|value| !gone.contains(value));
        }
        self.give_up(host, gone);
    }

    /// Who of the live followers has read least, and how far, of the space or of what is shared beside it. A node
    /// whose clock was wrong may not know who is live.
    async fn unread(
        &self,
        host: &Host,
        keep: &Keep,
        beside: bool,
    ) -> Result<Option<(usize, Stamp)>, StoreError> {
        let epoch = host.image().space(&self.space).await?.epoch;
        let mut least: Option<(usize, Stamp)> = None;
        // Of a device and its copy either reads for both until one is told.
        let knows = !host.clock.has_strayed() && self.setting.copied.is_none();
        // One that was put back to an old disk had read more, and is told so at its next sync.
        let told = |follower: &&Host| locked(&follower.put_back).is_none();
        for follower in self.followers_of(host).filter(|_| knows).filter(told) {
            let heard = *locked(&follower.heard);
            // Whoever is revoked holds nothing back.
            let is_live = !*locked(&follower.barred)
                && heard.is_some_and(|heard| heard.elapsed() + NOTED_EVERY <= keep.horizon);
            let followed = follower.image().followed(&self.space).await?;
            // What is staged is on its disk, and what it sends back as its cursor.
            let read = followed
                .staged
                .as_deref()
                .or(followed.token.as_deref())
                .and_then(|cursor| stamp_of(cursor, beside));
            let of_this_epoch = followed.epoch.as_ref() == Some(&epoch);
            if let Some(read) = read.filter(|_| is_live && of_this_epoch)
                && least.is_none_or(|(_, least)| read < least)
            {
                least = Some((follower.index, read));
            }
        }
        Ok(least)
    }

    async fn tombstones(&self, host: &Host) -> Result<BTreeMap<Key, Stamp>, StoreError> {
        let records = self.sight(host).await?.records.into_iter();
        let dead = records.filter(|(_, record)| record.state == State::Deleted);
        Ok(dead.map(|(key, record)| (key, record.stamp)).collect())
    }

    async fn values_of(&self, host: &Host, key: &Key) -> Result<BTreeSet<Token>, StoreError> {
        let mut found = BTreeSet::new();
        for home in self.homes(host) {
            for (_, record) in host.image().records(&home, std::slice::from_ref(key)).await? {
                tokens(record.data.text(), &mut found);
            }
        }
        for was in self.history(host, key).await? {
            tokens(was.record.data.text(), &mut found);
        }
        Ok(found)
    }
}

/// The stamp up to which a cursor has read, of the space or of what is shared beside it.
fn stamp_of(cursor: &str, beside: bool) -> Option<Stamp> {
    let sources = cursor.split('.').next()?;
    let source = sources.split('+').nth(usize::from(beside))?;
    source.split('~').next()?.parse().ok().map(Stamp)
}
