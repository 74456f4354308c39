//! The HTTP client against a peer that answers what it is told to: good answers, bad ones, and none.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use ropeway_core::{
    digest::Digest,
    id::{DeviceId, Epoch},
    time::{Stamp, Time},
};
use ropeway_protocol::{
    Hello, HttpTransport, HttpTransportOptions, PageEnd, PageWriter, Problem, ProblemCode, Transport,
    TransportError,
};
use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A peer that handles each connection with `answer`, and the client for it.
async fn peer<F, G>(answer: F) -> HttpTransport
where
    F: Fn(TcpStream) -> G + Send + Sync + 'static,
    G: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    client(&url)
}

fn client(url: &str) -> HttpTransport {
    let mut options = HttpTransportOptions::new(url, "0123abcd");
    options.device = Some(DeviceId::trusted("pi-1"));
    options.connect_timeout = Duration::from_millis(500);
    options.idle_timeout = Duration::from_millis(400);
    options.hello_timeout = Duration::from_millis(600);
    options.answer_bytes_max = 100_000;
    HttpTransport::new(options).unwrap()
}

/// Reads one request: its head, and its body as the connection carries it.
async fn request(socket: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let head = loop {
        let mut piece = [0; 4096];
        let n = socket.read(&mut piece).await.unwrap_or(0);
        if n == 0 {
            return (String::new(), bytes);
        }
        bytes.extend_from_slice(&piece[..n]);
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            let head = String::from_utf8(std::mem::replace(&mut bytes, rest)).unwrap().to_lowercase();
            break head;
        }
    };
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|n| n.parse::<usize>().unwrap());
    let chunked = head.contains("transfer-encoding: chunked");
    while length.is_some_and(|n| bytes.len() < n) || (chunked && !bytes.ends_with(b"0\r\n\r\n")) {
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            break;
        }
    }
    (head, bytes)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A client whose every request gets these bytes, after which the connection is closed.
async fn always(bytes: Vec<u8>) -> HttpTransport {
    let bytes = Arc::new(bytes);
    peer(move |mut socket| {
        let bytes = bytes.clone();
        async move {
            request(&mut socket).await;
            let _ = socket.write_all(&bytes).await;
        }
    })
    .await
}

const JSON: &str = "ropeway-node: e1\r\ncontent-type: application/json; charset=utf-8\r\n";
const PAGE: &str = "ropeway-node: e1\r\ncontent-type: application/x-ndjson\r\n";
const PROBLEM: &str = "ropeway-node: e1\r\ncontent-type: application/problem+json\r\n";

fn page(lines: &str) -> Vec<u8> {
    let mut body = lines.as_bytes().to_vec();
    let (epoch, now) = (Epoch::trusted("e1"), Time(0));
    let digest = Digest { count: 0, sum: 0 };
    let end = PageEnd {
        cursor: "c".into(),
        epoch,
        head: Stamp(9),
        count: 0,
        digest,
        complete: true,
        now,
        audiences: None,
    };
    PageWriter::new().end(end, &mut body);
    body
}

fn offline<T: std::fmt::Debug>(result: Result<T, TransportError>) -> String {
    match result {
        Err(TransportError::Offline(why)) => why,
        other => panic!("not offline: {other:?}"),
    }
}

fn garbled<T: std::fmt::Debug>(result: Result<T, TransportError>) -> String {
    match result {
        Err(TransportError::Garbled(why)) => why,
        other => panic!("not garbled: {other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, TransportError>) -> Problem {
    match result {
        Err(TransportError::Problem(problem)) => problem,
        other => panic!("no problem: {other:?}"),
    }
}

#[tokio::test]
async fn a_captive_portal_is_being_offline() {
    let portal = answer("200 OK", "content-type: text/html\r\n", b"<html>Welcome to the resort</html>");
    let client = always(portal).await;
    assert!(offline(client.hello().await).contains("no Ropeway"));
    offline(client.push(Bytes::from_static(b"{}")).await);
    offline(client.pull(None, 10).await);
    offline(client.live(Box::new(|_| {})).await);
    // Even where it says JSON, and even the right JSON: without the header it is somebody else.
    let hello = br#"{"service":"ropeway","build":"1","schema":1,"epoch":"e","profile":"p","now":"2026-01-01T00:00:00Z"}"#;
    offline(always(answer("200 OK", "content-type: application/json\r\n", hello)).await.hello().await);
    let redirect = "location: http://127.0.0.1:1/login\r\ncontent-type: text/html\r\n";
    assert!(offline(always(answer("302 Found", redirect, b"")).await.hello().await).contains("302"));
}

#[tokio::test]
async fn a_proxy_that_does_not_reach_the_node_is_being_offline() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "404 Not Found"] {
        offline(
            always(answer(status, "content-type: text/html\r\n", b"<h1>nginx</h1>"))
                .await
                .pull(None, 1)
                .await,
        );
    }
    let small = always(answer("413 Request Entity Too Large", "content-type: text/html\r\n", b"nginx")).await;
    assert_eq!(refused(small.push(Bytes::from_static(b"{}")).await).code, ProblemCode::TooLarge);
}

