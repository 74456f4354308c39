//! Partial sync: a Pi that takes one competition along gets its changes and no other's.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    On, Venue, data, desk, dump, key,
    pair::{at, holds},
    space,
};
use ropeway_core::{
    audience::Worn,
    change::Op::{self, Create, Delete, Patch},
    conflict::{Kind, Resolution},
    receipt::Verdict,
    record::State,
    retention::Keep,
};
use ropeway_protocol::Transport;
use ropeway_replica::{FeedRequest, Node, Resolve, SyncOutcome};
use serde_json::{Value, json};
use std::time::Duration;

const PROFILE: &str = harness::parts!(
    r#"
[collections.athlete.fields]
name = "text"
[collections.competition]
audience = { key = "competition:{id}" }
delete = "latest"
fields = { name = "text" }
[collections.camera]
audience = { granted = true }
fields = { name = "text" }
[collections.race]
references = { competition = { to = "competition", on_delete = "cascade" }, camera = "camera?" }
audience = { from = ["competition"], grants = ["camera"] }
delete = "latest"
fields = { name = { type = "text", merge = "latest" } }
[collections.incident]
references = { race = { to = "race", on_delete = "cascade" }, camera = "camera?" }
audience = { from = ["race"] }
merge = "latest"
delete = "latest"
fields = { bib = "int", text = { type = "text", merge = "park" } }
[collections.tape]
references = { camera = "camera", incident = "incident" }
audience = { from = ["incident"] }
fields = { text = "text" }
[collections.licence]
references = { competition = { to = "competition", on_delete = "cascade" } }
audience = { from = ["competition"] }
same = { on = ["number"] }
fields = { number = "text", holder = "text" }
[collections.crew]
references = { competition = "competition" }
audience = { from = ["competition"], subscribes = "device" }
delete = "latest"
fields = { device = "text" }
"#
);

/// Two competitions with a race, an incident and a licence each, and an athlete for everybody.
async fn two_competitions(cloud: &Node) {
    for c in ["a", "b"] {
        at(cloud, Create, &format!("competition/{c}"), json!({"name": c})).await;
        at(cloud, Create, &format!("race/r{c}"), json!({"competition": c, "name": c})).await;
        at(cloud, Create, &format!("incident/i{c}"), json!({"race": format!("r{c}"), "bib": 1})).await;
        at(cloud, Create, &format!("licence/l{c}"), json!({"competition": c, "number": c})).await;
    }
    at(cloud, Create, "athlete/x", json!({"name": "Ada"})).await;
}

async fn subscribe(venue: &Venue, name: &str, on: bool) {
    venue.cable.subscribe(&format!("competition:{name}"), on).await.unwrap();
}

/// Syncs; both sides agree on what the Pi sees.
async fn synced(venue: &Venue) {
    let report = venue.sync().await;
    assert!(matches!(report.outcome, Some(SyncOutcome::Done | SyncOutcome::Partly)), "{report:?}");
    let (theirs, ours) = report.digests.unwrap();
    assert_eq!(
        theirs,
        ours,
        "what the cloud says that the Pi sees, and what it holds:\n{}",
        dump(&venue.pi).await
    );
}

/// The names of what a node holds, without conflicts.
fn story<F, Fut>(case: F)
where
    F: Fn(Venue) -> Fut,
    Fut: Future<Output = ()>,
{
    let postgres = harness::server::found().map(|_| (On::Postgres, 2));
    let places = [(On::Memory, 5_000), (On::Sqlite, 2), (On::Memory, 1)];
    for (on, page) in places.into_iter().chain(postgres) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        eprintln!("on {on:?} by pages of {page}");
        runtime.block_on(async {
            let venue = Venue::of(on, PROFILE, "venue").await;
            *venue.cable.page.lock().unwrap() = page;
            let _kept = venue.ground.clone();
            case(venue).await;
        });
    }
}

/// ISMF-020, DESIGN §6: what carries the key of the one competition arrives, and what is for everybody.
#[test]
fn a_pi_with_one_competition_gets_its_changes_and_no_others() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x", "nothing chosen, nothing but what is for everybody");
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia la ra");
        at(&venue.cloud, Patch, "incident/ia", json!({"bib": 7})).await;
        at(&venue.cloud, Patch, "incident/ib", json!({"bib": 8})).await;
        at(&venue.cloud, Create, "incident/ja", json!({"race": "ra"})).await;
        at(&venue.cloud, Create, "incident/jb", json!({"race": "rb"})).await;
        at(&venue.cloud, Delete, "licence/la", json!({})).await;
        at(&venue.pi, Create, "incident/ka", json!({"race": "ra", "bib": 3})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia ja ka ra");
        assert_eq!(data(&venue.pi, "incident", "ia").await["bib"], 7);
        let report = venue.sync().await;
        assert_eq!(
            (report.pulled, report.outcome),
            (0, Some(SyncOutcome::Done)),
            "nothing new, nothing moves"
        );
    });
}

