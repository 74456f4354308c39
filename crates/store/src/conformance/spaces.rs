//! Opening, isolation, reopening.

use super::{On, hand::*};
use crate::StoreError;
use ropeway_core::{digest::Digest, id::SpaceId, plan::Keys, time::Stamp};

pub(super) async fn opening_is_idempotent(on: On) {
    let store = on.open().await;
    let first = store.open_space(&space()).await.unwrap();
    assert_eq!((first.head, first.digest), (Stamp(0), Digest::default()));
    put(&store, "a", "{}").await;
    let again = store.open_space(&space()).await.unwrap();
    assert_eq!(again, store.space(&space()).await.unwrap());
    assert_eq!((again.head, &again.epoch), (Stamp(NOW.0), &first.epoch));
}

pub(super) async fn an_unknown_space_is_named(on: On) {
    let store = on.open().await;
    let nowhere = SpaceId::trusted("nowhere");
    let is_named = |e: StoreError| matches!(e, StoreError::NoSpace(name) if name == "nowhere");
    assert!(is_named(store.space(&nowhere).await.unwrap_err()));
    assert!(is_named(store.feed(&nowhere, Stamp(0), 1, &[]).await.unwrap_err()));
    let decide = puts(vec![(key("a"), doc("{}"))]);
    assert!(is_named(store.transact(&nowhere, NOW, Keys::default(), decide).await.unwrap_err()));
    assert!(is_named(store.stage(&nowhere, &epoch("e"), Vec::new(), "t").await.unwrap_err()));
    assert!(is_named(store.outbox(&nowhere, &[], 0, 1).await.unwrap_err()));
}

pub(super) async fn spaces_see_nothing_of_each_other(on: On) {
    let store = on.open().await;
    let (alps, andes) = (SpaceId::trusted("alps"), SpaceId::trusted("andes"));
    for space in [&alps, &andes] {
        store.open_space(space).await.unwrap();
    }
    // The same ids, the same stamps, the same change ids: nothing of it meets.
    for (space, data) in [(&alps, r#"{"in":"alps"}"#), (&andes, r#"{"in":"andes"}"#)] {
        let data = doc(data);
        let decide = Box::new(move |s: &ropeway_core::plan::Snapshot| {
            assert!(s.records.is_empty() && s.receipts.is_empty() && s.head == Stamp(0));
            Draft::over(s).put(&key("a"), data.clone()).receipt("c", &key("a")).done()
        });
        let mut wanted = keys(["a"]);
        wanted.receipts.insert(ropeway_core::id::ChangeId::trusted("c"));
        store.transact(space, NOW, wanted, decide).await.unwrap();
    }
    put_all(&store, &andes, vec![(key("b"), doc("{}"))]).await;
    let (rows, head) = read_on(&*store, &alps, Stamp(0), 10).await;
    assert_eq!((rows.len(), rows[0].data.text(), head), (1, r#"{"in":"alps"}"#, Stamp(NOW.0)));
    assert_eq!(store.space(&andes).await.unwrap().head, Stamp(NOW.0 + 1));
    let first = store.records(&andes, &[key("a"), key("b")]).await.unwrap();
    assert_eq!([first[0].1.local_id, first[1].1.local_id], [1, 2], "ids tell nothing of other spaces");
    sound(&*store, &alps).await;
    sound(&*store, &andes).await;
}

pub(super) async fn what_is_written_is_there_after_reopening(on: On) {
    let store = on.open_following().await;
    let before = store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), (0..700).map(|i| (key(&format!("r{i}")), doc("{}"))).collect()).await;
    write(&store, |plan| {
        plan.outbox.push(entry(1, "c", &key("r1"), ropeway_core::outbox::EntryState::Pending))
    })
    .await;
    store.put_meta("device", "pi-1").await.unwrap();
    let state = store.space(&space()).await.unwrap();
    drop(store);
    let store = on.open_following().await;
    assert_eq!(store.space(&space()).await.unwrap(), state);
    assert_eq!(state.epoch, before.epoch, "the epoch is the database's, not the program's");
    assert_eq!(read_on(&*store, &space(), Stamp(0), 99).await.0.len(), 700);
    assert_eq!(store.outbox(&space(), &[], 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.meta("device").await.unwrap().as_deref(), Some("pi-1"));
    let plan = put(&store, "r700", "{}").await;
    assert_eq!(plan.rows[0].record.local_id, 701, "local ids go on");
    assert_eq!(snapshot(&store, Keys::default()).await.next_entry, 2, "numbers go on");
    sound(&*store, &space()).await;
}

pub(super) async fn sound_and_sized(on: On) {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    put(&store, "a", "{}").await;
    store.check().await.unwrap();
    let size = store.size().await.unwrap();
    assert_eq!(size == 0, store.kind() == "memory");
}
