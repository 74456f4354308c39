//! The login page of a network, in every shape in which it answers in the upstream's place (TR-18): it is
//! being offline, on every call, and little of it is read.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use bytes::Bytes;
use ropeway_protocol::{HttpTransport, HttpTransportOptions, Transport, TransportError};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Answers every request with some bytes, and goes on with more for as long as somebody reads.
struct Portal {
    url: String,
    written: Arc<AtomicUsize>,
}

impl Portal {
    async fn new(answer: Vec<u8>, more: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let written = Arc::new(AtomicUsize::new(0));
        let counts = written.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (answer, more, counts) = (answer.clone(), more.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = socket.read(&mut request).await;
                    let _ = socket.write_all(&answer).await;
                    while !more.is_empty() && socket.write_all(&more).await.is_ok() {
                        counts.fetch_add(more.len(), SeqCst);
                    }
                });
            }
        });
        Self { url, written }
    }

    fn client(&self) -> HttpTransport {
        HttpTransport::new(HttpTransportOptions {
            idle_timeout: Duration::from_secs(2),
            ..HttpTransportOptions::new(&self.url, "0123abcd")
        })
        .unwrap()
    }
}

#[track_caller]
fn offline<T: std::fmt::Debug>(portal: &str, result: Result<T, TransportError>) {
    assert!(matches!(result, Err(TransportError::Offline(_))), "{portal}: {result:?}");
}

/// Every call of a follower; how much more than the answer the portal could write.
async fn all_offline(name: &str, answer: &[u8], more: &[u8]) -> usize {
    let portal = Portal::new(answer.to_vec(), more.to_vec()).await;
    let client = portal.client();
    offline(name, client.hello().await);
    offline(name, client.push(Bytes::from_static(b"{\"changes\":[]}")).await);
    offline(name, client.pull(Some("cursor"), 10).await);
    offline(name, client.live(Box::new(|_| panic!("a portal has no news"))).await);
    portal.written.load(SeqCst)
}

fn page(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const HTML: &[u8] = b"<html><body>Welcome to the resort. Please log in.</body></html>";
const IS_HTML: &str = "content-type: text/html; charset=utf-8\r\n";
const IS_JSON: &str = "content-type: application/json\r\n";

fn packed(bytes: usize) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&vec![b' '; bytes]).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn every_portal_is_being_offline_on_every_call() {
    let hello = br#"{"service":"ropeway","build":"1","schema":1,"epoch":"e","profile":"p","now":"2026-01-01T00:00:00Z"}"#;
    let receipts = br#"{"epoch":"e","now":"2026-01-01T00:00:00Z","receipts":[]}"#;
    let (stream, lines) = ("content-type: text/event-stream\r\n", "content-type: application/x-ndjson\r\n");
    let (problem, password) =
        ("content-type: application/problem+json\r\n", "www-authenticate: Basic realm=\"x\"\r\n");
    let cut = page("200 OK", IS_HTML, HTML);
    let cases: &[(&str, Vec<u8>)] = &[
        ("a page", page("200 OK", IS_HTML, HTML)),
        ("a page without a type", page("200 OK", "", HTML)),
        ("nothing", page("200 OK", "", b"")),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ("other JSON", page("200 OK", IS_JSON, br#"{"login":"https://wifi.example/"}"#)),
        ("the right hello of somebody else", page("200 OK", IS_JSON, hello)),
        ("the right receipts of somebody else", page("200 OK", IS_JSON, receipts)),
        ("lines", page("200 OK", lines, b"{\"a\":1}\n")),
        ("a stream", page("200 OK", stream, b"event: head\ndata: {\"head\":7}\n\n")),
        ("a cut page", cut[..cut.len() - 9].to_vec()),
        ("a cut head", b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()),
        ("a packed page", page("200 OK", &format!("{IS_HTML}content-encoding: gzip\r\n"), &packed(10 << 20))),
        ("a problem of somebody else", page("503 Oops", problem, b"{}")),
        ("a login by status", page("511 Network Authentication Required", IS_HTML, HTML)),
        ("a wish for a password", page("401 Unauthorized", password, HTML)),
        ("a ban", page("403 Forbidden", IS_HTML, HTML)),
        ("a proxy's password", page("407 Proxy Authentication Required", IS_HTML, HTML)),
        ("a redirect", page("303 See Other", "location: /login\r\n", b"")),
        ("another protocol", b"SSH-2.0-dropbear\r\n".to_vec()),
        ("a hang-up", Vec::new()),
    ];
    for (name, answer) in cases {
        all_offline(name, answer, b"").await;
    }
}

/// A redirect is not followed, whatever its kind: nobody else sees the token or a change.
#[tokio::test]
async fn a_redirect_to_a_login_page_is_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap();
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        for marker in ["", "ropeway-node: e\r\n"] {
            let headers = format!("location: http://{elsewhere}/login\r\n{marker}");
            let portal = Portal::new(page(status, &headers, b""), Vec::new()).await;
            let client = portal.client();
            assert!(client.hello().await.is_err());
            assert!(client.push(Bytes::from_static(b"{\"changes\":[]}")).await.is_err());
            assert!(client.pull(None, 1).await.is_err() && client.live(Box::new(|_| {})).await.is_err());
        }
    }
    let visited = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(visited.is_err(), "somebody came to the login page");
}

/// A page without end is left at once: what the system had buffered is all that was taken.
#[tokio::test]
async fn a_page_without_end_costs_nothing() {
    let line = "x".repeat(64 << 10);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for (head, more) in [
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n", line),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
        // A head without end is no better.
        ("HTTP/1.1 200 OK\r\n", "x-a: y\r\n".repeat(1_000)),
    ] {
        let written = all_offline(head, head.as_bytes(), more.as_bytes()).await;
        assert!(written < 64 << 20, "{head}: {written} bytes were taken");
    }
}
