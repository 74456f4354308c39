//! What must be true after every plan, computed again from the records alone.

use super::Node;
use ropeway_core::{
    conflict::Conflict,
    digest::{Digest, contribution},
    id::{CONFLICT, Collection, Key, RecordId},
    plan::{APART, JOINED, Link, Plan},
    profile::print_of,
    receipt::{Receipt, Verdict},
    record::{Record, State},
    time::Stamp,
};
use std::collections::{BTreeMap, BTreeSet};

impl Node {
    pub(super) fn check_plan(&self, before: &(Stamp, BTreeMap<Key, Record>), plan: &Plan) {
        self.check_rows(before, plan);
        for receipt in &plan.receipts {
            assert!(receipt.stamp >= plan.head && receipt.stamp.time() >= self.now, "{receipt:?}");
        }
        self.check_digest();
        self.check_links();
        self.check_prints();
        self.check_contested();
        let stamps: BTreeSet<_> = self.records.values().map(|r| r.stamp).collect();
        assert_eq!(stamps.len(), self.records.len(), "stamps are unique");
    }

    fn check_rows(&self, before: &(Stamp, BTreeMap<Key, Record>), plan: &Plan) {
        let mut last = before.0;
        let mut seen = BTreeSet::new();
        for row in &plan.rows {
            assert!(seen.insert(&row.key), "{} is written twice", row.key);
            let old = before.1.get(&row.key);
            assert_eq!(row.is_new, old.is_none(), "{}", row.key);
            let kept: Vec<u64> =
                plan.history.iter().filter(|s| s.key == row.key).map(|s| s.record.version).collect();
            let first = old.map_or(1, |r| r.version);
            let wanted: Vec<u64> = (first..row.record.version).collect();
            assert_eq!(kept, wanted, "{}: every superseded version is kept, once", row.key);
            assert!(RecordId::parse(&row.key.id).is_ok(), "{} is no id that travels", row.key);
            if old.is_some_and(|o| o.stamp == row.record.stamp) {
                let old = old.unwrap();
                assert_eq!(
                    (&old.state, &old.data, old.version),
                    (&row.record.state, &row.record.data, row.record.version)
                );
                continue;
            }
            assert!(row.record.stamp > last, "{}: stamps increase", row.key);
            last = row.record.stamp;
        }
        assert_eq!(plan.head, last, "the head is the last stamp");
        for superseded in &plan.history {
            assert!(seen.contains(&superseded.key), "{} has history but no row", superseded.key);
        }
        for (key, record) in &self.records {
            if &*key.collection == CONFLICT {
                assert!(
                    Conflict::read(&record.data).is_some(),
                    "{key} cannot be read: {}",
                    record.data.text()
                );
            }
        }
    }

    fn check_digest(&self) {
        let sum =
            |d: Digest, (key, r): (&Key, &Record)| d.moved(0, contribution(&key.collection, &key.id, r));
        let truth = self.records.iter().fold(Digest::default(), sum);
        assert_eq!(self.digest, truth, "the digest is the sum over all records");
    }

    fn check_links(&self) {
        let mut truth = BTreeSet::new();
        for (key, record) in self.records.iter().filter(|(_, r)| r.state != State::Deleted) {
            let mut link = |parent: Key, field: &str| {
                truth.insert(Link { parent, child: key.clone(), field: field.into() });
            };
            if &*key.collection == CONFLICT {
                let conflict = Conflict::read(&record.data).unwrap();
                link(conflict.about(), "record");
                if let Some(other) = &conflict.other {
                    link(Key::new(&conflict.collection, other), "other");
                }
                continue;
            }
            let Some(rules) = self.profile.rules(&key.collection) else { continue };
            for (field, reference) in &rules.references {
                if let Some(id) = record.data.str(field) {
                    link(Key::new(&Collection::trusted(&*reference.to), &RecordId::trusted(id)), field);
                }
            }
            if let State::Joined(survivor) = &record.state {
                link(Key::new(&key.collection, survivor), JOINED);
            }
        }
        let kept: BTreeSet<Link> = self.links.iter().filter(|l| l.field != APART).cloned().collect();
        assert_eq!(kept, truth, "the link index follows from the records");
    }

    fn check_prints(&self) {
        let mut truth = BTreeMap::new();
        for (key, record) in self.records.iter().filter(|(_, r)| r.is_live()) {
            let print = self.profile.rules(&key.collection).and_then(|r| print_of(r, record.data.fields()));
            truth.extend(print.map(|(text, at)| (key.clone(), (text, if self.offsets { 0 } else { at }))));
        }
        let kept: BTreeMap<Key, (String, i64)> = self
            .prints
            .values()
            .map(|p| (p.key.clone(), (p.print.clone(), if self.offsets { 0 } else { p.at })))
            .collect();
        assert_eq!(kept, truth, "the print index follows from the records");
    }

    fn check_contested(&self) {
        let mut truth: BTreeSet<Key> = BTreeSet::new();
        for (key, record) in self.records.iter().filter(|(k, r)| &*k.collection == CONFLICT && r.is_live()) {
            let conflict = Conflict::read(&record.data).unwrap();
            if conflict.is_open() {
                truth.insert(key.clone());
                truth.insert(conflict.about());
                truth.extend(conflict.other.iter().map(|id| Key::new(&conflict.collection, id)));
            }
        }
        for (key, record) in &self.records {
            assert_eq!(record.contested, truth.contains(key), "{}: {key} is contested", self.name);
        }
    }

    /// Every joined id resolves (I5): no circle, no end that is not there.
    pub(super) fn check_chains(&self) {
        for start in self.records.keys() {
            let mut key = start.clone();
            let mut steps = 0;
            while let Some(State::Joined(survivor)) = self.records.get(&key).map(|r| &r.state) {
                key = Key::new(&key.collection, survivor);
                steps += 1;
                assert!(steps < 60, "{}: {start} is joined in a circle", self.name);
            }
            assert!(self.records.contains_key(&key), "{start} is joined into {key}, which is not here");
        }
    }

    /// The version of a change decided alone is the one that its record now has.
    pub(super) fn check_version(&self, receipt: &Receipt) {
        let mut record = self.records.get(&receipt.key);
        while let Some(Record { state: State::Joined(survivor), .. }) = record
            && receipt.verdict != Verdict::Joined
        {
            record = self.records.get(&Key::new(&receipt.key.collection, survivor));
        }
        assert_eq!(receipt.version, record.map_or(0, |r| r.version), "{receipt:?}");
    }

    /// A receipt shows what stands here, and names only conflicts that are there.
    pub(super) fn check_receipt(&self, receipt: &Receipt) {
        if let Some(shown) = &receipt.record {
            let key = Key::new(&receipt.key.collection, &shown.id);
            let record = &self.records[&key];
            assert_eq!((&shown.data, shown.version), (&record.data, record.version), "{receipt:?}");
        }
        if receipt.verdict == Verdict::Rejected || receipt.verdict == Verdict::Waiting {
            assert!(receipt.reason.is_some(), "{receipt:?}");
        }
        for conflict in &receipt.detail.conflicts {
            let key = Key::new(&Collection::trusted(CONFLICT), conflict);
            assert!(self.records.contains_key(&key), "{key} is named but not there");
        }
    }
}
