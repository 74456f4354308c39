//! What sets a sync off (ISMF-023, ISMF-064, ISMF-066): every trigger, with a running follower.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{Venue, key, on_every_store, space, write};
use ropeway_core::change::Op::Create;
use ropeway_replica::{FollowOptions, Follower, Following, SyncOutcome, Trigger};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

fn follow(venue: &Venue, options: FollowOptions) -> Follower {
    Follower::spawn(venue.pi.clone(), space(), venue.cable.clone(), options)
}

/// Only what a test asks for.
fn quiet() -> FollowOptions {
    FollowOptions { every: Some(Duration::from_secs(3_600)), live: false, ..FollowOptions::default() }
}

/// Waits until the follower's state is so; fails loudly instead of hanging.
async fn until(follower: &Follower, what: &str, is: impl FnMut(&Following) -> bool) -> Following {
    let mut state = follower.state();
    let found = timeout(Duration::from_secs(20), state.wait_for(is)).await;
    found.unwrap_or_else(|_| panic!("waited in vain for: {what}")).unwrap().clone()
}

#[test]
fn a_follower_syncs_at_its_start_and_after_a_write() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        let follower = follow(&venue, quiet());
        let first = until(&follower, "the first sync", |s| s.syncs == 1).await;
        assert_eq!((first.trigger, first.online), (Some(Trigger::Start), true));
        write(&venue.pi, "referee", Create, "incident", "i1", json!({"race": "r1", "bib_number": 1})).await;
        let second = until(&follower, "a sync after the write", |s| s.trigger == Some(Trigger::Write)).await;
        assert_eq!(second.last.unwrap().outcome, Some(SyncOutcome::Done));
        venue.assert_equal().await;
    });
}

#[test]
fn the_live_stream_brings_news_without_asking() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        let follower = follow(&venue, FollowOptions { live: true, ..quiet() });
        until(&follower, "the first sync", |s| s.syncs >= 1).await;
        write(&venue.cloud, "var", Create, "incident", "c1", json!({"race": "r1", "bib_number": 1})).await;
        // A later sync may already have taken the place of the one that brought it.
        let mut state = follower.state();
        while venue.pi.get(&space(), &key("incident", "c1")).await.unwrap().is_none() {
            timeout(Duration::from_secs(20), state.changed()).await.expect("news from the cloud").unwrap();
        }
        until(&follower, "the live stream", |s| s.trigger == Some(Trigger::Live)).await;
    });
}

#[test]
fn the_upstreams_return_sets_it_off() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        let follower = follow(&venue, quiet());
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        venue.cable.cut(true);
        write(&venue.pi, "referee", Create, "incident", "i1", json!({"race": "r1", "bib_number": 1})).await;
        until(&follower, "being offline", |s| !s.online).await;
        venue.cable.cut(false);
        let back = until(&follower, "the return", |s| s.trigger == Some(Trigger::Reconnected)).await;
        assert!(back.online);
        venue.assert_equal().await;
    });
}

#[test]
fn the_interval_and_a_persons_wish_set_it_off() {
    on_every_store(|venue| async move {
        let follower = follow(&venue, FollowOptions { every: Some(Duration::from_millis(50)), ..quiet() });
        until(&follower, "the interval", |s| s.trigger == Some(Trigger::Interval)).await;
        let follower = follow(&venue, quiet());
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        let report = timeout(Duration::from_secs(20), follower.sync_now()).await.unwrap().unwrap();
        assert_eq!(report.outcome, Some(SyncOutcome::Done));
        assert_eq!(follower.state().borrow().trigger, Some(Trigger::Asked));
    });
}

/// Two followers on one store keep out of each other's way (the lease), and nothing is sent twice.
#[test]
fn two_followers_on_one_store_take_turns() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        let (a, b) = (follow(&venue, quiet()), follow(&venue, quiet()));
        until(&a, "the first sync", |s| s.syncs >= 1).await;
        until(&b, "the first sync", |s| s.syncs >= 1).await;
        for n in 0..20 {
            let values = json!({"race": "r1", "bib_number": n + 1});
            write(&venue.pi, "referee", Create, "incident", &format!("i{n}"), values).await;
        }
        let (x, y) = tokio::join!(a.sync_now(), b.sync_now());
        x.unwrap();
        y.unwrap();
        venue.assert_equal().await;
        let bodies = venue.cable.sent.lock().unwrap().clone();
        let sent: usize = bodies.iter().map(|b| String::from_utf8_lossy(b).matches("\"op\":").count()).sum();
        assert_eq!(sent, 20, "each change went once");
    });
}
