//! A record as a node holds it.

use crate::{
    change::Author,
    doc::Doc,
    id::{DeviceId, Epoch, RecordId},
    time::{Stamp, Time},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a record is alive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    #[default]
    Live,
    /// A tombstone. Its data is the last there was, so that a deletion can be undone.
    Deleted,
    /// It was found to be the same as this record; its own data is kept for ever.
    Joined(RecordId),
}

/// When and by whom one field was last changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The record's version that the change made.
    #[serde(rename = "v")]
    pub version: u64,
    /// The author's time, corrected and, at the top, clamped to arrival.
    #[serde(rename = "t")]
    pub at: Time,
    /// Who.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// The role under which it was accepted, where the field's rule looks at roles.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Marks of the fields changed since creation. The empty name holds the creation itself, from the first
/// later change on; a record never changed has no marks at all.
pub type Marks = BTreeMap<String, Mark>;

/// What the upstream last said about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The epoch of the upstream in which it said so.
    pub epoch: Epoch,
    /// The record's version there; 0 while it has not said anything.
    pub version: u64,
    /// Its state and data there, kept while changes made here are unsettled.
    pub held: Option<Held>,
}

impl Upstream {
    /// Whether the record has left what this node may see, and stays for what is unsettled here.
    pub(crate) fn has_left(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.left)
    }
}

/// A record's state and data at the upstream, beneath what is laid over it here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// State there.
    pub state: State,
    /// Data there.
    pub data: Doc,
    /// Whether it has left what this node may see: it goes when what is unsettled here is settled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// One record as this node holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The integer that some dialects show (`cloud_id`). Local to the node; 0 until the store gives one.
    pub local_id: i64,
    /// +1 at each accepted change. Local to the node.
    pub version: u64,
    /// Commit position of that version.
    pub stamp: Stamp,
    /// Alive, deleted or joined.
    pub state: State,
    /// The data.
    pub data: Doc,
    /// Field marks.
    pub marks: Marks,
    /// The device that created it: the side that the rule `origin` protects.
    pub owner: DeviceId,
    /// Who made the last accepted change.
    pub author: Author,
    /// When, by the author's corrected clock.
    pub modified_at: Time,
    /// Whether an open conflict names it; of a conflict, whether it is open.
    pub contested: bool,
    /// What the upstream said, on a node that follows one.
    pub upstream: Option<Upstream>,
}

impl Record {
    /// Whether it is live.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Whether this is what an upstream said and nothing made here shows on it: where it came with a first pull that
    /// is not complete, nobody has seen it (I6).
    pub fn is_as_pulled(&self) -> bool {
        self.upstream.as_ref().is_some_and(|u| u.version > 0 && u.held.is_none())
    }

    /// When and by whom `field` got its value: its own mark, or the creation.
    pub fn mark(&self, field: &str) -> Mark {
        match self.marks.get(field).or_else(|| self.marks.get("")) {
            Some(mark) => mark.clone(),
            // Never changed since. A name that was used before does not begin at 1.
            None => Mark {
                version: self.version,
                at: self.modified_at,
                device: self.author.device.clone(),
                role: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::DeviceId, time::Time};

    /// A name whose tombstone was purged begins above it. Whoever saw its earlier life has not seen this one.
    #[test]
    fn a_record_never_changed_was_created_at_its_version() {
        let author = Author { device: DeviceId::trusted("pi"), person: None };
        let record =
            Record { version: 8, ..crate::ingest::work::new_record(Doc::default(), &author, Time(1)) };
        assert_eq!(record.mark("text").version, 8);
    }
}
