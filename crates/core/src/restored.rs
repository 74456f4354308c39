//! An upstream that went back in time, as its follower meets it: its own acknowledged changes are offered
//! again; what it holds at versions of the lost epoch, and the upstream no longer has, is handed in for a
//! person to accept. Nothing is dropped before that answer.

use crate::{
    absorb,
    change::{Base, Change, Op},
    conflict::Conflict,
    doc::{Doc, Fields},
    id::{CONFLICT, ChangeId, Collection, Epoch, Key},
    ingest::work::{Step, Work},
    limits,
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys, Plan, Snapshot},
    profile::Profile,
    record::{Record, State},
    time::{AuthorTime, Stamp, Time},
};
use std::collections::BTreeSet;

/// Whether an entry was receipted within the backup window: by the upstream's clock or by this node's. One of the
/// two may be wrong, and what looks too old is not offered by itself.
pub fn is_in_window(entry: &Entry, upstream_now: Time, now: Time) -> bool {
    let window = i64::try_from(limits::BACKUP_WINDOW.as_micros()).unwrap_or(i64::MAX);
    let is_young = |then: Time, now: Time| then.0 >= now.0.saturating_sub(window);
    entry.receipt_stamp.is_some_and(|stamp| is_young(stamp.time(), upstream_now))
        || entry.tried_at.is_some_and(|at| is_young(at, now))
}

/// Makes settled entries pending again, under their own change ids: those that the restored upstream still
/// knows are answered as before, the others are decided by value. `entries` are their numbers.
///
/// Answers to conflicts stay settled: the conflict they answered is not the one that is there now, and what
/// they wrote is among what the follower holds. What was handed in of an earlier epoch stays so too, where the
/// question that came of it was pulled; else nobody but this entry knows of it.
pub fn offer_again(snapshot: &Snapshot, entries: &BTreeSet<i64>) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let taken_in = |e: &&Entry| matches!(e.state, EntryState::Settled | EntryState::Receipted);
    let named = snapshot.outbox.values().flatten().filter(|e| entries.contains(&e.seq));
    for entry in named.filter(taken_in) {
        let is_settled = entry.state == EntryState::Settled;
        if &*entry.change.collection == CONFLICT {
            // A stamp of the lost epoch may lie beyond all that the new one gives for a long time.
            if !is_settled {
                plan.outbox.push(Entry { receipt_stamp: Some(Stamp(0)), ..entry.clone() });
            }
            continue;
        }
        if is_settled && entry.change.lost.is_some() {
            continue;
        }
        plan.outbox.push(Entry {
            state: EntryState::Pending,
            // Nobody's next edit may grow into it: its id is the one the upstream may know.
            own: false,
            attempts: 0,
            due: Time(i64::MIN),
            verdict: None,
            reason: None,
            receipt_stamp: None,
            granted: None,
            ..entry.clone()
        });
    }
    plan.outbox.sort_by_key(|e| e.seq);
    Decision::Plan(Box::new(plan))
}

/// Goes over records that the upstream of the epoch now absorbed has not fed: it does not have them. What
/// they hold is handed in; they stay as they are here until the upstream has written down that they wait.
pub fn hand_in(snapshot: &Snapshot, keys: &[Key], epoch: &Epoch, profile: &Profile) -> Decision {
    let asked = Keys {
        records: keys.iter().cloned().collect(),
        outbox: keys.iter().cloned().collect(),
        ..Keys::default()
    };
    if !asked.records.is_subset(&snapshot.keys.records) || !asked.outbox.is_subset(&snapshot.keys.outbox) {
        return Decision::from(asked);
    }
    let grant = absorb::nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    work.absorbs = true;
    for key in keys {
        let _ = work.hand_in_unfed(key, epoch);
    }
    absorb::bounded_by_upstream(work)
}

