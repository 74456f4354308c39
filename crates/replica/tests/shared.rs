//! What an app shares among all its spaces: a library of exercises that every athlete reads and few may write.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    CutAfter, START,
    gym::{Gym, PROFILE, Phone, change, data, desk, dump, edit, enrol, everywhere, why},
    key, node,
    place::on_each,
};
use ropeway_core::{
    change::Op::{Create, Delete, Patch},
    conflict::Resolution,
    receipt::{Code, Receipt, Verdict},
    time::Time,
};
use ropeway_replica::{FeedRequest, ReplicaError, Resolve, SyncOptions, SyncOutcome};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[test]
fn what_is_shared_is_there_once_and_in_every_space() {
    everywhere(async |gym| {
        gym.library(Create, "muscle/quads", json!({ "name": "Quadriceps" })).await;
        let squat = json!({ "name": "Squat", "muscle": "quads", "difficulty": 8 });
        assert_eq!(gym.library(Create, "exercise/squat", squat.clone()).await.verdict, Verdict::Created);
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.synced(&gym.cloud.node).await.pulled, 2);
            assert_eq!(phone.data("exercise/squat").await, squat);
            assert_eq!(data(&gym.cloud.node, &phone.space, "exercise/squat").await, squat);
            let quiet = phone.synced(&gym.cloud.node).await;
            assert_eq!(
                (quiet.pulled, quiet.outcome),
                (0, Some(SyncOutcome::Done)),
                "nothing to do moves nothing"
            );
        }
        // Each has its own, and what refers to what is shared is decided by what is there.
        gym.ann.write(Create, "workout/w", json!({ "day": "2026-02-14" })).await;
        gym.ann.write(Create, "effort/s", json!({ "workout": "w", "exercise": "squat", "reps": 5 })).await;
        let report = gym.ann.synced(&gym.cloud.node).await;
        assert_eq!((report.pushed, report.outcome), (2, Some(SyncOutcome::Done)));
        gym.bob.synced(&gym.cloud.node).await;
        assert_eq!(gym.bob.data("effort/s").await, Value::Null, "a set is nobody else's");
        assert_eq!(data(&gym.cloud.node, &gym.bob.space, "effort/s").await, Value::Null);
        gym.library(Patch, "exercise/squat", json!({ "out_of_use": true })).await;
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.synced(&gym.cloud.node).await.pulled, 1);
            assert_eq!(phone.data("exercise/squat").await["out_of_use"], true);
            let history = gym.cloud.node.history(&phone.space, &key("exercise", "squat")).await.unwrap();
            assert_eq!(history.len(), 1, "one history for all");
        }
        let names: Vec<String> = gym
            .cloud
            .node
            .collections(&gym.ann.space)
            .await
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["effort", "exercise", "muscle", "workout"]);
    });
}

