//! What the simulator found about audiences, each as a story that failed before it was mended.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    On, Venue, data, key,
    pair::{at, holds},
    space,
};
use ropeway_core::{
    change::{
        Author, Change,
        Op::{Create, Delete, Patch},
    },
    id::ChangeId,
    receipt::Verdict,
    retention::Keep,
};
use ropeway_replica::{Node, SyncOptions};
use serde_json::json;
use std::time::Duration;

const PROFILE: &str = harness::parts!(
    r#"
[roles.device]
write = "*"
[collections.competition]
audience = { key = "competition:{id}" }
fields = { name = "text" }
[collections.race]
references = { competition = "competition" }
audience = { from = ["competition"] }
merge = "latest"
fields = { name = "text" }
[collections.licence]
references = { competition = "competition" }
audience = { from = ["competition"] }
same = { on = ["number"] }
fields = { number = "text" }
[collections.badge]
merge = "park"
delete = "park"
fields = { holder = "text" }
"#
);

/// A Pi with one of two competitions.
async fn venue(on: On) -> Venue {
    let venue = Venue::of(on, PROFILE, "venue").await;
    for on in [true, false] {
        // Once it had the other one too: so it may name it.
        venue.cloud.subscribe(&venue.device.device, "competition:b", on).await.unwrap();
    }
    for c in ["a", "b"] {
        at(&venue.cloud, Create, &format!("competition/{c}"), json!({"name": c})).await;
        at(&venue.cloud, Create, &format!("licence/l{c}"), json!({"competition": c, "number": c})).await;
    }
    choose(&venue, true).await;
    venue.sync().await;
    venue
}

async fn choose(venue: &Venue, on: bool) {
    venue.cloud.subscribe(&venue.device.device, "competition:a", on).await.unwrap();
}

/// I11: its own change takes the record out of its author's sight, or the author's membership with it.
#[tokio::test]
async fn a_receipt_shows_nothing_that_its_author_sees_no_longer() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        at(&venue.cloud, Create, "race/r", json!({"competition": "a", "name": "one"})).await;
        venue.sync().await;
        at(&venue.cloud, Patch, "race/r", json!({"name": "two"})).await;
        let device = &venue.device.device;
        let moved = Change {
            id: ChangeId::trusted("out"),
            collection: key("race", "r").collection,
            record: key("race", "r").id,
            op: Patch,
            fields: harness::fields(json!({"competition": "b"})),
            seen: None,
            base: None,
            lost: None,
            author: Author { device: device.id.clone(), person: None },
            at: None,
        };
        let grant = venue.cloud.grant_of(device);
        let receipts = venue.cloud.ingest(&space(), grant, vec![moved]).await.unwrap();
        assert!(receipts[0].verdict.is_settled(), "{receipts:?}");
        assert!(receipts[0].record.is_none() && receipts[0].version == 0, "{receipts:?}");
    }
}

/// I6: a change of a record that is elsewhere is handed on; where the record comes back before it is decided, it
/// does not show with a parent that this node has not got.
#[tokio::test]
async fn what_was_only_handed_on_shows_no_record_without_its_parent() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        at(&venue.cloud, Create, "competition/c", json!({"name": "c"})).await;
        at(&venue.cloud, Create, "race/r", json!({"competition": "a", "name": "one"})).await;
        venue.sync().await;
        at(&venue.cloud, Patch, "race/r", json!({"competition": "c"})).await;
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "a la", "the race has left");
        let tablet = harness::enrolled(&venue.pi, "tablet", "device").await.device;
        let moved = Change {
            id: ChangeId::trusted("out"),
            collection: key("race", "r").collection,
            record: key("race", "r").id,
            op: Patch,
            fields: harness::fields(json!({"competition": "c"})),
            seen: None,
            base: None,
            lost: None,
            author: Author { device: tablet.id.clone(), person: None },
            at: None,
        };
        let grant = venue.pi.grant_of(&tablet);
        let receipts = venue.pi.ingest(&space(), grant, vec![moved]).await.unwrap();
        assert_eq!(receipts[0].verdict, Verdict::Merged);
        at(&venue.cloud, Patch, "race/r", json!({"competition": "a"})).await;
        venue.sync().await;
        assert_eq!(venue.pi.queue(&space()).await.unwrap().len(), 1, "the Pi may not name it");
        assert_eq!(data(&venue.pi, "race", "r").await["competition"], "a");
        assert_eq!(holds(&venue.pi).await, "a la r");
    }
}

