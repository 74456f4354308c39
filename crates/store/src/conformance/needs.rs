//! The loop: a decision is given exactly what it asked for, under one lock.

use super::{On, hand::*};
use crate::{StoreError, Stored};
use ropeway_core::{
    id::{ChangeId, SpaceId},
    limits::NEED_ROUNDS_MAX,
    plan::{Decision, Keys, Plan, Snapshot},
    time::{Stamp, Time},
};

async fn opened(on: &On) -> Stored {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    store
}

async fn run(
    store: &Stored,
    keys: Keys,
    decide: impl FnMut(&Snapshot) -> Decision + Send + 'static,
) -> Result<Plan, StoreError> {
    store.transact(&space(), NOW, keys, Box::new(decide)).await
}

pub(super) async fn only_what_is_missing_is_loaded(on: On) {
    let store = opened(&on).await;
    put(&store, "a", "{}").await;
    put(&store, "b", "{}").await;
    let mut round = 0;
    let decide = move |snapshot: &Snapshot| {
        round += 1;
        let loaded: Vec<String> = snapshot.records.keys().map(|k| k.id.to_string()).collect();
        match round {
            1 => {
                assert_eq!(loaded, ["a"]);
                Decision::from(keys(["a", "b", "x"]))
            }
            2 => {
                assert_eq!(loaded, ["a", "b"]);
                assert_eq!(snapshot.keys, keys(["a", "b", "x"]));
                let receipts = [ChangeId::trusted("c")].into();
                Decision::from(Keys { receipts, links: [key("a")].into(), ..Keys::default() })
            }
            _ => {
                assert_eq!(snapshot.keys.records.len(), 3, "what was loaded stays");
                assert!(snapshot.keys.receipts.contains("c") && snapshot.keys.links.contains(&key("a")));
                Draft::over(snapshot).put(&key("x"), doc("{}")).done()
            }
        }
    };
    assert_eq!(run(&store, keys(["a"]), decide).await.unwrap().rows.len(), 1);
}

