//! Retention and the horizon: a sleeping device holds back, a device from beyond the horizon pulls anew,
//! loses nothing of its own and brings nothing back to life (I10).
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::*;
use ropeway_core::{change::Op, conflict::Resolution, receipt::Verdict, retention::Keep};
use ropeway_replica::{Purge, Resolve, SyncOutcome};
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn keep() -> Keep {
    Keep { tombstones: Duration::from_secs(1), ..Keep::default() }
}

async fn purge(venue: &Venue) -> Purge {
    venue.cloud.purge(&space(), &keep(), false).await.unwrap()
}

fn tombstones(purge: &Purge) -> u64 {
    purge.rows.get("tombstones").copied().unwrap_or(0)
}

/// Three incidents on both sides.
async fn raced(venue: &Venue) {
    write(&venue.cloud, "Jury", Op::Create, "race", "race-1", json!({ "name": "Sprint" })).await;
    for id in ["kept", "deleted", "edited"] {
        write(&venue.cloud, "Jury", Op::Create, "incident", id, incident("as first seen")).await;
    }
    venue.sync().await;
    venue.sync().await;
    venue.assert_equal().await;
}

fn incident(text: &str) -> Value {
    json!({ "race": "race-1", "description": text })
}

async fn delete(venue: &Venue, id: &str) {
    let receipt = write(&venue.cloud, "Jury", Op::Delete, "incident", id, json!({})).await;
    assert_eq!(receipt.verdict, Verdict::Applied);
}

/// The sleeping device holds its tombstones back until it has pulled past them, or until the horizon.
#[test]
fn a_sleeping_device_holds_back_until_it_is_awake_or_beyond_the_horizon() {
    on_every_store(|venue| async move {
        raced(&venue).await;
        venue.advance(DAY);
        delete(&venue, "deleted").await;
        venue.advance(DAY * 170);
        assert_eq!(tombstones(&purge(&venue).await), 0, "it sleeps, and it is live");
        let dry = venue.cloud.purge(&space(), &keep(), true).await.unwrap();
        assert_eq!(dry.held.len(), 1, "{dry:?}");
        assert_eq!(
            (&*dry.held[0].name, dry.held[0].id.as_str()),
            ("Start Line Pi", &*venue.device.device.id)
        );
        assert!(dry.held[0].rows > 0, "{dry:?}");
        venue.sync().await;
        venue.sync().await;
        assert_eq!(tombstones(&purge(&venue).await), 1, "it has pulled past it");
        assert_eq!(venue.cloud.store().space(&space()).await.unwrap().digest.count, 3);
        let report = venue.sync().await;
        assert_eq!((report.outcome, report.pulled), (Some(SyncOutcome::Done), 0), "nothing to pull anew");
        venue.assert_equal().await;
    });
}

/// In a space in which nothing happened for long, an answer that moves nothing is as fresh as any other.
#[test]
fn a_receipt_counts_from_its_decision_not_from_the_last_change_before_it() {
    on_every_store(|venue| async move {
        raced(&venue).await;
        delete(&venue, "deleted").await;
        write(&venue.pi, "Anna", Op::Delete, "incident", "deleted", json!({})).await;
        venue.advance(DAY * 100);
        let report = venue.sync().await;
        assert_eq!(report.verdicts, [(Verdict::Unchanged, 1)].into(), "{report:?}");
        venue.sync().await;
        let receipts = async || purge(&venue).await.rows.get("receipts").copied();
        assert_eq!(receipts().await, None, "it was given a moment ago");
        venue.advance(DAY * 89);
        write(&venue.cloud, "Jury", Op::Create, "incident", "next", incident("much later")).await;
        venue.sync().await;
        venue.sync().await;
        assert_eq!(receipts().await, None);
        venue.advance(DAY * 2);
        assert_eq!(receipts().await, Some(1));
    });
}

/// It comes back after a year: it pulls everything anew before anything of it is decided; what was deleted
/// and purged meanwhile goes here too; its own new record arrives; its edit of what is gone waits for a
/// person, who may still have it.
#[test]
fn from_beyond_the_horizon_nothing_is_lost_and_nothing_comes_back_to_life() {
    on_every_store(|venue| async move {
        *venue.cable.page.lock().unwrap() = 1;
        raced(&venue).await;
        write(&venue.pi, "Anna", Op::Patch, "incident", "edited", json!({ "description": "from the Pi" }))
            .await;
        write(&venue.pi, "Anna", Op::Patch, "incident", "kept", json!({ "location": "gate 3" })).await;
        write(&venue.pi, "Anna", Op::Create, "incident", "new", incident("written far out")).await;
        venue.advance(DAY);
        for id in ["deleted", "edited"] {
            delete(&venue, id).await;
        }
        venue.advance(DAY * 365);
        assert_eq!(tombstones(&purge(&venue).await), 2);
        let report = venue.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Partly), "{report:?}");
        assert_eq!(report.verdicts.get(&Verdict::Parked), Some(&1), "{report:?}");
        let sent = venue.cable.sent.lock().unwrap().clone();
        assert_eq!(sent.len(), 2, "nothing was decided before everything was pulled anew");
        let changes = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["changes"].take();
        assert_eq!(changes(&sent[0]), changes(&sent[1]), "and then the same was sent again");
        venue.sync().await;
        venue.assert_equal().await;
        for node in [&venue.cloud, &venue.pi] {
            assert!(!is_live(node, "deleted").await && !is_live(node, "edited").await);
            assert_eq!(data(node, "incident", "kept").await["location"], "gate 3");
            assert_eq!(data(node, "incident", "new").await["description"], "written far out");
        }
        let open = venue.cloud.conflicts(&space(), true).await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].conflict.incoming.values["description"], "from the Pi");
        // What is left of it is no whole record: it can only be entered anew, or stay deleted.
        let answer = |resolution| Resolve {
            conflict: open[0].id.clone(),
            version: None,
            resolution,
            data: None,
            notes: None,
            change: None,
        };
        let half = venue.cloud.resolve(&space(), &desk("Jury", "admin"), answer(Resolution::Incoming)).await;
        assert!(half.is_err(), "{half:?}");
        venue.cloud.resolve(&space(), &desk("Jury", "admin"), answer(Resolution::Server)).await.unwrap();
        venue.sync().await;
        venue.assert_equal().await;
    });
}

