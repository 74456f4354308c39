//! The embedded store: one SQLite file, one thread that writes it, a few that read it.

mod apply;
mod audience;
mod audit;
mod backup;
mod conn;
mod epoch;
mod errors;
mod feed;
mod follow;
mod load;
mod log;
mod names;
mod open;
mod outbox;
mod pool;
mod purge;
mod quarantine;
mod registry;
mod restore;
mod resync;
mod rows;
mod schema;
mod space;
mod transact;
pub(crate) mod transfer;
mod views;

pub(crate) use backup::Growing;
pub use open::{Durability, Options};
pub use restore::{Present, Unpacked};
pub(crate) use schema::APPLICATION_ID;

use crate::{
    Absorb, Audit, Counts, Decide, Device, FeedPage, Followed, Member, Place, Portion, PullEnd, Purged,
    Reader, ReaderPage, SpaceState, Store, StoreError, SyncRun, Walk, reading,
};
use async_trait::async_trait;
use conn::Conn;
use errors::Done;
use pool::Pool;
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
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A space's records in one SQLite file. Several processes may have it open at the same time.
///
/// Dropping it waits for what is being written.
pub struct SqliteStore {
    path: PathBuf,
    options: Options,
    writer: Pool,
    readers: Pool,
    /// One connection that looks whether others have written, and takes the log into the file.
    watch: Pool,
    _held: Option<fs::File>,
}

