//! Random deeds in a small world: edits everywhere, pushes that get lost, pulls that break off.

use super::{Node, follow::Fate};
use proptest::prelude::*;
use ropeway_core::{
    change::{Author, Base, Change, Op},
    conflict::{Conflict, Kind, Resolution},
    doc::Fields,
    id::{CONFLICT, ChangeId, Collection, DeviceId, Key, RecordId},
    outbox::EntryState,
    profile,
    receipt::Receipt,
    time::{AuthorTime, Time},
};
use serde_json::{Value, json};
use std::{fs, sync::Arc};

/// One deed.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Somebody at a node's desk, or a device that pushes to it.
    Edit {
        node: usize,
        push: bool,
        what: Edit,
    },
    /// An answer to one of the open conflicts, at the node's desk.
    Answer {
        node: usize,
        which: usize,
        how: u8,
    },
    Seal {
        node: usize,
        most: usize,
    },
    Send {
        node: usize,
        fate: Fate,
    },
    Pull {
        node: usize,
        pages: usize,
    },
    Wait {
        seconds: u8,
    },
}

#[derive(Debug, Clone)]
pub struct Edit {
    pub collection: usize,
    pub id: usize,
    pub op: u8,
    pub field: usize,
    pub second: usize,
    pub value: u8,
    pub parent: usize,
    pub sight: u8,
    pub ago: u8,
    pub device: u8,
}

const COLLECTIONS: [&str; 4] = ["place", "note", "sighting", "report"];

pub fn edit() -> impl Strategy<Value = Edit> {
    let collection = prop_oneof![1 => Just(0usize), 4 => Just(1), 6 => Just(2), 2 => Just(3)];
    let a = (collection, 0..4usize, 0..9u8, 0..12usize, 0..12usize);
    let b = (0..5u8, 0..3usize, 0..4u8, 0..40u8, 0..3u8);
    (a, b).prop_map(|((collection, id, op, field, second), (value, parent, sight, ago, device))| Edit {
        collection,
        id,
        op,
        field,
        second,
        value,
        parent,
        sight,
        ago,
        device,
    })
}

pub fn deed() -> impl Strategy<Value = Deed> {
    let fate = prop_oneof![4 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Unanswered)];
    prop_oneof![
        8 => (0..3usize, any::<bool>(), edit()).prop_map(|(node, push, what)| Deed::Edit { node, push, what }),
        3 => (0..3usize, 0..8usize, 0..6u8).prop_map(|(node, which, how)| Deed::Answer { node, which, how }),
        2 => (1..3usize, 1..6usize).prop_map(|(node, most)| Deed::Seal { node, most }),
        3 => (1..3usize, fate).prop_map(|(node, fate)| Deed::Send { node, fate }),
        3 => (1..3usize, 1..4usize).prop_map(|(node, pages)| Deed::Pull { node, pages }),
        1 => (0..60u8).prop_map(|seconds| Deed::Wait { seconds }),
    ]
}

