//! The invariants, asked of one machine's disk. Cheap enough to be asked after every step.

use crate::{
    host::{Host, locked, space},
    ledger::{Token, tokens},
    world::World,
};
use ropeway_core::{
    conflict::Conflict,
    digest::{Digest, contribution},
    id::{CONFLICT, Collection, Key, RecordId},
    limits,
    outbox::EntryState,
    record::{Record, State},
};
use ropeway_store::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a machine shows.
pub(crate) struct Sight {
    pub(crate) records: BTreeMap<Key, Record>,
}

impl World {
    /// Reads everything that a machine shows.
    pub(crate) async fn sight(&self, host: &Host) -> Result<Sight, StoreError> {
        let mut records = BTreeMap::new();
        let names = self.profile.collections.keys().map(String::as_str).chain([CONFLICT]);
        for name in names {
            let collection = Collection::trusted(name);
            let page = host.image.list(&space(), &collection, None, usize::MAX).await?;
            records.extend(page.into_iter().map(|(id, record)| (Key::new(&collection, &id), record)));
        }
        Ok(Sight { records })
    }

    /// Asks one machine about everything that must hold at any time.
    pub(crate) async fn examine(&self, host: &Host) {
        let examined = async {
            let state = host.image.space(&space()).await?;
            let sight = self.sight(host).await?;
            self.kept(host, &sight).await?;
            if !state.filling {
                self.summed(host, &sight, state.digest);
                self.closed(host, &sight);
            }
            self.clamped(host, &sight);
            Ok::<(), StoreError>(())
        };
        if let Err(error) = examined.await {
            self.fault(&format!("node {} cannot be read: {error}", host.index));
        }
    }

    /// I3: every value that was acknowledged here is in a record, its history, a conflict or the outbox.
    async fn kept(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        let wanted = locked(&host.ledger).values.clone();
        let mut found: BTreeSet<Token> = BTreeSet::new();
        for record in sight.records.values() {
            tokens_in(record, &mut found);
        }
        if wanted.is_subset(&found) {
            return Ok(());
        }
        for key in sight.records.keys() {
            for was in host.image.history(&space(), key).await? {
                tokens_in(&was.record, &mut found);
            }
        }
        use EntryState::*;
        let kept = [Pending, Sealed, Waiting, Rejected, Receipted, Discarded];
        for entry in host.image.outbox(&space(), &kept, i64::MIN, usize::MAX).await? {
            found.append(&mut crate::ledger::tokens_of(&entry.change.fields));
        }
        if let Some(lost) = wanted.difference(&found).next() {
            let text = format!("node {} acknowledged `v{lost}v`, and has it nowhere", host.index);
            self.violated("I3", text);
        }
        Ok(())
    }

    /// I4: the digest is that of the records.
    fn summed(&self, host: &Host, sight: &Sight, told: Digest) {
        let mut sum = Digest::default();
        for (key, record) in &sight.records {
            sum = sum.moved(0, contribution(&key.collection, &key.id, record));
        }
        if sum != told {
            self.violated("I4", format!("node {} says {told:?}, its records are {sum:?}", host.index));
        }
    }

    /// I5 and I6: joined ids resolve, and no record is here without its required parents.
    fn closed(&self, host: &Host, sight: &Sight) {
        for (key, record) in &sight.records {
            if let State::Joined(_) = &record.state
                && resolved(sight, key).is_none()
            {
                self.violated("I5", format!("node {}: {key} leads nowhere", host.index));
            }
            let Some(rules) = self.profile.rules(&key.collection).filter(|_| record.is_live()) else {
                continue;
            };
            for (field, reference) in rules.references.iter().filter(|(_, r)| !r.optional) {
                let named = record.data.str(field).and_then(|id| RecordId::parse(id).ok());
                let parent = named.map(|id| Key::new(&Collection::trusted(reference.to.as_str()), &id));
                if parent.as_ref().is_none_or(|parent| !sight.records.contains_key(parent)) {
                    let text = format!("node {} shows {key} without its `{field}` {parent:?}", host.index);
                    self.violated("I6", text);
                }
            }
        }
    }

