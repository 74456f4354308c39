//! Changes that went without an answer: the upstream may have decided them under their ids, and may have deleted
//! and forgotten since what came of them. Nothing here makes them fresh again but an answer (I1, I10).

use crate::{
    change::Op,
    id::Key,
    outbox::{Entry, EntryState},
    plan::{Decision, Plan, Snapshot},
    receipt::{Code, Reason},
    settle::NEVER,
};

impl Entry {
    /// Whether it may have been decided already. It keeps its id: a later edit is an entry of its own.
    pub fn is_unanswered(&self) -> bool {
        self.reason.as_ref().is_some_and(|r| r.code == Code::Unanswered)
    }
}

/// The note on an entry that may have been decided.
pub(crate) fn noted(text: &str) -> Option<Reason> {
    Some(Reason { code: Code::Unanswered, field: None, text: text.to_owned() })
}

/// Notes on the entries that are sealed that they may have been sent, whatever becomes of their batch.
pub fn unanswered(snapshot: &Snapshot) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let sealed = snapshot.outbox.values().flatten().filter(|e| e.state == EntryState::Sealed);
    for entry in sealed.filter(|e| !e.is_unanswered()) {
        let text = "it was sent and no answer came: it goes again under the same id";
        plan.outbox.push(Entry { reason: noted(text), ..entry.clone() });
    }
    Decision::Plan(Box::new(plan))
}

/// At an upstream that has forgotten since what it answered, when everything was pulled anew: what such entries make
/// may have been taken in, deleted and forgotten. Of that, what the pull did not bring goes again only when a person
/// says so; the rest goes like anything else.
pub fn doubt(snapshot: &Snapshot) -> Decision {
    let mut plan = Plan { head: snapshot.head, ..Plan::default() };
    let upstream = |key: &Key| snapshot.records.get(key)?.upstream.as_ref();
    // Version 0: it came once and then no longer.
    let stands = |key: &Key| upstream(key).is_some_and(|u| u.version > 0);
    let creates = |e: &&Entry| e.change.op == Op::Create && e.state.is_unsent() && e.is_unanswered();
    let entries = snapshot.outbox.values().flatten().filter(creates);
    for entry in entries.filter(|e| !stands(&e.change.key())) {
        let text = "its answer was lost, and it was too long ago for the upstream to know whether it was taken in \
                    and deleted since: send it again, or give it up";
        let state = EntryState::Rejected;
        plan.outbox.push(Entry { state, due: NEVER, reason: noted(text), ..entry.clone() });
    }
    Decision::Plan(Box::new(plan))
}
