//! Step c, references: stored as their author wrote them, resolved through `joined_into` when read.

use super::{
    Case,
    sight::Known,
    work::{Step, Work},
};
use crate::{
    conflict::Conflict,
    doc::Fields,
    id::{CONFLICT, Collection, Key, RecordId},
    plan::Link,
    profile::{Profile, Reference},
    record::{Record, State},
};
use serde_json::Value;

/// Why a reference cannot be followed.
pub(crate) enum Broken {
    /// The parent was never here.
    Missing { field: String, parent: Key },
    /// The parent is deleted, or was waited for to the end: an answer, so the child is parked and waits no more.
    Gone { field: String, parent: Key },
}

impl Work<'_> {
    /// Checks the references among `fields`. The first parent that is missing comes before any that is gone; in the
    /// last try of a change a missing one is as good as gone (CT-23).
    pub(crate) fn follow(&mut self, case: &Case<'_>, fields: &Fields) -> Step<Option<Broken>> {
        let mut gone = None;
        for (field, reference) in &case.rules.references {
            let Some(parent) = fields.get(field).and_then(|v| parent_key(reference, v)) else { continue };
            if parent == case.change.key() {
                continue;
            }
            let (there, mut found) = self.resolve(&parent)?;
            if let Some(record) = &found
                && self.known(&there, record)? == Known::Never
            {
                found = None;
            }
            match found {
                None if self.last_try && !self.has_left(&parent)? => {
                    gone = Some(Broken::Gone { field: field.clone(), parent });
                }
                None => return Ok(Some(Broken::Missing { field: field.clone(), parent })),
                Some(record) if record.state == State::Deleted => {
                    if self.is_apart(&there) && !self.last_try || self.is_ghost(&there, &record)? {
                        return Ok(Some(Broken::Missing { field: field.clone(), parent }));
                    }
                    gone = Some(Broken::Gone { field: field.clone(), parent });
                }
                Some(_) => {}
            }
        }
        Ok(gone)
    }
}

/// The parent that a reference's value names.
pub(crate) fn parent_key(reference: &Reference, value: &Value) -> Option<Key> {
    let id = RecordId::parse(value.as_str()?).ok()?;
    Some(Key::new(&Collection::trusted(reference.to.as_str()), &id))
}

/// Everything that a record links to, as the link index holds it. Tombstones link to nothing.
pub(crate) fn links_of(key: &Key, record: &Record, profile: &Profile) -> Vec<Link> {
    if record.state == State::Deleted {
        return Vec::new();
    }
    let link = |parent: Key, field: &str| Link { parent, child: key.clone(), field: field.to_owned() };
    if &*key.collection == CONFLICT {
        let Some(conflict) = Conflict::read(&record.data) else { return Vec::new() };
        let other = conflict.other.as_ref().map(|id| link(Key::new(&conflict.collection, id), "other"));
        return std::iter::once(link(conflict.about(), "record")).chain(other).collect();
    }
    let Some(rules) = profile.rules(&key.collection) else { return Vec::new() };
    let parent = |(field, reference): (&String, &Reference)| {
        record.data.get(field).and_then(|v| parent_key(reference, v)).map(|parent| link(parent, field))
    };
    let mut links: Vec<Link> = rules.references.iter().filter_map(parent).collect();
    if let State::Joined(survivor) = &record.state {
        links.push(link(Key::new(&key.collection, survivor), crate::plan::JOINED));
    }
    links
}
