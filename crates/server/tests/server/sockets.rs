//! Connections that are slow, silent, half, or too many.

use crate::rig::{Rig, incident, quick, rest};
use ropeway_protocol::ProblemCode as P;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn whoever_says_half_a_head_or_nothing_is_closed_in_time() {
    let rig = Rig::new().await;
    for half in ["", "P", "PRI * HTTP/2.0\r\n", "GET /v1/pu", "GET /health/live HTTP/1.1\r\nhost: x\r\nx-a: "]
    {
        let started = Instant::now();
        let mut socket = rig.raw(half).await;
        timeout(SOON, rest(&mut socket)).await.unwrap_or_else(|_| panic!("{half:?} was left open"));
        assert!(started.elapsed() >= Duration::from_millis(300), "{half:?}: {:?}", started.elapsed());
    }
    // A head that drips in is no better: what counts is the whole of it.
    let mut socket = rig.raw("GET /health/live HTTP/1.1\r\n").await;
    let dripping = async {
        while socket.write_all(b"x-a: b\r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, dripping).await.unwrap();
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn many_slow_heads_do_not_slow_the_others() {
    let rig = Rig::new().await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        slow.push(rig.raw("GET /v1/pull HTTP/1.1\r\nhost: x\r\n").await);
    }
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(rig.get("/health/live", "").await.status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn half_a_body_is_ended_in_time_and_takes_nothing_in() {
    let rig = Rig::new().await;
    let body = json!({ "changes": [incident(1)] }).to_string();
    let mut socket = rig.raw(&rig.half_a_push(&body, 20)).await;
    let answer = timeout(SOON, rest(&mut socket)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"unavailable\""), "{answer}");
    // One that drips in is ended by the time it may take altogether.
    let mut limits = quick();
    limits.body_total = Duration::from_millis(600);
    let slow = Rig::with(limits, Vec::new()).await;
    let mut socket = slow.raw(&slow.half_a_push(&body, 1)).await;
    let dripping = async {
        for byte in body.as_bytes()[1..].chunks(1) {
            if socket.write_all(byte).await.is_err() {
                return true;
            }
            sleep(Duration::from_millis(30)).await;
        }
        false
    };
    assert!(timeout(Duration::from_secs(2), dripping).await.unwrap(), "it was not ended");
    slow.is_up_and_empty().await;
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn a_slow_body_within_its_time_is_taken() {
    let rig = Rig::new().await;
    let body = json!({ "changes": [incident(1)] }).to_string();
    let mut socket = rig.raw(&rig.half_a_push(&body, 10)).await;
    for piece in body.as_bytes()[10..].chunks(20) {
        sleep(Duration::from_millis(100)).await;
        socket.write_all(piece).await.unwrap();
    }
    let mut head = [0; 15];
    timeout(SOON, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    assert_eq!(rig.records("main").await, 1);
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let mut limits = quick();
    (limits.connections, limits.header_timeout) = (1, Duration::from_secs(2));
    let rig = Rig::with(limits, Vec::new()).await;
    let held = rig.raw("GET /health/live HTTP/1.1\r\n").await;
    sleep(Duration::from_millis(100)).await;
    let answer = rig.get("/health/live", "").await;
    assert_eq!(answer.is(P::Unavailable)["retry_after"], 1);
    assert_eq!(answer.header("retry-after"), "1");
    drop(held);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.get("/health/live", "").await.status, 200);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_ended() {
    let rig = Rig::new().await;
    let large: Vec<Value> = (1..=7)
        .map(|n| {
            let mut change = incident(n);
            change["fields"]["note"] = json!("x".repeat(1_000_000));
            change
        })
        .collect();
    for part in 0..4 {
        let changes: Vec<Value> = large
            .iter()
            .cloned()
            .map(|mut change| {
                for name in ["id", "record"] {
                    change[name] = json!(format!("{}-{part}", change[name].as_str().unwrap()));
                }
                change
            })
            .collect();
        rig.push(&changes).await.ok();
    }
    let token = &rig.referee;
    let ask = format!("GET /v1/pull HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut socket = rig.raw(&ask).await;
    sleep(Duration::from_secs(1)).await;
    // The host has given up: what it had handed to the system still comes, the end does not.
    let answer = timeout(SOON * 3, rest(&mut socket)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("{\"end\":"), "{} bytes", answer.len());
    // A slow one gets everything.
    let mut socket = rig.raw(&ask.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
    let (mut taken, mut piece) = (Vec::new(), vec![0; 4 << 20]);
    loop {
        sleep(Duration::from_millis(100)).await;
        match socket.read(&mut piece).await.unwrap() {
            0 => break,
            n => taken.extend_from_slice(&piece[..n]),
        }
    }
    assert!(String::from_utf8_lossy(&taken).contains("{\"end\":"));
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let mut limits = quick();
    limits.connection_idle = Duration::from_millis(300);
    let rig = Rig::with(limits, Vec::new()).await;
    let mut socket = rig.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    timeout(SOON, rest(&mut socket)).await.expect("it was left open");
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let rig = Rig::new().await;
    for head in [
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "y".repeat(100_000)),
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-a: y\r\n".repeat(200)),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(100_000)),
        "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let mut socket = tokio::net::TcpStream::connect(rig.address).await.unwrap();
        let _ = socket.write_all(head.as_bytes()).await;
        let answer = timeout(SOON, rest(&mut socket)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    rig.is_up_and_empty().await;
}
