//! How much of partial sync one device may hold and one push may move.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{On, Venue, data, fields, key, pair::at, space};
use ropeway_core::{
    change::{
        Author, Change,
        Op::{Create, Patch},
    },
    id::ChangeId,
    limits,
    receipt::{Code, Verdict},
};
use ropeway_replica::ReplicaError;
use serde_json::{Value, json};

const PROFILE: &str = harness::parts!(
    r#"
[collections.competition]
audience = { key = "competition:{id}" }
fields = { name = "text" }
[collections.race]
references = { competition = "competition" }
audience = { from = ["competition"] }
fields = { name = "text" }
[collections.incident]
references = { race = "race" }
audience = { from = ["race"] }
fields = { bib = "int" }
"#
);

/// A device that may hold no more is told so; what it holds already it may ask for again, and change for another.
#[tokio::test]
async fn a_device_holds_a_thousand_audiences_and_no_more() {
    let venue = Venue::of(On::Memory, PROFILE, "venue").await;
    let device = &venue.device.device;
    let choose = async |n: usize, on| venue.cloud.subscribe(device, &format!("competition:{n}"), on).await;
    for n in 0..1_000 {
        choose(n, true).await.unwrap();
    }
    assert!(matches!(choose(1_000, true).await, Err(ReplicaError::TooLarge(_))));
    choose(7, true).await.unwrap();
    choose(7, false).await.unwrap();
    choose(1_000, true).await.unwrap();
    assert_eq!(venue.cloud.subscriptions(device).await.unwrap().unwrap().len(), 1_000);
}

/// An edit that would move too much at once is refused by name, with all else of its push taken in; piece by piece
/// it can be done.
#[tokio::test]
async fn what_would_move_too_much_at_once_is_refused_alone() {
    let venue = Venue::of(On::Memory, PROFILE, "venue").await;
    let cloud = &venue.cloud;
    for c in ["a", "b"] {
        at(cloud, Create, &format!("competition/{c}"), json!({"name": c})).await;
    }
    at(cloud, Create, "race/r", json!({"competition": "a", "name": "one"})).await;
    at(cloud, Create, "race/s", json!({"competition": "a", "name": "one"})).await;
    let grant = ropeway_core::change::Grant {
        door: ropeway_core::change::Door::Push,
        device: venue.device.device.id.clone(),
        role: "admin".into(),
    };
    let change = |id: String, op, record, values, seen: Option<Value>| Change {
        id: ChangeId::trusted(id),
        collection: key(if op == Create { "incident" } else { "race" }, "x").collection,
        record,
        op,
        fields: fields(values),
        seen: seen.map(fields),
        base: None,
        lost: None,
        author: Author { device: grant.device.clone(), person: None },
        at: None,
    };
    let push = async |changes: Vec<Change>| cloud.ingest(&space(), grant.clone(), changes).await.unwrap();
    // With the race itself that is one too many.
    for part in 0..10 {
        let made = (0..limits::AUDIENCE_MOVES_MAX / 10).map(|n| {
            let id = format!("i{part}-{n}");
            change(format!("c-{id}"), Create, key("incident", &id).id, json!({"race": "r", "bib": n}), None)
        });
        push(made.collect()).await;
    }
    let edit = |id: &str, record: &str, seen, values| {
        change(id.into(), Patch, key("race", record).id, values, Some(seen))
    };
    let together = vec![
        edit("m-1", "r", json!({"competition": "a"}), json!({"competition": "b"})),
        edit("m-2", "r", json!({"name": "one"}), json!({"name": "two"})),
        edit("m-3", "s", json!({"name": "one"}), json!({"name": "two"})),
    ];
    let receipts = push(together).await;
    let verdicts: Vec<Verdict> = receipts.iter().map(|r| r.verdict).collect();
    assert_eq!(verdicts, [Verdict::Rejected, Verdict::Merged, Verdict::Merged]);
    let reason = receipts[0].reason.as_ref().unwrap();
    assert_eq!((reason.code, reason.field.as_deref()), (Code::TooLarge, Some("competition")));
    assert_eq!(data(cloud, "race", "r").await, json!({"competition": "a", "name": "two"}));
    // One fewer, and it goes.
    let elsewhere = Change {
        collection: key("incident", "x").collection,
        ..change(
            "m-4".into(),
            Patch,
            key("incident", "i0-0").id,
            json!({"race": "s"}),
            Some(json!({"race": "r"})),
        )
    };
    let alone = push(vec![elsewhere]).await;
    assert_eq!(alone[0].verdict, Verdict::Merged, "{alone:?}");
    let moved = push(vec![edit("m-5", "r", json!({"competition": "a"}), json!({"competition": "b"}))]).await;
    assert_eq!(moved[0].verdict, Verdict::Merged, "{:?}", moved[0].reason);
    let rows = cloud.store().audiences(&space(), &[key("incident", "i9-9")]).await.unwrap();
    let now: Vec<&str> = rows.iter().filter(|r| r.left.is_none()).map(|r| r.audience.as_str()).collect();
    assert_eq!(now, ["competition:b"]);
}
