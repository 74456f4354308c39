//! Audiences: which readers a record is for (DESIGN §6). A key such as `competition:0198…` stands at a
//! record because of what the record itself says, or `via` a child that cannot be read without it.

use crate::{
    id::{DeviceId, Key},
    time::Stamp,
};
use std::collections::BTreeSet;

/// The key of records that are for every reader of the space.
pub const EVERYBODY: &str = "*";

/// A key that no reader can hold. A record that went carries it where it carried nothing that could be seen to
/// leave: those who see everything are told.
pub const NOBODY: &str = "";

/// One audience row: a record carries a key, or carried it until `left`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AudienceRow {
    /// The record.
    pub record: Key,
    /// The key.
    pub audience: String,
    /// The child that brings the key, where the record does not carry it by itself.
    pub via: Option<Key>,
    /// When it entered: a commit position.
    pub entered: Stamp,
    /// When it left. The row stays as long as a tombstone would, so that readers are told to evict.
    pub left: Option<Stamp>,
}

/// One subscription: a reader sees what carries a key, or did until `left`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// The reader.
    pub reader: DeviceId,
    /// The key.
    pub audience: String,
    /// The membership record that subscribes the reader; `None`: the reader's own choice.
    pub via: Option<Key>,
    /// Since when: a commit position.
    pub entered: Stamp,
    /// Until when.
    pub left: Option<Stamp>,
}

/// The keys that a record carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Worn {
    /// By itself: these flow down to its children.
    pub own: BTreeSet<String>,
    /// Because of a child that needs it: these flow further up, never down.
    pub via: BTreeSet<(Key, String)>,
}

impl Worn {
    /// Reads it from a record's rows; those that left count for nothing.
    pub fn read(rows: &[AudienceRow]) -> Self {
        let mut worn = Self::default();
        for row in rows.iter().filter(|row| row.left.is_none()) {
            match &row.via {
                None => worn.own.insert(row.audience.clone()),
                Some(child) => worn.via.insert((child.clone(), row.audience.clone())),
            };
        }
        worn
    }

    /// Every key, once.
    pub fn keys(&self) -> BTreeSet<&str> {
        self.own.iter().chain(self.via.iter().map(|(_, key)| key)).map(String::as_str).collect()
    }

    /// Who sees the record, as one text: records with the same text share a digest.
    pub fn sight(&self) -> String {
        self.keys().into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// Whether a reader who holds `keys` sees what a [`Worn::sight`] describes.
pub fn sees(keys: &BTreeSet<String>, sight: &str) -> bool {
    sight.split('\n').any(|key| key == EVERYBODY || keys.contains(key))
}

/// The keys that a reader holds now.
pub fn held(subscriptions: &[Subscription]) -> BTreeSet<String> {
    let now = subscriptions.iter().filter(|s| s.left.is_none());
    now.map(|s| s.audience.clone()).collect()
}

/// Whether a text can be a key: `name:value`.
pub fn is_key(text: &str) -> bool {
    let Some((name, value)) = text.split_once(':') else { return false };
    crate::id::is_name(name) && crate::id::RecordId::parse(value).is_ok_and(|id| *id == *value)
}
