//! A receipt becomes one entry of `results`: pure, so that it can be tried without a node.

use super::{clash, record_types::RecordType};
use ropeway_core::{
    conflict::{Conflict, Standing},
    receipt::{Code, Receipt, Verdict},
    record::Record,
};
use serde_json::{Map, Value, json};

/// What is known of one item when it is answered.
pub(crate) struct Answered<'a> {
    /// How it was decided.
    pub(crate) receipt: &'a Receipt,
    /// Whether that was said before.
    pub(crate) again: bool,
    /// The record as it stands, a joined one's survivor.
    pub(crate) record: Option<&'a Record>,
    /// The conflicts that the receipt names, with their numbers.
    pub(crate) conflicts: Vec<(i64, &'a Conflict)>,
}

/// One entry with its HTTP status.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The status it would have alone.
    pub(crate) status: u16,
    /// The entry.
    pub(crate) json: Value,
}

impl Entry {
    /// An item that could not be taken in (GP-01, GP-02).
    pub(crate) fn error(client_uuid: Option<&str>, status: u16, code: &str, message: &str) -> Self {
        let error = json!({ "code": code, "message": message });
        let json = json!({
            "client_uuid": client_uuid, "status": "error", "http_status": status, "error": error,
        });
        Self { status, json }
    }

    /// The entry of one receipt.
    pub(crate) fn of(item: &Answered<'_>) -> Self {
        let receipt = item.receipt;
        match receipt.verdict {
            Verdict::Waiting | Verdict::Rejected => return refused(receipt),
            Verdict::Joined => return merged(item),
            Verdict::Parked if item.conflicts.iter().any(|(_, c)| c.is_open()) => return conflict(item),
            _ => {}
        }
        let status = match receipt.verdict {
            _ if item.again => "already_synced",
            Verdict::Created => "created",
            Verdict::Applied | Verdict::Merged => "updated",
            _ => "already_synced",
        };
        // A conflict that somebody has answered since: told where the same is sent again.
        let answered = item.conflicts.iter().find(|(_, c)| c.state == Standing::Resolved);
        let mut json = plain(item, status);
        if let Some((number, conflict)) = answered {
            json.insert("conflict_id".into(), (*number).into());
            json.insert("resolution".into(), clash::resolution_word(conflict).into());
        }
        finish(if status == "created" { 201 } else { 200 }, json)
    }
}

fn plain(item: &Answered<'_>, status: &str) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("client_uuid".into(), item.receipt.key.id.as_str().into());
    json.insert("status".into(), status.into());
    if let Some(record) = item.record {
        json.insert("cloud_id".into(), record.local_id.into());
        json.insert("version".into(), record.version.into());
    }
    json
}

fn finish(status: u16, mut json: Map<String, Value>) -> Entry {
    json.insert("http_status".into(), status.into());
    Entry { status, json: Value::Object(json) }
}

/// CT-05: merged, under the number of the incident that stays.
fn merged(item: &Answered<'_>) -> Entry {
    let mut json = plain(item, "merged");
    json.insert("deduplication".into(), deduplication(item.record));
    let survivor = item.conflicts.iter().find_map(|(_, c)| c.other.as_ref());
    if let Some(survivor) = survivor {
        json.insert("merged_into_client_uuid".into(), survivor.as_str().into());
    }
    finish(200, json)
}

/// What layer 2 did (ISMF-090): exactly these three keys.
pub(crate) fn deduplication(survivor: Option<&Record>) -> Value {
    json!({
        "layer": "fingerprint_match",
        "merged_with_incident_id": survivor.map(|record| record.local_id),
        "action": "reports_moved_to_existing",
    })
}

fn conflict(item: &Answered<'_>) -> Entry {
    let mut json = plain(item, "conflict");
    let open: Vec<_> = item.conflicts.iter().filter(|(_, c)| c.is_open()).collect();
    // Of several, a decision is what the documents show.
    let first = open.iter().find(|(_, c)| clash::type_of(c) == clash::DECISION).or(open.first());
    if let Some((number, conflict)) = first {
        json.insert("conflict_id".into(), (*number).into());
        json.insert("conflict_type".into(), clash::type_of(conflict).into());
        json.insert("details".into(), clash::details(conflict));
    }
    if open.len() > 1 {
        let all: Vec<i64> = open.iter().map(|(number, _)| *number).collect();
        json.insert("conflict_ids".into(), json!(all));
    }
    finish(409, json)
}

fn refused(receipt: &Receipt) -> Entry {
    let id = Some(receipt.key.id.as_str());
    let Some(reason) = &receipt.reason else {
        return Entry::error(id, 422, "invalid", "refused");
    };
    let (status, code) = match reason.code {
        Code::ParentMissing => (422, "foreign_key_not_found"),
        Code::Forbidden | Code::Revoked => (403, "forbidden"),
        Code::TooLarge => (413, "too_large"),
        Code::Fault => (500, "internal"),
        Code::ConflictOpen | Code::Moved | Code::ChangeReused | Code::StillReferenced => (409, "moved"),
        Code::UnknownCollection | Code::Invalid | Code::NotFound | Code::Unanswered => (422, "invalid"),
    };
    let mut entry = Entry::error(id, status, code, &reason.text);
    if let Some(field) = &reason.field {
        let named =
            if code == "foreign_key_not_found" { format!("{field}_client_uuid") } else { field.clone() };
        entry.json["error"]["field"] = named.into();
    }
    entry
}

/// The status of a whole answer (CT-06): what all entries agree on, else 200, so that no client throws away
/// what went well.
pub(crate) fn status_of_all(kind: &RecordType, entries: &[Entry]) -> u16 {
    let Some(first) = entries.first() else { return 200 };
    let all = |status: u16| entries.iter().all(|entry| entry.status == status);
    match first.status {
        201 if all(201) && kind.collected => 201,
        201 if all(201) => 200,
        409 if all(409) => 409,
        status @ 400.. if status != 409 && all(status) => status,
        400.. if entries.iter().all(|entry| entry.status >= 400 && entry.status != 409) => 422,
        _ => 200,
    }
}
