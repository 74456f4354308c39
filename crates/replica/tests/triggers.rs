//! What sets a sync off (ISMF-023, ISMF-064, ISMF-066): every trigger, with a running follower.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use async_trait::async_trait;
use bytes::Bytes;
use harness::{Cable, Venue, key, on_every_store, space, write};
use ropeway_core::{
    change::Op::Create,
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, Page, Pushed, Transport, TransportError};
use ropeway_replica::{FollowOptions, Follower, Following, SyncOutcome, Trigger};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

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

/// What is written after a quiet time goes at once, however long the pause between two such syncs is.
#[test]
fn a_write_after_a_quiet_time_does_not_wait() {
    on_every_store(|venue| async move {
        let follower = follow(&venue, FollowOptions { debounce: Duration::from_secs(3_600), ..quiet() });
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        write(&venue.pi, "referee", Create, "race", "r1", json!({"name": "Sprint"})).await;
        let second = until(&follower, "the write", |s| s.syncs == 2).await;
        assert_eq!(second.trigger, Some(Trigger::Write));
        venue.assert_equal().await;
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

/// A cable that counts what goes on, and on which pushes can be made to stand still after they were decided.
struct Watched {
    cable: Arc<Cable>,
    hellos: AtomicUsize,
    /// Live streams open now.
    streams: watch::Sender<usize>,
    /// Streams opened so far.
    opened: watch::Sender<usize>,
    holding: watch::Sender<bool>,
    /// Pushes that stand still.
    held: watch::Sender<usize>,
}

impl Watched {
    fn on(venue: &Venue) -> Arc<Self> {
        Arc::new(Self {
            cable: venue.cable.clone(),
            hellos: AtomicUsize::new(0),
            streams: watch::Sender::new(0),
            opened: watch::Sender::new(0),
            holding: watch::Sender::new(false),
            held: watch::Sender::new(0),
        })
    }
}

/// Counts one less when it is dropped, however that comes.
struct Open<'a>(&'a watch::Sender<usize>);

impl<'a> Open<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Transport for Watched {
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.hellos.fetch_add(1, SeqCst);
        self.cable.hello().await
    }
    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        let pushed = self.cable.push(body).await;
        let _held = Open::new(&self.held);
        let _ = self.holding.subscribe().wait_for(|holding| !holding).await;
        pushed
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.cable.pull(cursor, limit).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.opened.send_modify(|opened| *opened += 1);
        let _open = Open::new(&self.streams);
        self.cable.live(on_head).await
    }
}

/// Waits for a count; fails loudly instead of hanging.
async fn reaches(count: &watch::Sender<usize>, what: &str, is: impl Fn(usize) -> bool) {
    let mut count = count.subscribe();
    let found = timeout(Duration::from_secs(20), count.wait_for(|count| is(*count))).await;
    found.unwrap_or_else(|_| panic!("waited in vain for: {what}")).unwrap();
}

#[test]
fn the_foreground_syncs_at_once_unless_the_last_sync_is_fresh() {
    on_every_store(|venue| async move {
        let follower = follow(&venue, quiet());
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        follower.foreground();
        // Fresh: nothing happens. What a person asks for afterwards is the second sync, not the third.
        timeout(Duration::from_secs(20), follower.sync_now()).await.unwrap().unwrap();
        assert_eq!(follower.state().borrow().syncs, 2);
        write(&venue.cloud, "admin", Create, "race", "r2", json!({"name": "Relay"})).await;
        venue.advance(Duration::from_secs(11));
        follower.foreground();
        let third = until(&follower, "the foreground", |s| s.syncs == 3).await;
        assert_eq!(third.trigger, Some(Trigger::Foreground));
        venue.assert_equal().await;
        // While a machine is suspended its monotonic clock stands; the wall clock tells.
        let later = venue.pi.clock().now().plus(11_000_000);
        venue.clock.jump_to(later);
        follower.foreground();
        let fourth = until(&follower, "the foreground", |s| s.syncs == 4).await;
        assert_eq!(fourth.trigger, Some(Trigger::Foreground));
    });
}