/// DESIGN §3: a key gained while the reader was away brings what lies behind its cursor.
#[test]
fn a_key_gained_while_offline_brings_what_lies_behind() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        at(&venue.pi, Create, "incident/ka", json!({"race": "ra", "bib": 3})).await;
        subscribe(&venue, "b", true).await;
        at(&venue.cloud, Patch, "race/rb", json!({"name": "later"})).await;
        at(&venue.cloud, Create, "incident/jb", json!({"race": "rb"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a b ia ib jb ka la lb ra rb");
        subscribe(&venue, "a", false).await;
        subscribe(&venue, "a", true).await;
        subscribe(&venue, "b", false).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia ka la ra");
        assert_eq!(holds(&venue.cloud).await, "x a b ia ib jb ka la lb ra rb", "nothing was deleted");
    });
}

/// DESIGN §6: a record with unsettled changes leaves the device only when they are settled.
#[test]
fn a_key_lost_while_offline_waits_for_what_is_unsettled() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        at(&venue.pi, Patch, "incident/ia", json!({"bib": 44})).await;
        at(&venue.pi, Create, "incident/ka", json!({"race": "ra", "bib": 3})).await;
        subscribe(&venue, "a", false).await;
        // The pull tells what left while the edits are not sent: they are held back by a failure.
        *venue.cable.refuse.lock().unwrap() = Some("held".into());
        at(&venue.pi, Patch, "race/ra", json!({"name": "held"})).await;
        venue.sync().await;
        assert_eq!(data(&venue.pi, "race", "ra").await["name"], "held", "unsettled work stays");
        assert_eq!(data(&venue.cloud, "incident", "ia").await["bib"], 44);
        assert_eq!(data(&venue.cloud, "incident", "ka").await["bib"], 3);
        assert_eq!(
            holds(&venue.pi).await,
            "x a ra",
            "what was settled has left, and not what is needed (I6)"
        );
        *venue.cable.refuse.lock().unwrap() = None;
        venue.pi.queue_retry(&space(), &[]).await.unwrap();
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x");
        assert_eq!(data(&venue.cloud, "race", "ra").await["name"], "held", "what was entered is there");
    });
}

