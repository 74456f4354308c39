//! One item of an upload becomes one change: pure, so that it can be tried without a node.

use super::{
    clip::{self, Clip},
    record_types::RecordType,
};
use ropeway_core::{
    change::{Author, Base, Change, Op},
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, Epoch, RecordId},
    limits,
    profile::Rules,
    time::{AuthorTime, Time},
};
use serde_json::Value;

/// What a client may send back because it was told it, and what means something here only.
const TOLD: [&str; 6] = ["id", "cloud_id", "local_id", "version", "merged_into", "fingerprint"];
/// Where a time stays that cannot be read: nothing that was sent is lost (TR-02).
const UNREAD_TIME: &str = "created_at_sent";

/// Who uploads, and of what kind.
pub(crate) struct Sender<'a> {
    /// The record type.
    pub(crate) kind: &'static RecordType,
    /// Its rules.
    pub(crate) rules: &'a Rules,
    /// The device that authenticated.
    pub(crate) device: &'a DeviceId,
    /// The epoch whose versions this node shows.
    pub(crate) epoch: &'a Epoch,
    /// Microseconds to add to the device's times, where its clock was told (TR-21).
    pub(crate) offset: Option<i64>,
}

/// Why an item cannot be taken in: for its result, with the id where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadItem {
    /// The id that it carries, where it can be read.
    pub(crate) client_uuid: Option<String>,
    /// A sentence.
    pub(crate) why: String,
}

/// One item as it is taken in.
pub(crate) struct Item {
    /// The change.
    pub(crate) change: Change,
    /// The clip that came inside it, which is kept apart.
    pub(crate) clip: Option<Clip>,
    /// How often its sender has tried before, by its queue (ISMF-053).
    pub(crate) retry_count: u64,
}

/// Reads one item (CT-14): the supplied keys are compared, ids of this node's own are not, and references
/// are named by the documents' `…_client_uuid`.
pub(crate) fn read(sender: &Sender<'_>, text: &str) -> Result<Item, BadItem> {
    let bad = |client_uuid: Option<String>, why: String| BadItem { client_uuid, why };
    let value: Value =
        serde_json::from_str(text).map_err(|e| bad(None, format!("it cannot be read: {e}")))?;
    let Value::Object(mut map) = value else {
        return Err(bad(None, "an item must be an object".into()));
    };
    let id = match map.remove("client_uuid") {
        Some(Value::String(id)) => id,
        Some(Value::Null) | None => {
            return Err(bad(
                None,
                "`client_uuid` is missing: without it a record cannot be known again".into(),
            ));
        }
        Some(_) => return Err(bad(None, "`client_uuid` must be a text".into())),
    };
    let of_this = |why: String| bad(Some(id.clone()), why);
    let record = RecordId::parse(&id).map_err(|e| of_this(format!("`client_uuid`: {e}")))?;
    let base = match map.remove("base_version") {
        None | Some(Value::Null) => None,
        Some(Value::Number(n)) if n.as_u64().is_some() => n.as_u64(),
        Some(_) => return Err(of_this("`base_version` must be a version as a result showed it".into())),
    };
    let retry_count = map.remove("retry_count").and_then(|n| n.as_u64()).unwrap_or_default();
    let person = actor(map.remove("actor")).map_err(of_this)?;
    let mut fields: Fields = map.into_iter().collect();
    for told in TOLD {
        fields.remove(told);
    }
    let clip = clip::take_out(&mut fields);
    rename_references(sender.rules, &mut fields);
    keep_unread_time(&mut fields);
    let at = author_time(&fields, sender.offset);
    let author = Author { device: sender.device.clone(), person };
    let mut change = Change {
        id: ChangeId::trusted("-"),
        collection: Collection::trusted(sender.kind.collection),
        record,
        op: Op::Create,
        fields,
        seen: None,
        base: base.map(|version| Base { epoch: sender.epoch.clone(), version }),
        lost: None,
        author,
        at,
    };
    change.id = id_of(&change);
    Ok(Item { change, clip, retry_count })
}

/// The documented wire has no change ids: what says the same on the same base is the same change, so that a
/// request whose answer was lost can be sent again (TR-09).
pub(crate) fn id_of(change: &Change) -> ChangeId {
    let mut text = String::with_capacity(256);
    let version = change.base.as_ref().map_or(String::new(), |base| base.version.to_string());
    let person = change.author.person.as_deref().unwrap_or_default();
    for part in [&*change.author.device, person, &*change.collection, &*change.record, &version] {
        text.push_str(part);
        text.push('\n');
    }
    text.push_str(change.fields.text());
    ChangeId::trusted(format!("up-{}", &blake3::hash(text.as_bytes()).to_hex()[..40]))
}

/// The id of what is said once more after something else was.
pub(crate) fn id_after(first: &ChangeId, last: &str) -> ChangeId {
    let text = format!("{first}\n{last}");
    ChangeId::trusted(format!("up-{}", &blake3::hash(text.as_bytes()).to_hex()[..40]))
}

/// The person at the device: a name, or a name and a role; evidence, never a grant (CT-19).
fn actor(value: Option<Value>) -> Result<Option<String>, String> {
    fn text(value: Option<&Value>) -> Option<&str> {
        value.and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
    }
    let named = match &value {
        None | Some(Value::Null) => None,
        Some(Value::Object(map)) => match (text(map.get("name")), text(map.get("role"))) {
            (Some(name), Some(role)) => Some(format!("{name} ({role})")),
            (name, _) => name.map(str::to_owned),
        },
        Some(Value::String(_)) => text(value.as_ref()).map(str::to_owned),
        Some(_) => return Err("`actor` is a name, or an object with `name` and `role`".into()),
    };
    match named {
        Some(name) if name.len() > limits::PERSON_MAX => {
            Err(format!("`actor` has at most {} bytes", limits::PERSON_MAX))
        }
        named => Ok(named),
    }
}

/// `race_client_uuid` names the race; `race_id` is a number of the sender's own and says nothing here.
fn rename_references(rules: &Rules, fields: &mut Fields) {
    for name in rules.references.keys() {
        fields.remove(&format!("{name}_id"));
        if let Some(value) = fields.remove(&format!("{name}_client_uuid")) {
            fields.insert(name.clone(), value);
        }
    }
}

/// A time that is none: the record's is then the time of its arrival, and it is never taken for another's
/// (TR-02).
fn keep_unread_time(fields: &mut Fields) {
    let unread = |value: &Value| value.as_str().is_none_or(|text| Time::parse(text).is_none());
    if fields.get("created_at").is_some_and(|value| !value.is_null() && unread(value))
        && let Some(sent) = fields.remove("created_at")
    {
        fields.insert(UNREAD_TIME.into(), sent);
    }
}

/// When the edit was made, by the device's own word.
fn author_time(fields: &Fields, offset: Option<i64>) -> Option<AuthorTime> {
    let said = ["updated_at", "decided_at", "officialized_at", "created_at"]
        .into_iter()
        .find_map(|name| fields.get(name).and_then(Value::as_str).and_then(Time::parse));
    said.map(|wall| AuthorTime { offset, ..AuthorTime::wall(wall) })
}
