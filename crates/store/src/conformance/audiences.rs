//! Audiences: what a reader gets who sees only what they are subscribed to, and what they are told to evict.

use super::{On, hand::*};
use crate::{Place, Reader, ReaderPage, Stored, Walk};
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    digest::Digest,
    plan::{Keys, Plan, Snapshot},
    retention::Lines,
    time::{Stamp, Time},
};

/// The beginning.
const BEGIN: Place = Place { after: Stamp(i64::MIN), subscribed: Stamp(i64::MIN), within: None };

async fn opened(on: &On) -> Stored {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    store
}

/// A record enters an audience, or leaves the one that it entered at a stamp.
async fn moves(store: &Stored, record: &str, audience: &str, entered: Option<Stamp>) -> Stamp {
    let (record, audience) = (key(record), audience.to_owned());
    let fill = move |plan: &mut Plan| {
        plan.head = plan.head.next(NOW);
        let (record, audience, via) = (record.clone(), audience.clone(), None);
        let left = entered.map(|_| plan.head);
        let row = AudienceRow { record, audience, via, entered: entered.unwrap_or(plan.head), left };
        let rows = if left.is_some() { &mut plan.audiences_moved } else { &mut plan.audiences };
        rows.push(row);
    };
    write(store, fill).await.head
}

/// A reader begins to hold an audience, or ends what began at a stamp.
async fn subscribes(store: &Stored, reader: &str, audience: &str, began: Option<Stamp>) -> Stamp {
    let (reader, audience) = (device(reader), audience.to_owned());
    let fill = move |plan: &mut Plan| {
        plan.head = plan.head.next(NOW);
        let (reader, audience, via) = (reader.clone(), audience.clone(), None);
        let left = began.map(|_| plan.head);
        plan.subscriptions.push(Subscription {
            reader,
            audience,
            via,
            entered: began.unwrap_or(plan.head),
            left,
        });
    };
    write(store, fill).await.head
}

fn reader(name: &str) -> Reader {
    let open = vec![key("team/x").collection];
    Reader { device: Some(device(name)), only: None, all: false, open, node: device("node") }
}

