//! Who sees what: subscriptions, the feed of a reader who does not see everything, and what is hidden.

use crate::{FeedRequest, Node, ReplicaError, ServedPage};
use ropeway_core::{
    audience::{self, Worn},
    id::{Key, RecordId, SpaceId},
    ingest,
    plan::{Decision, Keys},
    planted::{self, Bug},
};
use ropeway_store::{Decide, Device, Reader};
use std::collections::BTreeSet;

/// Subscriptions that one device may hold by its own choice.
const CHOICES_MAX: usize = 1_000;
/// How often the records of a space are listed again because another process wrote meanwhile.
const ATTEMPTS: usize = 50;
/// Records listed at once.
const LISTED: usize = 1_000;

impl Node {
    /// Gives the records that are there already their audiences, where the profile had none when they were
    /// written, whatever was written since. Done once, in one transaction.
    pub(crate) async fn gain_audiences(&self, space: &SpaceId) -> Result<(), ReplicaError> {
        let (store, profile) = (&self.inner.store, self.inner.profile.clone());
        let name = format!("audiences.{space}");
        if !profile.has_audiences() || store.meta(&name).await?.as_deref() == Some("1") {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let listed = store.space(space).await?.head;
            let keys = self.all_keys(space).await?;
            let profile = profile.clone();
            let decide: Decide = Box::new(move |snapshot| ingest::fill(snapshot, &keys, listed, &profile));
            let plan = store.transact(space, self.inner.clock.now(), Keys::default(), decide).await?;
            // Else another process wrote meanwhile.
            if plan.sights_anew {
                if !plan.audiences.is_empty() {
                    tracing::info!(%space, rows = plan.audiences.len(), "the records were given their audiences");
                }
                return Ok(store.put_meta(&name, "1").await?);
            }
        }
        let text =
            "others write while the records are given their audiences; nothing was changed, start again";
        Err(ReplicaError::Busy(text.into()))
    }

    async fn all_keys(&self, space: &SpaceId) -> Result<Vec<Key>, ReplicaError> {
        let store = &self.inner.store;
        let mut keys: Vec<Key> = Vec::new();
        for collection in store.collections(space).await? {
            let mut after: Option<RecordId> = None;
            loop {
                let page = store.list(space, &collection, after.as_ref(), LISTED).await?;
                keys.extend(page.iter().map(|(id, _)| Key::new(&collection, id)));
                let Some((last, _)) = page.into_iter().nth(LISTED - 1) else { break };
                after = Some(last);
            }
        }
        Ok(keys)
    }

    /// Reads one page of the feed as a device sees it. `only`: of what it sees, only these keys and what is
    /// for everybody; empty: all of it. Errors as [`Node::feed`].
    pub async fn feed_to(
        &self,
        device: &Device,
        only: &[String],
        request: &FeedRequest,
    ) -> Result<ServedPage, ReplicaError> {
        let (space, profile) = (&device.space, &self.inner.profile);
        let all = profile.sees_all(&device.role) || planted::has(Bug::OpenFeed);
        let partial = profile.has_audiences() && self.inner.store.followed(space).await?.audiences.is_some();
        if all && only.is_empty() && !partial {
            return self.feed(space, request).await;
        }
        let reader = Reader {
            device: (!all).then(|| device.id.clone()),
            only: (!only.is_empty()).then(|| only.iter().cloned().collect()),
            all: all && only.is_empty(),
            open: ingest::open_collections(profile),
            node: self.inner.device.clone(),
        };
        self.page(space, Some(reader), request).await
    }

    /// The keys that a device is subscribed to; `None`: it sees everything.
    pub async fn subscriptions(&self, device: &Device) -> Result<Option<Vec<String>>, ReplicaError> {
        if self.inner.profile.sees_all(&device.role) {
            return Ok(None);
        }
        let found = self.inner.store.subscriptions(&device.space, &device.id).await?;
        Ok(Some(audience::held(&found).into_iter().collect()))
    }

    /// Subscribes a device to a key, or ends that. Whether anything carries the key makes no difference, and
    /// is not told. Errors: [`ReplicaError::Forbidden`] where its role may not choose this key, or where
    /// this node itself does not hold it; [`ReplicaError::Invalid`] where the text is no key.
    pub async fn subscribe(&self, device: &Device, key: &str, on: bool) -> Result<(), ReplicaError> {
        if !audience::is_key(key) {
            return Err(ReplicaError::Invalid("an audience is written `name:value`".into()));
        }
        if !self.inner.profile.may_choose(&device.role, key) {
            let text = format!("the role `{}` may not choose audiences of this kind", device.role);
            return Err(ReplicaError::Forbidden(text));
        }
        if on {
            self.must_hold(&device.space, key).await?;
            let there = self.inner.store.subscriptions(&device.space, &device.id).await?;
            let held = audience::held(&there);
            if held.len() >= CHOICES_MAX && !held.contains(key) {
                let text = format!("a device may hold {CHOICES_MAX} audiences; end one first");
                return Err(ReplicaError::TooLarge(text));
            }
        }
        let (reader, key) = (device.id.clone(), key.to_owned());
        let keys = Keys { readers: BTreeSet::from([reader.clone()]), ..Keys::default() };
        let decide: Decide =
            Box::new(move |snapshot| Decision::Plan(Box::new(ingest::choose(snapshot, &reader, &key, on))));
        let plan = self.inner.store.transact(&device.space, self.inner.clock.now(), keys, decide).await?;
        self.announce(&device.space, plan.head);
        Ok(())
    }

    /// A node in the middle can give only what it has.
    async fn must_hold(&self, space: &SpaceId, key: &str) -> Result<(), ReplicaError> {
        let held = self.inner.store.followed(space).await?.audiences;
        if held.is_some_and(|held| !held.iter().any(|k| k == key)) {
            let text = "this node does not follow that audience itself: download it here first";
            return Err(ReplicaError::Forbidden(text.into()));
        }
        Ok(())
    }

    /// Whether a device sees a record that is here.
    pub async fn sees(&self, device: &Device, key: &Key) -> Result<bool, ReplicaError> {
        let profile = &self.inner.profile;
        let open = profile.rules(&key.collection).is_some_and(|rules| rules.audience.is_none());
        if profile.sees_all(&device.role) || open {
            return Ok(true);
        }
        if let Some(shared) = self.beside(&device.space).await?
            && !self.inner.store.records(&shared, std::slice::from_ref(key)).await?.is_empty()
        {
            return Ok(true);
        }
        let held = self.inner.store.subscriptions(&device.space, &device.id).await?;
        let rows = self.inner.store.audiences(&device.space, std::slice::from_ref(key)).await?;
        Ok(audience::sees(&audience::held(&held), &Worn::read(&rows).sight()))
    }
}