/// A profile of `tests/cases/profiles`.
pub fn profile(name: &str) -> Arc<profile::Profile> {
    let path = format!("{}/tests/cases/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    Arc::new(profile::parse(&fs::read_to_string(path).unwrap(), name).unwrap_or_else(|m| panic!("{m:#?}")))
}

/// A top and two that follow it.
pub struct World {
    pub nodes: Vec<Node>,
    pub count: usize,
    /// Values that a node has acknowledged: they must be found there for ever (I3).
    pub said: Vec<(usize, String)>,
}

impl World {
    pub fn new() -> Self {
        let profile = profile("world");
        let node = |(i, name): (usize, &&str)| Node::new(name, profile.clone(), i > 0);
        let nodes = ["top", "p", "q"].iter().enumerate().map(node).collect();
        let mut world = Self { nodes, count: 0, said: Vec::new() };
        let what = Edit {
            collection: 0,
            id: 0,
            op: 1,
            field: 0,
            second: 0,
            value: 0,
            parent: 0,
            sight: 0,
            ago: 0,
            device: 0,
        };
        world.play(&Deed::Edit { node: 0, push: false, what });
        for node in [1, 2] {
            world.play(&Deed::Pull { node, pages: 1 });
        }
        world
    }

    pub fn play(&mut self, deed: &Deed) {
        for node in &mut self.nodes {
            node.now = node.now.plus(1_000_000);
        }
        match deed {
            Deed::Edit { node, push, what } => self.edit(*node, *push, what),
            Deed::Answer { node, which, how } => self.answer(*node, *which, *how),
            Deed::Seal { node, most } => self.nodes[*node].seal(*most),
            Deed::Send { node, fate } => {
                let (top, rest) = self.nodes.split_at_mut(1);
                rest[node - 1].send(&mut top[0], "editor", *fate);
            }
            Deed::Pull { node, pages } => {
                let (top, rest) = self.nodes.split_at_mut(1);
                rest[node - 1].pull(&top[0], *pages, 4);
            }
            Deed::Wait { seconds } => {
                for node in &mut self.nodes {
                    node.now = node.now.plus(i64::from(*seconds) * 1_000_000);
                }
            }
        }
    }

    fn edit(&mut self, at: usize, push: bool, what: &Edit) {
        self.count += 1;
        let node = &mut self.nodes[at];
        let change = change(node, push, what, self.count);
        let receipts = match push {
            false => node.desk("editor", vec![change.clone()]),
            true => node.pushed(&change.author.device.clone(), "editor", vec![change.clone()]),
        };
        self.note(at, &change, &receipts[0]);
    }

    fn note(&mut self, at: usize, change: &Change, receipt: &Receipt) {
        if receipt.verdict.is_settled() {
            let words = change.fields.values().filter_map(Value::as_str).filter(|w| w.starts_with("word-"));
            self.said.extend(words.map(|w| (at, w.to_owned())));
        }
    }

    fn answer(&mut self, at: usize, which: usize, how: u8) {
        self.count += 1;
        let count = self.count;
        let node = &mut self.nodes[at];
        let conflicts = node.records.iter().filter(|(k, r)| &*k.collection == CONFLICT && r.is_live());
        let all: Vec<(Key, u64, Conflict)> =
            conflicts.map(|(k, r)| (k.clone(), r.version, Conflict::read(&r.data).unwrap())).collect();
        let Some((key, version, conflict)) = all.get(which % all.len().max(1)).cloned() else { return };
        let merged = || -> Option<Fields> {
            let field = conflict.fields.iter().find(|f| matches!(f.as_str(), "text" | "name" | "late"))?;
            Some(Fields::from([(field.clone(), json!(format!("word-{count}")))]))
        };
        let (resolution, data) = match how {
            0 | 1 => (Resolution::Server, None),
            2 => (Resolution::Incoming, None),
            3 => match merged() {
                Some(fields) => (Resolution::Merged, Some(fields)),
                None => (Resolution::Incoming, None),
            },
            4 => (Resolution::Apart, None),
            _ => (Resolution::Reopen, None),
        };
        let change = Change {
            id: ChangeId::trusted(format!("a{count}")),
            collection: key.collection.clone(),
            record: key.id.clone(),
            op: Op::Patch,
            fields: Conflict::answer(resolution, data, None),
            seen: None,
            base: Some(Base { epoch: node.epoch.clone(), version }),
            lost: None,
            author: Author { device: node.own_device(), person: None },
            at: Some(AuthorTime::wall(node.now)),
        };
        // A device with a manager at it answers at a follower; the desk itself there may not.
        match at {
            0 => node.desk("manager", vec![change]),
            _ => node.pushed(&DeviceId::trusted("tablet"), "manager", vec![change]),
        };
    }

    /// Lets everything come to rest. Whether it did.
    pub fn rest(&mut self) {
        for round in 0..60 {
            let standing =
                |n: &Node| (n.head, n.unsettled().iter().map(|e| (e.seq, e.state)).collect::<Vec<_>>());
            let before: Vec<_> = self.nodes.iter().map(standing).collect();
            for at in 1..self.nodes.len() {
                let (top, rest) = self.nodes.split_at_mut(1);
                let node = &mut rest[at - 1];
                node.now = node.now.plus(1_000_000);
                top[0].now = top[0].now.plus(1_000_000);
                node.rearm();
                node.seal(100);
                node.send(&mut top[0], "manager", Fate::Arrives);
                while !node.pull(&top[0], 100, 7) {}
            }
            let after: Vec<_> = self.nodes.iter().map(standing).collect();
            let still = before == after;
            if still && after.iter().all(|a| a.1.is_empty()) {
                return;
            }
            if still && round > 3 {
                for node in &mut self.nodes[1..] {
                    let stuck = |e: &&ropeway_core::outbox::Entry| {
                        e.state.is_unsettled()
                            && !matches!(
                                e.state,
                                EntryState::Rejected | EntryState::Waiting | EntryState::Pending
                            )
                    };
                    let other: Vec<_> = node.outbox.values().filter(stuck).collect();
                    assert!(other.is_empty(), "{}: stalled: {other:#?}", node.name);
                    let refused = |e: &ropeway_core::outbox::Entry| {
                        matches!(e.state, EntryState::Rejected | EntryState::Waiting)
                    };
                    let some = node.outbox.values().any(refused);
                    assert!(
                        some || node.unsettled().is_empty(),
                        "{}: stalled: {:#?}",
                        node.name,
                        node.outbox
                    );
                    node.discard_refused();
                }
            }
        }
        let left: Vec<_> = self.nodes.iter().map(|n| (&n.name, n.head, n.unsettled())).collect();
        panic!("it does not come to rest: {left:#?}");
    }

    /// All replicas hold the same, and each its acknowledged values.
    pub fn agree(&self) {
        let top = &self.nodes[0];
        for node in &self.nodes[1..] {
            let (ours, theirs) = (top.dump(), node.dump());
            let only =
                |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
            assert_eq!(
                (only(&ours, &theirs), only(&theirs, &ours)),
                (vec![], vec![]),
                "the top and {} differ (left only at the top, right only there)",
                node.name
            );
            assert_eq!(top.digest, node.digest, "digests of equal data are equal");
        }
        self.nothing_lost();
        self.no_twins();
    }

    fn nothing_lost(&self) {
        for (at, word) in &self.said {
            let node = &self.nodes[*at];
            let quoted = format!("\"{word}\"");
            let now = node.records.values().chain(node.history.values().flatten());
            let found = now.into_iter().any(|r| r.data.text().contains(&quoted));
            assert!(found, "{} acknowledged {word} and lost it", node.name);
        }
    }

    /// I5: what looks the same is one, asked about, flagged, or said to be two.
    fn no_twins(&self) {
        let top = &self.nodes[0];
        let prints: Vec<_> = top.prints.values().collect();
        for (i, a) in prints.iter().enumerate() {
            for b in
                prints[i + 1..].iter().filter(|b| a.print == b.print && a.at.abs_diff(b.at) <= 30_000_000)
            {
                let named = |link: &ropeway_core::plan::Link, x: &Key, y: &Key| {
                    let Some(record) = top.records.get(&link.child).filter(|_| link.parent == *x) else {
                        return false;
                    };
                    link.child == *y
                        || Conflict::read(&record.data)
                            .is_some_and(|c| c.about() == *y || c.other.as_ref() == Some(&y.id))
                };
                // Of several likenesses the nearest is asked about or flagged; the others wait behind that.
                let asked = |key: &Key| {
                    let conflicts = top
                        .links
                        .iter()
                        .filter(|l| l.parent == *key)
                        .filter_map(|l| top.records.get(&l.child));
                    conflicts
                        .filter_map(|r| Conflict::read(&r.data))
                        .any(|c| matches!(c.kind, Kind::Twins | Kind::Alike))
                };
                let known =
                    top.links.iter().any(|l| named(l, &a.key, &b.key)) || asked(&a.key) || asked(&b.key);
                assert!(known, "{} and {} are the same and nobody knows", a.key, b.key);
            }
        }
    }
}

/// A change that somebody makes at a node, seeing what is there.
pub fn change(node: &Node, push: bool, what: &Edit, count: usize) -> Change {
    let collection = Collection::trusted(COLLECTIONS[what.collection]);
    let record = RecordId::trusted(format!("{}{}", &COLLECTIONS[what.collection][..1], what.id));
    let device = match push {
        true => DeviceId::trusted(format!("device-{}-{}", node.name, what.device)),
        false => node.own_device(),
    };
    let here = node.records.get(&Key::new(&collection, &record));
    let mut fields = Fields::new();
    for which in [what.field, what.second] {
        let (name, value) = value(&collection, which, what, count, &device);
        fields.insert(name.to_owned(), value);
    }
    let op = match what.op {
        0 => Op::Delete,
        1 => Op::Create,
        _ if here.is_none() => Op::Create,
        _ => Op::Patch,
    };
    let parent = match &*collection {
        "sighting" => Some(("place", format!("p{}", what.parent))),
        "report" => Some(("sighting", format!("s{}", what.parent))),
        "note" if what.value == 4 => Some(("place", format!("p{}", what.parent))),
        _ => None,
    };
    if let Some((field, id)) = parent.filter(|_| op == Op::Create || what.value == 3) {
        fields.insert(field.into(), json!(id));
    }
    if op == Op::Create && &*collection == "sighting" && what.op != 1 {
        fields.insert("bib".into(), json!(1 + what.value % 2));
        fields.insert("seen_at".into(), json!(format!("2026-02-14T10:00:{:02}Z", what.ago)));
        fields.insert("place".into(), json!("p0"));
    }
    if op == Op::Delete {
        fields.clear();
    }
    let base = here.filter(|_| push && what.sight == 0);
    let base = base.map(|r| Base { epoch: node.epoch.clone(), version: r.version });
    let named =
        fields.keys().filter_map(|f| here.and_then(|r| r.data.get(f)).map(|v| (f.clone(), v.clone())));
    let seen = (push && what.sight == 1).then(|| named.collect());
    let at = Time(node.now.0 - i64::from(what.ago) * 1_000_000);
    Change {
        id: ChangeId::trusted(format!("c{count}")),
        collection,
        record,
        op,
        fields,
        seen,
        base,
        lost: None,
        author: Author { device, person: (what.device == 2).then(|| "Ana".into()) },
        at: Some(AuthorTime::wall(at)),
    }
}

fn value(
    collection: &str,
    which: usize,
    what: &Edit,
    count: usize,
    device: &DeviceId,
) -> (&'static str, Value) {
    let word = json!(format!("word-{count}"));
    let second = |s: u8| json!(format!("2026-02-14T10:00:{s:02}Z"));
    match (collection, which) {
        ("place", _) => ("name", word),
        ("note", 0) => ("late", word),
        ("note", 1) => ("early", word),
        ("note", 2) => ("keep", word),
        ("note", 3) => ("take", word),
        ("note", 4) => ("most", json!(what.value)),
        ("note", 5) => ("least", json!(what.value)),
        ("note", 6) => ("tags", json!([format!("t{}", what.value), "t0"])),
        ("note", 7) => ("hits", json!({ device.as_str(): what.value })),
        ("note", 8) => ("days", json!({ format!("d{}", what.value): { "v": count } })),
        ("note", 9) => ("unknown field", word),
        ("sighting", 0) => ("status", json!(if what.value > 2 { "open" } else { "closed" })),
        ("sighting", 1) => ("closed_by", word),
        ("sighting", 2) => {
            ("decision", json!(["pending", "yes", "no", "yes", "no"][usize::from(what.value)]))
        }
        ("sighting", 3) => ("decided_by", word),
        ("sighting", 4..=6) => ("bib", json!(1 + what.value % 2)),
        ("sighting", 7..=9) => ("seen_at", second(what.value * 12)),
        _ => ("text", word),
    }
}
