//! An upstream that was restored from a backup, as its followers live through it (peers §3, F15): their own
//! changes come back by themselves, other people's records as one list, and nothing is dropped before.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{
    CutAfter, On, PROFILE, Trouble, desk, dump, key,
    place::{Image, Place, assert_equal, clock, on_each},
    space,
};
use ropeway_core::{conflict::Resolution, outbox::EntryState};
use ropeway_protocol::Transport;
use ropeway_replica::{Clock, Resolve, SyncOptions};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A cloud with a race and an incident, a Pi that has them, and an image of the cloud from that moment.
async fn venue(on: On) -> (Place, Place, String, Image) {
    venue_of(on, PROFILE).await
}

async fn venue_of(on: On, profile: &str) -> (Place, Place, String, Image) {
    let clock = clock();
    let cloud = Place::with(on, profile, "cloud", false, &clock).await;
    let pi = Place::with(on, profile, "pi", true, &clock).await;
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    pi.put("Ada", "incident", "early", json!({ "race": "race-1", "description": "before" })).await;
    pi.sync(&cloud.cable(&token)).await;
    let image = cloud.image().await;
    (cloud, pi, token, image)
}

/// After the image: the Pi writes and edits, the cloud's people write and edit, all of it synced.
async fn afternoon(cloud: &Place, pi: &Place, token: &str) {
    pi.put("Ada", "incident", "early", json!({ "description": "after" })).await;
    pi.put("Ada", "incident", "late", json!({ "race": "race-1", "description": "late" })).await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint women" })).await;
    cloud.put("VAR", "race", "race-2", json!({ "name": "Relay" })).await;
    cloud.put("VAR", "incident", "theirs", json!({ "race": "race-2", "description": "skis" })).await;
    pi.sync(&cloud.cable(token)).await;
    assert_eq!(pi.unsettled().await, 0);
}

#[test]
fn own_changes_come_back_by_themselves_and_other_peoples_as_one_list() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        afternoon(&cloud, &pi, &token).await;
        let whole = dump(&cloud.node).await;
        cloud.restore(&image, "again").await;
        assert_eq!(cloud.field("incident", "early", "description").await, "before");

        let report = pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "early", "description").await, "after");
        assert_eq!(cloud.field("incident", "late", "description").await, "late");
        let list = [("race-1", json!("Sprint women")), ("race-2", json!("Relay")), ("theirs", json!("skis"))]
            .map(|(id, v)| (id.to_owned(), v));
        assert_eq!(cloud.lost().await, list, "{report:?}");
        assert_eq!(pi.lost().await, list, "it stands where it was lost and where it was kept");
        assert_eq!(
            cloud.field("race", "race-1", "name").await,
            "Sprint",
            "nothing is decided before the answer"
        );
        assert_eq!(cloud.field("race", "race-2", "name").await, Value::Null);
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;

        assert_eq!(cloud.accept("epoch-cloud").await, (3, 0));
        assert_eq!(cloud.lost().await, []);
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(dump(&cloud.node).await, whole, "byte for byte what it was");
        assert_equal(&cloud, &pi).await;
        let quiet = pi.sync(&cloud.cable(&token)).await;
        assert_eq!((quiet.pushed, quiet.pulled), (0, 0), "a sync with nothing to do moves nothing");
    });
}

/// Which of its own changes are young enough to be offered again is asked of both clocks: one may be wrong.
#[test]
fn own_changes_come_back_by_themselves_whichever_clock_is_wrong() {
    on_each(async |on| {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        for wrong in ["cloud", "pi"] {
            let (cloud_clock, pi_clock) = (clock(), clock());
            let mut cloud = Place::new(on, "cloud", false, &cloud_clock).await;
            let pi = Place::new(on, "pi", true, &pi_clock).await;
            let token = cloud.device("Pi").await;
            cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
            pi.sync(&cloud.cable(&token)).await;
            let image = cloud.image().await;
            pi.put("Ada", "incident", "late", json!({ "race": "race-1", "description": "late" })).await;
            pi.sync(&cloud.cable(&token)).await;
            cloud.restore(&image, "again").await;
            if wrong == "cloud" { &cloud_clock } else { &pi_clock }.advance(YEAR);
            pi.sync(&cloud.cable(&token)).await;
            assert_eq!(
                cloud.field("incident", "late", "description").await,
                "late",
                "the clock of the {wrong}"
            );
            assert_eq!(cloud.lost().await, [], "the clock of the {wrong}");
            assert_equal(&cloud, &pi).await;
        }
    });
}