/// The foreground of an app without a network asks who is there, at once, and syncs only if somebody is.
#[test]
fn the_foreground_syncs_only_if_the_upstream_answers() {
    on_every_store(|venue| async move {
        let watched = Watched::on(&venue);
        venue.cable.cut(true);
        let options = FollowOptions { probe: Duration::from_secs(3_600), ..quiet() };
        let follower = Follower::spawn(venue.pi.clone(), space(), watched.clone(), options);
        // Offline: from here on it looks again only after a long while.
        until(&follower, "being offline", |s| s.syncs == 1 && !s.online).await;
        let asked = watched.hellos.load(SeqCst);
        follower.foreground();
        let probed = async {
            while watched.hellos.load(SeqCst) == asked {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_millis(900), probed).await.expect("it did not look at once");
        assert_eq!(follower.state().borrow().syncs, 1, "nothing is sent to nobody");
        venue.cable.cut(false);
        follower.foreground();
        let back = until(&follower, "the return", |s| s.syncs == 2).await;
        assert_eq!((back.trigger, back.online), (Some(Trigger::Reconnected), true));
    });
}

#[test]
fn an_app_that_sleeps_moves_nothing_and_catches_up_when_it_wakes() {
    on_every_store(|venue| async move {
        let watched = Watched::on(&venue);
        let options = FollowOptions { live: true, every: Some(Duration::from_millis(20)), ..quiet() };
        let follower = Follower::spawn(venue.pi.clone(), space(), watched.clone(), options);
        reaches(&watched.streams, "the live stream", |open| open == 1).await;
        timeout(Duration::from_secs(20), follower.asleep()).await.expect("it never sleeps");
        assert_eq!(*watched.streams.borrow(), 0, "no stream is left open");
        let (syncs, hellos) = (follower.state().borrow().syncs, watched.hellos.load(SeqCst));
        // Neither news, nor a write, nor time wakes it.
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        write(&venue.pi, "referee", Create, "race", "r2", json!({"name": "Relay"})).await;
        venue.advance(Duration::from_secs(3_600));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let state = follower.state().borrow().clone();
        assert_eq!((state.syncs, watched.hellos.load(SeqCst), state.asleep), (syncs, hellos, true));
        // A task that the system grants to a sleeping app may still sync, and it sleeps on.
        let report = timeout(Duration::from_secs(20), follower.sync_now()).await.unwrap().unwrap();
        assert_eq!((report.outcome, report.pushed), (Some(SyncOutcome::Done), 1));
        until(&follower, "sleeping on", |s| s.asleep).await;
        assert_eq!(*watched.streams.borrow(), 0);
        write(&venue.cloud, "admin", Create, "race", "r3", json!({"name": "Vertical"})).await;
        venue.advance(Duration::from_secs(3_600));
        follower.foreground();
        let woken = until(&follower, "waking up", |s| s.syncs > syncs + 1 && !s.asleep).await;
        assert!(woken.online);
        reaches(&watched.streams, "the live stream", |open| open == 1).await;
        venue.assert_equal().await;
    });
}

/// A sync that does not end in time is cut where it stands: decided there, unanswered here. Nothing is lost and
/// nothing goes twice.
#[test]
fn a_sync_that_runs_on_is_cut_when_the_app_falls_asleep() {
    on_every_store(|venue| async move {
        let watched = Watched::on(&venue);
        let options = FollowOptions { grace: Duration::from_millis(50), ..quiet() };
        let follower = Follower::spawn(venue.pi.clone(), space(), watched.clone(), options);
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        watched.holding.send_replace(true);
        write(&venue.pi, "referee", Create, "race", "r1", json!({"name": "Sprint"})).await;
        reaches(&watched.held, "the push to stand still", |held| held == 1).await;
        timeout(Duration::from_secs(20), follower.asleep()).await.expect("it never sleeps");
        assert_eq!((*watched.held.borrow(), follower.state().borrow().syncs), (0, 1), "it was cut");
        watched.holding.send_replace(false);
        // The lease is free at once: nobody waits for what was cut.
        follower.foreground();
        let woken = until(&follower, "waking up", |s| s.syncs == 2).await;
        assert_eq!(woken.trigger, Some(Trigger::Foreground));
        assert_eq!(woken.last.unwrap().outcome, Some(SyncOutcome::Done));
        venue.assert_equal().await;
        let record = venue.cloud.get(&space(), &key("race", "r1")).await.unwrap().unwrap();
        assert_eq!(record.version, 1, "the change took effect once");
    });
}

/// One that ends in time is let end.
#[test]
fn a_sync_that_ends_in_time_is_not_cut() {
    on_every_store(|venue| async move {
        let watched = Watched::on(&venue);
        let options = FollowOptions { grace: Duration::from_secs(60), ..quiet() };
        let follower = Follower::spawn(venue.pi.clone(), space(), watched.clone(), options);
        until(&follower, "the first sync", |s| s.syncs == 1).await;
        watched.holding.send_replace(true);
        write(&venue.pi, "referee", Create, "race", "r1", json!({"name": "Sprint"})).await;
        reaches(&watched.held, "the push to stand still", |held| held == 1).await;
        let release = async {
            tokio::task::yield_now().await;
            watched.holding.send_replace(false);
        };
        let (slept, ()) = tokio::join!(timeout(Duration::from_secs(20), follower.asleep()), release);
        slept.expect("it never sleeps");
        assert_eq!(follower.state().borrow().syncs, 2);
        venue.assert_equal().await;
    });
}

/// While a machine is suspended no timer runs and the stream dies without a word. When it wakes up, the wall
/// clock is ahead of the monotonic one: both begin anew. The same when a clock is set, either way.
#[test]
fn a_machine_that_was_suspended_syncs_and_listens_anew() {
    on_every_store(|venue| async move {
        let watched = Watched::on(&venue);
        let options = FollowOptions { live: true, ..quiet() };
        let follower = Follower::spawn(venue.pi.clone(), space(), watched.clone(), options);
        // The first stream begins with news; the later ones begin with the same head.
        until(&follower, "the live stream", |s| s.trigger == Some(Trigger::Live)).await;
        let slept: [fn(Time) -> Time; 2] =
            [|now| now.plus(8 * 3_600_000_000), |now| now.plus(-365 * 86_400_000_000)];
        for jump in slept {
            let (syncs, opened) = (follower.state().borrow().syncs, *watched.opened.borrow());
            venue.clock.jump_to(jump(venue.pi.clock().now()));
            let woken = until(&follower, "waking up", |s| s.syncs > syncs).await;
            assert_eq!(woken.trigger, Some(Trigger::Resumed));
            reaches(&watched.opened, "a new stream", |now| now > opened).await;
        }
    });
}
