//! What an app shares among all its spaces: kept once, in a space of its own beside them, where it is decided. A
//! reader of a space reads both as one, so a node that follows holds it in the space that it follows (ADR 0027).

use crate::{Node, ReplicaError};
use ropeway_core::{
    change::{Batch, Change, Op},
    id::{CONFLICT, Collection, Key, RecordId, SpaceId},
    record::Record,
};
use ropeway_store::{SpaceState, StoreError};
use std::sync::PoisonError;

impl Node {
    /// The space in which what the app shares is kept beside this one. `None`: nothing is, or this node follows,
    /// or has followed, and holds it within.
    pub(crate) async fn beside(&self, space: &SpaceId) -> Result<Option<SpaceId>, ReplicaError> {
        let shared = SpaceId::shared();
        if !self.inner.profile.has_shared() || self.inner.follows || *space == shared {
            return Ok(None);
        }
        let known = self.inner.beside.lock().unwrap_or_else(PoisonError::into_inner).get(space).copied();
        let apart = match known {
            Some(apart) => apart,
            None => {
                let apart = !self.has_followed(space).await?;
                self.inner.store.open_space(&shared).await?;
                let mut all = self.inner.beside.lock().unwrap_or_else(PoisonError::into_inner);
                *all.entry(space.clone()).or_insert(apart)
            }
        };
        Ok(apart.then_some(shared))
    }

    async fn has_followed(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        let followed = self.inner.store.followed(space).await?;
        Ok(followed.epoch.is_some() || !self.inner.store.outbox_counts(space).await?.is_empty())
    }

    /// Refuses a space of which a part would be out of sight: what is shared lies within it, or beside it, where
    /// this node does not look for it.
    pub(crate) async fn must_hold_shared(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        let store = &self.inner.store;
        let beside = self.beside(space).await?;
        let (held, why) = match &beside {
            Some(_) => (
                store.collections(space).await?,
                "was written here before the profile shared it, for one space only; nothing was changed; start with \
                 the profile of before, or with a new data directory",
            ),
            None => match store.collections(&SpaceId::shared()).await {
                Err(StoreError::NoSpace(_)) => return Ok(()),
                held => (
                    held?,
                    "is kept here for every space, as one without an upstream does whose profile shares it; nothing \
                     was changed; start as before, or with a new data directory",
                ),
            },
        };
        let misplaced =
            |collection: &&Collection| beside.is_none() || self.inner.profile.is_shared(collection);
        match held.iter().find(misplaced) {
            Some(collection) => Err(ReplicaError::Invalid(format!("`{collection}` {why}"))),
            None => Ok(()),
        }
    }

    /// Where the records of a collection are kept: for conflicts, those of the space before what is shared.
    pub(crate) async fn homes(
        &self,
        space: &SpaceId,
        collection: &str,
    ) -> Result<Vec<SpaceId>, ReplicaError> {
        Ok(match self.beside(space).await? {
            Some(shared) if collection == CONFLICT => vec![space.clone(), shared],
            Some(shared) if self.inner.profile.is_shared(collection) => vec![shared],
            _ => vec![space.clone()],
        })
    }

    /// A space as its readers know it, with what is shared: the newest head of both, and the digest of all.
    pub async fn state(&self, space: &SpaceId) -> Result<SpaceState, ReplicaError> {
        let own = self.inner.store.space(space).await?;
        Ok(match self.beside(space).await? {
            Some(shared) => with(own, &self.inner.store.space(&shared).await?),
            None => own,
        })
    }

    /// One page of a collection that has two homes, in id order.
    pub(crate) async fn list_both(
        &self,
        homes: &[SpaceId],
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, ReplicaError> {
        let mut page = Vec::new();
        for home in homes {
            page.extend(self.inner.store.list(home, collection, after, limit).await?);
        }
        page.sort_by(|(a, _), (b, _)| a.cmp(b));
        page.truncate(limit);
        Ok(page)
    }

    /// A batch in two: what is decided about what is shared, which nothing of the spaces comes before, and the rest;
    /// each with the places of its changes. `None`: it is all the space's own.
    pub(crate) async fn parted(
        &self,
        shared: &SpaceId,
        batch: &Batch,
    ) -> Result<Option<[(Vec<usize>, Batch); 2]>, ReplicaError> {
        let mut of_app = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            of_app.push(self.is_about_shared(shared, change).await?);
        }
        if !of_app.contains(&true) {
            return Ok(None);
        }
        let part = |wanted: bool| {
            let places: Vec<usize> = (0..of_app.len()).filter(|at| of_app[*at] == wanted).collect();
            let changes = places.iter().map(|at| batch.changes[*at].clone()).collect();
            (places, Batch { apart: !wanted, ..batch.with(changes) })
        };
        Ok(Some([part(true), part(false)]))
    }

    /// Whether a change is decided beside the space. A conflict is kept with what it is about.
    pub(crate) async fn is_about_shared(
        &self,
        shared: &SpaceId,
        change: &Change,
    ) -> Result<bool, ReplicaError> {
        let profile = &self.inner.profile;
        if &*change.collection != CONFLICT {
            return Ok(profile.is_shared(&change.collection));
        }
        if change.op == Op::Create {
            let about = change.fields.get("collection").and_then(|value| value.as_str());
            return Ok(about.is_some_and(|collection| profile.is_shared(collection)));
        }
        let key = Key::new(&change.collection, &change.record);
        Ok(!self.inner.store.records(shared, &[key]).await?.is_empty())
    }
}

/// A space with what is shared.
pub(crate) fn with(own: SpaceState, shared: &SpaceState) -> SpaceState {
    SpaceState { head: own.head.max(shared.head), digest: own.digest.plus(shared.digest), ..own }
}
