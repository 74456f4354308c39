//! Two hard things at once: restored while it is read anew, forgotten while an answer was lost, and a profile
//! that learns of audiences when the records are there already.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{
    Cable, CutAfter, PROFILE, Trouble, data, dump, key, on_every_store_with,
    pair::plain,
    place::{Place, assert_equal, clock},
    space, write,
};
use ropeway_core::{change::Op, profile, receipt::Verdict, retention::Keep};
use ropeway_replica::{Node, NodeOptions, SequentialIds, SyncOptions};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn keep() -> Keep {
    let soon = Duration::from_secs(1);
    Keep { tombstones: soon, receipts: soon, ..Keep::default() }
}

/// A device from beyond the horizon is in the middle of pulling everything anew when its upstream is restored:
/// what did not come again was lost there, not deleted, and nothing is let go.
#[tokio::test]
async fn an_upstream_restored_while_it_is_pulled_anew_lets_nothing_go() {
    let clock = clock();
    let mut cloud = Place::new("cloud", false, &clock).await;
    let pi = Place::new("pi", true, &clock).await;
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    let image = cloud.store.image();
    for n in 0..4 {
        let incident = json!({ "race": "race-1", "description": format!("seen {n}") });
        cloud.put("VAR", "incident", &format!("i{n}"), incident).await;
    }
    pi.put("Ada", "incident", "mine", json!({ "race": "race-1", "description": "mine" })).await;
    pi.sync(&cloud.cable(&token)).await;
    cloud.delete("VAR", "incident", "i3").await;
    clock.advance(YEAR);
    cloud.node.purge(&space(), &keep(), false).await.unwrap();
    // Refused as too old, it begins anew and is cut after a page.
    let cable = cloud.cable(&token);
    *cable.page.lock().unwrap() = 2;
    let cut = CutAfter { cable: Arc::new(cable), pages: 2.into(), arrives: false };
    pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
    assert!(pi.store_followed().await.anew, "it pulls anew");
    cloud.restore(&image, "again").await;
    for _ in 0..3 {
        pi.sync(&cloud.cable(&token)).await;
    }
    assert_eq!(pi.unsettled().await, 0);
    assert_equal(&cloud, &pi).await;
    let lost = cloud.lost().await;
    for id in ["i0", "i1", "i2", "i3", "mine"] {
        let asked = lost.iter().any(|(named, _)| named == id);
        let there = cloud.field("incident", id, "description").await != Value::Null;
        assert!(asked || there, "{id} is neither there nor asked about: {lost:?}");
    }
}

/// The answer to a creation was lost, and what came of it was deleted and forgotten before the device came
/// back from beyond the horizon: it comes back to life where a person says so, and not else. What the same batch
/// changed besides goes on.
#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_not_brought_back_to_life_unasked() {
    for again in [false, true] {
        let clock = clock();
        let cloud = Place::new("cloud", false, &clock).await;
        let pi = Place::new("pi", true, &clock).await;
        let token = cloud.device("Pi").await;
        cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
        pi.sync(&cloud.cable(&token)).await;
        pi.put("Ada", "incident", "mine", json!({ "race": "race-1", "description": "mine" })).await;
        pi.put("Ada", "incident", "stays", json!({ "race": "race-1", "description": "stays" })).await;
        pi.put("Ada", "race", "race-1", json!({ "name": "Sprint women" })).await;
        let cable = cloud.cable(&token);
        cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
        pi.sync(&cable).await;
        assert_eq!(cloud.field("incident", "mine", "description").await, "mine");
        cloud.delete("VAR", "incident", "mine").await;
        clock.advance(YEAR);
        cloud.node.purge(&space(), &keep(), false).await.unwrap();
        // The first pull anew is cut.
        let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: 0.into(), arrives: false };
        pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "mine", "description").await, Value::Null, "it was deleted");
        let waits = pi.node.queue(&space()).await.unwrap();
        assert_eq!(waits.iter().map(|q| (&*q.record, q.due)).collect::<Vec<_>>(), [("mine", None)]);
        assert!(waits[0].reason.as_ref().unwrap().text.contains("give it up"));
        clock.advance(YEAR);
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.unsettled().await, 1, "no schedule sends it");
        let moved = match again {
            true => {
                pi.node.queue_retry(&space(), &[waits[0].seq]).await.unwrap();
                let again = pi.node.queue(&space()).await.unwrap();
                again.iter().filter(|q| q.reason == waits[0].reason).count()
            }
            false => pi.node.queue_discard(&space(), &[waits[0].seq]).await.unwrap(),
        };
        assert_eq!(moved, 1);
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
        assert_eq!(cloud.field("incident", "mine", "description").await == "mine", again);
        assert_eq!(cloud.field("incident", "stays", "description").await, "stays");
        assert_eq!(cloud.field("race", "race-1", "name").await, "Sprint women");
    }
}