    /// The node that decides for all never believes a time from the future.
    fn clamped(&self, host: &Host, sight: &Sight) {
        let latest = host.clock.latest();
        if host.parent.is_some() {
            return;
        }
        for (key, record) in &sight.records {
            let marks = record.marks.values().map(|mark| mark.at);
            if let Some(at) = marks.chain([record.modified_at]).find(|at| *at > latest) {
                self.violated("time", format!("{key} was changed at {at}, and it is {latest}"));
            }
        }
    }

    /// I5, at rest: two live records are the same only where somebody said or asks something about them.
    pub(crate) fn distinct(&self, host: &Host, sight: &Sight) {
        let mut asked: BTreeSet<(Key, Key)> = BTreeSet::new();
        for (_, conflict) in conflicts(sight) {
            let names = conflict.names();
            for a in &names {
                asked.extend(names.iter().map(|b| (a.clone(), b.clone())));
            }
        }
        let live = sight.records.iter().filter(|(_, record)| record.is_live());
        let prints: Vec<(&Key, String, i64, i64)> = live
            .filter_map(|(key, record)| {
                let rules = self.profile.rules(&key.collection)?;
                let same = rules.same.as_ref()?;
                let (text, at) = ropeway_core::profile::print_of(rules, record.data.fields())?;
                let width = same.within.as_ref().map_or(i64::MAX, |w| w.micros);
                Some((key, text, at, width))
            })
            .collect();
        for (n, (a, text, at, width)) in prints.iter().enumerate() {
            for (b, ..) in prints[n + 1..].iter().filter(|(b, other, then, _)| {
                b.collection == a.collection
                    && other == text
                    && at.saturating_sub(*then).saturating_abs() <= *width
            }) {
                if !asked.contains(&((*a).clone(), (*b).clone())) {
                    let text = format!("node {}: {a} and {b} are the same, and nobody asks", host.index);
                    self.violated("I5", text);
                }
            }
        }
    }

    /// At rest a record is contested where an open conflict names it, and nothing is held beneath it.
    pub(crate) fn settled(&self, host: &Host, sight: &Sight) {
        let open: BTreeSet<Key> =
            conflicts(sight).filter(|(_, c)| c.is_open()).flat_map(|(_, c)| c.names()).collect();
        for (key, record) in &sight.records {
            if &*key.collection != CONFLICT && record.contested != open.contains(key) {
                let text = format!("node {}: {key} contested {}", host.index, record.contested);
                self.violated("I4", text);
            }
            if record.upstream.as_ref().is_some_and(|upstream| upstream.held.is_some()) {
                self.violated("I4", format!("node {}: {key} still holds something", host.index));
            }
        }
    }
}

fn conflicts(sight: &Sight) -> impl Iterator<Item = (&Key, Conflict)> {
    let all = sight.records.iter().filter(|(key, record)| &*key.collection == CONFLICT && record.is_live());
    all.filter_map(|(key, record)| Some((key, Conflict::read(&record.data)?)))
}

fn tokens_in(record: &Record, found: &mut BTreeSet<Token>) {
    tokens(record.data.text(), found);
    if let Some(held) = record.upstream.as_ref().and_then(|upstream| upstream.held.as_ref()) {
        tokens(held.data.text(), found);
    }
}

fn resolved<'a>(sight: &'a Sight, key: &Key) -> Option<&'a Record> {
    let mut key = key.clone();
    for _ in 0..limits::JOIN_CHAIN_MAX {
        let record = sight.records.get(&key)?;
        let State::Joined(survivor) = &record.state else { return Some(record) };
        key = Key::new(&key.collection, survivor);
    }
    None
}
