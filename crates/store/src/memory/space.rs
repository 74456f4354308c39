//! One space in memory: what the tables of the other stores hold, as maps.

use super::audience::Audiences;
use crate::{
    Counts, Followed, Quarantined, StoreError, SyncRun,
    asking::{fault, is_idle, put_entry, take_in},
};
use ropeway_core::{
    digest::Digest,
    epoch::Gap,
    id::{ChangeId, Collection, Epoch, Key, RecordId},
    limits,
    outbox::{Entry, EntryState},
    plan::{Fed, Keys, Link, Plan, Print, Row, Sealed, Snapshot},
    planted::{self, Bug},
    receipt::Remembered,
    record::{Record, State},
    time::Stamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

/// A space.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) head: Stamp,
    pub(super) digest: Digest,
    pub(super) next_local_id: i64,
    pub(super) next_entry: i64,
    pub(super) records: BTreeMap<Key, Record>,
    pub(super) by_stamp: BTreeMap<Stamp, Key>,
    pub(super) history: BTreeMap<Key, Vec<Record>>,
    pub(super) receipts: BTreeMap<ChangeId, Remembered>,
    prints: BTreeMap<(Collection, String), BTreeSet<(i64, RecordId)>>,
    pub(super) links: BTreeMap<Key, BTreeSet<Link>>,
    pub(super) audiences: Audiences,
    pub(super) outbox: BTreeMap<i64, Entry>,
    pub(super) batches: Vec<Sealed>,
    pub(super) followed: Followed,
    pub(super) staging: Vec<Fed>,
    pub(super) staged_epoch: Option<Epoch>,
    pub(super) filling: bool,
    /// What came since everything is pulled anew.
    pub(super) seen: BTreeSet<Key>,
    pub(super) purged: Stamp,
    pub(super) buried: u64,
    pub(super) runs: Vec<SyncRun>,
    pub(super) quarantine: Vec<Quarantined>,
    /// The breaks behind earlier epochs, oldest first.
    pub(super) gaps: Vec<Gap>,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            head: Stamp::default(),
            digest: Digest::default(),
            next_local_id: 1,
            next_entry: 1,
            records: BTreeMap::new(),
            by_stamp: BTreeMap::new(),
            history: BTreeMap::new(),
            receipts: BTreeMap::new(),
            prints: BTreeMap::new(),
            links: BTreeMap::new(),
            audiences: Audiences::default(),
            outbox: BTreeMap::new(),
            batches: Vec::new(),
            followed: Followed::default(),
            staging: Vec::new(),
            staged_epoch: None,
            filling: false,
            seen: BTreeSet::new(),
            purged: Stamp::default(),
            buried: 0,
            runs: Vec::new(),
            quarantine: Vec::new(),
            gaps: Vec::new(),
        }
    }
}

impl Space {
    /// Adds these records to the snapshot, with the survivors of those that are joined.
    pub(super) fn load_records(&self, mut asked: BTreeSet<Key>, into: &mut Snapshot) {
        while !asked.is_empty() {
            let found = asked.iter().filter_map(|k| self.records.get(k).map(|r| (k.clone(), r.clone())));
            asked = take_in(into, found.collect());
        }
    }

    /// Adds what `keys` names to the snapshot.
    pub(super) fn load(&self, keys: &Keys, into: &mut Snapshot) {
        self.load_records(keys.records.clone(), into);
        for change in &keys.receipts {
            into.receipts.extend(self.receipts.get(change).map(|r| (change.clone(), r.clone())));
        }
        for probe in &keys.twins {
            let Some(times) = self.prints.get(&(probe.collection.clone(), probe.print.clone())) else {
                continue;
            };
            let near = times.iter().filter(|(at, _)| (probe.from..=probe.to).contains(at));
            let mut prints: Vec<Print> = near
                .map(|(at, id)| Print {
                    key: Key { collection: probe.collection.clone(), id: id.clone() },
                    print: probe.print.clone(),
                    at: *at,
                })
                .collect();
            prints.sort();
            if !prints.is_empty() {
                into.twins.insert(probe.clone(), prints);
            }
        }
        for parent in &keys.links {
            if let Some(links) = self.links.get(parent).filter(|l| !l.is_empty()) {
                into.links.insert(parent.clone(), links.iter().cloned().collect());
            }
        }
        for record in &keys.audiences {
            let rows = self.audiences.rows_of(record);
            if !rows.is_empty() {
                into.audiences.insert(record.clone(), rows);
            }
        }
        for reader in &keys.readers {
            let found = self.audiences.subscriptions(reader);
            if !found.is_empty() {
                into.subscriptions.insert(reader.clone(), found);
            }
        }
        let of_records =
            self.outbox.values().filter(|e| e.state.is_unsettled() && keys.outbox.contains(&e.over));
        let by_number = keys.entries.iter().filter_map(|seq| self.outbox.get(seq));
        for entry in of_records.chain(by_number) {
            put_entry(&mut into.outbox, entry.clone());
        }
    }

