//! Room 1 begins here: on a node that follows, what was accepted enters the outbox in the same plan.
//!
//! A node relays what it was given, not what it decided; only edits of its own desk that nobody has
//! sent yet are coalesced.

use super::{
    Answer,
    work::{Step, Work},
};
use crate::{
    change::{Base, Change, Door, Op},
    doc::Fields,
    id::{CONFLICT, Key},
    outbox::{Entry, EntryState},
    receipt::Verdict,
    time::Time,
};

impl Work<'_> {
    /// Whether the upstream has to hear of a change: not of one that altered nothing, unless it closed a
    /// conflict, or rests on what is not settled or not here.
    pub(crate) fn concerns_upstream(&mut self, change: &Change, answer: &Answer) -> Step<bool> {
        if answer.verdict != Verdict::Unchanged || self.told {
            return Ok(true);
        }
        let unknown = change.op == Op::Delete && self.found.is_none();
        Ok(self.grant.door == Door::Push && (unknown || !self.entries_over(&answer.over)?.is_empty()))
    }

    /// Enters a change into the outbox.
    pub(crate) fn relay(&mut self, change: &Change, answer: &Answer) -> Step<()> {
        let waiting = self.entries_over(&answer.over)?;
        let also: Vec<Key> = self.side.iter().filter(|k| **k != answer.over).cloned().collect();
        let own = self.grant.door == Door::Desk;
        let mut outgoing = change.clone();
        outgoing.base = self.upstream_base(change, &answer.over, &waiting);
        if own {
            outgoing.seen = self.seen_at_desk(change);
        }
        if own
            && let Some(last) = waiting.last()
            && self.coalesces(last, &outgoing)
        {
            let merged = coalesced(last, outgoing, &answer.detail.parked, also, self.stands());
            self.outbox.insert(merged.seq, merged);
            return Ok(());
        }
        let held = answer.detail.parked.clone();
        let pending = Entry::pending(self.next_entry, outgoing, answer.over.clone(), self.snap.now);
        let entry = Entry { also, own, held, ..pending };
        self.next_entry += 1;
        self.outbox.insert(entry.seq, entry);
        Ok(())
    }

    /// Unsettled entries over a record, oldest first, this batch's own included.
    pub(crate) fn entries_over(&mut self, over: &Key) -> Step<Vec<Entry>> {
        if !self.snap.keys.outbox.contains(over) {
            self.need.outbox.insert(over.clone());
            return Err(super::work::Missing);
        }
        let stored =
            self.snap.outbox.get(over).into_iter().flatten().filter(|e| !self.outbox.contains_key(&e.seq));
        let mut entries: Vec<Entry> = stored.cloned().collect();
        entries.extend(self.outbox.values().filter(|e| e.over == *over).cloned());
        entries.sort_by_key(|e| e.seq);
        Ok(entries)
    }

    /// The version of the upstream that the record found stands on.
    fn stands(&self) -> Option<Base> {
        let upstream = self.found.as_ref()?.upstream.as_ref().filter(|u| u.version > 0)?;
        Some(Base { epoch: upstream.epoch.clone(), version: upstream.version })
    }

    /// The base to send: the upstream's version, where the author saw exactly that.
    fn upstream_base(&self, change: &Change, over: &Key, waiting: &[Entry]) -> Option<Base> {
        let before = self.found.as_ref().filter(|record| !self.snap.hides(record))?;
        let at_desk = self.grant.door == Door::Desk && change.base.is_none();
        let theirs = change.base.as_ref().filter(|b| b.epoch == self.snap.epoch).map(|b| b.version);
        let saw_exactly = (at_desk || theirs == Some(before.version)) && *over == change.key();
        if !saw_exactly {
            return None;
        }
        match waiting.last() {
            None => {
                let upstream = before.upstream.as_ref().filter(|u| u.version > 0 && u.held.is_none())?;
                Some(Base { epoch: upstream.epoch.clone(), version: upstream.version })
            }
            Some(last) if last.state == EntryState::Receipted => last.granted.clone(),
            Some(_) => None,
        }
    }

    /// What somebody at the desk saw in the fields that they changed. `None` where a stale screen showed
    /// something that is no longer known.
    fn seen_at_desk(&self, change: &Change) -> Option<Fields> {
        if &*change.collection == CONFLICT {
            return None;
        }
        let in_sight = self.found.as_ref().filter(|record| !self.snap.hides(record));
        let Some(before) = in_sight else { return Some(Fields::new()) };
        if !before.is_live() && before.upstream.is_none() {
            // A tombstone that only this node ever knew: upstream there is nothing that was seen.
            return Some(Fields::new());
        }
        let fresh = change.base.as_ref().is_none_or(|b| b.version == before.version);
        if change.op == Op::Delete {
            // A deletion names no field: it wants what was seen to go.
            return fresh.then(|| before.data.fields().clone());
        }
        let named = change.fields.keys().filter_map(|f| before.data.get(f).map(|v| (f.clone(), v.clone())));
        fresh.then(|| named.collect())
    }

    /// Whether a further edit joins an entry that nobody has sent: same person, no new parent.
    fn coalesces(&self, last: &Entry, next: &Change) -> bool {
        let rules = self.profile.rules(&next.collection);
        let names_parent = rules.is_some_and(|r| next.fields.keys().any(|f| r.references.contains_key(f)));
        last.own
            && last.state.is_unsent()
            && !last.is_unanswered()
            && !last.is_aside()
            && last.change.author.person == next.author.person
            && last.change.key() == next.key()
            && last.change.op != Op::Delete
            && next.op == Op::Patch
            && !names_parent
            && &*next.collection != CONFLICT
    }
}

/// One entry of two edits, under the later one's change id: a rejected or waiting entry counts as unsent,
/// so that a person's correction replaces it.
fn coalesced(last: &Entry, next: Change, parked: &[String], also: Vec<Key>, stands: Option<Base>) -> Entry {
    let mut entry = last.clone();
    let mut seen = next.seen.clone();
    if let (Some(seen), Some(earlier)) = (&mut seen, &last.change.seen) {
        // What the first edit saw in its fields is what both saw; a field that was absent stays absent.
        seen.retain(|field, _| !last.change.fields.contains_key(field));
        seen.extend(earlier.clone());
    }
    entry.change.seen = if last.change.seen.is_some() { seen } else { None };
    if entry.change.base != stands {
        // Upstream went on since: what both edits saw tells more than a version that the later one did not see.
        entry.change.base = None;
    }
    entry.change.fields.extend(next.fields.clone());
    entry.change.id = next.id;
    entry.change.author = next.author;
    entry.change.at = next.at;
    entry.held.retain(|field| !next.fields.contains_key(field));
    entry.held.extend(parked.iter().cloned());
    entry.also.extend(also);
    entry.state = EntryState::Pending;
    entry.attempts = 0;
    entry.due = Time(i64::MIN);
    entry.reason = None;
    entry.verdict = None;
    entry
}
