//! Bodies that are cut, bombs, too large, too deep, or wrong: a clear answer, nothing taken in, still up.

use crate::rig::{Answer, Rig, incident, quick, rest};
use reqwest::Method;
use ropeway_protocol::ProblemCode as P;
use serde_json::{Value, json};
use std::{io::Write, time::Duration};
use tokio::{io::AsyncWriteExt, time::Instant};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

async fn encoded(rig: &Rig, encoding: &str, body: Vec<u8>) -> Answer {
    let request = rig.request(Method::POST, "/v1/push", &rig.referee).header("content-encoding", encoding);
    Answer::of(request.body(body).send().await.unwrap()).await
}

fn body(changes: &[Value]) -> String {
    json!({ "changes": changes }).to_string()
}

fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Watches the memory for a second and returns the most that there was.
fn peak_kb() -> std::thread::JoinHandle<usize> {
    std::thread::spawn(|| {
        let end = Instant::now() + Duration::from_secs(1);
        let mut most = 0;
        while Instant::now() < end {
            most = most.max(resident_kb());
        }
        most
    })
}

/// The verdict and the reason's code of the only receipt.
#[track_caller]
fn refused(answer: &Answer, code: &str) {
    let receipts = &answer.ok()["receipts"];
    assert_eq!(receipts.as_array().unwrap().len(), 1);
    assert_eq!((&receipts[0]["verdict"], &receipts[0]["reason"]["code"]), (&json!("rejected"), &json!(code)));
}

#[tokio::test]
async fn compressed_bodies_are_taken_and_damaged_ones_are_not() {
    let rig = Rig::new().await;
    let good = body(&[incident(1)]);
    let mut checked = zstd::bulk::Compressor::new(3).unwrap();
    checked.include_checksum(true).unwrap();
    let zstd = checked.compress(good.as_bytes()).unwrap();
    for (encoding, packed) in [("gzip", gzip(good.as_bytes())), ("zstd", zstd)] {
        encoded(&rig, encoding, packed[..packed.len() - 4].to_vec()).await.is(P::Malformed);
        encoded(&rig, encoding, packed[..packed.len() / 2].to_vec()).await.is(P::Malformed);
        encoded(&rig, encoding, good.clone().into_bytes()).await.is(P::Malformed);
        for at in (10..packed.len()).step_by(7) {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x55;
            let answer = encoded(&rig, encoding, damaged).await;
            assert_eq!(answer.status, 400, "{encoding} at {at}: {}", answer.text);
        }
        assert_eq!(rig.records("main").await, 0);
    }
    rig.is_up_and_empty().await;
    for encoding in ["gzip, gzip", "br", "deflate", "moon"] {
        encoded(&rig, encoding, gzip(&gzip(good.as_bytes()))).await.is_with(415, P::Malformed);
    }
    rig.is_up_and_empty().await;
    let packed = gzip(good.as_bytes());
    assert_eq!(encoded(&rig, "gzip", packed).await.ok()["receipts"][0]["verdict"], "created");
    let packed = zstd::encode_all(good.as_bytes(), 3).unwrap();
    assert_eq!(encoded(&rig, "zstd", packed).await.ok()["receipts"][0]["verdict"], "created");
}

