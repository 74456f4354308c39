//! The store on PostgreSQL: for nodes whose data lives on a database server, and for several servers of
//! one node.

mod address;
mod apply;
mod audience;
mod audit;
mod conn;
mod epoch;
mod errors;
mod feed;
mod follow;
mod lineage;
mod load;
mod news;
mod open;
mod outbox;
mod purge;
mod quarantine;
mod registry;
mod resync;
mod rows;
mod schema;
mod space;
mod transact;
mod transfer;
mod views;

pub use open::PostgresOptions;
pub use transfer::{Alone, Progress};

use crate::{
    Absorb, Audit, Counts, Decide, Device, Durability, FeedPage, Followed, Member, News, Place, Portion,
    PullEnd, Purged, Reader, ReaderPage, SpaceState, Store, StoreError, SyncRun, Walk, reading,
};
use address::Address;
use async_trait::async_trait;
use conn::Db;
use news::Bus;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    epoch::Gap,
    id::{Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::{Fed, Keys, Plan, Sealed, Superseded},
    profile::Profile,
    record::Record,
    retention::Lines,
    time::{Stamp, Time},
};
use space::Space;
use std::{num::NonZeroUsize, sync::Arc};
use transact::Queues;

/// A node's records in one PostgreSQL database. Several servers may have it open at the same time.
pub struct PostgresStore {
    db: Db,
    /// As people know it: no address, no password.
    name: String,
    is_new: bool,
    news: Arc<Bus>,
    queues: Queues,
}

