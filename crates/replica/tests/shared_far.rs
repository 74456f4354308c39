//! What an app shares, where it is hard: restored, purged, in quarantine, through a node in the middle.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    Cable,
    gym::{PROFILE, Phone, change, data, desk, dump, edit, enrol, everywhere, space},
    key, node,
};
use ropeway_core::{
    change::{
        Batch,
        Op::{Create, Delete, Patch},
    },
    conflict::Resolution,
    id::{ChangeId, Epoch, SpaceId},
    receipt::Verdict,
    retention::Keep,
};
use ropeway_replica::{
    Clock, Enrolment, Node, NodeOptions, Purger, ReplicaError, SequentialIds, SyncOutcome,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[test]
fn what_is_shared_is_kept_until_the_devices_of_every_space_have_read_it() {
    const DAY: Duration = Duration::from_secs(86_400);
    let keep =
        Keep { tombstones: Duration::from_secs(1), receipts: Duration::from_secs(1), ..Keep::default() };
    everywhere(async |gym| {
        gym.library(Create, "muscle/gone", json!({ "name": "Gone" })).await;
        for phone in [&gym.ann, &gym.bob] {
            phone.synced(&gym.cloud.node).await;
            phone.sync().await;
        }
        gym.clock.advance(DAY);
        gym.library(Delete, "muscle/gone", json!({})).await;
        gym.clock.advance(DAY);
        gym.bob.synced(&gym.cloud.node).await;
        gym.bob.sync().await;
        let purged = async || {
            let purge = gym.cloud.node.purge(&gym.bob.space, &keep, false).await.unwrap();
            purge.rows.get("tombstones").copied().unwrap_or(0)
        };
        assert_eq!(purged().await, 0, "a phone of another space has not read it");
        let held = gym.cloud.node.purge(&gym.bob.space, &keep, true).await.unwrap().held;
        let held = held.iter().filter(|held| held.rows > 0);
        assert_eq!(held.map(|held| &*held.name).collect::<Vec<_>>(), ["ann"]);
        gym.clock.advance(DAY * 200);
        gym.bob.sync().await;
        assert_eq!(purged().await, 1, "beyond the horizon it holds nothing back");
        let asleep =
            gym.cloud.node.store().device(&gym.ann.space, &gym.ann.enrolled.device.id).await.unwrap();
        let refused = gym.cloud.node.may_push(&asleep.unwrap(), None).await;
        assert!(matches!(refused, Err(ReplicaError::ResyncRequired(_))), "{refused:?}");
        gym.ann.write(Create, "workout/w", json!({})).await;
        let back = gym.ann.synced(&gym.cloud.node).await;
        assert_eq!(back.outcome, Some(SyncOutcome::Done), "it pulled everything anew before it was decided");
        assert_eq!(gym.ann.data("workout/w").await, json!({}));
        let gone = gym.ann.node.get(&gym.ann.space, &key("muscle", "gone")).await.unwrap();
        assert!(
            gone.is_none_or(|record| !record.is_live()),
            "the deletion it missed came to it all the same"
        );
    });
}

#[test]
fn a_node_that_would_not_find_what_is_shared_does_not_start() {
    everywhere(async |gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        gym.ann.synced(&gym.cloud.node).await;
        let reopened = async |node: &Node, profile: &str, follows: bool| {
            let options = NodeOptions {
                store: node.store().clone(),
                profile: Arc::new(ropeway_core::profile::parse(profile, "gym.toml").unwrap()),
                clock: gym.clock.clone() as Arc<dyn Clock>,
                ids: Arc::new(SequentialIds::new("again")),
                follows,
            };
            Node::open(options).await.unwrap()
        };
        let private = PROFILE.replace("shared = true", "");
        // One that keeps the library follows nobody, nor forgets that it is shared.
        for (profile, follows) in [(PROFILE, true), (&private, false)] {
            let again = reopened(&gym.cloud.node, profile, follows).await;
            let refused = again.open_space(&gym.ann.space).await.map(drop);
            assert!(matches!(refused, Err(ReplicaError::Invalid(_))), "{refused:?}");
        }
        // A phone is a whole node by itself, with its upstream and without.
        for follows in [false, true] {
            let again = reopened(&gym.ann.node, PROFILE, follows).await;
            again.open_space(&gym.ann.space).await.unwrap();
            assert_eq!(data(&again, &gym.ann.space, "exercise/squat").await["name"], "Squat");
        }
        let nobody = Enrolment {
            id: None,
            name: "x".into(),
            space: SpaceId::shared(),
            role: "librarian".into(),
            mode: "cloud".into(),
            metadata: json!({}),
        };
        assert!(
            matches!(gym.cloud.node.enrol(nobody).await, Err(ReplicaError::Invalid(_))),
            "it is nobody's"
        );
        // What one space had before the profile shared it is not taken for everybody's.
        let before = node(gym.on, &gym.ground, &private, "before", false, &gym.clock).await;
        let exercise = edit(Create, "exercise/own", json!({ "name": "Own" }));
        before.write(&space("main"), &desk("admin"), exercise).await.unwrap();
        let again = reopened(&before, PROFILE, false).await;
        let refused = again.open_space(&space("main")).await.map(drop);
        assert!(matches!(refused, Err(ReplicaError::Invalid(_))), "{refused:?}");
    });
}

