//! Forgetting: what lies before the lines and nothing else, in steps of any size.

use super::{On, hand::*};
use crate::{Stored, SyncOutcome, SyncRun, Walk};
use ropeway_core::{
    outbox::{Entry, EntryState},
    plan::{JOINED, Keys, Link, Row, Snapshot},
    retention::Lines,
    time::{Stamp, Time},
};
use std::collections::BTreeMap;

async fn opened(on: &On) -> Stored {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    store
}

/// Lines before everything.
fn nothing() -> Lines {
    let never = Stamp(i64::MIN);
    Lines { tombstones: never, history: never, receipts: never, settled: Time(i64::MIN) }
}

/// Walks to the end; how many rows of each kind went, or would go.
async fn purge(store: &Stored, lines: &Lines, rows: usize, dry: bool) -> BTreeMap<&'static str, u64> {
    let (mut at, mut gone) = (Some(Walk::start()), BTreeMap::new());
    while let Some(walk) = at {
        let what = walk.what();
        let step = store.purge(&space(), lines, walk, rows, dry).await.unwrap();
        if step.rows > 0 {
            *gone.entry(what).or_default() += step.rows;
        }
        at = step.next;
    }
    gone
}

async fn delete(store: &Stored, on: &'static str) -> Stamp {
    let bury = move |snapshot: &Snapshot| Draft::over(snapshot).delete(&key(on)).done();
    transact(store, &[on], bury).await.head
}

async fn head(store: &Stored) -> Stamp {
    store.space(&space()).await.unwrap().head
}

async fn there(store: &Stored) -> Vec<String> {
    let rows = read_on(&**store, &space(), Stamp(0), 99).await.0;
    rows.iter().map(|row| row.key.id.to_string()).collect()
}

