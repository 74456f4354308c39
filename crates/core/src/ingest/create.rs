//! A record that is new here: defaults, required fields, references, then layer 2.

use super::{
    Answer, Case,
    refs::Broken,
    same::Twin,
    work::{By, Step, Work, new_record},
};
use crate::{
    change::{Change, Door, Op},
    conflict::{Conflict, Kind, Side, Standing},
    doc::{Doc, Fields},
    id::{DeviceId, Key},
    limits, merge,
    profile::{self, Rules},
    receipt::{Code, Detail, Verdict},
    record::{Record, State},
};
use serde_json::Value;
use std::borrow::Cow;

impl Work<'_> {
    /// Takes in a record that was not here.
    pub(crate) fn create(&mut self, case: &Case<'_>, over: Key) -> Step<Answer> {
        let change = case.change;
        let data = case.rules.with_defaults(change.fields.clone());
        if let Some(answer) = lacking(case, &data) {
            return Ok(answer);
        }
        let broken = self.follow(case, &data)?;
        if let Some(Broken::Missing { field, parent }) = &broken {
            return self.parent_missing(change, field, parent);
        }
        let added = data.len() > change.fields.len();
        let relay = self.snap.follows.then(|| self.as_created(change, &data));
        let doc = Doc::of(data);
        if let Some(answer) = too_large(change, &doc) {
            return Ok(answer);
        }
        let record = new_record(doc, &change.author, case.at);
        if let Some(Broken::Gone { field, parent }) = broken {
            return self.orphan(case, over, record, &field, &parent);
        }
        self.offset = change.at.and_then(|at| at.offset).unwrap_or(0);
        match self.twin(&over, case.rules, &record)? {
            Some(Twin::Same(twin)) => {
                let answer = self.join(case, over, record, twin, None)?;
                Ok(Answer { relay, ..answer })
            }
            Some(Twin::Asks(twin)) => {
                let answer = self.ask_twins(case, over, record, twin)?;
                Ok(Answer { relay, ..answer })
            }
            hidden => {
                self.insert(over.clone(), record);
                if let Some(Twin::Hidden(twin)) = hidden {
                    self.flag_hidden(case, &over, &twin)?;
                }
                // Values that the author did not name are shown to them, unless they stand at this desk.
                let detail = Detail { shown: added && self.grant.door == Door::Push, ..Detail::default() };
                let version = self.touched.get(&over).map_or(1, |touched| touched.now.version);
                Ok(Answer { verdict: Verdict::Created, over, version, detail, reason: None, relay })
            }
        }
    }

    /// A parent that has not arrived: whoever pushes is asked again, whoever stands at the desk is told.
    pub(crate) fn parent_missing(&mut self, change: &Change, field: &str, parent: &Key) -> Step<Answer> {
        if self.has_left(parent)? {
            return Ok(self.pass_on(change));
        }
        Ok(match self.grant.door {
            Door::Push => {
                let text = format!("`{field}` refers to {parent}, which is not here yet: send it first");
                Answer::waiting(change, Some(field), text)
            }
            Door::Desk => {
                let text = format!(
                    "`{field}` refers to {parent}, which is not on this node: download it or correct the reference"
                );
                Answer::refused(change, Code::ParentMissing, Some(field), text)
            }
        })
    }

    /// A child of a deleted parent is kept as a tombstone, with its values in an open conflict.
    fn orphan(
        &mut self,
        case: &Case<'_>,
        over: Key,
        record: Record,
        field: &str,
        parent: &Key,
    ) -> Step<Answer> {
        let values = record.data.fields().clone();
        let relay = self.as_created(case.change, &values);
        self.insert(over.clone(), Record { state: State::Deleted, ..record });
        let mut answer = self.park_orphan(case, over, values, self.first_version(), field, parent)?;
        answer.relay = Some(relay);
        Ok(answer)
    }

    /// Values that would live under a deleted parent wait for a person, who names another.
    pub(crate) fn park_orphan(
        &mut self,
        case: &Case<'_>,
        over: Key,
        values: Fields,
        version: u64,
        field: &str,
        parent: &Key,
    ) -> Step<Answer> {
        let change = case.change;
        let (_, gone) = self.resolve(parent)?;
        let by = gone.map_or_else(|| change.author.clone(), |g| g.author);
        let conflict = Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: None,
            lost: None,
            change: change.id.clone(),
            kind: Kind::Orphan,
            fields: vec![field.to_owned()],
            rule: "park".into(),
            base: None,
            server: Side { values: Fields::new(), by, at: self.snap.now, deleted: true },
            incoming: Side { values: values.clone(), by: change.author.clone(), at: case.at, deleted: false },
            state: Standing::Open,
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: None,
            merged: None,
            resolved_by: None,
            resolved_at: None,
            notes: None,
        };
        let id = self.open("orphan", &conflict, &change.author)?;
        let detail = Detail { parked: values.keys().cloned().collect(), conflicts: vec![id], shown: true };
        let relay = Some(change.clone());
        Ok(Answer { verdict: Verdict::Parked, over, version, detail, reason: None, relay })
    }

    /// What a desk relays is what it understood, defaults included; a relaying node passes on what it got.
    pub(crate) fn as_created(&self, change: &Change, data: &Fields) -> Change {
        match self.grant.door {
            Door::Desk => {
                let rules = self.profile.rules(&change.collection);
                let server_only =
                    |f: &str| rules.and_then(|r| r.fields.get(f)).is_some_and(|f| f.server_only);
                let mut fields = data.clone();
                if fields.keys().any(|f| server_only(f)) {
                    fields.retain(|f, _| !server_only(f));
                }
                Change { op: Op::Create, fields, ..change.clone() }
            }
            Door::Push => change.clone(),
        }
    }

    /// The author of a change as the writer of a version.
    pub(crate) fn by<'c>(&self, case: &Case<'c>) -> By<'c> {
        let looks_at_roles = |rule: &profile::Rule| matches!(rule, profile::Rule::Role(..));
        let rules = case.rules;
        let groups = rules.groups.iter().map(|g| &g.rule);
        let fields = rules.fields.values().filter_map(|f| f.merge.as_ref());
        let any = groups.chain(fields).chain([&rules.merge]).any(looks_at_roles);
        By { author: &case.change.author, at: case.at, role: any.then(|| self.grant.role.clone()) }
    }

    /// Fields that no client can write keep what they hold; a push that only repeats it is harmless.
    pub(crate) fn guard_server_only(&self, case: &Case<'_>, existing: Option<&Record>) -> Option<Answer> {
        if self.grant.door == Door::Desk && !self.snap.follows {
            return None;
        }
        let forbidden = case.change.fields.iter().find(|(name, value)| {
            case.rules.fields.get(*name).is_some_and(|f| f.server_only)
                && !existing.and_then(|r| r.data.get(name)).is_some_and(|there| merge::same(there, value))
        });
        forbidden.map(|(name, _)| {
            let text = format!("`{name}` is written by the server only: leave it out");
            Answer::refused(case.change, Code::Forbidden, Some(name), text)
        })
    }
}

