//! Staging and absorbing: all at once, in order, and not at all when something fails.

use super::{On, hand::*};
use crate::{Absorb, Portion, PullEnd, Step, StoreError, Stored};
use ropeway_core::{
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys, Snapshot},
    record::{Held, State, Upstream},
    time::Stamp,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

async fn opened(on: &On) -> Stored {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    store
}

fn end(name: &str, cursor: i64) -> PullEnd {
    let token = format!("token-{cursor}");
    PullEnd { page: None, epoch: epoch(name), cursor: Stamp(cursor), token, audiences: None }
}

/// The end of a pull with its last page.
fn last(name: &str, cursor: i64, page: Vec<Fed>) -> PullEnd {
    PullEnd { page: Some(page), ..end(name, cursor) }
}

fn rows(from: i64, to: i64) -> Vec<Fed> {
    (from..to).map(|i| fed(&key(&format!("r{i}")), i, &format!(r#"{{"n":{i}}}"#))).collect()
}

/// What `core::absorb` does where nothing is unsettled: take the upstream's word.
fn take_rows(snapshot: &Snapshot, rows: &[Fed]) -> Decision {
    let wanted: Keys = Keys { records: rows.iter().map(|r| r.key.clone()).collect(), ..Keys::default() };
    if !wanted.records.is_subset(&snapshot.keys.records) {
        return Decision::from(wanted);
    }
    let mut draft = Draft::over(snapshot);
    for row in rows {
        draft.put(&row.key, row.data.clone());
        if let Some(written) = draft.plan.rows.last_mut() {
            let upstream = Upstream { epoch: epoch("cloud-1"), version: row.version, held: None };
            written.record.upstream = Some(upstream);
        }
    }
    draft.done()
}

fn settle(snapshot: &Snapshot, entries: &[Entry]) -> Decision {
    let mut draft = Draft::over(snapshot);
    draft.plan.outbox = entries.iter().map(|e| Entry { state: EntryState::Settled, ..e.clone() }).collect();
    draft.done()
}

fn plain() -> Absorb {
    Box::new(|snapshot, step| match step {
        Step::Rows(rows) => take_rows(snapshot, rows),
        Step::Settle(entries) => settle(snapshot, entries),
    })
}

pub(super) async fn everything_at_once(on: On) {
    let store = opened(&on).await;
    put(&store, "r3", r#"{"mine":1}"#).await;
    for page in 0..3 {
        let upto = format!("page-{page}");
        store.stage(&space(), &epoch("cloud-1"), rows(page * 700, page * 700 + 700), &upto).await.unwrap();
    }
    assert_eq!(read_on(&*store, &space(), Stamp(0), 99).await.0.len(), 1, "what is staged nobody sees");
    let over = Arc::new(AtomicBool::new(false));
    let (other, is_over) = (on.open_following().await, over.clone());
    let watcher = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            seen.push(read_on(&*other, &space(), Stamp(0), 10_000).await.0.len());
        }
        seen
    });
    let taken = store.absorb(&space(), NOW, end("cloud-1", 2_100), plain()).await.unwrap();
    over.store(true, Ordering::SeqCst);
    assert_eq!(taken, 2_100);
    for seen in watcher.await.unwrap() {
        assert!(seen == 1 || seen == 2_100, "a reader saw {seen} rows: half a pull");
    }
    let followed = store.followed(&space()).await.unwrap();
    assert_eq!((followed.epoch, followed.cursor), (Some(epoch("cloud-1")), Stamp(2_100)));
    assert_eq!((followed.token.as_deref(), followed.staged), (Some("token-2100"), None));
    assert_eq!(read_on(&*store, &space(), Stamp(0), 99).await.0.len(), 2_100);
    let (_, record) = store.records(&space(), &[key("r3")]).await.unwrap().remove(0);
    assert_eq!((record.data.text(), record.version, record.local_id), (r#"{"n":3}"#, 2, 1));
    assert_eq!(record.upstream.map(|u| u.version), Some(4));
    assert_eq!(
        store.absorb(&space(), NOW, end("cloud-1", 2_100), plain()).await.unwrap(),
        0,
        "staging is empty"
    );
    sound(&*store, &space()).await;
}

pub(super) async fn rows_come_in_staging_order(on: On) {
    let store = opened(&on).await;
    let mut backwards = rows(0, 1_203);
    backwards.reverse();
    // The same record again, as when it changed while pages were read: the later word is the later row.
    backwards.push(fed(&key("r5"), 5_000, r#"{"n":"newer"}"#));
    let wanted: Vec<Fed> = backwards.clone();
    for page in backwards.chunks(100) {
        store.stage(&space(), &epoch("cloud-1"), page.to_vec(), "t").await.unwrap();
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let mut heads = Stamp(0);
    let absorb = Box::new(move |snapshot: &Snapshot, step: Step<'_>| {
        let Step::Rows(rows) = step else { panic!("nothing is to be settled") };
        assert!(snapshot.head >= heads, "each step begins where the last one ended");
        assert!(snapshot.follows && snapshot.now == NOW);
        let decision = take_rows(snapshot, rows);
        if let Decision::Plan(plan) = &decision {
            heads = plan.head;
            noted.lock().unwrap().extend(rows.to_vec());
        }
        decision
    });
    assert_eq!(store.absorb(&space(), NOW, end("cloud-1", 5_000), absorb).await.unwrap(), 1_204);
    assert_eq!(*seen.lock().unwrap(), wanted);
    let (_, record) = store.records(&space(), &[key("r5")]).await.unwrap().remove(0);
    assert_eq!(record.data.text(), r#"{"n":"newer"}"#);
    sound(&*store, &space()).await;
}

/// Entries: receipted at stamps 1 to `count`, one still pending.
async fn receipted(store: &Stored, count: i64) {
    write(store, move |plan| {
        plan.outbox = (1..=count)
            .map(|n| {
                let on = key(&format!("r{n}"));
                let receipt_stamp = Some(Stamp(n));
                Entry { receipt_stamp, ..entry(n, &format!("c{n}"), &on, EntryState::Receipted) }
            })
            .collect();
        plan.outbox.push(entry(count + 1, "pending", &key("p"), EntryState::Pending));
    })
    .await;
}

pub(super) async fn conflicts_come_after_what_they_are_about(on: On) {
    let store = opened(&on).await;
    let mut page = vec![fed(&key("conflict/c1"), 1, r#"{"n":0}"#)];
    page.extend(rows(2, 1_300));
    store.stage(&space(), &epoch("cloud-1"), page, "all").await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let absorb: Absorb = Box::new(move |snapshot, step| match step {
        Step::Rows(rows) => {
            let decision = take_rows(snapshot, rows);
            if matches!(decision, Decision::Plan(_)) {
                seen.lock().unwrap().extend(rows.iter().map(|r| r.key.to_string()));
            }
            decision
        }
        Step::Settle(entries) => settle(snapshot, entries),
    });
    assert_eq!(store.absorb(&space(), NOW, end("cloud-1", 2_000), absorb).await.unwrap(), 1_299);
    assert_eq!(order.lock().unwrap().last().map(String::as_str), Some("conflict/c1"));
}

pub(super) async fn reached_entries_are_settled(on: On) {
    let store = opened(&on).await;
    receipted(&store, 1_300).await;
    store.stage(&space(), &epoch("cloud-1"), rows(0, 10), "t").await.unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let noted = steps.clone();
    let absorb: Absorb = Box::new(move |snapshot, step| match step {
        Step::Rows(rows) => take_rows(snapshot, rows),
        Step::Settle(entries) => {
            assert_eq!(snapshot.records.len(), 0, "a step begins with nothing loaded");
            noted.lock().unwrap().push((entries.len(), entries[0].seq));
            settle(snapshot, entries)
        }
    });
    store.absorb(&space(), NOW, end("cloud-1", 1_100), absorb).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), [(500, 1), (500, 501), (100, 1_001)]);
    let left = store.outbox(&space(), &[], 0, 9_999).await.unwrap();
    assert_eq!((left.len(), left[0].seq), (201, 1_101), "beyond the cursor nothing is settled");
    assert_eq!(store.outbox(&space(), &[EntryState::Settled], 0, 9_999).await.unwrap().len(), 1_100);
    sound(&*store, &space()).await;
}

pub(super) async fn settling_without_progress_is_a_fault(on: On) {
    let store = opened(&on).await;
    receipted(&store, 3).await;
    let stuck: Absorb = Box::new(|snapshot, _| Draft::over(snapshot).done());
    let ended = store.absorb(&space(), NOW, end("cloud-1", 9), stuck).await;
    assert!(matches!(ended, Err(StoreError::Fault { .. })), "{ended:?}");
    assert_eq!(store.followed(&space()).await.unwrap().cursor, Stamp(0));
    // Two at a time is progress.
    let slow: Absorb = Box::new(|snapshot, step| match step {
        Step::Rows(_) => panic!("nothing is staged"),
        Step::Settle(entries) => settle(snapshot, &entries[..entries.len().min(2)]),
    });
    store.absorb(&space(), NOW, end("cloud-1", 9), slow).await.unwrap();
    assert_eq!(store.outbox(&space(), &[EntryState::Settled], 0, 9).await.unwrap().len(), 3);
}

pub(super) async fn staging_resumes_and_is_replaced(on: On) {
    let store = opened(&on).await;
    assert_eq!(store.followed(&space()).await.unwrap(), crate::Followed::default());
    store.stage(&space(), &epoch("cloud-1"), rows(0, 5), "t5").await.unwrap();
    let store = {
        drop(store);
        on.open_following().await
    };
    assert_eq!(store.followed(&space()).await.unwrap().staged.as_deref(), Some("t5"), "a cut pull resumes");
    store.stage(&space(), &epoch("cloud-1"), Vec::new(), "t6").await.unwrap();
    assert_eq!(store.followed(&space()).await.unwrap().staged.as_deref(), Some("t6"));
    // The upstream was restored: what another epoch said is dropped.
    store.stage(&space(), &epoch("cloud-2"), rows(10, 13), "t13").await.unwrap();
    let wrong = store.absorb(&space(), NOW, end("cloud-1", 13), plain()).await;
    assert!(matches!(wrong, Err(StoreError::Fault { .. })), "rows of another epoch: {wrong:?}");
    assert_eq!(store.followed(&space()).await.unwrap().staged.as_deref(), Some("t13"));
    assert_eq!(store.absorb(&space(), NOW, end("cloud-2", 13), plain()).await.unwrap(), 3);
    assert_eq!(store.followed(&space()).await.unwrap().epoch, Some(epoch("cloud-2")));
    store.stage(&space(), &epoch("cloud-2"), rows(20, 30), "t30").await.unwrap();
    store.unstage(&space()).await.unwrap();
    let followed = store.followed(&space()).await.unwrap();
    assert_eq!((followed.staged, followed.cursor), (None, Stamp(13)));
    assert_eq!(store.absorb(&space(), NOW, end("cloud-2", 31), plain()).await.unwrap(), 0);
    assert_eq!(read_on(&*store, &space(), Stamp(0), 99).await.0.len(), 3);
}

pub(super) async fn a_failed_step_undoes_all(on: On) {
    let store = opened(&on).await;
    put(&store, "mine", "{}").await;
    receipted(&store, 1).await;
    // Of another epoch: what comes with the end takes its place, unless that fails.
    store.stage(&space(), &epoch("cloud-0"), rows(0, 7), "t").await.unwrap();
    let page = || last("cloud-1", 1_200, rows(0, 1_200));
    let before = store.space(&space()).await.unwrap();
    for fails_at in [0, 1, 2, 3] {
        let mut at = 0;
        let absorb: Absorb = Box::new(move |snapshot, step| {
            let decision = match step {
                Step::Rows(rows) => take_rows(snapshot, rows),
                Step::Settle(entries) => settle(snapshot, entries),
            };
            if matches!(decision, Decision::Plan(_)) {
                assert!(at != fails_at, "a bug in a decision");
                at += 1;
            }
            decision
        });
        let ended = store.absorb(&space(), NOW, page(), absorb).await;
        assert!(matches!(ended, Err(StoreError::Fault { .. })), "{ended:?}");
        assert_eq!(store.space(&space()).await.unwrap(), before);
        assert_eq!(read_on(&*store, &space(), Stamp(0), 99).await.0.len(), 1);
        let followed = store.followed(&space()).await.unwrap();
        assert_eq!((followed.cursor, followed.staged.as_deref()), (Stamp(0), Some("t")));
    }
    // The caller goes away in the middle: it happens or not, never half.
    let alps = space();
    let work = store.absorb(&alps, NOW, page(), plain());
    let _ = tokio::time::timeout(std::time::Duration::from_micros(300), work).await;
    put(&store, "after", "{}").await;
    let seen = read_on(&*store, &space(), Stamp(0), 9_999).await.0.len();
    assert!(seen == 2 || seen == 1_202, "{seen}");
    store.absorb(&space(), NOW, page(), plain()).await.unwrap();
    assert_eq!(read_on(&*store, &space(), Stamp(0), 9_999).await.0.len(), 1_202);
    assert_eq!(store.followed(&space()).await.unwrap().staged, None);
    sound(&*store, &space()).await;
}

pub(super) async fn a_first_pull_is_seen_when_it_is_complete(on: On) {
    let store = opened(&on).await;
    put(&store, "mine", "{}").await;
    let seen = async |store: &Stored| {
        let listed = store.list(&space(), &key("mine").collection, None, 9_999).await.unwrap();
        let named = store.records(&space(), &[key("mine"), key("r3"), key("r900")]).await.unwrap();
        (listed.len(), named.len())
    };
    let portion = |rows, upto: &str| Portion { epoch: epoch("cloud-1"), rows, upto: upto.into() };
    // What was made here and came back from the upstream stays in sight as it is.
    let mut first = vec![fed(&key("conflict/c1"), 1, r#"{"n":0}"#), fed(&key("mine"), 2, r#"{"n":"there"}"#)];
    first.extend(rows(0, 700));
    store.portion(&space(), NOW, portion(first, "t700"), plain()).await.unwrap();
    let state = store.space(&space()).await.unwrap();
    assert!(state.filling && state.digest.count == 701, "{state:?}");
    assert_eq!(seen(&store).await, (1, 1), "half a first pull is in nobody's sight");
    assert!(store.feed(&space(), Stamp(0), 10, &[]).await.unwrap().space.filling, "and not to be handed on");
    let store = {
        drop(store);
        on.open_following().await
    };
    let mine = store.records(&space(), &[key("mine")]).await.unwrap();
    assert_eq!(mine[0].1.data.text(), "{}", "what was in sight is there as it was");
    let followed = store.followed(&space()).await.unwrap();
    assert_eq!((followed.epoch, followed.staged.as_deref()), (None, Some("t700")), "a cut pull resumes");
    // A record that is changed here meanwhile shows, with what the upstream holds beneath.
    let change = |snapshot: &Snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.put(&key("r3"), doc(r#"{"n":"mine"}"#));
        if let Some(up) = draft.plan.rows.last_mut().and_then(|row| row.record.upstream.as_mut()) {
            up.held = Some(Held { state: State::Live, data: doc(r#"{"n":3}"#), left: false });
        }
        draft.done()
    };
    let keys = Keys { records: [key("r3")].into(), ..Keys::default() };
    store.transact(&space(), NOW, keys, Box::new(change)).await.unwrap();
    assert_eq!(seen(&store).await, (2, 2));
    store.portion(&space(), NOW, portion(rows(700, 1_000), "t1000"), plain()).await.unwrap();
    let taken = store.absorb(&space(), NOW, end("cloud-1", 1_000), plain()).await.unwrap();
    assert_eq!(taken, 2, "conflicts and what was in sight come in at the end");
    assert!(!store.space(&space()).await.unwrap().filling);
    assert_eq!(seen(&store).await, (1_001, 3));
    let followed = store.followed(&space()).await.unwrap();
    assert_eq!((followed.epoch, followed.staged), (Some(epoch("cloud-1")), None));
    sound(&*store, &space()).await;
}

pub(super) async fn a_failed_portion_undoes_itself(on: On) {
    let store = opened(&on).await;
    let portion =
        |from, to, upto: &str| Portion { epoch: epoch("cloud-1"), rows: rows(from, to), upto: upto.into() };
    store.portion(&space(), NOW, portion(0, 10, "t10"), plain()).await.unwrap();
    let before = store.space(&space()).await.unwrap();
    let mut steps = 0;
    let fails: Absorb = Box::new(move |snapshot, step| {
        let Step::Rows(rows) = step else { panic!("nothing is to be settled") };
        let decision = take_rows(snapshot, rows);
        steps += usize::from(matches!(decision, Decision::Plan(_)));
        assert!(steps < 2, "a bug in a decision");
        decision
    });
    let ended = store.portion(&space(), NOW, portion(10, 900, "t900"), fails).await;
    assert!(matches!(ended, Err(StoreError::Fault { .. })), "{ended:?}");
    assert_eq!(store.space(&space()).await.unwrap(), before);
    assert_eq!(store.followed(&space()).await.unwrap().staged.as_deref(), Some("t10"));
    store.portion(&space(), NOW, portion(10, 900, "t900"), plain()).await.unwrap();
    store.absorb(&space(), NOW, end("cloud-1", 900), plain()).await.unwrap();
    assert_eq!(read_on(&*store, &space(), Stamp(0), 9_999).await.0.len(), 900);
    sound(&*store, &space()).await;
}

pub(super) async fn an_empty_pull_moves_the_cursor(on: On) {
    let store = opened(&on).await;
    put(&store, "a", "{}").await;
    let head = store.space(&space()).await.unwrap().head;
    let absorb: Absorb = Box::new(|_, _| panic!("there is nothing to decide"));
    assert_eq!(store.absorb(&space(), NOW, end("cloud-1", 44), absorb).await.unwrap(), 0);
    assert_eq!(store.followed(&space()).await.unwrap().cursor, Stamp(44));
    assert_eq!(store.space(&space()).await.unwrap().head, head);
}

pub(super) async fn pulling_anew_keeps_all_but_the_cursor(on: On) {
    let store = opened(&on).await;
    store.pull_anew(&space()).await.unwrap();
    assert_eq!(store.followed(&space()).await.unwrap(), crate::Followed::default());
    receipted(&store, 3).await;
    store.stage(&space(), &epoch("cloud-1"), rows(0, 5), "t5").await.unwrap();
    store.absorb(&space(), NOW, end("cloud-1", 2), plain()).await.unwrap();
    store.stage(&space(), &epoch("cloud-1"), rows(5, 9), "t9").await.unwrap();
    let before =
        (read_on(&*store, &space(), Stamp(0), 99).await, store.outbox_counts(&space()).await.unwrap());
    store.pull_anew(&space()).await.unwrap();
    let followed = store.followed(&space()).await.unwrap();
    assert_eq!((followed.token, followed.staged, followed.anew), (None, None, true));
    assert_eq!((followed.epoch, followed.cursor), (Some(epoch("cloud-1")), Stamp(2)));
    let after =
        (read_on(&*store, &space(), Stamp(0), 99).await, store.outbox_counts(&space()).await.unwrap());
    assert_eq!(before, after);
    assert_eq!(
        store.absorb(&space(), NOW, end("cloud-1", 9), plain()).await.unwrap(),
        0,
        "nothing is staged"
    );
}

pub(super) async fn what_does_not_come_again_is_listed(on: On) {
    let store = opened(&on).await;
    put(&store, "mine", "{}").await;
    store.stage(&space(), &epoch("cloud-1"), rows(0, 9), "t9").await.unwrap();
    store.absorb(&space(), NOW, end("cloud-1", 9), plain()).await.unwrap();
    let unseen = async |store: &Stored| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.unseen(&space(), after.as_ref(), 2).await.unwrap();
            let Some((last, _)) = page.last() else { return all };
            after = Some(last.clone());
            all.extend(page.into_iter().map(|(key, _)| key.id.to_string()));
        }
    };
    assert!(unseen(&store).await.is_empty(), "nothing is pulled anew");
    store.pull_anew(&space()).await.unwrap();
    assert_eq!(unseen(&store).await.len(), 9, "nothing came yet, and what was made here is none of it");
    store.stage(&space(), &epoch("cloud-1"), rows(0, 3), "t3").await.unwrap();
    let store = {
        drop(store);
        on.open_following().await
    };
    store.stage(&space(), &epoch("cloud-1"), rows(5, 8), "t8").await.unwrap();
    store.absorb(&space(), NOW, end("cloud-1", 9), plain()).await.unwrap();
    assert!(store.followed(&space()).await.unwrap().anew, "until somebody has dealt with it");
    assert_eq!(unseen(&store).await, ["r3", "r4", "r8"]);
    // The next pull brings one of them after all.
    store.stage(&space(), &epoch("cloud-1"), rows(4, 5), "t9").await.unwrap();
    assert_eq!(unseen(&store).await, ["r3", "r8"]);
    store.pulled_anew(&space()).await.unwrap();
    assert!(unseen(&store).await.is_empty() && !store.followed(&space()).await.unwrap().anew);
    store.pull_anew(&space()).await.unwrap();
    assert_eq!(unseen(&store).await.len(), 9, "what came the last time says nothing");
}
