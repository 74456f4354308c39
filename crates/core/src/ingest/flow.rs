//! What a plan does to audiences: keys flow down references to children, and from a child up to every
//! parent that it cannot be read without (I6). Worked out when all changes of a plan are decided.

use super::{
    Answer, Case,
    refs::parent_key,
    work::{Missing, Step, Work},
};
use crate::{
    audience::{AudienceRow, EVERYBODY, Worn},
    conflict::Conflict,
    digest::{Digest, contribution},
    doc::Doc,
    id::{CONFLICT, Collection, Key, RecordId, is_name},
    limits,
    plan::{APART, JOINED, Link, Plan},
    profile::{Audience, KeyOf, Rules},
    receipt::Code,
    record::{Record, State},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Keys as they were and as they will be.
#[derive(Default)]
pub(crate) struct Flow {
    before: BTreeMap<Key, Worn>,
    after: BTreeMap<Key, Worn>,
    /// Collections that others inherit from, or that are joined.
    heirs: BTreeSet<String>,
    /// Records whose own keys are to be worked out, parents first.
    owns: BTreeSet<(usize, Key)>,
    /// Records whose keys are to be lifted to their parents.
    lifts: BTreeSet<Key>,
    /// Conflicts whose keys are to be worked out, when those of all other records are known.
    conflicts: BTreeSet<Key>,
}

impl Flow {
    /// Whether a record's keys change.
    pub(crate) fn is_moved(&self, key: &Key) -> bool {
        let nothing = Worn::default();
        self.after.get(key).is_some_and(|after| after != self.before.get(key).unwrap_or(&nothing))
    }

    /// The keys of a record after the plan, where they are known.
    pub(crate) fn worn(&self, key: &Key) -> Option<&Worn> {
        self.after.get(key).or_else(|| self.before.get(key))
    }

    /// The records whose keys change, and some whose keys stay.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &Key> {
        self.after.keys()
    }

    /// How many records change their keys.
    pub(crate) fn moved(&self) -> usize {
        self.after.iter().filter(|(key, worn)| self.before.get(*key) != Some(*worn)).count()
    }
}

