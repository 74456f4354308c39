//! What a follower does with its outbox while its device is revoked (I9): changes of which the upstream keeps a
//! copy in quarantine stay pending here, and go again when the device may sync again.

use crate::{
    doubt,
    outbox::{Entry, EntryState},
    plan::{Decision, Plan, Snapshot},
    receipt::{Code, Reason},
    time::Time,
};

impl Entry {
    /// Whether the upstream keeps a copy of it in quarantine, because it has revoked this device. It neither
    /// goes nor holds anything back, and it keeps its id: a later edit is an entry of its own.
    pub fn is_aside(&self) -> bool {
        self.state == EntryState::Pending && self.reason.as_ref().is_some_and(|r| r.code == Code::Revoked)
    }
}

/// The upstream took a whole batch into quarantine: nothing of it is decided.
pub fn put_aside(snapshot: &Snapshot, batch: &str, why: &str) -> Decision {
    let mut plan = Plan { head: snapshot.head, unsealed: vec![batch.to_owned()], ..Plan::default() };
    for entry in snapshot.outbox.values().flatten().filter(|e| e.batch.as_deref() == Some(batch)) {
        plan.outbox.push(Entry {
            state: EntryState::Pending,
            batch: None,
            due: Time(i64::MIN),
            reason: Some(Reason { code: Code::Revoked, field: None, text: why.to_owned() }),
            ..entry.clone()
        });
    }
    Decision::Plan(Box::new(plan))
}

/// The upstream answers to this device again: what was put aside goes under its ids. What an administrator
/// accepted meanwhile is answered from its receipt (I1).
pub fn take_up(snapshot: &Snapshot) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let aside = snapshot.outbox.values().flatten().filter(|e| e.is_aside());
    plan.outbox.extend(aside.map(taken_up));
    Decision::Plan(Box::new(plan))
}

/// The entry, no longer aside: it may have been accepted, and before that its answer may have been lost.
pub(crate) fn taken_up(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if entry.is_aside() {
        entry.reason =
            doubt::noted("it was kept in quarantine and may have been accepted: it goes under the same id");
    }
    entry
}
