//! The loop that every store runs inside its transaction: load, ask the decision, load what it still
//! needs, ask again. It does no IO itself, so that a blocking and an async database can share it.

use crate::StoreError;
use ropeway_core::{
    id::{CONFLICT, Key},
    limits::NEED_ROUNDS_MAX,
    outbox::Entry,
    plan::{Decision, Fed, Keys, Plan, Snapshot},
    record::{Record, State},
};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What the store does next.
pub(crate) enum Asked {
    /// Load these into the snapshot, tell [`Asking::loaded`], then call [`Asking::next`] again.
    Load(Box<Keys>),
    /// Write this.
    Plan(Box<Plan>),
}

/// One decision on its way to a plan.
pub(crate) struct Asking {
    /// What the decision reads. The store adds what it loads.
    pub(crate) snapshot: Snapshot,
    first: Option<Keys>,
    left: usize,
}

impl Asking {
    /// Begins with a snapshot in which nothing is loaded yet. Where the caller names no keys, the first
    /// `Need` stands for them and is not counted.
    pub(crate) fn new(snapshot: Snapshot, keys: Keys) -> Self {
        let extra = usize::from(keys.is_empty());
        let first = (!keys.is_empty()).then_some(keys);
        Self { snapshot, first, left: NEED_ROUNDS_MAX + extra }
    }

    /// What is to be loaded before it is asked: taken here, [`Asking::next`] does not name it again.
    pub(crate) fn first(&mut self) -> Option<Keys> {
        self.first.take()
    }

    /// Asks, and says what to do with the answer. A decision that panics, that asks without end or that
    /// writes what no reader could follow is a [`StoreError::Fault`].
    pub(crate) fn next(
        &mut self,
        decide: &mut dyn FnMut(&Snapshot) -> Decision,
    ) -> Result<Asked, StoreError> {
        if let Some(keys) = self.first.take() {
            return Ok(Asked::Load(Box::new(keys)));
        }
        let snapshot = &self.snapshot;
        let decision = catch_unwind(AssertUnwindSafe(|| decide(snapshot)))
            .map_err(|panic| fault(format!("a decision panicked: {}", words(&*panic))))?;
        match decision {
            Decision::Plan(plan) => {
                check(&self.snapshot, &plan)?;
                Ok(Asked::Plan(plan))
            }
            Decision::Need(keys) => {
                let missing = missing(&self.snapshot.keys, *keys);
                if missing.is_empty() {
                    return Err(fault("a decision asked again for what it had been given".into()));
                }
                if self.left == 0 {
                    return Err(fault(format!("a decision asked for more than {NEED_ROUNDS_MAX} times")));
                }
                self.left -= 1;
                Ok(Asked::Load(Box::new(missing)))
            }
        }
    }

    /// What was asked for is in the snapshot, as far as it is there at all.
    pub(crate) fn loaded(&mut self, keys: Keys) {
        self.snapshot.keys.extend(keys);
    }
}

/// What of a page of a first pull waits for the pull's end: conflicts, which come after what they are about,
/// and records that people see here already. What is in sight stays as it is until the pull is complete.
pub(crate) fn waits_for_the_end(row: &Fed, here: Option<&Record>) -> bool {
    &*row.key.collection == CONFLICT || here.is_some_and(|record| !record.is_as_pulled())
}

/// How many staged rows, or entries to settle, one step of an absorb takes.
pub(crate) const CHUNK: usize = 500;

/// Watches that the settling of an absorb comes to an end.
#[derive(Default)]
pub(crate) struct Settling {
    last: BTreeSet<i64>,
}

impl Settling {
    /// Whether nothing is left. A step after which all of its entries are still there is a fault.
    pub(crate) fn is_done(&mut self, left: &[Entry]) -> Result<bool, StoreError> {
        let left: BTreeSet<i64> = left.iter().map(|e| e.seq).collect();
        if !self.last.is_empty() && self.last.is_subset(&left) {
            let first = self.last.first().copied().unwrap_or_default();
            return Err(fault(format!("settling made no progress at outbox entry {first}")));
        }
        self.last = left;
        Ok(self.last.is_empty())
    }
}