pub(super) async fn tombstones_go_up_to_the_line_and_not_under_unsettled_work(on: On) {
    let store = opened(&on).await;
    for id in ["a", "b", "c", "d", "e", "live"] {
        put(&store, id, r#"{"n":1}"#).await;
    }
    let mut dead = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        dead.push(delete(&store, id).await);
    }
    // A deletion that the upstream has not answered, and one over which something else is laid.
    write(&store, |plan| plan.outbox = vec![entry(1, "x", &key("b"), EntryState::Rejected)]).await;
    write(&store, |plan| plan.outbox = vec![entry(2, "y", &key("c"), EntryState::Settled)]).await;
    let before = store.space(&space()).await.unwrap();
    assert_eq!(before.purged, Stamp(0));
    assert!(purge(&store, &nothing(), 2, false).await.is_empty());
    assert_eq!(store.space(&space()).await.unwrap(), before);
    let lines = Lines { tombstones: dead[3], ..nothing() };
    assert_eq!(purge(&store, &lines, 2, false).await, BTreeMap::from([("tombstones", 3)]));
    assert_eq!(there(&store).await, ["live", "b", "e"]);
    let after = store.space(&space()).await.unwrap();
    assert_eq!((after.head, after.digest, after.purged), (before.head, before.digest, dead[3]));
    assert!(purge(&store, &lines, 2, false).await.is_empty(), "once is enough");
    assert_eq!(snapshot(&store, Keys::default()).await.buried, 2, "names that come again go on above this");
    assert_eq!(store.records(&space(), &[key("a")]).await.unwrap(), []);
    // The name may be used again, and its earlier life is in the history.
    put(&store, "a", r#"{"n":2}"#).await;
    assert_eq!(store.history(&space(), &key("a")).await.unwrap().len(), 1);
    let lines = Lines { tombstones: head(&store).await, ..nothing() };
    purge(&store, &lines, 1, false).await;
    assert_eq!(there(&store).await, ["live", "b", "a"]);
    assert_eq!(store.space(&space()).await.unwrap().purged, dead[4]);
    sound(&*store, &space()).await;
}

pub(super) async fn what_a_question_or_a_joined_row_names_stays(on: On) {
    let store = opened(&on).await;
    for id in ["asked", "survivor", "joined", "child"] {
        put(&store, id, r#"{"n":1}"#).await;
    }
    let join = |snapshot: &Snapshot| Draft::over(snapshot).join(&key("joined"), "survivor").done();
    transact(&store, &["joined"], join).await;
    for id in ["asked", "survivor", "child"] {
        delete(&store, id).await;
    }
    let asked = |snapshot: &Snapshot| {
        let mut draft = Draft::over(snapshot);
        let mut record = snapshot.records[&key("asked")].clone();
        record.contested = true;
        let (key, contribution) = (key("asked"), (0, 0));
        draft.plan.rows.push(Row { key, record, is_new: false, contribution });
        draft.done()
    };
    transact(&store, &["asked"], asked).await;
    write(&store, |plan| {
        let link = |field: &str, child| Link { parent: key("survivor"), child, field: field.into() };
        plan.links = vec![link(JOINED, key("joined")), link("twin", key("child"))];
    })
    .await;
    let lines = Lines { tombstones: head(&store).await, ..nothing() };
    assert_eq!(purge(&store, &lines, 1, false).await, BTreeMap::from([("tombstones", 1)]));
    assert_eq!(there(&store).await, ["joined", "asked", "survivor"]);
}

pub(super) async fn receipts_go_by_their_stamp(on: On) {
    let store = opened(&on).await;
    let ids: Vec<String> = (0..7).map(|n| format!("c{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        let (id, at) = (id.clone(), Stamp(10 * (n as i64 + 1)));
        write(&store, move |plan| plan.receipts = vec![remembered(&id, &key("a"), at)]).await;
    }
    let lines = Lines { receipts: Stamp(40), ..nothing() };
    assert_eq!(purge(&store, &lines, 3, false).await, BTreeMap::from([("receipts", 4)]));
    let asked = ids.iter().map(|id| ropeway_core::id::ChangeId::trusted(id.as_str())).collect();
    let left = snapshot(&store, Keys { receipts: asked, ..Keys::default() }).await.receipts;
    assert_eq!(left.keys().map(|id| id.to_string()).collect::<Vec<_>>(), ["c4", "c5", "c6"]);
}

pub(super) async fn a_version_counts_from_when_it_was_superseded(on: On) {
    let store = opened(&on).await;
    put(&store, "old", r#"{"n":1}"#).await;
    put(&store, "late", r#"{"n":1}"#).await;
    put(&store, "old", r#"{"n":2}"#).await;
    let line = head(&store).await;
    put(&store, "late", r#"{"n":2}"#).await;
    put(&store, "old", r#"{"n":3}"#).await;
    let lines = Lines { history: line, ..nothing() };
    assert_eq!(purge(&store, &lines, 1, false).await, BTreeMap::from([("history", 1)]));
    let versions = |kept: Vec<ropeway_core::plan::Superseded>| {
        kept.iter().map(|was| was.record.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(store.history(&space(), &key("old")).await.unwrap()), [2]);
    assert_eq!(
        versions(store.history(&space(), &key("late")).await.unwrap()),
        [1],
        "superseded after the line"
    );
}

pub(super) async fn settled_entries_and_old_runs_go_by_their_time(on: On) {
    use EntryState::*;
    let store = opened(&on).await;
    let states = [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded];
    write(&store, move |plan| {
        let old = states.iter().zip(1..).map(|(state, n)| entry(n, &format!("o{n}"), &key("a"), *state));
        let tried = |n: i64, at: i64| Entry { tried_at: Some(Time(at)), ..entry(n, "t", &key("a"), Settled) };
        plan.outbox = old.chain([tried(8, NOW.0 + 5), tried(9, NOW.0 - 5)]).collect();
    })
    .await;
    for n in 0..105 {
        let run = SyncRun {
            started_at: Time(NOW.0 - 1_000 + n),
            duration_ms: 1,
            outcome: SyncOutcome::Done,
            pushed: 1,
            pulled: 0,
            held: 0,
            error: None,
            device: None,
        };
        store.put_run(&space(), &run).await.unwrap();
    }
    let lines = Lines { settled: Time(NOW.0 + 1), ..nothing() };
    assert_eq!(purge(&store, &lines, 2, false).await, BTreeMap::from([("outbox", 3), ("runs", 5)]));
    let left = store.outbox(&space(), &states, 0, 99).await.unwrap();
    assert_eq!(left.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 8]);
    assert_eq!(store.runs(&space(), 999).await.unwrap().len(), 100, "the latest stay however old they are");
}

pub(super) async fn a_dry_run_counts_the_same_and_changes_nothing(on: On) {
    let store = opened(&on).await;
    for id in ["a", "b", "c"] {
        put(&store, id, r#"{"n":1}"#).await;
        delete(&store, id).await;
    }
    write(&store, |plan| plan.receipts = vec![remembered("r", &key("a"), Stamp(3))]).await;
    write(&store, |plan| plan.outbox = vec![entry(1, "y", &key("c"), EntryState::Settled)]).await;
    let (at, moved) = (head(&store).await, store.generation().await.unwrap());
    let lines = Lines { tombstones: at, history: at, receipts: at, settled: Time(i64::MAX) };
    let would = purge(&store, &lines, 1, true).await;
    assert_eq!(would, BTreeMap::from([("tombstones", 3), ("history", 3), ("receipts", 1), ("outbox", 1)]));
    assert_eq!((store.generation().await.unwrap(), there(&store).await.len()), (moved, 3));
    assert_eq!(purge(&store, &lines, 1, false).await, would);
    assert!(there(&store).await.is_empty());
}
