//! A conflict: the record of a contest, in the built-in collection `conflict`.

use crate::{
    change::{Author, Base},
    doc::{Doc, Fields},
    id::{ChangeId, Collection, Key, RecordId},
    record::Record,
    time::Time,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was contested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A field or group has two values.
    Fields,
    /// One side deleted what the other edited.
    Deletion,
    /// Two records were joined into one (layer 2); its undo is here too (ISMF-077).
    Join,
    /// Two records look the same, but a rule that parks kept them apart: is it one or two? (CT-15)
    Twins,
    /// A correction made two records alike; they are only flagged.
    Alike,
    /// A child arrived for a deleted parent, or its parent had not come at its last try (CT-23).
    Orphan,
    /// A follower holds the record at a version that this node lost when it was restored: shall it be so
    /// again?
    Lost,
}

/// Whether somebody still has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A person decides.
    Open,
    /// A rule decided at once; the losing value is kept here.
    Automatic,
    /// A person decided.
    Resolved,
}

/// A person's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// What the record held stays. For twins: one, with the earlier record's values.
    Server,
    /// The other value replaces it. For twins: one, with the later record's values.
    Incoming,
    /// Values that a person wrote.
    Merged,
    /// They are two: undoes a join, keeps twins apart for good.
    Apart,
    /// The question is asked again.
    Reopen,
}

/// One side of a contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The values in the contested fields; a field missing here was absent.
    pub values: Fields,
    /// Who.
    pub by: Author,
    /// When, by the author's corrected clock.
    pub at: Time,
    /// Whether this side deleted the record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// The data of a conflict record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The record's collection.
    pub collection: Collection,
    /// The record.
    pub record: RecordId,
    /// For joins, twins and alikes: the other record, the survivor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<RecordId>,
    /// The change that contested.
    pub change: ChangeId,
    /// What was contested.
    pub kind: Kind,
    /// The fields in question, the leading one first.
    pub fields: Vec<String>,
    /// The rule that was asked, by its name in the profile.
    pub rule: String,
    /// For what was lost: the epoch, by which such conflicts are one list, and the record's version in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Base>,
    /// What both sides began from, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Fields>,
    /// What was there.
    pub server: Side,
    /// What came in.
    pub incoming: Side,
    /// Whether somebody still has to answer.
    pub state: Standing,
    /// When it was written.
    pub opened_at: Time,
    /// Whether the clock of the incoming side was never measured in that boot: its time is what the device
    /// showed, uncorrected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
    /// The answer, or the side that the rule took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// What the answer wrote, for merged values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Fields>,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<Author>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

impl Conflict {
    /// Reads a conflict record's data. `None` when it is not one.
    pub fn read(data: &Doc) -> Option<Self> {
        serde_json::from_str(data.text()).ok()
    }

    /// Its data.
    pub fn write(&self) -> Doc {
        let value = serde_json::to_value(self).unwrap_or(Value::Null);
        let fields: Fields = match value {
            Value::Object(map) => map.into_iter().collect(),
            _ => Fields::new(),
        };
        Doc::of(fields)
    }

    /// Whether a person still has to answer.
    pub fn is_open(&self) -> bool {
        self.state == Standing::Open
    }

    /// The record it is about.
    pub fn about(&self) -> Key {
        Key::new(&self.collection, &self.record)
    }

    /// Every record that it names: the one it is about, and the other one.
    pub fn names(&self) -> Vec<Key> {
        let other = self.other.iter().map(|id| Key::new(&self.collection, id));
        std::iter::once(self.about()).chain(other).collect()
    }

    /// The fields of a change that answers a conflict.
    pub fn answer(resolution: Resolution, data: Option<Fields>, notes: Option<String>) -> Fields {
        let mut fields = Fields::new();
        fields.insert("resolution".into(), serde_json::to_value(resolution).unwrap_or(Value::Null));
        if let Some(data) = data {
            fields.insert("merged".into(), Value::Object(data.into_iter().collect()));
        }
        if let Some(notes) = notes {
            fields.insert("notes".into(), Value::String(notes));
        }
        fields
    }

    /// Reads a change that answers a conflict. The error says what is wrong with it.
    pub fn read_answer(fields: &Fields) -> Result<(Resolution, Option<Fields>, Option<String>), String> {
        let unknown = fields.keys().find(|k| !matches!(k.as_str(), "resolution" | "merged" | "notes"));
        if let Some(unknown) = unknown {
            return Err(format!(
                "a conflict is answered with `resolution`, `merged` and `notes`, not `{unknown}`"
            ));
        }
        let word = fields.get("resolution").cloned().unwrap_or(Value::Null);
        let resolution: Resolution = serde_json::from_value(word)
            .map_err(|_| "`resolution` must be server, incoming, merged, apart or reopen".to_owned())?;
        let merged = match fields.get("merged") {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map.clone().into_iter().collect()),
            Some(_) => return Err("`merged` must be an object of field values".into()),
        };
        if (resolution == Resolution::Merged) != merged.is_some() {
            return Err("`merged` values belong to the resolution `merged` and to no other".into());
        }
        let notes = match fields.get("notes") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= 10_000 => Some(text.clone()),
            Some(_) => return Err("`notes` must be a text of at most 10000 bytes".into()),
        };
        Ok((resolution, merged, notes))
    }
}

/// Whether this record is a conflict that a person still has to answer.
pub fn is_open(record: &Record) -> bool {
    record.is_live() && record.data.str("state") == Some("open")
}
