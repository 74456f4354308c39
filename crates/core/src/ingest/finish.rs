//! Step f, record: everything decided becomes one plan with fresh stamps, in the order of first touch.

use super::{
    flow::Flow,
    refs::links_of,
    same::print,
    sight::write_subscriptions,
    work::{Step, Touched, Work},
};
use crate::{
    audience::Subscription,
    digest::contribution,
    id::Key,
    limits,
    plan::{Decision, Link, Plan, Print, Row, Snapshot},
    profile::Profile,
    receipt::Shown,
    record::{Held, Record, State},
    time::Stamp,
};
use std::collections::{BTreeMap, BTreeSet};

impl Work<'_> {
    /// The decision: a plan, or what is still needed. `None` where more than `most` records would change
    /// their audience.
    pub(crate) fn finish(mut self, most: usize) -> Option<Decision> {
        if !self.need.is_empty() {
            return Some(Decision::from(self.need));
        }
        let flowed = if self.profile.has_audiences() { self.flowed() } else { Ok(None) };
        let Ok(flowed) = flowed else { return Some(Decision::from(self.need)) };
        if flowed.as_ref().is_some_and(|f| f.flow.moved() > most) {
            return None;
        }
        let limited = self.is_limited();
        let holds = self.snap.follows && !self.absorbs;
        let epoch = Some(self.snap.epoch.clone());
        let mut plan = Plan { head: self.snap.head, epoch, ..Plan::default() };
        plan.rows.reserve(self.touched.len());
        let mut written = Written { snap: self.snap, profile: self.profile, plan: &mut plan, holds };
        for (key, touched) in std::mem::take(&mut self.touched) {
            written.row(key, touched);
        }
        for key in &self.gone {
            written.forget(key);
        }
        let shown_to = flowed.map(|flowed| {
            self.write_flow(&flowed.flow, &mut plan);
            self.write_elsewhere(&flowed.flow, &mut plan);
            write_subscriptions(flowed.subscriptions, self.snap.now, &mut plan);
            flowed.shown
        });
        plan.history = self.history;
        plan.history.retain(|was| !self.gone.contains(&was.key));
        plan.links.extend(self.links);
        plan.links_gone.extend(self.links_gone);
        plan.outbox = self.outbox.into_values().collect();
        plan.receipts = self.receipts.into_values().collect();
        let head = plan.head;
        // Where nothing moved the head, it may be as old as one likes; the receipt is not.
        let decided = head.max(Stamp(self.snap.now.0));
        for receipt in &mut plan.receipts {
            receipt.stamp = decided;
        }
        let rows: BTreeMap<&Key, &Record> = match self.pending.iter().any(|p| p.show.is_some()) {
            true => plan.rows.iter().map(|row| (&row.key, &row.record)).collect(),
            false => BTreeMap::new(),
        };
        plan.answers.reserve(self.pending.len());
        for pending in self.pending {
            let mut receipt = pending.receipt;
            if pending.fresh {
                receipt.stamp = head;
            }
            let is_kept_from =
                |key: &Key| limited && shown_to.as_ref().is_some_and(|seen| !seen.contains(key));
            let is_kept = pending.show.as_ref().is_some_and(is_kept_from);
            let there = pending.show.and_then(|key| standing(self.snap, &rows, key));
            if is_kept || there.as_ref().is_some_and(|(_, record)| self.snap.hides(record)) {
                // Nothing is told of what its author may not see, and it is no base for anything.
                receipt.version = 0;
            } else {
                receipt.record = there.map(shown);
            }
            plan.answers.push(receipt);
        }
        Some(Decision::Plan(Box::new(plan)))
    }

    /// What the plan does to audiences and to what receipts may show.
    fn flowed(&mut self) -> Step<Option<Flowed>> {
        let flow = self.flow()?;
        let subscriptions = self.subscribe(&flow)?;
        let shown = self.sights_of_shown(&flow, &subscriptions)?;
        Ok(Some(Flowed { flow, subscriptions, shown }))
    }
}

/// What a plan does to audiences.
struct Flowed {
    flow: Flow,
    subscriptions: Vec<Subscription>,
    /// The records that receipts may show.
    shown: BTreeSet<Key>,
}

