//! The feed: stamp order, each record once, nothing missed.

use super::{On, hand::*};
use crate::{Store, Stored};
use ropeway_core::{
    id::{Collection, Key, RecordId, SpaceId},
    plan::{Keys, Row, Snapshot},
    record::{Record, State},
    time::Stamp,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

async fn opened(on: &On) -> Stored {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    store
}

pub(super) async fn pages_in_stamp_order(on: On) {
    let store = opened(&on).await;
    for i in (0..25).rev() {
        put(&store, &format!("r{i:02}"), "{}").await;
    }
    for limit in [1, 2, 5, 24, 25, 26, 1_000] {
        let (rows, head) = read_on(&*store, &space(), Stamp(0), limit).await;
        assert_eq!(rows.len(), 25, "limit {limit}");
        assert_eq!(rows[0].key, key("r24"));
        assert_eq!(rows[24].stamp, head);
    }
    let full = store.feed(&space(), Stamp(0), 25, &[]).await.unwrap();
    assert!(full.complete, "a page that is just full and reaches the head is complete");
    assert!(!store.feed(&space(), Stamp(0), 24, &[]).await.unwrap().complete);
    let after = store.feed(&space(), full.rows[22].stamp, 9, &[]).await.unwrap();
    assert_eq!(after.rows.iter().map(|r| r.key.id.as_str()).collect::<Vec<_>>(), ["r01", "r00"]);
}

pub(super) async fn large_records_make_short_pages(on: On) {
    let store = opened(&on).await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(900_000));
    for i in 0..12 {
        put(&store, &format!("r{i:02}"), &large).await;
    }
    let page = store.feed(&space(), Stamp(0), 5_000, &[]).await.unwrap();
    let bytes: usize = page.rows.iter().map(|r| r.data.text().len()).sum();
    assert!(!page.complete && bytes < ropeway_core::limits::PAGE_BYTES_MAX + 1_000_000, "{bytes}");
    let rest = store.feed(&space(), page.rows.last().unwrap().stamp, 5_000, &[]).await.unwrap();
    assert!(rest.complete);
    assert_eq!(page.rows.len() + rest.rows.len(), 12, "page after page, nothing is left out");
}

