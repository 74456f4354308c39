//! What an app shares among all its spaces: a library of exercises that every athlete reads and few may write.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{Cable, Ground, On, START, fields, key, node, server};
use ropeway_core::{
    change::{
        Author, Change,
        Op::{self, Create, Delete, Patch},
    },
    conflict::Resolution,
    id::{ChangeId, Collection, RecordId, SpaceId},
    receipt::{Code, Receipt, Verdict},
    retention::Keep,
    time::Time,
};
use ropeway_replica::{
    Clock, Desk, Edit, Enrolled, Enrolment, FeedRequest, ManualClock, Node, NodeOptions, ReplicaError,
    Resolve, SequentialIds, SyncOptions, SyncOutcome, SyncReport,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const PROFILE: &str = r#"
name = "gym"
resolver = "upstream"
[roles.athlete]
write = "*"
[roles.admin]
write = "*"
resolve = true
[roles.librarian]
write = ["muscle", "exercise", "workout", "effort"]
resolve = true
[collections.muscle]
shared = true
delete = "latest"
fields = { name = "text!" }
[collections.exercise]
shared = true
references = { muscle = "muscle?" }
fields = { name = "text!", difficulty = "int", out_of_use = "bool" }
[collections.workout]
fields = { day = "date" }
[collections.effort]
references = { workout = { to = "workout", on_delete = "cascade" }, exercise = "exercise" }
fields = { reps = "int" }
"#;

fn space(name: &str) -> SpaceId {
    SpaceId::trusted(name)
}

fn desk(role: &str) -> Desk {
    Desk { person: Some(role.into()), role: role.into() }
}

fn edit(op: Op, name: &str, values: Value) -> Edit {
    let (collection, id) = name.split_once('/').unwrap();
    let (collection, record) = (Collection::trusted(collection), Some(RecordId::trusted(id)));
    Edit { change: None, collection, record, op, fields: fields(values), version: None }
}

/// A phone of one athlete.
struct Phone {
    space: SpaceId,
    role: &'static str,
    node: Node,
    cable: Arc<Cable>,
    enrolled: Enrolled,
}

impl Phone {
    async fn write(&self, op: Op, name: &str, values: Value) -> Receipt {
        self.node.write(&self.space, &desk(self.role), edit(op, name, values)).await.unwrap()
    }

    async fn sync(&self) -> SyncReport {
        self.node.sync(&self.space, &*self.cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    /// Syncs and has what the cloud has for its space, to the byte.
    async fn synced(&self, cloud: &Node) -> SyncReport {
        let report = self.sync().await;
        assert_eq!(report.error, None);
        assert_eq!(dump(&self.node, &self.space).await, dump(cloud, &self.space).await);
        let (ours, theirs) = (self.node.state(&self.space).await, cloud.state(&self.space).await);
        assert_eq!(ours.unwrap().digest, theirs.unwrap().digest);
        let (theirs, ours) = report.digests.unwrap();
        assert_eq!(theirs, ours);
        report
    }

    async fn data(&self, name: &str) -> Value {
        data(&self.node, &self.space, name).await
    }
}

/// A cloud with the spaces of two athletes, and their phones. One of the phones is a librarian's.
struct Gym {
    cloud: Node,
    ann: Phone,
    bob: Phone,
    clock: Arc<ManualClock>,
    ground: Arc<Ground>,
    on: On,
}

impl Gym {
    async fn open(on: On) -> Self {
        let ground = Arc::new(Ground::new());
        let clock = Arc::new(ManualClock::at(Time::parse(START).unwrap()));
        let cloud = node(on, &ground, PROFILE, "cloud", false, &clock).await;
        let phone = async |name: &str, role: &'static str| {
            cloud.open_space(&space(name)).await.unwrap();
            let enrolled = enrol(&cloud, name, name, role).await;
            let node = node(on, &ground, PROFILE, name, true, &clock).await;
            node.open_space(&space(name)).await.unwrap();
            let cable = Arc::new(Cable::new(cloud.clone(), enrolled.token.clone()));
            Phone { space: space(name), role, node, cable, enrolled }
        };
        let (ann, bob) = (phone("ann", "athlete").await, phone("bob", "librarian").await);
        Self { cloud, ann, bob, clock, ground, on }
    }

    /// The librarian writes at the cloud's own desk, in a space of no matter whom.
    async fn library(&self, op: Op, name: &str, values: Value) -> Receipt {
        self.clock.advance(Duration::from_secs(1));
        let edit = edit(op, name, values);
        self.cloud.write(&space("main"), &desk("librarian"), edit).await.unwrap()
    }
}

async fn enrol(cloud: &Node, into: &str, name: &str, role: &str) -> Enrolled {
    let enrolment = Enrolment {
        id: None,
        name: name.into(),
        space: space(into),
        role: role.into(),
        mode: "offline_device".into(),
        metadata: json!({}),
    };
    cloud.enrol(enrolment).await.unwrap()
}

async fn data(node: &Node, space: &SpaceId, name: &str) -> Value {
    let (collection, id) = name.split_once('/').unwrap();
    let record = node.get(space, &key(collection, id)).await.unwrap();
    record.map_or(Value::Null, |record| serde_json::from_str(record.data.text()).unwrap())
}

async fn dump(node: &Node, space: &SpaceId) -> String {
    let mut lines = Vec::new();
    let line = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    node.dump_canonical(space, line).await.unwrap();
    lines.join("\n")
}

fn why(receipt: &Receipt) -> Option<Code> {
    receipt.reason.as_ref().map(|reason| reason.code)
}

/// Runs a case on every store.
fn everywhere<Fut: Future<Output = ()>>(case: impl Fn(Gym) -> Fut) {
    let postgres = server::found().map(|_| On::Postgres);
    for on in [On::Memory, On::Sqlite].into_iter().chain(postgres) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        eprintln!("on {on:?}");
        runtime.block_on(async {
            let gym = Gym::open(on).await;
            let _kept = gym.ground.clone();
            case(gym).await;
        });
    }
}

#[test]
fn what_is_shared_is_there_once_and_in_every_space() {
    everywhere(|gym| async move {
        gym.library(Create, "muscle/quads", json!({ "name": "Quadriceps" })).await;
        let squat = json!({ "name": "Squat", "muscle": "quads", "difficulty": 8 });
        assert_eq!(gym.library(Create, "exercise/squat", squat.clone()).await.verdict, Verdict::Created);
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.synced(&gym.cloud).await.pulled, 2);
            assert_eq!(phone.data("exercise/squat").await, squat);
            assert_eq!(data(&gym.cloud, &phone.space, "exercise/squat").await, squat);
            let quiet = phone.synced(&gym.cloud).await;
            assert_eq!(
                (quiet.pulled, quiet.outcome),
                (0, Some(SyncOutcome::Done)),
                "nothing to do moves nothing"
            );
        }
        // Each has its own, and what refers to what is shared is decided by what is there.
        gym.ann.write(Create, "workout/w", json!({ "day": "2026-02-14" })).await;
        gym.ann.write(Create, "effort/s", json!({ "workout": "w", "exercise": "squat", "reps": 5 })).await;
        let report = gym.ann.synced(&gym.cloud).await;
        assert_eq!((report.pushed, report.outcome), (2, Some(SyncOutcome::Done)));
        gym.bob.synced(&gym.cloud).await;
        assert_eq!(gym.bob.data("effort/s").await, Value::Null, "a set is nobody else's");
        assert_eq!(data(&gym.cloud, &gym.bob.space, "effort/s").await, Value::Null);
        gym.library(Patch, "exercise/squat", json!({ "out_of_use": true })).await;
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.synced(&gym.cloud).await.pulled, 1);
            assert_eq!(phone.data("exercise/squat").await["out_of_use"], true);
            let history = gym.cloud.history(&phone.space, &key("exercise", "squat")).await.unwrap();
            assert_eq!(history.len(), 1, "one history for all");
        }
        let names: Vec<String> =
            gym.cloud.collections(&gym.ann.space).await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["effort", "exercise", "muscle", "workout"]);
    });
}