impl Work<'_> {
    /// One pulled row over a record that was last heard of in another epoch: hands in what the row no longer
    /// has.
    pub(crate) fn hand_in_differing(&mut self, local: &Record, row: &Fed, entries: &[Entry]) {
        let Some(held) = Lost::of(&row.key, local) else { return };
        if &*row.key.collection == CONFLICT {
            return self.hand_in_replaced(&held, row);
        }
        let gone = |state: &State| *state == State::Deleted;
        let own = |f: &str, v| entries.iter().any(|e| e.change.fields.get(f) == Some(v));
        let asks = match (gone(&held.state), gone(&row.state)) {
            (true, true) => false,
            // Whoever deleted here what was lost there has answered already.
            (false, true) => {
                !entries.iter().any(|e| e.change.op == Op::Delete && held.was_seen_by(&e.change))
            }
            (true, false) => !entries.iter().any(|e| e.change.op == Op::Delete),
            (false, false) if held.data == row.data => false,
            (false, false) => {
                held.data.fields().iter().any(|(f, v)| row.data.get(f) != Some(v) && !own(f, v))
            }
        };
        if asks {
            self.hand_in_as(held);
        }
    }

    /// A record that was last heard of in another epoch has left what this node may see: nobody will say what
    /// became of it. What it holds is handed in, once.
    pub(crate) fn hand_in_left(&mut self, key: &Key, local: &mut Record, epoch: &Epoch) {
        let held = Lost::of(key, local).filter(|held| held.base.epoch != *epoch);
        let Some((held, upstream)) = held.zip(local.upstream.as_mut()) else { return };
        (upstream.epoch, upstream.version) = (epoch.clone(), 0);
        // A question leaves with what it is about, and what waits in it is where that is.
        if held.state == State::Live && &*key.collection != CONFLICT {
            self.hand_in_as(held);
        }
    }

    /// A question of the lost epoch is there, and the value that waited in it last is not.
    fn hand_in_replaced(&mut self, held: &Lost, row: &Fed) {
        let Some(was) = Conflict::read(&held.data).filter(|c| held.state == State::Live && c.is_open())
        else {
            return;
        };
        let waits = |now: Conflict| {
            now.incoming.values == was.incoming.values && now.incoming.deleted == was.incoming.deleted
        };
        if !Conflict::read(&row.data).is_some_and(waits) {
            self.hand_in_waiting(was, held);
        }
    }

    fn hand_in_unfed(&mut self, key: &Key, epoch: &Epoch) -> Step<()> {
        let Some(local) = self.lookup(key)? else { return Ok(()) };
        let entries = self.entries_over(key)?;
        if local.upstream.as_ref().is_none_or(|u| u.epoch == *epoch || u.version == 0) {
            return Ok(());
        }
        let held = Lost::of(key, &local);
        // From here on nobody but this node knows it.
        let mut unknown = Record { upstream: None, ..local.clone() };
        let is_conflict = &*key.collection == CONFLICT;
        let waits = Conflict::read(&local.data).filter(|c| is_conflict && local.is_live() && c.is_open());
        // Behind another change a creation would wait for the record that it is to bring.
        let first = entries.iter().find(|e| e.state.is_unsettled());
        let created = first.is_some_and(|e| e.change.op == Op::Create);
        match (waits, held) {
            // The question is not open anywhere any more; the value that waited in it is handed in.
            (Some(conflict), Some(held)) => {
                unknown.state = State::Deleted;
                unknown.version += 1;
                self.history.push(crate::plan::Superseded { key: key.clone(), record: local });
                self.touch(key.clone(), unknown, true);
                let named = conflict.names();
                self.hand_in_waiting(conflict, &held);
                return self.recount_each(&named);
            }
            (None, Some(held)) if !is_conflict && !created && held.state != State::Deleted => {
                self.hand_in_as(held);
            }
            _ => {}
        }
        self.touch(key.clone(), unknown, false);
        Ok(())
    }

    /// A value that waited in a conflict of the lost epoch.
    fn hand_in_waiting(&mut self, conflict: Conflict, held: &Lost) {
        let about = conflict.about();
        let mut values = conflict.incoming.values.clone();
        if let Some(merged) = &conflict.merged {
            values.extend(merged.clone());
        }
        if values.is_empty() && !conflict.incoming.deleted {
            return;
        }
        self.hand_in_as(Lost {
            key: about,
            base: Base { epoch: held.base.epoch.clone(), version: 0 },
            state: if conflict.incoming.deleted { State::Deleted } else { State::Live },
            data: Doc::of(values),
            by: conflict.incoming.by,
            at: conflict.incoming.at,
        });
    }

    fn hand_in_as(&mut self, held: Lost) {
        let change = held.into_change();
        let (held, over) = (change.fields.keys().cloned().collect(), change.key());
        let entry = Entry { held, ..Entry::pending(self.next_entry, change, over, self.snap.now) };
        self.next_entry += 1;
        self.outbox.insert(entry.seq, entry);
    }
}

/// What the upstream said about a record in an epoch that is lost.
struct Lost {
    key: Key,
    base: Base,
    state: State,
    data: Doc,
    by: crate::change::Author,
    at: Time,
}

impl Lost {
    fn of(key: &Key, local: &Record) -> Option<Self> {
        let upstream = local.upstream.as_ref().filter(|u| u.version > 0)?;
        let (state, data) = match &upstream.held {
            Some(held) => (held.state.clone(), held.data.clone()),
            None => (local.state.clone(), local.data.clone()),
        };
        let base = Base { epoch: upstream.epoch.clone(), version: upstream.version };
        Some(Self { key: key.clone(), base, state, data, by: local.author.clone(), at: local.modified_at })
    }

    /// Whether the author of a change had this version before them.
    fn was_seen_by(&self, change: &Change) -> bool {
        change.base.as_ref().is_some_and(|b| b.epoch == self.base.epoch && b.version >= self.base.version)
    }

    /// The same for every follower that holds the same, so that handed in twice it is one change.
    fn into_change(self) -> Change {
        let op = if self.state == State::Deleted { Op::Delete } else { Op::Patch };
        let fields = if op == Op::Delete { Fields::new() } else { self.data.fields().clone() };
        let mut change = Change {
            id: ChangeId::trusted("lost"),
            collection: Collection::clone(&self.key.collection),
            record: self.key.id,
            op,
            fields,
            seen: None,
            base: None,
            lost: Some(self.base),
            author: self.by,
            at: Some(AuthorTime::wall(self.at)),
        };
        let content = serde_json::to_vec(&change).unwrap_or_default();
        change.id = ChangeId::trusted(format!("lost-{}", &blake3::hash(&content).to_hex()[..32]));
        change
    }
}