pub(super) async fn each_record_once_at_its_newest_stamp(on: On) {
    let store = opened(&on).await;
    for i in 0..30 {
        put(&store, &format!("r{}", i % 3), &format!(r#"{{"n":{i}}}"#)).await;
    }
    let (rows, _) = read_on(&*store, &space(), Stamp(0), 2).await;
    let seen: Vec<_> = rows.iter().map(|r| (r.key.id.as_str(), r.version, r.data.text())).collect();
    assert_eq!(seen, [("r0", 10, r#"{"n":27}"#), ("r1", 10, r#"{"n":28}"#), ("r2", 10, r#"{"n":29}"#)]);
    let (newer, _) = read_on(&*store, &space(), rows[1].stamp, 2).await;
    assert_eq!(newer.len(), 1);
}

pub(super) async fn tombstones_and_joins_are_fed(on: On) {
    let store = opened(&on).await;
    put_all(&store, &space(), ["a", "b", "conflict/c"].map(|n| (key(n), doc(r#"{"n":1}"#))).into()).await;
    transact(&store, &["a", "b"], |s| Draft::over(s).delete(&key("a")).join(&key("b"), "x").done()).await;
    let (rows, _) = read_on(&*store, &space(), Stamp(0), 9).await;
    let states: Vec<_> = rows.iter().map(|r| (r.key.to_string(), r.state.clone())).collect();
    let survivor = State::Joined(RecordId::trusted("x"));
    assert_eq!(states[0], ("conflict/c".into(), State::Live));
    assert_eq!(states[1..], [("incident/a".into(), State::Deleted), ("incident/b".into(), survivor)]);
    let row = &rows[1];
    assert_eq!((row.data.text(), row.version), (r#"{"n":1}"#, 2), "a tombstone keeps its data");
    assert_eq!((&row.owner, &row.author, row.modified_at), (&device("pi-start"), &author(), NOW));
}

pub(super) async fn collections_are_chosen(on: On) {
    let store = opened(&on).await;
    for i in 0..12 {
        let collection = ["incident", "team", "race"][i % 3];
        put(&store, &format!("{collection}/r{i}"), "{}").await;
    }
    let of = |names: &[&str]| -> Vec<Collection> { names.iter().map(|n| Collection::trusted(*n)).collect() };
    let page = store.feed(&space(), Stamp(0), 3, &of(&["team", "race"])).await.unwrap();
    assert_eq!(page.rows.iter().map(|r| r.key.id.as_str()).collect::<Vec<_>>(), ["r1", "r2", "r4"]);
    assert!(!page.complete);
    let last = store.feed(&space(), page.rows[2].stamp, 5, &of(&["team", "race"])).await.unwrap();
    assert_eq!((last.rows.len(), last.complete), (5, true));
    assert_eq!(last.space.head, Stamp(NOW.0 + 11));
    let none = store.feed(&space(), Stamp(0), 3, &of(&["never_seen"])).await.unwrap();
    assert_eq!((none.rows.len(), none.complete, none.space.head), (0, true, last.space.head));
}

pub(super) async fn an_empty_space_is_complete(on: On) {
    let store = opened(&on).await;
    let page = store.feed(&space(), Stamp(0), 1, &[]).await.unwrap();
    assert!(page.rows.is_empty() && page.complete && page.space.head == Stamp(0));
    put(&store, "a", "{}").await;
    let beyond = store.feed(&space(), Stamp(i64::MAX), 1, &[]).await.unwrap();
    assert!(beyond.rows.is_empty() && beyond.complete);
}

pub(super) async fn lists_are_in_id_order(on: On) {
    let store = opened(&on).await;
    let names = ["b", "a", "B", "a.1", "019f", "team/a"];
    put_all(&store, &space(), names.map(|n| (key(n), doc("{}"))).into()).await;
    transact(&store, &["a"], |s| Draft::over(s).delete(&key("a")).done()).await;
    let collection = key("a").collection;
    let ids = |found: &[(RecordId, _)]| found.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
    let all = store.list(&space(), &collection, None, 99).await.unwrap();
    assert_eq!(ids(&all), ["019f", "B", "a", "a.1", "b"], "by bytes, tombstones included");
    assert_eq!(all[2].1.state, State::Deleted);
    let page = store.list(&space(), &collection, Some(&RecordId::trusted("B")), 2).await.unwrap();
    assert_eq!(ids(&page), ["a", "a.1"]);
    let none = store.list(&space(), &Collection::trusted("nothing"), None, 9).await.unwrap();
    assert!(none.is_empty());
}

/// Holds the transaction open between what it read and what it writes.
#[allow(clippy::disallowed_methods, reason = "the case needs a decision that is slow on its thread")]
fn dawdle(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Writers that commit slowly, from several threads and two stores; readers that page and follow the
/// head. What a reader holds at the end must be what is there (I2).
pub(super) async fn readers_miss_nothing_while_others_write(on: On) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 25;
    let stores = [opened(&on).await, on.open().await];
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for limit in [1, 7, 1_000] {
        let (store, over) = (stores[limit % 2].clone(), over.clone());
        readers.push(tokio::spawn(async move { follow_head(&*store, limit, &over).await }));
    }
    let mut writers = Vec::new();
    for w in 0..WRITERS {
        let store = stores[w % 2].clone();
        writers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let names = [format!("w{w}-{round}"), format!("w{w}-last"), "shared/x".to_owned()];
                let on: Vec<Key> = names.iter().map(|n| key(n)).collect();
                let keys = Keys { records: on.iter().cloned().collect(), ..Keys::default() };
                let decide = move |snapshot: &Snapshot| {
                    dawdle((w as u64 + round as u64) % 3);
                    let mut draft = Draft::over(snapshot);
                    for key in &on {
                        draft.put(key, doc(&format!(r#"{{"w":{w},"round":{round}}}"#)));
                    }
                    draft.done()
                };
                // One clock stands still and one goes back: neither may hide a change.
                let now = ropeway_core::time::Time(NOW.0 - (w * round) as i64);
                store.transact(&space(), now, keys, Box::new(decide)).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    let (rows, _) = read_on(&*stores[0], &space(), Stamp(0), 1_000).await;
    let there: BTreeMap<Key, (Stamp, u64)> =
        rows.into_iter().map(|r| (r.key, (r.stamp, r.version))).collect();
    assert_eq!(there.len(), WRITERS * (ROUNDS + 1) + 1);
    assert_eq!(there[&key("shared/x")].1, (WRITERS * ROUNDS) as u64, "no update was lost");
    for reader in readers {
        assert_eq!(reader.await.unwrap(), there, "a reader missed a change");
    }
    sound(&*stores[1], &space()).await;
}

/// A reader as a follower is: pages on from its cursor and, after a complete page, from the head.
async fn follow_head(store: &dyn Store, limit: usize, over: &AtomicBool) -> BTreeMap<Key, (Stamp, u64)> {
    let (mut seen, mut cursor) = (BTreeMap::new(), Stamp(0));
    loop {
        let was_over = over.load(Ordering::SeqCst);
        let page = store.feed(&space(), cursor, limit, &[]).await.unwrap();
        for row in page.rows {
            assert!(row.stamp > cursor && row.stamp <= page.space.head, "page and head are of one moment");
            cursor = row.stamp;
            seen.insert(row.key, (row.stamp, row.version));
        }
        if page.complete {
            cursor = page.space.head;
            if was_over {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn collections_are_those_that_have_records(on: On) {
    let store = on.open().await;
    let (here, other) = (space(), SpaceId::trusted("andes"));
    for space in [&here, &other] {
        store.open_space(space).await.unwrap();
    }
    assert!(store.collections(&here).await.unwrap().is_empty());
    put_all(&store, &other, vec![(key("team/x"), doc("{}"))]).await;
    let names = ["race/1", "incident/1", "race/2", "penalty/1", "incident/2"];
    put_all(&store, &here, names.iter().map(|name| (key(name), doc("{}"))).collect()).await;
    let found: Vec<String> =
        store.collections(&here).await.unwrap().iter().map(|c| c.as_str().to_owned()).collect();
    assert_eq!(found, ["incident", "penalty", "race"]);
}

pub(super) async fn contested_records_are_counted(on: On) {
    let store = on.open().await;
    let (here, other) = (space(), SpaceId::trusted("andes"));
    let names = ["race/1", "race/2", "race/3", "incident/1"];
    for space in [&here, &other] {
        store.open_space(space).await.unwrap();
        put_all(&store, space, names.iter().map(|name| (key(name), doc("{}"))).collect()).await;
    }
    let races = key("race/1").collection;
    assert_eq!(store.contested(&here, &races).await.unwrap(), 0);
    for (named, wanted) in [(&names[..2], (2, 0)), (&names[1..], (2, 1)), (&names[..0], (0, 0))] {
        let named: Vec<Key> = named.iter().map(|name| key(name)).collect();
        let note = move |snapshot: &Snapshot| {
            let mut draft = Draft::over(snapshot);
            let rows = snapshot.records.iter().map(|(key, record)| Row {
                key: key.clone(),
                record: Record { contested: named.contains(key), ..record.clone() },
                is_new: false,
                contribution: (0, 0),
            });
            draft.plan.rows = rows.collect();
            draft.done()
        };
        transact(&store, &names, note).await;
        let count = async |name: &str| store.contested(&here, &key(name).collection).await.unwrap();
        assert_eq!((count("race/1").await, count("incident/1").await), wanted);
        assert_eq!((count("team/none").await, store.contested(&other, &races).await.unwrap()), (0, 0));
    }
}
