//! Several writers, callers that go away, neighbours that fail.

use super::{On, hand::*};
use crate::{StoreError, Stored};
use futures_util::future::join_all;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    id::{ChangeId, Key, SpaceId},
    outbox::EntryState,
    plan::{Keys, Link, Plan, Print, Probe, Snapshot},
    time::Stamp,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

async fn opened(on: &On) -> Stored {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    store
}

/// Adds a record with a receipt, and one to a counter that everybody writes.
async fn count_up(store: &Stored, name: String) -> Result<Stamp, StoreError> {
    let (made, counter) = (key(&name), key("counter/all"));
    let mut asked = Keys { records: [made.clone(), counter.clone()].into(), ..Keys::default() };
    asked.receipts.insert(ChangeId::trusted(name.as_str()));
    let decide = move |snapshot: &Snapshot| {
        let old = snapshot.records.get(&counter).and_then(|r| r.data.get("n")?.as_i64()).unwrap_or(0);
        let mut draft = Draft::over(snapshot);
        draft.put(&made, doc("{}")).put(&counter, doc(&format!(r#"{{"n":{}}}"#, old + 1)));
        draft.receipt(&name, &made).done()
    };
    Ok(store.transact(&space(), NOW, asked, Box::new(decide)).await?.head)
}

async fn counted(store: &Stored) -> i64 {
    let found = store.records(&space(), &[key("counter/all")]).await.unwrap();
    found[0].1.data.get("n").and_then(serde_json::Value::as_i64).unwrap()
}

pub(super) async fn two_stores_lose_nothing(on: On) {
    let stores = [opened(&on).await, on.open().await];
    let mut tasks = Vec::new();
    for (s, store) in stores.iter().enumerate() {
        for t in 0..2 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let mut heads = Vec::new();
                for i in 0..40 {
                    heads.push(count_up(&store, format!("s{s}t{t}i{i}")).await.unwrap());
                }
                heads
            }));
        }
    }
    let mut heads = Vec::new();
    for task in tasks {
        heads.extend(task.await.unwrap());
    }
    assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), 160, "no head was given twice");
    for store in &stores {
        assert_eq!(counted(store).await, 160);
        assert_eq!(read_on(&**store, &space(), Stamp(0), 50).await.0.len(), 161);
        sound(&**store, &space()).await;
    }
}

pub(super) async fn single_changes_from_many_tasks(on: On) {
    let store = opened(&on).await;
    let tasks: Vec<_> = (0..300)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { count_up(&store, format!("i{i}")).await.unwrap() })
        })
        .collect();
    let mut heads = BTreeSet::new();
    for task in tasks {
        heads.insert(task.await.unwrap());
    }
    assert_eq!((heads.len(), counted(&store).await), (300, 300));
    sound(&*store, &space()).await;
}

/// What a decision reads and writes one more of, besides records.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Receipts,
    Twins,
    Links,
    Outbox,
    Entries,
    Audiences,
    Subscriptions,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Receipts,
        Self::Twins,
        Self::Links,
        Self::Outbox,
        Self::Entries,
        Self::Audiences,
        Self::Subscriptions,
    ];

    fn asked(self) -> Keys {
        let (shared, mut keys) = (key("shared"), Keys::default());
        match self {
            Self::Receipts => keys.receipts = (0..8).map(|n| ChangeId::trusted(format!("c{n}"))).collect(),
            Self::Twins => _ = keys.twins.insert(probe()),
            Self::Links => _ = keys.links.insert(shared),
            Self::Outbox => _ = keys.outbox.insert(shared),
            Self::Entries => keys.entries = (1..=8).collect(),
            Self::Audiences => _ = keys.audiences.insert(shared),
            Self::Subscriptions => _ = keys.readers.insert(device("phone")),
        }
        keys
    }

    fn seen(self, snapshot: &Snapshot) -> usize {
        match self {
            Self::Receipts => snapshot.receipts.len(),
            Self::Twins => snapshot.twins.values().map(Vec::len).sum(),
            Self::Links => snapshot.links.values().map(Vec::len).sum(),
            Self::Outbox | Self::Entries => snapshot.outbox.values().map(Vec::len).sum(),
            Self::Audiences => snapshot.audiences.values().map(Vec::len).sum(),
            Self::Subscriptions => snapshot.subscriptions.values().map(Vec::len).sum(),
        }
    }

    fn add(self, n: usize, snapshot: &Snapshot, plan: &mut Plan) {
        let (shared, entered, left, via) = (key("shared"), plan.head, None, None);
        let (made, name) = (key(&format!("made{n}")), format!("c{n}"));
        let entry = |on| entry(snapshot.next_entry, &name, on, EntryState::Pending);
        match self {
            Self::Receipts => plan.receipts.push(remembered(&name, &made, plan.head)),
            Self::Twins => plan.prints.push(Print { key: made, print: probe().print, at: 5 }),
            Self::Links => plan.links.push(Link { parent: shared, child: made, field: "race".into() }),
            Self::Outbox => plan.outbox.push(entry(&shared)),
            Self::Entries => plan.outbox.push(entry(&made)),
            Self::Audiences => {
                plan.audiences.push(AudienceRow { record: shared, audience: name, via, entered, left });
            }
            Self::Subscriptions => {
                let reader = device("phone");
                plan.subscriptions.push(Subscription { reader, audience: name, via, entered, left });
            }
        }
    }
}