#[tokio::test]
async fn bombs_are_refused_quickly_and_cost_little_memory() {
    let rig = Rig::new().await;
    let zeros = vec![0; 16 << 20];
    // 1 GB each: one stream of zstd, and gzip members one after the other.
    let mut packed = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    (0..64).for_each(|_| packed.write_all(&zeros).unwrap());
    let zstd = packed.finish().unwrap();
    let gzip = gzip(&zeros).repeat(64);
    let mut least = usize::MAX;
    // Other tests of this process need memory too, so the least of several rounds counts.
    for (encoding, bomb) in [("zstd", &zstd), ("gzip", &gzip)].repeat(3) {
        assert!(bomb.len() < 8 << 20, "{}", bomb.len());
        let (before, watch) = (resident_kb(), peak_kb());
        let started = Instant::now();
        let problem = encoded(&rig, encoding, bomb.clone()).await.is(P::TooLarge);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(problem["detail"].as_str().unwrap().contains("8388608"));
        least = least.min(watch.join().unwrap().saturating_sub(before));
    }
    assert!(least < 64 << 10, "{least} kB");
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn a_body_that_is_cut_takes_nothing_in() {
    let rig = Rig::new().await;
    let whole = body(&[incident(1)]);
    let mut socket = rig.raw(&rig.half_a_push(&whole, whole.len() - 3)).await;
    socket.shutdown().await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn bodies_beyond_the_bounds_are_refused() {
    let mut limits = quick();
    (limits.body_wire_bytes, limits.body_bytes, limits.push_changes) = (2_000, 4_000, 2);
    let rig = Rig::with(limits, Vec::new()).await;
    let large = body(&[incident(1)]) + &" ".repeat(2_000);
    rig.post("/v1/push", &rig.referee, large.clone()).await.is(P::TooLarge);
    // Without a length: what arrives is counted.
    let pieces =
        large.into_bytes().chunks(500).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    rig.post("/v1/push", &rig.referee, chunked).await.is(P::TooLarge);
    let unpacked = body(&[incident(1)]) + &" ".repeat(4_000);
    encoded(&rig, "zstd", zstd::encode_all(unpacked.as_bytes(), 3).unwrap()).await.is(P::TooLarge);
    let problem = rig.push(&[incident(1), incident(2), incident(3)]).await.is(P::TooLarge);
    assert!(problem["detail"].as_str().unwrap().contains("may carry 2 changes, this one carries 3"));
    rig.is_up_and_empty().await;
    assert_eq!(rig.push(&[incident(1), incident(2)]).await.ok()["receipts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_smallest_bounds_still_hold() {
    let mut limits = quick();
    (limits.body_wire_bytes, limits.body_bytes, limits.push_changes, limits.page_rows) = (1, 1, 1, 1);
    let rig = Rig::with(limits, Vec::new()).await;
    rig.push(&[incident(1)]).await.is(P::TooLarge);
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn what_is_no_push_is_refused_as_a_whole() {
    let rig = Rig::new().await;
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let deep_inside = format!("{{\"changes\":[{}]}}", deep(1_000_000));
    for bad in [
        "",
        "<html>",
        "{",
        "[]",
        "{\"changes\":[",
        "\u{feff}{\"changes\":[]}",
        &deep(200),
        &deep(1_000_000),
        &deep_inside,
    ] {
        rig.post("/v1/push", &rig.referee, bad.to_owned()).await.is(P::Malformed);
    }
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend(body(&[incident(1)]).encode_utf16().flat_map(u16::to_le_bytes));
    rig.post("/v1/push", &rig.referee, utf16).await.is(P::Malformed);
    let mut nameless = incident(2);
    nameless.as_object_mut().unwrap().remove("id");
    let problem = rig.push(&[incident(1), nameless]).await.is(P::Malformed);
    assert!(problem["detail"].as_str().unwrap().contains("number 1"), "{problem}");
    let mut over_long = incident(1);
    over_long["id"] = json!("c".repeat(65));
    rig.push(&[over_long]).await.is(P::Malformed);
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn a_bad_change_is_rejected_by_its_own_receipt() {
    let rig = Rig::new().await;
    let with = |path: &str, value: Value| {
        let mut change = incident(1);
        *change.pointer_mut(path).unwrap() = value;
        change
    };
    let levels = |n: usize| (0..n).fold(json!(1), |inner, _| json!([inner]));
    refused(&rig.push(&[with("/record", json!("r".repeat(129)))]).await, "invalid");
    refused(&rig.push(&[with("/op", json!("explode"))]).await, "invalid");
    refused(&rig.push(&[with("/fields/bib", levels(40))]).await, "invalid");
    refused(&rig.push(&[with("/fields/bib", levels(100))]).await, "invalid");
    refused(&rig.push(&[with("/fields/bib", json!("a hundred"))]).await, "invalid");
    refused(&rig.push(&[with("/fields", json!({ "bib": 1 }))]).await, "invalid");
    refused(&rig.push(&[with("/collection", json!("moonbase"))]).await, "unknown_collection");
    let mut large = incident(1);
    large["fields"]["more"] = json!("x".repeat(2 << 20));
    refused(&rig.push(&[large]).await, "too_large");
    rig.is_up_and_empty().await;
    let answer =
        rig.push(&[with("/op", json!("explode")), incident(2), with("/record", json!("a b"))]).await.ok();
    let verdicts: Vec<&Value> =
        answer["receipts"].as_array().unwrap().iter().map(|r| &r["verdict"]).collect();
    assert_eq!(verdicts, ["rejected", "created", "rejected"]);
    assert_eq!(answer["receipts"][0]["stamp"], answer["receipts"][1]["stamp"]);
    assert_eq!(
        (&answer["receipts"][2]["id"], &answer["receipts"][2]["collection"]),
        (&json!("unknown"), &json!("incident"))
    );
    assert_eq!(rig.records("main").await, 1);
    let role = rig.push_as(&rig.reader, &[incident(3)]).await;
    refused(&role, "forbidden");
    assert_eq!(rig.records("main").await, 1);
}

#[tokio::test]
async fn a_push_repeated_gets_the_same_receipts() {
    let rig = Rig::new().await;
    let first = rig.push(&[incident(1), incident(2)]).await.ok();
    let again = rig.push(&[incident(1), incident(2)]).await.ok();
    assert_eq!(first["receipts"], again["receipts"]);
    assert_eq!(rig.push(&[]).await.ok()["receipts"], json!([]));
    assert_eq!(rig.records("main").await, 2);
}
