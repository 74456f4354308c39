//! Room 6, absorb: a complete pull is taken in, and what is still unsettled here stays laid over it:
//! row = upstream ⊕ unsettled, field by field.

use crate::{
    change::{Author, Door, Grant, Op},
    conflict::{self, Resolution},
    doc::{Doc, Fields},
    id::{CONFLICT, DeviceId, Epoch, Key},
    ingest::{
        create::understood,
        links_of, parent_key,
        work::{Missing, Step, Work},
    },
    merge,
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, JOINED, Keys, Link, Snapshot, Superseded},
    profile::{Profile, Rule, Rules},
    record::{Held, Mark, Marks, Record, State, Upstream},
    settle::resting_on,
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
    /// Whether this is a reading from the beginning, because the replicas differ: then its word counts
    /// whatever version it has, and only what is equal already is passed over.
    pub anew: bool,
}

/// Takes pulled records in.
pub fn rows(snapshot: &Snapshot, rows: &[Fed], reached: &Reached, profile: &Profile) -> Decision {
    let grant = nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    work.absorbs = true;
    work.touched.reserve(rows.len());
    for row in rows {
        let _ = work.take_in(row, reached);
    }
    for row in rows.iter().filter(|row| &*row.key.collection == CONFLICT && !row.left) {
        let _ = work.note_conflict(row);
    }
    bounded_by_upstream(work)
}

/// Takes in that the upstream no longer knows these records, as a complete pull from its beginning has
/// shown: they are deleted here too, but for what is still unsettled over them, which stays in sight until
/// the upstream has answered to it. Where this node sees a part only (`partial`), nobody knows whether they
/// were deleted or left its sight: they leave.
pub fn gone(snapshot: &Snapshot, keys: &[Key], partial: bool, profile: &Profile) -> Decision {
    let grant = nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    work.absorbs = true;
    for key in keys {
        let _ = work.let_go(key, partial);
    }
    bounded_by_upstream(work)
}

/// Settles receipted entries whose receipt the pull has reached: they are no longer part of any row.
pub fn settle(snapshot: &Snapshot, entries: &[Entry], profile: &Profile) -> Decision {
    drop_entries(snapshot, entries, EntryState::Settled, profile)
}

/// Gives entries up at a person's word: the rows show the upstream's values again. A create on which an
/// entry rests that is not given up with it stays.
pub fn discard(snapshot: &Snapshot, entries: &[Entry], profile: &Profile) -> Decision {
    let over: BTreeSet<Key> = entries.iter().map(|e| e.over.clone()).collect();
    let named: BTreeSet<Key> = entries.iter().map(|e| e.change.key()).collect();
    if !over.is_subset(&snapshot.keys.outbox) || !named.is_subset(&snapshot.keys.records) {
        return Decision::from(Keys { outbox: over, records: named, ..Keys::default() });
    }
    // As they stand now: one that went on its way or was written anew meanwhile stays.
    let now = |e: &Entry| {
        let mut there = snapshot.outbox.get(&e.over).into_iter().flatten();
        there.any(|n| n.seq == e.seq && n.change.id == e.change.id && n.state.is_unsent())
    };
    let mut entries: Vec<Entry> = entries.iter().filter(|e| now(e)).cloned().collect();
    let seqs: Vec<i64> = entries.iter().map(|e| e.seq).collect();
    let is_ours = |key: &Key| snapshot.records.get(key).is_some_and(|r| r.upstream.is_none());
    entries.retain(|e| {
        let there = snapshot.outbox.get(&e.over).map_or(&[][..], Vec::as_slice);
        let made_here = BTreeSet::from_iter(Some(e.change.key()).filter(is_ours));
        resting_on(there, &seqs, &made_here, profile).is_empty()
    });
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
            let leant = work.leans_on(key);
            let _ = work.lay_anew(key, &entry.change.author);
            let _ = leant.and_then(|leant| work.leaves_off(key, leant));
        }
    }
    bounded_by_upstream(work)
}

/// What the upstream moved between audiences is not refused here.
pub(crate) fn bounded_by_upstream(work: Work<'_>) -> Decision {
    work.finish(usize::MAX).unwrap_or(Decision::from(Keys::default()))
}

pub(crate) fn nobody() -> Grant {
    Grant { door: Door::Push, device: DeviceId::trusted("upstream"), role: String::new() }
}

