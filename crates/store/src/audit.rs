//! An audit: everything that a database holds, counted anew from its rows and held against what it says
//! of itself.

use ropeway_core::{
    digest::{Digest, contribution},
    id::{Epoch, Key, SpaceId},
    outbox::{Entry, EntryState},
    record::Record,
    time::Stamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most faults that are told one by one: a damaged file may have one in every row.
const FAULTS_TOLD: usize = 20;

/// What a database holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The node's epoch.
    pub epoch: Epoch,
    /// Its spaces, by name.
    pub spaces: Vec<Holding>,
    /// What cannot be true, as sentences. Empty: the database is whole.
    pub faults: Vec<String>,
}

/// What one space holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The space.
    pub space: SpaceId,
    /// Its newest stamp.
    pub head: Stamp,
    /// The digest at that head.
    pub digest: Digest,
    /// Records, tombstones and joined rows included.
    pub records: u64,
    /// Superseded versions.
    pub history: u64,
    /// Remembered receipts.
    pub receipts: u64,
    /// Changes that the upstream has not settled.
    pub unsettled: u64,
    /// Settled changes that are kept for a restored upstream.
    pub settled: u64,
}

/// Counts one space as its rows come by.
pub(crate) struct Tally {
    holding: Holding,
    counted: Digest,
    last: Option<Stamp>,
    newest_local_id: i64,
    newest_entry: i64,
    sealed_in: BTreeSet<String>,
    faults: Vec<String>,
    more: u64,
}

impl Tally {
    /// Begins with what the space says of itself.
    pub(crate) fn new(space: SpaceId, head: Stamp, digest: Digest) -> Self {
        let holding =
            Holding { space, head, digest, records: 0, history: 0, receipts: 0, unsettled: 0, settled: 0 };
        Self {
            holding,
            counted: Digest::default(),
            last: None,
            newest_local_id: 0,
            newest_entry: 0,
            sealed_in: BTreeSet::new(),
            faults: Vec::new(),
            more: 0,
        }
    }

    /// One record. They come in stamp order.
    pub(crate) fn record(&mut self, key: &Key, record: &Record) {
        let stamp = record.stamp;
        self.holding.records += 1;
        self.counted = self.counted.moved(0, contribution(&key.collection, &key.id, record));
        self.newest_local_id = self.newest_local_id.max(record.local_id);
        if self.last.is_some_and(|last| last >= stamp) {
            self.fault(format!("{key} has the stamp {stamp} of another record"));
        }
        if stamp > self.holding.head {
            self.fault(format!("{key} has the stamp {stamp}, beyond the head {}", self.holding.head));
        }
        self.last = self.last.max(Some(stamp));
    }

    /// How many superseded versions there are.
    pub(crate) fn history(&mut self, count: u64) {
        self.holding.history = count;
    }

    /// How many receipts there are.
    pub(crate) fn receipts(&mut self, count: u64) {
        self.holding.receipts = count;
    }

    /// One outbox entry.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.newest_entry = self.newest_entry.max(entry.seq);
        match entry.state {
            EntryState::Settled => self.holding.settled += 1,
            EntryState::Discarded => {}
            _ => self.holding.unsettled += 1,
        }
        match (&entry.batch, entry.state) {
            (Some(batch), EntryState::Sealed) => {
                self.sealed_in.insert(batch.clone());
            }
            (None, EntryState::Sealed) => self.fault(format!("entry {} is sealed in no batch", entry.seq)),
            _ => {}
        }
    }

    /// What follows when every row has come by: `batches` are the sealed ones on disk, the next local id
    /// and the next outbox number are what the space would give next.
    pub(crate) fn close(
        mut self,
        batches: &BTreeSet<String>,
        next_local_id: i64,
        next_entry: i64,
    ) -> (Holding, Vec<String>) {
        let (said, counted) = (self.holding.digest, self.counted);
        if said != counted {
            let (said, is) = (said.sum, counted.sum);
            let text = format!(
                "its digest is {said} over {} records, its records make {is} over {}",
                self.holding.digest.count, counted.count
            );
            self.fault(text);
        }
        let named = std::mem::take(&mut self.sealed_in);
        for batch in named.symmetric_difference(batches) {
            self.fault(format!("the batch {batch} and the entries sealed in it do not fit"));
        }
        if self.newest_local_id >= next_local_id {
            let newest = self.newest_local_id;
            self.fault(format!("the local id {newest} is given, and {next_local_id} would be given next"));
        }
        if self.newest_entry >= next_entry {
            let newest = self.newest_entry;
            self.fault(format!("the outbox entry {newest} is there, and {next_entry} would come next"));
        }
        if self.more > 0 {
            self.faults.push(format!("{} more", self.more));
        }
        let space = &self.holding.space;
        let faults = self.faults.iter().map(|fault| format!("space `{space}`: {fault}")).collect();
        (self.holding, faults)
    }

    fn fault(&mut self, text: String) {
        match self.faults.len() < FAULTS_TOLD {
            true => self.faults.push(text),
            false => self.more += 1,
        }
    }
}
