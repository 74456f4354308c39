//! The host over a database server whose connections are all taken.

use crate::{
    database::Database,
    rig::{Answer, Rig, incident, quick},
};
use reqwest::Method;
use ropeway_core::id::Epoch;
use ropeway_protocol::ProblemCode as P;
use ropeway_replica::{Clock, SystemClock};
use ropeway_store::{PostgresOptions, PostgresStore};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// More ask than there are connections, and those are held up: the others are told at once to come again, and
/// when it goes on, it goes on for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_connections_that_are_all_taken_are_told_with_a_time_to_come_again() {
    const CONNECTIONS: usize = 2;
    const ASKING: usize = 6;
    let database = Database::create().await;
    let options = PostgresOptions {
        connections: CONNECTIONS,
        patience: Duration::from_millis(200),
        ..PostgresOptions::new(database.url(), Epoch::trusted("one"), SystemClock::new().now())
    };
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    let rig = Rig::on(store, |options| options.limits = quick()).await;
    rig.push(&[incident(1)]).await.ok();
    let beside = database.connect().await;
    beside.batch_execute("BEGIN; LOCK TABLE rw_devices, rw_spaces, rw_records, rw_meta").await.unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        let request = rig.request(Method::GET, "/v1/pull", &rig.reader);
        asking.spawn(async move { Answer::of(request.send().await.unwrap()).await });
    }
    for _ in CONNECTIONS..ASKING {
        // Sooner than those who have a connection give up.
        let answer = timeout(Duration::from_secs(10), asking.join_next()).await.unwrap().unwrap().unwrap();
        let problem = answer.is(P::Unavailable);
        assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
        assert!(problem["detail"].as_str().unwrap().contains("nothing was written"), "{problem}");
    }
    beside.batch_execute("ROLLBACK").await.unwrap();
    while let Some(answer) = asking.join_next().await {
        assert!(matches!(answer.unwrap().status, 200 | 503));
    }
    rig.push(&[incident(2)]).await.ok();
    assert_eq!(rig.records("main").await, 2);
}
