//! What whoever brought a batch may see, and who is subscribed by what the batch writes. What a device
//! never saw is answered as if it did not exist.

use super::{
    Answer,
    flow::Flow,
    work::{Missing, Step, Work},
};
use crate::{
    audience::{self, AudienceRow, EVERYBODY, NOBODY, Subscription, Worn},
    change::{Change, Door},
    id::{DeviceId, Key},
    plan::Plan,
    receipt::{Detail, Verdict},
    record::Record,
    time::Stamp,
};
use std::collections::BTreeSet;

/// How a record stands to whoever brought the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// They see it.
    Now,
    /// They saw it once, or made it: their work on it counts, but it is not shown.
    Once,
    /// They never saw it.
    Never,
}

impl Work<'_> {
    /// Whether whoever brought the batch sees only what they are subscribed to.
    pub(crate) fn is_limited(&self) -> bool {
        self.grant.door == Door::Push && !self.absorbs && !self.profile.sees_all(&self.grant.role)
    }

    /// How a record that is there stands to whoever brought the batch.
    pub(crate) fn known(&mut self, key: &Key, record: &Record) -> Step<Known> {
        if !self.is_limited() || !self.is_restricted(&key.collection) {
            return Ok(Known::Now);
        }
        if self.touched.get(key).is_some_and(|t| t.before.is_none()) {
            return Ok(Known::Now);
        }
        let subscriptions = self.subscriptions_of(&self.grant.device.clone());
        if !self.snap.keys.audiences.contains(key) {
            self.need.audiences.insert(key.clone());
            return Err(Missing);
        }
        let subscriptions = subscriptions?;
        let rows = self.snap.audiences.get(key).map_or(&[][..], Vec::as_slice);
        if audience::sees(&audience::held(&subscriptions), &Worn::read(rows).sight()) {
            return Ok(Known::Now);
        }
        let device = &self.grant.device;
        let ever: BTreeSet<&str> = subscriptions.iter().map(|s| s.audience.as_str()).collect();
        let saw = rows.iter().any(|r| r.audience == EVERYBODY || ever.contains(&*r.audience));
        let made = record.owner == *device || record.author.device == *device;
        Ok(if saw || made { Known::Once } else { Known::Never })
    }

    /// Whether a record was here until it left what this node may see. Then the upstream has it, and work
    /// on it that comes in late goes there.
    pub(crate) fn has_left(&mut self, key: &Key) -> Step<bool> {
        let may = self.snap.follows && self.grant.door == Door::Push && self.is_restricted(&key.collection);
        if !may || self.passed.contains(key) || self.lookup(key)?.is_some() {
            return Ok(self.passed.contains(key));
        }
        if !self.snap.keys.audiences.contains(key) {
            self.need.audiences.insert(key.clone());
            return Err(Missing);
        }
        Ok(self.snap.audiences.get(key).is_some_and(|rows| !rows.is_empty()))
    }

    /// Takes a change in only to hand it on: this node holds nothing that it could be decided over.
    pub(crate) fn pass_on(&mut self, change: &Change) -> Answer {
        self.passed.insert(change.key());
        Answer {
            verdict: Verdict::Merged,
            over: change.key(),
            version: 0,
            detail: Detail::default(),
            reason: None,
            relay: Some(change.clone()),
        }
    }

    /// Notes of records that were only handed on that they are elsewhere: what refers to them follows, and
    /// whoever made them is told that they left. And of those that went without any key leaving them.
    pub(crate) fn write_elsewhere(&self, flow: &Flow, plan: &mut Plan) {
        let had = |key: &Key| self.snap.audiences.get(key).map_or(&[][..], Vec::as_slice);
        let passed = self.passed.iter().filter(|key| had(key).is_empty()).map(|key| (key, EVERYBODY));
        let went = self.gone.iter().filter(|key| self.is_restricted(&key.collection) && !flow.is_moved(key));
        for (key, audience) in passed.chain(went.map(|key| (key, NOBODY))) {
            plan.head = plan.head.next(self.snap.now);
            let (entered, left) = (plan.head, Some(plan.head));
            let row =
                AudienceRow { record: key.clone(), audience: audience.to_owned(), via: None, entered, left };
            match had(key).iter().any(|r| r.audience == audience && r.via.is_none()) {
                true => plan.audiences_moved.push(row),
                false => plan.audiences.push(row),
            }
        }
    }

    fn subscriptions_of(&mut self, reader: &DeviceId) -> Step<Vec<Subscription>> {
        if !self.snap.keys.readers.contains(reader) {
            self.need.readers.insert(reader.clone());
            return Err(Missing);
        }
        Ok(self.snap.subscriptions.get(reader).cloned().unwrap_or_default())
    }

    /// Which records a receipt may show: what its author sees after the plan, with the subscriptions that
    /// begin or end in it.
    pub(crate) fn sights_of_shown(&mut self, flow: &Flow, moved: &[Subscription]) -> Step<BTreeSet<Key>> {
        let mut seen = BTreeSet::new();
        if !self.is_limited() {
            return Ok(seen);
        }
        let mut there = self.subscriptions_of(&self.grant.device.clone())?;
        for one in moved.iter().filter(|one| one.reader == self.grant.device) {
            there.retain(|s| s.left.is_some() || s.audience != one.audience || s.via != one.via);
            there.push(one.clone());
        }
        let held = audience::held(&there);
        let shown: BTreeSet<Key> = self.pending.iter().filter_map(|p| p.show.clone()).collect();
        let mut missing = false;
        for key in shown {
            match self.resolve(&key).and_then(|(over, _)| self.is_in_sight(flow, &held, &over)) {
                Ok(true) => drop(seen.insert(key)),
                Ok(false) => {}
                Err(Missing) => missing = true,
            }
        }
        if missing { Err(Missing) } else { Ok(seen) }
    }

    fn is_in_sight(&mut self, flow: &Flow, held: &BTreeSet<String>, key: &Key) -> Step<bool> {
        if !self.is_restricted(&key.collection) {
            return Ok(true);
        }
        if let Some(worn) = flow.worn(key) {
            return Ok(audience::sees(held, &worn.sight()));
        }
        if !self.snap.keys.audiences.contains(key) {
            self.need.audiences.insert(key.clone());
            return Err(Missing);
        }
        let rows = self.snap.audiences.get(key).map_or(&[][..], Vec::as_slice);
        Ok(audience::sees(held, &Worn::read(rows).sight()))
    }

    /// Who is subscribed, or no longer, by the membership records of this plan; and whoever makes the
    /// record that an audience is named after is subscribed to it.
    pub(crate) fn subscribe(&mut self, flow: &Flow) -> Step<Vec<Subscription>> {
        let mut out: Vec<Subscription> = Vec::new();
        let mut missing = false;
        let keys: BTreeSet<Key> = self.touched.keys().chain(flow.changed()).cloned().collect();
        for key in keys {
            let profile = self.profile;
            let Some(rules) = profile.rules(&key.collection).and_then(|r| r.audience.as_ref()) else {
                continue;
            };
            if let Some(field) = &rules.subscribes {
                match self.by_membership(flow, &key, field) {
                    Ok(found) => out.extend(found),
                    Err(Missing) => missing = true,
                }
            }
            let is_new = self.touched.get(&key).is_some_and(|t| t.before.is_none());
            if is_new && self.is_limited() && rules.key.as_ref().is_some_and(|k| k.field.is_none()) {
                match self.by_making(flow, &key) {
                    Ok(found) => out.extend(found),
                    Err(Missing) => missing = true,
                }
            }
        }
        if missing { Err(Missing) } else { Ok(out) }
    }

    fn by_making(&mut self, flow: &Flow, key: &Key) -> Step<Vec<Subscription>> {
        let reader = self.grant.device.clone();
        let held = audience::held(&self.subscriptions_of(&reader)?);
        let own = flow.worn(key).map(|w| w.own.clone()).unwrap_or_default();
        let new = own.into_iter().filter(|k| k != EVERYBODY && !held.contains(k));
        Ok(new.map(|audience| subscription(&reader, audience, None)).collect())
    }

    fn by_membership(&mut self, flow: &Flow, key: &Key, field: &str) -> Step<Vec<Subscription>> {
        let reader = |r: &Record| DeviceId::parse(r.data.str(field)?).ok();
        let before = self.snap.records.get(key).and_then(reader);
        let now = if self.gone.contains(key) { None } else { self.lookup(key)? };
        let now = now.filter(Record::is_live).as_ref().and_then(reader);
        let own = flow.worn(key).map(|w| w.own.clone()).unwrap_or_default();
        let mut out = Vec::new();
        for reader in BTreeSet::from_iter(before.into_iter().chain(now.clone())) {
            let there = self.subscriptions_of(&reader)?;
            let held: Vec<&Subscription> =
                there.iter().filter(|s| s.left.is_none() && s.via.as_ref() == Some(key)).collect();
            let wanted: Vec<&String> =
                own.iter().filter(|k| now.as_ref() == Some(&reader) && *k != EVERYBODY).collect();
            for ended in held.iter().filter(|s| !wanted.contains(&&s.audience)) {
                out.push(Subscription { left: Some(Stamp::default()), ..(*ended).clone() });
            }
            for begun in wanted.into_iter().filter(|k| held.iter().all(|s| s.audience != **k)) {
                out.push(subscription(&reader, begun.clone(), Some(key.clone())));
            }
        }
        Ok(out)
    }
}