/// The same, where the pull that comes first is cut after any of its pages, or the answer to the next one is lost: the
/// upstream may have noted by then that this device has read far enough.
#[tokio::test]
async fn a_cut_anywhere_in_the_pull_brings_no_such_creation_back() {
    for arrives in [false, true] {
        let mut whole = false;
        for pages in 0.. {
            let clock = clock();
            let cloud = Place::new("cloud", false, &clock).await;
            let pi = Place::new("pi", true, &clock).await;
            let token = cloud.device("Pi").await;
            cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
            pi.sync(&cloud.cable(&token)).await;
            for id in ["mine", "stays"] {
                pi.put("Ada", "incident", id, json!({ "race": "race-1", "description": id })).await;
            }
            let cable = cloud.cable(&token);
            cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
            pi.sync(&cable).await;
            cloud.delete("VAR", "incident", "mine").await;
            clock.advance(YEAR);
            cloud.node.purge(&space(), &keep(), false).await.unwrap();
            for n in 0..5 {
                cloud.put("VAR", "race", &format!("new-{n}"), json!({ "name": "written since" })).await;
            }
            let cable = cloud.cable(&token);
            *cable.page.lock().unwrap() = 2;
            let cut = CutAfter { cable: Arc::new(cable), pages: pages.into(), arrives };
            let report = pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
            whole = report.error.is_none();
            pi.sync(&cloud.cable(&token)).await;
            let why = format!("cut after {pages} pages, the next request arrives: {arrives}");
            assert_eq!(cloud.field("incident", "mine", "description").await, Value::Null, "{why}");
            assert_eq!(cloud.field("incident", "stays", "description").await, "stays", "{why}");
            let waits = pi.node.queue(&space()).await.unwrap();
            assert_eq!(
                waits.iter().map(|q| (&*q.record, q.due)).collect::<Vec<_>>(),
                [("mine", None)],
                "{why}"
            );
            if whole {
                assert!(pages > 5, "there was something to cut");
                break;
            }
        }
        assert!(whole);
    }
}

/// What came in the pull that was cut is deleted and forgotten too, before the device comes back once more.
#[tokio::test]
async fn what_came_once_and_is_gone_since_is_not_brought_back_either() {
    let clock = clock();
    let cloud = Place::new("cloud", false, &clock).await;
    let pi = Place::new("pi", true, &clock).await;
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    for id in ["first", "second"] {
        pi.put("Ada", "incident", id, json!({ "race": "race-1", "description": id })).await;
    }
    let cable = cloud.cable(&token);
    cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
    pi.sync(&cable).await;
    for (id, pages) in [("first", 2), ("second", 0)] {
        cloud.delete("VAR", "incident", id).await;
        clock.advance(YEAR);
        cloud.node.purge(&space(), &keep(), false).await.unwrap();
        let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: pages.into(), arrives: false };
        pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
    }
    let there = pi.node.get(&space(), &key("incident", "second")).await.unwrap().unwrap();
    assert!(there.upstream.is_some(), "it came");
    pi.sync(&cloud.cable(&token)).await;
    for id in ["first", "second"] {
        assert_eq!(cloud.field("incident", id, "description").await, Value::Null);
    }
    let waits = pi.node.queue(&space()).await.unwrap();
    assert_eq!(
        waits.iter().map(|q| (&*q.record, q.due)).collect::<Vec<_>>(),
        [("first", None), ("second", None)]
    );
}

/// Revoked while it had to pull first: what it made is handed in to quarantine all the same.
#[tokio::test]
async fn revoked_before_it_had_pulled_it_still_hands_its_work_in() {
    let clock = clock();
    let cloud = Place::new("cloud", false, &clock).await;
    let pi = Place::new("pi", true, &clock).await;
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    pi.put("Ada", "incident", "mine", json!({ "race": "race-1", "description": "mine" })).await;
    let cable = cloud.cable(&token);
    cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
    pi.sync(&cable).await;
    cloud.delete("VAR", "incident", "mine").await;
    clock.advance(YEAR);
    cloud.node.purge(&space(), &keep(), false).await.unwrap();
    let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: 0.into(), arrives: false };
    pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
    let device = cloud.node.authenticate(&token).await.unwrap();
    cloud.node.revoke(&space(), &device.id).await.unwrap();
    pi.sync(&cloud.cable(&token)).await;
    assert_eq!(cloud.field("incident", "mine", "description").await, Value::Null);
    assert_eq!(cloud.node.quarantined(&space()).await.unwrap().len(), 1);
}

