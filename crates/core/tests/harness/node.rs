//! The node: it answers keys from its maps, asks a decision until it has a plan, and applies the plan.

use ropeway_core::{
    cases::Bench,
    change::{Batch, Change, Door, Grant},
    digest::Digest,
    doc::Doc,
    id::{ChangeId, Collection, DeviceId, Epoch, Key, RecordId},
    ingest, limits,
    outbox::Entry,
    plan::{Decision, Fed, Keys, Link, Plan, Print, Sealed, Snapshot},
    profile::Profile,
    receipt::{Receipt, Remembered},
    record::{Record, State},
    time::{Stamp, Time},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub profile: Arc<Profile>,
    pub epoch: Epoch,
    pub follows: bool,
    pub now: Time,
    pub head: Stamp,
    pub digest: Digest,
    pub records: BTreeMap<Key, Record>,
    pub history: BTreeMap<Key, Vec<Record>>,
    pub receipts: BTreeMap<ChangeId, Remembered>,
    pub prints: BTreeMap<Key, Print>,
    pub links: BTreeSet<Link>,
    pub outbox: BTreeMap<i64, Entry>,
    pub next_entry: i64,
    pub batches: Vec<Sealed>,
    /// How far the upstream was read, and what is staged beyond it.
    pub cursor: Stamp,
    pub staged: Vec<Fed>,
    pub staged_upto: Stamp,
    /// The most rounds that any decision asked for.
    pub rounds: usize,
    /// Whether some change carried a clock offset, which the print index then holds too.
    pub offsets: bool,
    /// Whether batches of changes that build on each other come in, which may ask more often: a store
    /// decides such a batch one change at a time.
    pub many: bool,
}

impl Node {
    pub fn new(name: &str, profile: Arc<Profile>, follows: bool) -> Self {
        Self {
            name: name.into(),
            profile,
            epoch: Epoch::trusted(format!("epoch-{name}")),
            follows,
            now: Time::parse("2026-02-14T12:00:00Z").unwrap(),
            head: Stamp::default(),
            digest: Digest::default(),
            records: BTreeMap::new(),
            history: BTreeMap::new(),
            receipts: BTreeMap::new(),
            prints: BTreeMap::new(),
            links: BTreeSet::new(),
            outbox: BTreeMap::new(),
            next_entry: 1,
            batches: Vec::new(),
            cursor: Stamp::default(),
            staged: Vec::new(),
            staged_upto: Stamp::default(),
            rounds: 0,
            offsets: false,
            many: false,
        }
    }

    pub fn own_device(&self) -> DeviceId {
        DeviceId::trusted(format!("desk-{}", self.name))
    }

    /// Decides a batch and takes its plan in.
    pub fn ingest(&mut self, batch: &Batch) -> Vec<Receipt> {
        let profile = self.profile.clone();
        self.offsets |= batch.changes.iter().any(|c| c.at.is_some_and(|at| at.offset.is_some()));
        let keys = ingest::keys(batch, &profile, self.follows);
        let extra = if self.many { 4 * batch.changes.len() } else { 0 };
        let plan = self.ask(keys, extra, |snapshot| ingest::decide(snapshot, batch, &profile));
        let named: Vec<&ChangeId> = batch.changes.iter().map(|c| &c.id).collect();
        let answered: Vec<&ChangeId> = plan.answers.iter().map(|r| &r.change).collect();
        assert_eq!(named, answered, "one receipt a change, in order");
        for receipt in &plan.answers {
            let is_kept = plan.receipts.iter().any(|r| r.change == receipt.change);
            let was_kept = self.receipts.contains_key(&receipt.change);
            assert_eq!(receipt.verdict.is_settled(), is_kept || was_kept && receipt.verdict.is_settled());
        }
        let answers = plan.answers.clone();
        let fresh = !plan.receipts.is_empty();
        self.apply(plan);
        self.check_chains();
        for receipt in &answers {
            self.check_receipt(receipt);
            if batch.changes.len() == 1 && fresh && receipt.verdict.is_settled() {
                self.check_version(receipt);
            }
        }
        answers
    }

    /// Changes at the desk.
    pub fn desk(&mut self, role: &str, changes: Vec<Change>) -> Vec<Receipt> {
        let grant = Grant { door: Door::Desk, device: self.own_device(), role: role.into() };
        self.ingest(&Batch::new(grant, changes))
    }

    /// Changes pushed.
    pub fn pushed(&mut self, device: &DeviceId, role: &str, changes: Vec<Change>) -> Vec<Receipt> {
        let grant = Grant { door: Door::Push, device: device.clone(), role: role.into() };
        self.ingest(&Batch::new(grant, changes))
    }

