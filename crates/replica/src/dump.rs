//! What is there: one record, a collection, or everything in canonical form for comparing replicas.

use crate::{Node, ReplicaError};
use ropeway_core::{
    conflict,
    id::{CONFLICT, Collection, Key, RecordId, SpaceId},
    plan::Superseded,
    record::{Record, State},
};
use std::collections::BTreeMap;

const PAGE: usize = 2_000;

impl Node {
    /// One record as it is stored; a joined one with its survivor's name in its state.
    pub async fn get(&self, space: &SpaceId, key: &Key) -> Result<Option<Record>, ReplicaError> {
        Ok(self.get_all(space, std::slice::from_ref(key)).await?.remove(key))
    }

    /// These records as they are stored, those that are here, in one read.
    pub async fn get_all(
        &self,
        space: &SpaceId,
        keys: &[Key],
    ) -> Result<BTreeMap<Key, Record>, ReplicaError> {
        let mut found = BTreeMap::new();
        if let Some(shared) = self.beside(space).await? {
            found.extend(self.inner.store.records(&shared, keys).await?);
        }
        found.extend(self.inner.store.records(space, keys).await?);
        Ok(found)
    }

    /// A record through `joined_into`: the survivor's name and record.
    pub async fn resolve_record(
        &self,
        space: &SpaceId,
        key: &Key,
    ) -> Result<Option<(Key, Record)>, ReplicaError> {
        let mut key = key.clone();
        for _ in 0..ropeway_core::limits::JOIN_CHAIN_MAX {
            match self.get(space, &key).await? {
                Some(Record { state: State::Joined(survivor), .. }) => {
                    key = Key::new(&key.collection, &survivor)
                }
                other => return Ok(other.map(|record| (key, record))),
            }
        }
        Ok(None)
    }

    /// One page of a collection in id order, tombstones and joined rows included.
    pub async fn list(
        &self,
        space: &SpaceId,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, ReplicaError> {
        match &*self.homes(space, collection).await? {
            [home] => Ok(self.inner.store.list(home, collection, after, limit).await?),
            homes => self.list_both(homes, collection, after, limit).await,
        }
    }

    /// Shows the records of a collection one after the other, by id, read page by page.
    pub async fn each_record(
        &self,
        space: &SpaceId,
        collection: &Collection,
        mut visit: impl FnMut(RecordId, Record) + Send,
    ) -> Result<(), ReplicaError> {
        const PAGE: usize = 1_000;
        let mut after: Option<RecordId> = None;
        loop {
            let page = self.list(space, collection, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(id, _)| id.clone());
            page.into_iter().for_each(|(id, record)| visit(id, record));
            if is_last {
                return Ok(());
            }
        }
    }

    /// The collections that have records here, by name. An older profile knows fewer than there are (GP-04).
    pub async fn collections(&self, space: &SpaceId) -> Result<Vec<Collection>, ReplicaError> {
        let mut found = self.inner.store.collections(space).await?;
        if let Some(shared) = self.beside(space).await? {
            found.extend(self.inner.store.collections(&shared).await?);
            found.sort();
            found.dedup();
        }
        Ok(found)
    }

    /// Superseded versions of a record, newest first.
    pub async fn history(&self, space: &SpaceId, key: &Key) -> Result<Vec<Superseded>, ReplicaError> {
        let mut found = Vec::new();
        for home in self.homes(space, &key.collection).await? {
            found.extend(self.inner.store.history(&home, key).await?);
        }
        Ok(found)
    }

    /// Writes every live record, joined row and open conflict, one canonical JSON line each, sorted by
    /// collection and id: byte for byte equal on replicas that agree (I4). Nothing else is compared.
    pub async fn dump_canonical(
        &self,
        space: &SpaceId,
        mut line: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<u64, ReplicaError> {
        let mut count = 0;
        for collection in self.collections(space).await? {
            let mut after: Option<RecordId> = None;
            loop {
                let page = self.list(space, &collection, after.as_ref(), PAGE).await?;
                for (id, record) in &page {
                    let Some(text) = canonical(&collection, id, record) else { continue };
                    count += 1;
                    line(&text).map_err(ReplicaError::Output)?;
                }
                after = page.last().map(|(id, _)| id.clone());
                if page.len() < PAGE {
                    break;
                }
            }
        }
        Ok(count)
    }
}

fn canonical(collection: &str, id: &RecordId, record: &Record) -> Option<String> {
    let data = record.data.text();
    match &record.state {
        State::Deleted => None,
        State::Live if collection == CONFLICT && !conflict::is_open(record) => None,
        State::Live => Some(format!(r#"{{"collection":"{collection}","id":"{id}","data":{data}}}"#)),
        State::Joined(into) => Some(format!(
            r#"{{"collection":"{collection}","id":"{id}","joined_into":"{into}","data":{data}}}"#
        )),
    }
}
