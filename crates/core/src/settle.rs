//! Rooms 1 and 4 as values: what may be sent next, how a batch is sealed, and what its receipts settle.

use crate::{
    aside,
    change::{Base, Op},
    id::{ChangeId, Epoch, Key},
    ingest,
    measured::Boots,
    outbox::{Entry, EntryState},
    plan::{Decision, Plan, Sealed, Snapshot},
    planted::{self, Bug},
    profile::{Profile, Retry},
    receipt::{Code, Reason, Receipt, Verdict},
    time::Time,
};
use std::collections::BTreeSet;

/// How much one batch may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Most changes.
    pub changes: usize,
    /// Most bytes of their JSON, at least one change always fits.
    pub bytes: usize,
}

/// What may go now, in order: all unsettled entries in, the entries to seal out.
///
/// A change that cannot go (not due, waiting, refused, in flight) holds back only the later changes of
/// its own record and those that refer to it. A record's second change waits for the first one's receipt.
pub fn sendable(entries: &[Entry], now: Time, limit: BatchLimit, profile: &Profile) -> Vec<i64> {
    let mut held_back: BTreeSet<Key> = BTreeSet::new();
    let mut taken: BTreeSet<Key> = BTreeSet::new();
    let mut left: BTreeSet<Key> = BTreeSet::new();
    let (mut out, mut bytes, mut full) = (Vec::new(), 0, false);
    let counts = |e: &&Entry| e.state.is_unsettled() && e.state != EntryState::Receipted && !e.is_aside();
    for entry in entries.iter().filter(counts) {
        let names = [entry.change.key(), entry.over.clone()];
        let parents = parents(entry, profile);
        let overtakes = entry.change.op == Op::Delete && names.iter().any(|k| left.contains(k));
        let is_held = overtakes || names.iter().chain(&parents).any(|k| held_back.contains(k));
        let follows_own = names.iter().any(|k| taken.contains(k));
        // What waited for a parent goes behind it as soon as that goes, whatever its own schedule says.
        let follows_parent = entry.state == EntryState::Waiting && parents.iter().any(|k| taken.contains(k));
        let ready = entry.state.is_unsent() && (is_due(entry, now) || follows_parent);
        if !ready || is_held || follows_own || full {
            // What was lost is nobody's word but a question: nothing that people do waits for its answer.
            let asks = entry.change.lost.is_some() && entry.state.is_unsent() && entry.verdict.is_some();
            if !asks {
                held_back.extend(names);
            }
            left.extend(parents.into_iter().chain(parents_of(
                &entry.change,
                entry.change.seen.as_ref(),
                profile,
            )));
            continue;
        }
        let size = serde_json::to_vec(&entry.change).map_or(0, |v| v.len());
        if !out.is_empty() && (out.len() >= limit.changes || bytes + size > limit.bytes) {
            full = true;
            held_back.extend(names);
            left.extend(parents.into_iter().chain(parents_of(
                &entry.change,
                entry.change.seen.as_ref(),
                profile,
            )));
            continue;
        }
        bytes += size;
        taken.extend(names);
        out.push(entry.seq);
    }
    out
}

/// Whether its time has come. Tried later than now: the clock was ahead then, and its schedule is void.
fn is_due(entry: &Entry, now: Time) -> bool {
    entry.due <= now || (entry.due < NEVER && entry.tried_at.is_some_and(|at| at > now))
}

/// The changes that go for the last time: where a parent of theirs has not come, a person is asked (CT-23). A
/// child whose parent is among the entries goes behind it once that goes, however late. All unsettled entries in.
pub fn last_tries(entries: &[Entry], profile: &Profile) -> BTreeSet<ChangeId> {
    let here: BTreeSet<Key> = entries.iter().flat_map(|e| [e.change.key(), e.over.clone()]).collect();
    let is_last = |e: &&Entry| e.attempts as usize >= profile.retry.delays.len();
    let alone = |e: &&Entry| !parents(e, profile).iter().any(|parent| here.contains(parent));
    entries.iter().filter(is_last).filter(alone).map(|e| e.change.id.clone()).collect()
}

/// When the next entry that waits for its time is due.
pub fn next_due(entries: &[Entry], now: Time) -> Option<Time> {
    let waits = |e: &&Entry| e.state.is_unsent() && !is_due(e, now) && e.due < NEVER;
    entries.iter().filter(waits).map(|e| e.due).min()
}