/// Reads on to the end, by pages of so many: names in order, those that left with a dash, and the place.
async fn reads(store: &Stored, name: &str, place: Place, limit: usize) -> (String, ReaderPage) {
    let (mut place, mut seen) = (place, Vec::new());
    for _ in 0..50 {
        let page = store.feed_to(&space(), &reader(name), place, limit, &[]).await.unwrap();
        assert!(page.rows.len() <= limit);
        for row in &page.rows {
            let name = format!("{}{}", if row.left { "-" } else { "" }, row.key.id);
            // What entered on a later page than it changed on may come twice, and is the same.
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        if page.complete {
            assert_eq!(page.place, Place::at(page.space.head), "at rest a cursor has one source");
            return (seen.join(" "), page);
        }
        assert_ne!(page.place, place, "a page that is not the last goes on");
        place = page.place;
    }
    panic!("the pages have no end: {seen:?}");
}

/// Purges up to a stamp in steps of two rows; how many audience rows and subscriptions went.
async fn purge(store: &Stored, line: Stamp, dry: bool) -> u64 {
    let never = Stamp(i64::MIN);
    let lines = Lines { tombstones: line, history: never, receipts: never, settled: Time(i64::MIN) };
    let (mut at, mut gone) = (Some(Walk::start()), 0);
    while let Some(walk) = at {
        let of_audiences = walk == Walk::Audiences;
        let step = store.purge(&space(), &lines, walk, 2, dry).await.unwrap();
        gone += if of_audiences { step.rows } else { 0 };
        at = step.next;
    }
    gone
}

pub(super) async fn rows_are_kept_moved_and_purged(on: On) {
    let store = opened(&on).await;
    put(&store, "a", "{}").await;
    let entered = moves(&store, "a", "k:1", None).await;
    let left = moves(&store, "a", "k:1", Some(entered)).await;
    moves(&store, "a", "k:2", None).await;
    let began = subscribes(&store, "pi", "k:1", None).await;
    let asked = Keys { audiences: [key("a")].into(), readers: [device("pi")].into(), ..Keys::default() };
    let found = snapshot(&store, asked).await;
    let rows: Vec<_> = found.audiences[&key("a")].iter().map(|r| (r.audience.as_str(), r.left)).collect();
    assert_eq!(rows, [("k:1", Some(left)), ("k:2", None)]);
    assert_eq!(found.subscriptions[&device("pi")][0].entered, began);
    assert_eq!(purge(&store, Stamp(left.0 - 1), false).await, 0, "what left later stays");
    assert_eq!(store.space(&space()).await.unwrap().purged, Stamp(0));
    assert_eq!(purge(&store, left, true).await, 1);
    assert_eq!(purge(&store, left, false).await, 1);
    assert_eq!(store.space(&space()).await.unwrap().purged, left, "who had not read so far is to know");
    assert_eq!(store.audiences(&space(), &[key("a")]).await.unwrap().len(), 1);
    assert_eq!(store.subscriptions(&space(), &device("pi")).await.unwrap().len(), 1);
    let ended = subscribes(&store, "pi", "k:1", Some(began)).await;
    for name in ["b", "c", "d"] {
        put(&store, name, "{}").await;
        let entered = moves(&store, name, "k:2", None).await;
        moves(&store, name, "k:2", Some(entered)).await;
    }
    let head = store.space(&space()).await.unwrap().head;
    assert_eq!(purge(&store, ended, false).await, 1, "a subscription that ended");
    assert_eq!(store.subscriptions(&space(), &device("pi")).await.unwrap(), []);
    assert_eq!(purge(&store, head, false).await, 3, "in steps");
    // A tombstone takes along what it wore.
    let dead = transact(&store, &["a"], |s: &Snapshot| Draft::over(s).delete(&key("a")).done()).await.head;
    assert_eq!(purge(&store, dead, false).await, 0);
    assert_eq!(store.audiences(&space(), &[key("a")]).await.unwrap(), []);
}

pub(super) async fn a_reader_is_told_what_enters_and_leaves(on: On) {
    let store = opened(&on).await;
    subscribes(&store, "pi", "k:1", None).await;
    for name in ["a", "b", "c", "team/x"] {
        put(&store, name, "{}").await;
    }
    let entered = moves(&store, "a", "k:1", None).await;
    moves(&store, "b", "k:2", None).await;
    for limit in [1, 2, 99] {
        assert_eq!(reads(&store, "pi", BEGIN, limit).await.0, "a x", "by pages of {limit}");
        assert_eq!(reads(&store, "stranger", BEGIN, limit).await.0, "x");
    }
    let (_, page) = reads(&store, "pi", BEGIN, 9).await;
    moves(&store, "a", "k:1", Some(entered)).await;
    moves(&store, "b", "k:1", None).await;
    moves(&store, "c", "*", None).await;
    put(&store, "a", r#"{"secret":1}"#).await;
    for limit in [1, 2, 99] {
        assert_eq!(reads(&store, "pi", page.place, limit).await.0, "-a b c");
    }
    assert_eq!(page.audiences, Some(vec!["k:1".to_owned()]));
}

pub(super) async fn a_subscription_is_a_source_of_its_own(on: On) {
    let store = opened(&on).await;
    for name in ["a", "b", "c", "d"] {
        put(&store, name, "{}").await;
        moves(&store, name, if name == "d" { "k:2" } else { "k:1" }, None).await;
    }
    let (seen, before) = reads(&store, "pi", BEGIN, 9).await;
    assert_eq!(seen, "");
    let began = subscribes(&store, "pi", "k:1", None).await;
    put(&store, "b", r#"{"n":2}"#).await;
    for limit in [1, 2, 3, 99] {
        let (seen, page) = reads(&store, "pi", before.place, limit).await;
        let names: std::collections::BTreeSet<&str> = seen.split(' ').collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "c"], "by pages of {limit}: {seen}");
        let late = subscribes(&store, "other", "k:1", None).await;
        assert_eq!(
            reads(&store, "pi", page.place, limit).await.0,
            "",
            "{late}: another's is none of its own"
        );
    }
    let (_, held) = reads(&store, "pi", before.place, 9).await;
    subscribes(&store, "pi", "k:1", Some(began)).await;
    for limit in [1, 2, 99] {
        assert_eq!(reads(&store, "pi", held.place, limit).await.0, "-a -b -c");
        assert_eq!(
            reads(&store, "pi", BEGIN, limit).await.0,
            "-a -b -c",
            "whoever reads anew is told as well"
        );
    }
}

pub(super) async fn a_pull_from_the_beginning_names_each_record_once(on: On) {
    let store = opened(&on).await;
    subscribes(&store, "pi", "k:1", None).await;
    for name in ["a", "b", "c", "d", "e"] {
        moves(&store, name, if name == "c" { "k:2" } else { "k:1" }, None).await;
        put(&store, name, "{}").await;
    }
    subscribes(&store, "pi", "k:2", None).await;
    for limit in [1, 2, 3, 99] {
        let (mut place, mut seen) = (BEGIN, Vec::new());
        loop {
            let page = store.feed_to(&space(), &reader("pi"), place, limit, &[]).await.unwrap();
            seen.extend(page.rows.iter().map(|row| row.key.id.to_string()));
            if page.complete {
                break;
            }
            place = page.place;
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"], "by pages of {limit}");
    }
    // What is subscribed to on the way is walked all the same.
    let first = store.feed_to(&space(), &reader("pi"), BEGIN, 2, &[]).await.unwrap();
    moves(&store, "f", "k:3", None).await;
    put(&store, "f", "{}").await;
    moves(&store, "a", "k:3", None).await;
    subscribes(&store, "pi", "k:3", None).await;
    let seen = reads(&store, "pi", first.place, 2).await.0;
    let names: std::collections::BTreeSet<&str> = seen.split(' ').collect();
    assert!(["c", "d", "e", "f"].iter().all(|name| names.contains(name)), "{seen}");
}

pub(super) async fn a_readers_digest_is_over_what_they_see(on: On) {
    let store = opened(&on).await;
    subscribes(&store, "pi", "k:1", None).await;
    let sight = |sight: &str, count, sum| (sight.to_owned(), Digest { count, sum });
    let moved = [sight("k:1", 2, 10), sight("k:1\nk:2", 1, 100), sight("k:2", 5, 1_000), sight("*", 1, 7)];
    write(&store, move |plan| plan.sights.extend(moved.clone())).await;
    write(&store, move |plan| plan.sights.extend([sight("k:1", -1, i64::MAX)])).await;
    let (_, page) = reads(&store, "pi", BEGIN, 9).await;
    assert_eq!(page.space.digest, Digest { count: 3, sum: i64::MAX.wrapping_add(117) });
    assert_eq!(reads(&store, "stranger", BEGIN, 9).await.1.space.digest, Digest { count: 1, sum: 7 });
    // Counted anew: nothing of before is left.
    let anew = [sight("k:1", 1, 3)];
    write(&store, move |plan| (plan.sights, plan.sights_anew) = (anew.clone().into(), true)).await;
    assert_eq!(reads(&store, "pi", BEGIN, 9).await.1.space.digest, Digest { count: 1, sum: 3 });
    assert_eq!(reads(&store, "stranger", BEGIN, 9).await.1.space.digest, Digest::default());
    write(&store, |plan| plan.sights_anew = true).await;
    assert_eq!(reads(&store, "pi", BEGIN, 9).await.1.space.digest, Digest::default());
}

pub(super) async fn what_is_not_asked_for_hides_nothing_behind_it(on: On) {
    let store = opened(&on).await;
    subscribes(&store, "pi", "k:1", None).await;
    for name in ["race/1", "race/2", "gate/3", "gate/4"] {
        put(&store, name, "{}").await;
    }
    moves(&store, "gate/4", "k:1", None).await;
    let (_, before) = reads(&store, "pi", BEGIN, 9).await;
    for name in ["race/1", "race/2", "gate/3"] {
        moves(&store, name, "k:1", None).await;
    }
    put(&store, "gate/4", r#"{"n":2}"#).await;
    let gates = [key("gate/3").collection];
    for limit in [1, 2, 9] {
        let (mut place, mut seen) = (before.place, Vec::new());
        loop {
            let page = store.feed_to(&space(), &reader("pi"), place, limit, &gates).await.unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.key.id.to_string()));
            if page.complete {
                break;
            }
            place = page.place;
        }
        assert_eq!(seen, ["3", "4"], "by pages of {limit}");
    }
}