/// Refused as too old before anything was decided, and cut in the pull that was asked for first: what was never
/// sent before waits for nobody.
#[tokio::test]
async fn what_was_never_sent_before_waits_for_nobody() {
    let clock = clock();
    let cloud = Place::new("cloud", false, &clock).await;
    let pi = Place::new("pi", true, &clock).await;
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    cloud.put("VAR", "race", "race-2", json!({ "name": "Relay" })).await;
    cloud.delete("VAR", "race", "race-2").await;
    clock.advance(YEAR);
    cloud.node.purge(&space(), &keep(), false).await.unwrap();
    pi.put("Ada", "incident", "mine", json!({ "race": "race-1", "description": "mine" })).await;
    let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: 0.into(), arrives: false };
    pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
    assert_eq!(cloud.field("incident", "mine", "description").await, Value::Null);
    pi.sync(&cloud.cable(&token)).await;
    assert_eq!(cloud.field("incident", "mine", "description").await, "mine");
    assert_eq!(pi.unsettled().await, 0);
    assert_equal(&cloud, &pi).await;
}

/// Records that are older than the audiences of their profile are seen by those who may see them, and by nobody
/// else; also by a follower whose membership was written down before it meant anything.
#[test]
fn a_profile_that_gains_audiences_finds_the_records_that_are_there() {
    const CREW: &str = r#"
        [collections.crew]
        references = { race = "race" }
        AUDIENCE
        fields = { device = "text" }
    "#;
    let before = format!("{PROFILE}{}", CREW.replace("AUDIENCE", ""));
    let crew = "audience = { from = [\"race\"], subscribes = \"device\" }";
    let gained = format!("{PROFILE}{}", CREW.replace("AUDIENCE", crew))
        .replace("[roles.device]\n", "[roles.device]\nsees = \"subscribed\"\n")
        .replace("[collections.race]\n", "[collections.race]\naudience = { key = \"race:{id}\" }\n")
        .replace("[collections.incident]\n", "[collections.incident]\naudience = { from = [\"race\"] }\n");
    on_every_store_with(&before, move |venue| {
        let gained = gained.clone();
        async move {
            let early = async |collection: &str, id: &str, values: Value| {
                let receipt = write(&venue.cloud, "VAR", Op::Create, collection, id, values).await;
                assert_eq!(receipt.verdict, Verdict::Created);
            };
            for race in ["a", "b"] {
                early("race", race, json!({ "name": race })).await;
                early("incident", &format!("in-{race}"), json!({ "race": race, "description": race })).await;
            }
            early("crew", "c1", json!({ "race": "a", "device": venue.device.device.id.as_str() })).await;
            early("course", "open", json!({ "name": "for everybody" })).await;
            let options = NodeOptions {
                store: venue.cloud.store().clone(),
                profile: Arc::new(profile::parse(&gained, "race.toml").unwrap()),
                clock: venue.clock.clone(),
                ids: Arc::new(SequentialIds::new("again")),
                follows: false,
            };
            let cloud = Node::open(options).await.unwrap();
            // Written before anybody opened the space again: one of another process, say, or of a device of a space
            // that is not the node's own.
            for (op, id, text) in [(Op::Create, "in-new", "new"), (Op::Patch, "in-a", "a again")] {
                let values = json!({ "race": "a", "description": text });
                assert!(write(&cloud, "VAR", op, "incident", id, values).await.verdict.is_settled());
            }
            let course = json!({ "name": "still for everybody" });
            write(&cloud, "VAR", Op::Patch, "course", "open", course).await;
            for _ in 0..2 {
                cloud.open_named_spaces().await.unwrap();
                let pi = plain("other", true, &gained, &venue.clock).await;
                let cable = Cable::new(cloud.clone(), venue.device.token.clone());
                let report = pi.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
                let (theirs, ours) = report.digests.unwrap();
                assert_eq!((report.pulled, theirs), (5, ours), "{}", dump(&pi).await);
                assert_eq!(data(&pi, "incident", "in-a").await["description"], "a again");
                assert_eq!(data(&pi, "incident", "in-new").await["description"], "new");
                assert_eq!(data(&pi, "incident", "in-b").await, Value::Null);
                // Killed before it was noted that it is done.
                cloud.store().put_meta("audiences.main", "").await.unwrap();
            }
            assert_eq!(cloud.store().audit().await.unwrap().faults, Vec::<String>::new());
        }
    });
}