#[test]
fn one_push_may_carry_both_and_waits_for_a_parent_that_is_not_shared_yet() {
    everywhere(|gym| async move {
        gym.bob.write(Create, "exercise/row", json!({ "name": "Row" })).await;
        gym.bob.write(Create, "workout/w", json!({})).await;
        gym.bob.write(Create, "effort/s", json!({ "workout": "w", "exercise": "row", "reps": 8 })).await;
        let report = gym.bob.synced(&gym.cloud).await;
        assert_eq!((report.verdicts.get(&Verdict::Created), report.held), (Some(&3), 0));
        gym.ann.synced(&gym.cloud).await;
        assert_eq!(gym.ann.data("exercise/row").await["name"], "Row");
        // An older push, made on what a phone had before the cloud lost it, waits and then goes through.
        let device = gym.ann.enrolled.device.clone();
        let push = async |exercise: &str| {
            let set = edit(Create, "effort/late", json!({ "workout": "a", "exercise": exercise, "reps": 1 }));
            let change = |edit: Edit, id: &str| Change {
                id: ChangeId::trusted(id.to_owned()),
                collection: edit.collection,
                record: edit.record.unwrap(),
                op: edit.op,
                fields: edit.fields,
                seen: None,
                base: None,
                lost: None,
                author: Author { device: device.id.clone(), person: None },
                at: None,
            };
            let workout = edit(Create, "workout/a", json!({}));
            let changes = vec![change(set.clone(), "c1"), change(workout, "c2"), change(set, "c3")];
            gym.cloud.ingest(&gym.ann.space, gym.cloud.grant_of(&device), changes).await.unwrap()
        };
        let verdicts = |receipts: &[Receipt]| receipts.iter().map(|r| r.verdict).collect::<Vec<_>>();
        let waits = push("dip").await;
        assert_eq!(verdicts(&waits), [Verdict::Waiting, Verdict::Created, Verdict::Waiting]);
        assert_eq!(why(&waits[2]), Some(Code::ParentMissing));
        gym.library(Create, "exercise/dip", json!({ "name": "Dip" })).await;
        let again = push("dip").await;
        assert_eq!(verdicts(&again)[..2], [Verdict::Created, Verdict::Created], "asked again, the same");
        gym.ann.synced(&gym.cloud).await;
        assert_eq!(gym.ann.data("effort/late").await["exercise"], "dip");
    });
}

