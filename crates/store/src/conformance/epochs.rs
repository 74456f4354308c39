//! Backups of a database in use, audits, and the epoch that a restored database begins.

use super::{On, hand::*};
use crate::{Device, DeviceStatus};
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    epoch::{Gap, serve_from},
    id::{ChangeId, Epoch, SpaceId},
    outbox::EntryState,
    plan::{Keys, Row, Snapshot},
    record::Upstream,
    time::{Stamp, Time},
};

fn reader(pulled: i64) -> Device {
    Device {
        id: device("reader"),
        space: space(),
        name: "Reader".into(),
        mode: "offline_device".into(),
        role: "device".into(),
        status: DeviceStatus::Active,
        token_hash: "hash".into(),
        metadata: serde_json::Value::Null,
        created_at: NOW,
        last_seen_at: None,
        pulled: Some(Stamp(pulled)),
        pulled_shared: Some(Stamp(pulled)),
    }
}

pub(super) async fn a_cursor_of_what_is_shared_is_worth_what_both_have(on: On) {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    store.open_space(&SpaceId::shared()).await.unwrap();
    put_all(&store, &SpaceId::shared(), vec![(key("shared"), doc("{}"))]).await;
    let kept = store.space(&SpaceId::shared()).await.unwrap().head;
    store.put_device(&reader(NOW.0 + 5)).await.unwrap();
    store.begin_epoch(&epoch("two"), Time(NOW.0 + 9_000_000), false).await.unwrap();
    let device = store.device(&space(), &device("reader")).await.unwrap().unwrap();
    assert!(kept.0 < NOW.0 + 5);
    assert_eq!(device.pulled_shared, Some(kept));
}

pub(super) async fn an_image_is_of_one_moment_and_begins_an_epoch(on: On) {
    let store = on.open().await;
    let before = store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), (0..300).map(|i| (key(&format!("r{i}")), doc("{}"))).collect()).await;
    write(&store, |plan| plan.receipts.push(remembered("c", &key("r1"), plan.head))).await;
    store.put_device(&reader(NOW.0 + 1_000)).await.unwrap();
    let then = store.space(&space()).await.unwrap();
    let audit = store.audit().await.unwrap();
    let elsewhere = on.image(NOW).await;
    put(&store, "later", "{}").await;
    let copy = elsewhere.open().await;
    assert_eq!(copy.space(&space()).await.unwrap(), then, "nothing that came later");
    assert_eq!(copy.audit().await.unwrap(), audit);

    let now = Time(then.head.0 + 5_000_000);
    copy.begin_epoch(&epoch("two"), now, false).await.unwrap();
    let begun = copy.space(&space()).await.unwrap();
    assert_eq!((&*begun.epoch, begun.head, begun.digest), ("two", Stamp(now.0), then.digest));
    let gaps = copy.gaps(&space()).await.unwrap();
    assert_eq!(gaps, [Gap { after: then.head, begins: Stamp(now.0), lost: Stamp(now.0) }]);
    let lost = Time(then.head.0 + 7);
    assert_eq!(serve_from(lost, begun.head, &gaps), then.head, "a time of the lost epoch");
    let kept = copy.device_by_token("hash").await.unwrap().unwrap();
    assert_eq!(kept.pulled, Some(then.head), "a cursor of the lost epoch is worth what both have");
    let mut wanted = Keys::default();
    wanted.receipts.insert(ChangeId::trusted("c"));
    assert_eq!(snapshot(&copy, wanted).await.receipts.len(), 1, "receipts are kept");
    let plan = put(&copy, "r300", "{}").await;
    assert!(plan.rows[0].record.local_id > 1_000, "a number of the lost epoch is not given again");
    assert!(plan.rows[0].record.stamp > begun.head);
    sound(&*copy, &space()).await;
    assert_eq!(copy.audit().await.unwrap().faults, Vec::<String>::new());
    assert_eq!(store.space(&space()).await.unwrap().epoch, before.epoch, "the original goes on");
}

