//! Two nodes in one process and the cable between them, on virtual time.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "a test's helpers fail loudly; not every test needs all"
)]

pub mod gym;
pub mod pair;
pub mod place;
#[path = "../../../store/tests/server/mod.rs"]
pub mod server;

use async_trait::async_trait;
use bytes::Bytes;
use ropeway_core::{
    change::{Batch, Change, Op},
    doc::Fields,
    id::{Collection, Epoch, Key, RecordId, SpaceId},
    nonce::Pair,
    plan::Fed,
    profile,
    receipt::{Code, Reason, Receipt, Verdict},
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, Page, PageEnd, Problem, ProblemCode, Push, Pushed, Transport, TransportError};
use ropeway_replica::{
    Clock, Desk, Device, Edit, Enrolled, Enrolment, FeedRequest, Ids, ManualClock, Node, NodeOptions,
    ReplicaError, SequentialIds, SyncOptions, SyncReport, Taken,
};
use ropeway_store::{MemoryStore, Options, PostgresOptions, PostgresStore, SqliteStore, Stored};
use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

pub const PROFILE: &str = r#"
name = "race"
version = 1
resolver = "upstream"
retry = ["1m", "5m", "15m", "1h", "6h"]
[roles.admin]
write = "*"
resolve = true
[roles.device]
write = ["race", "course", "incident", "report"]
[collections.race]
merge = "park"
delete = "latest"
[collections.race.fields]
name = "text"
[collections.course]
merge = "origin"
delete = "latest"
[collections.course.fields]
name = "text"
[collections.gate]
references = { course = { to = "course", on_delete = "cascade" } }
[collections.gate.fields]
name = "text"
[collections.camera]
references = { course = "course" }
[collections.incident]
references = { race = "race" }
merge = "park"
delete = "latest"
[collections.incident.fields]
bib_number = { type = "int", min = 1, max = 9999 }
location = "text"
description = "text"
created_at = "datetime"
note = { type = "text", merge = "latest" }
status = { type = "enum", values = ["unofficial", "official"], default = "unofficial" }
officialized_at = "datetime"
decision = { type = "enum", values = ["pending", "no_action", "penalty_applied"], default = "pending" }
decided_by = "text"
[collections.incident.same]
on = ["race", "location?", "bib_number"]
within = { field = "created_at", seconds = 30 }
[[collections.incident.group]]
fields = ["status", "officialized_at"]
rule = "ratchet"
order = ["unofficial", "official"]
[[collections.incident.group]]
fields = ["decision", "decided_by"]
rule = "park"
unset = "pending"
[collections.report]
references = { incident = "incident" }
[collections.report.fields]
description = "text"
"#;

/// When every test begins.
pub const START: &str = "2026-02-14T09:00:00Z";

pub fn space() -> SpaceId {
    SpaceId::trusted("main")
}

/// Which store a test runs on: every case is written once.
#[derive(Clone, Copy, Debug)]
pub enum On {
    Memory,
    Sqlite,
    Postgres,
}

/// Where a venue's databases are, gone with it.
pub struct Ground {
    dir: tempfile::TempDir,
    databases: Mutex<HashMap<String, server::Database>>,
}

impl Ground {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), databases: Mutex::default() }
    }

    /// The file of a node.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    /// The address of a node's database on the server.
    async fn url(&self, name: &str) -> String {
        if let Some(made) = self.databases.lock().unwrap().get(name) {
            return made.url();
        }
        let made = server::Database::create().await;
        let url = made.url();
        self.databases.lock().unwrap().insert(name.to_owned(), made);
        url
    }
}

/// A cloud, a Pi and the cable.
pub struct Venue {
    pub cloud: Node,
    pub pi: Node,
    pub cable: Arc<Cable>,
    pub clock: Arc<ManualClock>,
    pub device: Enrolled,
    pub ground: Arc<Ground>,
}

impl Venue {
    pub async fn new(on: On) -> Self {
        Self::of(on, PROFILE, "device").await
    }

