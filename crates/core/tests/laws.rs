//! Laws of the pure core: what holds for every history, not only for the cases that somebody thought of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{
    Node,
    world::{change, edit, profile},
};
use proptest::prelude::*;
use ropeway_core::{
    change::{Author, Base, Change, Op},
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, RecordId},
    receipt::Receipt,
    time::{AuthorTime, Time},
};
use serde_json::{Value, json};

fn pusher() -> DeviceId {
    DeviceId::trusted("pusher")
}

/// Changes by several people, each seeing what is there when it is made.
fn history(edits: &[harness::world::Edit]) -> (Node, Vec<(Change, Receipt)>) {
    let mut node = Node::new("n", profile("world"), false);
    let mut all = Vec::new();
    for (i, what) in edits.iter().enumerate() {
        node.now = node.now.plus(1_000_000);
        let made = change(&node, true, what, i + 1);
        let receipt = node.pushed(&pusher(), "editor", vec![made.clone()]).remove(0);
        all.push((made, receipt));
    }
    (node, all)
}

/// One change of an order-free field, made on version 1.
fn concurrent(device: usize, which: usize, value: i64, at: i64) -> Change {
    let id = format!("device-{device}");
    let days = json!({ format!("d{}", value % 2): { "v": value, "updated_at": Time(1_771_000_000_000_000 + at).to_string() } });
    let (name, value) = match which {
        0 => ("most", json!(value * 2)),
        1 => ("least", json!(value * 2)),
        2 => (
            "tags",
            json!(["t0", format!("t{}", 2 + value % 4), format!("t{}", (value + device as i64) % 5)]),
        ),
        3 => ("hits", json!({ id.as_str(): value })),
        4 => ("late", json!(format!("v{}", 1 + value))),
        5 => ("early", json!(format!("v{}", 1 + value))),
        _ => ("days", days),
    };
    let seen = json!({ "most": 3, "least": 3, "tags": ["t0", "t1"], "late": "v0", "early": "v0" });
    Change {
        id: ChangeId::trusted(format!("c{device}")),
        collection: Collection::trusted("note"),
        record: RecordId::trusted("n"),
        op: Op::Patch,
        fields: Fields::from([(name.to_owned(), value)]),
        seen: serde_json::from_value(seen).unwrap(),
        base: Some(Base { epoch: Node::new("n", profile("world"), false).epoch, version: 1 }),
        lost: None,
        author: Author { device: DeviceId::trusted(id), person: None },
        at: Some(AuthorTime::wall(Time(1_771_000_000_000_000 + at))),
    }
}

fn after(changes: &[Change]) -> String {
    let mut node = Node::new("n", profile("world"), false);
    let mut first = concurrent(99, 0, 3, 0);
    first.op = Op::Create;
    first.base = None;
    first.fields = first.seen.take().unwrap();
    node.pushed(&pusher(), "editor", vec![first]);
    for change in changes {
        node.now = node.now.plus(1);
        node.pushed(&pusher(), "editor", vec![change.clone()]);
    }
    node.get("note", "n").unwrap().data.text().to_owned()
}

fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("a\u{0}b\u{202e}\n\"\\")),
        Just(json!("p0")),
        Just(json!("2026-02-14T10:00:00Z")),
        Just((0..40).fold(json!(1), |v, _| json!([v]))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn hostile_change() -> impl Strategy<Value = (Change, bool, bool)> {
    let collection = prop_oneof![
        Just("place"),
        Just("note"),
        Just("sighting"),
        Just("report"),
        Just("conflict"),
        Just("nowhere")
    ];
    let name = prop_oneof![
        Just("text".to_owned()),
        Just("late".into()),
        Just("most".into()),
        Just("tags".into()),
        Just("hits".into()),
        Just("days".into()),
        Just("place".into()),
        Just("sighting".into()),
        Just("bib".into()),
        Just("seen_at".into()),
        Just("status".into()),
        Just("decision".into()),
        Just("resolution".into()),
        Just("merged".into()),
        "\\PC{0,9}",
    ];
    let fields = prop::collection::btree_map(name, hostile(), 0..5).prop_map(Fields::from).boxed();
    let op = prop_oneof![3 => Just(Op::Create), 3 => Just(Op::Patch), 1 => Just(Op::Delete)];
    let record =
        prop_oneof![Just("p0".to_owned()), Just("x".into()), Just("c1:text".into()), Just("c2:late".into())];
    let when = (any::<i64>(), prop::option::of(any::<i64>()));
    let rest = (0..40u8, prop::option::of(0..4u64), any::<bool>(), any::<bool>(), prop::option::of(when));
    (collection, record, op, fields.clone(), prop::option::of(fields), rest).prop_map(
        |(collection, record, op, fields, seen, (id, base, desk, follows, when))| {
            let epoch = Node::new("n", profile("world"), false).epoch;
            let change = Change {
                id: ChangeId::trusted(format!("c{id}")),
                collection: Collection::trusted(collection),
                record: RecordId::trusted(record),
                op,
                fields,
                seen,
                base: base.map(|version| Base { epoch, version }),
                lost: None,
                author: Author { device: DeviceId::trusted(format!("d{}", id % 3)), person: None },
                at: when.map(|(wall, offset)| AuthorTime { offset, ..AuthorTime::wall(Time(wall)) }),
            };
            (change, desk, follows)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 600, ..ProptestConfig::default() })]

    /// Whatever is sent again is answered as before, and nothing moves (I1).
    #[test]
    fn a_replay_changes_nothing(edits in prop::collection::vec(edit(), 1..30)) {
        let (mut node, all) = history(&edits);
        let (head, dump, history) = (node.head, node.dump(), node.history.clone());
        let settled: Vec<_> = all.into_iter().filter(|(_, r)| r.verdict.is_settled()).collect();
        let changes: Vec<Change> = settled.iter().map(|(c, _)| c.clone()).collect();
        let again = node.pushed(&pusher(), "editor", changes);
        for (old, new) in settled.iter().map(|(_, r)| r).zip(&again) {
            prop_assert_eq!(
                (old.verdict, old.version, &old.detail),
                (new.verdict, new.version, &new.detail)
            );
            // Where nothing moved the head, a later one serves as well; none lies beyond the head.
            prop_assert!(old.stamp <= new.stamp && new.stamp <= head, "{:?} {:?}", old, new);
        }
        prop_assert_eq!((head, dump, history), (node.head, node.dump(), node.history));
    }

    /// A batch may be cut anywhere: verdicts, records, versions and conflicts are the same, where the
    /// clock stands still. Stamps may differ, and the records shown, which are those of the batch's end.
    #[test]
    fn a_batch_may_be_cut_anywhere(edits in prop::collection::vec(edit(), 2..14), cut in 1..13usize) {
        let (_, all) = history(&edits);
        let changes: Vec<Change> = all.into_iter().map(|(c, _)| c).collect();
        let cut = cut.min(changes.len() - 1);
        let mut parts = Node::new("n", profile("world"), false);
        parts.many = true;
        let mut whole = parts.clone();
        let mut one = parts.pushed(&pusher(), "editor", changes[..cut].to_vec());
        one.extend(parts.pushed(&pusher(), "editor", changes[cut..].to_vec()));
        let other = whole.pushed(&pusher(), "editor", changes);
        let say = |r: &Receipt| (r.verdict, r.version, r.detail.clone(), r.reason.clone());
        prop_assert_eq!(one.iter().map(say).collect::<Vec<_>>(), other.iter().map(say).collect::<Vec<_>>());
        prop_assert_eq!(parts.dump(), whole.dump());
        let versions = |n: &Node| n.records.iter().map(|(k, r)| (k.clone(), r.version)).collect::<Vec<_>>();
        prop_assert_eq!(versions(&parts), versions(&whole));
    }

    /// Concurrent changes, all made on one version, each of which alters one order-free field: the record
    /// is the same in every order of arrival (I8). Ties go by device; times are past; no groups; the keys
    /// of a map carry their own `updated_at`.
    #[test]
    fn order_free_rules_are_free_of_order(
        given in prop::collection::vec((0..7usize, 0..6i64, 0..5i64), 1..6),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let make = |(i, (which, value, at)): (usize, &(usize, i64, i64))| {
            concurrent(i, *which, *value, 1_000_000 + at * 1_000_000)
        };
        let changes: Vec<Change> = given.iter().enumerate().map(make).collect();
        let shuffled: Vec<Change> = order.iter().filter_map(|i| changes.get(*i).cloned()).collect();
        prop_assert_eq!(after(&changes), after(&shuffled));
    }

    /// No change makes a decision panic, write what cannot be read, or break what the harness checks.
    #[test]
    fn nothing_hostile_does_harm(changes in prop::collection::vec(hostile_change(), 1..14)) {
        let mut nodes = [Node::new("n", profile("world"), false), Node::new("n", profile("world"), true)];
        for node in &mut nodes {
            node.offsets = true;
            for (change, desk, _) in &changes {
                match desk {
                    true => node.desk("manager", vec![change.clone()]),
                    false => node.pushed(&pusher(), "manager", vec![change.clone()]),
                };
            }
        }
    }
}