impl SqliteStore {
    /// Opens or creates the database at `path`. Blocks: call it at the start, or on a thread for it.
    ///
    /// Refuses a newer schema, another program's database and a file that was cut short, and changes
    /// nothing in them.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let open::Opened { mut writer, readers, watch, held } = open::open(&path, &options)?;
        let watch = Pool::start("ropeway-watch", vec![watch])?;
        log::keep_short(&mut writer.db, watch.errands()?)?;
        Ok(Self {
            writer: Pool::start("ropeway-write", vec![writer])?,
            readers: Pool::start("ropeway-read", readers)?,
            watch,
            path,
            options,
            _held: held,
        })
    }

    /// Lets the database grow to this many pages only, or freely again: how a test fills the disk.
    #[cfg(feature = "testing")]
    pub async fn allow_pages(&self, most: Option<u32>) -> Result<(), StoreError> {
        let most = most.unwrap_or(u32::MAX - 1);
        let set = move |conn: &mut Conn| Ok(conn.db.pragma_update(None, "max_page_count", most)?);
        self.writer.run(set).await
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        self.readers.run(|conn| conn.read(work)).await
    }

    /// Reads something of a space that has a number.
    async fn read_in<T: Send + 'static>(
        &self,
        space: &SpaceId,
        work: impl FnOnce(&mut Conn, i64) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        let space = space.clone();
        self.read(move |conn| {
            let no = Space::read(conn, &space)?.no;
            work(conn, no)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        self.writer.run(|conn| conn.write(work)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn open_space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        let space = space.clone();
        if let Some(there) = {
            let space = space.clone();
            self.read(move |conn| Space::find(conn, &space)).await?
        } {
            return Ok(there.state());
        }
        let made = move |conn: &mut Conn| {
            Space::create(conn, &space)?;
            Ok(Space::read(conn, &space)?.state())
        };
        self.write(made).await
    }

    async fn space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        let space = space.clone();
        self.read(move |conn| Ok(Space::read(conn, &space)?.state())).await
    }

    async fn transact(
        &self,
        space: &SpaceId,
        now: Time,
        keys: Keys,
        decide: Decide,
    ) -> Result<Plan, StoreError> {
        let (work, told) = transact::Transact::new(space.clone(), now, keys, decide);
        self.writer.share(Box::new(work)).await?;
        told.await.unwrap_or_else(|_| Err(pool::gone()))
    }

    async fn feed(
        &self,
        space: &SpaceId,
        after: Stamp,
        limit: usize,
        collections: &[Collection],
    ) -> Result<FeedPage, StoreError> {
        let (space, collections) = (space.clone(), collections.to_vec());
        self.read(move |conn| feed::feed(conn, &space, after, limit, &collections)).await
    }

    async fn feed_to(
        &self,
        space: &SpaceId,
        reader: &Reader,
        place: Place,
        limit: usize,
        collections: &[Collection],
    ) -> Result<ReaderPage, StoreError> {
        let (space, reader, collections) = (space.clone(), reader.clone(), collections.to_vec());
        let read = move |conn: &mut Conn| {
            let space = Space::read(conn, &space)?;
            let mut shelf = audience::Open { conn, space };
            reading::at_once(reading::page(&mut shelf, &reader, place, limit, &collections))
        };
        self.read(read).await
    }

    async fn audiences(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<AudienceRow>, StoreError> {
        let keys = keys.to_vec();
        let read = move |conn: &mut Conn, no| {
            let mut rows = Vec::new();
            for key in &keys {
                rows.extend(audience::rows_of(conn, no, key)?);
            }
            Ok(rows)
        };
        self.read_in(space, read).await
    }

    async fn subscriptions(
        &self,
        space: &SpaceId,
        reader: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError> {
        let reader = reader.clone();
        self.read_in(space, move |conn, no| audience::subscriptions(conn, no, &reader)).await
    }

    async fn list(
        &self,
        space: &SpaceId,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let (space, collection, after) = (space.clone(), collection.clone(), after.cloned());
        self.read(move |conn| feed::list(conn, &space, &collection, after.as_ref(), limit)).await
    }

    async fn collections(&self, space: &SpaceId) -> Result<Vec<Collection>, StoreError> {
        let space = space.clone();
        self.read(move |conn| feed::collections(conn, &space)).await
    }

    async fn contested(&self, space: &SpaceId, collection: &Collection) -> Result<u64, StoreError> {
        let collection = collection.clone();
        self.read_in(space, move |conn, no| feed::contested(conn, no, &collection)).await
    }

    async fn records(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<(Key, Record)>, StoreError> {
        let (space, keys) = (space.clone(), keys.to_vec());
        self.read(move |conn| feed::records(conn, &space, &keys)).await
    }

    async fn history(&self, space: &SpaceId, key: &Key) -> Result<Vec<Superseded>, StoreError> {
        let (space, key) = (space.clone(), key.clone());
        self.read(move |conn| feed::history(conn, &space, &key)).await
    }

    async fn outbox(
        &self,
        space: &SpaceId,
        states: &[EntryState],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let states = states.to_vec();
        self.read_in(space, move |conn, no| outbox::list(conn, no, &states, after, limit)).await
    }

    async fn outbox_counts(&self, space: &SpaceId) -> Result<Counts, StoreError> {
        self.read_in(space, |conn, no| outbox::counts(conn, no)).await
    }

    async fn sealed(&self, space: &SpaceId) -> Result<Option<Sealed>, StoreError> {
        self.read_in(space, |conn, no| outbox::sealed(conn, no)).await
    }

    async fn followed(&self, space: &SpaceId) -> Result<Followed, StoreError> {
        self.read_in(space, |conn, no| follow::followed(conn, no)).await
    }

    async fn stage(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        rows: Vec<Fed>,
        upto: &str,
    ) -> Result<(), StoreError> {
        let (space, epoch, upto) = (space.clone(), epoch.clone(), upto.to_owned());
        self.write(move |conn| follow::stage(conn, &space, &epoch, &rows, &upto)).await
    }

    async fn portion(
        &self,
        space: &SpaceId,
        now: Time,
        portion: Portion,
        mut absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let space = space.clone();
        self.write(move |conn| follow::portion(conn, &space, now, &portion, &mut absorb)).await
    }

    async fn unstage(&self, space: &SpaceId) -> Result<(), StoreError> {
        let space = space.clone();
        self.write(move |conn| follow::unstage(conn, &space)).await
    }

    async fn pull_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        let space = space.clone();
        self.write(move |conn| resync::pull_anew(conn, &space)).await
    }

    async fn unseen(
        &self,
        space: &SpaceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>, StoreError> {
        let after = after.cloned();
        self.read_in(space, move |conn, no| resync::unseen(conn, no, after.as_ref(), limit)).await
    }

    async fn pulled_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        let space = space.clone();
        self.write(move |conn| resync::pulled_anew(conn, Space::read(conn, &space)?.no)).await
    }

    async fn absorb(
        &self,
        space: &SpaceId,
        now: Time,
        end: PullEnd,
        mut absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let space = space.clone();
        self.write(move |conn| follow::absorb(conn, &space, now, &end, &mut absorb)).await
    }

    async fn install_views(&self, profile: &Profile) -> Result<(), StoreError> {
        let profile = Arc::new(profile.clone());
        let wanted = profile.clone();
        if self.read(move |conn| views::are_installed(conn, &wanted)).await? {
            return Ok(());
        }
        self.write(move |conn| views::install(conn, &profile)).await
    }

    async fn add_device(&self, device: &Device) -> Result<bool, StoreError> {
        let device = device.clone();
        self.write(move |conn| registry::add_device(conn, &device)).await
    }

    async fn put_device(&self, device: &Device) -> Result<(), StoreError> {
        let device = device.clone();
        self.write(move |conn| registry::put_device(conn, &device)).await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.read(|conn| registry::devices(conn)).await
    }

    async fn device(&self, space: &SpaceId, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.read(move |conn| registry::device(conn, &space, &id)).await
    }

    async fn device_by_token(&self, token_hash: &str) -> Result<Option<Device>, StoreError> {
        let token_hash = token_hash.to_owned();
        self.read(move |conn| registry::device_by_token(conn, &token_hash)).await
    }

    async fn touch_device(
        &self,
        space: &SpaceId,
        id: &DeviceId,
        seen: Time,
        pulled: Option<Stamp>,
        shared: Option<Stamp>,
    ) -> Result<(), StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.write(move |conn| registry::touch_device(conn, &space, &id, seen, (pulled, shared))).await
    }

    async fn add_member(&self, member: &Member) -> Result<bool, StoreError> {
        let member = member.clone();
        self.write(move |conn| registry::add_member(conn, &member)).await
    }

    async fn put_member(&self, member: &Member) -> Result<(), StoreError> {
        let member = member.clone();
        self.write(move |conn| registry::put_member(conn, &member)).await
    }

    async fn members(&self) -> Result<Vec<Member>, StoreError> {
        self.read(|conn| registry::members(conn)).await
    }

    async fn put_run(&self, space: &SpaceId, run: &SyncRun) -> Result<(), StoreError> {
        let (space, run) = (space.clone(), run.clone());
        self.write(move |conn| registry::put_run(conn, Space::read(conn, &space)?.no, &run)).await
    }

    async fn runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        self.read_in(space, move |conn, no| registry::runs(conn, no, limit, false)).await
    }

    async fn device_runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        self.read_in(space, move |conn, no| registry::runs(conn, no, limit, true)).await
    }

    async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read(move |conn| registry::meta(conn, &name)).await
    }

    async fn put_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write(move |conn| registry::put_meta(conn, &name, &value)).await
    }

    async fn swap_meta(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
        durability: Durability,
    ) -> Result<bool, StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        let expected = expected.map(str::to_owned);
        let swap = move |conn: &mut Conn| registry::swap_meta(conn, &name, expected.as_deref(), &value);
        match durability {
            Durability::Full => self.write(swap).await,
            Durability::Normal => self.writer.run(|conn| conn.write_unsynced(swap)).await,
        }
    }

    async fn purge(
        &self,
        space: &SpaceId,
        lines: &Lines,
        at: Walk,
        rows: usize,
        dry: bool,
    ) -> Result<Purged, StoreError> {
        let (lines, space) = (*lines, space.clone());
        let step = move |conn: &mut Conn| {
            let no = Space::read(conn, &space)?.no;
            purge::step(conn, no, &lines, at, rows, dry)
        };
        if dry { self.read(step).await } else { self.write(step).await }
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        let look = |conn: &mut Conn| Ok(conn.db.pragma_query_value(None, "data_version", |r| r.get(0))?);
        self.watch.run(look).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        let length = |suffix| fs::metadata(open::beside(&self.path, suffix)).map_or(0, |m| m.len());
        Ok(length("") + length("-wal"))
    }

    async fn check(&self) -> Result<(), StoreError> {
        open::check(&self.path, &self.options).await
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        self.read(audit::audit).await
    }

    async fn begin_epoch(&self, epoch: &Epoch, now: Time, restamp: bool) -> Result<(), StoreError> {
        let epoch = epoch.clone();
        self.write(move |conn| epoch::begin(conn, &epoch, now, restamp)).await
    }

    async fn unfed(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        after: Stamp,
        limit: usize,
    ) -> Result<Vec<(Stamp, Key)>, StoreError> {
        let epoch = epoch.clone();
        self.read_in(space, move |conn, no| epoch::unfed(conn, no, &epoch, after, limit)).await
    }

    async fn gaps(&self, space: &SpaceId) -> Result<Vec<Gap>, StoreError> {
        self.read_in(space, |conn, no| epoch::gaps(conn, no)).await
    }
}
