//! # ropeway-store: where a space is kept
//!
//! One trait, [`Store`], at the level of the engine's verbs, never of SQL rows. No method hands out a
//! transaction: the store owns its transactions in its own tasks, so that a caller that goes away can
//! never leave one open. Everything that decides anything is a pure function handed in.

mod asking;
mod audit;
mod backup;
mod codes;
mod columns;
#[cfg(feature = "testing")]
pub mod conformance;
mod error;
mod memory;
mod postgres;
mod purge;
mod quarantine;
mod reading;
mod registry;
mod sqlite;
mod transfer;
mod view_names;

pub use audit::{Audit, Holding};
pub use backup::{BackupError, Manifest};
pub use error::StoreError;
pub use memory::MemoryStore;
pub use postgres::{Alone, PostgresOptions, PostgresStore, Progress};
pub use purge::{Purged, Walk};
pub use quarantine::{Quarantine, QuarantineEnd, Quarantined, Room};
pub use registry::{Device, DeviceStatus, Member, SyncOutcome, SyncRun};
pub use sqlite::{Durability, Options, Present, SqliteStore, Unpacked};

use async_trait::async_trait;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    digest::Digest,
    epoch::Gap,
    id::{Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys, Plan, Sealed, Snapshot, Superseded},
    profile::Profile,
    record::Record,
    retention::Lines,
    time::{Stamp, Time},
};
use std::{num::NonZeroUsize, sync::Arc};

/// A pure decision over a snapshot. It may be called again: with more loaded, or because the database
/// asked for the transaction to be run again.
pub type Decide = Box<dyn FnMut(&Snapshot) -> Decision + Send>;

/// A pure decision about one step of an absorb.
pub type Absorb = Box<dyn FnMut(&Snapshot, Step<'_>) -> Decision + Send>;

/// One step of an absorb; all steps run in one transaction.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Take these staged rows in.
    Rows(&'a [Fed]),
    /// These receipted entries have been reached by the cursor: settle them.
    Settle(&'a [Entry]),
}

/// What is known about a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceState {
    /// The node's epoch.
    pub epoch: Epoch,
    /// The space's head.
    pub head: Stamp,
    /// The digest at that head.
    pub digest: Digest,
    /// Whether the first pull of its upstream is being taken in by portions. Until that pull is complete
    /// what it brought is in nobody's sight (I6): `list` and `records` leave it out, and what `feed` reads
    /// is not to be handed on.
    pub filling: bool,
    /// The newest tombstone that was purged: a cursor before it may have missed deletions.
    pub purged: Stamp,
}

/// A page of the feed, read in one snapshot of the database.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// Records newer than the cursor, in stamp order, each once.
    pub rows: Vec<Fed>,
    /// The space as the page saw it.
    pub space: SpaceState,
    /// Whether the page reached the head: only then is what was read consistent.
    pub complete: bool,
}

/// Who reads, where what a reader sees depends on them.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Whose subscriptions count; `None`: nobody's.
    pub device: Option<DeviceId>,
    /// Only these keys, of those that the device holds; without a device these keys themselves.
    pub only: Option<std::collections::BTreeSet<String>>,
    /// Whether they see every record that is here; they are told of those that go.
    pub all: bool,
    /// The collections that are for everybody.
    pub open: Vec<Collection>,
    /// This node: in whose name a reader is told that a record has left their sight.
    pub node: DeviceId,
}

/// A reader's position: a list of sources with their stamps, bounded whatever they are subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The space: everything up to here has been read.
    pub after: Stamp,
    /// Subscriptions that began or ended up to here have been caught up with.
    pub subscribed: Stamp,
    /// How far the next of them has been walked.
    pub within: Option<Stamp>,
}

impl Place {
    /// The place of a reader who has read everything up to a stamp.
    pub fn at(stamp: Stamp) -> Self {
        Self { after: stamp, subscribed: stamp, within: None }
    }
}

/// A page for one reader, read in one snapshot of the database.
#[derive(Debug, Clone)]
pub struct ReaderPage {
    /// Records that the reader sees, and names of those that left their sight.
    pub rows: Vec<Fed>,
    /// The space as the page saw it; the digest is that of what the reader sees.
    pub space: SpaceState,
    /// Whether the page reached the head with all sources caught up.
    pub complete: bool,
    /// Where the next page begins.
    pub place: Place,
    /// The keys that the reader is subscribed to; `None`: they see everything.
    pub audiences: Option<Vec<String>>,
}