/// A counter is a map of device totals, of which an author sets their own device's only; a plain number
/// is that one.
pub(crate) fn own_totals(rules: &Rules, mut fields: Fields, device: &DeviceId) -> Fields {
    let is_counter = |name: &str| rules.fields.get(name).is_some_and(|f| f.kind == profile::Kind::Counter);
    if !fields.keys().any(|name| is_counter(name)) {
        return fields;
    }
    for (name, value) in &mut fields {
        if is_counter(name) && !value.is_null() {
            *value = merge::counter(None, Some(value), device);
        }
    }
    fields
}

/// A change's values as this node understands them; as they came, where it does not.
pub(crate) fn understood(rules: Option<&Rules>, change: &Change) -> Fields {
    let admitted = rules.and_then(|r| {
        Some(own_totals(r, profile::admit(r, change.fields.clone()).ok()?, &change.author.device))
    });
    admitted.unwrap_or_else(|| change.fields.clone())
}

/// What an author saw, in canonical spelling where it has one: only ever compared, never stored.
pub(crate) fn spelled(rules: &Rules, mut seen: Fields) -> Fields {
    let mut respelled = Vec::new();
    for (name, value) in &seen {
        let known = rules.fields.get(name).and_then(|f| f.kind.normalise(value).ok());
        if let Some(Cow::Owned(value)) = known {
            respelled.push((name.clone(), value));
        }
    }
    if !respelled.is_empty() {
        seen.extend(respelled);
    }
    seen
}

/// A live record must have its required fields.
pub(crate) fn lacking(case: &Case<'_>, data: &Fields) -> Option<Answer> {
    let field =
        case.rules.fields.iter().find(|(name, f)| f.required && data.get(*name).is_none_or(Value::is_null));
    field.map(|(name, _)| {
        let text = format!("a `{}` needs `{name}`", case.change.collection);
        Answer::refused(case.change, Code::Invalid, Some(name), text)
    })
}

/// A record must fit its limit whatever is merged into it.
pub(crate) fn too_large(change: &Change, doc: &Doc) -> Option<Answer> {
    let (size, most) = (doc.text().len(), limits::RECORD_BYTES_MAX);
    (size > most).then(|| {
        let text =
            format!("the record would be {size} bytes, the limit is {most}: put large content into a blob");
        Answer::refused(change, Code::TooLarge, None, text)
    })
}