#[test]
fn changes_that_the_backup_knows_are_answered_as_before() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        cloud.put("VAR", "incident", "early", json!({ "description": "by the VAR" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        // The Pi's creation of the incident is in the backup: replayed, not decided, so it makes no version.
        let version =
            async |p: &Place| p.node.get(&space(), &key("incident", "early")).await.unwrap().unwrap().version;
        let before = version(&cloud).await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(version(&cloud).await, before);
        assert_eq!(cloud.lost().await, [("early".to_owned(), json!("by the VAR"))]);
        assert_equal(&cloud, &pi).await;
    });
}

/// Whoever deletes a record that they have, while its upstream went back in time, is not asked about it.
#[test]
fn what_was_deleted_here_knowingly_is_no_question() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        cloud.put("VAR", "incident", "early", json!({ "description": "by the VAR" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        pi.delete("Ada", "incident", "early").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.lost().await, []);
        assert_eq!(cloud.field("incident", "early", "description").await, Value::Null);
        assert_equal(&cloud, &pi).await;
    });
}

/// A deletion that came before somebody else's edit has not answered to it.
#[test]
fn what_came_after_a_deletion_is_asked() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        pi.delete("Ada", "incident", "early").await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.put("VAR", "incident", "early", json!({ "race": "race-1", "description": "it counts" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.lost().await, [("early".to_owned(), json!("it counts"))]);
        assert_equal(&cloud, &pi).await;
    });
}

/// An edit that was never sent, on top of one that was lost, and both arrive in their order: no conflict.
#[test]
fn what_was_lost_goes_before_what_was_made_on_top_of_it() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        pi.put("Ada", "incident", "early", json!({ "description": "second" })).await;
        pi.sync(&cloud.cable(&token)).await;
        pi.put("Ada", "incident", "early", json!({ "description": "third" })).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "early", "description").await, "third");
        assert_eq!(cloud.node.conflicts(&space(), false).await.unwrap().len(), 0);
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
    });
}

/// The same where the edit was sealed for the lost epoch and its answer never came.
#[test]
fn a_batch_sealed_for_the_lost_epoch_takes_its_place_behind() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        pi.put("Ada", "incident", "early", json!({ "description": "second" })).await;
        pi.sync(&cloud.cable(&token)).await;
        pi.put("Ada", "incident", "early", json!({ "description": "third" })).await;
        let cable = cloud.cable(&token);
        cable.pushes.lock().unwrap().push_back(Trouble::LoseRequest);
        pi.sync(&cable).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "early", "description").await, "third");
        assert_eq!(cloud.node.conflicts(&space(), false).await.unwrap().len(), 0);
        assert_equal(&cloud, &pi).await;
    });
}

#[test]
fn what_waits_for_a_lost_parent_goes_through_when_the_list_is_accepted() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        cloud.put("VAR", "race", "race-2", json!({ "name": "Relay" })).await;
        pi.sync(&cloud.cable(&token)).await;
        pi.put("Ada", "incident", "there", json!({ "race": "race-2", "description": "mine" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.lost().await, [("race-2".to_owned(), json!("Relay"))]);
        let waiting = pi.node.queue(&space()).await.unwrap();
        assert_eq!(
            waiting.iter().map(|e| e.state).collect::<Vec<_>>(),
            [EntryState::Waiting],
            "kept, not parked"
        );
        // Accepted days later, when no schedule would send it any more.
        cloud.clock.advance(Duration::from_secs(3 * 86_400));
        for _ in 0..6 {
            pi.sync(&cloud.cable(&token)).await;
            cloud.clock.advance(Duration::from_secs(6 * 3_600));
        }
        assert_eq!(cloud.accept("epoch-cloud").await, (1, 0));
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "there", "description").await, "mine");
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
    });
}

