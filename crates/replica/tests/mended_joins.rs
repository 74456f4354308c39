//! Further findings of hostile reviews: edits over what this node only decided provisionally, answers that
//! only a follower could give, joins among conflicts. Each failed before it was mended.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly")]
mod harness;
use harness::{pair::*, *};
use ropeway_core::{
    change::Op::{Create, Delete, Patch},
    conflict::{Kind, Resolution},
    digest::{Digest, contribution},
    doc::Doc,
    outbox::EntryState,
    plan::{Decision, Plan, Row},
    receipt::Verdict,
    record::Record,
    time::Stamp,
};
use ropeway_replica::{Clock, Node, ReplicaError, Resolve, SyncOptions};
use ropeway_store::SyncOutcome;
use serde_json::json;
use std::time::Duration;

const AT: &str = "2026-02-14T09:00:00Z";

fn answer(conflict: &ropeway_replica::ConflictView, resolution: Resolution) -> Resolve {
    Resolve {
        conflict: conflict.id.clone(),
        version: None,
        resolution,
        data: None,
        notes: None,
        change: None,
    }
}

#[tokio::test]
async fn an_edit_over_a_provisional_join_contests_nobody() {
    let p = pair(PROFILE).await;
    p.w(&p.cloud, Create, "race", "r1", json!({"name": "Sprint"})).await;
    p.w(&p.cloud, Create, "incident", "s", json!({"race": "r1", "bib_number": 7, "created_at": AT})).await;
    p.sync().await;
    let twin = json!({"race": "r1", "bib_number": 7, "created_at": AT, "description": "x"});
    assert_eq!(p.w(&p.pi, Create, "incident", "b", twin).await.verdict, Verdict::Joined);
    p.w(&p.pi, Patch, "incident", "s", json!({"description": "x, corrected"})).await;
    let report = p.sync().await;
    println!("{:?}\n{}", report.verdicts, dump(&p.cloud).await);
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "incident", "s").await["description"], "x, corrected");
    assert!(p.cloud.conflicts(&space(), true).await.unwrap().is_empty(), "nobody else wrote");
}

#[tokio::test]
async fn an_edit_over_a_provisional_release_contests_nobody() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "box", "b2", json!({"name": "two"})).await;
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b2", "shelf": "b1"})).await;
    p.sync().await;
    p.w(&p.pi, Delete, "box", "b1", json!({})).await;
    p.w(&p.pi, Patch, "item", "i", json!({"shelf": "b2"})).await;
    for _ in 0..3 {
        p.sync().await;
    }
    assert_eq!(data(&p.cloud, "item", "i").await["shelf"], "b2");
    p.equal().await;
}

#[tokio::test]
async fn an_author_answers_at_the_follower_and_types_on() {
    let p = pair(&tree("latest", "author")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "pi"})).await;
    p.w(&p.cloud, Patch, "box", "b1", json!({"name": "cloud"})).await;
    p.sync().await;
    p.sync().await;
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    p.pi.resolve(&space(), &desk("referee", "device"), answer(&open[0], Resolution::Incoming)).await.unwrap();
    assert_eq!(data(&p.pi, "box", "b1").await["name"], "pi");
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "pi, corrected"})).await;
    for _ in 0..3 {
        p.sync().await;
    }
    println!("{:?}\n{}", p.pi.queue(&space()).await.unwrap(), dump(&p.cloud).await);
    p.equal().await;
    assert_eq!(data(&p.cloud, "box", "b1").await["name"], "pi, corrected");
}

#[tokio::test]
async fn a_conflict_that_only_the_follower_knows_is_answered_after_a_sync() {
    let p = pair(&tree("latest", "anyone")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one", "mine": "cloud's"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"mine": "pi's"})).await;
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    assert_eq!(open.len(), 1);
    let early =
        p.pi.resolve(&space(), &desk("referee", "admin"), answer(&open[0], Resolution::Incoming)).await;
    assert!(matches!(early, Err(ReplicaError::Moved(_))), "{early:?}");
    for _ in 0..2 {
        p.sync().await;
        p.clock.advance(Duration::from_secs(3600));
    }
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    p.pi.resolve(&space(), &desk("referee", "admin"), answer(&open[0], Resolution::Incoming)).await.unwrap();
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "box", "b1").await["mine"], "pi's");
    assert!(p.pi.queue(&space()).await.unwrap().is_empty());
}