/// The time of an entry that is tried again only when a person says so.
pub const NEVER: Time = Time(i64::MAX);

/// Seals a batch: the entries and the bytes go to disk together, before the first send. `body` makes the
/// bytes. Entries that moved meanwhile (a person typed on) are left out; an empty plan when none is left.
/// The times of changes made here are corrected by what is known of their boot; others' go as they came.
pub fn seal(
    snapshot: &Snapshot,
    id: &str,
    wanted: &[(i64, crate::id::ChangeId)],
    boots: &Boots,
    body: impl Fn(&[&Entry]) -> Vec<u8>,
) -> Decision {
    let mut chosen: Vec<&Entry> = snapshot.outbox.values().flatten().collect();
    chosen.retain(|e| {
        e.state.is_unsent() && wanted.iter().any(|(seq, change)| e.seq == *seq && e.change.id == *change)
    });
    chosen.sort_by_key(|e| e.seq);
    let entries: Vec<Entry> = chosen.into_iter().map(|e| corrected(e, boots)).collect();
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    if !entries.is_empty() {
        let bodies: Vec<&Entry> = entries.iter().collect();
        plan.sealed.push(Sealed { id: id.to_owned(), body: body(&bodies), changes: entries.len() });
        let sealed = |e: Entry| Entry {
            state: EntryState::Sealed,
            batch: Some(id.to_owned()),
            tried_at: Some(snapshot.now),
            ..e
        };
        plan.outbox = entries.into_iter().map(sealed).collect();
    }
    Decision::Plan(Box::new(plan))
}

fn corrected(entry: &Entry, boots: &Boots) -> Entry {
    let mut entry = entry.clone();
    if entry.own
        && let Some(at) = &mut entry.change.at
    {
        at.offset = boots.offset(at).or(at.offset);
    }
    entry
}

/// Takes the receipts of a batch: each settles its own change, whatever happened to its neighbours. An
/// entry of the batch without a receipt was not decided and counts as unsent again.
pub fn receive(
    snapshot: &Snapshot,
    batch: &str,
    receipts: &[Receipt],
    epoch: &Epoch,
    retry: &Retry,
) -> Decision {
    let mut plan = Plan { head: snapshot.head, unsealed: vec![batch.to_owned()], ..Plan::default() };
    for entries in snapshot.outbox.values() {
        let mut granted: Option<Base> = None;
        for entry in entries {
            let mut next = entry.clone();
            if entry.batch.as_deref() == Some(batch) && entry.state == EntryState::Sealed {
                next.batch = None;
                match receipts.iter().find(|r| r.change == entry.change.id) {
                    None => next.state = EntryState::Pending,
                    Some(receipt) => settle_one(&mut next, receipt, epoch, retry, snapshot.now),
                }
                granted = next.granted.clone();
            } else if entry.state.is_unsent()
                && let Some(base) = granted.take()
                && entry.own
                && entry.change.base.is_none()
            {
                // Made on top of what was just acknowledged exactly: that is what its author saw.
                next.change.base = Some(base);
            }
            if next != *entry {
                plan.outbox.push(next);
            }
        }
    }
    Decision::Plan(Box::new(plan))
}

/// Opens a batch: its entries may be sealed anew. What was noted on them because an earlier answer was lost stays.
pub fn unseal(snapshot: &Snapshot, batch: &str, tried: Option<(&Retry, &str)>) -> Decision {
    let mut plan = Plan { head: snapshot.head, unsealed: vec![batch.to_owned()], ..Plan::default() };
    for entry in snapshot.outbox.values().flatten().filter(|e| e.batch.as_deref() == Some(batch)) {
        let mut next = Entry { state: EntryState::Pending, batch: None, ..entry.clone() };
        if let Some((retry, why)) = tried {
            next.state = EntryState::Rejected;
            postpone(&mut next, retry, snapshot.now);
            let code = if entry.is_unanswered() { Code::Unanswered } else { Code::Invalid };
            next.reason = Some(Reason { code, field: None, text: why.to_owned() });
        }
        plan.outbox.push(next);
    }
    Decision::Plan(Box::new(plan))
}