#[tokio::test]
async fn nobody_there_is_being_offline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(offline(client(&url).hello().await).contains("refused"));
    offline(client("https://no-such-host.invalid").hello().await);
    // Nothing but silence.
    let silent = peer(|socket| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(socket);
    })
    .await;
    offline(silent.hello().await);
    assert!(offline(silent.push(Bytes::from(vec![b'x'; 300])).await).contains("nothing moved"));
    assert!(offline(silent.pull(None, 1).await).contains("nothing moved"));
}

#[tokio::test]
async fn the_hello_is_read_and_the_device_names_itself() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let client = peer(move |mut socket| {
        let seen = seen.clone();
        async move {
            let (head, _) = request(&mut socket).await;
            seen.lock().unwrap().push(head);
            let hello = Hello {
                service: "ropeway".into(),
                build: "0.1.0".into(),
                schema: 1,
                epoch: Epoch::trusted("e1"),
                profile: "race-logger 1".into(),
                now: Time(1),
                offset: Some(0),
            };
            let _ = socket.write_all(&answer("200 OK", JSON, &serde_json::to_vec(&hello).unwrap())).await;
        }
    })
    .await;
    assert_eq!(client.hello().await.unwrap().epoch, Epoch::trusted("e1"));
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("get /version http/1.1"), "{head}");
    assert!(
        head.contains("authorization: bearer 0123abcd") && head.contains("x-device-uuid: pi-1"),
        "{head}"
    );
    assert!(!format!("{client:?}").contains("0123abcd"));
    let other = answer("200 OK", JSON, &serde_json::to_vec(&serde_json::json!({
        "service": "other", "build": "1", "schema": 1, "epoch": "e", "profile": "p", "now": "2026-01-01T00:00:00Z",
    })).unwrap());
    assert!(offline(always(other).await.hello().await).contains("other"));
}