/// A race moves to another competition and back, with all that hangs on it, while it is edited offline.
#[test]
fn a_race_moved_to_another_competition_takes_its_children_along() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        at(&venue.cloud, Patch, "race/rb", json!({"competition": "a"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia ib la ra rb", "what came, came with its children");
        at(&venue.cloud, Patch, "race/ra", json!({"competition": "b"})).await;
        at(&venue.pi, Patch, "incident/ia", json!({"bib": 99})).await;
        at(&venue.pi, Create, "incident/ka", json!({"race": "ra", "bib": 98})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ib la rb");
        assert_eq!(data(&venue.cloud, "incident", "ia").await["bib"], 99, "offline work was taken");
        assert_eq!(data(&venue.cloud, "incident", "ka").await["bib"], 98);
        at(&venue.cloud, Patch, "race/ra", json!({"competition": "a"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia ib ka la ra rb");
        at(&venue.pi, Patch, "race/ra", json!({"competition": "a", "name": "mine"})).await;
        at(&venue.cloud, Delete, "competition/a", json!({})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x");
    });
}

/// A join across audiences shows both records to the readers of both; its undo takes that back.
#[test]
fn a_join_across_audiences_and_its_undo() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        let joined = at(
            &venue.cloud,
            Create,
            "licence/twin",
            json!({"competition": "b", "number": "A", "holder": "Eva"}),
        );
        assert_eq!(joined.await, Verdict::Joined);
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a b ia la twin ra", "with the competition that the twin needs");
        assert_eq!(data(&venue.pi, "licence", "la").await["holder"], "Eva");
        let conflicts = venue.cloud.conflicts(&space(), false).await.unwrap();
        let join = conflicts.iter().find(|c| c.conflict.kind == Kind::Join).unwrap();
        let answer = Resolve {
            conflict: join.id.clone(),
            version: None,
            resolution: Resolution::Apart,
            data: None,
            notes: None,
            change: None,
        };
        venue.cloud.resolve(&space(), &desk("jury", "admin"), answer).await.unwrap();
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia la ra");
        assert_eq!(data(&venue.pi, "licence", "la").await.get("holder"), None);
    });
}

/// I6: what a reader sees is closed under required references, by rows via the child.
#[test]
fn what_is_needed_comes_along_and_goes_with_the_last_that_needs_it() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        at(&venue.cloud, Create, "camera/c1", json!({"name": "finish"})).await;
        at(&venue.cloud, Create, "camera/c2", json!({"name": "start"})).await;
        at(&venue.cloud, Create, "tape/t1", json!({"camera": "c1", "incident": "ia"})).await;
        at(&venue.cloud, Create, "tape/t2", json!({"camera": "c1", "incident": "ia"})).await;
        at(&venue.cloud, Create, "tape/t3", json!({"camera": "c2", "incident": "ib"})).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x c1 a ia la ra t1 t2");
        at(&venue.cloud, Delete, "tape/t1", json!({})).await;
        at(&venue.cloud, Patch, "race/ra", json!({"camera": "c2"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x c1 c2 a ia la ra t2", "granted by an optional reference");
        at(&venue.cloud, Patch, "tape/t2", json!({"camera": "c2"})).await;
        at(&venue.cloud, Patch, "race/ra", json!({"camera": null})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x c2 a ia la ra t2");
        assert_eq!(at(&venue.cloud, Patch, "tape/t2", json!({"incident": "ib"})).await, Verdict::Applied);
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia la ra");
    });
}

/// What a device never saw is answered as if it did not exist.
#[test]
fn nothing_shows_that_another_audience_exists() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        let device = venue.device.device.clone();
        let change = |id: &str, op: Op, name: &str, values: Value| {
            let (collection, record) = name.split_once('/').unwrap();
            ropeway_core::change::Change {
                id: ropeway_core::id::ChangeId::trusted(id.to_owned()),
                collection: key(collection, record).collection,
                record: key(collection, record).id,
                op,
                fields: harness::fields(values),
                seen: None,
                base: None,
                lost: None,
                author: ropeway_core::change::Author { device: device.id.clone(), person: None },
                at: None,
            }
        };
        // Each pair: something hidden, and the same of something that never was.
        let pairs = [
            (Patch, "incident/ib", "incident/zzzz", json!({"bib": 5})),
            (Delete, "incident/ib", "incident/zzzz", json!({})),
            (Create, "incident/nnnn", "incident/mmmm", json!({"race": "RACE"})),
            (Patch, "conflict/cccc", "conflict/dddd", json!({"resolution": "server"})),
        ];
        for (n, (op, hidden, absent, values)) in pairs.into_iter().enumerate() {
            let mut answers = Vec::new();
            for (name, race) in [(hidden, "rb"), (absent, "zzzz")] {
                let values = values.to_string().replace("RACE", race);
                let change =
                    change(&format!("ch-{n}-{race}"), op, name, serde_json::from_str(&values).unwrap());
                let grant = venue.cloud.grant_of(&device);
                let receipt = venue.cloud.ingest(&space(), grant, vec![change]).await.unwrap().remove(0);
                let reason = receipt.reason.map(|r| {
                    (
                        r.code,
                        r.text
                            .replace(name, "NAME")
                            .replace(race, "RACE")
                            .replace(name.split_once('/').unwrap().1, "ID"),
                    )
                });
                answers.push((receipt.verdict, receipt.version, receipt.record, receipt.detail, reason));
            }
            assert_eq!(answers[0], answers[1]);
        }
        // A refusal names nothing hidden, only that there is something.
        let seen = venue.cloud.grant_of(&device);
        at(&venue.cloud, Create, "camera/cc", json!({})).await;
        at(&venue.cloud, Create, "tape/ta", json!({"camera": "cc", "incident": "ia"})).await;
        at(&venue.cloud, Patch, "tape/ta", json!({"incident": "ib"})).await;
        let refused = change("del", Delete, "camera/cc", json!({}));
        let receipt = venue.cloud.ingest(&space(), seen, vec![refused]).await.unwrap().remove(0);
        let text = receipt.reason.unwrap().text;
        assert!(!text.contains("tape/ta") && receipt.record.is_none(), "{text}");
        // A conflict about a hidden record is neither listed nor shown.
        for text in ["one", "two"] {
            let mut contested = change(&format!("fight-{text}"), Patch, "incident/ib", json!({"text": text}));
            contested.seen = Some(harness::fields(json!({"text": "none"})));
            let grant = ropeway_core::change::Grant {
                door: ropeway_core::change::Door::Push,
                device: device.id.clone(),
                role: "admin".into(),
            };
            venue.cloud.ingest(&space(), grant, vec![contested]).await.unwrap();
        }
        let all = venue.cloud.conflicts(&space(), false).await.unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(venue.cloud.conflicts_for(&device, false).await.unwrap().is_empty());
        assert!(venue.cloud.conflict_for(&device, &all[0].id).await.is_err());
        let request = FeedRequest::default();
        let page = venue.cloud.feed_to(&device, &["competition:b".into()], &request).await.unwrap();
        assert_eq!(page.rows.iter().map(|r| r.key.id.to_string()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(page.digest.count, 1);
        assert!(venue.cable.subscribe("user:1", true).await.is_err(), "not a kind that its role may choose");
        venue.cable.subscribe("competition:nowhere", true).await.unwrap();
        synced(&venue).await;
    });
}

/// A twin that its author may not know of is not joined: only those who see both are told.
#[test]
fn a_twin_in_another_audience_is_not_given_away() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        at(&venue.pi, Create, "licence/guess", json!({"competition": "a", "number": "b"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a ia guess la ra");
        let flagged = venue.cloud.conflicts(&space(), false).await.unwrap();
        assert_eq!(flagged.iter().map(|c| c.conflict.kind).collect::<Vec<_>>(), [Kind::Alike], "I5");
        assert!(venue.cloud.conflicts_for(&venue.device.device, false).await.unwrap().is_empty());
    });
}

/// A membership record subscribes the device that it names, for as long as it is there; and whoever makes a
/// competition has it.
#[test]
fn membership_records_subscribe_and_makers_keep_what_they_made() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        let device = venue.device.device.id.to_string();
        at(&venue.cloud, Create, "crew/m", json!({"competition": "b", "device": device})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x b m ib lb rb");
        at(&venue.pi, Create, "competition/c", json!({"name": "made at the venue"})).await;
        at(&venue.pi, Create, "race/rc", json!({"competition": "c"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x b c m ib lb rb rc");
        at(&venue.cloud, Patch, "crew/m", json!({"competition": "a"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a c m ia la ra rc");
        at(&venue.cloud, Delete, "crew/m", json!({})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x c rc");
    });
}

/// The node in the middle: a tablet takes from the Pi what the Pi takes from the cloud, and work that it did
/// on what has left both meanwhile reaches the cloud all the same.
#[test]
fn late_work_on_what_left_the_node_in_the_middle_goes_on_to_the_top() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        // What stays in sight keeps its camera there.
        at(&venue.cloud, Create, "camera/cc", json!({})).await;
        at(&venue.cloud, Create, "race/stays", json!({"competition": "a", "camera": "cc"})).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        let enrolled = harness::enrolled(&venue.pi, "Tablet", "venue").await;
        let tablet = harness::node(On::Memory, &venue.ground, PROFILE, "tablet", true, &venue.clock).await;
        let cable = harness::Cable::new(venue.pi.clone(), enrolled.token);
        let sync = async || {
            // Each change by itself: what refers to another is sent when that one has its receipt.
            let options = ropeway_replica::SyncOptions { batch_changes: 1, ..Default::default() };
            let report = tablet.sync(&space(), &cable, &options, &|_| {}).await.unwrap();
            let (theirs, ours) = report.digests.unwrap();
            assert_eq!(theirs, ours, "{}", dump(&tablet).await);
        };
        assert!(cable.subscribe("competition:b", true).await.is_err(), "the Pi has not got it");
        cable.subscribe("competition:a", true).await.unwrap();
        sync().await;
        assert_eq!(holds(&tablet).await, "x cc a ia la ra stays");
        at(&tablet, Patch, "incident/ia", json!({"bib": 61})).await;
        at(&tablet, Create, "incident/ta", json!({"race": "ra", "bib": 62})).await;
        at(&tablet, Create, "tape/tt", json!({"camera": "cc", "incident": "ta"})).await;
        at(&venue.cloud, Patch, "race/ra", json!({"competition": "b"})).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x cc a la stays");
        for _ in 0..2 {
            sync().await;
            synced(&venue).await;
        }
        sync().await;
        for (id, bib) in [("ia", 61), ("ta", 62)] {
            assert_eq!(data(&venue.cloud, "incident", id).await["bib"], bib, "{id}");
        }
        assert_eq!(data(&venue.cloud, "tape", "tt").await["incident"], "ta");
        for node in [&tablet, &venue.pi] {
            assert!(node.queue(&space()).await.unwrap().is_empty());
            assert_eq!(holds(node).await, "x cc a la stays");
        }
        at(&venue.cloud, Patch, "race/ra", json!({"competition": "a"})).await;
        synced(&venue).await;
        sync().await;
        assert_eq!(holds(&tablet).await, "x cc a ia ta la ra stays tt", "and all of it comes back");
    });
}

/// I10 for what leaves a sight: it is told until every live reader knows it; whoever was away for longer pulls
/// anew and lets go of it.
#[test]
fn what_left_a_sight_is_purged_like_what_was_deleted() {
    const DAY: Duration = Duration::from_secs(86_400);
    story(|venue| async move {
        let keep = Keep { tombstones: Duration::from_secs(1), ..Keep::default() };
        let purged = async || {
            let rows = venue.cloud.purge(&space(), &keep, false).await.unwrap().rows;
            rows.get("audiences").copied().unwrap_or(0)
        };
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        for _ in 0..2 {
            synced(&venue).await;
        }
        at(&venue.cloud, Patch, "race/ra", json!({"competition": "b"})).await;
        venue.advance(DAY * 170);
        assert_eq!(purged().await, 0, "the Pi sleeps, and it is live");
        for _ in 0..2 {
            synced(&venue).await;
        }
        assert_eq!(holds(&venue.pi).await, "x a la");
        assert!(purged().await > 0, "it was told");
        let report = venue.sync().await;
        assert_eq!((report.outcome, report.pulled), (Some(SyncOutcome::Done), 0), "nothing to pull anew");
        at(&venue.cloud, Patch, "licence/la", json!({"competition": "b"})).await;
        at(&venue.cloud, Delete, "incident/ib", json!({})).await;
        venue.advance(DAY * 365);
        let dry = venue.cloud.purge(&space(), &keep, true).await.unwrap().rows;
        assert!(dry["audiences"] > 0 && dry["tombstones"] == 1, "{dry:?}");
        assert_eq!(purged().await, dry["audiences"]);
        for _ in 0..2 {
            synced(&venue).await;
        }
        assert_eq!(holds(&venue.pi).await, "x a", "nobody told it, and it found out");
        subscribe(&venue, "b", true).await;
        synced(&venue).await;
        assert_eq!(holds(&venue.pi).await, "x a b ia la lb ra rb");
    });
}

/// However many records were found to be one, beside each other or one after the other, the next one is decided
/// and moved like the first, and a follower takes all of it in.
#[test]
fn as_many_as_there_are_become_one() {
    story(|venue| async move {
        two_competitions(&venue.cloud).await;
        subscribe(&venue, "a", true).await;
        synced(&venue).await;
        let licence = |number: &str| json!({"competition": "a", "number": number});
        for n in 0..30 {
            assert_eq!(
                at(&venue.cloud, Create, &format!("licence/beside{n:02}"), licence("a")).await,
                Verdict::Joined
            );
        }
        at(&venue.cloud, Create, "licence/after00", licence("0")).await;
        for n in 1..30 {
            let (last, number) = (format!("licence/after{:02}", n - 1), n.to_string());
            at(&venue.cloud, Create, &format!("licence/after{n:02}"), licence(&number)).await;
            at(&venue.cloud, Patch, &last, json!({"number": null})).await;
            at(&venue.cloud, Patch, &last, json!({"number": number})).await;
        }
        let joined = venue.cloud.get(&space(), &key("licence", "after28")).await.unwrap().unwrap();
        assert_eq!(joined.state, State::Joined(key("licence", "after29").id));
        synced(&venue).await;
        for (new, number) in [("beside-more", "a"), ("after-more", "29")] {
            let receipt = at(&venue.pi, Create, &format!("licence/{new}"), licence(number)).await;
            assert_eq!(receipt, Verdict::Joined);
        }
        synced(&venue).await;
        for survivor in ["licence/la", "licence/after29"] {
            at(&venue.cloud, Patch, survivor, json!({"competition": "b"})).await;
        }
        synced(&venue).await;
        for survivor in ["la", "after29"] {
            assert_eq!(data(&venue.pi, "licence", survivor).await["competition"], "b");
        }
        // Whoever sees one of them sees what it was joined into, and the other way round.
        let own = async |id: &str| {
            let rows = venue.cloud.store().audiences(&space(), &[key("licence", id)]).await.unwrap();
            Worn::read(&rows).own
        };
        for (survivor, joined) in [("la", "beside00"), ("la", "beside29"), ("after29", "after00")] {
            assert_eq!(own(survivor).await, own(joined).await, "{joined}");
        }
    });
}