/// Entries that rest on creates among `chosen` and are not among them: later edits of those records, and
/// what refers to them. `made_here` are the records that no upstream knows. All unsettled entries in.
pub fn resting_on(
    entries: &[Entry],
    chosen: &[i64],
    made_here: &BTreeSet<Key>,
    profile: &Profile,
) -> Vec<i64> {
    let mut gone: BTreeSet<Key> = BTreeSet::new();
    let mut out = Vec::new();
    for entry in entries {
        let key = entry.change.key();
        let rests = gone.contains(&key) || parents(entry, profile).iter().any(|k| gone.contains(k));
        let is_chosen = chosen.contains(&entry.seq);
        if rests && !is_chosen {
            out.push(entry.seq);
        }
        if (rests || is_chosen) && entry.change.op == Op::Create && made_here.contains(&key) {
            gone.insert(key);
        }
    }
    out
}

/// Arms entries again at a person's word.
pub fn rearm(snapshot: &Snapshot, seqs: &[i64]) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let chosen = snapshot.outbox.values().flatten().filter(|e| e.state.is_unsent() && seqs.contains(&e.seq));
    for entry in chosen {
        let state = EntryState::Pending;
        let entry = aside::taken_up(entry);
        plan.outbox.push(Entry { state, attempts: 0, due: Time(i64::MIN), ..entry });
    }
    Decision::Plan(Box::new(plan))
}

/// What an entry waits for when the upstream says that something is missing: its parents, and the record
/// itself where it makes none.
pub fn awaits(entry: &Entry, profile: &Profile) -> Vec<Key> {
    let own = (entry.change.op == Op::Patch).then(|| entry.change.key());
    parents(entry, profile).into_iter().chain(own).collect()
}

/// Arms the entries that wait for one of these records, which have come: their schedule no longer matters.
pub fn arm(snapshot: &Snapshot, came: &[Key], profile: &Profile) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let waiting = snapshot.outbox.values().flatten().filter(|e| e.state == EntryState::Waiting);
    for entry in waiting.filter(|e| awaits(e, profile).iter().any(|key| came.contains(key))) {
        plan.outbox.push(Entry { due: Time(i64::MIN), ..entry.clone() });
    }
    Decision::Plan(Box::new(plan))
}

fn settle_one(entry: &mut Entry, receipt: &Receipt, epoch: &Epoch, retry: &Retry, now: Time) {
    entry.verdict = Some(receipt.verdict);
    entry.reason = receipt.reason.clone();
    entry.tried_at = Some(now);
    entry.conflicts = receipt.detail.conflicts.clone();
    match receipt.verdict {
        Verdict::Waiting => {
            entry.state = EntryState::Waiting;
            postpone(entry, retry, now);
        }
        Verdict::Rejected => {
            entry.state = EntryState::Rejected;
            postpone(entry, retry, now);
        }
        _ => {
            entry.state = EntryState::Receipted;
            entry.receipt_stamp = Some(receipt.stamp);
            entry.held = receipt.detail.parked.clone();
            let exact = receipt.is_exact() || planted::has(Bug::BareBase);
            entry.granted = exact.then(|| Base { epoch: epoch.clone(), version: receipt.version });
        }
    }
}

/// The schedule of the profile; after its last delay only a person arms the entry again (ISMF-122).
fn postpone(entry: &mut Entry, retry: &Retry, now: Time) {
    entry.attempts += 1;
    let delay = retry.delays.get(entry.attempts as usize - 1);
    entry.due = delay.map_or(NEVER, |d| now.plus(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)));
}

/// Records that an entry refers to.
fn parents(entry: &Entry, profile: &Profile) -> Vec<Key> {
    match entry.change.op {
        Op::Delete => Vec::new(),
        _ => parents_of(&entry.change, Some(&entry.change.fields), profile),
    }
}

fn parents_of(
    change: &crate::change::Change,
    fields: Option<&crate::doc::Fields>,
    profile: &Profile,
) -> Vec<Key> {
    let (Some(rules), Some(fields)) = (profile.rules(&change.collection), fields) else { return Vec::new() };
    let parent = |(field, value)| rules.references.get(field).and_then(|r| ingest::parent_key(r, value));
    fields.iter().filter_map(parent).collect()
}