/// A name that comes again after its tombstone was purged is no older than the deletion that a follower
/// knows.
#[test]
fn a_name_that_comes_again_reaches_who_still_has_its_tombstone() {
    on_every_store(|venue| async move {
        raced(&venue).await;
        for text in ["second", "third"] {
            write(&venue.cloud, "Jury", Op::Patch, "incident", "deleted", json!({ "description": text }))
                .await;
        }
        delete(&venue, "deleted").await;
        for _ in 0..2 {
            venue.sync().await;
        }
        venue.advance(DAY);
        assert_eq!(tombstones(&purge(&venue).await), 1);
        let again = write(&venue.cloud, "Jury", Op::Create, "incident", "deleted", incident("again")).await;
        assert_eq!((again.verdict, again.version), (Verdict::Created, 5));
        let fresh = write(&venue.cloud, "Jury", Op::Create, "incident", "fresh", incident("fresh")).await;
        write(&venue.cloud, "Jury", Op::Patch, "incident", "fresh", json!({ "location": "gate 1" })).await;
        assert_eq!(fresh.version, 5);
        venue.sync().await;
        assert_eq!(data(&venue.pi, "incident", "deleted").await["description"], "again");
        write(&venue.pi, "Anna", Op::Patch, "incident", "fresh", json!({ "location": "gate 2" })).await;
        assert_eq!(venue.sync().await.verdicts.get(&Verdict::Applied), Some(&1), "and bases fit");
        venue.sync().await;
        venue.assert_equal().await;
    });
}

/// A cloud with a race and nine incidents, of which the Pi has read nothing; it gives two records a page.
async fn unread(venue: &Venue) {
    write(&venue.cloud, "Jury", Op::Create, "race", "race-1", json!({ "name": "Sprint" })).await;
    for n in 0..9 {
        write(&venue.cloud, "Jury", Op::Create, "incident", &format!("i{n}"), incident("seen")).await;
    }
    *venue.cable.page.lock().unwrap() = 2;
}

/// Whoever begins with nothing has missed no deletion, however many were forgotten before: the first pull
/// goes on from page to page, and so does what waits to be sent.
#[test]
fn a_first_pull_of_many_pages_reaches_its_end_where_deletions_were_forgotten() {
    on_every_store(|venue| async move {
        unread(&venue).await;
        delete(&venue, "i4").await;
        venue.advance(DAY);
        assert_eq!(tombstones(&purge(&venue).await), 1);
        let report = venue.sync().await;
        assert_eq!((report.outcome, report.pulled), (Some(SyncOutcome::Done), 9), "{report:?}");
        write(&venue.pi, "Anna", Op::Patch, "incident", "i1", json!({ "location": "gate 3" })).await;
        assert_eq!(venue.sync().await.verdicts.get(&Verdict::Applied), Some(&1));
        venue.assert_equal().await;
    });
}

/// F22: what was read already is deleted, and that is forgotten, while the first pull is cut for a year: it
/// begins anew, and the deletion is not missed.
#[test]
fn what_is_forgotten_during_a_pull_makes_it_begin_anew() {
    on_every_store(|venue| async move {
        unread(&venue).await;
        let cut = CutAfter { cable: venue.cable.clone(), pages: 2.into(), arrives: false };
        let report = venue.pi.sync(&space(), &cut, &Default::default(), &|_| {}).await.unwrap();
        assert_eq!((report.outcome, report.pulled), (Some(SyncOutcome::Offline), 4));
        delete(&venue, "i0").await;
        venue.advance(DAY * 365);
        assert_eq!(tombstones(&purge(&venue).await), 1);
        let report = venue.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Done), "{report:?}");
        assert!(!is_live(&venue.pi, "i0").await);
        venue.assert_equal().await;
    });
}

async fn is_live(node: &ropeway_replica::Node, id: &str) -> bool {
    let record = node.get(&space(), &key("incident", id)).await.unwrap();
    record.is_some_and(|record| record.is_live())
}
