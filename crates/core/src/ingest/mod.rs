//! Room 3, ingest: the pure decision over a batch of changes, in the six steps of DESIGN §4.
//!
//! `decide` folds the changes over a working copy of the snapshot, so that a batch sees its own earlier
//! changes. Where it needs what was not loaded it says so and is asked again under the same lock.

mod answer;
mod ask;
pub(crate) mod create;
mod delete;
pub(crate) mod edit;
mod fill;
mod finish;
pub(crate) mod flow;
mod lost;
mod purged;
mod refs;
pub(crate) mod relay;
mod same;
mod sight;
pub(crate) mod work;
mod writers;

use crate::{
    change::{Batch, Change, Door, Op},
    id::{CONFLICT, Key},
    limits,
    plan::{Decision, Keys, Plan, Snapshot},
    planted::{self, Bug},
    profile::{self, Profile, Rules},
    receipt::{Code, Detail, Reason, Remembered, Verdict},
    record::State,
    time::Time,
};
pub use fill::fill;
pub use flow::open_collections;
pub(crate) use refs::{links_of, parent_key};
use sight::Known;
pub use sight::choose;
use work::{Step, Work};

/// What a batch names outright: the first things to load.
pub fn keys(batch: &Batch, profile: &Profile, follows: bool) -> Keys {
    let mut keys = Keys::default();
    for change in &batch.changes {
        keys.receipts.insert(change.id.clone());
        keys.records.insert(change.key());
        if change.op == Op::Delete {
            keys.links.insert(change.key());
        }
        if follows {
            keys.outbox.insert(change.key());
        }
        let restricted = |name: &str| profile.rules(name).is_some_and(|r| r.audience.is_some());
        if profile.has_audiences() && change.op != Op::Create && restricted(&change.collection) {
            keys.audiences.insert(change.key());
        }
        let Some(rules) = profile.rules(&change.collection) else { continue };
        for (field, reference) in &rules.references {
            if let Some(parent) = change.fields.get(field).and_then(|v| refs::parent_key(reference, v)) {
                if restricted(&parent.collection) {
                    keys.audiences.insert(parent.clone());
                }
                match batch.apart && profile.is_shared(&parent.collection) {
                    true => keys.shared.insert(parent),
                    false => keys.records.insert(parent),
                };
            }
        }
    }
    if batch.grant.door == Door::Push && !profile.sees_all(&batch.grant.role) {
        keys.readers.insert(batch.grant.device.clone());
    }
    keys
}

/// Decides a batch. Total and deterministic: the same snapshot, batch and profile give the same answer. A batch
/// made for another epoch than this node's gets a plan without answers.
pub fn decide(snapshot: &Snapshot, batch: &Batch, profile: &Profile) -> Decision {
    if batch.epoch.as_ref().is_some_and(|epoch| *epoch != snapshot.epoch) {
        let epoch = Some(snapshot.epoch.clone());
        return Decision::Plan(Box::new(Plan { head: snapshot.head, epoch, ..Plan::default() }));
    }
    let decided = |moves: bool, most: usize| {
        let mut work = Work::new(snapshot, profile, &batch.grant);
        work.repeatable = batch.repeatable;
        work.apart = batch.apart;
        work.refuses_moves = !moves;
        work.pending.reserve(batch.changes.len());
        work.touched.reserve(batch.changes.len());
        for change in &batch.changes {
            work.last_try = batch.last.contains(&change.id);
            // A change that needs more leaves the others to say what they need too: one round for all.
            let _ = work.take(change);
        }
        work.finish(most)
    };
    // Where too many records would change their audience in one plan, nothing that moves any is taken.
    let most = limits::AUDIENCE_MOVES_MAX;
    let bounded = decided(true, most).or_else(|| decided(false, most));
    bounded.or_else(|| decided(true, usize::MAX)).unwrap_or(Decision::from(Keys::default()))
}

/// One change being decided.
pub(crate) struct Case<'a> {
    /// The change with its values in canonical spelling.
    pub(crate) change: &'a Change,
    /// Its author's time, corrected; at a node without an upstream never later than its arrival.
    pub(crate) at: Time,
    /// The rules of its collection.
    pub(crate) rules: &'a Rules,
}

