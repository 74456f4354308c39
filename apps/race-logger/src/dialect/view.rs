//! Records as the documents show them: `client_uuid`, references by `…_client_uuid`, the number, the version.

use super::{
    clash::{self, Numbered},
    door::Refused,
    fingerprint,
    record_types::{RecordType, by_collection},
    upload::{survivor, survivors},
};
use ropeway_core::{
    conflict::Conflict,
    doc::Fields,
    id::{CONFLICT, Collection, Key, RecordId, SpaceId},
    plan::Fed,
    profile::{Profile, Rules},
    record::{Record, State},
};
use ropeway_replica::Node;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Rows with what is needed to show them, read at once.
pub(crate) struct View<'n> {
    profile: &'n Profile,
    /// The rows' own records, what they refer to and what that was joined into.
    records: BTreeMap<Key, Record>,
}

impl<'n> View<'n> {
    /// Reads what rows need to be shown.
    pub(crate) async fn of(node: &'n Node, space: &SpaceId, rows: &[Fed]) -> Result<Self, Refused> {
        let profile: &Profile = node.profile();
        let parents = rows.iter().flat_map(|row| parents(profile, &row.key, row.data.fields()));
        let about = rows.iter().filter(|row| &*row.key.collection == CONFLICT);
        let about = about.filter_map(|row| Conflict::read(&row.data)).map(|conflict| conflict.about());
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).chain(parents).chain(about).collect();
        let mut records = node.get_all(space, &keys).await?;
        survivors(node, space, &mut records).await?;
        Ok(Self { profile, records })
    }

    /// One row.
    pub(crate) fn row(&self, row: &Fed) -> Value {
        let kind = by_collection(&row.key.collection);
        let own = self.records.get(&row.key);
        let mut json = match self.profile.rules(&row.key.collection) {
            Some(rules) => self.fields(rules, row.data.fields()),
            None => row.data.fields().clone().into_iter().collect(),
        };
        json.insert("client_uuid".into(), row.key.id.as_str().into());
        json.insert("cloud_id".into(), json!(own.map(|record| record.local_id)));
        json.insert("version".into(), row.version.into());
        if let (None, Some(record)) = (json.get("created_at"), own) {
            // TR-02: the time of its arrival, which no fingerprint knows.
            json.insert("created_at".into(), json!(record.mark("").at));
        }
        if kind.is_some_and(|kind| kind.collection == "incident") {
            json.insert("fingerprint".into(), fingerprint::of(row.data.fields()));
        }
        if let State::Joined(into) = &row.state {
            let last = self.name_now(&Key::new(&row.key.collection, into));
            json.insert("merged_into".into(), last.as_str().into());
        }
        Value::Object(json)
    }

    /// A conflict's row, where it is one of the documents' (CT-04).
    pub(crate) fn conflict(&self, row: &Fed) -> Option<Value> {
        let conflict = Conflict::read(&row.data).filter(clash::is_listed)?;
        let number = self.records.get(&row.key)?.local_id;
        let about = survivor(&self.records, &conflict.about());
        let (about, now) = (about.as_ref().map(|(_, r)| r.local_id), about.map(|(_, r)| r.data.clone()));
        let own = Numbered { number, id: &row.key.id, version: row.version, about };
        Some(clash::shown(&own, &conflict, now.as_ref()))
    }

    fn fields(&self, rules: &Rules, data: &Fields) -> Map<String, Value> {
        let shown = data.iter().map(|(name, value)| match rules.references.get(name) {
            None => (name.clone(), value.clone()),
            Some(reference) => {
                let parent = parent(&reference.to, value).map(|key| self.name_now(&key).as_str().into());
                (format!("{name}_client_uuid"), parent.unwrap_or_else(|| value.clone()))
            }
        });
        shown.collect()
    }

    /// The id by which a record goes now: a joined one by its survivor's.
    fn name_now(&self, key: &Key) -> RecordId {
        survivor(&self.records, key).map_or_else(|| key.id.clone(), |(key, _)| key.id)
    }
}

fn parents<'p>(profile: &'p Profile, key: &Key, data: &'p Fields) -> impl Iterator<Item = Key> + 'p {
    let references = profile.rules(&key.collection).into_iter().flat_map(|rules| &rules.references);
    references.filter_map(|(field, reference)| parent(&reference.to, data.get(field)?))
}

fn parent(collection: &str, value: &Value) -> Option<Key> {
    Some(Key { collection: Collection::trusted(collection), id: RecordId::parse(value.as_str()?).ok()? })
}

/// A record that was read by itself, as a row of the feed.
pub(crate) fn row_of(key: &Key, record: &Record) -> Fed {
    Fed {
        key: key.clone(),
        version: record.version,
        stamp: record.stamp,
        state: record.state.clone(),
        data: record.data.clone(),
        owner: record.owner.clone(),
        author: record.author.clone(),
        modified_at: record.modified_at,
        left: false,
    }
}

/// The lists of a document, each under its documented key; all of `kinds` are there, empty or not.
pub(crate) struct Lists {
    lists: Map<String, Value>,
}

impl Lists {
    pub(crate) fn new(kinds: impl Iterator<Item = &'static RecordType>) -> Self {
        Self { lists: kinds.map(|kind| (kind.plural.to_owned(), Value::Array(Vec::new()))).collect() }
    }

    /// Adds to a list.
    pub(crate) fn push(&mut self, name: &str, value: Value) {
        let list = self.lists.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
        }
    }

    /// How long each list is.
    pub(crate) fn counts(&self) -> Value {
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        Value::Object(self.lists.iter().map(|(name, list)| (name.clone(), count(list).into())).collect())
    }

    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.lists
    }
}
