//! Room 6, absorb: a complete pull is taken in, and what is still unsettled here stays laid over it:
//! row = upstream ⊕ unsettled, field by field.

use crate::{
    change::{Author, Door, Grant, Op},
    conflict::{self, Resolution},
    doc::{Doc, Fields},
    id::{CONFLICT, DeviceId, Epoch, Key},
    ingest::{
        create::understood,
        work::{Missing, Step, Work},
    },
    merge,
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys, Snapshot, Superseded},
    profile::{Profile, Rule, Rules},
    record::{Held, Mark, Marks, Record, State, Upstream},
    time::{Stamp, Time},
};
use std::collections::BTreeSet;

/// Where a pull came from and how far it reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The upstream's epoch.
    pub epoch: Epoch,
    /// The upstream's head.
    pub cursor: Stamp,
}

/// Takes pulled records in.
pub fn rows(snapshot: &Snapshot, rows: &[Fed], reached: &Reached, profile: &Profile) -> Decision {
    let grant = nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    work.absorbs = true;
    for row in rows {
        let _ = work.take_in(row, reached);
    }
    for row in rows.iter().filter(|row| &*row.key.collection == CONFLICT) {
        let _ = work.note_conflict(row);
    }
    work.finish()
}

/// Settles receipted entries whose receipt the pull has reached: they are no longer part of any row.
pub fn settle(snapshot: &Snapshot, entries: &[Entry], profile: &Profile) -> Decision {
    drop_entries(snapshot, entries, EntryState::Settled, profile)
}

/// Gives entries up at a person's word: the rows show the upstream's values again.
pub fn discard(snapshot: &Snapshot, entries: &[Entry], profile: &Profile) -> Decision {
    let over: BTreeSet<Key> = entries.iter().map(|e| e.over.clone()).collect();
    if !over.is_subset(&snapshot.keys.outbox) {
        return Decision::Need(Keys { outbox: over, ..Keys::default() });
    }
    // As they stand now: one that went on its way or was written anew meanwhile stays.
    let now = |e: &Entry| {
        let mut there = snapshot.outbox.get(&e.over).into_iter().flatten();
        there.any(|n| n.seq == e.seq && n.change.id == e.change.id && n.state.is_unsent())
    };
    let entries: Vec<Entry> = entries.iter().filter(|e| now(e)).cloned().collect();
    drop_entries(snapshot, &entries, EntryState::Discarded, profile)
}

fn drop_entries(snapshot: &Snapshot, entries: &[Entry], state: EntryState, profile: &Profile) -> Decision {
    let grant = nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    work.absorbs = true;
    for entry in entries {
        work.outbox.insert(entry.seq, Entry { state, batch: None, ..entry.clone() });
    }
    for entry in entries {
        for key in std::iter::once(&entry.over).chain(&entry.also) {
            let _ = work.lay_anew(key, &entry.change.author);
        }
    }
    work.finish()
}

fn nobody() -> Grant {
    Grant { door: Door::Push, device: DeviceId::trusted("upstream"), role: String::new() }
}

