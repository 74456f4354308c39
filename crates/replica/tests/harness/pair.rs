//! Two nodes on memory stores with any profile: the smallest thing that a story needs.

use super::*;
use ropeway_core::id::CONFLICT;
use serde_json::{Value, json};

pub struct Pair {
    pub cloud: Node,
    pub pi: Node,
    pub cable: Arc<Cable>,
    pub clock: Arc<ManualClock>,
}

pub async fn plain(name: &str, follows: bool, text: &str, clock: &Arc<ManualClock>) -> Node {
    let store: Stored = Arc::new(MemoryStore::new(Epoch::trusted(format!("epoch-{name}")), follows));
    opened(store, text, name, follows, clock).await
}

pub async fn pair2(cloud_profile: &str, pi_profile: &str) -> Pair {
    let clock = Arc::new(ManualClock::at(Time::parse(START).unwrap()));
    let cloud = plain("cloud", false, cloud_profile, &clock).await;
    let pi = plain("pi", true, pi_profile, &clock).await;
    let cable = plug(&cloud).await;
    Pair { cloud, pi, cable, clock }
}

/// A cable to a cloud, with a device there.
pub async fn plug(cloud: &Node) -> Arc<Cable> {
    let enrolment = Enrolment {
        id: None,
        name: "pi".into(),
        space: space(),
        role: "device".into(),
        mode: "offline_device".into(),
        metadata: json!({}),
    };
    let device = cloud.enrol(enrolment).await.unwrap();
    Arc::new(Cable::new(cloud.clone(), device.token.clone()))
}
pub async fn pair(text: &str) -> Pair {
    pair2(text, text).await
}

impl Pair {
    pub async fn sync(&self) -> SyncReport {
        self.clock.advance(Duration::from_secs(1));
        self.pi.sync(&space(), &*self.cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }
    pub async fn equal(&self) {
        let (cloud, pi) = (dump(&self.cloud).await, dump(&self.pi).await);
        assert_eq!(cloud, pi, "canonical dumps differ (cloud, pi)");
        let a = self.cloud.store().space(&space()).await.unwrap().digest;
        let b = self.pi.store().space(&space()).await.unwrap().digest;
        assert_eq!(a, b, "digests differ");
    }
    pub async fn w(&self, node: &Node, op: Op, c: &str, id: &str, v: serde_json::Value) -> Receipt {
        self.clock.advance(Duration::from_secs(1));
        write(node, if node.follows() { "referee" } else { "var" }, op, c, id, v).await
    }
}

pub const TREE: &str = r#"
name = "tree"
version = 1
resolver = "RESOLVER"
retry = ["1m", "5m"]
[roles.admin]
write = "*"
resolve = true
[roles.device]
write = "*"
[collections.box]
merge = "park"
delete = "DELRULE"
[collections.box.fields]
name = "text"
mine = { type = "text", merge = "origin" }
n = { type = "counter" }
[collections.item]
references = { box = { to = "box", on_delete = "cascade" }, shelf = { to = "box", on_delete = "release", optional = true } }
merge = "park"
delete = "DELRULE"
[collections.item.fields]
text = "text"
note = { type = "text", merge = "latest" }
"#;
pub fn tree(rule: &str, resolver: &str) -> String {
    TREE.replace("DELRULE", rule).replace("RESOLVER", resolver)
}

pub const ALIKE: &str = r#"
name = "alike"
version = 1
resolver = "upstream"
retry = ["1m", "5m"]
[roles.admin]
write = "*"
resolve = true
[roles.device]
write = "*"
[collections.item]
merge = "park"
delete = "latest"
[collections.item.fields]
text = "text"
note = { type = "text", merge = "latest" }
bib = "int"
[collections.item.same]
on = ["bib"]
[collections.part]
references = { item = "item" }
[collections.part.fields]
name = "text"
"#;

/// Writes at a node's desk: as a venue at one that follows, as an administrator at any other.
pub async fn at(node: &Node, op: Op, name: &str, values: Value) -> Verdict {
    let (collection, id) = name.split_once('/').unwrap();
    let role = if node.follows() { "venue" } else { "admin" };
    let edit = Edit {
        change: None,
        collection: key(collection, id).collection,
        record: Some(key(collection, id).id),
        op,
        fields: fields(values),
        version: None,
    };
    let receipt = node.write(&space(), &desk("somebody", role), edit).await.unwrap();
    assert_ne!(receipt.verdict, Verdict::Rejected, "{name}: {receipt:?}");
    receipt.verdict
}

/// The ids of what a node holds, conflicts aside.
pub async fn holds(node: &Node) -> String {
    let text = dump(node).await;
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let names = lines.filter(|l| l["collection"] != CONFLICT);
    names.map(|l| l["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}