    /// Asks a decision under the lock: it may ask for more, but not without end.
    pub fn ask(&mut self, keys: Keys, extra: usize, decide: impl Fn(&Snapshot) -> Decision) -> Plan {
        let mut snapshot = Snapshot::empty(self.epoch.clone(), self.head, self.follows, self.now);
        snapshot.next_entry = self.next_entry;
        self.load(keys, &mut snapshot);
        let mut asked = Vec::new();
        for round in 0..=limits::NEED_ROUNDS_MAX + extra {
            match decide(&snapshot) {
                Decision::Plan(plan) => {
                    let Decision::Plan(again) = decide(&snapshot) else {
                        panic!("asked again, it asks for more")
                    };
                    assert_eq!(format!("{plan:?}"), format!("{again:?}"), "a decision is deterministic");
                    self.rounds = self.rounds.max(round);
                    return *plan;
                }
                Decision::Need(need) => {
                    let before = snapshot.keys.clone();
                    asked.push(format!("{need:?}"));
                    self.load(*need, &mut snapshot);
                    assert_ne!(before, snapshot.keys, "a decision asked for what it had");
                }
            }
        }
        panic!("a decision asked for more than {} times: {asked:#?}", limits::NEED_ROUNDS_MAX);
    }

    fn load(&self, keys: Keys, into: &mut Snapshot) {
        let mut wanted: Vec<Key> = keys.records.iter().cloned().collect();
        while let Some(key) = wanted.pop() {
            if !into.keys.records.insert(key.clone()) {
                continue;
            }
            let Some(record) = self.records.get(&key) else { continue };
            if let State::Joined(survivor) = &record.state {
                wanted.push(Key::new(&key.collection, survivor));
            }
            into.records.insert(key, record.clone());
        }
        for id in &keys.receipts {
            into.receipts.extend(self.receipts.get(id).map(|r| (id.clone(), r.clone())));
        }
        for probe in &keys.twins {
            let fits = |p: &&Print| {
                p.key.collection == probe.collection
                    && p.print == probe.print
                    && (probe.from..=probe.to).contains(&p.at)
            };
            into.twins.insert(probe.clone(), self.prints.values().filter(fits).cloned().collect());
        }
        for parent in &keys.links {
            into.links
                .insert(parent.clone(), self.links.iter().filter(|l| l.parent == *parent).cloned().collect());
        }
        for over in &keys.outbox {
            let entries = self.outbox.values().filter(|e| e.over == *over && e.state.is_unsettled());
            into.outbox.insert(over.clone(), entries.cloned().collect());
        }
        into.keys.extend(keys);
    }

    /// Takes a plan in, and checks it.
    pub fn apply(&mut self, plan: Plan) {
        let old =
            |row: &ropeway_core::plan::Row| Some((row.key.clone(), self.records.get(&row.key)?.clone()));
        let before = (self.head, plan.rows.iter().filter_map(old).collect::<BTreeMap<Key, Record>>());
        for key in &plan.forget {
            self.records.remove(key);
        }
        for row in &plan.rows {
            self.records.insert(row.key.clone(), row.record.clone());
        }
        for superseded in &plan.history {
            self.history.entry(superseded.key.clone()).or_default().push(superseded.record.clone());
        }
        for receipt in &plan.receipts {
            let old = self.receipts.insert(receipt.change.clone(), receipt.clone());
            assert!(old.is_none(), "{} has two receipts", receipt.change);
        }
        for key in &plan.prints_gone {
            self.prints.remove(key);
        }
        for print in &plan.prints {
            let old = self.prints.insert(print.key.clone(), print.clone());
            assert!(old.is_none(), "{} has two prints", print.key);
        }
        for link in &plan.links_gone {
            assert!(self.links.remove(link), "{link:?} was not there");
        }
        self.links.extend(plan.links.iter().cloned());
        for entry in &plan.outbox {
            self.next_entry = self.next_entry.max(entry.seq + 1);
            self.outbox.insert(entry.seq, entry.clone());
        }
        self.batches.retain(|b| !plan.unsealed.contains(&b.id));
        self.batches.extend(plan.sealed.iter().cloned());
        self.head = plan.head;
        self.digest.count += plan.digest.count;
        self.digest.sum = self.digest.sum.wrapping_add(plan.digest.sum);
        self.check_plan(&before, &plan);
    }

    pub fn get(&self, collection: &str, id: &str) -> Option<&Record> {
        self.records.get(&Key::new(&Collection::trusted(collection), &RecordId::trusted(id)))
    }

    /// Live records, joined rows and open conflicts, as text: equal on replicas that agree (I4).
    pub fn dump(&self) -> Vec<String> {
        let shows = |(key, record): &(&Key, &Record)| {
            let closed = &*key.collection == "conflict" && record.data.str("state") != Some("open");
            record.state != State::Deleted && !closed
        };
        let line =
            |(key, record): (&Key, &Record)| format!("{key} {:?} {}", record.state, record.data.text());
        self.records.iter().filter(shows).map(line).collect()
    }
}

impl Bench for Node {
    fn epoch(&self) -> Epoch {
        self.epoch.clone()
    }
    fn device(&self) -> DeviceId {
        self.own_device()
    }
    fn take(&mut self, batch: Batch, now: Time) -> Vec<Receipt> {
        self.now = now;
        self.ingest(&batch)
    }
    fn record(&self, key: &Key) -> Option<(State, u64, Doc)> {
        self.records.get(key).map(|r| (r.state.clone(), r.version, r.data.clone()))
    }
    fn live(&self, collection: &Collection) -> Vec<(RecordId, Doc)> {
        let of = self.records.iter().filter(|(key, r)| key.collection == *collection && r.is_live());
        of.map(|(key, r)| (key.id.clone(), r.data.clone())).collect()
    }
}
