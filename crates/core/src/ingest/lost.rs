//! What a follower hands in of an epoch that this node's restored data no longer knows: never decided by a
//! rule, always put to a person, as one list for each lost epoch.

use super::{
    Answer, Case,
    answer::Refusal,
    create::too_large,
    sight::Known,
    work::{By, Step, Work},
};
use crate::{
    change::{Base, Change, Op},
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
    id::Key,
    merge,
    profile::Writes,
    receipt::{Code, Detail, Verdict},
    record::{Record, State},
};

impl Work<'_> {
    /// Takes in a record as it was at a version of a lost epoch. What is here already is answered so; the
    /// rest waits in an open conflict, and a record that is not here at all as a tombstone beside it, so that
    /// every replica shows the same.
    pub(crate) fn take_lost(&mut self, case: &Case<'_>, lost: &Base) -> Step<Answer> {
        let change = case.change;
        let over = change.key();
        if let Some(answer) = self.lost_refused(change) {
            return Ok(answer);
        }
        let existing = self.lookup(&over)?;
        if let Some(record) = &existing
            && self.known(&over, record)? == Known::Never
        {
            let text = format!("the id `{}` cannot be used: it is not yours to hand in", change.record);
            return Ok(Answer::refused(change, Code::Invalid, None, text));
        }
        self.found.clone_from(&existing);
        if self.snap.follows {
            let _ = self.entries_over(&over);
        }
        let open = self.open_lost(&over)?;
        let fields = differing(change, existing.as_ref());
        let deletes = change.op == Op::Delete;
        let is_here = match &existing {
            None => deletes,
            Some(record) if record.state == State::Deleted => deletes,
            Some(_) => !deletes && fields.is_empty(),
        };
        if is_here {
            let version = existing.map_or(0, |r| r.version);
            return Ok(answered(change, over, Verdict::Unchanged, version, Vec::new(), Vec::new()));
        }
        let version = existing.as_ref().map_or(1, |r| r.version);
        // A list that anybody could fill would be shown to everybody.
        let may_say = !self.profile.is_shared(&change.collection) || self.may_write(&change.collection);
        if let Some((key, standing)) = open.iter().find(|(_, c)| says_same(c, change, lost)) {
            let rewrites = may_say && standing.lost.as_ref().is_some_and(|l| l.version < lost.version);
            if rewrites {
                let next = self.lost_conflict(case, lost, existing.as_ref(), fields.clone());
                let next =
                    Conflict { change: standing.change.clone(), opened_at: standing.opened_at, ..next };
                self.rewrite(key, &next, case)?;
            }
            return Ok(answered(change, over, Verdict::Parked, version, fields, vec![key.id.clone()]));
        }
        if !may_say {
            let why = self.may_not_write(&change.collection);
            let text = format!("{why}; it waits until a device that may hands it in");
            return Ok(Answer::unsettled(Verdict::Waiting, change, Code::Forbidden, None, text));
        }
        if existing.is_none() {
            let ghost = super::work::new_record(Doc::of(change.fields.clone()), &change.author, case.at);
            self.insert(over.clone(), Record { state: State::Deleted, ..ghost });
        }
        let conflict = self.lost_conflict(case, lost, existing.as_ref(), fields.clone());
        let id = self.open("lost", &conflict, &change.author)?;
        Ok(answered(change, over, Verdict::Parked, version, fields, vec![id]))
    }

    fn lost_refused(&self, change: &Change) -> Option<Answer> {
        let role = self.profile.roles.get(&self.grant.role).map(|role| &role.write);
        let writes_nothing = match role {
            Some(Writes::All) => false,
            Some(Writes::Only(names)) => names.is_empty(),
            None => true,
        };
        if writes_nothing {
            let text = format!("the role `{}` may write nothing and so hands nothing in", self.grant.role);
            return Some(Answer::refused(change, Code::Forbidden, None, text));
        }
        if change.op == Op::Create {
            let text =
                "what was lost is handed in as a patch with all its fields, or as a deletion".to_owned();
            return Some(Answer::refused(change, Code::Invalid, None, text));
        }
        too_large(change, &Doc::of(change.fields.clone()))
    }

    /// Open conflicts about what was lost of a record.
    fn open_lost(&mut self, about: &Key) -> Step<Vec<(Key, Conflict)>> {
        let mut found = self.conflicts_of(about)?;
        found.retain(|(_, c)| c.is_open() && c.kind == Kind::Lost && c.about() == *about);
        Ok(found)
    }

    fn lost_conflict(
        &self,
        case: &Case<'_>,
        lost: &Base,
        there: Option<&Record>,
        fields: Vec<String>,
    ) -> Conflict {
        let change = case.change;
        let pick = |from: &Fields| {
            fields.iter().filter_map(|f| from.get(f).map(|v| (f.clone(), v.clone()))).collect::<Fields>()
        };
        let is_live = there.is_some_and(Record::is_live);
        let server = Side {
            values: there.filter(|_| is_live).map_or_else(Fields::new, |r| pick(r.data.fields())),
            by: there.map_or_else(|| change.author.clone(), |r| r.author.clone()),
            at: there.map_or(self.snap.now, |r| r.modified_at),
            deleted: !is_live,
        };
        let incoming = Side {
            values: pick(&change.fields),
            by: change.author.clone(),
            at: case.at,
            deleted: change.op == Op::Delete,
        };
        Conflict {
            collection: change.collection.clone(),
            record: change.record.clone(),
            other: None,
            change: change.id.clone(),
            kind: Kind::Lost,
            fields,
            rule: "lost".into(),
            lost: Some(lost.clone()),
            base: None,
            server,
            incoming,
            state: Standing::Open,
            opened_at: self.snap.now,
            unmeasured: false,
            resolution: None,
            merged: None,
            resolved_by: None,
            resolved_at: None,
            notes: None,
        }
    }

    /// Whether a tombstone only says that the record was lost and waits for a person: nobody deleted it.
    pub(crate) fn is_ghost(&mut self, key: &Key, record: &Record) -> Step<bool> {
        if record.state != State::Deleted || !record.contested {
            return Ok(false);
        }
        Ok(self.open_lost(key)?.iter().any(|(_, c)| c.server.deleted))
    }

    /// Closes what asks for nothing more about a record, because its own author brought it back, and shows
    /// on the rest what is there now.
    pub(crate) fn settle_lost(&mut self, about: &Key, case: &Case<'_>) -> Step<()> {
        let open = self.open_lost(about)?;
        let Some(record) = self.lookup(about)?.filter(|_| !open.is_empty()) else { return Ok(()) };
        for (key, mut conflict) in open {
            let before = conflict.clone();
            show_record(&mut conflict, &record);
            if is_back(&conflict, &record) {
                conflict.state = Standing::Resolved;
                conflict.resolution = Some(Resolution::Incoming);
                conflict.resolved_by = Some(case.change.author.clone());
                conflict.resolved_at = Some(case.at);
            }
            if conflict != before {
                self.rewrite(&key, &conflict, case)?;
            }
        }
        self.recount(about)
    }

    /// A person's answer about what was lost.
    pub(crate) fn close_lost(
        &mut self,
        conflict: &mut Conflict,
        kept: Resolution,
        merged: Option<Fields>,
        by: &By<'_>,
        change: &Change,
    ) -> Step<Result<(), Refusal>> {
        let about = conflict.about();
        if self.lookup(&about)?.is_none() {
            // Its tombstone was purged while the question was open.
            let values = Doc::of(conflict.incoming.values.clone());
            let ghost = super::work::new_record(values, &conflict.incoming.by, conflict.incoming.at);
            self.insert(about.clone(), Record { state: State::Deleted, contested: true, ..ghost });
        }
        let Some(record) = self.lookup(&about)? else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        let mut now = conflict.clone();
        show_record(&mut now, &record);
        if now.server.values != conflict.server.values || now.server.deleted != conflict.server.deleted {
            let case = self.profile.rules(&about.collection).map(|rules| Case { change, at: by.at, rules });
            if let Some(case) = case.filter(|_| !self.snap.follows) {
                self.settle_lost(&about, &case)?;
            }
            let text = format!("{about} moved since the conflict was written: look at it again");
            return Ok(Err((Code::Moved, text)));
        }
        let incoming = match kept {
            Resolution::Server => return Ok(Ok(())),
            Resolution::Incoming if conflict.incoming.deleted => {
                let fell = self.fell(&about, by)?;
                return Ok(fell.map_err(|text| (Code::StillReferenced, text)));
            }
            _ if record.is_live() && merged.is_some() => Fields::new(),
            _ => conflict.incoming.values.clone(),
        };
        let mut values = incoming;
        values.extend(merged.clone().unwrap_or_default());
        let written = self.write_values(&about, record, values, by, change)?;
        conflict.merged = merged.filter(|_| written.is_ok());
        Ok(written)
    }
}