impl Work<'_> {
    /// One pulled record.
    fn take_in(&mut self, row: &Fed, reached: &Reached) -> Step<()> {
        let local = self.lookup(&row.key);
        let entries = self.entries_over(&row.key);
        let (local, entries) = (local?, entries?);
        let known = local.as_ref().and_then(|r| r.upstream.as_ref());
        if known.is_some_and(|u| u.epoch == reached.epoch && u.version >= row.version) {
            return Ok(());
        }
        let unsettled = still_laid(&entries, Some(reached.cursor));
        let rules = self.profile.rules(&row.key.collection);
        let (state, data) = match &local {
            Some(local) if &*row.key.collection == CONFLICT && !unsettled.is_empty() => {
                (local.state.clone(), local.data.clone())
            }
            _ => lay(Some((row.state.clone(), row.data.clone())), &unsettled, rules)
                .unwrap_or((row.state.clone(), row.data.clone())),
        };
        let held = (!unsettled.is_empty()).then(|| Held { state: row.state.clone(), data: row.data.clone() });
        let upstream = Some(Upstream { epoch: reached.epoch.clone(), version: row.version, held });
        let by = (row.author.clone(), row.modified_at);
        self.show(&row.key, local, state, data, upstream, by, &row.owner);
        match &row.state {
            State::Joined(survivor) => self.give_way(&Key::new(&row.key.collection, survivor)),
            _ => Ok(()),
        }
    }

    /// A record that the upstream made a survivor was perhaps joined here, provisionally and the other way
    /// round: the upstream's word stands, or the two would be joined in a circle.
    fn give_way(&mut self, survivor: &Key) -> Step<()> {
        let Some(local) = self.lookup(survivor)? else { return Ok(()) };
        let held = local.upstream.as_ref().and_then(|u| u.held.as_ref());
        let joined = |state: &State| matches!(state, State::Joined(_));
        if joined(&local.state) && held.is_some_and(|h| !joined(&h.state)) {
            return self.lay_anew(survivor, &local.author);
        }
        Ok(())
    }

    /// Lays a record anew after an entry over it was settled or given up.
    fn lay_anew(&mut self, key: &Key, author: &Author) -> Step<()> {
        let local = self.lookup(key);
        let entries = self.entries_over(key);
        let (Some(local), entries) = (local?, entries?) else { return Ok(()) };
        let unsettled = still_laid(&entries, None);
        if &*key.collection == CONFLICT && !unsettled.is_empty() {
            return Ok(());
        }
        let by = (local.author.clone(), local.modified_at);
        let owner = local.owner.clone();
        let Some(upstream) = local.upstream.clone() else {
            // Nobody but this node ever knew it: it lives by its entries alone.
            let rules = self.profile.rules(&key.collection);
            let (state, data) = lay(None, &unsettled, rules).unwrap_or((State::Deleted, local.data.clone()));
            self.show(key, Some(local), state, data, None, (author.clone(), by.1), &owner);
            return self.recount_named(key);
        };
        let Some(held) = upstream.held.clone() else { return Ok(()) };
        let rules = self.profile.rules(&key.collection);
        let laid = lay(Some((held.state.clone(), held.data.clone())), &unsettled, rules);
        let (state, data) = laid.unwrap_or((held.state.clone(), held.data.clone()));
        let upstream = Upstream { held: (!unsettled.is_empty()).then_some(held), ..upstream };
        self.show(key, Some(local), state, data, Some(upstream), by, &owner);
        self.recount_named(key)
    }

    /// Where a conflict was laid anew, notes at its records whether one is still open about them.
    fn recount_named(&mut self, key: &Key) -> Step<()> {
        let Some(record) = self.lookup(key)?.filter(|_| &*key.collection == CONFLICT) else { return Ok(()) };
        let mut named = self.named_before(key);
        named.extend(conflict::Conflict::read(&record.data).iter().flat_map(conflict::Conflict::names));
        self.recount_each(&named)
    }

    /// The records that a conflict named before it was taken in: the upstream may have found that the same
    /// change contests another one.
    fn named_before(&self, key: &Key) -> Vec<Key> {
        let before = self.touched.get(key).and_then(|t| t.before.as_ref());
        before.and_then(|r| conflict::Conflict::read(&r.data)).map_or(Vec::new(), |c| c.names())
    }

    /// Writes a record's new state; where nothing visible changed it makes no version and no stamp.
    #[allow(clippy::too_many_arguments)] // a record's parts, none of which belongs to another
    fn show(
        &mut self,
        key: &Key,
        local: Option<Record>,
        state: State,
        data: Doc,
        upstream: Option<Upstream>,
        by: (Author, Time),
        owner: &DeviceId,
    ) {
        let (author, at) = by;
        let Some(local) = local else {
            let record = Record {
                local_id: 0,
                version: 1,
                stamp: Stamp::default(),
                state,
                data,
                marks: Marks::new(),
                owner: owner.clone(),
                author,
                modified_at: at,
                contested: false,
                upstream,
            };
            self.insert(key.clone(), record);
            return;
        };
        if local.state == state && local.data == data {
            if local.upstream != upstream {
                self.touch(key.clone(), Record { upstream, owner: owner.clone(), ..local }, false);
            }
            return;
        }
        let mut marks = local.marks.clone();
        marks.entry(String::new()).or_insert_with(|| local.mark(""));
        let mark = Mark { version: local.version + 1, at, device: author.device.clone(), role: None };
        for field in differing(local.data.fields(), data.fields()) {
            marks.insert(field, mark.clone());
        }
        let next = Record {
            version: local.version + 1,
            state,
            data,
            marks,
            owner: owner.clone(),
            author,
            modified_at: at,
            upstream,
            ..local.clone()
        };
        self.history.push(Superseded { key: key.clone(), record: local });
        self.touch(key.clone(), next, true);
    }

    /// Notes at a record that a pulled conflict about it is open, or no longer.
    fn note_conflict(&mut self, row: &Fed) -> Step<()> {
        let Some(stored) = self.lookup(&row.key)? else { return Ok(()) };
        let Some(conflict) = conflict::Conflict::read(&stored.data) else { return Ok(()) };
        if let (Some(Resolution::Apart), Some(other)) = (conflict.resolution, &conflict.other) {
            self.set_apart(&conflict.about(), &Key::new(&conflict.collection, other));
        }
        let is_open = stored.is_live() && conflict.is_open();
        let mut doubtful = self.named_before(&row.key);
        doubtful.retain(|key| !conflict.names().contains(key));
        let mut missing = false;
        for about in conflict.names() {
            match self.lookup(&about) {
                Err(Missing) => missing = true,
                Ok(Some(record)) if !record.contested && is_open => self.note_contested(&about, true)?,
                Ok(Some(record)) if record.contested && !is_open => doubtful.push(about),
                Ok(_) => {}
            }
        }
        let counted = self.recount_each(&doubtful);
        if missing { Err(Missing) } else { counted }
    }
}

