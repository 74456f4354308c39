//! The outbox and the sealed batches.

use super::{On, hand::*};
use crate::Stored;
use ropeway_core::{
    change::{Base, Op},
    id::RecordId,
    outbox::{Entry, EntryState},
    plan::{Keys, Sealed},
    receipt::{Code, Reason, Verdict},
    time::{AuthorTime, Stamp, Time},
};

async fn opened(on: &On) -> Stored {
    let store = on.open_following().await;
    store.open_space(&space()).await.unwrap();
    store
}

fn rich() -> Entry {
    let mut rich = entry(4, "c-4", &key("a"), EntryState::Rejected);
    rich.change.op = Op::Create;
    rich.change.seen = Some(doc(r#"{"bib":6,"gone":null}"#).fields().clone());
    rich.change.base = Some(Base { epoch: epoch("cloud-1"), version: 12 });
    rich.change.at =
        Some(AuthorTime { wall: NOW, boot: Some(u64::from(u32::MAX)), mono: Some(-4), offset: Some(17) });
    rich.over = key("survivor");
    rich.also = vec![key("report/1"), key("conflict/c-4:bib")];
    rich.own = false;
    rich.batch = Some("batch-1".into());
    rich.held = vec!["bib".into()];
    rich.attempts = 3;
    rich.due = Time(NOW.0 + 5);
    rich.tried_at = Some(Time(NOW.0 + 1));
    rich.verdict = Some(Verdict::Rejected);
    rich.reason = Some(Reason { code: Code::Invalid, field: Some("bib".into()), text: "no".into() });
    rich.receipt_stamp = Some(Stamp(77));
    rich.granted = Some(Base { epoch: epoch("cloud-1"), version: 13 });
    rich.conflicts = vec![RecordId::trusted("c-4:bib")];
    rich
}

pub(super) async fn entries_round_trip(on: On) {
    let store = opened(&on).await;
    let plain = entry(2, "c-2", &key("b"), EntryState::Pending);
    let wanted = [plain, rich()];
    let entries = wanted.to_vec();
    write(&store, move |plan| plan.outbox = entries.clone()).await;
    assert_eq!(store.outbox(&space(), &[], 0, 9).await.unwrap(), wanted);
    assert_eq!(snapshot(&store, Keys::default()).await.next_entry, 5);
    let replaced = Entry { seq: 4, ..entry(4, "c-5", &key("b"), EntryState::Pending) };
    let again = replaced.clone();
    write(&store, move |plan| plan.outbox = vec![again.clone()]).await;
    assert_eq!(store.outbox(&space(), &[], 2, 9).await.unwrap(), [replaced]);
    assert_eq!(snapshot(&store, Keys::default()).await.next_entry, 5);
}

pub(super) async fn entries_are_listed_by_state(on: On) {
    use EntryState::*;
    let store = opened(&on).await;
    let all = [Settled, Pending, Sealed, Waiting, Rejected, Receipted, Discarded, Pending];
    write(&store, move |plan| {
        let numbered = all.iter().zip(1..);
        plan.outbox = numbered.map(|(s, n)| entry(n, &format!("c{n}"), &key("a"), *s)).collect();
    })
    .await;
    let seqs = |found: Vec<Entry>| found.into_iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.outbox(&space(), &[], 0, 99).await.unwrap()), [2, 3, 4, 5, 6, 8]);
    assert_eq!(seqs(store.outbox(&space(), &[], 3, 2).await.unwrap()), [4, 5]);
    assert_eq!(seqs(store.outbox(&space(), &[Settled, Pending], 0, 2).await.unwrap()), [1, 2]);
    assert_eq!(seqs(store.outbox(&space(), &[Pending, Pending], 0, 9).await.unwrap()), [2, 8]);
    let mut counts = store.outbox_counts(&space()).await.unwrap();
    counts.sort_by_key(|(s, _)| s.as_str());
    let wanted = [
        (Discarded, 1),
        (Pending, 2),
        (Receipted, 1),
        (Rejected, 1),
        (Sealed, 1),
        (Settled, 1),
        (Waiting, 1),
    ];
    assert_eq!(counts, wanted);
}

pub(super) async fn entries_are_found_by_record_and_number(on: On) {
    let store = opened(&on).await;
    let settled = entry(1, "c1", &key("a"), EntryState::Settled);
    let mut over_a = entry(2, "c2", &key("joined"), EntryState::Sealed);
    over_a.over = key("a");
    let later = entry(5, "c5", &key("a"), EntryState::Pending);
    let elsewhere = entry(3, "c3", &key("b"), EntryState::Settled);
    let all = [settled.clone(), over_a.clone(), elsewhere.clone(), later.clone()];
    write(&store, move |plan| plan.outbox = all.to_vec()).await;
    let ask = Keys { outbox: [key("a"), key("joined"), key("x")].into(), ..Keys::default() };
    let found = snapshot(&store, ask.clone()).await.outbox;
    assert_eq!(found.len(), 1, "entries are found by the record over which they are laid");
    assert_eq!(found[&key("a")], [over_a.clone(), later.clone()]);
    let found = snapshot(&store, Keys { entries: [1, 3, 5, 9].into(), ..ask }).await.outbox;
    assert_eq!(found[&key("a")], [settled, over_a, later], "each once, in the order of acceptance");
    assert_eq!(found[&key("b")], [elsewhere]);
}

pub(super) async fn batches_are_sealed_until_answered(on: On) {
    let store = opened(&on).await;
    assert_eq!(store.sealed(&space()).await.unwrap(), None);
    let batch = |id: &str, changes| Sealed { id: id.into(), body: vec![0, 255, b'{'], changes };
    write(&store, move |plan| plan.sealed = vec![batch("z", 2), batch("a", 1)]).await;
    assert_eq!(store.sealed(&space()).await.unwrap(), Some(batch("z", 2)), "the oldest first");
    write(&store, |plan| plan.unsealed = vec!["z".into(), "never".into()]).await;
    assert_eq!(store.sealed(&space()).await.unwrap(), Some(batch("a", 1)));
    write(&store, move |plan| {
        plan.unsealed = vec!["a".into()];
        plan.sealed = vec![batch("a", 7)];
    })
    .await;
    assert_eq!(store.sealed(&space()).await.unwrap(), Some(batch("a", 7)), "sealed anew, smaller");
}
