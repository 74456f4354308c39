//! A node whose store can be copied and put back, for stories of backups.

use super::*;
use ropeway_core::conflict::{Kind, Resolution};
use ropeway_replica::begin_epoch;
use ropeway_store::Store;
use serde_json::{Value, json};

/// A node on a store that can be copied, under the name by which its ids are drawn.
pub struct Place {
    pub profile: String,
    pub store: Arc<MemoryStore>,
    pub node: Node,
    pub clock: Arc<ManualClock>,
}

async fn open(
    store: Arc<MemoryStore>,
    name: &str,
    follows: bool,
    clock: &Arc<ManualClock>,
    text: &str,
) -> Place {
    let options = NodeOptions {
        store: store.clone() as Stored,
        profile: Arc::new(profile::parse(text, "race.toml").unwrap()),
        clock: clock.clone() as Arc<dyn Clock>,
        ids: Arc::new(SequentialIds::new(name)) as Arc<dyn Ids>,
        follows,
    };
    let node = Node::open(options).await.unwrap();
    node.open_space(&space()).await.unwrap();
    Place { profile: text.to_owned(), store, node, clock: clock.clone() }
}

impl Place {
    pub async fn new(name: &str, follows: bool, clock: &Arc<ManualClock>) -> Self {
        Self::with(PROFILE, name, follows, clock).await
    }

    pub async fn with(profile: &str, name: &str, follows: bool, clock: &Arc<ManualClock>) -> Self {
        let store = MemoryStore::new(Epoch::trusted(format!("epoch-{name}")), follows);
        open(Arc::new(store), name, follows, clock, profile).await
    }

    /// Goes back to an image of it, as `restore` does.
    pub async fn restore(&mut self, image: &MemoryStore, again: &str) {
        let store = Arc::new(image.image());
        let ids = SequentialIds::new(&format!("epoch-{again}"));
        begin_epoch(&*store, &*self.clock, &ids, &[space()], false).await.unwrap();
        *self = open(store, again, self.node.follows(), &self.clock, &self.profile).await;
    }

    pub async fn device(&self, name: &str) -> String {
        let enrolment = Enrolment {
            id: None,
            name: name.into(),
            space: space(),
            role: "device".into(),
            mode: "offline_device".into(),
            metadata: json!({}),
        };
        self.node.enrol(enrolment).await.unwrap().token
    }

    pub fn cable(&self, token: &str) -> Cable {
        Cable::new(self.node.clone(), token.to_owned())
    }

    pub async fn sync(&self, cable: &Cable) -> SyncReport {
        self.node.sync(&space(), cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    pub async fn put(&self, person: &str, collection: &str, id: &str, values: Value) -> Verdict {
        self.clock.advance(Duration::from_secs(1));
        let op = if self.node.get(&space(), &key(collection, id)).await.unwrap().is_some_and(|r| r.is_live())
        {
            Op::Patch
        } else {
            Op::Create
        };
        write(&self.node, person, op, collection, id, values).await.verdict
    }

    pub async fn delete(&self, person: &str, collection: &str, id: &str) -> Verdict {
        self.clock.advance(Duration::from_secs(1));
        write(&self.node, person, Op::Delete, collection, id, json!({})).await.verdict
    }

    pub async fn field(&self, collection: &str, id: &str, field: &str) -> Value {
        let live = self.node.get(&space(), &key(collection, id)).await.unwrap().is_some_and(|r| r.is_live());
        if live { data(&self.node, collection, id).await[field].clone() } else { Value::Null }
    }

    /// What waits in lists of lost records: record and value of `name` or `description`.
    pub async fn lost(&self) -> Vec<(String, Value)> {
        let open = self.node.conflicts(&space(), true).await.unwrap();
        let lost = open.into_iter().filter(|v| v.conflict.kind == Kind::Lost);
        let mut found: Vec<_> = lost
            .map(|v| {
                let values = &v.conflict.incoming.values;
                let value = values.get("name").or(values.get("description")).or(values.get("note"));
                (v.conflict.record.to_string(), value.cloned().unwrap_or_default())
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    pub async fn accept(&self, epoch: &str) -> (usize, usize) {
        self.answer(epoch, Resolution::Incoming).await
    }

    pub async fn answer(&self, epoch: &str, resolution: Resolution) -> (usize, usize) {
        self.clock.advance(Duration::from_secs(1));
        let desk = desk("Jury", "admin");
        let epoch = Epoch::trusted(epoch);
        let told = self.node.resolve_lost(&space(), &desk, &epoch, resolution, None).await.unwrap();
        (told.answered, told.left.len())
    }

    /// How far its upstream has been read.
    pub async fn store_followed(&self) -> ropeway_store::Followed {
        self.store.followed(&space()).await.unwrap()
    }

    pub async fn unsettled(&self) -> usize {
        self.node.queue(&space()).await.unwrap().len()
    }
}

pub async fn assert_equal(a: &Place, b: &Place) {
    assert_eq!(dump(&a.node).await, dump(&b.node).await, "canonical dumps differ");
    let digest = async |p: &Place| p.store.space(&space()).await.unwrap().digest;
    assert_eq!(digest(a).await, digest(b).await, "digests differ");
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Time::parse(START).unwrap()))
}
