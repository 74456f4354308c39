//! The invariants, asked of one machine's disk. Cheap enough to be asked after every step.

use crate::{
    host::{Host, locked},
    ledger::{Token, tokens},
    world::World,
};
use ropeway_core::{
    change::Op,
    conflict::{Conflict, Kind},
    digest::{Digest, contribution},
    doc::Fields,
    id::{CONFLICT, Collection, Key, RecordId},
    limits,
    outbox::EntryState,
    profile::Rule,
    record::{Record, State},
};
use ropeway_store::{Store, StoreError};
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
        let homes = self.homes(host);
        for name in names {
            let collection = Collection::trusted(name);
            for home in &homes {
                let page = host.image().list(home, &collection, None, usize::MAX).await?;
                records.extend(page.into_iter().map(|(id, record)| (Key::new(&collection, &id), record)));
            }
        }
        Ok(Sight { records })
    }

    /// Asks one machine about everything that must hold at any time.
    pub(crate) async fn examine(&self, host: &Host) {
        let examined = async {
            let state = self.state(host).await?;
            let sight = self.sight(host).await?;
            self.ordered(host, &sight).await?;
            self.apart(host, &sight).await?;
            self.welcome(host, &sight).await?;
            self.kept(host, &sight).await?;
            self.kept_aside(host).await?;
            if !state.filling {
                self.summed(host, &sight, state.digest);
                self.closed(host, &sight);
            }
            self.clamped(host, &sight);
            if self.is_partial(host) {
                self.stayed(host, &sight).await?;
            }
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
        self.held_in(host, sight, &mut found).await?;
        // What left the audiences of a machine is kept where it is still for somebody.
        for above in self.above(host).filter(|_| self.is_partial(host)) {
            if !wanted.is_subset(&found) {
                self.held_in(above, &self.sight(above).await?, &mut found).await?;
                self.with_earlier(&mut found);
            }
        }
        if let Some(lost) = wanted.difference(&found).next() {
            let text = format!("node {} acknowledged `v{lost}v`, and has it nowhere", host.index);
            self.violated("I3", text);
        }
        Ok(())
    }

    /// With what the authors of values saw in their place: they replaced it knowingly, perhaps before it was
    /// ever sent.
    fn with_earlier(&self, found: &mut BTreeSet<Token>) {
        let saw = locked(&self.stage.saw);
        let mut last: Vec<Token> = found.iter().copied().collect();
        while let Some(token) = last.pop() {
            last.extend(saw.get(&token).copied().flatten().filter(|earlier| found.insert(*earlier)));
        }
    }

    /// Everything that a machine holds: in records, beneath them, behind them, and in its outbox.
    pub(crate) async fn held_in(
        &self,
        host: &Host,
        sight: &Sight,
        found: &mut BTreeSet<Token>,
    ) -> Result<(), StoreError> {
        for (key, record) in &sight.records {
            tokens_in(record, found);
            for was in self.history(host, key).await? {
                tokens_in(&was.record, found);
            }
        }
        use EntryState::*;
        let kept = [Pending, Sealed, Waiting, Rejected, Receipted, Discarded];
        for entry in host.image().outbox(&self.space, &kept, i64::MIN, usize::MAX).await? {
            found.append(&mut crate::ledger::tokens_of(&entry.change.fields));
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
                // Deleted by a change on its way up, a parent is a tombstone until that is refused, or a forgotten one.
                let is_known =
                    |parent| sight.records.contains_key(parent) || locked(&host.buried).contains(parent);
                if !parent.as_ref().is_some_and(is_known) {
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
            // A tombstone that was purged and stands again is later than any edit that did not know of it.
            let upto = latest.plus(1);
            if let Some(at) = marks.chain([record.modified_at]).find(|at| *at > upto) {
                self.violated("time", format!("{key} was changed at {at}, and it is {latest}"));
            }
        }
    }

    /// I5, at rest: two live records are the same only where somebody said or asks something about them.
    pub(crate) fn distinct(&self, host: &Host, sight: &Sight) {
        let mut asked: BTreeSet<(Key, Key)> = BTreeSet::new();
        // A correction that makes a record like several others flags it once, with the nearest of them.
        let mut flagged: BTreeSet<Key> = BTreeSet::new();
        for (_, conflict) in conflicts(sight) {
            let names = conflict.names();
            if conflict.kind == Kind::Alike {
                flagged.extend(names.iter().cloned());
            }
            for a in &names {
                asked.extend(names.iter().map(|b| (a.clone(), b.clone())));
            }
        }
        if self.hosts.iter().any(|host| host.clock.has_strayed()) {
            // Then the times that are compared are not those in the records.
            return;
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
                let named = asked.contains(&((*a).clone(), (*b).clone()));
                if !named && !flagged.contains(*a) && !flagged.contains(*b) {
                    let text = format!("node {}: {a} and {b} are the same, and nobody asks", host.index);
                    self.violated("I5", text);
                }
            }
        }
    }

    /// I3: where a person decides a contest, no value was replaced at the top by somebody who had not seen
    /// it, without a conflict that shows it.
    pub(crate) async fn dropped(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        let mut told = BTreeSet::new();
        for (key, record) in sight.records.iter().filter(|(key, _)| &*key.collection == CONFLICT) {
            tokens_in(record, &mut told);
            for was in self.history(host, key).await? {
                tokens_in(&was.record, &mut told);
            }
        }
        for (key, record) in &sight.records {
            let Some(rules) = self.profile.rules(&key.collection) else { continue };
            let parks = |name: &&String| matches!(rules.group_of(name).rule, Rule::Park);
            let mut newer = record.clone();
            for was in self.history(host, key).await? {
                let both_live = newer.is_live() && was.record.is_live();
                for field in rules.fields.keys().filter(parks).filter(|_| both_live) {
                    let (then, now) = (token_at(&was.record, field), token_at(&newer, field));
                    if let (Some(then), Some(now)) = (then, now)
                        && then != now
                        && !told.contains(&then)
                        && !self.knew(now, then)
                        && !locked(&self.stage.chosen).contains(&(now, then))
                        && !locked(&self.stage.forgotten).contains(&then)
                    {
                        let text = format!("{key}: v{now}v replaced v{then}v, which its author never saw");
                        self.violated("I3", text);
                    }
                }
                newer = was.record;
            }
        }
        Ok(())
    }

    /// Whether the author of a value had seen another one in its place, perhaps beneath values of their own.
    fn knew(&self, value: Token, other: Token) -> bool {
        let saw = locked(&self.stage.saw);
        let mut at = Some(value);
        for _ in 0..=saw.len() {
            at = at.and_then(|token| saw.get(&token).copied().flatten());
            if at == Some(other) {
                return true;
            }
        }
        false
    }

    /// Notes what the author of an edit sees in the fields that they write.
    pub(crate) fn sees(&self, before: Option<&Fields>, fields: &Fields) {
        let mut saw = locked(&self.stage.saw);
        for (name, value) in fields {
            if let Some(token) = value.as_str().and_then(one_token) {
                let there = before.and_then(|fields| fields.get(name)).and_then(|v| v.as_str());
                saw.insert(token, there.and_then(one_token));
            }
        }
    }

    /// The same for somebody at a desk. Where they emptied a field themselves, they know what stood there: sent
    /// as one change, their next value replaces that.
    pub(crate) fn sees_at_desk(
        &self,
        (machine, key, person): (usize, &Key, &str),
        shown: Option<Fields>,
        (op, fields): (Op, &Fields),
    ) {
        if let Some(seen) = shown.as_ref().filter(|_| op == Op::Delete) {
            self.deletes(seen);
        }
        let mut before = shown.unwrap_or_default();
        let mut emptied = locked(&self.emptied);
        for (field, value) in fields {
            let place = (machine, key.clone(), field.clone(), person.to_owned());
            match before.get(field).filter(|there| !there.is_null()).cloned() {
                Some(there) if value.is_null() => drop(emptied.insert(place, there)),
                Some(_) => drop(emptied.remove(&place)),
                None => before.extend(emptied.get(&place).map(|there| (field.clone(), there.clone()))),
            }
        }
        drop(emptied);
        self.sees(Some(&before), fields);
    }

    /// Notes what somebody has before their eyes who deletes it.
    pub(crate) fn deletes(&self, seen: &Fields) {
        locked(&self.stage.deleted).extend(crate::ledger::tokens_of(seen));
    }

    /// Notes what stands in the place of the values that a person chooses by an answer.
    pub(crate) fn chooses(&self, there: &Fields, values: &Fields) {
        let token = |fields: &Fields, name| fields.get(name).and_then(|v| v.as_str()).and_then(one_token);
        for name in values.keys() {
            if let (Some(now), Some(then)) = (token(values, name), token(there, name)) {
                locked(&self.stage.chosen).insert((now, then));
            }
        }
    }

    /// At rest a record is contested where an open conflict names it, and nothing is held beneath it.
    pub(crate) fn settled(&self, host: &Host, sight: &Sight) {
        let open: BTreeSet<Key> =
            conflicts(sight).filter(|(_, c)| c.is_open()).flat_map(|(_, c)| c.names()).collect();
        for (key, record) in &sight.records {
            // A conflict may be for others only: then the record says that there is one.
            let is_told = record.contested == open.contains(key) || record.contested && self.is_partial(host);
            if &*key.collection != CONFLICT && !is_told {
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

fn one_token(text: &str) -> Option<Token> {
    let mut found = BTreeSet::new();
    tokens(text, &mut found);
    found.pop_first()
}

fn token_at(record: &Record, field: &str) -> Option<Token> {
    record.data.str(field).and_then(one_token)
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