#[test]
fn two_followers_hand_the_same_in_once_and_the_newer_version_wins_the_place() {
    on_each(async |on| {
        let clock = clock();
        let mut cloud = Place::new(on, "cloud", false, &clock).await;
        let (pi, other) =
            (Place::new(on, "pi", true, &clock).await, Place::new(on, "other", true, &clock).await);
        let (token, second) = (cloud.device("Pi").await, cloud.device("Other").await);
        cloud.put("VAR", "race", "race-1", json!({ "name": "one" })).await;
        pi.sync(&cloud.cable(&token)).await;
        other.sync(&cloud.cable(&second)).await;
        let image = cloud.image().await;
        cloud.put("VAR", "race", "race-1", json!({ "name": "two" })).await;
        cloud.put("VAR", "race", "new", json!({ "name": "new" })).await;
        cloud.put("VAR", "race", "same", json!({ "name": "same" })).await;
        other.sync(&cloud.cable(&second)).await;
        cloud.put("VAR", "race", "race-1", json!({ "name": "three" })).await;
        cloud.put("VAR", "race", "new", json!({ "name": "newer" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        // The one with the older version comes first, then the one with the newer, then the first once more.
        other.sync(&cloud.cable(&second)).await;
        assert_eq!(cloud.lost().await.len(), 3);
        pi.sync(&cloud.cable(&token)).await;
        other.sync(&cloud.cable(&second)).await;
        let list = [("new", "newer"), ("race-1", "three"), ("same", "same")]
            .map(|(id, v)| (id.to_owned(), json!(v)));
        assert_eq!(cloud.lost().await, list);
        for place in [&pi, &other] {
            assert_equal(&cloud, place).await;
        }
        assert_eq!(cloud.accept("epoch-cloud").await, (3, 0));
        pi.sync(&cloud.cable(&token)).await;
        other.sync(&cloud.cable(&second)).await;
        assert_eq!(other.field("race", "new", "name").await, "newer");
        for place in [&pi, &other] {
            assert_equal(&cloud, place).await;
        }
    });
}

/// Its author comes later than somebody who only had a copy: the record is back, and nobody is asked.
#[test]
fn a_record_that_its_own_author_brings_back_asks_no_more() {
    on_each(async |on| {
        let clock = clock();
        let mut cloud = Place::new(on, "cloud", false, &clock).await;
        let (pi, author) =
            (Place::new(on, "pi", true, &clock).await, Place::new(on, "author", true, &clock).await);
        let (token, second) = (cloud.device("Pi").await, cloud.device("Author").await);
        cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
        author.sync(&cloud.cable(&second)).await;
        let image = cloud.image().await;
        author.put("Bo", "incident", "mine", json!({ "race": "race-1", "description": "x" })).await;
        author.sync(&cloud.cable(&second)).await;
        author.put("Bo", "incident", "mine", json!({ "description": "y" })).await;
        author.sync(&cloud.cable(&second)).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.lost().await, [("mine".to_owned(), json!("y"))]);
        author.sync(&cloud.cable(&second)).await;
        assert_eq!(cloud.field("incident", "mine", "description").await, "y");
        assert_eq!(cloud.lost().await, [], "nobody has to answer");
        pi.sync(&cloud.cable(&token)).await;
        for place in [&pi, &author] {
            assert_equal(&cloud, place).await;
        }
    });
}

#[test]
fn lost_deletions_and_lost_parked_values_are_on_the_list_too() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        cloud.delete("VAR", "incident", "early").await;
        cloud.put("VAR", "incident", "asked", json!({ "race": "race-1", "description": "as seen" })).await;
        pi.sync(&cloud.cable(&token)).await;
        let other = Place::new(on, "other", true, &cloud.clock).await;
        let second = cloud.device("Other").await;
        other.sync(&cloud.cable(&second)).await;
        other.put("Cy", "incident", "asked", json!({ "description": "by Cy" })).await;
        cloud.put("VAR", "incident", "asked", json!({ "description": "by the VAR" })).await;
        other.sync(&cloud.cable(&second)).await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.node.conflicts(&space(), true).await.unwrap().len(), 1, "Cy's value is parked");
        cloud.restore(&image, "again").await;
        // The device of Cy never comes back; the Pi holds what waited.
        pi.sync(&cloud.cable(&token)).await;
        let list = cloud.lost().await;
        let said: Vec<_> = list.iter().map(|(id, v)| (id.as_str(), v.as_str())).collect();
        assert!(
            said.contains(&("asked", Some("by the VAR"))) && said.contains(&("asked", Some("by Cy"))),
            "{said:?}"
        );
        assert!(said.contains(&("early", None)), "the deletion: {said:?}");
        assert_equal(&cloud, &pi).await;
        let open = cloud.node.conflicts(&space(), true).await.unwrap();
        let deletion = open.iter().find(|v| v.conflict.incoming.deleted).unwrap();
        assert!(!deletion.conflict.server.deleted);
        cloud.accept("epoch-cloud").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "early", "description").await, Value::Null);
        assert_equal(&cloud, &pi).await;
    });
}