fn subscription(reader: &DeviceId, audience: String, via: Option<Key>) -> Subscription {
    Subscription { reader: reader.clone(), audience, via, entered: Stamp::default(), left: None }
}

/// Writes subscriptions into the plan, each with a stamp of its own, so that its reader is told.
pub(crate) fn write_subscriptions(found: Vec<Subscription>, now: crate::time::Time, plan: &mut Plan) {
    for mut one in found {
        plan.head = plan.head.next(now);
        match one.left {
            Some(_) => one.left = Some(plan.head),
            None => one.entered = plan.head,
        }
        plan.subscriptions.push(one);
    }
}

/// A reader's own choice: subscribes to a key or ends that. An empty plan where it is so already.
pub fn choose(snapshot: &crate::plan::Snapshot, reader: &DeviceId, key: &str, on: bool) -> Plan {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let there = snapshot.subscriptions.get(reader).map_or(&[][..], Vec::as_slice);
    let mut of_key = there.iter().filter(|s| s.audience == key && s.left.is_none());
    let change = match on {
        true if of_key.any(|s| s.via.is_none()) => Vec::new(),
        true => vec![subscription(reader, key.to_owned(), None)],
        false => {
            let own = of_key.filter(|s| s.via.is_none()).cloned();
            own.map(|s| Subscription { left: Some(Stamp::default()), ..s }).collect()
        }
    };
    write_subscriptions(change, snapshot.now, &mut plan);
    plan
}
