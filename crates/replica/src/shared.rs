//! What an app shares among all its spaces: kept once, in a space of its own beside them, where it is decided. A
//! reader of a space reads both as one, so a node that follows holds it in the space that it follows (ADR 0027).

use crate::{Node, ReplicaError};
use ropeway_core::{
    change::{Batch, Change, Op},
    id::{CONFLICT, Collection, Key, RecordId, SpaceId},
    record::Record,
    time::Stamp,
};
use ropeway_store::{SpaceState, StoreError};
use std::{collections::BTreeSet, sync::PoisonError};

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
                if apart {
                    self.inner.store.open_space(&shared).await?;
                }
                let mut all = self.inner.beside.lock().unwrap_or_else(PoisonError::into_inner);
                *all.entry(space.clone()).or_insert(apart)
            }
        };
        Ok(apart.then_some(shared))
    }

    /// Refuses a space in which nobody is registered: one that is not there, and that of what is shared.
    pub(crate) async fn must_be_a_tenant(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        if *space == SpaceId::shared() {
            let text =
                "what is shared belongs to every space: register whoever writes it in a space of their own";
            return Err(ReplicaError::Invalid(text.into()));
        }
        Ok(self.inner.store.space(space).await.map(drop)?)
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

    /// The head of a space, and of what is shared beside it.
    pub async fn newest(&self, space: &SpaceId) -> Result<(Stamp, Option<Stamp>), ReplicaError> {
        let own = self.inner.store.space(space).await?.head;
        Ok(match self.beside(space).await? {
            Some(shared) => (own, Some(self.inner.store.space(&shared).await?.head)),
            None => (own, None),
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

    /// A batch as it is decided: what is about what is shared apart from the rest.
    pub(crate) async fn parted(&self, space: &SpaceId, batch: Batch) -> Result<Parted, ReplicaError> {
        let Some(shared) = self.beside(space).await? else { return Ok(Parted::Whole(batch)) };
        let of_app = self.about_shared(&shared, &batch).await?;
        if !of_app.contains(&true) {
            return Ok(Parted::Whole(Batch { apart: true, ..batch }));
        }
        let part = |wanted: bool| {
            let places: Vec<usize> = (0..of_app.len()).filter(|at| of_app[*at] == wanted).collect();
            let changes = places.iter().map(|at| batch.changes[*at].clone()).collect();
            (places, Batch { apart: !wanted, ..batch.with(changes) })
        };
        Ok(Parted::Both { theirs: part(true), own: part(false), shared })
    }

    /// Which changes of a batch are decided beside the space. A conflict is kept with what it is about. What a role may
    /// not write is refused without a look at what is shared.
    async fn about_shared(&self, shared: &SpaceId, batch: &Batch) -> Result<Vec<bool>, ReplicaError> {
        let profile = &self.inner.profile;
        let is_answer = |change: &&Change| &*change.collection == CONFLICT && change.op != Op::Create;
        let keys: Vec<Key> = batch.changes.iter().filter(is_answer).map(Change::key).collect();
        let mut open = BTreeSet::new();
        if !keys.is_empty() {
            open.extend(self.inner.store.records(shared, &keys).await?.into_iter().map(|(key, _)| key));
        }
        let is_about = |change: &Change| match &*change.collection {
            CONFLICT if change.op == Op::Create => {
                let about = change.fields.get("collection").and_then(|value| value.as_str());
                about.is_some_and(|collection| profile.is_shared(collection))
            }
            CONFLICT => open.contains(&change.key()),
            collection => {
                let may = change.lost.is_some() || profile.may_write(&batch.grant.role, collection);
                may && profile.is_shared(collection)
            }
        };
        Ok(batch.changes.iter().map(is_about).collect())
    }
}

/// Changes with their places in the batch that they came in.
type Part = (Vec<usize>, Batch);

/// A batch as it is decided.
pub(crate) enum Parted {
    /// At once, in the space.
    Whole(Batch),
    /// In two: nothing that is shared refers to anything of a space, so that goes first.
    Both {
        /// The space of what is shared.
        shared: SpaceId,
        /// What is decided there.
        theirs: Part,
        /// The rest.
        own: Part,
    },
}

/// What came of two parts, in the order of the batch that they were.
pub(crate) fn in_order<T>(parts: [(Vec<usize>, Vec<T>); 2]) -> Vec<T> {
    let mut all: Vec<(usize, T)> =
        parts.into_iter().flat_map(|(at, what)| at.into_iter().zip(what)).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, what)| what).collect()
}

/// A space with what is shared.
pub(crate) fn with(own: SpaceState, shared: &SpaceState) -> SpaceState {
    SpaceState { head: own.head.max(shared.head), digest: own.digest.plus(shared.digest), ..own }
}
