//! A gym: a cloud with a library of exercises that every athlete reads and few may write, and two athletes' phones.

use super::{
    Cable, Ground, On, fields, key, node,
    place::{self, Place, on_each},
};
use ropeway_core::{
    change::{Author, Change, Op},
    id::{ChangeId, Collection, RecordId, SpaceId},
    receipt::{Code, Receipt},
};
use ropeway_replica::{Desk, Device, Edit, Enrolled, Enrolment, ManualClock, Node, SyncOptions, SyncReport};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

pub const PROFILE: &str = r#"
name = "gym"
resolver = "upstream"
[roles.athlete]
write = "*"
[roles.admin]
write = "*"
resolve = true
[roles.librarian]
write = ["muscle", "exercise", "workout", "effort"]
resolve = true
[collections.muscle]
shared = true
delete = "latest"
fields = { name = "text!" }
[collections.exercise]
shared = true
references = { muscle = "muscle?" }
fields = { name = "text!", difficulty = "int", out_of_use = "bool" }
[collections.workout]
fields = { day = "date" }
[collections.effort]
references = { workout = { to = "workout", on_delete = "cascade" }, exercise = "exercise" }
fields = { reps = "int" }
"#;

pub fn space(name: &str) -> SpaceId {
    SpaceId::trusted(name)
}

pub fn desk(role: &str) -> Desk {
    Desk { person: Some(role.into()), role: role.into() }
}

pub fn edit(op: Op, name: &str, values: Value) -> Edit {
    let (collection, id) = name.split_once('/').unwrap();
    let (collection, record) = (Collection::trusted(collection), Some(RecordId::trusted(id)));
    Edit { change: None, collection, record, op, fields: fields(values), version: None }
}

/// A change as a device pushes it.
pub fn change(device: &Device, id: &str, edit: Edit) -> Change {
    Change {
        id: ChangeId::trusted(id),
        collection: edit.collection,
        record: edit.record.unwrap(),
        op: edit.op,
        fields: edit.fields,
        seen: None,
        base: None,
        lost: None,
        author: Author { device: device.id.clone(), person: None },
        at: None,
    }
}

/// A phone of one athlete.
pub struct Phone {
    pub space: SpaceId,
    pub role: &'static str,
    pub node: Node,
    pub cable: Arc<Cable>,
    pub enrolled: Enrolled,
}

impl Phone {
    pub async fn write(&self, op: Op, name: &str, values: Value) -> Receipt {
        self.node.write(&self.space, &desk(self.role), edit(op, name, values)).await.unwrap()
    }

    pub async fn sync(&self) -> SyncReport {
        self.node.sync(&self.space, &*self.cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    /// Syncs and has what the cloud has for its space, to the byte.
    pub async fn synced(&self, cloud: &Node) -> SyncReport {
        let report = self.sync().await;
        assert_eq!(report.error, None);
        assert_eq!(dump(&self.node, &self.space).await, dump(cloud, &self.space).await);
        let (ours, theirs) = (self.node.state(&self.space).await, cloud.state(&self.space).await);
        assert_eq!(ours.unwrap().digest, theirs.unwrap().digest);
        let (theirs, ours) = report.digests.unwrap();
        assert_eq!(theirs, ours);
        report
    }

    pub async fn data(&self, name: &str) -> Value {
        data(&self.node, &self.space, name).await
    }
}

/// A cloud with the spaces of two athletes, and their phones. One of the phones is a librarian's.
pub struct Gym {
    pub cloud: Place,
    pub ann: Phone,
    pub bob: Phone,
    pub clock: Arc<ManualClock>,
    pub ground: Arc<Ground>,
    pub on: On,
}

impl Gym {
    pub async fn open(on: On) -> Self {
        Self::of(on, PROFILE).await
    }

    pub async fn of(on: On, profile: &str) -> Self {
        let ground = Arc::new(Ground::new());
        let clock = place::clock();
        let cloud = Place::with(on, profile, "cloud", false, &clock).await;
        let phone = async |name: &str, role: &'static str| {
            cloud.node.open_space(&space(name)).await.unwrap();
            let enrolled = enrol(&cloud.node, name, name, role).await;
            let node = node(on, &ground, profile, name, true, &clock).await;
            node.open_space(&space(name)).await.unwrap();
            let cable = Arc::new(cloud.cable(&enrolled.token));
            Phone { space: space(name), role, node, cable, enrolled }
        };
        let (ann, bob) = (phone("ann", "athlete").await, phone("bob", "librarian").await);
        Self { cloud, ann, bob, clock, ground, on }
    }

    /// The librarian writes at the cloud's own desk, in a space of no matter whom.
    pub async fn library(&self, op: Op, name: &str, values: Value) -> Receipt {
        self.clock.advance(Duration::from_secs(1));
        let edit = edit(op, name, values);
        self.cloud.node.write(&space("main"), &desk("librarian"), edit).await.unwrap()
    }
}

pub async fn enrol(cloud: &Node, into: &str, name: &str, role: &str) -> Enrolled {
    let enrolment = Enrolment {
        id: None,
        name: name.into(),
        space: space(into),
        role: role.into(),
        mode: "offline_device".into(),
        metadata: json!({}),
    };
    cloud.enrol(enrolment).await.unwrap()
}

pub async fn data(node: &Node, space: &SpaceId, name: &str) -> Value {
    let (collection, id) = name.split_once('/').unwrap();
    let record = node.get(space, &key(collection, id)).await.unwrap();
    record.map_or(Value::Null, |record| serde_json::from_str(record.data.text()).unwrap())
}

pub async fn dump(node: &Node, space: &SpaceId) -> String {
    let mut lines = Vec::new();
    let line = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    node.dump_canonical(space, line).await.unwrap();
    lines.join("\n")
}

pub fn why(receipt: &Receipt) -> Option<Code> {
    receipt.reason.as_ref().map(|reason| reason.code)
}

/// Runs a case on every store.
pub fn everywhere(case: impl AsyncFn(Gym)) {
    on_each(async |on| case(Gym::open(on).await).await);
}
