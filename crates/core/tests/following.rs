//! Named stories of two nodes, one of which follows the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Node, follow::Fate, world::profile};
use ropeway_core::{
    change::{Author, Base, Change, Op},
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, RecordId},
    outbox::EntryState,
    receipt::Verdict,
};
use serde_json::{Value, json};

fn pair() -> (Node, Node) {
    (Node::new("top", profile("world"), false), Node::new("pi", profile("world"), true))
}

fn change(id: &str, op: Op, collection: &str, record: &str, fields: Value) -> Change {
    Change {
        id: ChangeId::trusted(id),
        collection: Collection::trusted(collection),
        record: RecordId::trusted(record),
        op,
        fields: serde_json::from_value::<Fields>(fields).unwrap(),
        seen: None,
        base: None,
        lost: None,
        author: Author { device: DeviceId::trusted("tablet"), person: None },
        at: None,
    }
}

fn at_desk(node: &mut Node, change: Change) -> Verdict {
    let author = Author { device: node.own_device(), person: None };
    node.now = node.now.plus(1_000_000);
    node.desk("manager", vec![Change { author, ..change }])[0].verdict
}

fn sync(pi: &mut Node, top: &mut Node) {
    for node in [&mut *pi, &mut *top] {
        node.now = node.now.plus(1_000_000);
    }
    for _ in 0..6 {
        pi.rearm();
        pi.seal(10);
        pi.send(top, "editor", Fate::Arrives);
        while !pi.pull(top, 9, 3) {}
    }
}

fn text(node: &Node, collection: &str, id: &str, field: &str) -> Option<String> {
    node.get(collection, id).and_then(|r| r.data.str(field).map(str::to_owned))
}