impl Work<'_> {
    /// One pulled record.
    fn take_in(&mut self, row: &Fed, reached: &Reached) -> Step<()> {
        let local = self.lookup(&row.key);
        let entries = self.entries_over(&row.key);
        let (local, entries) = (local?, entries?);
        if row.left {
            let nothing = || Upstream { epoch: reached.epoch.clone(), version: 0, held: None };
            let mut local = local.map(|r| Record { upstream: Some(r.upstream.unwrap_or_else(nothing)), ..r });
            if let Some(local) = &mut local {
                self.hand_in_left(&row.key, local, &reached.epoch);
            }
            return self.evict(&row.key, local, &still_laid(&entries, Some(reached.cursor)));
        }
        self.gone.remove(&row.key);
        let known = local.as_ref().and_then(|r| r.upstream.as_ref());
        let is_leaving = known.is_some_and(Upstream::has_left);
        let is_old = known.is_some_and(|u| u.epoch == reached.epoch && u.version >= row.version);
        if is_old && !is_leaving && !reached.anew {
            return Ok(());
        }
        let moved = self.rehome(row, local.as_ref(), &entries, reached)?;
        let entries = if moved.is_empty() { entries } else { self.entries_over(&row.key)? };
        if let Some(local) = local.as_ref().filter(|_| known.is_some_and(|u| u.epoch != reached.epoch)) {
            self.hand_in_differing(local, row, &entries);
        }
        let unsettled = still_laid(&entries, Some(reached.cursor));
        let (state, data) = match &local {
            Some(local) if &*row.key.collection == CONFLICT && !unsettled.is_empty() => {
                (local.state.clone(), local.data.clone())
            }
            _ => {
                let (there, stands) = ((row.state.clone(), row.data.clone()), (&reached.epoch, row.version));
                self.lay_here(&row.key, Some(there), Some(stands), &unsettled)?
                    .unwrap_or((row.state.clone(), row.data.clone()))
            }
        };
        let held = (!unsettled.is_empty()).then(|| Held {
            state: row.state.clone(),
            data: row.data.clone(),
            left: false,
        });
        let upstream = Some(Upstream { epoch: reached.epoch.clone(), version: row.version, held });
        let by = (row.author.clone(), row.modified_at);
        let is_back = local.is_none() && self.snap.buried > 0;
        let leant = if local.is_some() { self.leans_on(&row.key)? } else { Vec::new() };
        self.show(&row.key, local, state, data, upstream, by, &row.owner);
        if is_back {
            // Its tombstone was purged here; a conflict about it may have come since.
            self.recount(&row.key)?;
        }
        self.leaves_off(&row.key, leant)?;
        for key in moved.iter().filter(|key| **key != row.key) {
            self.lay_anew(key, &row.author)?;
        }
        match &row.state {
            State::Joined(survivor) => self.give_way(&Key::new(&row.key.collection, survivor)),
            _ => Ok(()),
        }
    }

    /// An edit is laid over the record that it reaches: where the upstream joined the one that it names, over
    /// the survivor; where it no longer is joined, over that one again. The records between which edits moved.
    fn rehome(
        &mut self,
        row: &Fed,
        local: Option<&Record>,
        over: &[Entry],
        reached: &Reached,
    ) -> Step<Vec<Key>> {
        let (from, to) = match (&row.state, local.map(|r| &r.state)) {
            (State::Joined(survivor), _) if !over.is_empty() => {
                (row.key.clone(), self.resolve(&Key::new(&row.key.collection, survivor))?.0)
            }
            (State::Live | State::Deleted, Some(State::Joined(survivor))) => {
                (self.resolve(&Key::new(&row.key.collection, survivor))?.0, row.key.clone())
            }
            _ => return Ok(Vec::new()),
        };
        let (here, there) = (self.entries_over(&from), self.entries_over(&to));
        let (here, _) = (here?, there?);
        let goes = |e: &Entry| e.change.op == Op::Patch && e.change.key() == row.key;
        let going: Vec<Entry> = still_laid(&here, Some(reached.cursor)).into_iter().filter(goes).collect();
        if going.is_empty() || from == to {
            return Ok(Vec::new());
        }
        for entry in going {
            self.outbox.insert(entry.seq, Entry { over: to.clone(), ..entry });
        }
        Ok(vec![from, to])
    }

    /// A record has left what this node may see: it goes now, or when what is unsettled over it is settled and
    /// nothing that stays for such a reason needs it any more (I6).
    fn evict(&mut self, key: &Key, local: Option<Record>, unsettled: &[Entry]) -> Step<()> {
        let Some(local) = local else { return Ok(()) };
        if unsettled.is_empty() && !self.is_leant_on(key)? {
            self.untouch(key);
            if self.snap.records.contains_key(key) {
                self.gone.insert(key.clone());
            }
            return self.release(&needs(key, &local, self.profile));
        }
        if let Some(upstream) = local.upstream.clone() {
            let there = || Held { state: local.state.clone(), data: local.data.clone(), left: true };
            let held = upstream.held.clone().map_or_else(there, |held| Held { left: true, ..held });
            let upstream = Some(Upstream { held: Some(held), ..upstream });
            self.touch(key.clone(), Record { upstream, ..local }, false);
        }
        Ok(())
    }

    /// What a record cannot be read without, where this node may see a part only.
    fn leans_on(&mut self, key: &Key) -> Step<Vec<Key>> {
        if !self.snap.follows || !self.is_restricted(&key.collection) {
            return Ok(Vec::new());
        }
        Ok(self.lookup(key)?.map_or_else(Vec::new, |record| needs(key, &record, self.profile)))
    }

    /// Lets go of what a record needed and needs no more.
    fn leaves_off(&mut self, key: &Key, mut needed: Vec<Key>) -> Step<()> {
        let needs = if needed.is_empty() { Vec::new() } else { self.leans_on(key)? };
        needed.retain(|parent| !needs.contains(parent));
        self.release(&needed)
    }

    /// Whether a record that stays cannot be read without this one.
    fn is_leant_on(&mut self, key: &Key) -> Step<bool> {
        let mut missing = false;
        for link in self.links_to(key)? {
            match self.lookup(&link.child) {
                Err(Missing) => missing = true,
                Ok(Some(child)) if !self.gone.contains(&link.child) => {
                    if needs(&link.child, &child, self.profile).contains(key) {
                        return Ok(true);
                    }
                }
                Ok(_) => {}
            }
        }
        if missing { Err(Missing) } else { Ok(false) }
    }

    /// Lets records go that stayed only for what needed them.
    fn release(&mut self, keys: &[Key]) -> Step<()> {
        let mut missing = false;
        for key in keys {
            let (local, entries) = (self.lookup(key), self.entries_over(key));
            let (Ok(local), Ok(entries)) = (local, entries) else {
                missing = true;
                continue;
            };
            let has_left = |r: &Record| r.upstream.as_ref().is_some_and(Upstream::has_left);
            let unsettled = still_laid(&entries, None);
            if unsettled.is_empty() && !self.gone.contains(key) && local.as_ref().is_some_and(has_left) {
                missing |= self.evict(key, local, &unsettled).is_err();
            }
        }
        if missing { Err(Missing) } else { Ok(()) }
    }

    /// One record that the upstream no longer knows.
    fn let_go(&mut self, key: &Key, partial: bool) -> Step<()> {
        let local = self.lookup(key);
        let entries = self.entries_over(key);
        let (Some(local), entries) = (local?, entries?) else { return Ok(()) };
        let Some(upstream) = local.upstream.clone() else { return Ok(()) };
        // What is for every reader left nobody's sight: followers hear of it by its tombstone alone.
        let is_open = self.profile.rules(&key.collection).is_some_and(|rules| rules.audience.is_none());
        if partial && !is_open {
            return self.evict(key, Some(local), &still_laid(&entries, None));
        }
        let (by, owner) = ((local.author.clone(), local.modified_at), local.owner.clone());
        if still_laid(&entries, None).is_empty() {
            let data = local.data.clone();
            self.show(key, Some(local), State::Deleted, data, None, by, &owner);
            return self.recount_named(key);
        }
        let there = upstream.held.map_or_else(|| local.data.clone(), |held| held.data);
        let held = Some(Held { state: State::Deleted, data: there, left: false });
        // Version 0: whatever the upstream says of it next is news.
        let upstream = Some(Upstream { epoch: upstream.epoch, version: 0, held });
        let (state, data) = (local.state.clone(), local.data.clone());
        self.show(key, Some(local), state, data, upstream, by, &owner);
        Ok(())
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
        if self.gone.contains(key) {
            return Ok(());
        }
        let unsettled = still_laid(&entries, None);
        if &*key.collection == CONFLICT && !unsettled.is_empty() {
            return Ok(());
        }
        let by = (local.author.clone(), local.modified_at);
        let owner = local.owner.clone();
        let Some(upstream) = local.upstream.clone() else {
            // Nobody but this node ever knew it: it lives by its entries alone.
            let laid = self.lay_here(key, None, None, &unsettled)?;
            let (state, data) = laid.unwrap_or((State::Deleted, local.data.clone()));
            self.show(key, Some(local), state, data, None, (author.clone(), by.1), &owner);
            return self.recount_named(key);
        };
        let held = match upstream.held.clone() {
            Some(held) => held,
            None if unsettled.is_empty() => return Ok(()),
            // An entry came over it from a record that was joined into it.
            None => Held { state: local.state.clone(), data: local.data.clone(), left: false },
        };
        let stays = !unsettled.is_empty() || held.left && self.is_leant_on(key)?;
        if held.left && !stays {
            return self.evict(key, Some(local), &[]);
        }
        let (there, stands) = ((held.state.clone(), held.data.clone()), (&upstream.epoch, upstream.version));
        let laid = self.lay_here(key, Some(there), Some(stands), &unsettled)?;
        let (state, data) = laid.unwrap_or((held.state.clone(), held.data.clone()));
        let upstream = Upstream { held: stays.then_some(held), ..upstream };
        self.show(key, Some(local), state, data, Some(upstream), by, &owner);
        self.recount_named(key)
    }

    /// Lays what is unsettled over what the upstream says. What was only handed on may name a parent that is not
    /// here, or edit what is not: it shows nowhere before the upstream has answered (I6).
    fn lay_here(
        &mut self,
        key: &Key,
        base: Option<(State, Doc)>,
        stands: Option<(&Epoch, u64)>,
        unsettled: &[Entry],
    ) -> Step<Option<(State, Doc)>> {
        let profile = self.profile;
        let Some(rules) = profile.rules(&key.collection) else {
            return Ok(lay(base, stands, unsettled, None));
        };
        let mut laid = Vec::new();
        for entry in unsettled {
            if self.parents_are_here(rules, &entry.change.fields)? {
                laid.push(entry.clone());
            }
        }
        let (is_new, after) = (base.is_none(), lay(base, stands, &laid, Some(rules)));
        let mut required = rules.references.iter().filter(|(_, reference)| !reference.optional);
        let mut lacks = |data: &Doc| required.any(|(field, _)| data.str(field).is_none());
        let is_part =
            is_new && after.as_ref().is_some_and(|(state, data)| *state == State::Live && lacks(data));
        Ok(after.filter(|_| !is_part))
    }

    /// Whether all parents that these fields name, and that a record cannot be read without, are here.
    fn parents_are_here(&mut self, rules: &Rules, fields: &Fields) -> Step<bool> {
        for (field, reference) in rules.references.iter().filter(|(_, reference)| !reference.optional) {
            if let Some(parent) = fields.get(field).and_then(|value| parent_key(reference, value))
                && (self.gone.contains(&parent) || self.lookup(&parent)?.is_none())
            {
                return Ok(false);
            }
        }
        Ok(true)
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

/// The records that one cannot be read without: those that it refers to, and where it is joined the survivor.
fn needs(key: &Key, record: &Record, profile: &Profile) -> Vec<Key> {
    let rules = profile.rules(&key.collection);
    let needed = |link: &Link| {
        let reference = rules.and_then(|rules| rules.references.get(&link.field));
        link.field == JOINED || reference.is_some_and(|reference| !reference.optional)
    };
    links_of(key, record, profile).into_iter().filter(needed).map(|link| link.parent).collect()
}

/// Entries that are still part of the row.
fn still_laid(entries: &[Entry], cursor: Option<Stamp>) -> Vec<Entry> {
    let reached = |e: &Entry| {
        e.state == EntryState::Receipted
            && e.receipt_stamp.zip(cursor).is_some_and(|(stamp, cursor)| stamp <= cursor)
    };
    let laid = |e: &&Entry| e.state.is_unsettled() && e.change.lost.is_none() && !reached(e);
    entries.iter().filter(laid).cloned().collect()
}

/// Lays entries over a state. `None` when there is neither a state nor an entry that makes one.
///
/// An edit whose author saw the tombstone brings the record back; about any other the upstream decides.
fn lay(
    base: Option<(State, Doc)>,
    stands: Option<(&Epoch, u64)>,
    entries: &[Entry],
    rules: Option<&Rules>,
) -> Option<(State, Doc)> {
    if entries.is_empty() {
        return base;
    }
    let mut laid = base.map(|(state, doc)| (state, doc.fields().clone()));
    let mut deleted_here = false;
    for entry in entries {
        let change = &entry.change;
        let saw_upstreams = |(epoch, version): (&Epoch, u64)| {
            change.base.as_ref().is_some_and(|b| b.epoch == *epoch && b.version >= version)
        };
        let saw_it = (entry.own && deleted_here) || stands.is_some_and(saw_upstreams);
        match (change.op, &mut laid) {
            (Op::Delete, Some((state, _))) => {
                *state = State::Deleted;
                deleted_here = true;
            }
            (Op::Delete, None) => {}
            (_, None) => laid = Some((State::Live, understood(rules, change))),
            (_, Some((State::Joined(_), _))) => {}
            (op, Some((state, fields))) => {
                if op == Op::Create || saw_it {
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