/// F18: a node of a later version says more than this client knows, in every answer.
#[tokio::test]
async fn what_a_newer_node_says_besides_is_passed_over() {
    let said = r#"{"service":"ropeway","build":"9.1","schema":4,"epoch":"e-1","profile":"p 1","offset":0,
        "now":"2026-02-14T10:41:29Z","regions":["eu"],"limits":{"push":9}}"#;
    let hello = always(answer("200 OK", JSON, said.as_bytes())).await.hello().await;
    assert_eq!(hello.unwrap().schema, 4);
    let receipt = r#"{"change":"c-1","verdict":"created","collection":"incident","id":"i-1","version":1,"stamp":7,
        "mood":"fine","record":{"id":"i-1","version":1,"state":"live","data":{"x":1},
        "author":{"device":"pi","language":"de"},"modified_at":"2026-02-14T10:41:29Z","colour":"red"}}"#;
    let said =
        format!(r#"{{"epoch":"e-1","now":"2026-02-14T10:41:29Z","receipts":[{receipt}],"cost":{{"ms":3}}}}"#);
    let client = always(answer("200 OK", JSON, said.as_bytes())).await;
    let pushed = client.push(Bytes::from_static(br#"{"changes":[]}"#)).await.unwrap();
    assert_eq!((pushed.receipts.len(), pushed.receipts[0].version), (1, 1));
}

#[tokio::test]
async fn a_push_travels_compressed_and_its_receipts_come_back() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let client = peer(move |mut socket| {
        let seen = seen.clone();
        async move {
            let got = request(&mut socket).await;
            seen.lock().unwrap().push(got);
            let body = br#"{"epoch":"e1","now":"2026-01-01T00:00:00Z","receipts":[]}"#;
            let _ = socket.write_all(&answer("200 OK", JSON, body)).await;
        }
    })
    .await;
    let small = Bytes::from_static(br#"{"changes":[]}"#);
    assert!(client.push(small.clone()).await.unwrap().receipts.is_empty());
    let large = Bytes::from(format!("{{\"changes\":[],\"batch\":\"{}\"}}", "ab".repeat(5_000)));
    client.push(large.clone()).await.unwrap();
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies[0].1, small);
    assert!(!bodies[0].0.contains("content-encoding"));
    assert!(bodies[1].0.contains("content-encoding: zstd") && bodies[1].1.len() < 1_000, "{}", bodies[1].0);
    assert_eq!(zstd::decode_all(&*bodies[1].1).unwrap(), large);
}

#[tokio::test]
async fn a_slow_upload_is_not_a_stalled_one() {
    // Takes 1.5 s for a body although nothing may stand still for longer than 0.4 s.
    let client = peer(|mut socket| async move {
        let mut piece = vec![0; 64 << 10];
        let mut taken = 0;
        for _ in 0..15 {
            taken += socket.read(&mut piece).await.unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while taken < 4_000_000 {
            taken += socket.read(&mut piece).await.unwrap_or(0).max(1);
        }
        let body = br#"{"epoch":"e1","now":"2026-01-01T00:00:00Z","receipts":[]}"#;
        let _ = socket.write_all(&answer("200 OK", JSON, body)).await;
    })
    .await;
    let mut noise = vec![0u8; 4 << 20];
    let mut state = 1u64;
    noise.iter_mut().for_each(|b| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *b = (state >> 56) as u8;
    });
    client.push(noise.into()).await.unwrap();
}

#[tokio::test]
async fn problems_come_through_with_their_wait() {
    let known = Problem::new(ProblemCode::RateLimited, "too many").after(7);
    let body = serde_json::to_vec(&known).unwrap();
    let client = always(answer("429 Too Many Requests", PROBLEM, &body)).await;
    assert_eq!(refused(client.pull(Some("a b&c"), 5).await), known);
    let newer = answer(
        "503 Service Unavailable",
        &format!("{PROBLEM}retry-after: 9\r\n"),
        br#"{"code":"moonlight","detail":"x"}"#,
    );
    let problem = refused(always(newer).await.hello().await);
    assert_eq!((problem.code, problem.retry_after), (ProblemCode::Unavailable, Some(9)));
    let newer = answer("409 Conflict", PROBLEM, br#"{"code":"moonlight"}"#);
    assert_eq!(refused(always(newer).await.hello().await).code, ProblemCode::UpgradeRequired);
    garbled(
        always(answer("500 Oops", "ropeway-node: e1\r\ncontent-type: text/plain\r\n", b"x"))
            .await
            .hello()
            .await,
    );
    garbled(always(answer("500 Oops", PROBLEM, b"<html>")).await.hello().await);
}

#[tokio::test]
async fn a_page_is_read_and_a_cut_one_counts_for_nothing() {
    let whole = page("");
    let client = always(answer("200 OK", PAGE, &whole)).await;
    assert_eq!(client.pull(None, 5).await.unwrap().end.cursor, "c");
    // Cut where the length says so, where the connection just ends, and without anybody saying anything.
    let announced = answer("200 OK", PAGE, &whole);
    offline(always(announced[..announced.len() - 5].to_vec()).await.pull(None, 5).await);
    let short = answer("200 OK", PAGE, &whole[..whole.len() - 5]);
    assert!(garbled(always(short).await.pull(None, 5).await).contains("cut"));
    garbled(always(answer("200 OK", JSON, &whole)).await.pull(None, 5).await);
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_asked_for_in_halves() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let client = peer(move |mut socket| {
        let seen = seen.clone();
        async move {
            let (head, _) = request(&mut socket).await;
            let limit: usize =
                head.split("limit=").nth(1).unwrap().split([' ', '&']).next().unwrap().parse().unwrap();
            seen.lock().unwrap().push(limit);
            // 40 kB a record against a bound of 100 kB.
            let body = page(&format!("{{\"x\":\"{}\"}}\n", "y".repeat(40_000)).repeat(limit));
            let packed = zstd::encode_all(&*body, 3).unwrap();
            let headers = format!("{PAGE}content-encoding: zstd\r\n");
            let _ = socket.write_all(&answer("200 OK", &headers, &packed)).await;
        }
    })
    .await;
    client.pull(None, 9).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [9, 4, 2]);
    let bomb = zstd::encode_all(&*vec![b'['; 50 << 20], 3).unwrap();
    let bomb = always(answer("200 OK", &format!("{PAGE}content-encoding: zstd\r\n"), &bomb)).await;
    garbled(bomb.pull(None, 100).await);
}

/// The batch was decided, whatever the size of its answer: it must not be taken for one that was refused. Its
/// halves get the receipts that they already have, in order.
#[tokio::test]
async fn receipts_beyond_the_bound_are_asked_for_in_halves() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let client = peer(move |mut socket| {
        let seen = seen.clone();
        async move {
            let (_, body) = request(&mut socket).await;
            let push: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(push["batch"], "b1", "the batch stays what it is");
            let changes = push["changes"].as_array().unwrap();
            seen.lock().unwrap().push(changes.len());
            // 40 kB a receipt against a bound of 100 kB.
            let receipts: Vec<serde_json::Value> = changes
                .iter()
                .map(|change| {
                    serde_json::json!({
                        "change": change["id"], "verdict": "applied", "collection": "incident", "id": "i1",
                        "version": 1, "stamp": 1,
                        "reason": { "code": "invalid", "text": "y".repeat(40_000) },
                    })
                })
                .collect();
            let body =
                serde_json::json!({ "epoch": "e1", "now": "2026-01-01T00:00:00Z", "receipts": receipts });
            let _ = socket.write_all(&answer("200 OK", JSON, body.to_string().as_bytes())).await;
        }
    })
    .await;
    let changes: Vec<_> = (0..5).map(|n| serde_json::json!({ "id": format!("c{n}") })).collect();
    let batch = serde_json::json!({ "batch": "b1", "changes": changes }).to_string();
    let pushed = client.push(batch.into()).await.unwrap();
    let ids: Vec<&str> = pushed.receipts.iter().map(|receipt| receipt.change.as_str()).collect();
    assert_eq!(ids, ["c0", "c1", "c2", "c3", "c4"]);
    assert_eq!(*asked.lock().unwrap(), [5, 2, 3, 1, 2]);
    // Restored between two halves: what the first said is of no use any more.
    let epochs = Arc::new(Mutex::new(vec!["e2", "e1"]));
    let restored = peer(move |mut socket| {
        let epochs = epochs.clone();
        async move {
            let (_, body) = request(&mut socket).await;
            let push: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let said = match push["changes"].as_array().unwrap().len() {
                1 => {
                    let epoch = epochs.lock().unwrap().pop();
                    let said =
                        serde_json::json!({ "epoch": epoch, "now": "2026-01-01T00:00:00Z", "receipts": [] });
                    said.to_string().into_bytes()
                }
                _ => vec![b' '; 200_000],
            };
            let _ = socket.write_all(&answer("200 OK", JSON, &said)).await;
        }
    })
    .await;
    let two = Bytes::from_static(b"{\"changes\":[{\"id\":\"c1\"},{\"id\":\"c2\"}]}");
    let why = restored.push(two).await;
    assert!(matches!(why, Err(TransportError::Offline(_))), "{why:?}");
    // A single one cannot be halved: a failure with a sentence, and no refusal of the change.
    let huge = always(answer("200 OK", JSON, &vec![b' '; 200_000])).await;
    let why = garbled(huge.push(Bytes::from_static(b"{\"changes\":[{\"id\":\"c1\"}]}")).await);
    assert!(why.contains("one receipt alone"), "{why}");
}