#[test]
fn only_a_role_that_names_it_writes_what_is_shared() {
    everywhere(|gym| async move {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        gym.ann.synced(&gym.cloud).await;
        // At the athlete's own desk, and at the cloud by a phone that does not keep to it.
        let refused = gym.ann.write(Patch, "exercise/squat", json!({ "name": "Mine" })).await;
        assert_eq!(why(&refused), Some(Code::Forbidden));
        assert!(refused.reason.unwrap().text.contains("has to name it"));
        let edit = edit(Create, "exercise/mine", json!({ "name": "Mine" }));
        for role in ["athlete", "admin"] {
            let refused = gym.cloud.write(&gym.ann.space, &desk(role), edit.clone()).await.unwrap();
            assert_eq!(why(&refused), Some(Code::Forbidden), "{role}");
        }
        gym.ann.node.write(&gym.ann.space, &desk("librarian"), edit.clone()).await.unwrap();
        let report = gym.ann.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Partly), "its device may not, whoever sits at it");
        assert_eq!(data(&gym.cloud, &gym.bob.space, "exercise/mine").await, Value::Null);
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
    everywhere(|gym| async move {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat", "difficulty": 5 })).await;
        gym.ann.synced(&gym.cloud).await;
        gym.bob.synced(&gym.cloud).await;
        gym.library(Patch, "exercise/squat", json!({ "difficulty": 6 })).await;
        gym.bob.write(Patch, "exercise/squat", json!({ "difficulty": 9 })).await;
        gym.bob.sync().await;
        gym.bob.synced(&gym.cloud).await;
        gym.ann.synced(&gym.cloud).await;
        for phone in [&gym.ann, &gym.bob] {
            assert_eq!(phone.data("exercise/squat").await["difficulty"], 6);
            assert_eq!(phone.node.conflicts(&phone.space, true).await.unwrap().len(), 1);
            assert_eq!(gym.cloud.conflicts_open(&phone.space).await.unwrap(), 1);
            assert_eq!(gym.cloud.conflicts_of_the_last_hour(&phone.space).await.unwrap(), 1);
        }
        let open = gym.cloud.conflicts(&gym.ann.space, true).await.unwrap().remove(0);
        assert_eq!(
            gym.cloud.conflict(&gym.ann.space, &open.id).await.unwrap().now.unwrap().get("difficulty"),
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
        let of_a_space = gym.cloud.resolve(&gym.ann.space, &desk("admin"), answer(Resolution::Server)).await;
        assert!(matches!(of_a_space, Err(ReplicaError::Forbidden(_))), "{of_a_space:?}");
        let (receipt, _) = gym
            .cloud
            .resolve(&gym.ann.space, &desk("librarian"), answer(Resolution::Incoming))
            .await
            .unwrap();
        assert_eq!(receipt.verdict, Verdict::Applied);
        for phone in [&gym.ann, &gym.bob] {
            phone.synced(&gym.cloud).await;
            assert_eq!(phone.data("exercise/squat").await["difficulty"], 9);
            assert_eq!(phone.node.conflicts_open(&phone.space).await.unwrap(), 0);
        }
    });
}

#[test]
fn one_cursor_of_two_sources_goes_on_wherever_a_pull_is_cut() {
    everywhere(|gym| async move {
        let mut heads = gym.cloud.watch(&gym.ann.space);
        for n in 0..5 {
            gym.library(Create, &format!("exercise/e{n}"), json!({ "name": format!("E{n}") })).await;
        }
        assert!(heads.has_changed().unwrap(), "what is shared is news to every space");
        let head = *heads.borrow_and_update();
        assert_eq!(gym.cloud.state(&gym.ann.space).await.unwrap().head, head);
        for n in 0..5 {
            let workout = edit(Create, &format!("workout/w{n}"), json!({}));
            gym.cloud.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
        }
        let device = &gym.ann.enrolled.device;
        for limit in [1, 2, 3, 7, 10, 100] {
            let (mut cursor, mut names, mut late) = (None, Vec::new(), 0);
            loop {
                let request = FeedRequest { cursor, limit: Some(limit), collections: vec![] };
                let page = gym.cloud.feed_to(device, &[], &request).await.unwrap();
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
                        gym.cloud.write(&gym.ann.space, &desk("athlete"), workout).await.unwrap();
                    }
                }
            }
            let all = dump(&gym.cloud, &gym.ann.space).await.lines().count();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "in pages of {limit}");
            let request = FeedRequest { cursor, limit: Some(limit), collections: vec![] };
            let quiet = gym.cloud.feed_to(device, &[], &request).await.unwrap();
            assert!(quiet.rows.is_empty() && quiet.complete);
            assert_eq!(quiet.digest, gym.cloud.state(&gym.ann.space).await.unwrap().digest);
        }
        // A pull that is cut after each of its pages is one pull in the end.
        *gym.ann.cable.page.lock().unwrap() = 2;
        for _ in 0..100 {
            let cut = harness::CutAfter { cable: gym.ann.cable.clone(), pages: 2.into(), arrives: true };
            let report =
                gym.ann.node.sync(&gym.ann.space, &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
            if report.outcome == Some(SyncOutcome::Done) {
                break;
            }
        }
        gym.ann.synced(&gym.cloud).await;
    });
}

