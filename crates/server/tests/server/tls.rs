//! TLS as a client meets it: what is agreed on, handshakes that go nowhere, and certificates that are
//! renewed while the host serves (IRON-073).

use crate::{
    certs::{Authority, Certificate},
    rig::{Rig, incident, quick, space},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ropeway_core::id::DeviceId;
use ropeway_server::{Limits, Tls};
use serde_json::json;
use std::{fs, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const SOON: Duration = Duration::from_secs(5);

/// A host with a certificate of an authority, and what is needed to reach it.
struct Secured {
    rig: Rig,
    authority: Authority,
    dir: TempDir,
    tls: Tls,
}

impl Secured {
    async fn new(limits: Limits) -> Self {
        let (authority, dir) = (Authority::new("the club"), tempfile::tempdir().unwrap());
        put(&dir, &authority.sign(&["localhost"]));
        let tls = Tls::load(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
        Self { rig: Rig::over_tls(limits, tls.clone()).await, authority, dir, tls }
    }

    async fn try_connect(&self, spoken: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.cert.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = spoken.iter().map(|name| name.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(self.rig.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    async fn connect(&self, spoken: &[&str]) -> TlsStream<TcpStream> {
        timeout(SOON, self.try_connect(spoken)).await.unwrap().unwrap()
    }

    /// The certificate that a newcomer sees.
    async fn shown(&self) -> CertificateDer<'static> {
        let socket = self.connect(&[]).await;
        socket.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Asks once, over a connection of its own.
    async fn ask(&self, path: &str) -> String {
        let mut socket = self.connect(&["http/1.1"]).await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn metric(&self, name: &str) -> i64 {
        let text = self.ask("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(&format!("ropeway_{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until a newcomer sees this certificate.
    async fn until_shown(&self, certificate: &Certificate) {
        let wanted = CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap();
        let seen = async { while self.shown().await != wanted {} };
        timeout(SOON, seen).await.expect("the new certificate is not shown");
    }
}

fn put(dir: &TempDir, certificate: &Certificate) {
    fs::write(dir.path().join("cert.pem"), &certificate.cert).unwrap();
    fs::write(dir.path().join("key.pem"), &certificate.key).unwrap();
}

#[tokio::test]
async fn either_http_is_agreed_on_and_served() {
    let host = Secured::new(quick()).await;
    assert!(host.ask("/health/ready").await.contains("\"ready\""));
    for (spoken, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let socket = host.connect(spoken).await;
        assert_eq!(socket.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
    }
    let socket = TokioIo::new(host.connect(&["h2"]).await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/health/ready").body(Empty::<Bytes>::new()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.version(), hyper::Version::HTTP_2);
    assert!(
        String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).contains("ready")
    );
}

/// A handshake is an open connection: it counts against the bound, and has as long as a head.
#[tokio::test]
async fn a_handshake_that_goes_nowhere_is_ended_in_time() {
    let mut limits = quick();
    limits.connections = 1;
    let host = Secured::new(limits).await;
    for half in [&b""[..], &[22, 3, 1, 2, 0, 1, 0], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut slow = host.rig.raw("").await;
        slow.write_all(half).await.unwrap();
        let other = timeout(SOON, host.try_connect(&[])).await.unwrap();
        // What is no TLS at all ends at once, and may have made room already.
        assert!(other.is_err() || half[..1] == *b"G", "there was room for a second one");
        let mut rest = Vec::new();
        let _ = timeout(SOON, slow.read_to_end(&mut rest)).await.expect("the handshake was left open");
        let again = async { while host.try_connect(&[]).await.is_err() {} };
        timeout(SOON, again).await.expect("the place was not given back");
    }
    assert_eq!(host.metric("tls_handshakes_failed_total").await, 3);
}

/// Silence after a good handshake is no better than silence without one.
#[tokio::test]
async fn whoever_says_nothing_after_the_handshake_is_closed_in_time() {
    let host = Secured::new(quick()).await;
    for half in ["", "PRI * HTTP/2.0\r\n", "GET /v1/pu"] {
        let mut socket = host.connect(&[]).await;
        socket.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut rest)).await.expect("it was left open");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_and_nobody_is_cut_off() {
    let mut limits = quick();
    limits.tls_look = Duration::from_secs(3_600);
    let host = Secured::new(limits).await;
    let before = host.shown().await;
    let mut live = host.connect(&["http/1.1"]).await;
    let token = &host.rig.referee;
    let ask = format!("GET /v1/live HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
    live.write_all(ask.as_bytes()).await.unwrap();
    next_head(&mut live).await;
    let renewed = host.authority.sign_for(&["localhost"], 2020, 2080);
    put(&host.dir, &renewed);
    assert_eq!(host.shown().await, before, "nobody has looked yet");
    host.tls.look();
    host.until_shown(&renewed).await;
    // 2080-01-01 in seconds.
    assert_eq!(host.metric("tls_certificate_until_seconds").await, 3_471_292_800);
    let change = serde_json::from_value(incident(1)).unwrap();
    let device = DeviceId::parse("referee-main").unwrap();
    let device = host.rig.node.store().device(&crate::rig::space("main"), &device).await.unwrap().unwrap();
    let grant = host.rig.node.grant_of(&device);
    host.rig.node.ingest(&space("main"), grant, vec![change]).await.unwrap();
    next_head(&mut live).await;
}

async fn next_head(live: &mut TlsStream<TcpStream>) {
    let mut text = String::new();
    let read = async {
        while !text.contains("event: head") {
            let mut piece = [0; 4096];
            let n = live.read(&mut piece).await.unwrap();
            assert!(n > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    timeout(SOON, read).await.expect("no news");
}

/// Without being told: the files are looked at again and again.
#[tokio::test]
async fn a_certificate_of_no_use_is_refused_and_the_old_one_stays() {
    let mut limits = quick();
    (limits.tls_look, limits.address_rate) = (Duration::from_millis(20), 100_000);
    let host = Secured::new(limits).await;
    let before = host.shown().await;
    let good = host.authority.sign(&["localhost"]);
    let nonsense = Certificate { cert: "hello".into(), key: good.key.clone() };
    let halfway = Certificate { cert: good.cert.clone(), key: host.authority.sign(&["localhost"]).key };
    let ran_out = host.authority.sign_for(&["localhost"], 2001, 2002);
    for (refused, bad) in [nonsense, halfway, ran_out].iter().enumerate() {
        put(&host.dir, bad);
        let told = async { while host.metric("tls_certificates_refused_total").await <= refused as i64 {} };
        timeout(SOON, told).await.expect("nobody was told");
        assert_eq!(host.shown().await, before);
    }
    let refused = host.metric("tls_certificates_refused_total").await;
    fs::remove_file(host.dir.path().join("key.pem")).unwrap();
    let told = async { while host.metric("tls_certificates_refused_total").await == refused {} };
    timeout(SOON, told).await.expect("nobody was told");
    assert_eq!(host.shown().await, before);
    put(&host.dir, &good);
    host.until_shown(&good).await;
    assert!(host.ask("/health/ready").await.contains("ready"));
    assert_eq!(json!(host.rig.records("main").await), json!(0));
}