    /// The same with another profile and another role of the Pi.
    pub async fn of(on: On, profile: &str, role: &str) -> Self {
        let ground = Arc::new(Ground::new());
        let clock = Arc::new(ManualClock::at(Time::parse(START).unwrap()));
        let cloud = node(on, &ground, profile, "cloud", false, &clock).await;
        let pi = node(on, &ground, profile, "pi", true, &clock).await;
        let device = enrolled(&cloud, "Start Line Pi", role).await;
        let cable = Arc::new(Cable::new(cloud.clone(), device.token.clone()));
        Self { cloud, pi, cable, clock, device, ground }
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub async fn sync(&self) -> SyncReport {
        self.pi.sync(&space(), &*self.cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    /// Both replicas are equal, by digest and by canonical dump.
    pub async fn assert_equal(&self) {
        let (cloud, pi) = (dump(&self.cloud).await, dump(&self.pi).await);
        assert_eq!(cloud, pi, "canonical dumps differ");
        let a = self.cloud.store().space(&space()).await.unwrap().digest;
        let b = self.pi.store().space(&space()).await.unwrap().digest;
        assert_eq!(a, b, "digests differ");
    }
}

pub async fn node(
    on: On,
    ground: &Ground,
    profile: &str,
    name: &str,
    follows: bool,
    clock: &Arc<ManualClock>,
) -> Node {
    let (_, store) = place::Kept::open(on, ground, name, follows, clock.now()).await;
    opened(store, profile, name, follows, clock).await
}

/// A node on a store, with its space; ids are drawn by its name.
pub async fn opened(
    store: Stored,
    profile: &str,
    name: &str,
    follows: bool,
    clock: &Arc<ManualClock>,
) -> Node {
    let profile = Arc::new(profile::parse(profile, "race.toml").unwrap());
    let ids: Arc<dyn Ids> = Arc::new(SequentialIds::new(name));
    let clock: Arc<dyn Clock> = clock.clone();
    let node = Node::open(NodeOptions { store, profile, clock, ids, follows }).await.unwrap();
    node.open_space(&space()).await.unwrap();
    node
}

/// A device that follows a node.
pub async fn enrolled(node: &Node, name: &str, role: &str) -> Enrolled {
    let enrolment = Enrolment {
        id: None,
        name: name.into(),
        space: space(),
        role: role.into(),
        mode: "offline_device".into(),
        metadata: serde_json::json!({}),
    };
    node.enrol(enrolment).await.unwrap()
}

/// A profile in parts: venues see the competitions that they choose, and what these collections make of it.
macro_rules! parts {
    ($collections:literal) => {
        concat!(
            r#"
name = "race"
resolver = "upstream"
[roles.admin]
write = "*"
resolve = true
[roles.venue]
write = "*"
sees = "subscribed"
choose = ["competition"]
"#,
            $collections
        )
    };
}
pub(crate) use parts;

/// What the cable does to one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The request never arrives.
    LoseRequest,
    /// The upstream decides, but its answer is lost.
    LoseAnswer,
    /// The request arrives twice.
    Duplicate,
    /// The upstream answers with a failure.
    Fail,
}

type Between = Box<dyn FnMut() + Send>;

/// The way to the cloud, with troubles on demand.
pub struct Cable {
    cloud: Node,
    token: Mutex<String>,
    pub cut: Mutex<bool>,
    pub pushes: Mutex<VecDeque<Trouble>>,
    pub pulls: Mutex<VecDeque<Trouble>>,
    /// Most changes that the cloud takes in one push.
    pub limit: Mutex<usize>,
    /// Records in one page.
    pub page: Mutex<usize>,
    /// Every push as it was sent: a retry must send the same bytes.
    pub sent: Mutex<Vec<Bytes>>,
    pub during_push: Mutex<Option<Between>>,
    /// The pair of nonces that requests carry.
    pub pair: Mutex<Option<Pair>>,
    /// Records that the cloud refuses while they hold this text: last year's app version, say.
    pub refuse: Mutex<Option<String>>,
    /// Records served so far.
    pub served: Mutex<usize>,
}

impl Cable {
    pub fn new(cloud: Node, token: String) -> Self {
        Self {
            cloud,
            token: Mutex::new(token),
            cut: Mutex::new(false),
            pushes: Mutex::default(),
            pulls: Mutex::default(),
            limit: Mutex::new(1_000),
            page: Mutex::new(5_000),
            sent: Mutex::default(),
            during_push: Mutex::new(None),
            pair: Mutex::new(None),
            refuse: Mutex::new(None),
            served: Mutex::new(0),
        }
    }

    pub fn cut(&self, cut: bool) {
        *self.cut.lock().unwrap() = cut;
    }

    /// Another token is put into the Pi's file.
    pub fn use_token(&self, token: &str) {
        *self.token.lock().unwrap() = token.to_owned();
    }

    pub fn served(&self) -> usize {
        *self.served.lock().unwrap()
    }

    fn reach(&self) -> Result<(), TransportError> {
        match *self.cut.lock().unwrap() {
            true => Err(TransportError::Offline("the cable is cut".into())),
            false => Ok(()),
        }
    }

    /// What the door does: who asks, and is it a copy?
    async fn door(&self) -> Result<Device, TransportError> {
        let token = self.token.lock().unwrap().clone();
        let device = self.cloud.authenticate(&token).await.map_err(problem)?;
        let pair = self.pair.lock().unwrap().clone();
        if let Some(pair) = pair {
            self.cloud.meet(&device, &pair).await.map_err(problem)?;
        }
        Ok(device)
    }

    async fn decide(&self, body: &Bytes) -> Result<Pushed, TransportError> {
        let token = self.token.lock().unwrap().clone();
        if let Some(device) = self.cloud.revoked(&token).await.map_err(problem)? {
            let push: Push = serde_json::from_slice(body).unwrap();
            self.cloud.must_be_of(&space(), push.epoch.as_ref()).await.map_err(problem)?;
            let kept = self.cloud.quarantine(&device, push.changes).await.map_err(problem)?;
            let mut refused = Problem::new(ProblemCode::DeviceRevoked, "revoked; kept in quarantine");
            refused.quarantined = Some(kept);
            return Err(TransportError::Problem(refused));
        }
        let device = self.door().await?;
        let push: Push = serde_json::from_slice(body).unwrap();
        if push.changes.len() > *self.limit.lock().unwrap() {
            return Err(TransportError::Problem(Problem::new(ProblemCode::TooLarge, "too many changes")));
        }
        self.cloud.may_push(&device, push.epoch.as_ref()).await.map_err(problem)?;
        let grant = self.cloud.grant_of(&device);
        let refused = self.refuse.lock().unwrap().clone();
        let is_refused =
            |c: &Change| refused.as_ref().is_some_and(|t| c.fields.values().any(|v| v.as_str() == Some(t)));
        let (bad, good): (Vec<Change>, Vec<Change>) = push.changes.into_iter().partition(is_refused);
        let batch = Batch { last: push.last, epoch: push.epoch, ..Batch::new(grant, good) };
        let Taken { mut receipts, epoch, .. } =
            self.cloud.take(&device.space, batch).await.map_err(problem)?;
        receipts.extend(bad.into_iter().map(rejected));
        Ok(Pushed { epoch, now: self.cloud.clock().now(), receipts })
    }
}

fn rejected(change: Change) -> Receipt {
    let reason =
        Reason { code: Code::Invalid, field: Some("description".into()), text: "not this year".into() };
    Receipt {
        key: change.key(),
        change: change.id,
        verdict: Verdict::Rejected,
        version: 0,
        stamp: Stamp(0),
        record: None,
        detail: Default::default(),
        reason: Some(reason),
    }
}

fn problem(error: ReplicaError) -> TransportError {
    let code = match &error {
        ReplicaError::Unauthenticated => ProblemCode::Unauthenticated,
        ReplicaError::Revoked(_) => ProblemCode::DeviceRevoked,
        ReplicaError::Cloned(_) => ProblemCode::DeviceCloned,
        ReplicaError::ResyncRequired(_) => ProblemCode::ResyncRequired,
        ReplicaError::CursorInvalid => ProblemCode::CursorInvalid,
        ReplicaError::EpochChanged => ProblemCode::EpochChanged,
        _ => ProblemCode::Internal,
    };
    TransportError::Problem(Problem::new(code, error.to_string()))
}

#[async_trait]
impl Transport for Cable {
    fn present(&self, pair: &Pair) {
        *self.pair.lock().unwrap() = Some(pair.clone());
    }

    async fn hello(&self) -> Result<Hello, TransportError> {
        self.reach()?;
        let epoch = self.cloud.store().space(&space()).await.unwrap().epoch;
        let now = self.cloud.clock().now();
        Ok(Hello {
            service: "ropeway".into(),
            build: "test".into(),
            schema: 1,
            epoch,
            profile: "race 1".into(),
            now,
            offset: self.cloud.offset_to_top(),
        })
    }

    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        self.reach()?;
        self.sent.lock().unwrap().push(body.clone());
        let trouble = self.pushes.lock().unwrap().pop_front();
        match trouble {
            Some(Trouble::LoseRequest) => return Err(TransportError::Offline("request lost".into())),
            Some(Trouble::Fail) => {
                return Err(TransportError::Problem(Problem::new(ProblemCode::Unavailable, "going down")));
            }
            _ => {}
        }
        let pushed = self.decide(&body).await?;
        if trouble == Some(Trouble::Duplicate) {
            let again = self.decide(&body).await?;
            let outcome = |p: &Pushed| {
                p.receipts.iter().map(|r| (r.change.clone(), r.verdict, r.version)).collect::<Vec<_>>()
            };
            assert_eq!(outcome(&pushed), outcome(&again), "asked again, the answer must be the same (I1)");
        }
        let during = self.during_push.lock().unwrap().take();
        if let Some(mut during) = during {
            during();
        }
        match trouble {
            Some(Trouble::LoseAnswer) => Err(TransportError::Offline("answer lost".into())),
            _ => Ok(pushed),
        }
    }

    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.reach()?;
        if self.pulls.lock().unwrap().pop_front().is_some() {
            return Err(TransportError::Offline("the pull was cut".into()));
        }
        let limit = limit.min(*self.page.lock().unwrap());
        let request =
            FeedRequest { cursor: cursor.map(str::to_owned), limit: Some(limit), collections: vec![] };
        let device = self.door().await?;
        let page = self.cloud.feed_to(&device, &[], &request).await.map_err(problem)?;
        self.cloud.note_read(&device, cursor).await.map_err(problem)?;
        let rows: Vec<Fed> = page.rows;
        *self.served.lock().unwrap() += rows.len();
        let end = PageEnd {
            cursor: page.cursor,
            epoch: page.epoch,
            head: page.head,
            count: rows.len() as u64,
            digest: page.digest,
            complete: page.complete,
            now: self.cloud.clock().now(),
            audiences: page.audiences,
        };
        Ok(Page { rows, end })
    }