#[test]
fn what_is_shared_is_kept_until_the_devices_of_every_space_have_read_it() {
    const DAY: Duration = Duration::from_secs(86_400);
    let keep =
        Keep { tombstones: Duration::from_secs(1), receipts: Duration::from_secs(1), ..Keep::default() };
    everywhere(|gym| async move {
        gym.library(Create, "muscle/gone", json!({ "name": "Gone" })).await;
        for phone in [&gym.ann, &gym.bob] {
            phone.synced(&gym.cloud).await;
            phone.sync().await;
        }
        gym.clock.advance(DAY);
        gym.library(Delete, "muscle/gone", json!({})).await;
        gym.clock.advance(DAY);
        gym.bob.synced(&gym.cloud).await;
        gym.bob.sync().await;
        let purged = async || {
            let purge = gym.cloud.purge(&gym.bob.space, &keep, false).await.unwrap();
            purge.rows.get("tombstones").copied().unwrap_or(0)
        };
        assert_eq!(purged().await, 0, "a phone of another space has not read it");
        let held = gym.cloud.purge(&gym.bob.space, &keep, true).await.unwrap().held;
        let held = held.iter().filter(|held| held.rows > 0);
        assert_eq!(held.map(|held| &*held.name).collect::<Vec<_>>(), ["ann"]);
        gym.clock.advance(DAY * 200);
        gym.bob.sync().await;
        assert_eq!(purged().await, 1, "beyond the horizon it holds nothing back");
        gym.ann.write(Create, "workout/w", json!({})).await;
        let back = gym.ann.synced(&gym.cloud).await;
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
    everywhere(|gym| async move {
        gym.library(Create, "exercise/squat", json!({ "name": "Squat" })).await;
        gym.ann.synced(&gym.cloud).await;
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
            let again = reopened(&gym.cloud, profile, follows).await;
            let refused = again.open_space(&gym.ann.space).await.map(drop);
            assert!(matches!(refused, Err(ReplicaError::Invalid(_))), "{refused:?}");
        }
        // A phone is a whole node by itself, with its upstream and without.
        for follows in [false, true] {
            let again = reopened(&gym.ann.node, PROFILE, follows).await;
            again.open_space(&gym.ann.space).await.unwrap();
            assert_eq!(data(&again, &gym.ann.space, "exercise/squat").await["name"], "Squat");
        }
        // What one space had before the profile shared it is not taken for everybody's.
        let before = node(gym.on, &gym.ground, &private, "before", false, &gym.clock).await;
        let exercise = edit(Create, "exercise/own", json!({ "name": "Own" }));
        before.write(&space("main"), &desk("admin"), exercise).await.unwrap();
        let again = reopened(&before, PROFILE, false).await;
        let refused = again.open_space(&space("main")).await.map(drop);
        assert!(matches!(refused, Err(ReplicaError::Invalid(_))), "{refused:?}");
    });
}
