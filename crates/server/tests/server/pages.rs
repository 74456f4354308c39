//! Pulls: pages that reach the head, cursors that cannot be tampered with, and compression.

use crate::rig::{Rig, incident, quick, space};
use reqwest::{Method, Url};
use ropeway_core::{id::DeviceId, retention::Keep};
use ropeway_protocol::{PageReader, ProblemCode as P, Transport};
use serde_json::json;
use std::time::Duration;

async fn filled(rig: &Rig, count: usize) {
    for changes in (1..=count).map(incident).collect::<Vec<_>>().chunks(500) {
        rig.push(changes).await.ok();
    }
}

#[tokio::test]
async fn pages_follow_each_other_to_the_head() {
    let rig = Rig::new().await;
    filled(&rig, 25).await;
    let transport = rig.transport(&rig.reader);
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = transport.pull(cursor.as_deref(), 10).await.unwrap();
        assert!(page.rows.len() <= 10 && page.end.count == page.rows.len() as u64);
        assert_eq!(page.end.complete, page.rows.len() < 10);
        seen.extend(page.rows);
        cursor = Some(page.end.cursor.clone());
        if page.end.complete {
            assert_eq!(page.end.digest, rig.node.status(&space("main")).await.unwrap().digest);
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted_by(|a, b| a.stamp < b.stamp));
    let last = transport.pull(cursor.as_deref(), 10).await.unwrap();
    assert!(last.rows.is_empty() && last.end.complete);
    let device = rig
        .node
        .store()
        .device(&crate::rig::space("main"), &DeviceId::parse("reader-main").unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(device.pulled, Some(last.end.head), "what it sent back as its cursor, it has");
}

#[tokio::test]
async fn parameters_are_checked() {
    let rig = Rig::new().await;
    filled(&rig, 2).await;
    for bad in [
        "limit=0",
        "limit=x",
        "limit=-1",
        "since=5",
        "collections=moon",
        "collections=incident,a%20b",
        "limit=1&limit=2",
    ] {
        rig.get(&format!("/v1/pull?{bad}"), &rig.reader).await.is(P::Malformed);
    }
    let lines = |query: &str| {
        let path = format!("/v1/pull?{query}");
        let rig = &rig;
        async move {
            let page = rig.get(&path, &rig.reader).await;
            assert_eq!(page.status, 200, "{}", page.text);
            assert_eq!(page.header("content-type"), "application/x-ndjson");
            page.text.lines().filter(|line| line.starts_with('[')).count()
        }
    };
    assert_eq!(lines("after=&limit=&collections=".replace("limit=&", "").as_str()).await, 2);
    assert_eq!(lines("collections=incident,conflict").await, 2);
    assert_eq!(lines("collections=race").await, 0);
    assert_eq!(lines("limit=1").await, 1);
    assert_eq!(lines("limit=99999999999").await, 2);
}

#[tokio::test]
async fn a_page_is_no_larger_than_the_host_allows() {
    let mut limits = quick();
    limits.page_rows = 3;
    let rig = Rig::with(limits, Vec::new()).await;
    filled(&rig, 5).await;
    let page = rig.transport(&rig.reader).pull(None, 100).await.unwrap();
    assert!(page.rows.len() == 3 && !page.end.complete);
}

#[tokio::test]
async fn a_cursor_with_any_byte_changed_gives_no_data() {
    let rig = Rig::new().await;
    filled(&rig, 3).await;
    let cursor = rig.transport(&rig.reader).pull(None, 1).await.unwrap().end.cursor;
    let with = |cursor: &[u8]| {
        let mut url = Url::parse(&rig.url("/v1/pull")).unwrap();
        url.query_pairs_mut().append_pair("after", &String::from_utf8_lossy(cursor));
        format!("/v1/pull?{}", url.query().unwrap())
    };
    for at in 0..cursor.len() {
        for flip in [0x01, 0x02, 0x10, 0x20] {
            let mut changed = cursor.clone().into_bytes();
            changed[at] ^= flip;
            rig.get(&with(&changed), &rig.reader).await.is(P::CursorInvalid);
        }
    }
    for bad in [
        "0",
        ".",
        "..",
        "null",
        "9223372036854775807.epoch-1.",
        &cursor[..cursor.len() - 1],
        &format!("{cursor}0"),
    ] {
        rig.get(&with(bad.as_bytes()), &rig.reader).await.is(P::CursorInvalid);
    }
    assert_eq!(rig.get(&with(cursor.as_bytes()), &rig.reader).await.status, 200);
}

#[tokio::test]
async fn answers_are_compressed_when_asked_and_read_the_same() {
    let rig = Rig::new().await;
    filled(&rig, 2_000).await;
    let plain = rig.get("/v1/pull", &rig.reader).await;
    assert_eq!(plain.header("content-encoding"), "");
    for encoding in ["gzip", "zstd"] {
        let request = rig.request(Method::GET, "/v1/pull", &rig.reader).header("accept-encoding", encoding);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let packed = response.bytes().await.unwrap();
        assert!(packed.len() < plain.text.len() / 4, "{} of {}", packed.len(), plain.text.len());
        let body = match encoding {
            "zstd" => zstd::decode_all(&*packed).unwrap(),
            _ => std::io::read_to_string(flate2::read::GzDecoder::new(&*packed)).unwrap().into_bytes(),
        };
        let (mut reader, mut rows) = (PageReader::new(), Vec::new());
        reader.feed(&body, &mut rows).unwrap();
        assert_eq!((rows.len(), reader.finish().unwrap().count), (2_000, 2_000));
    }
}

#[tokio::test]
async fn the_transport_and_the_host_understand_each_other() {
    let rig = Rig::new().await;
    let transport = rig.transport(&rig.referee);
    let hello = transport.hello().await.unwrap();
    assert_eq!(
        (hello.service.as_str(), &*hello.epoch, hello.profile.as_str()),
        ("ropeway", "epoch-1", "test 3")
    );
    let changes: Vec<_> = (1..=300).map(incident).collect();
    let body = json!({ "batch": "b1", "changes": changes }).to_string();
    let pushed = transport.push(body.into()).await.unwrap();
    assert_eq!((pushed.receipts.len(), pushed.epoch), (300, hello.epoch));
    assert!(pushed.receipts.iter().all(|r| r.is_exact()));
    assert_eq!(transport.pull(None, 1_000).await.unwrap().rows.len(), 300);
    let wrong = rig.transport("wrong").pull(None, 1).await.unwrap_err();
    assert!(matches!(wrong, ropeway_protocol::TransportError::Problem(p) if p.code == P::Unauthenticated));
}

/// I10: who has not read past a deletion that is forgotten here pushes nothing before it has read everything anew.
#[tokio::test]
async fn who_missed_a_forgotten_deletion_pulls_before_it_pushes() {
    let rig = Rig::new().await;
    filled(&rig, 2).await;
    let transport = rig.transport(&rig.referee);
    let begun = transport.pull(None, 1).await.unwrap().end.cursor;
    transport.pull(Some(&begun), 1).await.unwrap();
    let gone = json!({ "id": "d1", "collection": "incident", "record": "i1", "op": "delete",
        "base": { "epoch": "epoch-1", "version": 1 },
        "author": { "device": "admin-main" } });
    assert_eq!(rig.push_as(&rig.admin, &[gone]).await.ok()["receipts"][0]["verdict"], "applied");
    let none = Duration::ZERO;
    let keep = Keep { horizon: none, tombstones: none, receipts: none, history: None };
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(rig.node.purge(&space("main"), &keep, false).await.unwrap().rows["tombstones"], 1);
    rig.push_as(&rig.referee, &[incident(3)]).await.is(P::ResyncRequired);
    assert_eq!(rig.records("main").await, 1, "nothing was decided");
    let all = transport.pull(None, 10).await.unwrap().end;
    rig.push_as(&rig.referee, &[incident(3)]).await.is(P::ResyncRequired);
    transport.pull(Some(&all.cursor), 10).await.unwrap();
    rig.push_as(&rig.referee, &[incident(3)]).await.ok();
}
