//! Deletions: against edits by the collection's rule, against children by each reference's word.

use super::{
    Answer, Case,
    create::lacking,
    edit::same_author,
    refs::Broken,
    same::Late,
    sight::Known,
    work::{By, Missing, Step, Work},
};
use crate::{
    change::Door,
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
    id::{Key, RecordId},
    limits, merge,
    plan::JOINED,
    profile::{DeleteRule, OnDelete},
    receipt::{Code, Detail, Verdict},
    record::{Record, State},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a parent's deletion does to one child.
enum Fall {
    Goes,
    Releases(Vec<String>),
}

impl Work<'_> {
    /// Deletes a live record, or finds that it may not.
    pub(crate) fn delete(&mut self, case: &Case<'_>, over: Key, record: Record) -> Step<Answer> {
        let change = case.change;
        let falls = match self.falls(&over)? {
            Ok(falls) => falls,
            Err(text) => return Ok(Answer::refused(change, Code::StillReferenced, None, text)),
        };
        let (contested, exact) = self.deletion_contested(case, &over, &record);
        let deletion_wins = !contested
            || match case.rules.delete {
                DeleteRule::Delete => true,
                DeleteRule::Edit => false,
                // A tie resurrects (CT-48).
                DeleteRule::Latest => case.at > record.modified_at,
                DeleteRule::Park => return self.park_deletion(case, over, &record),
            };
        let version = record.version;
        if !deletion_wins {
            let conflict = self.deletion(case, &over, &record, true, Some(Resolution::Server));
            let id = self.open("deletion", &conflict, &change.author)?;
            return Ok(settled(case, over, Verdict::Overruled, version, vec![id], false));
        }
        let mut conflicts = Vec::new();
        if contested {
            let conflict = self.deletion(case, &over, &record, true, Some(Resolution::Incoming));
            conflicts.push(self.open("deletion", &conflict, &change.author)?);
        }
        let by = self.by(case);
        for (key, fall) in falls {
            self.fall(&key, fall, &by)?;
        }
        self.bury(&over, &by)?;
        let verdict = if exact && conflicts.is_empty() { Verdict::Applied } else { Verdict::Merged };
        Ok(settled(case, over, verdict, version + 1, conflicts, exact))
    }

    /// An edit meets a tombstone.
    pub(crate) fn revive(&mut self, case: &Case<'_>, over: Key, record: Record) -> Step<Answer> {
        let change = case.change;
        // Asked first: whichever side wins, a follower lays this edit over the record until it is settled.
        if let Some(Broken::Missing { field, parent }) = self.follow(case, &change.fields)? {
            return self.parent_missing(change, &field, &parent);
        }
        let saw_it =
            change.base.as_ref().is_some_and(|b| b.epoch == self.snap.epoch && b.version >= record.version);
        let at_desk = self.grant.door == Door::Desk && change.base.is_none() && change.seen.is_none();
        let edit_wins = saw_it
            || at_desk
            || match case.rules.delete {
                DeleteRule::Edit => true,
                DeleteRule::Delete => false,
                DeleteRule::Latest => case.at >= record.modified_at,
                DeleteRule::Park => return self.park_edit_of_deleted(case, over, &record),
            };
        if !edit_wins {
            let conflict = self.deletion(case, &over, &record, false, Some(Resolution::Server));
            let id = self.open("deletion", &conflict, &change.author)?;
            return Ok(settled(case, over, Verdict::Overruled, record.version, vec![id], false));
        }
        let mut data = record.data.fields().clone();
        data.extend(change.fields.clone());
        if let Some(answer) = lacking(case, &data) {
            return Ok(answer);
        }
        match self.follow(case, &data)? {
            Some(Broken::Missing { field, parent }) => {
                return self.parent_missing(change, &field, &parent);
            }
            Some(Broken::Gone { field, parent }) => {
                let values = change.fields.clone();
                return self.park_orphan(case, over, values, record.version, &field, &parent);
            }
            None => {}
        }
        let (whole, unknown) = (data.clone(), record.upstream.is_none());
        let mut conflicts = Vec::new();
        if !saw_it && !at_desk {
            let conflict = self.deletion(case, &over, &record, false, Some(Resolution::Incoming));
            conflicts.push(self.open("deletion", &conflict, &change.author)?);
        }
        let changed: Vec<String> = change.fields.keys().cloned().collect();
        let version = record.version + 1;
        let contested = self.lookup(&over)?.is_some_and(|r| r.contested);
        let revived = Record { state: State::Live, data: Doc::of(data), contested, ..record };
        let by = self.by(case);
        let buried = self.found.clone();
        self.supersede(&over, revived, &by, &changed);
        if let Some(buried) = buried {
            conflicts.extend(self.matched_late(case, &over, &buried)?.map(Late::conflict));
        }
        let relay = if at_desk && unknown { self.as_created(change, &whole) } else { change.clone() };
        Ok(Answer { relay: Some(relay), ..settled(case, over, Verdict::Merged, version, conflicts, false) })
    }

    /// An edit of a record that is deleted, or hidden from its author, waits for a person.
    pub(crate) fn park_edit_of_deleted(
        &mut self,
        case: &Case<'_>,
        over: Key,
        record: &Record,
    ) -> Step<Answer> {
        let change = case.change;
        let conflict = self.deletion(case, &over, record, false, None);
        let id = self.open("deletion", &conflict, &change.author)?;
        let mut answer = settled(case, over, Verdict::Parked, record.version, vec![id], false);
        answer.detail.parked = change.fields.keys().cloned().collect();
        Ok(answer)
    }

    /// Deletes a record with what falls with it; the error is the sentence that refuses it.
    pub(crate) fn fell(&mut self, key: &Key, by: &By<'_>) -> Step<Result<(), String>> {
        let falls = match self.falls(key)? {
            Ok(falls) => falls,
            Err(text) => return Ok(Err(text)),
        };
        for (child, fall) in falls {
            self.fall(&child, fall, by)?;
        }
        self.bury(key, by)?;
        Ok(Ok(()))
    }

    /// Makes a tombstone of a record.
    fn bury(&mut self, key: &Key, by: &By<'_>) -> Step<()> {
        let Some(record) = self.lookup(key)? else { return Ok(()) };
        if record.state != State::Deleted {
            self.supersede(key, Record { state: State::Deleted, ..record }, by, &[]);
        }
        Ok(())
    }

    /// What a deletion does to children, and theirs; the error is the sentence that refuses it.
    fn falls(&mut self, root: &Key) -> Step<Result<BTreeMap<Key, Fall>, String>> {
        let mut falls: BTreeMap<Key, Fall> = BTreeMap::new();
        let mut open = vec![(root.clone(), 0)];
        let mut missing = false;
        while let Some((parent, depth)) = open.pop() {
            if let Some(text) = self.kept(&parent) {
                return Ok(Err(text));
            }
            let Ok(links) = self.links_to(&parent) else {
                missing = true;
                continue;
            };
            if depth >= limits::CASCADE_DEPTH_MAX && !links.is_empty() {
                let text =
                    format!("what hangs on {root} is nested more than {depth} deep: delete it in parts");
                return Ok(Err(text));
            }
            for link in links {
                if link.field == JOINED {
                    // Children keep the id that their author wrote, which may be that of a joined record.
                    open.push((link.child, depth + 1));
                    continue;
                }
                let Some(reference) =
                    self.profile.rules(&link.child.collection).and_then(|r| r.references.get(&link.field))
                else {
                    continue;
                };
                match self.lookup(&link.child) {
                    Err(Missing) => {
                        missing = true;
                        // What hangs on the child is loaded with it, one round for each level.
                        let _ = self.links_to(&link.child);
                    }
                    Ok(Some(child)) if child.is_live() && link.child != *root => match reference.on_delete {
                        OnDelete::Refuse => {
                            let seen = self.known(&link.child, &child)? == Known::Now;
                            let named = if seen { link.child.to_string() } else { "a record".to_owned() };
                            let text = format!(
                                "{named} still refers to {parent} by `{}`: delete or move it first",
                                link.field
                            );
                            return Ok(Err(text));
                        }
                        OnDelete::Cascade => {
                            if !matches!(falls.insert(link.child.clone(), Fall::Goes), Some(Fall::Goes)) {
                                open.push((link.child, depth + 1));
                            }
                        }
                        OnDelete::Release => {
                            match falls.entry(link.child).or_insert(Fall::Releases(Vec::new())) {
                                Fall::Goes => {}
                                Fall::Releases(fields) => fields.push(link.field),
                            }
                        }
                    },
                    Ok(_) => {}
                }
            }
            if falls.len() > limits::CASCADE_MAX {
                return Ok(Err(format!(
                    "more than {} records hang on {root}: delete them in parts",
                    limits::CASCADE_MAX
                )));
            }
        }
        if missing { Err(Missing) } else { Ok(Ok(falls)) }
    }

    /// Why a record is never deleted, where what may refer to it is in no one's sight.
    fn kept(&self, key: &Key) -> Option<String> {
        let kept = self.profile.rules(&key.collection).is_some_and(|rules| rules.kept);
        kept.then(|| {
            format!(
                "records of spaces that nobody here sees may refer to {key}, so it is never deleted: say in a field \
                 of its own that it is out of use"
            )
        })
    }

    fn fall(&mut self, key: &Key, fall: Fall, by: &By<'_>) -> Step<()> {
        let Fall::Releases(fields) = fall else { return self.bury(key, by) };
        let Some(record) = self.lookup(key)? else { return Ok(()) };
        let mut data = record.data.fields().clone();
        for field in &fields {
            data.insert(field.clone(), Value::Null);
        }
        self.supersede(key, Record { data: Doc::of(data), ..record }, by, &fields);
        self.show_now(key, None, by)
    }

    /// Whether the record was changed after what the deletion's author saw; and whether they saw exactly it.
    fn deletion_contested(&self, case: &Case<'_>, over: &Key, record: &Record) -> (bool, bool) {
        let change = case.change;
        if self.grant.door == Door::Desk && change.base.is_none() && change.seen.is_none() {
            return (false, true);
        }
        let base = change.base.as_ref().filter(|b| b.epoch == self.snap.epoch && *over == change.key());
        if let Some(base) = base {
            return (record.version > base.version, record.version == base.version);
        }
        let contested = match &change.seen {
            Some(seen) if !seen.is_empty() => {
                seen.iter().any(|(f, v)| !record.data.get(f).is_some_and(|now| merge::same(now, v)))
            }
            // Whoever saw nothing may still delete what they alone wrote.
            _ => !same_author(&record.author, &change.author),
        };
        (contested, false)
    }

    fn park_deletion(&mut self, case: &Case<'_>, over: Key, record: &Record) -> Step<Answer> {
        let conflict = self.deletion(case, &over, record, true, None);
        let id = self.open("deletion", &conflict, &case.change.author)?;
        Ok(settled(case, over, Verdict::Parked, record.version, vec![id], false))
    }

    /// The record of a deletion against an edit.
    fn deletion(
        &self,
        case: &Case<'_>,
        over: &Key,
        record: &Record,
        incoming_deletes: bool,
        settled: Option<Resolution>,
    ) -> Conflict {
        let change = case.change;
        let values = if incoming_deletes { Fields::new() } else { change.fields.clone() };
        Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: None,
            lost: None,
            change: change.id.clone(),
            kind: Kind::Deletion,
            fields: change.fields.keys().cloned().collect(),
            rule: match case.rules.delete {
                DeleteRule::Latest => "latest",
                DeleteRule::Delete => "delete",
                DeleteRule::Edit => "edit",
                DeleteRule::Park => "park",
            }
            .into(),
            base: None,
            server: Side {
                values: record.data.fields().clone(),
                by: record.author.clone(),
                at: record.modified_at,
                deleted: !record.is_live(),
            },
            incoming: Side { values, by: change.author.clone(), at: case.at, deleted: incoming_deletes },
            state: if settled.is_some() { Standing::Automatic } else { Standing::Open },
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: settled,
            merged: None,
            resolved_by: None,
            resolved_at: settled.map(|_| self.snap.now),
            notes: None,
        }
    }
}

fn settled(
    case: &Case<'_>,
    over: Key,
    verdict: Verdict,
    version: u64,
    conflicts: Vec<RecordId>,
    exact: bool,
) -> Answer {
    let detail = Detail { parked: Vec::new(), conflicts, shown: !exact };
    Answer { verdict, over, version, detail, reason: None, relay: Some(case.change.clone()) }
}
