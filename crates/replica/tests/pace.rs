//! How soon and how often a follower asks: at once for what is written during a sync, and not over and
//! over where the upstream refuses.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use async_trait::async_trait;
use bytes::Bytes;
use ropeway_core::{
    change::Op,
    digest::Digest,
    doc::Fields,
    id::{Collection, Epoch, SpaceId},
    profile,
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, Page, PageEnd, Problem, ProblemCode, Pushed, Transport, TransportError};
use ropeway_replica::{
    Clock, Desk, Edit, FollowOptions, Follower, Node, NodeOptions, RandomIds, SystemClock,
};
use ropeway_store::MemoryStore;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

const PROFILE: &str = r#"
name = "pace"
version = 1
resolver = "upstream"
retry = ["1m"]
[roles.admin]
write = "*"
resolve = true
[collections.note]
merge = "park"
[collections.note.fields]
text = "text"
"#;

/// An upstream that refuses every push. Where it is slow a pull waits until it is let go, the first one excepted.
#[derive(Default)]
struct Refuses {
    slow: bool,
    pushes: Mutex<Vec<Instant>>,
    pulls: Mutex<usize>,
    go: Notify,
}

#[async_trait]
impl Transport for Refuses {
    async fn hello(&self) -> Result<Hello, TransportError> {
        let (service, build, profile) = ("ropeway".into(), "1".into(), "pace 1".into());
        Ok(Hello {
            service,
            build,
            schema: 1,
            epoch: Epoch::trusted("upstream"),
            profile,
            now: Time(0),
            offset: None,
        })
    }
    async fn push(&self, _: Bytes) -> Result<Pushed, TransportError> {
        self.pushes.lock().unwrap().push(Instant::now());
        Err(TransportError::Problem(Problem::new(ProblemCode::Forbidden, "not by this device")))
    }
    async fn pull(&self, _: Option<&str>, _: usize) -> Result<Page, TransportError> {
        let pulls = {
            let mut pulls = self.pulls.lock().unwrap();
            *pulls += 1;
            *pulls
        };
        if self.slow && pulls > 1 {
            self.go.notified().await;
        }
        let (epoch, head) = (Epoch::trusted("upstream"), Stamp(1));
        let digest = Digest::default();
        let end = PageEnd {
            cursor: "1".into(),
            epoch,
            head,
            count: 0,
            digest,
            complete: true,
            now: Time(0),
            audiences: None,
        };
        Ok(Page { rows: Vec::new(), end })
    }
    async fn live(&self, _: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        std::future::pending().await
    }
}

async fn node() -> (Node, SpaceId) {
    let profile = Arc::new(profile::parse(PROFILE, "pace.toml").unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Arc::new(MemoryStore::new(Epoch::trusted("here"), true));
    let node = Node::open(NodeOptions { store, profile, clock, ids: Arc::new(RandomIds), follows: true });
    let (node, space) = (node.await.unwrap(), SpaceId::trusted("main"));
    node.open_space(&space).await.unwrap();
    (node, space)
}

async fn write(node: &Node, space: &SpaceId) {
    let desk = Desk { person: None, role: "admin".into() };
    let fields = Fields::from([("text".to_owned(), "written".into())]);
    let collection = Collection::trusted("note");
    let edit = Edit { change: None, collection, record: None, op: Op::Create, fields, version: None };
    node.write(space, &desk, edit).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_refuses_is_asked_at_the_pace_of_the_probe() {
    let ((node, space), upstream) = (node().await, Arc::new(Refuses::default()));
    let _follower = Follower::spawn(node.clone(), space.clone(), upstream.clone(), FollowOptions::default());
    for _ in 0..3 {
        write(&node, &space).await;
        sleep(Duration::from_millis(300)).await;
    }
    sleep(Duration::from_secs(60)).await;
    let asked = upstream.pushes.lock().unwrap().len();
    assert!((4..=6).contains(&asked), "asked {asked} times in a minute; the probe is every 15 seconds");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_during_a_sync_goes_out_right_after_it() {
    let ((node, space), upstream) = (node().await, Arc::new(Refuses { slow: true, ..Refuses::default() }));
    let options = FollowOptions { every: Some(Duration::from_secs(60)), ..FollowOptions::default() };
    let _follower = Follower::spawn(node.clone(), space.clone(), upstream.clone(), options);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(*upstream.pulls.lock().unwrap(), 2, "the second sync is pulling");
    write(&node, &space).await;
    sleep(Duration::from_secs(5)).await;
    upstream.go.notify_one();
    let released = Instant::now();
    sleep(Duration::from_secs(5)).await;
    let pushed = *upstream.pushes.lock().unwrap().first().unwrap();
    assert!(pushed - released < Duration::from_millis(200), "it took {:?}", pushed - released);
}
