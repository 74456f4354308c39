//! The live stream: the head at once, every later one, and its ends.

use crate::rig::{Answer, Rig, incident, quick};
use reqwest::{Method, Response};
use ropeway_core::time::Stamp;
use ropeway_protocol::{ProblemCode as P, Transport};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(3);

async fn listen(rig: &Rig, token: &str) -> Response {
    rig.request(Method::GET, "/v1/live", token).send().await.unwrap()
}

/// Reads until `word` has come in.
async fn until(response: &mut Response, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let piece = timeout(SOON, response.chunk()).await.expect("in time").unwrap().expect("no end yet");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    text
}

/// Reads to the end.
async fn ended(mut response: Response) {
    let end = async { while let Ok(Some(_)) = response.chunk().await {} };
    timeout(SOON, end).await.expect("the stream should have ended");
}

#[tokio::test]
async fn heads_come_at_once_and_after_each_push() {
    let rig = Rig::new().await;
    let mut stream = listen(&rig, &rig.reader).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert!(stream.headers().get("content-encoding").is_none());
    assert!(until(&mut stream, "\n\n").await.contains("event: head"));
    let pushed = rig.push(&[incident(1)]).await.ok();
    let head = &pushed["receipts"][0]["stamp"];
    let text = until(&mut stream, &format!("data: {{\"head\":{head}}}")).await;
    assert!(text.contains("event: head") && text.contains(&format!("id: {head}")), "{text}");
    until(&mut stream, ":\n\n").await;
}

#[tokio::test]
async fn a_follower_hears_of_news() {
    let rig = Rig::new().await;
    let (heard, transport) = (Arc::new(Mutex::new(Vec::new())), rig.transport(&rig.reader));
    let hearing = heard.clone();
    let listening = tokio::spawn(async move {
        transport.live(Box::new(move |head: Stamp| hearing.lock().unwrap().push(head))).await
    });
    sleep(Duration::from_millis(200)).await;
    rig.push(&[incident(1)]).await.ok();
    rig.push_as(&rig.other, &[incident(1)]).await.ok();
    sleep(Duration::from_millis(200)).await;
    let heads = heard.lock().unwrap().clone();
    assert!(heads.len() == 2 && heads.is_sorted() && heads[0] < heads[1], "{heads:?}");
    listening.abort();
}

#[tokio::test]
async fn a_stream_ends_when_its_device_is_revoked() {
    let rig = Rig::new().await;
    let mut here = listen(&rig, &rig.reader).await;
    let mut elsewhere = listen(&rig, &rig.referee).await;
    let mut other = listen(&rig, &rig.other).await;
    for stream in [&mut here, &mut elsewhere, &mut other] {
        until(stream, "\n\n").await;
    }
    rig.post("/v1/devices/reader-main/revoke", &rig.admin, "").await.ok();
    ended(here).await;
    // As another process of the node would do it: seen by looking.
    let id = ropeway_core::id::DeviceId::parse("referee-main").unwrap();
    rig.node.revoke(&crate::rig::space("main"), &id).await.unwrap();
    ended(elsewhere).await;
    rig.push_as(&rig.other, &[incident(1)]).await.ok();
    until(&mut other, "event: head").await;
    let id = ropeway_core::id::DeviceId::parse("admin-other").unwrap();
    rig.node.rotate(&crate::rig::space("other"), &id).await.unwrap();
    ended(other).await;
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let mut limits = quick();
    (limits.live_streams, limits.live_streams_per_device) = (2, 1);
    let rig = Rig::with(limits, Vec::new()).await;
    let first = listen(&rig, &rig.reader).await;
    Answer::of(listen(&rig, &rig.reader).await).await.is(P::Unavailable);
    let _second = listen(&rig, &rig.referee).await;
    Answer::of(listen(&rig, &rig.admin).await).await.is(P::Unavailable);
    let metrics = rig.get("/metrics", "").await.text;
    assert!(metrics.contains("ropeway_live_streams 2"), "{metrics}");
    drop(first);
    for _ in 0..50 {
        sleep(Duration::from_millis(50)).await;
        if listen(&rig, &rig.admin).await.status() == 200 {
            return;
        }
    }
    panic!("a slot that was left is free again");
}