/// The outcome of one change, before stamps are given.
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    /// The record over which it was decided: the one named or, where that is joined, the survivor.
    pub(crate) over: Key,
    pub(crate) version: u64,
    pub(crate) detail: Detail,
    pub(crate) reason: Option<Reason>,
    /// What to relay: the change as this door understood it. `None`: nothing.
    pub(crate) relay: Option<Change>,
}

impl Answer {
    pub(crate) fn refused(change: &Change, code: Code, field: Option<&str>, text: String) -> Self {
        Self::unsettled(Verdict::Rejected, change, code, field, text)
    }

    pub(crate) fn waiting(change: &Change, field: Option<&str>, text: String) -> Self {
        Self::unsettled(Verdict::Waiting, change, Code::ParentMissing, field, text)
    }

    pub(crate) fn unsettled(
        verdict: Verdict,
        change: &Change,
        code: Code,
        field: Option<&str>,
        text: String,
    ) -> Self {
        let reason = Some(Reason { code, field: field.map(str::to_owned), text });
        Self { verdict, over: change.key(), version: 0, detail: Detail::default(), reason, relay: None }
    }
}

impl Work<'_> {
    /// Steps a to f for one change.
    fn take(&mut self, change: &Change) -> Step<()> {
        let content = change.content_hash();
        if let Some(remembered) = self.remembered(&change.id)? {
            self.replay(change, content, remembered);
            return Ok(());
        }
        self.begin(change);
        let answer = self.admit(change)?;
        if answer.verdict.is_settled() {
            if self.repeatable && !planted::has(Bug::SkippedReceipt) {
                self.remember(change, content, &answer);
            }
            if let Some(understood) = &answer.relay
                && self.snap.follows
                && self.concerns_upstream(change, &answer)?
            {
                // What others sent goes on as it came, so that its content is the same by every way (I1).
                let relayed = if self.grant.door == Door::Desk { understood } else { change };
                self.relay(relayed, &answer)?;
            }
        }
        self.answer(change, answer);
        Ok(())
    }

    /// Step a: a change id seen before, with the same content, gets its old receipt.
    fn replay(&mut self, change: &Change, content: u64, remembered: Remembered) {
        if remembered.content == content && remembered.device == change.author.device {
            self.answer_again(remembered);
            return;
        }
        let text = format!(
            "the change id `{}` was used before with another content; give the change a new id",
            change.id
        );
        self.answer(change, Answer::refused(change, Code::ChangeReused, None, text));
    }

    /// Step b: may this role write this, and is it well formed?
    fn admit(&mut self, change: &Change) -> Step<Answer> {
        if change.author.person.as_ref().is_some_and(|p| p.len() > limits::PERSON_MAX) {
            let text = format!("the author's name is longer than {} bytes", limits::PERSON_MAX);
            return Ok(Answer::refused(change, Code::TooLarge, None, text));
        }
        if &*change.collection == CONFLICT {
            return self.answer_conflict(change);
        }
        let Some(rules) = self.profile.rules(&change.collection) else {
            let text =
                format!("the profile `{}` has no collection `{}`", self.profile.name, change.collection);
            return Ok(Answer::refused(change, Code::UnknownCollection, None, text));
        };
        if let Some(lost) = &change.lost {
            let case = Case { change, at: self.author_time(change), rules };
            return self.take_lost(&case, lost);
        }
        if !self.may_write(&change.collection) {
            let text = self.may_not_write(&change.collection);
            return Ok(Answer::refused(change, Code::Forbidden, None, text));
        }
        let mut clean = change.clone();
        let named = create::own_totals(rules, std::mem::take(&mut clean.fields), &change.author.device);
        clean.fields = match profile::admit(rules, named) {
            Ok(fields) => fields,
            Err((field, why)) => return Ok(Answer::refused(change, Code::Invalid, Some(&field), why)),
        };
        clean.seen = clean.seen.map(|seen| create::spelled(rules, seen));
        let at = self.author_time(change);
        self.route(Case { change: &clean, at, rules })
    }

    /// Sends the change to the room that fits what is there.
    fn route(&mut self, case: Case<'_>) -> Step<Answer> {
        let change = case.change;
        let (over, mut existing) = self.resolve(&change.key())?;
        let mut hidden = None;
        if let Some(record) = &existing
            && self.known(&over, record)? == Known::Never
        {
            if change.op == Op::Create {
                let text = format!("the id `{}` cannot be used: give the record a new one", change.record);
                return Ok(Answer::refused(change, Code::Invalid, None, text));
            }
            hidden = existing.take();
        }
        self.found.clone_from(&existing);
        let is_ghost = match &existing {
            Some(record) if change.op != Op::Delete => self.is_ghost(&over, record)?,
            _ => false,
        };
        if is_ghost {
            // Nobody deleted it: for its author it is only not here yet.
            existing = None;
        }
        if self.snap.follows {
            // Asked for now, in the round of what else this change needs.
            let _ = self.entries_over(&over);
        }
        if let Some(answer) = self.guard_server_only(&case, existing.as_ref()) {
            return Ok(answer);
        }
        if let Some(answer) = self.guard_writers(&case, existing.as_ref()) {
            return Ok(answer);
        }
        if let Some(answer) = existing.as_ref().and_then(|r| self.refuse_move(&case, r)) {
            return Ok(answer);
        }
        let Some(record) = existing else {
            return match change.op {
                Op::Delete => Ok(self.nothing(change, over, 0)),
                Op::Patch if self.has_left(&over)? => Ok(self.pass_on(change)),
                Op::Patch if self.was_purged(&case) => self.park_purged(&case, over, hidden),
                Op::Patch if self.grant.door == Door::Push => {
                    let text = format!("`{over}` is not here yet; the change is decided when it has arrived");
                    Ok(Answer::waiting(change, None, text))
                }
                Op::Create | Op::Patch => {
                    let answer = self.create(&case, over.clone())?;
                    if is_ghost {
                        self.settle_lost(&over, &case)?;
                    }
                    Ok(answer)
                }
            };
        };
        match (change.op, &record.state) {
            (Op::Delete, State::Deleted) => {
                // Gone as its author wants it, but perhaps not as its author knew it: then it is shown, and its
                // version is no base for an edit on top of the deletion.
                let shown = !self.saw_exactly(&case, &over, &record);
                let answer = self.nothing(change, over, record.version);
                Ok(Answer { detail: Detail { shown, ..answer.detail }, ..answer })
            }
            (Op::Delete, _) => self.delete(&case, over, record),
            (_, State::Deleted) => self.revive(&case, over, record),
            (_, _) => self.edit(&case, over, record),
        }
    }

    fn nothing(&self, change: &Change, over: Key, version: u64) -> Answer {
        Answer {
            verdict: Verdict::Unchanged,
            over,
            version,
            detail: Detail::default(),
            reason: None,
            relay: self.snap.follows.then(|| change.clone()),
        }
    }

    pub(crate) fn may_write(&self, collection: &str) -> bool {
        self.profile.may_write(&self.grant.role, collection)
    }

    /// Why not.
    pub(crate) fn may_not_write(&self, collection: &str) -> String {
        let why = match self.profile.is_shared(collection) {
            true => ", which is the same for everybody: a role that may has to name it",
            false => "",
        };
        format!("the role `{}` may not write `{collection}`{why}", self.grant.role)
    }

    /// Corrects the author's clock by its measured offset; only the top clamps what is still ahead.
    pub(crate) fn author_time(&self, change: &Change) -> Time {
        // What every database and every reader of RFC 3339 knows in any zone: the years 0001 to 9999.
        let (first, last) = (Time(-62_135_510_400_000_000), Time(253_402_207_200_000_000));
        let at = change.at.map_or(self.snap.now, |at| at.corrected()).clamp(first, last);
        if self.snap.follows || planted::has(Bug::RawClock) { at } else { at.min(self.snap.now) }
    }
}