/// I5: joined here to a record that leaves, a record that nobody answered to still leads there.
#[tokio::test]
async fn what_an_unsettled_record_was_joined_into_stays_as_long_as_it() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        *venue.cable.refuse.lock().unwrap() = Some("A".into());
        let verdict = at(&venue.pi, Create, "licence/mine", json!({"competition": "a", "number": "A"})).await;
        assert_eq!(verdict, Verdict::Joined);
        choose(&venue, false).await;
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "a la mine");
        let waiting: Vec<i64> = venue.pi.queue(&space()).await.unwrap().iter().map(|q| q.seq).collect();
        assert_eq!(venue.pi.queue_discard(&space(), &waiting).await.unwrap(), 1);
        assert_eq!(holds(&venue.pi).await, "", "given up, all of it goes at once");
        let (theirs, ours) = venue.sync().await.digests.unwrap();
        assert_eq!(theirs, ours);
    }
}

/// I6: what an unsettled record refers to leaves with it, also where the record moved away before.
#[tokio::test]
async fn what_an_unsettled_record_needs_stays_as_long_as_it() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        *venue.cable.refuse.lock().unwrap() = Some("held".into());
        at(&venue.pi, Create, "race/held", json!({"competition": "a", "name": "held"})).await;
        choose(&venue, false).await;
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "a held");
        *venue.cable.refuse.lock().unwrap() = None;
        venue.pi.queue_retry(&space(), &[]).await.unwrap();
        let (theirs, ours) = venue.sync().await.digests.unwrap();
        assert_eq!((theirs, holds(&venue.pi).await.as_str()), (ours, ""));
        assert_eq!(data(&venue.cloud, "race", "held").await["competition"], "a");
    }
}

/// A record comes back to a node that has purged its tombstone, after a conflict about it had come.
#[tokio::test]
async fn a_record_that_comes_back_is_contested_where_a_conflict_about_it_is_open() {
    for on in [On::Memory, On::Sqlite] {
        let venue = Venue::of(on, PROFILE, "device").await;
        at(&venue.cloud, Create, "badge/b", json!({"holder": "Ada"})).await;
        venue.sync().await;
        let device = &venue.device.device;
        let change = Change {
            id: ChangeId::trusted("late"),
            collection: key("badge", "b").collection,
            record: key("badge", "b").id,
            op: Patch,
            fields: harness::fields(json!({"holder": "Eva"})),
            seen: Some(harness::fields(json!({"holder": "Ada"}))),
            base: None,
            lost: None,
            author: Author { device: device.id.clone(), person: None },
            at: None,
        };
        at(&venue.cloud, Delete, "badge/b", json!({})).await;
        venue.sync().await;
        venue.advance(Duration::from_secs(3_600));
        let keep = Keep { tombstones: Duration::from_secs(1), ..Keep::default() };
        venue.pi.purge(&space(), &keep, false).await.unwrap();
        assert!(venue.pi.get(&space(), &key("badge", "b")).await.unwrap().is_none());
        let grant = venue.cloud.grant_of(device);
        let receipts = venue.cloud.ingest(&space(), grant, vec![change]).await.unwrap();
        assert_eq!(receipts[0].verdict, Verdict::Parked, "{receipts:?}");
        venue.sync().await;
        at(&venue.cloud, Patch, "badge/b", json!({})).await;
        venue.sync().await;
        let contested = async |node: &Node| {
            let record = node.get(&space(), &key("badge", "b")).await.unwrap().unwrap();
            (record.is_live(), record.contested)
        };
        assert_eq!(contested(&venue.cloud).await, (true, true));
        assert_eq!(contested(&venue.pi).await, (true, true));
    }
}

/// Revoked and registered anew, a device holds other audiences: what it may not see any more goes.
#[tokio::test]
async fn registered_anew_a_node_lets_go_of_what_it_may_not_see() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        venue.cloud.revoke(&space(), &venue.device.device.id).await.unwrap();
        let again = harness::enrolled(&venue.cloud, "again", "venue").await;
        venue.cable.use_token(&again.token);
        venue.cloud.subscribe(&again.device, "competition:b", true).await.unwrap();
        let (theirs, ours) = venue.sync().await.digests.unwrap();
        assert_eq!((theirs, holds(&venue.pi).await.as_str()), (ours, "b lb"));
        assert_eq!(venue.sync().await.pulled, 0);
    }
}

