//! What a decision reads and what it wants written: the store loads a `Snapshot`, the pure decision
//! answers with a `Plan` or asks for more, and the store writes the plan in the same transaction.

use crate::{
    audience::{AudienceRow, Subscription},
    change::Author,
    digest::Digest,
    doc::Doc,
    id::{ChangeId, Collection, DeviceId, Epoch, Key},
    outbox::Entry,
    receipt::{Receipt, Remembered},
    record::{Record, State},
    time::{Stamp, Time},
};
use std::collections::{BTreeMap, BTreeSet};

/// What to load. Each kind is one set-based read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Records by name. Where one is joined, its survivors along the chain are loaded with it.
    pub records: BTreeSet<Key>,
    /// Records of the app's shared space by name, read beside the space's own.
    pub shared: BTreeSet<Key>,
    /// Receipts by change.
    pub receipts: BTreeSet<ChangeId>,
    /// Fingerprint candidates.
    pub twins: BTreeSet<Probe>,
    /// Everything that links to these records.
    pub links: BTreeSet<Key>,
    /// Unsettled outbox entries of these records.
    pub outbox: BTreeSet<Key>,
    /// Outbox entries by their sequence number.
    pub entries: BTreeSet<i64>,
    /// Audience rows of these records, those that left included.
    pub audiences: BTreeSet<Key>,
    /// Subscriptions of these readers, ended ones included.
    pub readers: BTreeSet<DeviceId>,
}

impl Keys {
    /// Nothing asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
    /// Adds what `other` asks.
    pub fn extend(&mut self, mut other: Keys) {
        self.records.append(&mut other.records);
        self.shared.append(&mut other.shared);
        self.receipts.append(&mut other.receipts);
        self.twins.append(&mut other.twins);
        self.links.append(&mut other.links);
        self.outbox.append(&mut other.outbox);
        self.entries.append(&mut other.entries);
        self.audiences.append(&mut other.audiences);
        self.readers.append(&mut other.readers);
    }
}

/// A question to the fingerprint index: live records of a collection with this print near this time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// Collection.
    pub collection: Collection,
    /// The print: what must be equal, as one text.
    pub print: String,
    /// Earliest time that matches, inclusive, in microseconds.
    pub from: i64,
    /// Latest time that matches, inclusive.
    pub to: i64,
}

/// One row of the fingerprint index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Print {
    /// The live record.
    pub key: Key,
    /// What must be equal.
    pub print: String,
    /// Its time in microseconds; 0 where the rule has no window.
    pub at: i64,
}

/// One row of the link index: `child` refers to `parent` by `field`. The engine's own links use the
/// fields `@joined` (child was joined into parent) and `@apart` (a person said that they are two).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Who is referred to.
    pub parent: Key,
    /// Who refers.
    pub child: Key,
    /// By which field.
    pub field: String,
}

/// The link from a joined record to its survivor.
pub const JOINED: &str = "@joined";
/// The link between two records that a person said are two, kept in both directions.
pub const APART: &str = "@apart";

/// What a decision may read, all of it under the space's lock.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node's epoch.
    pub epoch: Epoch,
    /// The space's head.
    pub head: Stamp,
    /// Whether this node follows an upstream.
    pub follows: bool,
    /// Whether this node is taking in its first pull, of which nobody sees anything yet (I6).
    pub filling: bool,
    /// The clock, read once for the transaction.
    pub now: Time,
    /// The highest version of any tombstone that was purged here; 0 where none was. A name that comes again
    /// goes on above it, so that nobody takes it for something older than the deletion that they know.
    pub buried: u64,
    /// The next outbox sequence number.
    pub next_entry: i64,
    /// What was loaded.
    pub keys: Keys,
    /// Records that were found among `keys.records` and `keys.shared`.
    pub records: BTreeMap<Key, Record>,
    /// Receipts found.
    pub receipts: BTreeMap<ChangeId, Remembered>,
    /// Fingerprint candidates found.
    pub twins: BTreeMap<Probe, Vec<Print>>,
    /// Links found, by parent.
    pub links: BTreeMap<Key, Vec<Link>>,
    /// Unsettled entries by record, oldest first; and those asked for by number.
    pub outbox: BTreeMap<Key, Vec<Entry>>,
    /// Audience rows found, by record.
    pub audiences: BTreeMap<Key, Vec<AudienceRow>>,
    /// Subscriptions found, by reader.
    pub subscriptions: BTreeMap<DeviceId, Vec<Subscription>>,
}

