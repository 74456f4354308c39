//! Room 0, the desk: a local edit is ingest with the local person as author. It never waits for a network.

use crate::{Node, ReplicaError, shared::Parted};
use ropeway_core::{
    change::{Author, Base, Batch, Change, Door, Grant, Op},
    doc::Fields,
    id::{ChangeId, Collection, RecordId, SpaceId},
    receipt::Receipt,
};
use std::sync::Arc;

/// Who sits at the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desk {
    /// The person.
    pub person: Option<String>,
    /// Their role in the profile.
    pub role: String,
}

/// A local edit.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The change's id where the caller has one, so that the caller may repeat itself safely.
    pub change: Option<ChangeId>,
    /// The collection.
    pub collection: Collection,
    /// The record; `None` makes a new one.
    pub record: Option<RecordId>,
    /// Create, patch or delete. A patch of a record that is not here creates it.
    pub op: Op,
    /// The wanted values.
    pub fields: Fields,
    /// The version that the person had on the screen. `None`: the one stored now.
    pub version: Option<u64>,
}

impl Node {
    /// Makes a local edit. When this returns, the edit, its outbox entry and its stamp are durable.
    pub async fn write(&self, space: &SpaceId, desk: &Desk, edit: Edit) -> Result<Receipt, ReplicaError> {
        let repeatable = edit.change.is_some();
        let id = match edit.change {
            Some(id) => id,
            None => ChangeId::parse(&self.inner.ids.id())?,
        };
        let record = match edit.record {
            Some(record) => record,
            None => RecordId::parse(&self.inner.ids.id())?,
        };
        let change = Change {
            id,
            collection: edit.collection,
            record,
            op: edit.op,
            fields: edit.fields,
            seen: None,
            base: match edit.version {
                Some(version) => Some(Base { epoch: self.inner.store.space(space).await?.epoch, version }),
                None => None,
            },
            lost: None,
            author: Author { device: self.inner.device.clone(), person: desk.person.clone() },
            at: Some(self.author_time()),
        };
        let grant = Grant { door: Door::Desk, device: self.inner.device.clone(), role: desk.role.clone() };
        let batch = Batch { repeatable, ..Batch::new(grant, vec![change]) };
        let mut receipts = match self.parted(space, batch).await? {
            Parted::Whole(batch) => self.decide(space, Arc::new(batch)).await?.receipts,
            Parted::Both { shared, theirs, .. } => self.decide(&shared, Arc::new(theirs.1)).await?.receipts,
        };
        receipts.pop().ok_or_else(|| ReplicaError::Invalid("the edit was empty".into()))
    }
}