    /// What cannot be written, found before anything is: the other stores roll back instead.
    pub(super) fn refuse(&self, plan: &Plan) -> Result<(), StoreError> {
        let mut fresh = BTreeSet::new();
        for row in &plan.rows {
            let there = self.records.get(&row.key).filter(|_| !plan.forget.contains(&row.key));
            let fits = match there {
                None => row.is_new && fresh.insert(&row.key) || !row.is_new && fresh.contains(&row.key),
                Some(old) if row.record.stamp <= self.head => !row.is_new && old.stamp == row.record.stamp,
                Some(old) => !row.is_new && old.local_id == row.record.local_id,
            };
            if !fits {
                return Err(fault(format!(
                    "row {} at {} does not fit what is there",
                    row.key, row.record.stamp
                )));
            }
        }
        let mut changes = BTreeSet::new();
        for receipt in &plan.receipts {
            if self.receipts.contains_key(&receipt.change) || !changes.insert(&receipt.change) {
                return Err(fault(format!("change {} has a receipt already", receipt.change)));
            }
        }
        let is_there =
            |b: &Sealed| self.batches.iter().any(|s| s.id == b.id) && !plan.unsealed.contains(&b.id);
        match plan.sealed.iter().find(|b| is_there(b)) {
            Some(batch) => Err(fault(format!("batch {} is sealed already", batch.id))),
            None => Ok(()),
        }
    }

    /// Writes a plan that [`Self::refuse`] let pass. Whether there was anything to write.
    pub(super) fn apply(&mut self, plan: &mut Plan) -> bool {
        if is_idle(plan, self.head) {
            return false;
        }
        for key in &plan.forget {
            if let Some(old) = self.records.remove(key) {
                self.by_stamp.remove(&old.stamp);
            }
            self.history.remove(key);
        }
        for row in &mut plan.rows {
            self.put(row);
        }
        for was in &plan.history {
            self.history.entry(was.key.clone()).or_default().push(was.record.clone());
        }
        for receipt in &plan.receipts {
            self.receipts.insert(receipt.change.clone(), receipt.clone());
        }
        self.put_prints(&plan.prints_gone, &plan.prints);
        for link in &plan.links_gone {
            if let Some(links) = self.links.get_mut(&link.parent) {
                links.remove(link);
            }
        }
        self.audiences.apply(plan);
        for link in &plan.links {
            self.links.entry(link.parent.clone()).or_default().insert(link.clone());
        }
        for entry in &plan.outbox {
            self.next_entry = self.next_entry.max(entry.seq + 1);
            self.outbox.insert(entry.seq, entry.clone());
        }
        self.batches.retain(|b| !plan.unsealed.contains(&b.id));
        self.batches.extend(plan.sealed.iter().cloned());
        self.head = plan.head;
        self.digest.count += plan.digest.count;
        self.digest.sum = self.digest.sum.wrapping_add(plan.digest.sum);
        true
    }

    fn put(&mut self, row: &mut Row) {
        if row.is_new {
            row.record.local_id = self.next_local_id;
            self.next_local_id += 1;
        }
        let stamp = row.record.stamp;
        match self.records.get_mut(&row.key) {
            // A row whose stamp stays: no reader is told, so nothing that a reader sees may move.
            Some(old) if old.stamp == stamp => {
                old.contested = row.record.contested;
                old.upstream.clone_from(&row.record.upstream);
                old.marks.clone_from(&row.record.marks);
                old.owner.clone_from(&row.record.owner);
                return;
            }
            Some(old) => {
                self.by_stamp.remove(&old.stamp);
                row.record.local_id = old.local_id;
                *old = row.record.clone();
            }
            None => {
                self.records.insert(row.key.clone(), row.record.clone());
            }
        }
        self.by_stamp.insert(stamp, row.key.clone());
    }