/// I3, I11: an edit of what its author saw once, when even that is forgotten: a person decides, the author is told
/// nothing of the record.
#[tokio::test]
async fn an_edit_of_what_is_out_of_sight_for_so_long_that_it_is_forgotten_is_put_to_a_person() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        at(&venue.pi, Patch, "competition/a", json!({"name": "from the Pi"})).await;
        choose(&venue, false).await;
        at(&venue.cloud, Create, "badge/x", json!({"holder": "x"})).await;
        at(&venue.cloud, Delete, "badge/x", json!({})).await;
        venue.advance(Duration::from_secs(400 * 86_400));
        let purged = venue.cloud.purge(&space(), &Keep::default(), false).await.unwrap().rows;
        assert!(purged["tombstones"] == 1 && purged["audiences"] > 0, "{purged:?}");
        for _ in 0..2 {
            venue.sync().await;
        }
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty(), "it was taken");
        let open = venue.cloud.conflicts(&space(), true).await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].conflict.incoming.values["name"], "from the Pi");
        assert_eq!(open[0].conflict.server.values["name"], "a");
        assert!(!open[0].conflict.server.deleted);
        assert_eq!(data(&venue.cloud, "competition", "a").await["name"], "a");
        assert_eq!(holds(&venue.pi).await, "");
        let answer = ropeway_replica::Resolve {
            conflict: open[0].id.clone(),
            version: None,
            resolution: ropeway_core::conflict::Resolution::Incoming,
            data: None,
            notes: None,
            change: None,
        };
        venue.cloud.resolve(&space(), &harness::desk("jury", "admin"), answer).await.unwrap();
        assert_eq!(data(&venue.cloud, "competition", "a").await["name"], "from the Pi");
    }
}

/// I4, I10: a node in the middle that sees a part pulls anew from beyond the horizon. What is for everybody and was deleted
/// meanwhile is deleted there too, and not only let go: followers would never hear of it.
#[tokio::test]
async fn what_a_part_that_is_pulled_anew_no_longer_has_is_deleted_for_its_followers() {
    for on in [On::Memory, On::Sqlite] {
        let venue = venue(on).await;
        at(&venue.cloud, Create, "badge/gone", json!({"holder": "Ada"})).await;
        at(&venue.cloud, Create, "badge/stays", json!({"holder": "Eva"})).await;
        venue.sync().await;
        let tablet = harness::node(On::Memory, &venue.ground, PROFILE, "tablet", true, &venue.clock).await;
        let token = harness::enrolled(&venue.pi, "Tablet", "device").await.token;
        let cable = harness::Cable::new(venue.pi.clone(), token);
        let sync = async || tablet.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
        sync().await;
        assert_eq!(holds(&tablet).await, "gone stays a la");
        at(&venue.cloud, Delete, "badge/gone", json!({})).await;
        venue.advance(Duration::from_secs(400 * 86_400));
        assert_eq!(venue.cloud.purge(&space(), &Keep::default(), false).await.unwrap().rows["tombstones"], 1);
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "stays a la");
        let (theirs, ours) = sync().await.digests.unwrap();
        assert_eq!((theirs, holds(&tablet).await.as_str()), (ours, "stays a la"));
    }
}

/// A tombstone that came before the one of its parent, in another portion of a first pull: whose question about it is
/// whose, a node in the middle knows all the same.
#[tokio::test]
async fn a_question_about_what_was_deleted_before_its_parent_reaches_whom_it_is_for() {
    for on in [On::Memory, On::Sqlite] {
        let venue = Venue::of(on, PROFILE, "venue").await;
        choose(&venue, true).await;
        at(&venue.cloud, Create, "competition/a", json!({"name": "a"})).await;
        at(&venue.cloud, Create, "race/r", json!({"competition": "a", "name": "one"})).await;
        at(&venue.cloud, Delete, "race/r", json!({})).await;
        at(&venue.cloud, Delete, "competition/a", json!({})).await;
        *venue.cable.page.lock().unwrap() = 1;
        venue.sync().await;
        let tablet = harness::node(On::Memory, &venue.ground, PROFILE, "tablet", true, &venue.clock).await;
        let enrolled = harness::enrolled(&venue.pi, "Tablet", "venue").await;
        venue.pi.subscribe(&enrolled.device, "competition:a", true).await.unwrap();
        let cable = harness::Cable::new(venue.pi.clone(), enrolled.token);
        assert_eq!(at(&venue.pi, Patch, "race/r", json!({"name": "two"})).await, Verdict::Parked);
        venue.sync().await;
        let report = tablet.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
        let (theirs, ours) = report.digests.unwrap();
        assert_eq!(theirs, ours);
        let open = async |node: &Node| node.conflicts(&space(), true).await.unwrap().len();
        assert_eq!((open(&venue.cloud).await, open(&venue.pi).await, open(&tablet).await), (1, 1, 1));
    }
}