/// Adds loaded records and names the survivors of joined ones, which are to be loaded with them.
pub(crate) fn take_in(into: &mut Snapshot, found: Vec<(Key, Record)>) -> BTreeSet<Key> {
    let mut survivors = BTreeSet::new();
    for (key, record) in found {
        if let State::Joined(survivor) = &record.state {
            let survivor = Key::new(&key.collection, survivor);
            if into.keys.records.insert(survivor.clone()) {
                survivors.insert(survivor);
            }
        }
        into.records.insert(key, record);
    }
    survivors
}

/// Adds an entry under its record, once, in the order of acceptance.
pub(crate) fn put_entry(outbox: &mut BTreeMap<Key, Vec<Entry>>, entry: Entry) {
    let entries = outbox.entry(entry.over.clone()).or_default();
    if let Err(place) = entries.binary_search_by_key(&entry.seq, |e| e.seq) {
        entries.insert(place, entry);
    }
}

/// Whether writing this plan would change nothing. Its answers are for the author, not for the disk.
pub(crate) fn is_idle(plan: &Plan, head: ropeway_core::time::Stamp) -> bool {
    plan.head == head
        && plan.digest == ropeway_core::digest::Digest::default()
        && plan.rows.is_empty()
        && plan.forget.is_empty()
        && plan.history.is_empty()
        && plan.receipts.is_empty()
        && plan.prints_gone.is_empty()
        && plan.prints.is_empty()
        && plan.links_gone.is_empty()
        && plan.links.is_empty()
        && plan.audiences.is_empty()
        && plan.audiences_moved.is_empty()
        && plan.sights.is_empty()
        && !plan.sights_anew
        && plan.subscriptions.is_empty()
        && plan.outbox.is_empty()
        && plan.sealed.is_empty()
        && plan.unsealed.is_empty()
}

pub(crate) fn fault(what: String) -> StoreError {
    StoreError::Fault { what, source: None }
}

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn missing(loaded: &Keys, mut keys: Keys) -> Keys {
    keys.records.retain(|k| !loaded.records.contains(k));
    keys.shared.retain(|k| !loaded.shared.contains(k));
    keys.receipts.retain(|k| !loaded.receipts.contains(k));
    keys.twins.retain(|k| !loaded.twins.contains(k));
    keys.links.retain(|k| !loaded.links.contains(k));
    keys.outbox.retain(|k| !loaded.outbox.contains(k));
    keys.entries.retain(|k| !loaded.entries.contains(k));
    keys.audiences.retain(|k| !loaded.audiences.contains(k));
    keys.readers.retain(|k| !loaded.readers.contains(k));
    keys
}

/// What no plan may break, checked before a byte is written (I2): stamps beyond the head only, strictly
/// increasing, none beyond the new head; a new row has a stamp of its own.
fn check(snapshot: &Snapshot, plan: &Plan) -> Result<(), StoreError> {
    let before = snapshot.head;
    if plan.head < before {
        return Err(fault(format!("a plan moves the head back from {before} to {}", plan.head)));
    }
    let mut last = before;
    for row in &plan.rows {
        let stamp = row.record.stamp;
        if stamp <= before {
            if row.is_new {
                return Err(fault(format!("new row {} has the old stamp {stamp}", row.key)));
            }
        } else if stamp <= last || stamp > plan.head {
            return Err(fault(format!("row {} has stamp {stamp} after {last}, head {}", row.key, plan.head)));
        } else {
            last = stamp;
        }
    }
    let rows = plan.audiences.iter().chain(&plan.audiences_moved).map(|row| row.left.unwrap_or(row.entered));
    let readers = plan.subscriptions.iter().map(|s| s.left.unwrap_or(s.entered));
    match rows.chain(readers).find(|stamp| *stamp <= before || *stamp > plan.head) {
        Some(stamp) => Err(fault(format!("an audience moves at {stamp}, head {}", plan.head))),
        None => Ok(()),
    }
}