    pub(super) fn put_prints(&mut self, gone: &[Key], added: &[Print]) {
        if !gone.is_empty() {
            for ((collection, _), times) in &mut self.prints {
                times.retain(|(_, id)| !gone.iter().any(|k| k.collection == *collection && k.id == *id));
            }
            self.prints.retain(|_, times| !times.is_empty());
        }
        for print in added {
            let of = (print.key.collection.clone(), print.print.clone());
            self.prints.entry(of).or_default().insert((print.at, print.key.id.clone()));
        }
    }

    /// Records newer than a stamp, in stamp order.
    pub(super) fn newer(&self, after: Stamp) -> impl Iterator<Item = (&Key, &Record)> {
        let newer = self.by_stamp.range((Excluded(after), Unbounded)).map(|(_, key)| key);
        newer.filter_map(|key| self.records.get_key_value(key))
    }

    /// A page of the feed, and whether it reached the head.
    pub(super) fn feed(&self, after: Stamp, limit: usize, collections: &[Collection]) -> (Vec<Fed>, bool) {
        let newer = self.by_stamp.range((Excluded(after), Unbounded)).map(|(_, key)| key);
        let wanted = newer.filter(|key| collections.is_empty() || collections.contains(&key.collection));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, record) in wanted.filter_map(|key| self.records.get(key).map(|record| (key, record))) {
            if rows.len() == limit || bytes >= limits::PAGE_BYTES_MAX {
                return (rows, false);
            }
            bytes += record.data.text().len();
            rows.push(as_fed(key, record));
        }
        (rows, true)
    }

    /// Records of one collection in id order.
    pub(super) fn list(
        &self,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Vec<(RecordId, Record)> {
        let first = Key::new(collection, &RecordId::trusted(after.map_or("", |id| id.as_str())));
        let newer = self.records.range((Excluded(first), Unbounded));
        let same = newer.take_while(|(key, _)| key.collection == *collection);
        let shown = same.filter(|(_, record)| self.shows(record));
        shown.take(limit).map(|(key, record)| (key.id.clone(), record.clone())).collect()
    }

    /// Whether a record is in readers' sight.
    pub(super) fn shows(&self, record: &Record) -> bool {
        !self.filling || !record.is_as_pulled()
    }

    /// How many entries there are in each state.
    pub(super) fn counts(&self) -> Counts {
        use EntryState::*;
        let count = |state| self.outbox.values().filter(|e| e.state == state).count() as u64;
        let all = [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded];
        all.into_iter().map(|s| (s, count(s))).filter(|(_, n)| *n > 0).collect()
    }

    /// Adds pulled rows to what is staged.
    pub(super) fn stage(&mut self, epoch: &Epoch, rows: Vec<Fed>, upto: &str) {
        if self.staged_epoch.as_ref().is_some_and(|staged| staged != epoch) {
            self.staging.clear();
        }
        self.see(&rows);
        self.staging.extend(rows);
        self.followed.staged = Some(upto.to_owned());
        self.staged_epoch = Some(epoch.clone());
    }

    /// Empties what is staged.
    pub(super) fn unstage(&mut self) {
        self.staging.clear();
        self.staged_epoch = None;
        self.followed.staged = None;
    }

    /// Receipted entries whose stamp the cursor has reached.
    pub(super) fn reached(&self, cursor: Stamp, limit: usize) -> Vec<Entry> {
        let is =
            |e: &&Entry| e.state == EntryState::Receipted && e.receipt_stamp.is_some_and(|s| s <= cursor);
        self.outbox.values().filter(is).take(limit).cloned().collect()
    }
}

pub(super) fn as_fed(key: &Key, record: &Record) -> Fed {
    Fed {
        key: key.clone(),
        version: record.version,
        stamp: record.stamp,
        state: match &record.state {
            State::Joined(_) if planted::has(Bug::LostJoin) => State::Live,
            state => state.clone(),
        },
        data: record.data.clone(),
        owner: record.owner.clone(),
        author: record.author.clone(),
        modified_at: record.modified_at,
        left: false,
    }
}