/// How far a follower has read its upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// The upstream's epoch; `None` before the first contact.
    pub epoch: Option<Epoch>,
    /// The upstream's head up to which everything is absorbed.
    pub cursor: Stamp,
    /// The cursor token that the upstream gave for it, to send back as it is.
    pub token: Option<String>,
    /// The token up to which everything is staged, when a pull was cut in the middle.
    pub staged: Option<String>,
    /// The keys that the upstream gives this node; `None`: everything.
    pub audiences: Option<Vec<String>>,
    /// Whether everything is pulled anew and what the upstream no longer knows has not been let go yet.
    pub anew: bool,
}

/// One page of a first pull.
#[derive(Debug, Clone)]
pub struct Portion {
    /// The upstream's epoch.
    pub epoch: Epoch,
    /// The records, in the upstream's stamp order.
    pub rows: Vec<Fed>,
    /// The cursor token after this page.
    pub upto: String,
}

/// The end of a complete pull.
#[derive(Debug, Clone)]
pub struct PullEnd {
    /// Its last page, which goes in with all that is staged; `None`: it was taken in as a portion.
    pub page: Option<Vec<Fed>>,
    /// The upstream's epoch.
    pub epoch: Epoch,
    /// The upstream's head that the pull reached.
    pub cursor: Stamp,
    /// The cursor token that the upstream gave for it.
    pub token: String,
    /// The keys that the upstream gives this node; `None`: everything.
    pub audiences: Option<Vec<String>>,
}

/// The setting in which a database notes the epoch that it began when it was promoted: the same database on the
/// same server as before, without the last of what was written. It stays when a node moves.
pub const PROMOTED: &str = "@promoted";

/// How far local ids leap when a database is restored: the lost epoch gave some out after the backup, and
/// nobody may find another record behind a number that they still hold.
pub(crate) const LOCAL_ID_LEAP: i64 = 1_000_000;

/// How many entries the outbox holds, by state.
pub type Counts = Vec<(EntryState, u64)>;

/// The engine's database. Every method is one transaction, or one consistent read.
#[async_trait]
pub trait Store: Quarantine {
    /// Which database this is, for people: `memory`, `sqlite`, `postgres`.
    fn kind(&self) -> &'static str;

    /// How the servers of one node tell each other about new heads, where they can.
    fn news(&self) -> Option<Arc<dyn News>> {
        None
    }

    /// Of how many changes a decision is best made where more than that wait: a store that writes one decision while
    /// the next one is made says so.
    fn batch_changes(&self) -> Option<NonZeroUsize> {
        None
    }

    /// Creates the space where it is not there and returns its state. Idempotent.
    async fn open_space(&self, space: &SpaceId) -> Result<SpaceState, StoreError>;

    /// The space's state. [`StoreError::NoSpace`] where it was never opened.
    async fn space(&self, space: &SpaceId) -> Result<SpaceState, StoreError>;

    /// Under the space's lock and in one transaction: loads `keys`, asks `decide`, loads what it still
    /// needs (at most [`ropeway_core::limits::NEED_ROUNDS_MAX`] times), writes the plan, commits.
    /// Returns the plan that is now durable. On any error nothing was written.
    async fn transact(
        &self,
        space: &SpaceId,
        now: Time,
        keys: Keys,
        decide: Decide,
    ) -> Result<Plan, StoreError>;

    /// The records newer than `after` in stamp order, at most `limit` and not much more than
    /// [`ropeway_core::limits::PAGE_BYTES_MAX`] of data, optionally of some collections only.
    async fn feed(
        &self,
        space: &SpaceId,
        after: Stamp,
        limit: usize,
        collections: &[Collection],
    ) -> Result<FeedPage, StoreError>;

    /// The page behind `place` for a reader who does not see everything.
    async fn feed_to(
        &self,
        space: &SpaceId,
        reader: &Reader,
        place: Place,
        limit: usize,
        collections: &[Collection],
    ) -> Result<ReaderPage, StoreError>;