#[test]
fn one_push_may_carry_both_and_waits_for_a_parent_that_is_not_shared_yet() {
    everywhere(async |gym| {
        gym.bob.write(Create, "exercise/row", json!({ "name": "Row" })).await;
        gym.bob.write(Create, "workout/w", json!({})).await;
        gym.bob.write(Create, "effort/s", json!({ "workout": "w", "exercise": "row", "reps": 8 })).await;
        let report = gym.bob.synced(&gym.cloud.node).await;
        assert_eq!((report.verdicts.get(&Verdict::Created), report.held), (Some(&3), 0));
        gym.ann.synced(&gym.cloud.node).await;
        assert_eq!(gym.ann.data("exercise/row").await["name"], "Row");
        // Decided in one go, the parent that is shared before what refers to it.
        let bob = &gym.bob.enrolled.device;
        let both = vec![
            change(bob, "b1", edit(Create, "workout/v", json!({}))),
            change(bob, "b2", edit(Create, "exercise/plank", json!({ "name": "Plank" }))),
            change(bob, "b3", edit(Create, "effort/p", json!({ "workout": "v", "exercise": "plank" }))),
        ];
        let receipts =
            gym.cloud.node.ingest(&gym.bob.space, gym.cloud.node.grant_of(bob), both).await.unwrap();
        let told: Vec<_> = receipts.iter().map(|r| (&*r.change, r.verdict)).collect();
        assert_eq!(told, ["b1", "b2", "b3"].map(|id| (id, Verdict::Created)));
        // An older push, made on what a phone had before the cloud lost it, waits and then goes through.
        let device = gym.ann.enrolled.device.clone();
        let push = async |exercise: &str| {
            let set = edit(Create, "effort/late", json!({ "workout": "a", "exercise": exercise, "reps": 1 }));
            let workout = edit(Create, "workout/a", json!({}));
            let changes = vec![
                change(&device, "c1", set.clone()),
                change(&device, "c2", workout),
                change(&device, "c3", set),
            ];
            gym.cloud.node.ingest(&gym.ann.space, gym.cloud.node.grant_of(&device), changes).await.unwrap()
        };
        let verdicts = |receipts: &[Receipt]| receipts.iter().map(|r| r.verdict).collect::<Vec<_>>();
        let waits = push("dip").await;
        assert_eq!(verdicts(&waits), [Verdict::Waiting, Verdict::Created, Verdict::Waiting]);
        assert_eq!(why(&waits[2]), Some(Code::ParentMissing));
        gym.library(Create, "exercise/dip", json!({ "name": "Dip" })).await;
        let again = push("dip").await;
        assert_eq!(verdicts(&again)[..2], [Verdict::Created, Verdict::Created], "asked again, the same");
        gym.ann.synced(&gym.cloud.node).await;
        assert_eq!(gym.ann.data("effort/late").await["exercise"], "dip");
    });
}

#[test]
fn only_a_role_that_names_it_writes_what_is_shared() {
    everywhere(async |gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        gym.ann.synced(&gym.cloud.node).await;
        // At the athlete's own desk, and at the cloud by a phone that does not keep to it.
        let refused = gym.ann.write(Patch, "exercise/squat", json!({ "name": "Mine" })).await;
        assert_eq!(why(&refused), Some(Code::Forbidden));
        assert!(refused.reason.unwrap().text.contains("has to name it"));
        let edit = edit(Create, "exercise/mine", json!({ "name": "Mine" }));
        for role in ["athlete", "admin"] {
            let refused = gym.cloud.node.write(&gym.ann.space, &desk(role), edit.clone()).await.unwrap();
            assert_eq!(why(&refused), Some(Code::Forbidden), "{role}");
        }
        gym.ann.node.write(&gym.ann.space, &desk("librarian"), edit.clone()).await.unwrap();
        let report = gym.ann.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Partly), "its device may not, whoever sits at it");
        assert_eq!(data(&gym.cloud.node, &gym.bob.space, "exercise/mine").await, Value::Null);
        // Spaces refer to it, so nobody knows whether it is still needed.
        let refused = gym.library(Delete, "exercise/squat", json!({})).await;
        assert_eq!(why(&refused), Some(Code::StillReferenced));
        assert!(refused.reason.unwrap().text.contains("out of use"));
        gym.library(Create, "muscle/quads", json!({ "name": "Quadriceps" })).await;
        assert_eq!(gym.library(Delete, "muscle/quads", json!({})).await.verdict, Verdict::Applied);
    });
}