pub(super) async fn what_is_shared_is_read_beside_the_space(on: On) {
    let store = opened(&on).await;
    let (shared, asked) =
        (SpaceId::shared(), || Keys { shared: keys(["a", "j", "x"]).records, ..Keys::default() });
    let none = move |snapshot: &Snapshot| {
        assert!(snapshot.records.is_empty() && snapshot.keys.shared.len() == 3, "{snapshot:?}");
        Draft::over(snapshot).done()
    };
    run(&store, asked(), none).await.unwrap();
    store.open_space(&shared).await.unwrap();
    put_all(&store, &shared, vec![(key("a"), doc(r#"{"of":"all"}"#))]).await;
    let join = |snapshot: &Snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.join(&key("j"), "a");
        draft.done()
    };
    put_all(&store, &shared, vec![(key("j"), doc("{}"))]).await;
    let wanted = keys(["j"]);
    store.transact(&shared, NOW, wanted, Box::new(join)).await.unwrap();
    put(&store, "a", r#"{"of":"one"}"#).await;
    let decide = |snapshot: &Snapshot| {
        let found: Vec<_> = snapshot.records.iter().map(|(key, r)| (&*key.id, r.data.text())).collect();
        assert_eq!(found, [("a", r#"{"of":"all"}"#), ("j", "{}")]);
        Draft::over(snapshot).done()
    };
    run(&store, asked(), decide).await.unwrap();
    // Joined there, its survivor comes along.
    let decide = |snapshot: &Snapshot| {
        assert_eq!(snapshot.records.len(), 2);
        Draft::over(snapshot).done()
    };
    run(&store, Keys { shared: keys(["j"]).records, ..Keys::default() }, decide).await.unwrap();
}

pub(super) async fn asking_without_end_is_a_fault(on: On) {
    let store = opened(&on).await;
    for (limit, ends_well) in [(NEED_ROUNDS_MAX, true), (NEED_ROUNDS_MAX + 1, false)] {
        let mut round = 0;
        let decide = move |snapshot: &Snapshot| {
            round += 1;
            if round > limit {
                return Draft::over(snapshot).done();
            }
            let name = format!("n{round}");
            Decision::from(keys([name.as_str()]))
        };
        let ended = run(&store, keys(["a"]), decide).await;
        assert_eq!(ended.is_ok(), ends_well, "{ended:?}");
        assert!(ends_well || matches!(ended, Err(StoreError::Fault { .. })));
    }
    put(&store, "a", "{}").await;
}

pub(super) async fn asking_again_is_a_fault(on: On) {
    let store = opened(&on).await;
    let ended = run(&store, keys(["a"]), |_| Decision::from(keys(["a"]))).await;
    assert!(matches!(ended, Err(StoreError::Fault { .. })), "{ended:?}");
}

pub(super) async fn the_snapshot_is_exactly_what_was_asked(on: On) {
    let store = opened(&on).await;
    put_all(&store, &space(), ["a", "b", "c"].map(|n| (key(n), doc("{}"))).into()).await;
    write(&store, |plan| plan.receipts = ["x", "y"].map(|c| remembered(c, &key("a"), Stamp(1))).into()).await;
    let mut asked = keys(["a", "none"]);
    asked.receipts.insert(ChangeId::trusted("y"));
    let found = snapshot(&store, asked.clone()).await;
    assert_eq!(found.keys, asked);
    assert_eq!(found.records.keys().collect::<Vec<_>>(), [&key("a")]);
    assert_eq!(found.receipts.keys().map(|c| c.as_str()).collect::<Vec<_>>(), ["y"]);
    assert!(found.twins.is_empty() && found.links.is_empty() && found.outbox.is_empty());
}

pub(super) async fn survivors_come_with_joined_records(on: On) {
    let store = opened(&on).await;
    put_all(&store, &space(), ["a", "b", "c"].map(|n| (key(n), doc("{}"))).into()).await;
    transact(&store, &["a", "b"], |s| Draft::over(s).join(&key("a"), "b").join(&key("b"), "c").done()).await;
    let found = snapshot(&store, keys(["a"])).await;
    assert_eq!(found.records.len(), 3, "the chain is loaded with it");
    assert_eq!(found.keys.records, keys(["a", "b", "c"]).records);
    // A ring, which no decision should make, does not hang the store.
    transact(&store, &["c"], |s| Draft::over(s).join(&key("c"), "a").done()).await;
    assert_eq!(snapshot(&store, keys(["b"])).await.records.len(), 3);
}

pub(super) async fn a_panic_kills_nothing(on: On) {
    let store = opened(&on).await;
    for _ in 0..5 {
        let ended = run(&store, keys(["a"]), |_| panic!("a bug in a decision")).await;
        let Err(StoreError::Fault { what, .. }) = ended else { panic!("{ended:?}") };
        assert!(what.contains("a bug in a decision"), "{what}");
    }
    put(&store, "a", "{}").await;
    sound(&*store, &space()).await;
}

pub(super) async fn clock_head_and_counters_are_given(on: On) {
    let store = opened(&on).await;
    let found = snapshot(&store, Keys::default()).await;
    assert!(found.follows);
    assert_eq!((found.now, found.head, found.next_entry), (NOW, Stamp(0), 1));
    assert_eq!(found.epoch, store.space(&space()).await.unwrap().epoch);
    put(&store, "a", "{}").await;
    assert_eq!(snapshot(&store, Keys::default()).await.head, Stamp(NOW.0));
    // A clock that goes back moves no stamp back.
    let past = puts(vec![(key("b"), doc("{}"))]);
    let plan = store.transact(&space(), Time(5), keys(["b"]), past).await.unwrap();
    assert_eq!(plan.head, Stamp(NOW.0 + 1));
}