impl Snapshot {
    /// An empty snapshot, before anything was loaded.
    pub fn empty(epoch: Epoch, head: Stamp, follows: bool, now: Time) -> Self {
        Self {
            epoch,
            head,
            follows,
            filling: false,
            now,
            buried: 0,
            next_entry: 1,
            keys: Keys::default(),
            records: BTreeMap::new(),
            receipts: BTreeMap::new(),
            twins: BTreeMap::new(),
            links: BTreeMap::new(),
            outbox: BTreeMap::new(),
            audiences: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
        }
    }

    /// Whether a record came with a first pull that is not complete: nobody has seen it (I6).
    pub(crate) fn hides(&self, record: &Record) -> bool {
        self.filling && record.is_as_pulled()
    }
}

/// One record to write, in stamp order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub key: Key,
    /// What to store. Where `record.stamp` is the stamp it had, nothing visible changed: only what this
    /// node notes for itself (upstream, contested) is written and no reader is told.
    pub record: Record,
    /// Whether no row is there yet: the store gives a local id then.
    pub is_new: bool,
    /// Digest contribution before and after.
    pub contribution: (i64, i64),
}

/// A superseded version, kept (I3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseded {
    /// The record.
    pub key: Key,
    /// As it was.
    pub record: Record,
}

/// What to write. Everything in it, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The head after this plan; equal to the snapshot's where nothing visible changed.
    pub head: Stamp,
    /// The difference to the space's digest.
    pub digest: Digest,
    /// Records.
    pub rows: Vec<Row>,
    /// Records that go without a tombstone, with their history: they left what this node may see. Their
    /// links, prints and audiences are dropped by the other parts of the plan.
    pub forget: Vec<Key>,
    /// Superseded versions.
    pub history: Vec<Superseded>,
    /// Receipts to remember.
    pub receipts: Vec<Remembered>,
    /// Fingerprints to drop: by record, all of them.
    pub prints_gone: Vec<Key>,
    /// Fingerprints to add.
    pub prints: Vec<Print>,
    /// Links to drop.
    pub links_gone: Vec<Link>,
    /// Links to add.
    pub links: Vec<Link>,
    /// Audience rows to add.
    pub audiences: Vec<AudienceRow>,
    /// Audience rows that are there and enter again or leave, by record, key and child.
    pub audiences_moved: Vec<AudienceRow>,
    /// Differences to the digests of what the same readers see, by [`crate::audience::Worn::sight`].
    pub sights: BTreeMap<String, Digest>,
    /// Whether those replace all digests that were kept before, of the whole space.
    pub sights_anew: bool,
    /// Subscriptions to add or replace, by reader, key and membership record.
    pub subscriptions: Vec<Subscription>,
    /// Outbox entries to add or replace, by sequence number.
    pub outbox: Vec<Entry>,
    /// Batches to seal: their bytes are on disk before the first send.
    pub sealed: Vec<Sealed>,
    /// Batches that are answered or refused as a whole.
    pub unsealed: Vec<String>,
    /// What to tell the author: one receipt a change, in order.
    pub answers: Vec<Receipt>,
    /// The epoch in which a batch was decided, or refused because it was made for another one.
    pub epoch: Option<Epoch>,
}

/// A batch whose bytes are fixed: a retry sends exactly these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The batch's id.
    pub id: String,
    /// The body to send.
    pub body: Vec<u8>,
    /// How many changes are in it.
    pub changes: usize,
}

/// A decision's answer.
#[derive(Debug)]
pub enum Decision {
    /// Write this.
    Plan(Box<Plan>),
    /// Load these too, under the same lock, and ask again.
    Need(Box<Keys>),
}

impl From<Keys> for Decision {
    fn from(keys: Keys) -> Self {
        Self::Need(Box::new(keys))
    }
}

/// One record as the feed carries it, and as a follower stages it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Its name.
    pub key: Key,
    /// Its version at the serving node.
    pub version: u64,
    /// Its stamp there.
    pub stamp: Stamp,
    /// Its state.
    pub state: State,
    /// Its data.
    pub data: Doc,
    /// Which device created it.
    pub owner: DeviceId,
    /// Who changed it last.
    pub author: Author,
    /// When, by the author's corrected clock.
    pub modified_at: Time,
    /// Whether the record has left what this reader may see: only its name counts, and it is evicted.
    pub left: bool,
}

impl Fed {
    /// A record that has left what its reader may see, and nothing else about it.
    pub fn leaving(key: Key, stamp: Stamp, device: DeviceId) -> Self {
        Self {
            key,
            version: 0,
            stamp,
            state: State::Deleted,
            data: Doc::default(),
            owner: device.clone(),
            author: Author { device, person: None },
            modified_at: stamp.time(),
            left: true,
        }
    }
}