impl Work<'_> {
    /// Works the keys out. Asks for what it needs, a level of children a round.
    pub(crate) fn flow(&mut self) -> Step<Flow> {
        let mut flow = Flow { heirs: self.heirs(), ..Flow::default() };
        let seeded = self.seed(&mut flow);
        self.run(flow, seeded)
    }

    /// Works the keys of these records out as if they had none.
    pub(crate) fn flow_of(&mut self, keys: &[Key]) -> Step<Flow> {
        let mut flow = Flow { heirs: self.heirs(), ..Flow::default() };
        for key in keys.iter().filter(|key| self.is_restricted(&key.collection)) {
            self.begin_at(&mut flow, key.clone());
        }
        self.run(flow, Ok(()))
    }

    fn run(&mut self, mut flow: Flow, seeded: Step<()>) -> Step<Flow> {
        let mut missing = seeded.is_err();
        while let Some((_, key)) = flow.owns.pop_first() {
            missing |= self.flow_down(&mut flow, &key).is_err();
        }
        while let Some(key) = flow.lifts.pop_first() {
            missing |= self.lift(&mut flow, &key).is_err();
        }
        while let Some(key) = flow.conflicts.pop_first() {
            missing |= self.flow_to_conflict(&mut flow, &key).is_err();
        }
        let changed: Vec<Key> = flow.after.keys().cloned().collect();
        for key in changed {
            missing |= self.current(&key).is_err();
        }
        if missing { Err(Missing) } else { Ok(flow) }
    }

    /// Whether records of a collection carry keys.
    pub(crate) fn is_restricted(&self, collection: &str) -> bool {
        self.profile.has_audiences() && (collection == CONFLICT || self.audience(collection).is_some())
    }

    fn audience(&self, collection: &str) -> Option<&Audience> {
        self.profile.rules(collection)?.audience.as_ref()
    }

    fn heirs(&self) -> BTreeSet<String> {
        let mut heirs = BTreeSet::new();
        for rules in self.profile.collections.values().filter(|r| r.audience.is_some()) {
            heirs.extend(rules.references.values().map(|reference| reference.to.clone()));
            heirs.extend(rules.same.is_some().then(|| rules.name.clone()));
        }
        heirs
    }

    /// Where the work begins: what is new, gone, moved or joined.
    fn seed(&mut self, flow: &mut Flow) -> Step<()> {
        let mut begin: BTreeSet<Key> = self.gone.clone();
        let mut look = BTreeSet::new();
        for (key, touched) in self.touched.iter().filter(|(k, _)| self.is_restricted(&k.collection)) {
            let before = touched.before.as_ref();
            if before.is_some_and(|before| !self.flows_anew(key, before, &touched.now)) {
                look.insert(key.clone());
                continue;
            }
            begin.insert(key.clone());
            for record in before.into_iter().chain([&touched.now]) {
                if let State::Joined(survivor) = &record.state {
                    begin.insert(Key::new(&key.collection, survivor));
                }
            }
        }
        for key in begin {
            self.begin_at(flow, key);
        }
        let mut missing = false;
        for key in look {
            missing |= self.worn(flow, &key).is_err();
        }
        if missing { Err(Missing) } else { Ok(()) }
    }

    fn begin_at(&self, flow: &mut Flow, key: Key) {
        if &*key.collection == CONFLICT {
            flow.conflicts.insert(key);
            return;
        }
        flow.owns.insert((self.rank(&key), key.clone()));
        flow.lifts.insert(key);
    }

    /// Whether anything changed that a record's keys come from.
    fn flows_anew(&self, key: &Key, before: &Record, now: &Record) -> bool {
        if before.state != now.state {
            return true;
        }
        if &*key.collection == CONFLICT {
            let names = |r: &Record| Conflict::read(&r.data).map_or(Vec::new(), |c| c.names());
            // One that stayed for an unsettled answer may see its record come back.
            return self.absorbs || before.data != now.data && names(before) != names(now);
        }
        let Some(rules) = self.profile.rules(&key.collection) else { return false };
        inputs(rules).any(|field| before.data.get(field) != now.data.get(field))
    }

    /// Refuses an edit that would move records between audiences, where a plan has too many of them.
    pub(crate) fn refuse_move(&self, case: &Case<'_>, record: &Record) -> Option<Answer> {
        let change = case.change;
        let moves =
            |field: &&str| change.fields.get(*field).is_some_and(|v| record.data.get(field) != Some(v));
        let field = inputs(case.rules).find(moves).filter(|_| self.refuses_moves)?;
        let most = limits::AUDIENCE_MOVES_MAX;
        let text = format!(
            "`{field}` would move more than {most} records to another audience at once: move the records \
             beneath it first"
        );
        Some(Answer::refused(change, Code::TooLarge, Some(field), text))
    }

    fn rank(&self, key: &Key) -> usize {
        let place = self.profile.order.iter().position(|name| *name == *key.collection);
        place.unwrap_or(self.profile.order.len())
    }

    /// A record after this plan; `None` where there is none, or where it goes.
    fn current(&mut self, key: &Key) -> Step<Option<Record>> {
        if self.gone.contains(key) { Ok(None) } else { self.lookup(key) }
    }

    fn worn(&mut self, flow: &mut Flow, key: &Key) -> Step<Worn> {
        if let Some(worn) = flow.worn(key) {
            return Ok(worn.clone());
        }
        let is_new = self.touched.get(key).is_some_and(|t| t.before.is_none());
        let worn = if self.snap.keys.audiences.contains(key) {
            Worn::read(self.snap.audiences.get(key).map_or(&[], Vec::as_slice))
        } else if is_new && !(self.absorbs && flow.heirs.contains(&*key.collection)) {
            Worn::default()
        } else {
            self.need.audiences.insert(key.clone());
            return Err(Missing);
        };
        flow.before.insert(key.clone(), worn.clone());
        Ok(worn)
    }

    /// Gives a record the keys that come from itself and from its parents; joined records share theirs.
    fn flow_down(&mut self, flow: &mut Flow, key: &Key) -> Step<()> {
        let Some(record) = self.current(key)? else {
            if self.gone.contains(key) {
                self.set_own(flow, key, BTreeSet::new())?;
            }
            return Ok(());
        };
        let members = self.joined_with(flow, key, &record)?;
        let mut own = BTreeSet::new();
        let mut missing = false;
        for (member, record) in &members {
            match self.base(flow, member, record) {
                Ok(keys) => own.extend(keys),
                Err(Missing) => missing = true,
            }
        }
        if missing {
            return Err(Missing);
        }
        for (member, _) in members {
            missing |= self.set_own(flow, &member, own.clone()).is_err();
        }
        if missing { Err(Missing) } else { Ok(()) }
    }

    /// A record, the survivor that it was joined into, and all that were joined into that.
    fn joined_with(&mut self, flow: &Flow, key: &Key, record: &Record) -> Step<Vec<(Key, Record)>> {
        let (mut root, mut last) = (key.clone(), record.clone());
        for _ in 0..limits::JOIN_CHAIN_MAX {
            let State::Joined(survivor) = &last.state else { break };
            let next = Key::new(&root.collection, survivor);
            let Some(found) = self.current(&next)? else { break };
            (root, last) = (next, found);
        }
        let mut named = BTreeSet::from([root.clone()]);
        let mut members = vec![(root, last)];
        let (mut at, mut missing) = (0, false);
        while at < members.len() {
            let links = self.children(flow, &members[at].0.clone());
            missing |= links.is_err();
            for link in links.into_iter().flatten().filter(|link| link.field == JOINED) {
                match self.current(&link.child) {
                    Ok(Some(joined)) if named.insert(link.child.clone()) => {
                        members.push((link.child, joined))
                    }
                    Ok(_) => {}
                    // With what was joined into it: a level a round, however many they are.
                    Err(Missing) => {
                        missing = true;
                        let _ = self.children(flow, &link.child);
                    }
                }
            }
            at += 1;
        }
        if missing {
            return Err(Missing);
        }
        if !named.contains(key) {
            members.push((key.clone(), record.clone()));
        }
        Ok(members)
    }

    /// What links to a record after this plan.
    fn children(&mut self, flow: &Flow, key: &Key) -> Step<Vec<Link>> {
        let mut links: Vec<Link> = self.linked.get(key).into_iter().flatten().cloned().collect();
        let may_have = self.snap.records.contains_key(key)
            || !self.touched.contains_key(key)
            || self.absorbs && flow.heirs.contains(&*key.collection);
        if !may_have {
            return Ok(links);
        }
        if !self.snap.keys.links.contains(key) {
            self.need.links.insert(key.clone());
            return Err(Missing);
        }
        let stored = self.snap.links.get(key).into_iter().flatten();
        let rest = |l: &&Link| !self.touched.contains_key(&l.child) && !self.gone.contains(&l.child);
        links.extend(stored.filter(rest).filter(|l| l.field != APART).cloned());
        Ok(links)
    }

    /// The keys that a record has from its own fields and its parents.
    fn base(&mut self, flow: &mut Flow, key: &Key, record: &Record) -> Step<BTreeSet<String>> {
        let profile = self.profile;
        let rules = profile.rules(&key.collection);
        let Some((rules, audience)) = rules.and_then(|r| Some((r, r.audience.as_ref()?))) else {
            return Ok(BTreeSet::new());
        };
        let mut keys: BTreeSet<String> =
            audience.key.iter().filter_map(|of| own_key(of, key, &record.data)).collect();
        let (mut named, mut missing) = (audience.granted, false);
        for (parent, _) in parents(rules, &record.data, |f| audience.from.iter().any(|n| n == f)) {
            match self.worn(flow, &parent) {
                Err(Missing) => missing = true,
                // A parent that is for everybody says nothing about its children.
                Ok(worn) if worn.own.len() == 1 && worn.own.contains(EVERYBODY) => {}
                Ok(worn) => {
                    named = true;
                    keys.extend(worn.own);
                }
            }
        }
        if missing {
            return Err(Missing);
        }
        if keys.is_empty() && !named {
            keys.insert(EVERYBODY.to_owned());
        }
        Ok(keys)
    }

    fn flow_to_conflict(&mut self, flow: &mut Flow, key: &Key) -> Step<()> {
        let own = match self.current(key)? {
            Some(record) => self.keys_of_conflict(flow, &record)?,
            None if self.gone.contains(key) => BTreeSet::new(),
            None => return Ok(()),
        };
        let worn = self.worn(flow, key)?;
        if worn.own != own {
            flow.after.insert(key.clone(), Worn { own, ..worn });
        }
        Ok(())
    }

    /// A conflict is for those who see all the records that it names, by themselves or via a child.
    fn keys_of_conflict(&mut self, flow: &mut Flow, record: &Record) -> Step<BTreeSet<String>> {
        let Some(conflict) = Conflict::read(&record.data) else { return Ok(BTreeSet::new()) };
        let everybody = || BTreeSet::from([EVERYBODY.to_owned()]);
        let mut seen = everybody();
        for named in conflict.names() {
            let keys = match self.is_restricted(&named.collection) {
                true => self.keys_of_named(flow, &named)?,
                false => everybody(),
            };
            seen = match (seen.contains(EVERYBODY), keys.contains(EVERYBODY)) {
                (true, _) => keys,
                (false, true) => seen,
                (false, false) => seen.intersection(&keys).cloned().collect(),
            };
        }
        Ok(seen)
    }

    /// The keys of a record that a conflict names. A tombstone may have come before the parents that it has its keys
    /// from, and nothing leads from them to it: then by what it says itself.
    fn keys_of_named(&mut self, flow: &mut Flow, named: &Key) -> Step<BTreeSet<String>> {
        let keys: BTreeSet<String> = self.worn(flow, named)?.keys().into_iter().map(str::to_owned).collect();
        match self.current(named)?.filter(|record| keys.is_empty() && record.state == State::Deleted) {
            Some(tombstone) => self.base(flow, named, &tombstone),
            None => Ok(keys),
        }
    }

    /// Whoever sees a record now that did not, or no longer, is to see so of its conflicts.
    fn seen_otherwise(&mut self, flow: &mut Flow, key: &Key) -> Step<()> {
        let links = self.children(flow, key)?;
        flow.conflicts.extend(links.into_iter().map(|l| l.child).filter(|k| &*k.collection == CONFLICT));
        Ok(())
    }

    fn set_own(&mut self, flow: &mut Flow, key: &Key, own: BTreeSet<String>) -> Step<()> {
        let mut worn = self.worn(flow, key)?;
        if worn.own == own {
            return Ok(());
        }
        worn.own = own;
        flow.after.insert(key.clone(), worn);
        flow.lifts.insert(key.clone());
        for link in self.children(flow, key)? {
            let child = &link.child;
            if &*child.collection == CONFLICT {
                flow.conflicts.insert(link.child);
                continue;
            }
            let inherits = self.audience(&child.collection).is_some_and(|a| a.from.contains(&link.field));
            if inherits {
                flow.owns.insert((self.rank(child), child.clone()));
            }
            flow.lifts.insert(link.child);
        }
        Ok(())
    }

    /// Gives a record's keys to the parents that it cannot be read without, where they lack them.
    fn lift(&mut self, flow: &mut Flow, child: &Key) -> Step<()> {
        if !self.is_restricted(&child.collection) {
            return Ok(());
        }
        let now = self.current(child)?;
        let before = self.snap.records.get(child);
        let now = now.map_or(BTreeSet::new(), |r| self.lifted(child, &r));
        let all: BTreeSet<Key> =
            before.map_or(BTreeSet::new(), |r| self.lifted(child, r)).union(&now).cloned().collect();
        if all.is_empty() {
            return Ok(());
        }
        let worn = self.worn(flow, child)?;
        let mut missing = false;
        for parent in all {
            let Ok(mut there) = self.worn(flow, &parent) else {
                missing = true;
                continue;
            };
            let lacks = |key: &&str| !there.own.contains(*key) && !there.own.contains(EVERYBODY);
            let wanted: BTreeSet<(Key, String)> = match now.contains(&parent) {
                true => {
                    worn.keys().into_iter().filter(lacks).map(|k| (child.clone(), k.to_owned())).collect()
                }
                false => BTreeSet::new(),
            };
            let had: BTreeSet<(Key, String)> =
                there.via.iter().filter(|(via, _)| via == child).cloned().collect();
            if had != wanted {
                let before = there.sight();
                there.via.retain(|(via, _)| via != child);
                there.via.extend(wanted);
                let is_seen_otherwise = there.sight() != before;
                flow.after.insert(parent.clone(), there);
                if is_seen_otherwise {
                    missing |= self.seen_otherwise(flow, &parent).is_err();
                }
                flow.lifts.insert(parent);
            }
        }
        if missing { Err(Missing) } else { Ok(()) }
    }

    /// The parents that a record cannot be read without, and those that it grants its keys to.
    fn lifted(&self, key: &Key, record: &Record) -> BTreeSet<Key> {
        let rules = self.profile.rules(&key.collection);
        let Some((rules, audience)) = rules.and_then(|r| Some((r, r.audience.as_ref()?))) else {
            return BTreeSet::new();
        };
        if record.state == State::Deleted {
            return BTreeSet::new();
        }
        let lifts = |f: &str| {
            audience.grants.iter().any(|n| n == f) || rules.references.get(f).is_some_and(|r| !r.optional)
        };
        let mut found: BTreeSet<Key> = parents(rules, &record.data, lifts)
            .map(|(parent, _)| parent)
            .filter(|p| p != key && self.is_restricted(&p.collection))
            .collect();
        if let State::Joined(survivor) = &record.state {
            found.insert(Key::new(&key.collection, survivor));
        }
        found
    }

    /// Writes what changed into the plan: audience rows with a stamp for each record, and what it does to
    /// the digests of those who see the same.
    pub(crate) fn write_flow(&self, flow: &Flow, plan: &mut Plan) {
        let stamps: BTreeMap<Key, crate::time::Stamp> = plan
            .rows
            .iter()
            .filter(|row| row.record.stamp > self.snap.head)
            .map(|row| (row.key.clone(), row.record.stamp))
            .collect();
        let mut counted: BTreeMap<&Key, (i64, i64)> = BTreeMap::new();
        for (key, worn) in flow.after.iter().filter(|(key, _)| flow.is_moved(key)) {
            let before = flow.before.get(key).cloned().unwrap_or_default();
            let stamp = stamps.get(key).copied().unwrap_or_else(|| {
                plan.head = plan.head.next(self.snap.now);
                plan.head
            });
            let had = self.snap.audiences.get(key).map_or(&[][..], Vec::as_slice);
            for row in moved(key, &before, worn, had, stamp) {
                let is_there = had.iter().any(|r| r.via == row.via && r.audience == row.audience);
                let rows = if is_there { &mut plan.audiences_moved } else { &mut plan.audiences };
                rows.push(row);
            }
            let holds = self.snap.records.get(key).map_or(0, |r| contribution(&key.collection, &key.id, r));
            counted.insert(key, (holds, holds));
        }
        for key in &self.gone {
            let was = self.snap.records.get(key).map_or(0, |r| contribution(&key.collection, &key.id, r));
            counted.insert(key, (was, 0));
        }
        counted.extend(plan.rows.iter().map(|row| (&row.key, row.contribution)));
        let mut sights: BTreeMap<String, Digest> = BTreeMap::new();
        for (key, (was, is)) in counted {
            if was == is && !flow.after.contains_key(key) {
                continue;
            }
            let sight = |worn: Option<&Worn>| match self.is_restricted(&key.collection) {
                true => worn.map(Worn::sight).unwrap_or_default(),
                false => EVERYBODY.to_owned(),
            };
            let out = sights.entry(sight(flow.before.get(key))).or_default();
            *out = out.moved(was, 0);
            let into = sights.entry(sight(flow.worn(key))).or_default();
            *into = into.moved(0, is);
        }
        sights.retain(|_, digest| *digest != Digest::default());
        plan.sights = sights;
    }
}

