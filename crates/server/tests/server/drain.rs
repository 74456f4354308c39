//! The orderly end: requests in flight finish, streams end, and nothing holds it up for longer than allowed.

use crate::rig::{Rig, incident, quick, rest};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};

#[tokio::test]
async fn a_push_in_flight_finishes_and_then_nobody_is_served() {
    let mut rig = Rig::new().await;
    let body = json!({ "changes": [incident(1)] }).to_string();
    let mut socket = rig.raw(&rig.half_a_push(&body, 30)).await;
    let mut stream = rig.request(Method::GET, "/v1/live", &rig.reader).send().await.unwrap();
    let idle = TcpStream::connect(rig.address).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    rig.stop();
    sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(rig.address).await.is_err(), "no new connections");
    while let Ok(Some(_)) = stream.chunk().await {}
    socket.write_all(&body.as_bytes()[30..]).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    let receipts: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(receipts["receipts"][0]["verdict"], "created");
    assert_eq!(rig.records("main").await, 1);
    drop(idle);
    assert_eq!(rig.ended().await.cut, 0);
}

#[tokio::test]
async fn what_does_not_finish_is_cut_at_the_deadline() {
    let mut limits = quick();
    (limits.body_idle, limits.drain) = (Duration::from_secs(60), Duration::from_millis(500));
    let mut rig = Rig::with(limits, Vec::new()).await;
    let body = json!({ "changes": [incident(1)] }).to_string();
    let _socket = rig.raw(&rig.half_a_push(&body, 30)).await;
    sleep(Duration::from_millis(100)).await;
    let node = rig.node.clone();
    let started = Instant::now();
    rig.stop();
    assert_eq!(rig.ended().await.cut, 1);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(node.devices().await.unwrap().len(), 4, "the node itself is still there");
}

#[tokio::test]
async fn with_nothing_in_flight_it_ends_at_once() {
    let mut rig = Rig::new().await;
    rig.get("/health/live", "").await.ok();
    let started = Instant::now();
    rig.stop();
    assert_eq!(rig.ended().await.cut, 0);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}