    async fn subscribe(&self, audience: &str, on: bool) -> Result<(), TransportError> {
        self.reach()?;
        let token = self.token.lock().unwrap().clone();
        let device = self.cloud.authenticate(&token).await.map_err(problem)?;
        self.cloud.subscribe(&device, audience, on).await.map_err(problem)
    }

    async fn live(&self, mut on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        let mut heads = self.cloud.watch(&space());
        loop {
            self.reach()?;
            on_head(*heads.borrow_and_update());
            heads.changed().await.map_err(|_| TransportError::Offline("the cloud is gone".into()))?;
        }
    }
}

pub fn desk(person: &str, role: &str) -> Desk {
    Desk { person: Some(person.into()), role: role.into() }
}

pub fn fields(value: serde_json::Value) -> Fields {
    value.as_object().unwrap().clone().into_iter().collect()
}

pub fn key(collection: &str, id: &str) -> Key {
    Key::new(&Collection::trusted(collection), &RecordId::trusted(id))
}

/// Writes at a desk; the receipt whatever it says.
pub async fn write(
    node: &Node,
    person: &str,
    op: Op,
    collection: &str,
    id: &str,
    values: serde_json::Value,
) -> Receipt {
    let role = if node.follows() { "device" } else { "admin" };
    let edit = Edit {
        change: None,
        collection: Collection::trusted(collection),
        record: Some(RecordId::trusted(id)),
        op,
        fields: fields(values),
        version: None,
    };
    node.write(&space(), &desk(person, role), edit).await.unwrap()
}