#[test]
fn a_conflict_about_what_is_shared_is_shared_and_settled_by_whoever_may_write_it() {
    everywhere(async |gym| {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat", "difficulty": 5 })).await;
        gym.ann.synced(&gym.cloud.node).await;
        gym.bob.synced(&gym.cloud.node).await;
        gym.library(Patch, "exercise/squat", json!({ "difficulty": 6 })).await;
        gym.bob.write(Patch, "exercise/squat", json!({ "difficulty": 9 })).await;
        gym.bob.sync().await;
        gym.bob.synced(&gym.cloud.node).await;
        gym.ann.synced(&gym.cloud.node).await;
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.data("exercise/squat").await["difficulty"], 6);
            assert_eq!(phone.node.conflicts(&phone.space, true).await.unwrap().len(), 1);
            assert_eq!(gym.cloud.node.conflicts_open(&phone.space).await.unwrap(), 1);
            assert_eq!(gym.cloud.node.conflicts_of_the_last_hour(&phone.space).await.unwrap(), 1);
        }
        let open = gym.cloud.node.conflicts(&gym.ann.space, true).await.unwrap().remove(0);
        assert_eq!(
            gym.cloud.node.conflict(&gym.ann.space, &open.id).await.unwrap().now.unwrap().get("difficulty"),
            Some(&json!(6))
        );
        let answer = |resolution| Resolve {
            conflict: open.id.clone(),
            version: Some(open.version),
            resolution,
            data: None,
            notes: None,
            change: None,
        };
        let of_a_space =
            gym.cloud.node.resolve(&gym.ann.space, &desk("admin"), answer(Resolution::Server)).await;
        assert!(matches!(of_a_space, Err(ReplicaError::Forbidden(_))), "{of_a_space:?}");
        let (receipt, _) = gym
            .cloud
            .node
            .resolve(&gym.ann.space, &desk("librarian"), answer(Resolution::Incoming))
            .await
            .unwrap();
        assert_eq!(receipt.verdict, Verdict::Applied);
        for phone in [&gym.ann, &gym.bob] {
            phone.synced(&gym.cloud.node).await;
            assert_eq!(phone.data("exercise/squat").await["difficulty"], 9);
            assert_eq!(phone.node.conflicts_open(&phone.space).await.unwrap(), 0);
        }
    });
}

#[test]
fn one_cursor_of_two_sources_goes_on_wherever_a_pull_is_cut() {
    everywhere(async |gym| {
        let mut heads = gym.cloud.node.watch(&gym.ann.space);
        for n in 0..5 {
            gym.library(Create, &format!("exercise/e{n}"), json!({ "name": format!("E{n}") })).await;
        }
        assert!(heads.has_changed().unwrap(), "what is shared is news to every space");
        let head = *heads.borrow_and_update();
        assert_eq!(gym.cloud.node.state(&gym.ann.space).await.unwrap().head, head);
        for n in 0..5 {
            let workout = edit(Create, &format!("workout/w{n}"), json!({}));
            gym.cloud.node.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
        }
        let device = &gym.ann.enrolled.device;
        for limit in [1, 2, 3, 7, 10, 100] {
            let (mut cursor, mut names, mut late) = (None, Vec::new(), 0);
            loop {
                let request = FeedRequest { cursor, limit: Some(limit), collections: vec![] };
                let page = gym.cloud.node.feed_to(device, &[], &request).await.unwrap();
                assert!(page.rows.len() <= limit);
                names.extend(page.rows.iter().map(|row| row.key.to_string()));
                cursor = Some(page.cursor);
                if page.complete {
                    break;
                }
                // Somebody writes between any two pages, here and there in turn.
                if late < 4 {
                    late += 1;
                    let what = format!("{limit}-{late}");
                    if late % 2 == 0 {
                        gym.library(Create, &format!("exercise/{what}"), json!({ "name": what })).await;
                    } else {
                        let workout = edit(Create, &format!("workout/{what}"), json!({}));
                        gym.cloud.node.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
                    }
                }
            }
            let all = dump(&gym.cloud.node, &gym.ann.space).await.lines().count();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "in pages of {limit}");
            let request = FeedRequest { cursor, limit: Some(limit), collections: vec![] };
            let quiet = gym.cloud.node.feed_to(device, &[], &request).await.unwrap();
            assert!(quiet.rows.is_empty() && quiet.complete);
            assert_eq!(quiet.digest, gym.cloud.node.state(&gym.ann.space).await.unwrap().digest);
        }
        // A pull that is cut after each of its pages is one pull in the end.
        *gym.ann.cable.page.lock().unwrap() = 2;
        for _ in 0..100 {
            let cut = CutAfter { cable: gym.ann.cable.clone(), pages: 2.into(), arrives: true };
            let report =
                gym.ann.node.sync(&gym.ann.space, &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
            if report.outcome == Some(SyncOutcome::Done) {
                break;
            }
        }
        gym.ann.synced(&gym.cloud.node).await;
    });
}