/// The rows that lead from `before` to `after`.
fn moved(
    key: &Key,
    before: &Worn,
    after: &Worn,
    had: &[AudienceRow],
    stamp: crate::time::Stamp,
) -> Vec<AudienceRow> {
    let pairs = |worn: &Worn| -> BTreeSet<(Option<Key>, String)> {
        let own = worn.own.iter().map(|k| (None, k.clone()));
        own.chain(worn.via.iter().map(|(via, k)| (Some(via.clone()), k.clone()))).collect()
    };
    let (was, is) = (pairs(before), pairs(after));
    let row = |(via, audience): &(Option<Key>, String), left| {
        let there = had.iter().find(|r| r.via == *via && r.audience == *audience && r.left.is_none());
        let entered = if left { there.map_or(stamp, |r| r.entered) } else { stamp };
        let (record, audience, via) = (key.clone(), audience.clone(), via.clone());
        AudienceRow { record, audience, via, entered, left: left.then_some(stamp) }
    };
    let gone = was.difference(&is).map(|pair| row(pair, true));
    gone.chain(is.difference(&was).map(|pair| row(pair, false))).collect()
}

/// Fields that a record's keys, or the keys of its parents, come from.
fn inputs(rules: &Rules) -> impl Iterator<Item = &str> {
    let audience = rules.audience.iter();
    let own =
        audience.flat_map(|a| a.key.iter().filter_map(|k| k.field.as_deref()).chain(a.subscribes.as_deref()));
    own.chain(rules.references.keys().map(String::as_str))
}

/// The parents that a record names in some of its references.
fn parents<'r>(
    rules: &'r Rules,
    data: &'r Doc,
    wanted: impl Fn(&str) -> bool + 'r,
) -> impl Iterator<Item = (Key, &'r str)> {
    let named = rules.references.iter().filter(move |(field, _)| wanted(field));
    named.filter_map(|(field, r)| Some((parent_key(r, data.get(field)?)?, field.as_str())))
}

/// The key that a record has from its own id or field. What cannot be an id names nobody.
fn own_key(of: &KeyOf, key: &Key, data: &Doc) -> Option<String> {
    let value = match &of.field {
        None => key.id.clone(),
        Some(field) => RecordId::parse(data.get(field).and_then(Value::as_str)?).ok()?,
    };
    debug_assert!(is_name(&of.name));
    Some(format!("{}:{value}", of.name))
}

/// Collections whose records carry no keys: for every reader.
pub fn open_collections(profile: &crate::profile::Profile) -> Vec<Collection> {
    let open = profile.collections.values().filter(|r| r.audience.is_none());
    open.map(|r| Collection::trusted(r.name.as_str())).collect()
}
