//! Whom a follower believes (IRON-073, REP-089): every certificate that must be refused, what is said of it,
//! and that nobody but the upstream ever sees the token.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod certs;

use bytes::Bytes;
use certs::{Authority, Certificate, self_signed};
use ropeway_protocol::{HttpTransport, HttpTransportOptions, Transport, TransportError};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

const HELLO: &str =
    r#"{"service":"ropeway","build":"1","schema":1,"epoch":"e","profile":"p","now":"2026-01-01T00:00:00Z"}"#;

/// A server that says hello, with a certificate or without. What was said to it is kept.
struct Upstream {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Upstream {
    async fn new(shown: Option<&Certificate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, acceptor) = (Arc::new(Mutex::new(Vec::new())), shown.map(acceptor));
        let hears = heard.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                match &acceptor {
                    None => hello(socket, &hears).await,
                    Some(acceptor) => {
                        if let Ok(socket) = acceptor.accept(socket).await {
                            hello(socket, &hears).await;
                        }
                    }
                }
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn acceptor(shown: &Certificate) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(shown.cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

async fn hello(mut socket: impl AsyncRead + AsyncWrite + Unpin, hears: &Mutex<Vec<u8>>) {
    let mut piece = [0; 4096];
    let Ok(read) = socket.read(&mut piece).await else { return };
    hears.lock().unwrap().extend_from_slice(&piece[..read]);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nropeway-node: e\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{HELLO}",
        HELLO.len()
    );
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}

fn follow(url: &str, authorities: Option<&str>) -> HttpTransport {
    HttpTransport::new(HttpTransportOptions {
        hello_timeout: Duration::from_secs(10),
        authorities: authorities.map(|pem| pem.as_bytes().to_vec()),
        ..HttpTransportOptions::new(url, "0123abcd")
    })
    .unwrap()
}

#[track_caller]
fn untrusted<T: std::fmt::Debug>(result: Result<T, TransportError>) -> String {
    match result {
        Err(TransportError::Untrusted(why)) => why,
        other => panic!("believed: {other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_a_given_authority_is_believed() {
    let authority = Authority::new("the club");
    let upstream = Upstream::new(Some(&authority.sign(&["127.0.0.1", "localhost"]))).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{}", upstream.port);
        let hello = follow(&url, Some(&authority.cert)).hello().await.unwrap();
        assert_eq!(hello.service, "ropeway");
    }
    assert!(upstream.heard().to_lowercase().contains("authorization: bearer 0123abcd"));
}

#[tokio::test]
async fn bad_certificates_are_refused_with_a_sentence_and_see_no_token() {
    let (authority, other) = (Authority::new("the club"), Authority::new("somebody"));
    let here = ["127.0.0.1"];
    let own = self_signed(&here, 2090, true);
    // What is shown, who is believed, and what the sentence says.
    let cases = [
        (
            authority.sign(&["cloud.example"]),
            Some(&authority.cert),
            "is for cloud.example, not for 127.0.0.1",
        ),
        (authority.sign_for(&here, 2001, 2002), Some(&authority.cert), "ran out at 2002-01-01"),
        (authority.sign_for(&here, 2088, 2089), Some(&authority.cert), "Set the clock of this machine"),
        (other.sign(&here), Some(&authority.cert), "--upstream-ca"),
        (self_signed(&here, 2090, false), Some(&authority.cert), "--upstream-ca"),
        (self_signed(&here, 2090, true), Some(&own.cert), "--upstream-ca"),
        (authority.sign(&here), None, "--upstream-ca"),
        (self_signed(&here, 2090, true), None, "--upstream-ca"),
    ];
    for (shown, believed, said) in cases {
        let upstream = Upstream::new(Some(&shown)).await;
        let client = follow(&format!("https://127.0.0.1:{}", upstream.port), believed.map(String::as_str));
        let why = untrusted(client.hello().await);
        assert!(why.contains(said) && why.contains("everything is kept"), "{said}: {why}");
        untrusted(client.push(Bytes::from_static(b"{\"changes\":[]}")).await);
        untrusted(client.pull(None, 10).await);
        untrusted(client.live(Box::new(|_| {})).await);
        assert_eq!(upstream.heard(), "", "{said}");
    }
}

/// The very certificate of the upstream may be given in place of an authority's, also one that calls itself an
/// authority, as the usual tools make it. It is then believed for its names and its time, no further.
#[tokio::test]
async fn a_certificate_that_signed_itself_is_believed_where_it_was_given() {
    for is_ca in [false, true] {
        let own = self_signed(&["127.0.0.1"], 2090, is_ca);
        let upstream = Upstream::new(Some(&own)).await;
        let url = format!("https://127.0.0.1:{}", upstream.port);
        follow(&url, Some(&own.cert)).hello().await.unwrap();
        let url = format!("https://localhost:{}", upstream.port);
        let why = untrusted(follow(&url, Some(&own.cert)).hello().await);
        assert!(why.contains("not for localhost"), "{why}");
        let old = self_signed(&["127.0.0.1"], 2002, is_ca);
        let upstream = Upstream::new(Some(&old)).await;
        let url = format!("https://127.0.0.1:{}", upstream.port);
        assert!(untrusted(follow(&url, Some(&old.cert)).hello().await).contains("ran out"));
    }
}

#[tokio::test]
async fn plain_http_beyond_this_machine_is_refused_before_anything_is_sent() {
    let client = follow("http://cloud.example:8080", None);
    let why = untrusted(client.hello().await);
    assert!(why.contains("https://") && why.contains("`cloud.example`"), "{why}");
    untrusted(client.push(Bytes::from_static(b"{}")).await);
    untrusted(client.pull(None, 10).await);
    untrusted(client.live(Box::new(|_| {})).await);
    // A person may say otherwise. Nobody answers there, and that is being offline.
    let options = HttpTransportOptions {
        trusted_hosts: vec!["no-such-host.invalid".into()],
        ..HttpTransportOptions::new("http://no-such-host.invalid", "t")
    };
    let trusted = HttpTransport::new(options).unwrap();
    assert!(matches!(trusted.hello().await, Err(TransportError::Offline(_))));
}

/// What speaks no TLS where TLS is expected is something else than the upstream: a portal, mostly.
#[tokio::test]
async fn plain_http_in_the_place_of_tls_is_being_offline() {
    let upstream = Upstream::new(None).await;
    let client = follow(&format!("https://127.0.0.1:{}", upstream.port), None);
    assert!(matches!(client.hello().await, Err(TransportError::Offline(_))));
    assert!(!upstream.heard().contains("0123abcd"));
}