#[test]
fn the_last_value_that_waited_in_a_question_is_on_the_list() {
    on_each(async |on| {
        let (mut cloud, pi, token, _) = venue(on).await;
        let other = Place::new(on, "other", true, &cloud.clock).await;
        let second = cloud.device("Other").await;
        other.sync(&cloud.cable(&second)).await;
        other.put("Cy", "incident", "early", json!({ "description": "by Cy" })).await;
        cloud.put("VAR", "incident", "early", json!({ "description": "by the VAR" })).await;
        other.sync(&cloud.cable(&second)).await;
        let image = cloud.image().await;
        other.put("Cy", "incident", "early", json!({ "description": "by Cy, on reflection" })).await;
        other.sync(&cloud.cable(&second)).await;
        pi.sync(&cloud.cable(&token)).await;
        let waits = |open: Vec<ropeway_replica::ConflictView>| {
            open.iter().map(|v| v.conflict.incoming.values.get("description").cloned()).collect::<Vec<_>>()
        };
        let reflected = Some(json!("by Cy, on reflection"));
        assert_eq!(waits(pi.node.conflicts(&space(), true).await.unwrap()), [reflected]);
        cloud.restore(&image, "again").await;
        // The device of Cy never comes back, and the question is there as it was in the backup.
        pi.sync(&cloud.cable(&token)).await;
        let list = cloud.lost().await;
        assert!(list.iter().any(|(id, v)| id == "early" && v == "by Cy, on reflection"), "{list:?}");
        assert_equal(&cloud, &pi).await;
    });
}

#[test]
fn a_list_that_is_let_go_stays_gone_and_can_be_asked_again() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        afternoon(&cloud, &pi, &token).await;
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.answer("epoch-cloud", Resolution::Server).await, (3, 0));
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.field("race", "race-2", "name").await, Value::Null);
        assert_eq!(pi.field("race", "race-1", "name").await, "Sprint");
        assert_equal(&cloud, &pi).await;
        let kept = pi.node.history(&space(), &key("race", "race-2")).await.unwrap();
        assert!(kept.iter().any(|s| s.record.data.str("name") == Some("Relay")), "it is in the history");
        let all = cloud.node.conflicts(&space(), false).await.unwrap();
        let race = all.iter().find(|v| &*v.conflict.record == "race-2").unwrap().id.clone();
        let answer = |resolution| Resolve {
            conflict: race.clone(),
            version: None,
            resolution,
            data: None,
            notes: None,
            change: None,
        };
        for resolution in [Resolution::Reopen, Resolution::Incoming] {
            cloud.node.resolve(&space(), &desk("Jury", "admin"), answer(resolution)).await.unwrap();
        }
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.field("race", "race-2", "name").await, "Relay");
        assert_equal(&cloud, &pi).await;
    });
}