/// A change that parks a field and joins two records, both of which are in conflicts already.
#[tokio::test]
async fn a_late_join_among_conflicts_is_decided() {
    let p = pair(ALIKE).await;
    p.w(&p.cloud, Create, "item", "i1", json!({"text": "a", "note": "a"})).await;
    p.w(&p.cloud, Create, "item", "i2", json!({"bib": 1, "text": "a"})).await;
    p.sync().await;
    p.w(&p.cloud, Patch, "item", "i1", json!({"note": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i1", json!({"note": "pi"})).await;
    p.w(&p.cloud, Patch, "item", "i2", json!({"text": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i2", json!({"text": "pi"})).await;
    p.sync().await;
    p.sync().await;
    p.w(&p.cloud, Patch, "item", "i1", json!({"text": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i1", json!({"text": "pi", "bib": 1})).await;
    let report = p.sync().await;
    println!("{report:?} {:?}", p.pi.queue(&space()).await.unwrap());
    assert!(!report.verdicts.contains_key(&Verdict::Rejected));
    p.sync().await;
    p.equal().await;
}

/// A create given up at the queue takes what rests on it along, or stays: never half of it.
#[tokio::test]
async fn a_create_is_not_given_up_without_what_rests_on_it() {
    let p = pair(&tree("latest", "upstream")).await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Create, "box", "b1", json!({"name": "bad"})).await;
    write(&p.pi, "other", Patch, "box", "b1", json!({"name": "good"})).await;
    p.w(&p.pi, Create, "item", "i", json!({"box": "b1", "text": "in it"})).await;
    p.w(&p.pi, Create, "box", "b2", json!({"name": "another"})).await;
    p.sync().await;
    let queue: Vec<i64> = p.pi.queue(&space()).await.unwrap().iter().map(|q| q.seq).collect();
    let refused = p.pi.queue_discard(&space(), &queue[..1]).await;
    let Err(ReplicaError::Invalid(text)) = &refused else { panic!("{refused:?}") };
    assert!(queue[1..3].iter().all(|seq| text.contains(&seq.to_string())), "names what goes with it: {text}");
    assert_eq!(data(&p.pi, "box", "b1").await["name"], "good", "nothing was given up");
    let along = p.pi.queue_resting_on(&space(), &queue[..1]).await.unwrap();
    assert_eq!(along, queue[1..3]);
    let all: Vec<i64> = queue[..1].iter().chain(&along).copied().collect();
    assert_eq!(p.pi.queue_discard(&space(), &all).await.unwrap(), 3);
    p.sync().await;
    assert!(p.pi.queue(&space()).await.unwrap().is_empty());
    assert_eq!(data(&p.cloud, "box", "b2").await["name"], "another");
    p.equal().await;
}

/// A record brought back at the desk is still to be seen when another entry over it is given up.
#[tokio::test]
async fn a_revival_at_the_desk_stays_in_sight_while_it_waits() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b", json!({"name": "one"})).await;
    p.w(&p.cloud, Delete, "box", "b", json!({})).await;
    p.sync().await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Patch, "box", "b", json!({"name": "bad"})).await;
    write(&p.pi, "other", Patch, "box", "b", json!({"n": 3})).await;
    p.sync().await;
    let queue = p.pi.queue(&space()).await.unwrap();
    p.pi.queue_discard(&space(), &[queue[1].seq]).await.unwrap();
    let record = p.pi.get(&space(), &key("box", "b")).await.unwrap().unwrap();
    assert!(record.is_live(), "the revival still waits, but is not to be seen");
    *p.cable.refuse.lock().unwrap() = None;
    p.clock.advance(Duration::from_secs(3600));
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "box", "b").await["name"], "bad");
}

/// An older profile: what it does not know is kept, compared and shown (GP-04).
#[tokio::test]
async fn a_collection_that_an_older_profile_does_not_know_is_in_the_dump() {
    let old = tree("latest", "upstream").replace("collections.item", "collections.old");
    let p = pair2(&tree("latest", "upstream"), &old).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b1", "text": "t"})).await;
    let report = p.sync().await;
    assert!(report.digests.is_some_and(|(cloud, pi)| cloud == pi));
    assert_eq!(data(&p.pi, "item", "i").await["text"], "t");
    p.equal().await;
}

/// The upstream joins a record under an edit that is not sent yet: the edit shows on the survivor.
#[tokio::test]
async fn an_unsent_edit_of_a_joined_record_shows_on_the_survivor() {
    let p = pair(ALIKE).await;
    p.w(&p.cloud, Create, "item", "s", json!({"bib": 1})).await;
    p.w(&p.cloud, Create, "item", "b", json!({"text": "t"})).await;
    p.sync().await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Patch, "item", "b", json!({"note": "bad"})).await;
    assert_eq!(p.w(&p.cloud, Patch, "item", "b", json!({"bib": 1})).await.verdict, Verdict::Joined);
    p.sync().await;
    assert_eq!(data(&p.pi, "item", "s").await["note"], "bad", "the edit waits, but is not to be seen");
    // The join is undone: the edit goes back with the record that it names.
    let join = p.cloud.conflicts(&space(), false).await.unwrap().pop().unwrap();
    p.cloud.resolve(&space(), &desk("var", "admin"), answer(&join, Resolution::Apart)).await.unwrap();
    p.sync().await;
    assert_eq!(data(&p.pi, "item", "b").await["note"], "bad");
    assert!(data(&p.pi, "item", "s").await["note"].is_null());
    *p.cable.refuse.lock().unwrap() = None;
    p.clock.advance(Duration::from_secs(3600));
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "b").await["note"], "bad");
}

/// The other way round: the edit is typed while the join is known, and sent.
#[tokio::test]
async fn an_edit_of_a_joined_record_is_settled_on_the_survivor() {
    let p = pair(ALIKE).await;
    p.w(&p.cloud, Create, "item", "s", json!({"bib": 1})).await;
    p.w(&p.cloud, Create, "item", "b", json!({"text": "t"})).await;
    p.sync().await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Patch, "item", "b", json!({"note": "bad"})).await;
    p.w(&p.cloud, Patch, "item", "b", json!({"bib": 1})).await;
    p.sync().await;
    *p.cable.refuse.lock().unwrap() = None;
    p.w(&p.pi, Patch, "item", "b", json!({"text": "typed on"})).await;
    assert_eq!(data(&p.pi, "item", "s").await["note"], "bad");
    p.clock.advance(Duration::from_secs(3600));
    for _ in 0..3 {
        p.sync().await;
    }
    println!("{:?}\n{}", p.pi.queue(&space()).await.unwrap(), dump(&p.cloud).await);
    assert!(p.pi.queue(&space()).await.unwrap().is_empty());
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "s").await["note"], "bad");
}

