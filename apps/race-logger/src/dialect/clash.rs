//! A conflict in the documents' words (ISMF-057 to ISMF-059): pure.

use super::record_types::by_collection;
use ropeway_core::{
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
};
use serde_json::{Map, Value, json};

/// Both decided, differently.
pub(crate) const DECISION: &str = "decision_mismatch";

/// The word for what is contested. `auto_merged` is the fifth, which the documents' list forgets (CT-04).
pub(crate) fn type_of(conflict: &Conflict) -> &'static str {
    match conflict.kind {
        Kind::Join => "auto_merged",
        Kind::Twins | Kind::Alike => "fingerprint_match_uuid_differs",
        Kind::Orphan => "foreign_key_not_found",
        Kind::Fields if conflict.fields.first().is_some_and(|lead| lead == "decision") => DECISION,
        Kind::Fields | Kind::Deletion | Kind::Lost => "uuid_exists_different_data",
    }
}

/// The word for how it ended.
pub(crate) fn resolution_word(conflict: &Conflict) -> &'static str {
    match (conflict.state, conflict.resolution) {
        (Standing::Open, _) => "pending",
        (_, Some(Resolution::Incoming)) => "device_wins",
        (_, Some(Resolution::Merged | Resolution::Apart)) => "manual",
        _ => "cloud_wins",
    }
}

/// Whether it belongs into the documents' list: what a person decides or decided, and every merge. What a
/// rule settled at once is history and no conflict (CT-04, CT-13).
pub(crate) fn is_listed(conflict: &Conflict) -> bool {
    conflict.state != Standing::Automatic || conflict.kind == Kind::Join
}

/// Both values of each contested field, as an upload is told them (ISMF-091).
pub(crate) fn details(conflict: &Conflict) -> Value {
    let mut details = Map::new();
    let value = |side: &Side, field: &str| side.values.get(field).cloned().unwrap_or(Value::Null);
    for field in &conflict.fields {
        let (cloud, device) = (value(&conflict.server, field), value(&conflict.incoming, field));
        let is_companion = type_of(conflict) == DECISION && field != "decision";
        if is_companion && cloud.is_null() && device.is_null() {
            continue;
        }
        details.insert(format!("cloud_{field}"), cloud);
        details.insert(format!("device_{field}"), device);
    }
    if let (Kind::Twins, Some(other)) = (conflict.kind, &conflict.other) {
        details.insert("cloud_client_uuid".into(), other.as_str().into());
    }
    Value::Object(details)
}

/// What a conflict's own record is besides what it says.
pub(crate) struct Numbered<'a> {
    /// Its number on this node.
    pub(crate) number: i64,
    /// Its id.
    pub(crate) id: &'a str,
    /// Its version, to name when it is answered.
    pub(crate) version: u64,
    /// The number of the record that it is about.
    pub(crate) about: Option<i64>,
}

/// The documented row of `sync_conflicts`, with what a person needs beside it.
pub(crate) fn shown(own: &Numbered<'_>, conflict: &Conflict, now: Option<&Doc>) -> Value {
    let kind = by_collection(&conflict.collection);
    let is_incident = &*conflict.collection == "incident";
    let (cloud, device) = sides(conflict, now);
    let by = conflict.resolved_by.as_ref();
    json!({
        "id": own.number,
        "conflict_uuid": own.id,
        "version": own.version,
        "incident_id": own.about.filter(|_| is_incident),
        "device_uuid_source": conflict.incoming.by.device,
        "conflict_type": type_of(conflict),
        "record_type": kind.map_or(&*conflict.collection, |kind| kind.word),
        "record_client_uuid": conflict.record,
        "other_client_uuid": conflict.other,
        "fields": conflict.fields,
        "base_data": conflict.base,
        "cloud_data": cloud,
        "device_data": device,
        "cloud_by": who(&conflict.server),
        "device_by": who(&conflict.incoming),
        "resolution": resolution_word(conflict),
        "resolved_by_user_id": Value::Null,
        "resolved_by": by.map(|author| author.person.clone().unwrap_or_else(|| author.device.to_string())),
        "resolved_at": conflict.resolved_at,
        "resolution_notes": conflict.notes,
        "details": details(conflict),
        "created_at": conflict.opened_at,
        "updated_at": conflict.resolved_at.unwrap_or(conflict.opened_at),
    })
}

/// The record as the cloud has or had it, and as the device has it.
fn sides(conflict: &Conflict, now: Option<&Doc>) -> (Fields, Fields) {
    let whole: Fields = now.map(|doc| doc.fields().clone()).unwrap_or_default();
    let over = |side: &Side| -> Fields {
        let mut all = whole.clone();
        for field in &conflict.fields {
            all.remove(field);
        }
        all.extend(side.values.clone());
        all
    };
    match conflict.kind {
        // The two are records of their own: each side speaks for itself.
        Kind::Join => (conflict.server.values.clone(), conflict.incoming.values.clone()),
        _ => (over(&conflict.server), over(&conflict.incoming)),
    }
}

fn who(side: &Side) -> Value {
    json!({ "device_uuid": side.by.device, "actor": side.by.person, "at": side.at })
}
