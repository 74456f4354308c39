//! What `/metrics` costs and whom it depends on: an app that cannot count takes nothing else away, and whoever hangs
//! up makes nobody count again.

use crate::rig::{Rig, quick};
use futures_util::{FutureExt, future::BoxFuture};
use reqwest::Method;
use ropeway_core::id::SpaceId;
use ropeway_replica::{Node, ReplicaError};
use ropeway_server::{Rate, Rates};
use ropeway_store::MemoryStore;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

type Counted = BoxFuture<'static, Result<Vec<Rate>, ReplicaError>>;

async fn counted_by(rates: Rates) -> Rig {
    let store = MemoryStore::new(ropeway_core::id::Epoch::parse("epoch-1").unwrap(), false);
    Rig::on(Arc::new(store), |options| (options.limits, options.rates) = (quick(), Some(rates))).await
}

#[tokio::test]
async fn an_app_that_cannot_count_takes_nothing_else_away() {
    fn fails(_: Node, _: SpaceId) -> Counted {
        async { Err(ReplicaError::Invalid("the disk is full".into())) }.boxed()
    }
    let rig = counted_by(fails).await;
    for _ in 0..2 {
        let metrics = rig.get("/metrics", "").await.text;
        assert!(metrics.contains("ropeway_conflicts_open 0"), "{metrics}");
        assert!(metrics.contains("ropeway_store_size_bytes"), "{metrics}");
    }
}

#[tokio::test]
async fn whoever_hangs_up_makes_nobody_count_again() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    fn never_ends(_: Node, _: SpaceId) -> Counted {
        BEGUN.fetch_add(1, SeqCst);
        std::future::pending().boxed()
    }
    let rig = counted_by(never_ends).await;
    let ask = |patience| rig.request(Method::GET, "/metrics", "").timeout(Duration::from_millis(patience));
    assert!(ask(300).send().await.is_err(), "it hung up");
    let metrics = ask(5_000).send().await.expect("in time").text().await.unwrap();
    assert!(metrics.contains("ropeway_conflicts_open 0"), "{metrics}");
    assert_eq!(BEGUN.load(SeqCst), 1);
}
