//! A person's answer to a conflict: a change to the conflict's record, which writes both in one plan.

use super::{
    Answer,
    create::{lacking, too_large},
    edit::same_author,
    refs::Broken,
    sight::Known,
    work::{By, Step, Work},
};
use crate::{
    change::{Change, Op},
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
pub(crate) type Refusal = (Code, String);

impl Work<'_> {
    /// Decides a change to a conflict's record.
    pub(crate) fn answer_conflict(&mut self, change: &Change) -> Step<Answer> {
        let key = change.key();
        self.found = self.lookup(&key)?;
        let refuse = |code, text: String| Ok(Answer::refused(change, code, None, text));
        if change.op == Op::Create {
            return self.ask_by_hand(change);
        }
        if change.op != Op::Patch {
            return refuse(
                Code::Forbidden,
                "conflicts are written by the engine; answer one with a patch".into(),
            );
        }
        let mut found = self.lookup(&key)?.filter(Record::is_live);
        if let Some(record) = &found
            && self.known(&key, record)? == Known::Never
        {
            found = None;
        }
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
        if self.snap.follows && record.upstream.is_none() {
            let text =
                format!("the upstream has not written the conflict `{}` yet: sync first", change.record);
            return refuse(Code::Moved, text);
        }
        // A join's `merged` is what it brought, so its undoing is known by the answer alone.
        let undone = conflict.kind == Kind::Join && resolution == Resolution::Apart;
        let again = conflict.resolution == Some(resolution) && (conflict.merged == merged || undone);
        if !conflict.is_open() && resolution != Resolution::Reopen && again {
            return Ok(unchanged(change, key, record.version));
        }
        let base = change.base.as_ref().filter(|b| b.epoch == self.snap.epoch).map(|b| b.version);
        if base.is_none_or(|v| v != record.version) {
            let text = format!("the conflict `{}` moved since it was shown: look at it again", change.record);
            return refuse(Code::Moved, text);
        }
        let at = self.author_time(change);
        let by = By { author: &change.author, at, role: Some(self.grant.role.clone()) };
        self.foresee(&conflict.names());
        let mut next = conflict.clone();
        next.notes = notes.or(next.notes);
        let effect = match resolution {
            Resolution::Reopen => self.reopen(&mut next)?,
            Resolution::Apart => self.part(&next, &by, change)?,
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
        self.recount_each(&next.names())?;
        let detail = Detail { parked: Vec::new(), conflicts: vec![key.id.clone()], shown: true };
        let (version, relay) = (record.version + 1, Some(change.clone()));
        Ok(Answer { verdict: Verdict::Applied, over: key, version, detail, reason: None, relay })
    }

    /// Who settles conflicts is the profile's word.
    fn may_not_resolve(&self, change: &Change, conflict: &Conflict) -> Option<String> {
        if self.profile.is_shared(&conflict.collection) && !self.may_write(&conflict.collection) {
            return Some(self.may_not_write(&conflict.collection));
        }
        let role = self.profile.roles.get(&self.grant.role);
        let resolves = role.is_some_and(|r| r.resolve);
        match self.profile.resolver {
            Resolver::Upstream if self.snap.follows => {
                Some("conflicts are settled at the upstream: ask there".into())
            }
            Resolver::Upstream if !resolves => {
                Some(format!("the role `{}` may not settle conflicts", self.grant.role))
            }
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
            let text = format!(
                "`{stranger}` is not in this conflict, which is about {}",
                conflict.fields.join(", ")
            );
            return Ok(Err((Code::Invalid, text)));
        }
        if conflict.kind == Kind::Lost {
            return self.close_lost(conflict, kept, merged, by, change);
        }
        if conflict.kind == Kind::Twins {
            return self.close_twins(conflict, kept, merged, by, change);
        }
        let (about, found) = self.resolve(&conflict.about())?;
        let Some(record) = found else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        if let Some(text) = self.went_on(conflict, &about, &record, kept, by)? {
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
                let mut values = match &merged {
                    Some(_) if conflict.kind != Kind::Orphan => Fields::new(),
                    // An orphan's values wait as a whole: what a person names goes over them.
                    _ => conflict.incoming.values.clone(),
                };
                values.extend(merged.clone().unwrap_or_default());
                if let Err(refusal) = self.write_values(&about, record, values, by, change)? {
                    return Ok(Err(refusal));
                }
            }
        }
        conflict.merged = merged;
        Ok(Ok(()))
    }

    /// Why a conflict cannot be answered as it was shown. Where its values moved, the node that decides
    /// writes it anew, so that the next look shows what is there.
    fn went_on(
        &mut self,
        conflict: &Conflict,
        about: &Key,
        record: &Record,
        kept: Resolution,
        by: &By<'_>,
    ) -> Step<Option<String>> {
        if agrees(conflict, record, kept) {
            return Ok(None);
        }
        if let Some(what) = moved(conflict, record) {
            if !self.snap.follows {
                self.show_now(&conflict.about(), None, by)?;
            }
            return Ok(Some(format!("{what} since the conflict was written: look at it again")));
        }
        let gone = conflict.kind == Kind::Fields && !record.is_live() && kept != Resolution::Server;
        Ok(gone.then(|| format!("{about} was deleted since the conflict was written: it can only stay so")))
    }

    /// Writes onto the server's side of what is open about a record what the record holds now.
    pub(crate) fn show_now(&mut self, about: &Key, except: Option<&Key>, by: &By<'_>) -> Step<()> {
        if !self.lookup(about)?.is_some_and(|r| r.contested) {
            return Ok(());
        }
        let open = self.conflicts_of(about)?;
        let Some(record) = self.resolve(about)?.1 else { return Ok(()) };
        for (key, mut conflict) in open {
            let asked = conflict.is_open() && conflict.about() == *about && except != Some(&key);
            if !asked || moved(&conflict, &record).is_none() {
                continue;
            }
            let now = watched(&conflict, &record)
                .filter_map(|f| record.data.get(f).map(|v| (f.clone(), v.clone())));
            conflict.server = Side {
                values: now.collect(),
                by: record.author.clone(),
                at: record.modified_at,
                deleted: !record.is_live(),
            };
            if let Some(stored) = self.lookup(&key)? {
                self.supersede(&key, Record { data: conflict.write(), ..stored }, by, &["server".to_owned()]);
            }
        }
        Ok(())
    }

    /// Writes a person's values onto a record, and onto the server's side of whatever else is open there.
    pub(crate) fn write_values(
        &mut self,
        about: &Key,
        record: Record,
        values: Fields,
        by: &By<'_>,
        change: &Change,
    ) -> Step<Result<(), Refusal>> {
        let Some(rules) = self.profile.rules(&about.collection) else {
            return Ok(Err((Code::UnknownCollection, format!("the profile has no `{}`", about.collection))));
        };
        let values = match profile::admit(rules, values) {
            Ok(values) => values,
            Err((field, why)) => return Ok(Err((Code::Invalid, format!("`{field}`: {why}")))),
        };
        let mut data = record.data.fields().clone();
        data.extend(values.clone());
        let case = super::Case { change, at: by.at, rules };
        let doc = Doc::of(data.clone());
        // What the next steps ask for is asked for at once.
        let _ = (self.conflicts_of(about).is_ok(), self.foresee_twin(about, &case, &record, &doc));
        if let Some(Broken::Missing { field, parent } | Broken::Gone { field, parent }) =
            self.follow(&case, &data)?
        {
            let text = format!("`{field}` refers to {parent}, which is not there: name another");
            return Ok(Err((Code::ParentMissing, text)));
        }
        if let Some(reason) = too_large(change, &doc).and_then(|answer| answer.reason) {
            return Ok(Err((reason.code, reason.text)));
        }
        // What stands again must be whole: of a purged record only what its author named is left.
        if !record.is_live()
            && let Some(reason) = lacking(&case, &data).and_then(|answer| answer.reason)
        {
            return Ok(Err((reason.code, reason.text)));
        }
        let changed: Vec<String> = values.keys().cloned().collect();
        let live = Record { state: State::Live, data: doc, ..record.clone() };
        self.supersede(about, live, by, &changed);
        self.show_now(about, Some(&change.key()), by)?;
        // A person's word makes no join: what became alike by it is flagged.
        self.flag_likeness(&case, about, &record)?;
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
        let now = |f: &String| record.data.get(f).map(|v| (f.clone(), v.clone()));
        let chosen = match kept {
            Resolution::Incoming => Some(conflict.fields.iter().filter_map(now).collect()),
            Resolution::Merged => merged,
            _ => None,
        };
        let case = super::Case { change, at: by.at, rules };
        self.join(&case, about, record, survivor, chosen)?;
        Ok(Ok(()))
    }

    /// They are two.
    fn part(&mut self, conflict: &Conflict, by: &By<'_>, change: &Change) -> Step<Result<(), Refusal>> {
        let Some(other) = conflict.other.clone() else {
            let text =
                "`apart` answers whether two records are one; this conflict is about one record".to_owned();
            return Ok(Err((Code::Invalid, text)));
        };
        if conflict.kind == Kind::Join {
            let about = conflict.about();
            let joined = self.lookup(&about)?;
            let case =
                self.profile.rules(&about.collection).map(|rules| super::Case { change, at: by.at, rules });
            let both = case.zip(joined);
            // What the next steps ask for is asked for at once.
            let _ = conflict.names().iter().filter(|key| self.conflicts_of(key).is_err()).count();
            if let Some((case, joined)) = &both {
                self.foresee_twin(&about, case, joined, &joined.data);
            }
            if let Err(text) = self.undo_join(conflict, by)? {
                return Ok(Err((Code::Moved, text)));
            }
            // It may be like a third record, which came while it was joined.
            if let Some((case, joined)) = &both {
                self.flag_likeness(case, &about, joined)?;
            }
            return Ok(Ok(()));
        }
        self.set_apart(&conflict.about(), &Key::new(&conflict.collection, &other));
        Ok(Ok(()))
    }

    /// Asks the question again: the server's side is what stands now, the other side is what lost.
    fn reopen(&mut self, conflict: &mut Conflict) -> Step<Result<(), Refusal>> {
        if conflict.is_open() {
            return Ok(Err((Code::Moved, "the conflict is open already".into())));
        }
        if !matches!(conflict.kind, Kind::Fields | Kind::Twins | Kind::Lost) {
            let text = "only a contest over fields, twins or what was lost is asked again; a join is undone with `apart`"
                .to_owned();
            return Ok(Err((Code::Invalid, text)));
        }
        let about = conflict.about();
        let Some(record) = self.resolve(&about)?.1 else {
            return Ok(Err((Code::NotFound, format!("{about} is not here"))));
        };
        let is_one = self.lookup(&about)?.is_some_and(|r| matches!(r.state, State::Joined(_)));
        if conflict.kind == Kind::Twins && is_one {
            let text = format!("{about} was joined since: undo the join first");
            return Ok(Err((Code::Moved, text)));
        }
        let now: Fields = conflict
            .fields
            .iter()
            .filter_map(|f| record.data.get(f).map(|v| (f.clone(), v.clone())))
            .collect();
        let lead = conflict.fields.first().cloned().unwrap_or_default();
        let mark = record.mark(&lead);
        let standing = Side {
            values: now,
            by: crate::change::Author { device: mark.device.clone(), person: None },
            at: mark.at,
            deleted: !record.is_live(),
        };
        let standing = match conflict.kind {
            // A tombstone shows nothing that could be taken for what is there.
            Kind::Lost if standing.deleted => Side { values: Fields::new(), ..standing },
            _ => standing,
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

/// Whether an answer about a deletion asks for what is there anyhow.
fn agrees(conflict: &Conflict, record: &Record, kept: Resolution) -> bool {
    let asked = match kept {
        Resolution::Server => record.is_live(),
        Resolution::Incoming => !record.is_live(),
        _ => false,
    };
    conflict.kind == Kind::Deletion && conflict.incoming.deleted && asked
}

/// What no longer stands as the conflict says that it stands at the server.
fn moved(conflict: &Conflict, record: &Record) -> Option<String> {
    match conflict.kind {
        Kind::Fields => {}
        Kind::Deletion | Kind::Orphan if conflict.server.deleted == record.is_live() => {
            let how = if record.is_live() { "came back" } else { "was deleted" };
            return Some(format!("{} {how}", conflict.about()));
        }
        Kind::Deletion | Kind::Orphan if record.is_live() => {}
        _ => return None,
    }
    let stays = |f: &String| {
        let (then, now) = (conflict.server.values.get(f), record.data.get(f));
        let both_blank = merge::is_blank(then) && merge::is_blank(now);
        both_blank || then.zip(now).is_some_and(|(a, b)| merge::same(a, b))
    };
    watched(conflict, record).find(|f| !stays(f)).map(|f| format!("`{f}` of {} moved", conflict.about()))
}

/// The fields that an answer may write, or take away.
fn watched<'a>(conflict: &'a Conflict, record: &'a Record) -> Box<dyn Iterator<Item = &'a String> + 'a> {
    match conflict.kind {
        Kind::Deletion if conflict.incoming.deleted => Box::new(record.data.fields().keys()),
        Kind::Orphan => Box::new(conflict.incoming.values.keys()),
        _ => Box::new(conflict.fields.iter()),
    }
}
fn unchanged(change: &Change, over: Key, version: u64) -> Answer {
    let detail = Detail { parked: Vec::new(), conflicts: vec![over.id.clone()], shown: true };
    let relay = Some(change.clone());
    Answer { verdict: Verdict::Unchanged, over, version, detail, reason: None, relay }
}
