//! Several writers, callers that go away, neighbours that fail.

use super::{On, hand::*};
use crate::{StoreError, Stored};
use ropeway_core::{
    id::{ChangeId, Key},
    plan::{Keys, Snapshot},
    time::Stamp,
};
use std::{collections::BTreeSet, time::Duration};

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