/// A child waits for a parent, which comes to the upstream by another way: the child goes at once.
#[tokio::test]
async fn a_waiting_child_is_armed_when_its_parent_is_absorbed() {
    let p = pair(&tree("latest", "upstream")).await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Create, "box", "b", json!({"name": "bad"})).await;
    p.w(&p.pi, Create, "item", "i", json!({"box": "b", "text": "t"})).await;
    p.sync().await;
    let queue = p.pi.queue(&space()).await.unwrap();
    assert_eq!(queue[1].verdict, Some(Verdict::Waiting), "{queue:?}");
    assert!(queue[1].due.is_some(), "it waits for its time");
    p.w(&p.cloud, Create, "box", "b", json!({"name": "by another way"})).await;
    p.sync().await;
    let queue = p.pi.queue(&space()).await.unwrap();
    assert_eq!(queue[1].due, None, "its parent is there: it goes now");
    // What was refused of the parent no longer matters to the child, once a person has given it up.
    p.pi.queue_discard(&space(), &[queue[0].seq]).await.unwrap();
    p.sync().await;
    assert!(p.pi.queue(&space()).await.unwrap().is_empty());
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "i").await["text"], "t");
}

/// CT-23: a child whose parent was refused goes on waiting for it, however long; one whose parent nobody here can send
/// any more is put to a person at its last try.
#[tokio::test]
async fn a_child_that_waits_in_vain_is_put_to_a_person_at_its_last_try() {
    let p = pair(&tree("latest", "upstream")).await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Create, "box", "b", json!({"name": "bad"})).await;
    p.w(&p.pi, Create, "item", "i", json!({"box": "b", "text": "t"})).await;
    let wait = async || {
        for _ in 0..8 {
            p.sync().await;
            p.clock.advance(Duration::from_secs(25_000));
        }
        p.pi.queue(&space()).await.unwrap()
    };
    let queue = wait().await;
    let words: Vec<&str> = queue.iter().map(|item| item.status).collect();
    assert_eq!(words, ["failed", "failed"], "{queue:?}");
    assert!(p.cloud.conflicts(&space(), true).await.unwrap().is_empty(), "its parent is here and may go yet");
    // The parent is known here and lost there, as after a restored backup: nothing here will bring it.
    let seq = queue[0].seq;
    forget(&p.pi, seq).await;
    p.pi.queue_retry(&space(), &[]).await.unwrap();
    let queue = wait().await;
    assert!(queue.is_empty(), "{queue:?}");
    let asked = p.cloud.conflicts(&space(), true).await.unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].conflict.kind, &*asked[0].conflict.record), (Kind::Orphan, "i"));
    assert_eq!(asked[0].conflict.incoming.values["text"], "t", "nothing of it is lost");
}