impl PostgresStore {
    /// Connects to the database and brings its schema up to date; begins a node where there is none.
    ///
    /// Errors: [`StoreError::Unavailable`] where it cannot be reached or does not keep what it promises
    /// (`fsync=off`), [`StoreError::TooNew`] for the database of a newer program.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let opened = open::open(&options, true).await?;
        let (db, is_new) = opened.ok_or_else(|| errors::corrupt("a node was begun and is not there"))?;
        Self::on(&options, db, is_new)
    }

    /// The same, where a node was begun in the database; otherwise nothing is changed.
    pub async fn find(options: PostgresOptions) -> Result<Option<Self>, StoreError> {
        let opened = open::open(&options, false).await?;
        opened.map(|(db, is_new)| Self::on(&options, db, is_new)).transpose()
    }

    fn on(options: &PostgresOptions, db: Db, is_new: bool) -> Result<Self, StoreError> {
        let address = Address::read(&options.url)?;
        let name = format!("the database {}", address.config.get_dbname().unwrap_or_default());
        let news = Bus::new(address, db.clone());
        Ok(Self { db, name, is_new, news, queues: Queues::default() })
    }

    /// Whether an address can be understood. The error tells nothing that it holds.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        Address::read(url).map(drop)
    }

    /// Whether opening it began a node.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn news(&self) -> Option<Arc<dyn News>> {
        Some(self.news.clone())
    }

    fn batch_changes(&self) -> Option<NonZeroUsize> {
        Some(transact::BATCH)
    }

    async fn open_space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        self.db
            .write(space.clone(), |tx, id| Box::pin(async move { Ok(Space::create(tx, id).await?.state()) }))
            .await
    }

    async fn space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        self.db
            .once(space.clone(), |tx, id| Box::pin(async move { Ok(Space::read(tx, id).await?.state()) }))
            .await
    }

    async fn transact(
        &self,
        space: &SpaceId,
        now: Time,
        keys: Keys,
        decide: Decide,
    ) -> Result<Plan, StoreError> {
        self.queues.transact(&self.db, space, now, keys, decide).await
    }

    async fn feed(
        &self,
        space: &SpaceId,
        after: Stamp,
        limit: usize,
        collections: &[Collection],
    ) -> Result<FeedPage, StoreError> {
        let ask = feed::Ask { space: space.clone(), after, limit, collections: collections.to_vec() };
        self.db.read(ask, |tx, ask| Box::pin(feed::feed(tx, ask))).await
    }

    async fn feed_to(
        &self,
        space: &SpaceId,
        reader: &Reader,
        place: Place,
        limit: usize,
        collections: &[Collection],
    ) -> Result<ReaderPage, StoreError> {
        let ask = (space.clone(), reader.clone(), place, limit, collections.to_vec());
        self.db
            .read(ask, |tx, (space, reader, place, limit, collections)| {
                Box::pin(async move {
                    let space = Space::read(tx, space).await?;
                    let mut shelf = audience::Open::new(tx, space);
                    reading::page(&mut shelf, reader, *place, *limit, collections).await
                })
            })
            .await
    }

    async fn audiences(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<AudienceRow>, StoreError> {
        self.db
            .read((space.clone(), keys.to_vec()), |tx, (space, keys)| {
                Box::pin(
                    async move { audience::rows_of(tx, Space::read(tx, space).await?.no, keys.iter()).await },
                )
            })
            .await
    }

    async fn subscriptions(
        &self,
        space: &SpaceId,
        reader: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError> {
        self.db
            .read((space.clone(), [reader.clone()]), |tx, (space, readers)| {
                Box::pin(async move {
                    audience::subscriptions(tx, Space::read(tx, space).await?.no, readers.iter()).await
                })
            })
            .await
    }

    async fn list(
        &self,
        space: &SpaceId,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let ask = (space.clone(), collection.clone(), after.cloned(), limit);
        self.db
            .read(ask, |tx, (space, collection, after, limit)| {
                Box::pin(feed::list(tx, space, collection, after.as_ref(), *limit))
            })
            .await
    }

    async fn collections(&self, space: &SpaceId) -> Result<Vec<Collection>, StoreError> {
        self.db.read(space.clone(), |tx, space| Box::pin(feed::collections(tx, space))).await
    }

    async fn contested(&self, space: &SpaceId, collection: &Collection) -> Result<u64, StoreError> {
        let ask = (space.clone(), collection.clone());
        self.db.read(ask, |tx, (space, collection)| Box::pin(feed::contested(tx, space, collection))).await
    }

    async fn records(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<(Key, Record)>, StoreError> {
        let ask = (space.clone(), keys.to_vec());
        self.db.read(ask, |tx, (space, keys)| Box::pin(feed::records(tx, space, keys))).await
    }

    async fn history(&self, space: &SpaceId, key: &Key) -> Result<Vec<Superseded>, StoreError> {
        let ask = (space.clone(), key.clone());
        self.db.read(ask, |tx, (space, key)| Box::pin(feed::history(tx, space, key))).await
    }

    async fn outbox(
        &self,
        space: &SpaceId,
        states: &[EntryState],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let ask = (space.clone(), states.to_vec(), after, limit);
        self.db
            .read(ask, |tx, (space, states, after, limit)| {
                Box::pin(async move {
                    let space = Space::read(tx, space).await?.no;
                    outbox::list(tx, space, states, *after, *limit).await
                })
            })
            .await
    }

    async fn outbox_counts(&self, space: &SpaceId) -> Result<Counts, StoreError> {
        self.db
            .read(space.clone(), |tx, space| {
                Box::pin(async move { outbox::counts(tx, Space::read(tx, space).await?.no).await })
            })
            .await
    }

    async fn sealed(&self, space: &SpaceId) -> Result<Option<Sealed>, StoreError> {
        self.db
            .read(space.clone(), |tx, space| {
                Box::pin(async move { outbox::sealed(tx, Space::read(tx, space).await?.no).await })
            })
            .await
    }

    async fn followed(&self, space: &SpaceId) -> Result<Followed, StoreError> {
        self.db
            .read(space.clone(), |tx, space| {
                Box::pin(async move { follow::followed(tx, Space::read(tx, space).await?.no).await })
            })
            .await
    }

    async fn stage(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        rows: Vec<Fed>,
        upto: &str,
    ) -> Result<(), StoreError> {
        let page = (space.clone(), epoch.clone(), rows, upto.to_owned());
        self.db
            .write(page, |tx, (space, epoch, rows, upto)| {
                Box::pin(follow::stage(tx, space, epoch, rows, upto))
            })
            .await
    }

    async fn portion(
        &self,
        space: &SpaceId,
        now: Time,
        portion: Portion,
        absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let page = (space.clone(), now, portion, absorb);
        self.db
            .write(page, |tx, (space, now, portion, absorb)| {
                Box::pin(follow::portion(tx, space, *now, portion, absorb))
            })
            .await
    }

    async fn unstage(&self, space: &SpaceId) -> Result<(), StoreError> {
        self.db.write(space.clone(), |tx, space| Box::pin(follow::unstage(tx, space))).await
    }

    async fn pull_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        self.db.write(space.clone(), |tx, space| Box::pin(resync::pull_anew(tx, space))).await
    }

    async fn unseen(
        &self,
        space: &SpaceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>, StoreError> {
        self.db
            .read((space.clone(), after.cloned(), limit), |tx, (space, after, limit)| {
                Box::pin(async move {
                    resync::unseen(tx, Space::read(tx, space).await?.no, after.as_ref(), *limit).await
                })
            })
            .await
    }

    async fn pulled_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        self.db.write(space.clone(), |tx, space| Box::pin(resync::pulled_anew(tx, space))).await
    }

    async fn absorb(
        &self,
        space: &SpaceId,
        now: Time,
        end: PullEnd,
        absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let pull = (space.clone(), now, end, absorb);
        self.db
            .write(pull, |tx, (space, now, end, absorb)| {
                Box::pin(follow::absorb(tx, space, *now, end, absorb))
            })
            .await
    }

    async fn install_views(&self, profile: &Profile) -> Result<(), StoreError> {
        let texts = views::texts(profile);
        self.db.write(texts, |tx, texts| Box::pin(views::install(tx, texts))).await
    }

    async fn add_device(&self, device: &Device) -> Result<bool, StoreError> {
        self.db.write(device.clone(), |tx, device| Box::pin(registry::add_device(tx, device))).await
    }

    async fn put_device(&self, device: &Device) -> Result<(), StoreError> {
        self.db.write(device.clone(), |tx, device| Box::pin(registry::put_device(tx, device))).await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.db.once((), |tx, ()| Box::pin(registry::devices(tx))).await
    }

    async fn device(&self, space: &SpaceId, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        self.db
            .once((space.clone(), id.clone()), |tx, (space, id)| Box::pin(registry::device(tx, space, id)))
            .await
    }

    async fn device_by_token(&self, token_hash: &str) -> Result<Option<Device>, StoreError> {
        let hash = token_hash.to_owned();
        self.db.once(hash, |tx, hash| Box::pin(registry::device_by_token(tx, hash))).await
    }

    async fn touch_device(
        &self,
        space: &SpaceId,
        id: &DeviceId,
        seen: Time,
        pulled: Option<Stamp>,
        shared: Option<Stamp>,
    ) -> Result<(), StoreError> {
        let read = (pulled, shared);
        self.db
            .once((space.clone(), id.clone(), seen, read), |tx, (space, id, seen, read)| {
                Box::pin(registry::touch_device(tx, space, id, *seen, *read))
            })
            .await
    }

    async fn add_member(&self, member: &Member) -> Result<bool, StoreError> {
        self.db.write(member.clone(), |tx, member| Box::pin(registry::add_member(tx, member))).await
    }

    async fn put_member(&self, member: &Member) -> Result<(), StoreError> {
        self.db.write(member.clone(), |tx, member| Box::pin(registry::put_member(tx, member))).await
    }

    async fn members(&self) -> Result<Vec<Member>, StoreError> {
        self.db.once((), |tx, ()| Box::pin(registry::members(tx))).await
    }

    async fn put_run(&self, space: &SpaceId, run: &SyncRun) -> Result<(), StoreError> {
        self.db
            .write((space.clone(), run.clone()), |tx, (space, run)| {
                Box::pin(async move { registry::put_run(tx, Space::lock(tx, space).await?.no, run).await })
            })
            .await
    }

    async fn runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        self.db
            .read((space.clone(), limit), |tx, (space, limit)| {
                Box::pin(
                    async move { registry::runs(tx, Space::read(tx, space).await?.no, *limit, false).await },
                )
            })
            .await
    }

    async fn device_runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        self.db
            .read((space.clone(), limit), |tx, (space, limit)| {
                Box::pin(
                    async move { registry::runs(tx, Space::read(tx, space).await?.no, *limit, true).await },
                )
            })
            .await
    }

    async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.db.once(name.to_owned(), |tx, name| Box::pin(registry::meta(tx, name))).await
    }

    async fn put_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.db
            .once((name.to_owned(), value.to_owned()), |tx, (name, value)| {
                Box::pin(registry::put_meta(tx, name, value))
            })
            .await
    }

    async fn swap_meta(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
        durability: Durability,
    ) -> Result<bool, StoreError> {
        let swap = (name.to_owned(), expected.map(str::to_owned), value.to_owned(), durability);
        self.db
            .once(swap, |tx, (name, expected, value, durability)| {
                Box::pin(registry::swap_meta(tx, name, expected.as_deref(), value, *durability))
            })
            .await
    }

    async fn purge(
        &self,
        space: &SpaceId,
        lines: &Lines,
        at: Walk,
        rows: usize,
        dry: bool,
    ) -> Result<Purged, StoreError> {
        let ask = purge::Ask { space: space.clone(), lines: *lines, at, rows, dry };
        match dry {
            true => self.db.read(ask, |tx, ask| Box::pin(purge::step(tx, ask))).await,
            false => self.db.write(ask, |tx, ask| Box::pin(purge::step(tx, ask))).await,
        }
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        self.db.once((), |tx, ()| Box::pin(registry::generation(tx))).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        const SIZE: &str = "SELECT pg_database_size(current_database())";
        self.db
            .once((), |tx, ()| {
                Box::pin(async move {
                    match tx.one(SIZE, &[]).await? {
                        Some(row) => Ok(row.try_get::<_, i64>(0)?.cast_unsigned()),
                        None => Ok(0),
                    }
                })
            })
            .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let audit = self.audit().await?;
        match audit.faults.is_empty() {
            true => Ok(()),
            false => Err(errors::corrupt(audit.faults.join("; "))),
        }
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        self.db.read((), |tx, ()| Box::pin(audit::audit(tx))).await
    }

    async fn begin_epoch(&self, epoch: &Epoch, now: Time, restamp: bool) -> Result<(), StoreError> {
        self.db
            .write((epoch.clone(), now, restamp), |tx, (epoch, now, restamp)| {
                Box::pin(epoch::begin(tx, epoch, *now, *restamp))
            })
            .await
    }

    async fn unfed(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        after: Stamp,
        limit: usize,
    ) -> Result<Vec<(Stamp, Key)>, StoreError> {
        self.db
            .read((space.clone(), epoch.clone(), after, limit), |tx, (space, epoch, after, limit)| {
                Box::pin(async move {
                    epoch::unfed(tx, Space::read(tx, space).await?.no, epoch, *after, *limit).await
                })
            })
            .await
    }

    async fn gaps(&self, space: &SpaceId) -> Result<Vec<Gap>, StoreError> {
        self.db
            .read(space.clone(), |tx, space| {
                Box::pin(async move { epoch::gaps(tx, Space::read(tx, space).await?.no).await })
            })
            .await
    }
}
