//! Images, audits and new epochs of spaces in memory.

use super::{All, Space};
use crate::{
    LOCAL_ID_LEAP,
    audit::{Audit, Tally},
};
use ropeway_core::{
    epoch::{self, Gap},
    id::{Epoch, Key, SpaceId},
    time::{Stamp, Time},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

impl All {
    /// Begins an epoch in every space.
    pub(super) fn begin_epoch(&mut self, now: Time, restamp: bool) {
        for (id, space) in &mut self.spaces {
            let gap = space.begin_epoch(now, restamp);
            for device in self.devices.values_mut().filter(|d| d.space == *id) {
                device.pulled = device.pulled.map(|pulled| pulled.min(gap.after));
            }
            for device in self.devices.values_mut().filter(|_| *id == SpaceId::shared()) {
                device.pulled_shared = device.pulled_shared.map(|pulled| pulled.min(gap.after));
            }
        }
        self.generation += 1;
    }

    /// Counts everything anew.
    pub(super) fn audit(&self, epoch: Epoch) -> Audit {
        let mut audit = Audit { epoch, spaces: Vec::new(), faults: Vec::new() };
        for (id, space) in &self.spaces {
            let (holding, faults) = space.audit(id.clone());
            audit.spaces.push(holding);
            audit.faults.extend(faults);
        }
        audit
    }
}

impl Space {
    fn begin_epoch(&mut self, now: Time, restamp: bool) -> Gap {
        let clock = Stamp(now.0);
        let mut stamps: BTreeSet<Stamp> = self.by_stamp.keys().copied().collect();
        self.audiences.each_stamp(|stamp| {
            stamps.insert(*stamp);
        });
        let ahead = stamps.split_off(&Stamp(clock.0.saturating_add(1)));
        let kept = stamps.last().copied().unwrap_or_default();
        let asked = restamp.then_some((i64::try_from(ahead.len()).unwrap_or(i64::MAX), kept));
        let begin = epoch::begin(self.head, now, asked);
        if let Some(first) = begin.restamp {
            let anew: BTreeMap<Stamp, Stamp> = ahead.into_iter().zip((first.0..).map(Stamp)).collect();
            let set = |stamp: &mut Stamp| *stamp = anew.get(stamp).copied().unwrap_or(*stamp);
            let lifted = self.by_stamp.split_off(&Stamp(clock.0.saturating_add(1)));
            for (mut stamp, key) in lifted {
                set(&mut stamp);
                if let Some(record) = self.records.get_mut(&key) {
                    record.stamp = stamp;
                }
                self.by_stamp.insert(stamp, key);
            }
            self.audiences.each_stamp(set);
            for record in self.history.values_mut().flatten() {
                record.stamp = record.stamp.min(begin.head);
            }
            for receipt in self.receipts.values_mut() {
                receipt.stamp = receipt.stamp.min(begin.head);
            }
        }
        self.head = begin.head;
        self.purged = self.purged.min(begin.head);
        self.next_local_id += LOCAL_ID_LEAP;
        self.gaps.push(begin.gap);
        begin.gap
    }

    /// Records last heard of from the upstream in another epoch.
    pub(super) fn unfed(&self, epoch: &Epoch, after: Stamp, limit: usize) -> Vec<(Stamp, Key)> {
        let lost = |key: &Key| {
            let upstream = self.records.get(key).and_then(|r| r.upstream.as_ref());
            upstream.is_some_and(|u| u.version > 0 && u.epoch != *epoch)
        };
        let newer = self.by_stamp.range((Excluded(after), Unbounded)).filter(|(_, key)| lost(key));
        newer.take(limit).map(|(stamp, key)| (*stamp, key.clone())).collect()
    }

    fn audit(&self, id: SpaceId) -> (crate::Holding, Vec<String>) {
        let mut tally = Tally::new(id, self.head, self.digest);
        let mut in_order: Vec<_> = self.records.iter().collect();
        in_order.sort_by_key(|(_, record)| record.stamp);
        in_order.iter().for_each(|(key, record)| tally.record(key, record));
        tally.history(self.history.values().map(|kept| kept.len() as u64).sum());
        tally.receipts(self.receipts.len() as u64);
        self.outbox.values().for_each(|entry| tally.entry(entry));
        let batches: BTreeSet<String> = self.batches.iter().map(|b| b.id.clone()).collect();
        tally.close(&batches, self.next_local_id, self.next_entry)
    }
}