    /// The audience rows of these records, those that left included.
    async fn audiences(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<AudienceRow>, StoreError>;

    /// A reader's subscriptions, ended ones included, oldest first.
    async fn subscriptions(
        &self,
        space: &SpaceId,
        reader: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError>;

    /// Records of one collection in id order, beginning after `after`, tombstones and joined rows included.
    async fn list(
        &self,
        space: &SpaceId,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, StoreError>;

    /// The collections that have records in a space, by name, also those that no profile knows any more.
    async fn collections(&self, space: &SpaceId) -> Result<Vec<Collection>, StoreError>;

    /// How many records of a collection are contested: of conflicts, how many are open. Never counts the others.
    async fn contested(&self, space: &SpaceId, collection: &Collection) -> Result<u64, StoreError>;

    /// These records, those that exist.
    async fn records(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<(Key, Record)>, StoreError>;

    /// Superseded versions of a record, newest first.
    async fn history(&self, space: &SpaceId, key: &Key) -> Result<Vec<Superseded>, StoreError>;

    /// Outbox entries in these states (empty: all unsettled ones), by sequence number after `after`.
    async fn outbox(
        &self,
        space: &SpaceId,
        states: &[EntryState],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// How many outbox entries there are in each state.
    async fn outbox_counts(&self, space: &SpaceId) -> Result<Counts, StoreError>;

    /// The sealed batch that is not answered yet, oldest first.
    async fn sealed(&self, space: &SpaceId) -> Result<Option<Sealed>, StoreError>;

    /// How far the upstream has been read.
    async fn followed(&self, space: &SpaceId) -> Result<Followed, StoreError>;

    /// Adds one pulled page to the staging table and notes the token up to which it is filled. Invisible
    /// to every reader. Rows staged under another epoch are dropped first.
    async fn stage(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        rows: Vec<Fed>,
        upto: &str,
    ) -> Result<(), StoreError>;

    /// Takes one page of a first pull straight in and notes the token up to which it is filled: each
    /// record is written once. Conflicts are staged, because they come in after what they are about, and so
    /// are records that are in sight here already. How many were taken in. From here to the end of the pull
    /// the space is [`SpaceState::filling`].
    async fn portion(
        &self,
        space: &SpaceId,
        now: Time,
        portion: Portion,
        absorb: Absorb,
    ) -> Result<u64, StoreError>;

    /// Empties the staging table and forgets its token, when a cut pull cannot be resumed.
    async fn unstage(&self, space: &SpaceId) -> Result<(), StoreError>;

    /// Forgets how far the upstream was read and drops what is staged, so that the next pull begins at the
    /// upstream's beginning. Records, outbox and the upstream's epoch stay. From now on it is noted which
    /// records come, for [`Self::unseen`].
    async fn pull_anew(&self, space: &SpaceId) -> Result<(), StoreError>;

    /// Records that the upstream knew and that have not come since [`Self::pull_anew`], by name after
    /// `after`. What becomes of them is the caller's to decide. Nothing where nothing is pulled anew.
    async fn unseen(
        &self,
        space: &SpaceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>, StoreError>;

    /// Everything was pulled anew, and what did not come was dealt with: forgets what came.
    async fn pulled_anew(&self, space: &SpaceId) -> Result<(), StoreError>;

    /// Takes everything staged and the last page in, conflicts after all other records, settles the receipted entries whose
    /// stamp `end.cursor` has reached,
    /// moves the cursor and empties the staging table: one transaction, all at once (I6). Returns how
    /// many rows were taken in.
    async fn absorb(
        &self,
        space: &SpaceId,
        now: Time,
        end: PullEnd,
        absorb: Absorb,
    ) -> Result<u64, StoreError>;

    /// Makes the typed SQL views of a profile; idempotent, replaces those of an older profile.
    async fn install_views(&self, profile: &Profile) -> Result<(), StoreError>;

    /// Adds a device. False, and nothing is written, where its space has one of this id: of several who add
    /// the same one at once, one does. A device of the same id in another space is another device (I11).
    async fn add_device(&self, device: &Device) -> Result<bool, StoreError>;
    /// Adds or replaces a device.
    async fn put_device(&self, device: &Device) -> Result<(), StoreError>;
    /// All devices, by name.
    async fn devices(&self) -> Result<Vec<Device>, StoreError>;
    /// A space's device by its id.
    async fn device(&self, space: &SpaceId, id: &DeviceId) -> Result<Option<Device>, StoreError>;
    /// The device whose token hashes to this.
    async fn device_by_token(&self, token_hash: &str) -> Result<Option<Device>, StoreError>;
    /// Notes when a device was last seen and how far it has pulled, its space and what is shared. Never makes a
    /// revoked device active.
    async fn touch_device(
        &self,
        space: &SpaceId,
        id: &DeviceId,
        seen: Time,
        pulled: Option<Stamp>,
        shared: Option<Stamp>,
    ) -> Result<(), StoreError>;

    /// Adds a person of this node (ISMF-038: they never sync). False, and nothing is written, where the
    /// address is taken: of several who add the same one at once, one does.
    async fn add_member(&self, member: &Member) -> Result<bool, StoreError>;
    /// Adds or replaces a person of this node.
    async fn put_member(&self, member: &Member) -> Result<(), StoreError>;
    /// All persons of this node, by e-mail address.
    async fn members(&self) -> Result<Vec<Member>, StoreError>;

    /// Notes a finished sync (ISMF-147).
    async fn put_run(&self, space: &SpaceId, run: &SyncRun) -> Result<(), StoreError>;
    /// This node's own latest syncs, newest first.
    async fn runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError>;
    /// The latest syncs of devices with this node that were noted, newest first.
    async fn device_runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError>;

    /// A small setting of the node itself (its device id, the lease of a sync …).
    async fn meta(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Writes a setting.
    async fn put_meta(&self, name: &str, value: &str) -> Result<(), StoreError>;
    /// Writes a setting only where it still holds `expected` (`None`: absent). Whether it did. What need not
    /// outlive a loss of power says so, and is then not waited for.
    async fn swap_meta(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
        durability: Durability,
    ) -> Result<bool, StoreError>;

    /// One step of forgetting what lies before `lines`: looks at no more than `rows` rows from `at` on, so
    /// that no writer waits long for it. Records with unsettled entries stay, and the newest purged
    /// tombstone is noted in the same transaction ([`SpaceState::purged`]). With `dry` it only counts.
    async fn purge(
        &self,
        space: &SpaceId,
        lines: &Lines,
        at: Walk,
        rows: usize,
        dry: bool,
    ) -> Result<Purged, StoreError>;

    /// A number that changes whenever any process changed the database: how one process notices another.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Bytes on disk, for people. 0 where there is no disk.
    async fn size(&self) -> Result<u64, StoreError>;

    /// Asks the database whether it is whole. `Ok(())` or what is wrong.
    async fn check(&self) -> Result<(), StoreError>;

    /// Reads every row and counts anew: digests, stamps, receipts, outbox. What is wrong is in the answer;
    /// an error is a database that cannot be read at all.
    async fn audit(&self) -> Result<Audit, StoreError>;

    /// Begins an epoch in every space, where this database was restored: the new one starts at
    /// `max(head, now)` and the gap behind it is remembered. With `restamp`, records whose stamps lie ahead
    /// of `now` get new ones in their order, so that the head is at the clock again. Receipts, devices and
    /// their tokens are kept; devices' cursors are capped where both epochs end to agree.
    async fn begin_epoch(&self, epoch: &Epoch, now: Time, restamp: bool) -> Result<(), StoreError>;

    /// Records last heard of from the upstream in another epoch than this, in stamp order after `after`, each
    /// with its stamp: the upstream of this epoch has not fed them.
    async fn unfed(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        after: Stamp,
        limit: usize,
    ) -> Result<Vec<(Stamp, Key)>, StoreError>;

    /// The gaps behind a space's epochs, oldest first, for
    /// [`serve_from`](ropeway_core::epoch::serve_from).
    async fn gaps(&self, space: &SpaceId) -> Result<Vec<Gap>, StoreError>;
}

/// News between the servers of one node: which space has got which head. Hints only: they may be lost, doubled
/// and late, and whoever waits for them polls as well.
pub trait News: Send + Sync {
    /// Tells the others, soon and together with other news. Needs a tokio runtime.
    fn tell(self: Arc<Self>, space: &SpaceId, head: Stamp);
    /// What anybody tells from now on, this process included. Needs a tokio runtime.
    fn hear(self: Arc<Self>) -> tokio::sync::broadcast::Receiver<(SpaceId, Stamp)>;
}

/// A store behind a shared pointer, as everything above this crate holds it.
pub type Stored = Arc<dyn Store>;
