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
use ropeway_store::{Options, SqliteStore};
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
    let profile = profile::parse(profile, "bench.toml").map_err(|m| anyhow!("{m:?}"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(RandomIds);
    let options = Options::new(Epoch::parse(&ids.id())?, clock.now()).following(follows);
    let store = Arc::new(SqliteStore::open(dir.join(name), options)?);
    let node = Node::open(NodeOptions { store, profile: Arc::new(profile), clock, ids, follows }).await?;
    node.open_space(&space()).await?;
    Ok(node)
}

/// A node that serves, and how to reach it.
pub(super) struct Served {
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
        let enrolled = node
            .enrol(Enrolment {
                id: None,
                name: "bench".into(),
                space: space(),
                role: role.into(),
                mode: "offline_device".into(),
                metadata: serde_json::json!({}),
            })
            .await?;
        let mut options = HttpTransportOptions::new(url, enrolled.token);
        options.device = Some(enrolled.device.id.clone());
        Ok(Self { transport: HttpTransport::new(options)?, device: enrolled.device, stop: Some(stop), task })
    }

    /// Stops serving.
    pub(super) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = self.task.await;
    }
}