/// The fields in which a lost version differs from what is there.
fn differing(change: &Change, there: Option<&Record>) -> Vec<String> {
    let there = there.filter(|r| r.state != State::Deleted);
    let differs = |(field, value): &(&String, &serde_json::Value)| {
        let now = there.and_then(|r| r.data.get(field));
        let both_blank = there.is_some() && merge::is_blank(now) && merge::is_blank(Some(value));
        !both_blank && !now.is_some_and(|now| merge::same(now, value))
    };
    change.fields.iter().filter(differs).map(|(field, _)| field.clone()).collect()
}

/// Whether an open conflict asks about the same: an older or the same version of the same lost epoch, or the
/// same values.
fn says_same(conflict: &Conflict, change: &Change, lost: &Base) -> bool {
    let numbered = |base: &&Base| base.version > 0;
    let (theirs, ours) = (conflict.lost.as_ref().filter(numbered), Some(lost).filter(numbered));
    if theirs.zip(ours).is_some_and(|(a, b)| a.epoch == b.epoch) {
        return true;
    }
    let deletes = change.op == Op::Delete;
    let same = |field: &String| {
        let (a, b) = (conflict.incoming.values.get(field), change.fields.get(field));
        a.zip(b).is_some_and(|(a, b)| merge::same(a, b))
    };
    conflict.incoming.deleted == deletes && conflict.fields.iter().all(same)
}

/// Writes onto the server's side what the record holds now.
fn show_record(conflict: &mut Conflict, record: &Record) {
    let held = conflict.fields.iter().filter_map(|f| record.data.get(f).map(|v| (f.clone(), v.clone())));
    conflict.server.deleted = !record.is_live();
    conflict.server.values = if record.is_live() { held.collect() } else { Fields::new() };
}

/// Whether a record holds what was lost.
fn is_back(conflict: &Conflict, record: &Record) -> bool {
    if conflict.incoming.deleted || !record.is_live() {
        return conflict.incoming.deleted && record.state == State::Deleted;
    }
    let mut lost = conflict.incoming.values.iter();
    lost.all(|(field, value)| record.data.get(field).is_some_and(|now| merge::same(now, value)))
}

fn answered(
    change: &Change,
    over: Key,
    verdict: Verdict,
    version: u64,
    parked: Vec<String>,
    conflicts: Vec<crate::id::RecordId>,
) -> Answer {
    let detail = Detail { parked, conflicts, shown: true };
    Answer { verdict, over, version, detail, reason: None, relay: Some(change.clone()) }
}