#[test]
fn an_edit_made_during_its_upload_stays_pending_and_arrives() {
    let (mut top, mut pi) = pair();
    at_desk(&mut pi, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    pi.seal(10);
    at_desk(&mut pi, change("c2", Op::Patch, "note", "n", json!({"text": "two"})));
    pi.send(&mut top, "editor", Fate::Arrives);
    while !pi.pull(&top, 9, 3) {}
    let states: Vec<_> = pi.outbox.values().map(|e| (e.change.id.to_string(), e.state)).collect();
    assert_eq!(states, [("c1".into(), EntryState::Settled), ("c2".into(), EntryState::Pending)]);
    assert_eq!(text(&pi, "note", "n", "text").as_deref(), Some("two"), "the edit still shows");
    sync(&mut pi, &mut top);
    assert_eq!(text(&top, "note", "n", "text").as_deref(), Some("two"));
    assert_eq!(pi.outbox.values().last().unwrap().verdict, Some(Verdict::Applied));
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_lost_answer_takes_effect_once() {
    let (mut top, mut pi) = pair();
    for i in 0..5 {
        at_desk(
            &mut pi,
            change(
                &format!("c{i}"),
                Op::Create,
                "note",
                &format!("n{i}"),
                json!({"text": "x", "hits": {"desk-pi": 3}}),
            ),
        );
    }
    pi.seal(10);
    pi.send(&mut top, "editor", Fate::Unanswered);
    let head = top.head;
    pi.send(&mut top, "editor", Fate::Arrives);
    assert_eq!(top.head, head, "the repeat moved nothing");
    sync(&mut pi, &mut top);
    assert!(
        pi.outbox.values().all(|e| e.verdict == Some(Verdict::Created) && e.state == EntryState::Settled)
    );
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

/// What was gone already when its author deleted it had moved on before: an edit on top of that deletion has not
/// seen what became of it.
#[test]
fn a_deletion_of_what_was_gone_is_no_base_for_the_edit_on_top_of_it() {
    let (mut top, mut pi) = pair();
    at_desk(&mut top, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    sync(&mut pi, &mut top);
    at_desk(&mut top, change("c2", Op::Patch, "note", "n", json!({"text": "two"})));
    at_desk(&mut top, change("c3", Op::Delete, "note", "n", json!({})));
    at_desk(&mut pi, change("c4", Op::Delete, "note", "n", json!({})));
    pi.seal(1);
    at_desk(&mut pi, change("c5", Op::Patch, "note", "n", json!({"text": "three"})));
    pi.send(&mut top, "editor", Fate::Unanswered);
    at_desk(&mut top, change("c6", Op::Patch, "note", "n", json!({})));
    sync(&mut pi, &mut top);
    assert_eq!(text(&top, "note", "n", "text").as_deref(), Some("two"), "nobody's value is replaced unseen");
    assert!(top.get("note", "n").unwrap().contested, "and a person is asked");
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_withdrawal_at_a_follower_reaches_the_upstream() {
    let (mut top, mut pi) = pair();
    at_desk(&mut top, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    sync(&mut pi, &mut top);
    at_desk(&mut top, change("c2", Op::Patch, "note", "n", json!({"text": "two"})));
    at_desk(&mut pi, change("c3", Op::Patch, "note", "n", json!({"text": "three"})));
    sync(&mut pi, &mut top);
    assert!(pi.get("note", "n").unwrap().contested && top.get("note", "n").unwrap().contested);
    assert_eq!(
        at_desk(&mut pi, change("c4", Op::Patch, "note", "n", json!({"text": "two"}))),
        Verdict::Unchanged
    );
    sync(&mut pi, &mut top);
    assert!(!pi.get("note", "n").unwrap().contested && !top.get("note", "n").unwrap().contested);
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_change_is_one_change_by_whichever_way_it_comes() {
    let (mut top, mut pi) = pair();
    let given = change("c1", Op::Create, "note", "n", json!({"most": "42", "text": "x"}));
    let tablet = DeviceId::trusted("tablet");
    pi.pushed(&tablet, "editor", vec![given.clone()]);
    assert_eq!(top.pushed(&tablet, "editor", vec![given])[0].verdict, Verdict::Created);
    sync(&mut pi, &mut top);
    assert_eq!(pi.outbox.values().next().unwrap().verdict, Some(Verdict::Created));
    assert_eq!(pi.get("note", "n").unwrap().data.get("most"), Some(&json!(42)));
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_deletion_says_what_it_saw() {
    let (mut top, mut pi) = pair();
    at_desk(&mut pi, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    at_desk(&mut pi, change("c2", Op::Delete, "note", "n", json!({})));
    pi.seal(1);
    pi.send(&mut top, "editor", Fate::Arrives);
    at_desk(&mut top, change("c3", Op::Patch, "note", "n", json!({"text": "edited meanwhile"})));
    sync(&mut pi, &mut top);
    assert!(
        top.get("note", "n").unwrap().is_live(),
        "an edit that the deletion did not see waits for a person"
    );
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_refused_change_holds_back_only_what_hangs_on_it() {
    let (mut top, mut pi) = pair();
    at_desk(&mut pi, change("c1", Op::Create, "place", "p", json!({"name": "P"})));
    at_desk(&mut pi, change("c2", Op::Create, "sighting", "s", json!({"place": "p"})));
    at_desk(&mut pi, change("c3", Op::Create, "note", "n", json!({"text": "x"})));
    // Meanwhile the same change id was used by somebody else: the upstream refuses the place.
    top.pushed(&DeviceId::trusted("b"), "editor", vec![change("c1", Op::Create, "note", "m", json!({}))]);
    sync(&mut pi, &mut top);
    let state = |pi: &Node, seq: i64| pi.outbox[&seq].state;
    assert_eq!(state(&pi, 1), EntryState::Rejected);
    assert!(pi.outbox[&2].state.is_unsent());
    assert_eq!(state(&pi, 3), EntryState::Settled);
    // A correction replaces it, and all goes through.
    at_desk(&mut pi, change("c5", Op::Patch, "place", "p", json!({"name": "Q"})));
    sync(&mut pi, &mut top);
    assert!(pi.outbox.values().all(|e| e.state == EntryState::Settled), "{:#?}", pi.outbox);
    assert_eq!(text(&top, "place", "p", "name").as_deref(), Some("Q"));
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn the_next_edit_takes_an_exact_receipt_as_its_base_and_no_other() {
    let (mut top, mut pi) = pair();
    at_desk(&mut pi, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    sync(&mut pi, &mut top);
    at_desk(&mut pi, change("c2", Op::Patch, "note", "n", json!({"text": "two"})));
    pi.seal(10);
    at_desk(&mut pi, change("c3", Op::Patch, "note", "n", json!({"text": "three"})));
    pi.send(&mut top, "editor", Fate::Arrives);
    let base = |pi: &Node, seq: i64| pi.outbox[&seq].change.base.clone();
    assert_eq!(base(&pi, 3), Some(Base { epoch: top.epoch.clone(), version: 2 }));
    sync(&mut pi, &mut top);
    at_desk(&mut pi, change("c4", Op::Patch, "note", "n", json!({"keep": "x"})));
    pi.seal(10);
    at_desk(&mut pi, change("c5", Op::Patch, "note", "n", json!({"keep": "y"})));
    at_desk(&mut top, change("c6", Op::Patch, "note", "n", json!({"take": "z"})));
    pi.send(&mut top, "editor", Fate::Arrives);
    assert_eq!(pi.outbox[&4].verdict, Some(Verdict::Merged));
    assert_eq!(base(&pi, 5), None, "what was merged was not seen");
    sync(&mut pi, &mut top);
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_sync_with_nothing_to_do_moves_nothing() {
    let (mut top, mut pi) = pair();
    at_desk(&mut pi, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    at_desk(&mut top, change("c2", Op::Create, "note", "m", json!({"text": "two"})));
    sync(&mut pi, &mut top);
    let heads = (top.head, pi.head);
    sync(&mut pi, &mut top);
    assert_eq!((top.head, pi.head), heads);
    assert!(top.feed(pi.cursor, 9).is_empty());
}

#[test]
fn two_nodes_that_join_the_other_way_round_make_no_circle() {
    let (mut top, mut pi) = pair();
    at_desk(&mut top, change("c1", Op::Create, "place", "p", json!({"name": "P"})));
    let at = "2026-02-14T10:00:00Z";
    at_desk(
        &mut top,
        change("c2", Op::Create, "sighting", "a", json!({"place": "p", "bib": 1, "seen_at": at})),
    );
    at_desk(&mut top, change("c3", Op::Create, "sighting", "b", json!({"place": "p", "seen_at": at})));
    sync(&mut pi, &mut top);
    // Here a is joined into b, provisionally; there b is joined into a.
    at_desk(&mut pi, change("c4", Op::Patch, "sighting", "a", json!({"bib": null})));
    at_desk(&mut pi, change("c5", Op::Patch, "sighting", "b", json!({"bib": 1})));
    assert_eq!(
        at_desk(&mut pi, change("c6", Op::Patch, "sighting", "a", json!({"bib": 1}))),
        Verdict::Joined
    );
    assert_eq!(
        at_desk(&mut top, change("c7", Op::Patch, "sighting", "b", json!({"bib": 1}))),
        Verdict::Joined
    );
    while !pi.pull(&top, 9, 3) {}
    assert!(pi.get("sighting", "a").unwrap().is_live(), "the upstream's word stands");
    sync(&mut pi, &mut top);
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}

#[test]
fn a_conflict_that_the_upstream_does_not_share_is_forgotten_with_its_mark() {
    let (mut top, mut pi) = pair();
    at_desk(&mut top, change("c1", Op::Create, "note", "n", json!({"text": "one"})));
    sync(&mut pi, &mut top);
    // A tablet that saw nothing contests here; at the top the field was taken back to nothing meanwhile.
    at_desk(&mut top, change("c2", Op::Patch, "note", "n", json!({"text": null})));
    let mine = change("c3", Op::Patch, "note", "n", json!({"text": "two"}));
    assert_eq!(pi.pushed(&DeviceId::trusted("tablet"), "editor", vec![mine])[0].verdict, Verdict::Parked);
    assert!(pi.get("note", "n").unwrap().contested);
    sync(&mut pi, &mut top);
    assert!(!pi.get("note", "n").unwrap().contested);
    assert_eq!(text(&pi, "note", "n", "text").as_deref(), Some("two"));
    assert_eq!((top.dump(), top.digest), (pi.dump(), pi.digest));
}
