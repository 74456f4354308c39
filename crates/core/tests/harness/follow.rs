//! Following: what one node sends to another, gets back, and takes in.

use super::Node;
use ropeway_core::{
    absorb::{self, Reached},
    change::{Change, Door, Grant},
    id::ChangeId,
    measured::Boots,
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys},
    settle::{self, BatchLimit},
    time::Stamp,
};

/// What happens to a push on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    /// The request is lost.
    Lost,
    /// The response is lost, after everything was decided.
    Unanswered,
}

impl Node {
    pub fn unsettled(&self) -> Vec<Entry> {
        self.outbox.values().filter(|e| e.state.is_unsettled()).cloned().collect()
    }

    /// Seals the next batch, when none is under way.
    pub fn seal(&mut self, most: usize) {
        if !self.batches.is_empty() {
            return;
        }
        let limit = BatchLimit { changes: most, bytes: 1 << 20 };
        let entries = self.unsettled();
        let chosen = settle::sendable(&entries, self.now, limit, &self.profile);
        let named = |seq: &i64| entries.iter().find(|e| e.seq == *seq).map(|e| (*seq, e.change.id.clone()));
        let wanted: Vec<(i64, ChangeId)> = chosen.iter().filter_map(named).collect();
        if wanted.is_empty() {
            return;
        }
        let id = format!("batch-{}-{}", self.name, self.head.0 + self.next_entry + wanted[0].0);
        let keys = self.outbox_keys();
        let body = |entries: &[&Entry]| {
            serde_json::to_vec(&entries.iter().map(|e| &e.change).collect::<Vec<_>>()).unwrap()
        };
        let plan =
            self.ask(keys, 0, |snapshot| settle::seal(snapshot, &id, &wanted, &Boots::default(), body));
        self.apply(plan);
    }

    fn outbox_keys(&self) -> Keys {
        Keys { outbox: self.outbox.values().map(|e| e.over.clone()).collect(), ..Keys::default() }
    }

    /// Sends the sealed batch. Whether there was one.
    pub fn send(&mut self, top: &mut Node, role: &str, fate: Fate) -> bool {
        let Some(sealed) = self.batches.first().cloned() else { return false };
        if fate == Fate::Lost {
            return true;
        }
        let changes: Vec<Change> = serde_json::from_slice(&sealed.body).unwrap();
        let grant = Grant { door: Door::Push, device: self.own_device(), role: role.into() };
        let receipts = top.ingest(&ropeway_core::change::Batch::new(grant, changes));
        if fate == Fate::Unanswered {
            return true;
        }
        let wire = serde_json::to_string(&receipts).unwrap();
        let receipts: Vec<ropeway_core::receipt::Receipt> = serde_json::from_str(&wire).unwrap();
        let (profile, epoch) = (self.profile.clone(), top.epoch.clone());
        let keys = self.outbox_keys();
        let plan = self.ask(keys, 0, |snapshot| {
            settle::receive(snapshot, &sealed.id, &receipts, &epoch, &profile.retry)
        });
        self.apply(plan);
        true
    }

    /// Records newer than a stamp, in stamp order.
    pub fn feed(&self, after: Stamp, limit: usize) -> Vec<Fed> {
        let mut rows: Vec<Fed> = self
            .records
            .iter()
            .filter(|(_, r)| r.stamp > after)
            .map(|(key, r)| Fed {
                key: key.clone(),
                version: r.version,
                stamp: r.stamp,
                state: r.state.clone(),
                data: r.data.clone(),
                owner: r.owner.clone(),
                author: r.author.clone(),
                modified_at: r.modified_at,
                left: false,
            })
            .collect();
        rows.sort_by_key(|r| r.stamp);
        rows.truncate(limit);
        rows
    }

    /// Reads at most `pages` pages; what reaches the head is taken in at once. Whether it did.
    pub fn pull(&mut self, top: &Node, pages: usize, page: usize) -> bool {
        for _ in 0..pages {
            let rows = top.feed(self.staged_upto.max(self.cursor), page);
            self.staged_upto = rows.last().map_or(self.staged_upto, |r| r.stamp);
            let complete = rows.len() < page;
            self.staged.extend(rows);
            if complete {
                self.take_in(top);
                return true;
            }
        }
        false
    }

    fn take_in(&mut self, top: &Node) {
        let reached = Reached { epoch: top.epoch.clone(), cursor: top.head, anew: false };
        let mut staged = std::mem::take(&mut self.staged);
        // The contract of an absorb: conflicts after the records that they are about.
        staged.sort_by_key(|row| &*row.key.collection == "conflict");
        let profile = self.profile.clone();
        for rows in staged.chunks(3) {
            let plan = self.ask(Keys::default(), 1, |s| absorb::rows(s, rows, &reached, &profile));
            self.apply(plan);
        }
        loop {
            let is_reached = |e: &&Entry| {
                e.state == EntryState::Receipted
                    && e.receipt_stamp.is_some_and(|stamp| stamp <= reached.cursor)
            };
            let entries: Vec<Entry> = self.outbox.values().filter(is_reached).take(2).cloned().collect();
            if entries.is_empty() {
                break;
            }
            let plan = self.ask(Keys::default(), 1, |s| absorb::settle(s, &entries, &profile));
            self.apply(plan);
        }
        self.check_chains();
        self.cursor = reached.cursor;
        self.staged_upto = reached.cursor;
    }

    /// Gives up what the upstream does not take.
    pub fn discard_refused(&mut self) -> usize {
        let stuck =
            |e: &&Entry| matches!(e.state, EntryState::Rejected | EntryState::Waiting | EntryState::Pending);
        let entries: Vec<Entry> = self.outbox.values().filter(stuck).cloned().collect();
        let profile = self.profile.clone();
        if !entries.is_empty() {
            let plan = self.ask(Keys::default(), 1, |s| absorb::discard(s, &entries, &profile));
            self.apply(plan);
        }
        entries.len()
    }

    /// Arms every entry that waits for its time.
    pub fn rearm(&mut self) {
        let seqs: Vec<i64> = self.outbox.keys().copied().collect();
        let keys = self.outbox_keys();
        let plan = self.ask(keys, 0, |s| match settle::rearm(s, &seqs) {
            Decision::Plan(plan) => Decision::Plan(plan),
            need => need,
        });
        self.apply(plan);
    }
}