/// What nobody but a librarian may hand in waits for one; whoever works with it loses nothing meanwhile.
#[test]
fn what_a_restored_top_lost_of_it_comes_back_from_who_may_write_it() {
    everywhere(async |mut gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat", "difficulty": 5 })).await;
        gym.ann.synced(&gym.cloud.node).await;
        gym.bob.synced(&gym.cloud.node).await;
        let image = gym.cloud.image().await;
        gym.library(Create, "exercise/row", json!({ "name": "Row" })).await;
        gym.bob.write(Create, "exercise/dip", json!({ "name": "Dip" })).await;
        gym.bob.write(Patch, "exercise/squat", json!({ "difficulty": 6 })).await;
        gym.bob.synced(&gym.cloud.node).await;
        gym.ann.synced(&gym.cloud.node).await;
        gym.ann.write(Create, "workout/w", json!({})).await;
        for exercise in ["squat", "row", "dip"] {
            let effort = json!({ "workout": "w", "exercise": exercise, "reps": 3 });
            gym.ann.write(Create, &format!("effort/{exercise}"), effort).await;
        }
        gym.ann.synced(&gym.cloud.node).await;
        let whole = dump(&gym.cloud.node, &gym.ann.space).await;
        gym.clock.advance(Duration::from_secs(10));
        gym.cloud.restore(&image, "again").await;
        for phone in [&mut gym.ann, &mut gym.bob] {
            phone.cable = Arc::new(gym.cloud.cable(&phone.enrolled.token));
        }
        let held = gym.ann.sync().await;
        assert_eq!(held.outcome, Some(SyncOutcome::Partly), "{held:?}");
        assert_eq!(gym.ann.data("effort/squat").await["reps"], 3);
        gym.ann.write(Create, "effort/new", json!({ "workout": "w", "exercise": "squat", "reps": 9 })).await;
        gym.ann.sync().await;
        assert_eq!(
            data(&gym.cloud.node, &gym.ann.space, "effort/new").await["reps"],
            9,
            "nothing waits for it"
        );
        let whole =
            [whole, canonical("effort", "new", &json!({ "exercise": "squat", "reps": 9, "workout": "w" }))];
        assert_eq!(gym.ann.data("exercise/row").await["name"], "Row", "nothing goes before the answer");
        assert_eq!(data(&gym.cloud.node, &gym.bob.space, "exercise/row").await, Value::Null);
        assert_eq!(gym.cloud.node.conflicts(&gym.bob.space, true).await.unwrap().len(), 0, "not by her word");
        gym.bob.synced(&gym.cloud.node).await;
        assert_eq!(data(&gym.cloud.node, &gym.ann.space, "exercise/dip").await["name"], "Dip");
        assert_eq!(data(&gym.cloud.node, &gym.ann.space, "exercise/squat").await["difficulty"], 6);
        let epoch = Epoch::trusted("epoch-cloud");
        let librarian = desk("librarian");
        let (main, node) = (space("main"), &gym.cloud.node);
        let answer = node.resolve_lost(&main, &librarian, &epoch, Resolution::Incoming, None);
        assert_eq!(answer.await.unwrap().answered, 1, "what the cloud's own people wrote is one list");
        gym.bob.synced(&gym.cloud.node).await;
        gym.ann.synced(&gym.cloud.node).await;
        let queue = gym.ann.node.queue(&gym.ann.space).await.unwrap();
        assert!(queue.is_empty(), "{queue:?}");
        let mut whole: Vec<&str> = whole.iter().flat_map(|text| text.lines()).collect();
        whole.sort_unstable();
        let now = dump(&gym.cloud.node, &gym.ann.space).await;
        let mut now: Vec<&str> = now.lines().collect();
        now.sort_unstable();
        assert_eq!(now, whole);
    });
}