/// Takes an entry out of the outbox under the engine's feet.
async fn forget(node: &Node, seq: i64) {
    let entries = node.store().outbox(&space(), &[], i64::MIN, 10).await.unwrap();
    let entry = entries.into_iter().find(|e| e.seq == seq).unwrap();
    let keys = ropeway_core::plan::Keys { outbox: [entry.over.clone()].into(), ..Default::default() };
    let decide: ropeway_store::Decide = Box::new(move |snapshot| {
        let gone = ropeway_core::outbox::Entry { state: EntryState::Discarded, ..entry.clone() };
        Decision::Plan(Box::new(Plan { head: snapshot.head, outbox: vec![gone], ..Plan::default() }))
    });
    node.store().transact(&space(), node.clock().now(), keys, decide).await.unwrap();
}

/// The cloud's disk came back from a copy without its last writes: same epoch, older head.
#[tokio::test]
async fn an_upstream_that_went_back_in_time_is_told() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b", json!({"name": "one"})).await;
    p.sync().await;
    let back = plain("cloud", false, &tree("latest", "upstream"), &p.clock).await;
    let cable = plug(&back).await;
    for _ in 0..2 {
        let report = p.pi.sync(&space(), &*cable, &SyncOptions::default(), &|_| {}).await.unwrap();
        assert_eq!(report.outcome, Some(SyncOutcome::Differs), "{report:?}");
        assert!(report.error.unwrap().contains("went back in time"));
    }
    assert_eq!(data(&p.pi, "box", "b").await["name"], "one", "what only this replica has stays");
    let last = p.pi.status(&space()).await.unwrap().last_sync.unwrap();
    assert_eq!(last.outcome, SyncOutcome::Differs, "status says so");
}

/// Rots a record of the Pi under the engine's feet, as a failing disk or a fault of ours would.
async fn rot(node: &Node, id: &str, name: &str) {
    let (id, data) = (key("box", id), Doc::of(fields(json!({"name": name}))));
    let keys = ropeway_core::plan::Keys { records: [id.clone()].into(), ..Default::default() };
    let decide: ropeway_store::Decide = Box::new(move |snapshot| {
        let (found, head) = (&snapshot.records[&id], snapshot.head.next(snapshot.now));
        let record = Record { data: data.clone(), stamp: head, ..found.clone() };
        let sum = |record| contribution(&id.collection, &id.id, record);
        let (before, after) = (sum(found), sum(&record));
        let digest = Digest::default().moved(before, after);
        let row = Row { key: id.clone(), record, is_new: false, contribution: (before, after) };
        Decision::Plan(Box::new(Plan { head, digest, rows: vec![row], ..Plan::default() }))
    });
    node.store().transact(&space(), node.clock().now(), keys, decide).await.unwrap();
}

#[tokio::test]
async fn replicas_that_differ_with_nothing_under_way_are_made_equal() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "box", "c", json!({"name": "two"})).await;
    p.sync().await;
    rot(&p.pi, "b", "rotten").await;
    let report = p.sync().await;
    assert_eq!(report.outcome, Some(SyncOutcome::Done), "{report:?}");
    assert_eq!(data(&p.pi, "box", "b").await["name"], "one");
    p.equal().await;
}

/// What a re-reading cannot mend is told, and the upstream is not read from the beginning at every sync.
#[tokio::test]
async fn replicas_that_go_on_differing_are_told_and_read_anew_once_an_hour() {
    let p = pair(&tree("latest", "upstream")).await;
    for n in 0..3 {
        p.w(&p.cloud, Create, "box", &format!("b{n}"), json!({"name": "one"})).await;
    }
    p.sync().await;
    // One half of a digest that was never right: no reading of records mends that.
    let decide: ropeway_store::Decide = Box::new(|snapshot| {
        let digest = Digest { count: 1, sum: 7 };
        Decision::Plan(Box::new(Plan { head: Stamp(snapshot.head.0 + 1), digest, ..Plan::default() }))
    });
    p.cloud.store().transact(&space(), p.clock.now(), Default::default(), decide).await.unwrap();
    let pulled = async || {
        let before = p.cable.served();
        let report = p.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Differs), "{report:?}");
        p.cable.served() - before
    };
    assert_eq!(pulled().await, 3, "read from the beginning");
    assert_eq!(pulled().await, 0, "not again so soon");
    p.clock.advance(Duration::from_secs(3_600));
    assert_eq!(pulled().await, 3, "and once more after an hour");
    p.w(&p.pi, Create, "box", "mine", json!({"name": "waits"})).await;
    p.sync().await;
    assert_eq!(data(&p.cloud, "box", "mine").await["name"], "waits", "and nothing is held up by it");
}
