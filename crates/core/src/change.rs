//! A change: one intended edit, with what its author saw. And what an author may do.

use crate::{
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, Epoch, Key, RecordId},
    time::AuthorTime,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, num::NonZeroUsize};

/// What a change wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The record is new to its author.
    Create,
    /// Only the named fields.
    Patch,
    /// The record shall go.
    Delete,
}

/// Who made a change: a device, and the person at it as the device says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Author {
    /// The device.
    pub device: DeviceId,
    /// The person, as evidence: a role is judged by the grant, not by this (DESIGN §6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
}

/// The version of the record on which an edit was made, with the epoch of the node that issued it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The epoch that issued the version: a version of another epoch is no base.
    pub epoch: Epoch,
    /// The record's version there.
    pub version: u64,
}

/// One intended edit. Immutable but for its base, which a relaying node replaces by its own upstream's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The idempotency key.
    pub id: ChangeId,
    /// The collection.
    pub collection: Collection,
    /// The record's id.
    pub record: RecordId,
    /// What it wants.
    pub op: Op,
    /// The wanted values. Empty for a deletion.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What the author saw in the fields named; a field missing here was absent. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Fields>,
    /// The version on which the edit was made, when its author saw exactly that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Where this is no edit but a record as it was at a version of an epoch that the upstream has lost: that
    /// version, 0 for a value that waited beside the record. A person decides it, never a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Base>,
    /// Who made it.
    pub author: Author,
    /// What the author's clock said. `None`: the dialect carries no time; arrival counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<AuthorTime>,
}

impl Change {
    /// The record it names.
    pub fn key(&self) -> Key {
        Key::new(&self.collection, &self.record)
    }

    /// What makes two changes of one id the same: everything but the base, which relays replace, and what
    /// the author's clock said, so that a person may give the same command again (I1).
    pub fn content_hash(&self) -> u64 {
        let mut text = String::with_capacity(256);
        for part in [&*self.collection, &*self.record, &*self.author.device] {
            text.push_str(part);
            text.push('\n');
        }
        text.push_str(match self.op {
            Op::Create => "create",
            Op::Patch => "patch",
            Op::Delete => "delete",
        });
        text.push_str(self.fields.text());
        if let Some(seen) = &self.seen {
            text.push_str(seen.text());
        }
        if let Some(lost) = &self.lost {
            text.push('!');
            text.push_str(&lost.epoch);
            text.push_str(&lost.version.to_string());
        }
        if let Some(person) = &self.author.person {
            text.push('@');
            text.push_str(person);
        }
        crate::digest::hash64(text.as_bytes())
    }
}

/// Where a batch of changes comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// This node's own desk: a local person or program.
    Desk,
    /// A device that pushes.
    Push,
}

/// What the deciding node grants to whoever brought a batch: judged at arrival, never from the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The door.
    pub door: Door,
    /// The device that authenticated; at the desk, this node's own.
    pub device: DeviceId,
    /// The role granted, named in the profile.
    pub role: String,
}

/// Changes that came in together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who brought them.
    pub grant: Grant,
    /// The changes, in the order to decide them.
    pub changes: Vec<Change>,
    /// Whether whoever brought them may ask again by change id. An edit whose id this node draws itself
    /// is asked about by nobody, and costs no receipt.
    pub repeatable: bool,
    /// Changes that whoever brought them tries for the last time: where a parent has not come, a person is
    /// asked, and nobody waits any more (CT-23).
    pub last: BTreeSet<ChangeId>,
    /// The epoch of which whoever brought them takes this node to be; `None`: not said. In another one nothing of
    /// them is decided: what was lost with the former one comes first.
    pub epoch: Option<Epoch>,
    /// Whether records of collections that are shared are kept beside the space in which it is decided.
    pub apart: bool,
}

impl Batch {
    /// Changes that are tried again by themselves.
    pub fn new(grant: Grant, changes: Vec<Change>) -> Self {
        Self { grant, changes, repeatable: true, last: BTreeSet::new(), epoch: None, apart: false }
    }

    /// Other changes that came in the same way.
    pub fn with(&self, changes: Vec<Change>) -> Self {
        let Self { grant, last, epoch, .. } = self;
        let (grant, last, epoch) = (grant.clone(), last.clone(), epoch.clone());
        Self { grant, changes, repeatable: self.repeatable, last, epoch, apart: self.apart }
    }

    /// The same changes in the same order, in batches of at least `about` and not twice as many.
    pub fn cut(mut self, about: NonZeroUsize) -> Vec<Self> {
        let parts = (self.changes.len() / about).max(1);
        let each = self.changes.len().div_ceil(parts).max(1);
        let mut cut = Vec::with_capacity(parts);
        while self.changes.len() > each {
            let rest = self.changes.split_off(each);
            let changes = std::mem::replace(&mut self.changes, rest);
            cut.push(self.with(changes));
        }
        cut.push(self);
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::RecordId,
        time::{AuthorTime, Time},
    };

    #[test]
    fn a_cut_batch_is_the_same_changes_in_order() {
        let change = |n: usize| Change {
            id: ChangeId::trusted(format!("c{n}")),
            collection: Collection::trusted("note"),
            record: RecordId::trusted("r"),
            op: Op::Create,
            fields: Fields::default(),
            seen: None,
            base: None,
            lost: None,
            author: Author { device: DeviceId::trusted("pi"), person: None },
            at: Some(AuthorTime::wall(Time(1))),
        };
        let grant = Grant { door: Door::Push, device: DeviceId::trusted("pi"), role: "admin".into() };
        let about = NonZeroUsize::new(10).unwrap();
        for (all, sizes) in [
            (0, vec![0]),
            (9, vec![9]),
            (19, vec![19]),
            (20, vec![10, 10]),
            (35, vec![12, 12, 11]),
            (40, vec![10, 10, 10, 10]),
        ] {
            let changes: Vec<Change> = (0..all).map(change).collect();
            let epoch = Some(Epoch::trusted("e1"));
            let batch = Batch { repeatable: false, epoch, ..Batch::new(grant.clone(), changes.clone()) };
            let cut = batch.cut(about);
            assert_eq!(cut.iter().map(|part| part.changes.len()).collect::<Vec<_>>(), sizes);
            assert!(cut.iter().all(|part| !part.repeatable && part.epoch.as_deref() == Some("e1")));
            assert_eq!(cut.into_iter().flat_map(|part| part.changes).collect::<Vec<_>>(), changes);
        }
    }
}