/// Builds the rows of a plan and everything that follows from them.
pub(crate) struct Written<'a> {
    pub(crate) snap: &'a Snapshot,
    pub(crate) profile: &'a Profile,
    pub(crate) plan: &'a mut Plan,
    /// Whether what the upstream last said is kept beneath what changes here.
    pub(crate) holds: bool,
}

impl Written<'_> {
    /// Adds a record's row, with the differences that it makes to digest, prints and links.
    pub(crate) fn row(&mut self, key: Key, touched: Touched) {
        let Touched { before, mut now, visible, offset, .. } = touched;
        if visible {
            self.plan.head = self.plan.head.next(self.snap.now);
            now.stamp = self.plan.head;
        }
        if self.holds && visible {
            hold(before.as_ref(), &mut now);
        }
        let was = before.as_ref().map_or(0, |r| contribution(&key.collection, &key.id, r));
        let is = contribution(&key.collection, &key.id, &now);
        self.plan.digest = self.plan.digest.moved(was, is);
        self.prints(&key, before.as_ref(), &now, offset);
        self.links(&key, before.as_ref(), &now);
        self.plan.rows.push(Row { key, is_new: before.is_none(), record: now, contribution: (was, is) });
    }

    /// Drops a record that leaves what this node may see, with everything that follows from it.
    pub(crate) fn forget(&mut self, key: &Key) {
        let Some(before) = self.snap.records.get(key) else { return };
        self.plan.digest = self.plan.digest.moved(contribution(&key.collection, &key.id, before), 0);
        self.plan.prints_gone.push(key.clone());
        self.plan.links_gone.extend(links_of(key, before, self.profile));
        self.plan.forget.push(key.clone());
    }

    fn prints(&mut self, key: &Key, before: Option<&Record>, now: &Record, offset: i64) {
        let Some(rules) = self.profile.rules(&key.collection).filter(|r| r.same.is_some()) else { return };
        let was = before.and_then(|r| print(rules, r, 0));
        let is = print(rules, now, 0);
        if was == is {
            return;
        }
        if was.is_some() {
            self.plan.prints_gone.push(key.clone());
        }
        if let Some((text, at)) = print(rules, now, offset) {
            self.plan.prints.push(Print { key: key.clone(), print: text, at });
        }
    }

    fn links(&mut self, key: &Key, before: Option<&Record>, now: &Record) {
        if before.is_none() {
            self.plan.links.extend(links_of(key, now, self.profile));
            return;
        }
        let was: BTreeSet<Link> =
            before.map(|r| links_of(key, r, self.profile)).into_iter().flatten().collect();
        let is: BTreeSet<Link> = links_of(key, now, self.profile).into_iter().collect();
        self.plan.links_gone.extend(was.difference(&is).cloned());
        self.plan.links.extend(is.difference(&was).cloned());
    }
}

/// Keeps what the upstream last said beneath a record that a change made here is laid over.
fn hold(before: Option<&Record>, now: &mut Record) {
    let Some(upstream) = &mut now.upstream else { return };
    if upstream.held.is_none()
        && let Some(before) = before
    {
        upstream.held = Some(Held { state: before.state.clone(), data: before.data.clone(), left: false });
    }
}

/// A record as it stands after the plan; where it is joined, the survivor.
fn standing(snap: &Snapshot, rows: &BTreeMap<&Key, &Record>, mut key: Key) -> Option<(Key, Record)> {
    let find = |key: &Key| rows.get(key).copied().or_else(|| snap.records.get(key)).cloned();
    let mut record = find(&key)?;
    for _ in 0..limits::JOIN_CHAIN_MAX {
        let State::Joined(survivor) = &record.state else { break };
        let next = Key::new(&key.collection, survivor);
        let Some(found) = find(&next) else { break };
        (key, record) = (next, found);
    }
    Some((key, record))
}

fn shown((key, record): (Key, Record)) -> Shown {
    Shown {
        id: key.id,
        version: record.version,
        state: record.state,
        data: record.data,
        author: record.author,
        modified_at: record.modified_at,
    }
}