/// Whatever exchange the cable is cut in, the end is the same.
#[test]
fn a_hand_in_that_is_cut_anywhere_ends_the_same() {
    on_each(async |on| {
        // Databases on disk take long to make.
        for at in (0..9).step_by(if let On::Memory = on { 1 } else { 4 }) {
            for trouble in [Trouble::LoseRequest, Trouble::LoseAnswer] {
                let (mut cloud, pi, token, image) = venue(on).await;
                afternoon(&cloud, &pi, &token).await;
                let whole = dump(&cloud.node).await;
                cloud.restore(&image, "again").await;
                let cable = cloud.cable(&token);
                // One exchange goes through between two troubles, push and pull in turn.
                for n in 0..at {
                    let ways = if n % 2 == 0 { &cable.pushes } else { &cable.pulls };
                    ways.lock().unwrap().push_back(trouble);
                }
                for _ in 0..at + 1 {
                    pi.sync(&cable).await;
                }
                assert_eq!(cloud.lost().await.len(), 3, "{at} {trouble:?}");
                assert_equal(&cloud, &pi).await;
                cloud.accept("epoch-cloud").await;
                pi.sync(&cable).await;
                assert_eq!(dump(&cloud.node).await, whole, "{at} {trouble:?}");
                assert_equal(&cloud, &pi).await;
            }
        }
    });
}

/// The node in the middle did not go back: its own epoch stays, and its tablets only see changes.
#[test]
fn a_node_in_the_middle_keeps_its_epoch_and_hands_in_for_its_tablets() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        let tablet = Place::new(on, "tablet", true, &cloud.clock).await;
        let second = pi.device("Tablet").await;
        tablet.sync(&pi.cable(&second)).await;
        tablet.put("Dot", "incident", "dot", json!({ "race": "race-1", "description": "by Dot" })).await;
        tablet.sync(&pi.cable(&second)).await;
        afternoon(&cloud, &pi, &token).await;
        tablet.sync(&pi.cable(&second)).await;
        let (whole, epoch) = (dump(&cloud.node).await, pi.store().space(&space()).await.unwrap().epoch);
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.store().space(&space()).await.unwrap().epoch, epoch);
        assert_eq!(
            cloud.field("incident", "dot", "description").await,
            "by Dot",
            "relayed once, offered again"
        );
        tablet.sync(&pi.cable(&second)).await;
        assert_eq!(tablet.lost().await.len(), 3);
        assert_equal(&pi, &tablet).await;
        cloud.accept("epoch-cloud").await;
        pi.sync(&cloud.cable(&token)).await;
        tablet.sync(&pi.cable(&second)).await;
        assert_eq!(dump(&cloud.node).await, whole);
        for place in [&pi, &tablet] {
            assert_equal(&cloud, place).await;
        }
    });
}

/// The node in the middle is restored: its tablets bring back what they had given it, the upstream answers
/// what it knows as before, and what it never lost makes no question there.
#[test]
fn a_restored_node_in_the_middle_reads_on_and_gets_its_tablets_changes_again() {
    on_each(async |on| {
        let (cloud, mut pi, token, _) = venue(on).await;
        let tablet = Place::new(on, "tablet", true, &cloud.clock).await;
        let second = pi.device("Tablet").await;
        tablet.sync(&pi.cable(&second)).await;
        let image = pi.image().await;
        tablet.put("Dot", "incident", "sent", json!({ "race": "race-1", "description": "sent on" })).await;
        tablet.sync(&pi.cable(&second)).await;
        afternoon(&cloud, &pi, &token).await;
        tablet.put("Dot", "incident", "kept", json!({ "race": "race-1", "description": "not yet" })).await;
        tablet.sync(&pi.cable(&second)).await;
        pi.restore(&image, "pi-again").await;
        assert_eq!(pi.unsettled().await, 0);
        tablet.sync(&pi.cable(&second)).await;
        assert_eq!(pi.field("incident", "kept", "description").await, "not yet");
        for _ in 0..3 {
            pi.sync(&cloud.cable(&token)).await;
            tablet.sync(&pi.cable(&second)).await;
        }
        assert_eq!(cloud.field("incident", "kept", "description").await, "not yet");
        assert_eq!(cloud.lost().await, [], "the cloud lost nothing and is asked nothing");
        for place in [&pi, &tablet] {
            assert_eq!(place.unsettled().await, 0);
            assert_equal(&cloud, place).await;
        }
    });
}