pub(super) async fn new_stamps_bring_the_head_back_to_the_clock_in_the_same_order(on: On) {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), (0..5).map(|i| (key(&format!("r{i}")), doc("{}"))).collect()).await;
    let kept = store.space(&space()).await.unwrap().head;
    // A year ahead, and written backwards, so that neither ids nor rows are in stamp order.
    let year = Time(NOW.0 + 365 * 86_400_000_000);
    for i in (3..9).rev() {
        let (on, rows) = (key(&format!("r{i}")), vec![(key(&format!("r{i}")), doc(r#"{"late":1}"#))]);
        let keys = Keys { records: [on].into(), ..Keys::default() };
        store.transact(&space(), year, keys, puts(rows)).await.unwrap();
    }
    write(&store, |plan| plan.receipts.push(remembered("c", &key("r1"), plan.head))).await;
    // What entered and left has stamps of the same sequence, and goes with them.
    write(&store, |plan| {
        let [entered, began, left] = [1, 2, 3].map(|after| Stamp(plan.head.0 + after));
        let (record, audience, via) = (key("r1"), "area:a".to_owned(), None);
        plan.audiences.push(AudienceRow { record, audience, via: via.clone(), entered, left: Some(left) });
        let (reader, audience) = (device("reader"), "area:a".to_owned());
        plan.subscriptions.push(Subscription { reader, audience, via, entered: began, left: None });
        plan.head = left;
    })
    .await;
    store.put_device(&reader(year.0)).await.unwrap();
    let (order, head) = read_on(&*store, &space(), Stamp(0), 9).await;
    assert!(head.0 >= year.0);

    let now = Time(NOW.0 + 60_000_000);
    store.begin_epoch(&epoch("two"), now, true).await.unwrap();
    let (after, head) = read_on(&*store, &space(), Stamp(0), 9).await;
    let names = |rows: &[ropeway_core::plan::Fed]| rows.iter().map(|r| r.key.clone()).collect::<Vec<_>>();
    assert_eq!((names(&after), head), (names(&order), Stamp(now.0)));
    assert!(after.iter().zip(&order).all(|(a, b)| (a.version, &a.data) == (b.version, &b.data)));
    let before = |back: i64| Stamp(now.0 - back);
    assert_eq!(after.last().unwrap().stamp, before(3));
    let worn = store.audiences(&space(), &[key("r1")]).await.unwrap().remove(0);
    assert_eq!((worn.entered, worn.left), (before(2), Some(before(0))));
    let held = store.subscriptions(&space(), &device("reader")).await.unwrap().remove(0);
    assert_eq!((held.entered, held.left), (before(1), None));
    assert_eq!(store.audit().await.unwrap().faults, Vec::<String>::new());
    let asked = Keys { receipts: [ChangeId::trusted("c")].into(), ..Keys::default() };
    let receipts = snapshot(&store, asked).await.receipts;
    assert!(receipts.values().all(|r| r.stamp <= head) && receipts.len() == 1, "{receipts:?}");
    let gaps = store.gaps(&space()).await.unwrap();
    let newest_kept = after.iter().rev().map(|r| r.stamp).find(|s| *s <= kept).unwrap();
    assert_eq!(serve_from(year, head, &gaps), newest_kept, "who was a year ahead gets all that moved");
    assert_eq!(store.device(&space(), &device("reader")).await.unwrap().unwrap().pulled, Some(newest_kept));
    sound(&*store, &space()).await;
    // A head at the clock is left alone: nothing has to be cured.
    store.begin_epoch(&epoch("three"), Time(now.0 + 9), true).await.unwrap();
    assert_eq!(names(&read_on(&*store, &space(), Stamp(0), 9).await.0), names(&order));
    assert_eq!(store.space(&space()).await.unwrap().head, Stamp(now.0 + 9));
}

pub(super) async fn an_audit_finds_what_cannot_be_true(on: On) {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), vec![(key("a"), doc("{}")), (key("b"), doc("{}"))]).await;
    write(&store, |plan| {
        plan.outbox.push(entry(1, "c", &key("a"), EntryState::Settled));
        plan.outbox.push(entry(2, "d", &key("b"), EntryState::Pending));
    })
    .await;
    let audit = store.audit().await.unwrap();
    let holding = &audit.spaces[0];
    assert_eq!((holding.records, holding.history, holding.unsettled, holding.settled), (2, 0, 1, 1));
    assert_eq!(audit.faults, Vec::<String>::new());
    let wrong = |text: &'static str, fill: fn(&mut ropeway_core::plan::Plan)| {
        let store = store.clone();
        async move {
            write(&store, fill).await;
            let faults = store.audit().await.unwrap().faults;
            assert!(faults.iter().any(|f| f.contains(text)), "{text}: {faults:?}");
        }
    };
    wrong("its digest is", |plan| plan.digest.sum = 5).await;
    wrong("the batch lost", |plan| {
        let mut sealed = entry(3, "e", &key("b"), EntryState::Sealed);
        sealed.batch = Some("lost".into());
        plan.outbox.push(sealed);
    })
    .await;
    let _: Epoch = audit.epoch;
}

pub(super) async fn what_another_epoch_fed_is_listed(on: On) {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    let heard = [("a", Some(("lost", 3))), ("b", Some(("new", 1))), ("c", None), ("d", Some(("lost", 0)))];
    let more = [("e", Some(("older", 2))), ("f", Some(("lost", 1)))];
    for (name, said) in heard.into_iter().chain(more) {
        put(&store, name, "{}").await;
        let note = move |snapshot: &Snapshot| {
            let mut record = snapshot.records[&key(name)].clone();
            let upstream = |(epoch, version)| Upstream { epoch: Epoch::trusted(epoch), version, held: None };
            record.upstream = said.map(upstream);
            let mut draft = Draft::over(snapshot);
            draft.plan.rows.push(Row { key: key(name), record, is_new: false, contribution: (0, 0) });
            draft.done()
        };
        transact(&store, &[name], note).await;
    }
    let unfed = async |epoch: &str, after, limit| {
        let found = store.unfed(&space(), &Epoch::trusted(epoch), after, limit).await.unwrap();
        found.into_iter().map(|(stamp, key)| (stamp, key.id.to_string())).collect::<Vec<_>>()
    };
    let all = unfed("new", Stamp(i64::MIN), 9).await;
    assert!(all.is_sorted());
    assert_eq!(all.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["a", "e", "f"]);
    assert_eq!(unfed("new", all[0].0, 1).await, all[1..2]);
    let unknown: Vec<String> =
        unfed("nobody knows", Stamp(0), 9).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(unknown, ["a", "b", "e", "f"]);
}