fn canonical(collection: &str, id: &str, data: &Value) -> String {
    format!(r#"{{"collection":"{collection}","id":"{id}","data":{data}}}"#)
}

/// A librarian says that what was lost shall stay gone: what is made of it is put to a person in the end.
#[test]
fn what_is_made_of_something_lost_for_good_does_not_wait_for_ever() {
    everywhere(async |mut gym| {
        gym.bob.synced(&gym.cloud.node).await;
        let image = gym.cloud.image().await;
        gym.library(Create, "exercise/row", json!({ "name": "Row" })).await;
        gym.bob.synced(&gym.cloud.node).await;
        gym.clock.advance(Duration::from_secs(10));
        gym.cloud.restore(&image, "again").await;
        gym.bob.cable = Arc::new(gym.cloud.cable(&gym.bob.enrolled.token));
        gym.bob.sync().await;
        let (main, epoch) = (space("main"), Epoch::trusted("epoch-cloud"));
        let librarian = desk("librarian");
        let told = gym.cloud.node.resolve_lost(&main, &librarian, &epoch, Resolution::Server, None);
        assert_eq!(told.await.unwrap().answered, 1);
        let device = &gym.ann.enrolled.device;
        let grant = gym.cloud.node.grant_of(device);
        let batch = |last: &[&str]| Batch {
            last: last.iter().map(|id| ChangeId::trusted(*id)).collect(),
            ..Batch::new(
                grant.clone(),
                vec![
                    change(device, "w", edit(Create, "workout/w", json!({}))),
                    change(
                        device,
                        "e",
                        edit(Create, "effort/e", json!({ "workout": "w", "exercise": "row" })),
                    ),
                ],
            )
        };
        let verdict = async |last: &[&str]| {
            let taken = gym.cloud.node.take(&gym.ann.space, batch(last)).await.unwrap();
            taken.receipts[1].verdict
        };
        assert_eq!(verdict(&[]).await, Verdict::Waiting);
        assert_eq!(verdict(&["e"]).await, Verdict::Parked);
    });
}

/// What a revoked device had made goes where it belongs once an administrator takes it.
#[test]
fn what_waits_in_quarantine_is_taken_into_both() {
    everywhere(async |gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        gym.bob.synced(&gym.cloud.node).await;
        gym.bob.write(Patch, "exercise/squat", json!({ "difficulty": 3 })).await;
        gym.bob.write(Create, "workout/w", json!({})).await;
        gym.bob.write(Create, "effort/s", json!({ "workout": "w", "exercise": "squat" })).await;
        gym.bob.write(Create, "exercise/row", json!({ "name": "Row" })).await;
        gym.bob.write(Create, "effort/e", json!({ "workout": "w", "exercise": "row" })).await;
        let id = &gym.bob.enrolled.device.id;
        gym.cloud.node.revoke(&gym.bob.space, id).await.unwrap();
        gym.bob.sync().await;
        assert_eq!(data(&gym.cloud.node, &gym.ann.space, "exercise/row").await, Value::Null);
        let waiting = gym.cloud.node.quarantined(&gym.bob.space).await.unwrap();
        assert_eq!(waiting.len(), 5);
        let taken = async |dry| {
            let taken = gym.cloud.node.accept_quarantined(&gym.bob.space, id, &[], None, dry).await.unwrap();
            taken.iter().map(|receipt| receipt.verdict).collect::<Vec<_>>()
        };
        let foreseen = taken(true).await;
        assert_eq!(foreseen[..2], [Verdict::Applied, Verdict::Created]);
        assert_eq!(foreseen[4], Verdict::Waiting, "what it rests on was not written");
        assert_eq!(taken(false).await[..4], foreseen[..4]);
        assert_eq!(data(&gym.cloud.node, &gym.ann.space, "exercise/row").await["name"], "Row");
        assert_eq!(data(&gym.cloud.node, &gym.bob.space, "effort/e").await["exercise"], "row");
        gym.ann.synced(&gym.cloud.node).await;
    });
}

