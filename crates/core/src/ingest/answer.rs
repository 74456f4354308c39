//! A person's answer to a conflict: a change to the conflict's record, which writes both in one plan.

use super::{
    Answer,
    edit::same_author,
    work::{By, Step, Work},
};
use crate::{
    change::{Change, Door, Op},
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
    id::Key,
    merge,
    profile::{self, Resolver},
    receipt::{Code, Detail, Verdict},
    record::{Record, State},
    time::Time,
};

/// What stops an answer.
type Refusal = (Code, String);

impl Work<'_> {
    /// Decides a change to a conflict's record.
    pub(crate) fn answer_conflict(&mut self, change: &Change) -> Step<Answer> {
        let key = change.key();
        let refuse = |code, text: String| Ok(Answer::refused(change, code, None, text));
        if change.op != Op::Patch {
            return refuse(Code::Forbidden, "conflicts are written by the engine; answer one with a patch".into());
        }
        let found = self.lookup(&key)?.filter(Record::is_live);
        let Some((record, conflict)) = found.and_then(|r| Conflict::read(&r.data).map(|c| (r, c))) else {
            return refuse(Code::NotFound, format!("there is no conflict `{}`", change.record));
        };
        let (resolution, merged, notes) = match Conflict::read_answer(&change.fields) {
            Ok(answer) => answer,
            Err(text) => return refuse(Code::Invalid, text),
        };
        if let Some(text) = self.may_not_resolve(change, &conflict) {
            return refuse(Code::Forbidden, text);
        }
        let again = conflict.resolution == Some(resolution) && conflict.merged == merged;
        if !conflict.is_open() && resolution != Resolution::Reopen && again && conflict.kind != Kind::Join {
            return Ok(unchanged(change, key, record.version));
        }
        let base = change.base.as_ref().filter(|b| b.epoch == self.snap.epoch).map(|b| b.version);
        if base.is_none_or(|v| v != record.version) {
            let text = format!("the conflict `{}` moved since it was shown: look at it again", change.record);
            return refuse(Code::Moved, text);
        }
        let at = self.author_time(change);
        let by = By { author: &change.author, at, role: Some(self.grant.role.clone()) };
        let mut next = conflict.clone();
        next.notes = notes.or(next.notes);
        let effect = match resolution {
            Resolution::Reopen => self.reopen(&mut next)?,
            Resolution::Apart => self.part(&mut next, &by)?,
            kept => self.close(&mut next, kept, merged, &by, change)?,
        };
        if let Err((code, text)) = effect {
            return refuse(code, text);
        }
        if resolution != Resolution::Reopen {
            next.state = Standing::Resolved;
            next.resolution = Some(resolution);
            next.resolved_by = Some(change.author.clone());
            next.resolved_at = Some(at);
        }
        self.supersede(&key, Record { data: next.write(), ..record.clone() }, &by, &["state".to_owned()]);
        self.recount(&next.about())?;
        if let Some(other) = &next.other {
            self.recount(&Key::new(&next.collection, other))?;
        }
        let detail = Detail { parked: Vec::new(), conflicts: vec![key.id.clone()], shown: true };
        let (version, relay) = (record.version + 1, Some(change.clone()));
        Ok(Answer { verdict: Verdict::Applied, over: key, version, detail, reason: None, relay })
    }

    /// Who settles conflicts is the profile's word.
    fn may_not_resolve(&self, change: &Change, conflict: &Conflict) -> Option<String> {
        let role = self.profile.roles.get(&self.grant.role);
        let resolves = role.is_some_and(|r| r.resolve);
        match self.profile.resolver {
            Resolver::Upstream if self.snap.follows && self.grant.door == Door::Desk => {
                Some("conflicts are settled at the upstream: ask there".into())
            }
            Resolver::Upstream if !resolves => Some(format!("the role `{}` may not settle conflicts", self.grant.role)),
            Resolver::Author if !resolves && !same_author(&conflict.incoming.by, &change.author) => {
                Some("this conflict is settled by the author of the change that waits".into())
            }
            _ => None,
        }
    }

    /// Server, incoming or merged values.
    fn close(
        &mut self,
        conflict: &mut Conflict,
        kept: Resolution,
        merged: Option<Fields>,
        by: &By<'_>,
        change: &Change,
    ) -> Step<Result<(), Refusal>> {
        if !conflict.is_open() {
            let text = "the conflict is already settled: reopen it to answer it anew".to_owned();
            return Ok(Err((Code::Moved, text)));
        }
        if let Some(values) = &merged
            && let Some(stranger) = values.keys().find(|f| !conflict.fields.contains(f))
        {
            let text = format!("`{stranger}` is not in this conflict, which is about {}", conflict.fields.join(", "));
            return Ok(Err((Code::Invalid, text)));
        }
        if conflict.kind == Kind::Twins {
            return self.close_twins(conflict, kept, merged, by, change);
        }
        let about = conflict.about();
        let Some(record) = self.lookup(&about)? else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        if let Some(field) = moved(conflict, &record) {
            let text = format!("`{field}` of {about} moved since the conflict was written: look at it again");
            return Ok(Err((Code::Moved, text)));
        }
        match kept {
            Resolution::Server => {}
            Resolution::Incoming if conflict.incoming.deleted => {
                if let Err(text) = self.fell(&about, by)? {
                    return Ok(Err((Code::StillReferenced, text)));
                }
            }
            _ => {
                let values = merged.clone().unwrap_or_else(|| conflict.incoming.values.clone());
                if let Err(refusal) = self.write_values(&about, record, values, by)? {
                    return Ok(Err(refusal));
                }
            }
        }
        conflict.merged = merged;
        Ok(Ok(()))
    }

    /// Writes a person's values onto a record, and onto the server's side of whatever else is open there.
    fn write_values(&mut self, about: &Key, record: Record, values: Fields, by: &By<'_>) -> Step<Result<(), Refusal>> {
        let Some(rules) = self.profile.rules(&about.collection) else {
            return Ok(Err((Code::UnknownCollection, format!("the profile has no `{}`", about.collection))));
        };
        let values = match profile::admit(rules, values) {
            Ok(values) => values,
            Err((field, why)) => return Ok(Err((Code::Invalid, format!("`{field}`: {why}")))),
        };
        let mut data = record.data.fields().clone();
        data.extend(values.clone());
        let changed: Vec<String> = values.keys().cloned().collect();
        let live = Record { state: State::Live, data: Doc::of(data), ..record };
        self.supersede(about, live, by, &changed);
        for (key, mut other) in self.conflicts_of(about)? {
            if !other.is_open() || other.kind != Kind::Fields || !other.fields.iter().any(|f| values.contains_key(f)) {
                continue;
            }
            let ours = other.fields.iter().filter_map(|f| values.get(f).map(|v| (f.clone(), v.clone())));
            other.server.values.extend(ours.collect::<Fields>());
            other.server.by = by.author.clone();
            other.server.at = by.at;
            if let Some(stored) = self.lookup(&key)? {
                self.supersede(&key, Record { data: other.write(), ..stored }, by, &["server".to_owned()]);
            }
        }
        Ok(Ok(()))
    }

    /// Twins are one after all.
    fn close_twins(
        &mut self,
        conflict: &Conflict,
        kept: Resolution,
        merged: Option<Fields>,
        by: &By<'_>,
        change: &Change,
    ) -> Step<Result<(), Refusal>> {
        let about = conflict.about();
        let Some(rules) = self.profile.rules(&about.collection) else {
            return Ok(Err((Code::UnknownCollection, format!("the profile has no `{}`", about.collection))));
        };
        let (Some(record), Some(other)) = (self.lookup(&about)?, &conflict.other) else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        let survivor = Key::new(&conflict.collection, other);
        let both_live = record.is_live() && self.lookup(&survivor)?.is_some_and(|r| r.is_live());
        if !both_live {
            return Ok(Err((Code::Moved, format!("{about} and {survivor} are no longer two live records"))));
        }
        let chosen = match kept {
            Resolution::Incoming => Some(conflict.incoming.values.clone()),
            Resolution::Merged => merged,
            _ => None,
        };
        let case = super::Case { change, at: by.at, rules };
        self.join(&case, about, record, survivor, chosen)?;
        Ok(Ok(()))
    }

    /// They are two.
    fn part(&mut self, conflict: &mut Conflict, by: &By<'_>) -> Step<Result<(), Refusal>> {
        let Some(other) = conflict.other.clone() else {
            let text = "`apart` answers whether two records are one; this conflict is about one record".to_owned();
            return Ok(Err((Code::Invalid, text)));
        };
        if conflict.kind == Kind::Join {
            return Ok(self.undo_join(conflict, by)?.map_err(|text| (Code::Moved, text)));
        }
        self.set_apart(&conflict.about(), &Key::new(&conflict.collection, &other));
        Ok(Ok(()))
    }

    /// Asks the question again: the server's side is what stands now, the other side is what lost.
    fn reopen(&mut self, conflict: &mut Conflict) -> Step<Result<(), Refusal>> {
        if conflict.is_open() {
            return Ok(Err((Code::Moved, "the conflict is open already".into())));
        }
        if !matches!(conflict.kind, Kind::Fields | Kind::Twins) {
            let text = "only a contest over fields or twins is asked again; a join is undone with `apart`".to_owned();
            return Ok(Err((Code::Invalid, text)));
        }
        let about = conflict.about();
        let Some(record) = self.lookup(&about)? else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        let now: Fields =
            conflict.fields.iter().filter_map(|f| record.data.get(f).map(|v| (f.clone(), v.clone()))).collect();
        let lead = conflict.fields.first().cloned().unwrap_or_default();
        let mark = record.mark(&lead);
        let standing = Side {
            values: now,
            by: crate::change::Author { device: mark.device.clone(), person: None },
            at: mark.at,
            deleted: !record.is_live(),
        };
        if conflict.resolution == Some(Resolution::Incoming) {
            conflict.incoming = conflict.server.clone();
        }
        conflict.server = standing;
        conflict.state = Standing::Open;
        conflict.resolution = None;
        conflict.merged = None;
        conflict.resolved_by = None;
        conflict.resolved_at = None::<Time>;
        Ok(Ok(()))
    }
}

/// The first contested field that no longer holds what the conflict says the server holds.
fn moved<'c>(conflict: &'c Conflict, record: &Record) -> Option<&'c String> {
    if conflict.kind != Kind::Fields {
        return None;
    }
    conflict.fields.iter().find(|f| {
        let (then, now) = (conflict.server.values.get(*f), record.data.get(f));
        let both_blank = merge::is_blank(then) && merge::is_blank(now);
        !both_blank && !then.zip(now).is_some_and(|(a, b)| merge::same(a, b))
    })
}

fn unchanged(change: &Change, over: Key, version: u64) -> Answer {
    let detail = Detail { parked: Vec::new(), conflicts: vec![over.id.clone()], shown: true };
    let relay = Some(change.clone());
    Answer { verdict: Verdict::Unchanged, over, version, detail, reason: None, relay }
}