/// Entries that are still part of the row.
fn still_laid(entries: &[Entry], cursor: Option<Stamp>) -> Vec<Entry> {
    let reached = |e: &Entry| {
        e.state == EntryState::Receipted
            && e.receipt_stamp.zip(cursor).is_some_and(|(stamp, cursor)| stamp <= cursor)
    };
    entries.iter().filter(|e| e.state.is_unsettled() && !reached(e)).cloned().collect()
}

/// Lays entries over a state. `None` when there is neither a state nor an entry that makes one.
fn lay(base: Option<(State, Doc)>, entries: &[Entry], rules: Option<&Rules>) -> Option<(State, Doc)> {
    if entries.is_empty() {
        return base;
    }
    let mut laid = base.map(|(state, doc)| (state, doc.fields().clone()));
    for entry in entries {
        let change = &entry.change;
        match (change.op, &mut laid) {
            (Op::Delete, Some((state, _))) => *state = State::Deleted,
            (Op::Delete, None) => {}
            (_, None) => laid = Some((State::Live, understood(rules, change))),
            (_, Some((State::Joined(_), _))) => {}
            (op, Some((state, fields))) => {
                if op == Op::Create {
                    *state = State::Live;
                }
                for (name, value) in understood(rules, change) {
                    if !entry.held.contains(&name) {
                        let value = own_total(rules, &name, &value, fields, &change.author.device);
                        fields.insert(name, value);
                    }
                }
            }
        }
    }
    laid.map(|(state, fields)| (state, Doc::of(fields)))
}

/// A counter's entry sets its author device's total beside the others'.
fn own_total(
    rules: Option<&Rules>,
    name: &str,
    value: &serde_json::Value,
    there: &Fields,
    device: &DeviceId,
) -> serde_json::Value {
    let counts = rules.is_some_and(|r| matches!(r.group_of(name).rule, Rule::Counter));
    if counts { merge::counter(there.get(name), Some(value), device) } else { value.clone() }
}

fn differing(before: &Fields, after: &Fields) -> Vec<String> {
    let changed = after.iter().filter(|(k, v)| before.get(*k) != Some(*v)).map(|(k, _)| k.clone());
    let gone = before.keys().filter(|k| !after.contains_key(*k)).cloned();
    changed.chain(gone).collect()
}
