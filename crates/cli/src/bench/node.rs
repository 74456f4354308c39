//! A real node for the measurements: its own file, its own port.

use super::rows;
use anyhow::{Result, anyhow};
use ropeway_core::{
    id::{Epoch, SpaceId},
    profile,
};
use ropeway_protocol::{HttpTransport, HttpTransportOptions};
use ropeway_replica::{Clock, Device, Enrolment, Ids, Node, NodeOptions, RandomIds, SystemClock};
use ropeway_server::{Server, ServerOptions};
use ropeway_store::{Options, PostgresOptions, PostgresStore, SqliteStore, Stored};
use std::{path::Path, sync::Arc};
use tokio::{sync::oneshot, task::JoinHandle};

/// The space of the measurements.
pub(super) fn space() -> SpaceId {
    SpaceId::trusted("main")
}

/// Opens a node on a new file in `dir`.
pub(super) async fn open(dir: &Path, name: &str, follows: bool) -> Result<Node> {
    open_with(rows::PROFILE, dir, name, follows).await
}

/// The same with another profile.
pub(super) async fn open_with(profile: &str, dir: &Path, name: &str, follows: bool) -> Result<Node> {
    let options = Options::new(Epoch::parse(&RandomIds.id())?, SystemClock::new().now()).following(follows);
    over(Arc::new(SqliteStore::open(dir.join(name), options)?), profile, follows).await
}

/// A node over an empty database on a PostgreSQL server.
pub(super) async fn open_server(url: &str) -> Result<Node> {
    let options = PostgresOptions::new(url, Epoch::parse(&RandomIds.id())?, SystemClock::new().now());
    over(Arc::new(PostgresStore::open(options).await?), rows::PROFILE, false).await
}

async fn over(store: Stored, profile: &str, follows: bool) -> Result<Node> {
    let profile = profile::parse(profile, "bench.toml").map_err(|m| anyhow!("{m:?}"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(RandomIds);
    let node = Node::open(NodeOptions { store, profile: Arc::new(profile), clock, ids, follows }).await?;
    node.open_space(&space()).await?;
    Ok(node)
}

/// A node that serves, and how to reach it.
pub(super) struct Served {
    pub(super) url: String,
    pub(super) transport: HttpTransport,
    /// The device.
    pub(super) device: Device,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Served {
    /// Serves a node on a port of its own and registers a device that may use it.
    pub(super) async fn start(node: &Node) -> Result<Self> {
        Self::start_for(node, "admin").await
    }

    /// The same for a device of this role.
    pub(super) async fn start_for(node: &Node, role: &str) -> Result<Self> {
        let server = Server::bind(ServerOptions::new("127.0.0.1:0".parse()?, node.clone(), space())).await?;
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _ = server
                .serve(async {
                    let _ = stopped.await;
                })
                .await;
        });
        let (device, transport) = enrolled(node, &url, role).await?;
        Ok(Self { url, transport, device, stop: Some(stop), task })
    }

    /// Stops serving.
    pub(super) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = self.task.await;
    }
}

/// A new device of this role, and its way to the server.
pub(super) async fn enrolled(node: &Node, url: &str, role: &str) -> Result<(Device, HttpTransport)> {
    let enrolment = Enrolment {
        id: None,
        name: "bench".into(),
        space: space(),
        role: role.into(),
        mode: "offline_device".into(),
        metadata: serde_json::json!({}),
    };
    let enrolled = node.enrol(enrolment).await?;
    let mut options = HttpTransportOptions::new(url, enrolled.token);
    options.device = Some(enrolled.device.id.clone());
    Ok((enrolled.device, HttpTransport::new(options)?))
}