/// Restored twice before a follower comes: what both epochs lost is handed in.
#[test]
fn an_upstream_restored_again_before_it_was_answered_loses_nothing_more() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        afternoon(&cloud, &pi, &token).await;
        cloud.restore(&image, "again").await;
        let cable = cloud.cable(&token);
        cable.pulls.lock().unwrap().push_back(Trouble::LoseAnswer);
        pi.sync(&cable).await;
        cloud.restore(&image, "once-more").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(cloud.field("incident", "late", "description").await, "late");
        assert_eq!(cloud.lost().await.len(), 3);
        assert_equal(&cloud, &pi).await;
        let asked = cloud.cable(&token).hello().await.unwrap();
        assert!(asked.epoch.contains("once-more"));
    });
}

/// The same where the list was handed in and receipted, and the pull that would have brought its questions was
/// cut; also where the epoch that gave those receipts had its clock a year ahead.
#[test]
fn what_was_handed_in_to_an_epoch_that_is_lost_too_is_handed_in_again() {
    on_each(async |on| {
        for ahead in [Duration::ZERO, Duration::from_secs(365 * 86_400)] {
            let (mut cloud, pi, token, image) = venue(on).await;
            afternoon(&cloud, &pi, &token).await;
            let right = cloud.clock.now();
            cloud.clock.advance(ahead);
            cloud.restore(&image, "again").await;
            let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: 3.into(), arrives: false };
            pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
            assert!(!cloud.lost().await.is_empty() && cloud.field("race", "race-2", "name").await.is_null());
            cloud.clock.jump_to(right.plus(1_000_000));
            cloud.restore(&image, "once-more").await;
            pi.sync(&cloud.cable(&token)).await;
            assert_eq!(cloud.lost().await.len(), 3, "ahead by {ahead:?}");
            assert_eq!(pi.unsettled().await, 0, "ahead by {ahead:?}");
            assert_equal(&cloud, &pi).await;
        }
    });
}

/// An answer that was receipted, and not pulled, by an epoch whose clock was a year ahead: the question it
/// answered is open again, here and there, and nothing waits for the year to pass.
#[test]
fn an_answer_to_a_question_of_a_lost_epoch_waits_for_nothing() {
    on_each(async |on| {
        let anyone = PROFILE.replace("resolver = \"upstream\"", "resolver = \"anyone\"");
        let (mut cloud, pi, token, _) = venue_of(on, &anyone).await;
        pi.put("Ada", "incident", "early", json!({ "description": "by Ada" })).await;
        cloud.put("VAR", "incident", "early", json!({ "description": "by the VAR" })).await;
        pi.sync(&cloud.cable(&token)).await;
        let image = cloud.image().await;
        let open = pi.node.conflicts(&space(), true).await.unwrap().pop().unwrap();
        let answer = Resolve {
            conflict: open.id.clone(),
            version: None,
            resolution: Resolution::Incoming,
            data: None,
            notes: None,
            change: None,
        };
        pi.node.resolve(&space(), &desk("Ada", "device"), answer).await.unwrap();
        let right = cloud.clock.now();
        cloud.clock.advance(Duration::from_secs(365 * 86_400));
        let cut = CutAfter { cable: Arc::new(cloud.cable(&token)), pages: 0.into(), arrives: false };
        pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
        assert_eq!(cloud.field("incident", "early", "description").await, "by Ada");
        cloud.clock.jump_to(right.plus(1_000_000));
        cloud.restore(&image, "again").await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.unsettled().await, 0);
        assert_eq!(pi.node.conflicts(&space(), true).await.unwrap().pop().unwrap().id, open.id);
        assert_equal(&cloud, &pi).await;
    });
}