pub async fn data(node: &Node, collection: &str, id: &str) -> serde_json::Value {
    let record = node.get(&space(), &key(collection, id)).await.unwrap();
    record.map_or(serde_json::Value::Null, |r| serde_json::from_str(r.data.text()).unwrap())
}

pub async fn dump(node: &Node) -> String {
    let mut out = String::new();
    let push = |line: &str| {
        out.push_str(line);
        out.push('\n');
        Ok(())
    };
    node.dump_canonical(&space(), push).await.unwrap();
    out
}

/// Runs a case on every store. Where no server is, a test that says so fails: see `following.rs`.
pub fn on_every_store<F, Fut>(case: F)
where
    F: Fn(Venue) -> Fut,
    Fut: Future<Output = ()>,
{
    on_every_store_with(PROFILE, case);
}

/// The same with another profile.
pub fn on_every_store_with<F, Fut>(profile: &str, case: F)
where
    F: Fn(Venue) -> Fut,
    Fut: Future<Output = ()>,
{
    for on in every_store() {
        eprintln!("on {on:?}");
        runtime().block_on(async {
            let venue = Venue::of(on, profile, "device").await;
            let _kept = venue.ground.clone();
            case(venue).await;
        });
    }
}

fn every_store() -> impl Iterator<Item = On> {
    let postgres = server::found().map(|_| On::Postgres);
    [On::Memory, On::Sqlite].into_iter().chain(postgres)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A cable that goes after so many pages.
pub struct CutAfter {
    pub cable: std::sync::Arc<Cable>,
    pub pages: std::sync::atomic::AtomicUsize,
    /// Whether the request for the next page still arrives.
    pub arrives: bool,
}

#[async_trait::async_trait]
impl Transport for CutAfter {
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.cable.hello().await
    }
    async fn push(&self, body: bytes::Bytes) -> Result<Pushed, TransportError> {
        self.cable.push(body).await
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        if self.pages.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
            if self.arrives {
                let _ = self.cable.pull(cursor, limit).await;
            }
            return Err(TransportError::Offline("cut".into()));
        }
        self.cable.pull(cursor, limit).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.cable.live(on_head).await
    }
}
