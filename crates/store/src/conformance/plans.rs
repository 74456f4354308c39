//! Every part of a plan is written, and found again.

use super::{On, hand::*};
use crate::{StoreError, Stored};
use ropeway_core::{
    digest::Digest,
    id::{ChangeId, RecordId},
    plan::{Decision, JOINED, Keys, Link, Print, Probe, Row, Snapshot},
    receipt::{Detail, Verdict},
    record::{Held, Mark, Record, State, Upstream},
    time::{Stamp, Time},
};

async fn opened(on: &On) -> Stored {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    store
}

fn rich() -> Record {
    let mark = |role: Option<&str>| Mark {
        version: 2,
        at: Time(NOW.0 + 1),
        device: device("pi-finish"),
        role: role.map(str::to_owned),
    };
    let upstream = Upstream {
        epoch: epoch("cloud-1"),
        version: u64::MAX >> 1,
        held: Some(Held { state: State::Deleted, data: doc(r#"{"a":"é\"\n"}"#), left: false }),
    };
    let mut record = blank(Time(-5));
    record.version = 9;
    record.data = doc(r#"{"a":{"b":[1,2.5,null,"x"]},"name":"Ünï"}"#);
    record.marks = [("".into(), mark(None)), ("a".into(), mark(Some("manager")))].into();
    record.contested = true;
    record.upstream = Some(upstream);
    record
}

pub(super) async fn records_round_trip(on: On) {
    let store = opened(&on).await;
    let mut plain = blank(NOW);
    plain.author.person = None;
    plain.upstream = Some(Upstream { epoch: epoch("cloud-1"), version: 0, held: None });
    let joined = Record { state: State::Joined(RecordId::trusted("rich")), ..blank(NOW) };
    let gone = Record { state: State::Deleted, ..blank(NOW) };
    let wanted = [("rich", rich()), ("plain", plain), ("joined", joined), ("gone", gone)];
    let names = ["rich", "plain", "joined", "gone"];
    let rows = wanted.clone();
    let plan = transact(&store, &names, move |snapshot| {
        let mut draft = Draft::over(snapshot);
        for (name, record) in &rows {
            draft.plan.head = draft.plan.head.next(snapshot.now);
            let record = Record { stamp: draft.plan.head, ..record.clone() };
            draft.plan.rows.push(Row { key: key(name), record, is_new: true, contribution: (0, 0) });
        }
        draft.done()
    })
    .await;
    let found = snapshot(&store, keys(names)).await.records;
    for (i, (name, mut record)) in wanted.into_iter().enumerate() {
        record.stamp = Stamp(NOW.0 + i as i64);
        record.local_id = i as i64 + 1;
        assert_eq!(found[&key(name)], record);
        assert_eq!(plan.rows[i].record, record, "the plan tells the local id");
        assert_eq!(store.records(&space(), &[key(name)]).await.unwrap(), [(key(name), record)]);
    }
    let none = store.records(&space(), &[key("nothing"), key("team/rich")]).await.unwrap();
    assert!(none.is_empty());
}

pub(super) async fn local_ids_count_within_a_space(on: On) {
    let store = opened(&on).await;
    let first = put_all(&store, &space(), vec![(key("a"), doc("{}")), (key("team/a"), doc("{}"))]).await;
    let again = put_all(&store, &space(), vec![(key("a"), doc("{}")), (key("b"), doc("{}"))]).await;
    let ids = |plan: &ropeway_core::plan::Plan| -> Vec<i64> {
        plan.rows.iter().map(|r| r.record.local_id).collect()
    };
    assert_eq!((ids(&first), ids(&again)), (vec![1, 2], vec![1, 3]));
}

pub(super) async fn history_is_newest_first(on: On) {
    let store = opened(&on).await;
    for i in 0..4 {
        put(&store, "a", &format!(r#"{{"n":{i}}}"#)).await;
    }
    put(&store, "b", "{}").await;
    let kept = store.history(&space(), &key("a")).await.unwrap();
    let texts: Vec<&str> = kept.iter().map(|s| s.record.data.text()).collect();
    assert_eq!(texts, [r#"{"n":2}"#, r#"{"n":1}"#, r#"{"n":0}"#]);
    assert_eq!(kept[0].record.version, 3);
    assert!(kept.iter().all(|s| s.key == key("a")));
    assert!(store.history(&space(), &key("b")).await.unwrap().is_empty());
}

pub(super) async fn receipts_are_found_again(on: On) {
    let store = opened(&on).await;
    let mut parked = remembered("c-2", &key("conflict/x"), Stamp(7));
    parked.verdict = Verdict::Parked;
    let conflicts = vec![RecordId::trusted("c-2:bib")];
    parked.detail = Detail { parked: vec!["bib".into()], conflicts, shown: true };
    let wanted = [remembered("c-1", &key("a"), Stamp(5)), parked];
    let receipts = wanted.to_vec();
    write(&store, move |plan| plan.receipts = receipts.clone()).await;
    let asked = ["c-1", "c-2", "c-3"].map(ChangeId::trusted).into();
    let found = snapshot(&store, Keys { receipts: asked, ..Keys::default() }).await.receipts;
    assert_eq!(found.into_values().collect::<Vec<_>>(), wanted);
}

pub(super) async fn prints_are_found_within_their_window(on: On) {
    let store = opened(&on).await;
    let print = |name: &str, print: &str, at| Print { key: key(name), print: print.into(), at };
    write(&store, move |plan| {
        plan.prints = vec![
            print("b", "p", 20),
            print("a", "p", 10),
            print("c", "q", 15),
            print("team/a", "p", 15),
            print("z", "p", 31),
        ];
    })
    .await;
    let probe = |collection: &str, from, to| Probe {
        collection: key(&format!("{collection}/x")).collection,
        print: "p".into(),
        from,
        to,
    };
    let probes = [probe("incident", 10, 30), probe("incident", 32, 90), probe("team", 15, 15)];
    let ask = Keys { twins: probes.clone().into(), ..Keys::default() };
    let found = snapshot(&store, ask.clone()).await.twins;
    assert_eq!(found[&probes[0]], [print("a", "p", 10), print("b", "p", 20)]);
    assert!(!found.contains_key(&probes[1]), "nothing found is not there");
    assert_eq!(found[&probes[2]], [print("team/a", "p", 15)]);
    // All prints of a record go at once; what is added in the same plan stays.
    write(&store, move |plan| {
        plan.prints_gone = vec![key("a")];
        plan.prints = vec![print("a", "p", 12), print("b", "p", 20)];
    })
    .await;
    let found = snapshot(&store, ask).await.twins;
    assert_eq!(found[&probes[0]], [print("a", "p", 12), print("b", "p", 20)]);
    assert_eq!(found[&probes[2]], [print("team/a", "p", 15)]);
}

pub(super) async fn links_are_found_by_parent(on: On) {
    let store = opened(&on).await;
    let link = |parent: &str, child: &str, field: &str| Link {
        parent: key(parent),
        child: key(child),
        field: field.into(),
    };
    let all =
        [link("a", "report/1", "incident"), link("a", "b", JOINED), link("report/1", "a", "first_report")];
    let added = all.clone();
    write(&store, move |plan| plan.links = added.to_vec()).await;
    let again = all[0].clone();
    write(&store, move |plan| plan.links = vec![again.clone()]).await; // Being there already is no fault.
    let ask = Keys { links: [key("a"), key("b"), key("report/1")].into(), ..Keys::default() };
    let found = snapshot(&store, ask.clone()).await.links;
    assert_eq!(found[&key("a")], [all[1].clone(), all[0].clone()], "in order");
    assert_eq!(found[&key("report/1")], [all[2].clone()]);
    assert!(!found.contains_key(&key("b")));
    let (gone, never) = (all[0].clone(), link("a", "report/9", "incident"));
    write(&store, move |plan| plan.links_gone = vec![gone.clone(), never.clone()]).await;
    assert_eq!(snapshot(&store, ask).await.links[&key("a")], [all[1].clone()]);
}

pub(super) async fn forgotten_rows_leave_no_trace(on: On) {
    let store = opened(&on).await;
    put(&store, "a", "{}").await;
    let made = put(&store, "b", "{}").await.rows[0].clone();
    transact(&store, &["b"], move |snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.plan.forget.push(key("b"));
        draft.plan.digest = Digest::default().moved(made.contribution.1, 0);
        draft.done()
    })
    .await;
    assert_eq!(read_on(&*store, &space(), Stamp(0), 9).await.0.len(), 1);
    assert!(store.records(&space(), &[key("b")]).await.unwrap().is_empty());
    assert!(store.list(&space(), &key("b").collection, None, 9).await.unwrap().len() == 1);
    sound(&*store, &space()).await;
}

pub(super) async fn an_idle_plan_writes_nothing(on: On) {
    let (store, other) = (opened(&on).await, on.open_following().await);
    put(&store, "a", "{}").await;
    let before = (store.space(&space()).await.unwrap(), other.generation().await.unwrap());
    let plan = transact(&store, &["a"], |snapshot| Draft::over(snapshot).done()).await;
    assert_eq!(plan.head, before.0.head);
    assert_eq!((store.space(&space()).await.unwrap(), other.generation().await.unwrap()), before);
}

pub(super) async fn quiet_rows_reach_no_reader(on: On) {
    let store = opened(&on).await;
    put(&store, "a", r#"{"n":1}"#).await;
    let head = store.space(&space()).await.unwrap().head;
    let quiet = |snapshot: &Snapshot| {
        let mut record = snapshot.records[&key("a")].clone();
        record.upstream = rich().upstream;
        record.contested = true;
        record.owner = device("cloud");
        let mut draft = Draft::over(snapshot);
        draft.plan.rows.push(Row { key: key("a"), record, is_new: false, contribution: (0, 0) });
        draft.done()
    };
    transact(&store, &["a"], quiet).await;
    assert_eq!(store.space(&space()).await.unwrap().head, head);
    assert!(store.feed(&space(), head, 9, &[]).await.unwrap().rows.is_empty());
    let (_, record) = store.records(&space(), &[key("a")]).await.unwrap().remove(0);
    assert_eq!((record.upstream, record.contested, record.stamp), (rich().upstream, true, head));
    assert_eq!(record.owner, device("cloud"), "whose record it is is the upstream's word");
    sound(&*store, &space()).await;
}

pub(super) async fn a_faulty_plan_writes_nothing(on: On) {
    let store = opened(&on).await;
    put(&store, "a", "{}").await;
    write(&store, |plan| plan.receipts = vec![remembered("c", &key("a"), Stamp(1))]).await;
    let before = store.space(&space()).await.unwrap();
    let row = |name: &str, stamp, is_new| Row {
        key: key(name),
        record: Record { stamp: Stamp(NOW.0 + stamp), ..blank(NOW) },
        is_new,
        contribution: (0, 0),
    };
    let faults: Vec<(&str, Vec<Row>, i64)> = vec![
        ("a new row that is there", vec![row("b", 1, true), row("a", 2, true)], 2),
        ("a rewritten row that is not there", vec![row("b", 1, true), row("c", 2, false)], 2),
        ("a quiet row that moved since", vec![row("b", 1, true), row("a", -3, false)], 1),
        ("stamps in disorder", vec![row("b", 2, true), row("c", 1, true)], 2),
        ("one stamp twice", vec![row("b", 1, true), row("c", 1, true)], 1),
        ("a stamp beyond the head", vec![row("b", 9, true)], 1),
        ("a head that goes back", vec![], -1),
    ];
    for (what, rows, head) in faults {
        let decide = move |_: &Snapshot| {
            let head = Stamp(NOW.0 + head);
            let receipts = vec![remembered("d", &key("b"), Stamp(1))];
            let plan = ropeway_core::plan::Plan { head, rows: rows.clone(), receipts, ..Default::default() };
            Decision::Plan(Box::new(plan))
        };
        let ended = store.transact(&space(), NOW, Keys::default(), Box::new(decide)).await;
        assert!(matches!(ended, Err(StoreError::Fault { .. })), "{what}: {ended:?}");
    }
    let twice =
        |snapshot: &Snapshot| Draft::over(snapshot).receipt("e", &key("a")).receipt("c", &key("a")).done();
    let ended = store.transact(&space(), NOW, Keys::default(), Box::new(twice)).await;
    assert!(matches!(ended, Err(StoreError::Fault { .. })), "a change is answered once: {ended:?}");
    assert_eq!(store.space(&space()).await.unwrap(), before);
    let asked = ["c", "d", "e"].map(ChangeId::trusted).into();
    let found = snapshot(&store, Keys { receipts: asked, ..keys(["b", "c"]) }).await;
    assert_eq!((found.receipts.len(), found.records.len()), (1, 0));
    assert_eq!(put(&store, "b", "{}").await.rows[0].record.local_id, 2, "and the store works on");
    sound(&*store, &space()).await;
}

pub(super) async fn digest_equals_a_recomputation(on: On) {
    let store = opened(&on).await;
    let mut dice = 7_u64;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    for round in 0..150 {
        let name = match roll(3) {
            0 => format!("conflict/c{}", roll(5)),
            _ => format!("r{}", roll(20)),
        };
        let (what, number) = (roll(5), roll(1_000));
        let on = key(&name);
        transact(&store, &[&name], move |snapshot| {
            let mut draft = Draft::over(snapshot);
            match what {
                0 => draft.delete(&on),
                1 => draft.join(&on, "r0"),
                2 => draft.put(&on, doc(r#"{"state":"open"}"#)),
                _ => draft.put(&on, doc(&format!(r#"{{"n":{number}}}"#))),
            };
            draft.done()
        })
        .await;
        if round % 15 == 0 {
            sound(&*store, &space()).await;
        }
    }
    assert!(store.space(&space()).await.unwrap().digest.count > 3);
    sound(&*store, &space()).await;
}
