//! The stage: a cloud node and a Pi node, each with its own database and its own server, the cable
//! between them, a second Pi and a tablet.

use super::{cable::Cable, clock::RaceClock};
use crate::database::{Database, Opening};
use anyhow::{Context, Result, bail, ensure};
use ropeway_core::{
    change::{Author, Change, Door, Grant, Op},
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    profile::{self, Profile},
    receipt::{Receipt, Verdict},
    record::Record,
    time::AuthorTime,
};
use ropeway_protocol::{HttpTransport, HttpTransportOptions, Push, Transport};
use ropeway_race_logger::{
    PROFILE,
    sample::{Action, Actor, Sample, SampleRecord, Seat},
};
use ropeway_replica::{
    Clock, Desk, Edit, Enrolment, FollowOptions, Follower, Ids, Node, NodeOptions, RandomIds, Trigger,
};
use ropeway_server::{Server, ServerOptions};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// How long anything that is bound to happen may take before the demo gives up on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Changes written in one transaction when the cloud takes the reference data in.
const PORTION: usize = 500;
/// More than any outbox of this day holds.
const ALL: usize = 100_000;

/// A node with its database and its server.
pub(super) struct Station {
    pub(super) node: Node,
    pub(super) url: String,
    pub(super) database: Database,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Station {
    /// Lets requests in flight finish, then ends.
    async fn close(self) {
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}

/// A device that speaks to the cloud without a server of its own.
pub(super) struct Visitor {
    pub(super) device: DeviceId,
    pub(super) transport: HttpTransport,
}

/// Everything that takes part.
pub(super) struct Stage {
    pub(super) sample: Sample,
    pub(super) space: SpaceId,
    pub(super) clock: Arc<RaceClock>,
    pub(super) cloud: Station,
    pub(super) pi: Station,
    /// The Pi that is revoked during the day.
    pub(super) ascent: Node,
    pub(super) ascent_way: Visitor,
    pub(super) tablet: Visitor,
    pub(super) cable: Arc<Cable<HttpTransport>>,
    pub(super) follower: Option<Follower>,
}

/// Where a stage is built.
pub(super) struct Ground {
    pub(super) cloud: Database,
    pub(super) pi: Database,
    pub(super) ascent: Database,
    pub(super) cloud_listen: SocketAddr,
    pub(super) pi_listen: SocketAddr,
}

impl Stage {
    /// Opens the nodes, starts the servers, enrols the devices. Nothing is in the databases yet.
    pub(super) async fn build(sample: Sample, ground: &Ground) -> Result<Self> {
        let space = SpaceId::parse("main")?;
        let clock = Arc::new(RaceClock::from(sample.begins));
        let mistakes = |list: Vec<profile::Mistake>| {
            anyhow::anyhow!(
                "the race logger's profile: {}",
                list.iter().map(ToString::to_string).collect::<String>()
            )
        };
        let profile = Arc::new(profile::parse(PROFILE, "race-logger").map_err(mistakes)?);
        let cloud = open(&ground.cloud, &profile, &clock, false).await?;
        let pi = open(&ground.pi, &profile, &clock, true).await?;
        let ascent = open(&ground.ascent, &profile, &clock, true).await?;
        for node in [&cloud, &pi, &ascent] {
            node.open_space(&space).await?;
        }
        let cloud = serve(cloud, &ground.cloud, ground.cloud_listen, &space).await?;
        let pi = serve(pi, &ground.pi, ground.pi_listen, &space).await?;
        let way = enrol(&cloud, &space, Seat::Pi, Some(pi.node.device())).await?;
        let ascent_way = enrol(&cloud, &space, Seat::AscentPi, Some(ascent.device())).await?;
        let tablet = enrol(&cloud, &space, Seat::Tablet, None).await?;
        let cable = Arc::new(Cable::new(way.transport));
        Ok(Self { sample, space, clock, cloud, pi, ascent, ascent_way, tablet, cable, follower: None })
    }

    /// The cloud takes in what was prepared before the race.
    pub(super) async fn prepare(&self) -> Result<usize> {
        let (node, admin) = (&self.cloud.node, Actor::Admin);
        let grant = Grant { door: Door::Desk, device: node.device().clone(), role: admin.role().into() };
        for portion in self.sample.reference().chunks(PORTION) {
            let mut changes = Vec::new();
            for record in portion {
                changes.push(self.change(record, node.device(), admin)?);
            }
            for receipt in node.ingest(&self.space, grant.clone(), changes).await? {
                ensure!(receipt.verdict == Verdict::Created, "the cloud did not take in {:?}", receipt);
            }
        }
        Ok(self.sample.prepared)
    }

    /// A new record as a change by somebody at a device.
    pub(super) fn change(&self, record: &SampleRecord, device: &DeviceId, actor: Actor) -> Result<Change> {
        Ok(Change {
            id: ChangeId::parse(&RandomIds.id())?,
            collection: record.collection.clone(),
            record: record.id.clone(),
            op: Op::Create,
            fields: record.fields.clone(),
            seen: None,
            base: None,
            lost: None,
            author: Author { device: device.clone(), person: Some(actor.name().into()) },
            at: Some(AuthorTime::wall(self.clock.now())),
        })
    }

    /// The Pi begins to follow the cloud.
    pub(super) fn follow(&mut self) {
        // Looks often for a cable that is joined again: nobody wants to wait for it in a demo.
        let options = FollowOptions { probe: Duration::from_millis(250), ..FollowOptions::default() };
        let follower = Follower::spawn(self.pi.node.clone(), self.space.clone(), self.cable.clone(), options);
        self.follower = Some(follower);
    }

    /// Waits until nothing of the Pi is on its way any more and everything of the cloud has arrived there,
    /// by the follower's own triggers. Returns the trigger of the first sync that was waited for.
    pub(super) async fn caught_up(&self) -> Result<Option<Trigger>> {
        let follower = self.follower.as_ref().context("the Pi does not follow yet")?;
        let mut state = follower.state();
        let mut first = None;
        let level = async {
            loop {
                state.borrow_and_update();
                if self.is_level().await? {
                    return Ok(first);
                }
                state.changed().await.context("the follower has stopped")?;
                first = first.or(state.borrow().trigger);
            }
        };
        if let Ok(reached) = timeout(PATIENCE, level).await {
            return reached;
        }
        let last = follower.state().borrow().clone();
        let why = last.fault.or(last.last.and_then(|report| report.error)).unwrap_or_default();
        bail!("the Pi did not catch up within {} seconds; its last sync said: {why}", PATIENCE.as_secs())
    }

    /// Waits until the Pi has noticed that it is alone.
    pub(super) async fn alone(&self) -> Result<()> {
        let mut state = self.follower.as_ref().context("the Pi does not follow yet")?.state();
        let noticed = timeout(PATIENCE, state.wait_for(|following| !following.online)).await;
        noticed
            .context("the Pi has not noticed that the cable is cut")?
            .context("the follower has stopped")?;
        Ok(())
    }

    async fn is_level(&self) -> Result<bool> {
        let (cloud, pi) =
            (self.cloud.node.status(&self.space).await?, self.pi.node.status(&self.space).await?);
        let moving = [EntryState::Pending, EntryState::Sealed, EntryState::Receipted];
        let moves = pi.outbox.iter().any(|(state, count)| moving.contains(state) && *count > 0);
        Ok(!moves && pi.upstream == Some((cloud.epoch, cloud.head)))
    }

    /// The node at a seat. A tablet has none.
    pub(super) fn node(&self, seat: Seat) -> &Node {
        match seat {
            Seat::Pi => &self.pi.node,
            Seat::AscentPi => &self.ascent,
            Seat::Cloud | Seat::Tablet => &self.cloud.node,
        }
    }

    /// Somebody does something at their desk.
    pub(super) async fn write(&self, action: &Action) -> Result<Receipt> {
        let Action { actor, op, record, .. } = action;
        self.write_as(*actor, *op, record.collection.clone(), record.id.clone(), record.fields.clone()).await
    }

    /// Somebody writes a record at their desk.
    pub(super) async fn write_as(
        &self,
        actor: Actor,
        op: Op,
        collection: Collection,
        record: RecordId,
        fields: Fields,
    ) -> Result<Receipt> {
        let desk = Desk { person: Some(actor.name().into()), role: actor.role().into() };
        let edit = Edit { change: None, collection, record: Some(record), op, fields, version: None };
        Ok(self.node(actor.seat()).write(&self.space, &desk, edit).await?)
    }

    /// A device without a desk pushes straight to the cloud.
    pub(super) async fn push(&self, visitor: &Visitor, change: &Change) -> Result<Receipt> {
        let body = serde_json::to_vec(&Push {
            batch: None,
            epoch: None,
            changes: vec![change.clone()],
            last: BTreeSet::new(),
        })?;
        let pushed = visitor.transport.push(body.into()).await?;
        pushed.receipts.into_iter().next().context("the cloud gave no receipt")
    }

    /// A record on a node.
    pub(super) async fn get(&self, node: &Node, collection: &str, id: &RecordId) -> Result<Option<Record>> {
        Ok(node.get(&self.space, &Key::new(&Collection::parse(collection)?, id)).await?)
    }

    /// All records of a collection on a node.
    pub(super) async fn all(&self, node: &Node, collection: &str) -> Result<Vec<(RecordId, Record)>> {
        Ok(node.list(&self.space, &Collection::parse(collection)?, None, ALL).await?)
    }

    /// Everything that ever entered a node's outbox, in order, with what became of it.
    pub(super) async fn outbox(&self, node: &Node) -> Result<Vec<Entry>> {
        use EntryState::{Discarded, Pending, Receipted, Rejected, Sealed, Settled, Waiting};
        let states = [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded];
        Ok(node.store().outbox(&self.space, &states, i64::MIN, ALL).await?)
    }

    /// A token with which somebody may look at a node and write nothing.
    pub(super) async fn viewer(&self, station: &Station) -> Result<String> {
        let enrolment = Enrolment {
            id: None,
            name: "Viewer".into(),
            space: self.space.clone(),
            role: "viewer".into(),
            mode: "cloud".into(),
            metadata: serde_json::json!({ "demo": true }),
        };
        Ok(station.node.enrol(enrolment).await?.token)
    }

    /// Stops everything.
    pub(super) async fn close(mut self) {
        drop(self.follower.take());
        self.pi.close().await;
        self.cloud.close().await;
    }
}

async fn open(
    database: &Database,
    profile: &Arc<Profile>,
    clock: &Arc<RaceClock>,
    follows: bool,
) -> Result<Node> {
    let (epoch, now) = (Epoch::parse(&RandomIds.id())?, clock.now());
    let (store, is_new) = database.open(Opening { epoch, now, follows, begin: true }).await?;
    ensure!(is_new, "{database} holds a node already: the demo begins with empty databases");
    let (profile, ids) = (Arc::clone(profile), Arc::new(RandomIds));
    Ok(Node::open(NodeOptions { store, profile, clock: Arc::clone(clock) as _, ids, follows }).await?)
}

async fn serve(node: Node, database: &Database, listen: SocketAddr, space: &SpaceId) -> Result<Station> {
    let server = Server::bind(ServerOptions::new(listen, node.clone(), space.clone())).await?;
    let url = format!("http://{}", server.local_addr());
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        server
            .serve(async {
                let _ = stopped.await;
            })
            .await;
    });
    Ok(Station { node, url, database: database.clone(), stop, serving })
}

async fn enrol(cloud: &Station, space: &SpaceId, seat: Seat, device: Option<&DeviceId>) -> Result<Visitor> {
    let enrolment = Enrolment {
        id: device.cloned(),
        name: seat.name().into(),
        space: space.clone(),
        role: "device".into(),
        mode: "offline_device".into(),
        metadata: serde_json::json!({ "demo": true }),
    };
    let enrolled = cloud.node.enrol(enrolment).await?;
    let device = enrolled.device.id;
    let mut options = HttpTransportOptions::new(&cloud.url, enrolled.token);
    options.device = Some(device.clone());
    Ok(Visitor { device, transport: HttpTransport::new(options)? })
}