/// The clock ran ahead when the library was last written: what a space writes after that is news all the same.
#[test]
fn the_live_stream_tells_of_both_whichever_head_is_ahead() {
    everywhere(async |gym| {
        let mut heads = gym.cloud.node.watch(&gym.ann.space);
        gym.clock.advance(Duration::from_secs(86_400));
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        assert!(heads.has_changed().unwrap());
        let before = *heads.borrow_and_update();
        gym.clock.jump_to(Time::parse(START).unwrap());
        let workout = edit(Create, "workout/w", json!({}));
        gym.cloud.node.write(&gym.ann.space, &desk("athlete"), workout.clone()).await.unwrap();
        assert!(heads.has_changed().unwrap() && *heads.borrow_and_update() > before);
        gym.cloud.node.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
        assert!(!heads.has_changed().unwrap(), "where nothing moved nothing is told");
        gym.ann.synced(&gym.cloud.node).await;
    });
}

/// One who sees a part of a space sees all that is shared, and settles what is asked about it.
#[test]
fn who_sees_a_part_of_a_space_sees_all_that_is_shared() {
    let profile = PROFILE
        .replace("[collections.workout]", "[roles.trainee]\nwrite = [\"exercise\"]\nresolve = true\nsees = \"subscribed\"\nchoose = [\"workout\"]\n[collections.workout]\naudience = { key = \"workout:{id}\" }")
        .replace("[collections.effort]", "[collections.effort]\naudience = { from = [\"workout\"] }");
    on_each(async |on| {
        let gym = Gym::of(on, &profile).await;
        let enrolled = enrol(&gym.cloud.node, "ann", "trainee", "trainee").await;
        let device = enrolled.device.clone();
        gym.cloud.node.subscribe(&device, "workout:a", true).await.unwrap();
        gym.library(Create, "exercise/squat", json!({ "name": "Squat", "difficulty": 5 })).await;
        for workout in ["a", "b"] {
            let effort = json!({ "workout": workout, "exercise": "squat" });
            for edit in [
                edit(Create, &format!("workout/{workout}"), json!({})),
                edit(Create, &format!("effort/{workout}"), effort),
            ] {
                gym.cloud.node.write(&gym.ann.space, &desk("athlete"), edit).await.unwrap();
            }
        }
        let node = node(on, &gym.ground, &profile, "trainee", true, &gym.clock).await;
        node.open_space(&gym.ann.space).await.unwrap();
        let cable = Arc::new(gym.cloud.cable(&enrolled.token));
        let trainee = Phone { space: gym.ann.space.clone(), role: "trainee", node, cable, enrolled };
        let report = trainee.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Done), "{report:?}");
        let (theirs, ours) = report.digests.unwrap();
        assert_eq!((theirs, ours.count), (ours, 3));
        assert_eq!(trainee.data("effort/a").await["exercise"], "squat");
        assert_eq!(trainee.data("effort/b").await, Value::Null);
        gym.library(Patch, "exercise/squat", json!({ "difficulty": 6 })).await;
        trainee.write(Patch, "exercise/squat", json!({ "difficulty": 9 })).await;
        trainee.sync().await;
        let report = trainee.sync().await;
        let (theirs, ours) = report.digests.unwrap();
        assert_eq!(theirs, ours);
        let open = gym.cloud.node.conflicts_for(&device, true).await.unwrap();
        assert_eq!((open.len(), trainee.node.conflicts_open(&trainee.space).await.unwrap()), (1, 1));
        let answer = Resolve {
            conflict: open[0].id.clone(),
            version: Some(open[0].version),
            resolution: Resolution::Incoming,
            data: None,
            notes: None,
            change: None,
        };
        gym.cloud.node.resolve_for(&device, None, answer).await.unwrap();
        trainee.sync().await;
        assert_eq!(trainee.data("exercise/squat").await["difficulty"], 9);
    });
}