#[tokio::test]
async fn the_live_stream_tells_heads_until_it_ends_or_stalls() {
    let client = peer(|mut socket| async move {
        request(&mut socket).await;
        let head = "HTTP/1.1 200 OK\r\nropeway-node: e1\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let _ = socket.write_all(head.as_bytes()).await;
        for stamp in [3, 5] {
            let event = format!("event: head\nid: {stamp}\ndata: {{\"head\":{stamp}}}\n\n");
            let _ = socket.write_all(event.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    client.live(Box::new(move |head| seen.lock().unwrap().push(head))).await.unwrap();
    assert_eq!(*heads.lock().unwrap(), [Stamp(3), Stamp(5)]);
    let stalled = peer(|mut socket| async move {
        request(&mut socket).await;
        let head = "HTTP/1.1 200 OK\r\nropeway-node: e1\r\ncontent-type: text/event-stream\r\n\r\n";
        let _ = socket.write_all(head.as_bytes()).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    })
    .await;
    assert!(offline(stalled.live(Box::new(|_| {})).await).contains("stood still"));
}

#[test]
fn a_bad_address_is_refused_with_a_sentence() {
    for bad in ["", "host:80", "ftp://host/", "http://user:secret@host/", "http://host/?a=1", "http://"] {
        let error = HttpTransport::new(HttpTransportOptions::new(bad, "t")).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(HttpTransport::new(HttpTransportOptions::new("https://host/", "line\nbreak")).is_err());
}
