//! A host on a free port over a store in memory, with a few devices, and ways to ask it.

use reqwest::{Client, Method, RequestBuilder, Response, header::HeaderMap};
use ropeway_core::{
    id::{DeviceId, Epoch, SpaceId},
    profile,
};
use ropeway_protocol::{HttpTransport, HttpTransportOptions, ProblemCode};
use ropeway_replica::{Enrolment, FeedRequest, Node, NodeOptions, RandomIds, SystemClock};
use ropeway_server::{Drained, Host, Limits, Server, ServerOptions, Tls};
use ropeway_store::{MemoryStore, Stored};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use utoipa_axum::router::OpenApiRouter;

const PROFILE: &str = r#"
name = "test"
version = 3
resolver = "upstream"
[roles.admin]
write = "*"
resolve = true
[roles.referee]
write = "*"
[roles.reader]
write = []
[collections.race]
fields = { name = "text" }
[collections.incident]
merge = "park"
references = { race = "race?" }
[collections.incident.fields]
bib = "int"
note = { type = "text", required = true, max = 1048576 }
"#;

/// A host and what is needed to ask it.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) node: Node,
    pub(crate) client: Client,
    /// Tokens of the space `main`.
    pub(crate) admin: String,
    pub(crate) referee: String,
    pub(crate) reader: String,
    /// Token of an administrator of the space `other`.
    pub(crate) other: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Drained>,
}

/// An answer, read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    /// Asserts a problem of this code, with all that a problem promises.
    #[track_caller]
    pub(crate) fn is(&self, code: ProblemCode) -> Value {
        self.is_with(code.status(), code)
    }
    #[track_caller]
    pub(crate) fn is_with(&self, status: u16, code: ProblemCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert!(!self.header("ropeway-node").is_empty());
        let problem = self.json();
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!(code.as_str()), &json!(status)),
            "{}",
            self.text
        );
        assert!(
            !problem["detail"].as_str().unwrap().is_empty() && !problem["next"].as_str().unwrap().is_empty()
        );
        problem
    }
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

pub(crate) fn space(name: &str) -> SpaceId {
    SpaceId::parse(name).unwrap()
}

/// Limits under which a test need not wait.
pub(crate) fn quick() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(400),
        body_idle: Duration::from_millis(400),
        body_total: Duration::from_secs(3),
        write_stall: Duration::from_millis(400),
        live_poll: Duration::from_millis(50),
        live_keep_alive: Duration::from_millis(200),
        drain: Duration::from_secs(2),
        connections_per_address: 512,
        ..Limits::default()
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(quick(), Vec::new()).await
    }

    pub(crate) async fn with(limits: Limits, apps: Vec<OpenApiRouter<Host>>) -> Self {
        Self::start(|options| (options.limits, options.apps) = (limits, apps)).await
    }

    /// With a certificate; `get` and `post` are for hosts without.
    pub(crate) async fn over_tls(limits: Limits, tls: Tls) -> Self {
        Self::start(|options| (options.limits, options.tls) = (limits, Some(tls))).await
    }

    /// On which syncing is switched off.
    pub(crate) async fn not_syncing() -> Self {
        Self::start(|options| (options.limits, options.syncs) = (quick(), false)).await
    }

    async fn start(set: impl FnOnce(&mut ServerOptions)) -> Self {
        let store = MemoryStore::new(Epoch::parse("epoch-1").unwrap(), false);
        Self::on(Arc::new(store), set).await
    }

    /// Over a store of the test's own.
    pub(crate) async fn on(store: Stored, set: impl FnOnce(&mut ServerOptions)) -> Self {
        let node = node(store, PROFILE).await;
        let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap(), node.clone(), space("main"));
        set(&mut options);
        let server = Server::bind(options).await.unwrap();
        node.open_space(&space("other")).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let admin = enrol(&node, "main", "admin", "admin-main").await;
        let referee = enrol(&node, "main", "referee", "referee-main").await;
        let reader = enrol(&node, "main", "reader", "reader-main").await;
        let other = enrol(&node, "other", "admin", "admin-other").await;
        let client = Client::builder().no_proxy().no_gzip().no_zstd().build().unwrap();
        Self { address, node, client, admin, referee, reader, other, stop: Some(stop), serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(token)
    }
    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        Answer::of(self.request(Method::GET, path, token).send().await.unwrap()).await
    }
    pub(crate) async fn post(&self, path: &str, token: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request(Method::POST, path, token).body(body).send().await.unwrap()).await
    }
    /// Pushes as the referee.
    pub(crate) async fn push(&self, changes: &[Value]) -> Answer {
        self.push_as(&self.referee, changes).await
    }
    pub(crate) async fn push_as(&self, token: &str, changes: &[Value]) -> Answer {
        self.post("/v1/push", token, json!({ "changes": changes }).to_string()).await
    }
    /// How many records a space holds.
    pub(crate) async fn records(&self, name: &str) -> usize {
        self.node.feed(&space(name), &FeedRequest::default()).await.unwrap().rows.len()
    }
    /// Asserts that the host is up and has taken nothing in.
    pub(crate) async fn is_up_and_empty(&self) {
        assert_eq!(self.records("main").await, 0);
        assert_eq!(self.get("/health/ready", "").await.ok()["status"], "ready");
    }
    pub(crate) fn transport(&self, token: &str) -> HttpTransport {
        HttpTransport::new(HttpTransportOptions::new(self.url(""), token)).unwrap()
    }
    /// Tells the host to stop.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }
    /// Waits for the host's end.
    pub(crate) async fn ended(self) -> Drained {
        self.serving.await.unwrap()
    }
    /// A raw connection that has sent these bytes.
    pub(crate) async fn raw(&self, bytes: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(bytes.as_bytes()).await.unwrap();
        socket
    }
    /// The head and part of the body of a push as it travels.
    pub(crate) fn half_a_push(&self, body: &str, sent: usize) -> String {
        let token = &self.referee;
        let (length, part) = (body.len(), &body[..sent]);
        format!(
            "POST /v1/push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{part}"
        )
    }
}

pub(crate) async fn node(store: Stored, profile: &str) -> Node {
    let profile = profile::parse(profile, "test.toml").unwrap_or_else(|m| panic!("{m:?}"));
    let (profile, clock) = (Arc::new(profile), Arc::new(SystemClock::new()));
    let options = NodeOptions { store, profile, clock, ids: Arc::new(RandomIds), follows: false };
    Node::open(options).await.unwrap()
}

pub(crate) async fn enrol(node: &Node, name: &str, role: &str, id: &str) -> String {
    let enrolment = Enrolment {
        id: Some(DeviceId::parse(id).unwrap()),
        name: id.into(),
        space: space(name),
        role: role.into(),
        mode: "offline_device".into(),
        metadata: json!({}),
    };
    node.enrol(enrolment).await.unwrap().token
}

/// Everything that still arrives on a connection until it is closed.
pub(crate) async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A change that creates an incident.
pub(crate) fn incident(n: usize) -> Value {
    json!({
        "id": format!("c{n}"), "collection": "incident", "record": format!("i{n}"), "op": "create",
        "fields": { "bib": n, "note": "missed a gate" }, "author": { "device": "referee-main" },
    })
}
