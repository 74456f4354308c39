//! A change to a record that was here, was deleted and has been purged: its author was away for longer than
//! tombstones are kept. Nothing comes back to life by it, and nothing of it is lost (I10).

use super::{
    Answer, Case,
    work::{Step, Work},
};
use crate::{
    change::Door,
    doc::Doc,
    id::Key,
    record::{Marks, Record, State},
};

impl Work<'_> {
    /// Whether the change stands on a version that this node gave in this epoch to a record that it no
    /// longer has: then it is not on its way, it is gone.
    pub(crate) fn was_purged(&self, case: &Case<'_>) -> bool {
        let base = case.change.base.as_ref();
        self.snap.buried > 0
            && self.grant.door == Door::Push
            && base.is_some_and(|b| b.epoch == self.snap.epoch && b.version > 0)
    }

    /// The tombstone stands again, and a person decides between it and the change. So do they between the change
    /// and a record that is `hidden` from its author, who may have seen it before that was forgotten.
    pub(crate) fn park_purged(&mut self, case: &Case<'_>, over: Key, hidden: Option<Record>) -> Step<Answer> {
        if let Some(record) = hidden {
            return self.park_edit_of_deleted(case, over, &record);
        }
        let change = case.change;
        let tombstone = Record {
            local_id: 0,
            version: 1,
            stamp: self.snap.head,
            state: State::Deleted,
            data: Doc::of(change.seen.clone().unwrap_or_default()),
            marks: Marks::new(),
            owner: change.author.device.clone(),
            author: change.author.clone(),
            // Nobody knows any more when it was deleted: later than any edit that did not know of it.
            modified_at: self.snap.now.plus(1),
            contested: false,
            upstream: None,
        };
        self.insert(over.clone(), tombstone.clone());
        let stands = self.lookup(&over)?.unwrap_or(tombstone);
        self.park_edit_of_deleted(case, over, &stands)
    }
}