fn probe() -> Probe {
    Probe { collection: key("shared").collection, print: "7".into(), from: 0, to: 9 }
}

/// Decisions that are handed in at the same moment are made one after the other: each sees what the one before it
/// wrote, whatever a store reads ahead.
pub(super) async fn each_sees_what_the_one_before_wrote(on: On) {
    let (store, mut unseen) = (opened(&on).await, Vec::new());
    for kind in Kind::ALL {
        let space = SpaceId::trusted(format!("{kind:?}"));
        store.open_space(&space).await.unwrap();
        let counted = (0..8).map(|n| {
            let saw = Arc::new(AtomicUsize::new(0));
            let told = saw.clone();
            let decide = move |snapshot: &Snapshot| {
                told.store(kind.seen(snapshot), Ordering::Relaxed);
                let mut draft = Draft::over(snapshot);
                draft.put(&key(&format!("made{n}")), doc("{}"));
                kind.add(n, snapshot, &mut draft.plan);
                draft.done()
            };
            let (store, space) = (store.clone(), space.clone());
            async move {
                let mut asked = kind.asked();
                asked.records.insert(key(&format!("made{n}")));
                store.transact(&space, NOW, asked, Box::new(decide)).await.unwrap();
                saw.load(Ordering::Relaxed)
            }
        });
        let saw: BTreeSet<usize> = join_all(counted).await.into_iter().collect();
        if saw != (0..8).collect() {
            unseen.push((kind, saw));
        }
    }
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// Writes that are committed together do not fail together.
pub(super) async fn a_failing_neighbour_harms_nobody(on: On) {
    let store = opened(&on).await;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                match i % 4 {
                    0 => {
                        let bad = move |snapshot: &Snapshot| {
                            let mut draft = Draft::over(snapshot);
                            draft.put(&key(&format!("team{i}/bad")), doc("{}"));
                            draft.receipt("twice", &key("x")).receipt("twice", &key("x")).done()
                        };
                        let name = format!("team{i}/bad");
                        let ended = store.transact(&space(), NOW, keys([&*name]), Box::new(bad)).await;
                        assert!(matches!(ended, Err(StoreError::Fault { .. })), "{ended:?}");
                    }
                    1 => {
                        let bad = |_: &Snapshot| panic!("a bug in a decision");
                        assert!(store.transact(&space(), NOW, keys(["x"]), Box::new(bad)).await.is_err());
                    }
                    _ => {
                        count_up(&store, format!("i{i}")).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(counted(&store).await, 100);
    let (rows, _) = read_on(&*store, &space(), Stamp(0), 50).await;
    assert!(rows.iter().all(|r| &*r.key.id != "bad"));
    // The names of what was rolled back can be given again.
    put(&store, "team0/bad", r#"{"n":1}"#).await;
    let (_, record) = store.records(&space(), &[key("team0/bad")]).await.unwrap().remove(0);
    assert_eq!(record.data.text(), r#"{"n":1}"#);
    sound(&*store, &space()).await;
}

/// Futures dropped at many points: every transaction is whole or not there, and the store goes on.
pub(super) async fn a_caller_that_goes_leaves_no_half(on: On) {
    const ROWS: usize = 20;
    let store = opened(&on).await;
    let (mut told, alps) = (0, space());
    for round in 0..120_u64 {
        let rows: Vec<Key> = (0..ROWS).map(|i| key(&format!("r{round}-{i}"))).collect();
        let keys = Keys { records: rows.iter().cloned().collect(), ..Keys::default() };
        let decide = puts(rows.into_iter().map(|k| (k, doc("{}"))).collect());
        let work = store.transact(&alps, NOW, keys, decide);
        let patience = Duration::from_micros(round * 29 % 1_500);
        told += usize::from(tokio::time::timeout(patience, work).await.is_ok_and(|ended| ended.is_ok()));
    }
    put(&store, "after", "{}").await; // Stands behind everything that was left running.
    let (rows, _) = read_on(&*store, &space(), Stamp(0), 500).await;
    let count = |round: u64| {
        let prefix = format!("r{round}-");
        rows.iter().filter(|r| r.key.id.starts_with(&prefix)).count()
    };
    let whole = (0..120).filter(|round| match count(*round) {
        0 => false,
        ROWS => true,
        half => panic!("round {round} wrote {half} of {ROWS}"),
    });
    let whole = whole.count();
    assert!(whole >= told, "{told} were acknowledged, {whole} are there");
    assert_eq!(rows.len(), whole * ROWS + 1);
    sound(&*store, &space()).await;
}