/// A watch follows a phone, which follows the cloud: what is shared goes both ways through the middle.
#[test]
fn a_node_in_the_middle_hands_it_on_both_ways() {
    everywhere(async |gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat", "difficulty": 5 })).await;
        gym.bob.synced(&gym.cloud.node).await;
        let enrolled = enrol(&gym.bob.node, "bob", "watch", "librarian").await;
        let watch = node(gym.on, &gym.ground, PROFILE, "watch", true, &gym.clock).await;
        watch.open_space(&gym.bob.space).await.unwrap();
        let cable = Arc::new(Cable::new(gym.bob.node.clone(), enrolled.token.clone()));
        let watch = Phone { space: gym.bob.space.clone(), role: "librarian", node: watch, cable, enrolled };
        watch.synced(&gym.bob.node).await;
        watch.write(Create, "exercise/row", json!({ "name": "Row" })).await;
        watch.write(Create, "workout/w", json!({})).await;
        watch.write(Create, "effort/e", json!({ "workout": "w", "exercise": "row" })).await;
        watch.write(Patch, "exercise/squat", json!({ "difficulty": 7 })).await;
        gym.library(Patch, "exercise/squat", json!({ "difficulty": 6 })).await;
        watch.synced(&gym.bob.node).await;
        gym.bob.synced(&gym.cloud.node).await;
        watch.synced(&gym.bob.node).await;
        gym.ann.synced(&gym.cloud.node).await;
        assert_eq!(gym.ann.data("exercise/row").await["name"], "Row");
        assert_eq!(dump(&watch.node, &watch.space).await, dump(&gym.cloud.node, &gym.bob.space).await);
        assert_eq!(watch.data("exercise/squat").await["difficulty"], 6, "the other value waits beside it");
        assert_eq!(watch.node.conflicts_open(&watch.space).await.unwrap(), 1);
        assert_eq!(gym.ann.node.conflicts_open(&gym.ann.space).await.unwrap(), 1);
    });
}

/// A serving node forgets in every space that somebody is registered in, and in what they share.
#[test]
fn every_space_of_a_node_is_purged() {
    everywhere(async |gym| {
        let keep = Keep { tombstones: Duration::from_secs(1), ..Keep::default() };
        let workout = edit(Create, "workout/w", json!({}));
        gym.cloud.node.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
        let gone = edit(Delete, "workout/w", json!({}));
        gym.cloud.node.write(&gym.ann.space, &desk("athlete"), gone).await.unwrap();
        gym.library(Create, "muscle/m", json!({ "name": "M" })).await;
        gym.library(Delete, "muscle/m", json!({})).await;
        gym.clock.advance(Duration::from_secs(60));
        let _purging = Purger::spawn(gym.cloud.node.clone(), space("main"), keep, Duration::from_millis(1));
        let all_gone = async {
            for name in [key("workout", "w"), key("muscle", "m")] {
                while gym.cloud.node.get(&gym.ann.space, &name).await.unwrap().is_some() {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_gone).await.unwrap();
    });
}
