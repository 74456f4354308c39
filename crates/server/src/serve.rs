//! The accept loop: our own, because a host is only as bounded as its timers. Header time, connection
//! caps, keep-alive, idle connections, and an end that lets requests in flight finish.

use crate::{Host, Limits, Rates, Tls, auth::network, connection::Connections, routes, slots::Slots, tls};
use axum::Router;
use ropeway_core::id::SpaceId;
use ropeway_protocol::{NODE_HEADER, PROBLEM_TYPE, Problem, ProblemCode};
use ropeway_replica::{Node, ReplicaError};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::router::OpenApiRouter;

/// Connections beyond the bound that are told so at once; still more are closed without a word.
const TOLD_AT_ONCE: usize = 64;
/// How long telling them may take.
const TELLING: Duration = Duration::from_secs(2);
/// The first wait after a connection could not be accepted; each further one is twice as long.
const ACCEPT_WAIT: Duration = Duration::from_millis(10);
/// The longest.
const ACCEPT_WAIT_MAX: Duration = Duration::from_millis(500);

/// What a server is made of.
pub struct ServerOptions {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The node to serve.
    pub node: Node,
    /// The space that `/version`, `/health` and `/metrics` speak of. It is opened where it is not there.
    pub space: SpaceId,
    /// The bounds.
    pub limits: Limits,
    /// Whether devices may sync here; otherwise they are told to come back later (ISMF-145).
    pub syncs: bool,
    /// The certificate to show; plain HTTP without one.
    pub tls: Option<Tls>,
    /// The program's version, as `/version` tells it.
    pub build: String,
    /// The database schema's version, as `/version` tells it.
    pub schema: u32,
    /// Routes of the app, mounted beside the native ones under the same layers.
    pub apps: Vec<OpenApiRouter<Host>>,
    /// How the app counts the rates that `/metrics` shows.
    pub rates: Option<Rates>,
}

impl ServerOptions {
    /// A node on an address, everything else as it is by default.
    pub fn new(listen: SocketAddr, node: Node, space: SpaceId) -> Self {
        let build = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            listen,
            node,
            space,
            limits: Limits::default(),
            syncs: true,
            tls: None,
            build,
            schema: 1,
            apps: Vec::new(),
            rates: None,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The node does not answer.
    #[error(transparent)]
    Node(#[from] ReplicaError),
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut because their requests took longer than the deadline.
    pub cut: usize,
}

/// A server that listens and does not accept yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    host: Host,
    tls: Option<Tls>,
    app: Router,
}

impl Server {
    /// Listens. Nothing is accepted before [`Server::serve`].
    pub async fn bind(options: ServerOptions) -> Result<Self, ServeError> {
        let ServerOptions { listen, node, space, limits, syncs, tls, build, schema, apps, rates } = options;
        let failed = |source| ServeError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let state = node.open_space(&space).await?;
        node.open_named_spaces().await?;
        let host = Host::new(node, space, limits, syncs, (build, schema), &state.epoch);
        if let Some(rates) = rates {
            let _ = host.inner.metrics.counted_by.set(rates);
        }
        let app = routes::app(&host, apps);
        Ok(Self { listener, local, host, tls, app })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What its handlers share.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Serves until `shutdown`; then takes no more connections, ends the live streams, and lets requests
    /// in flight finish within the deadline.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self { listener, host, tls, app, .. } = self;
        let limits = host.limits().clone();
        let slots = Slots::new(limits.connections.max(1), limits.connections_per_address.max(1));
        let telling = Arc::new(Semaphore::new(TOLD_AT_ONCE));
        let (tasks, kill) = (TaskTracker::new(), CancellationToken::new());
        if let Some(tls) = tls.clone() {
            tasks.spawn(tls::keep_renewed(host.clone(), tls));
        }
        let connections = Connections::new(host.clone(), app, tls.clone(), kill.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        let mut accepting = Accepting::new(&listener);
        loop {
            let (socket, peer) = tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                accepted = accepting.next() => accepted,
            };
            let Some(slot) = slots.take(&network(peer.ip())) else {
                host.inner.metrics.connections_refused.inc();
                // In plain text only: within TLS nothing can be said before a handshake.
                if let (None, Ok(telling)) = (&tls, telling.clone().try_acquire_owned()) {
                    let refusal = refusal(&host);
                    tokio::spawn(async move {
                        let _ = timeout(TELLING, tell(socket, refusal)).await;
                        drop(telling);
                    });
                }
                continue;
            };
            tasks.spawn(connections.clone().run(socket, peer, slot));
        }
        drop(listener);
        host.inner.drain.cancel();
        tasks.close();
        tracing::info!(connections = tasks.len(), "draining");
        let cut = match timeout(limits.drain, tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let cut = tasks.len();
                kill.cancel();
                tasks.wait().await;
                cut
            }
        };
        tracing::info!(cut, "drained");
        Drained { cut }
    }
}

/// Takes connections, and lives through a machine that has no room for another one.
struct Accepting<'a> {
    listener: &'a TcpListener,
    wait: Duration,
}

impl<'a> Accepting<'a> {
    fn new(listener: &'a TcpListener) -> Self {
        Self { listener, wait: ACCEPT_WAIT }
    }

    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.wait = ACCEPT_WAIT;
                    return accepted;
                }
                Err(error) => {
                    // Out of descriptors, most likely: those that are open are given time to end.
                    if self.wait == ACCEPT_WAIT {
                        tracing::warn!(%error, "a connection cannot be accepted; those that are open go on");
                    }
                    sleep(self.wait).await;
                    self.wait = (self.wait * 2).min(ACCEPT_WAIT_MAX);
                }
            }
        }
    }
}

/// The answer to a connection beyond the bound, whatever it asks.
fn refusal(host: &Host) -> Vec<u8> {
    let problem =
        Problem::new(ProblemCode::Unavailable, "the node has all the connections that it may have").after(1);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let node = host.epoch();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\n{NODE_HEADER}: {}\r\ncontent-type: {PROBLEM_TYPE}\r\n\
         retry-after: 1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        node.to_str().unwrap_or("-"),
        body.len(),
    );
    [head.as_bytes(), &body].concat()
}

async fn tell(mut socket: TcpStream, refusal: Vec<u8>) -> io::Result<()> {
    let mut unread = [0; 1 << 10];
    // A client that is answered before it has asked may not take it for an answer.
    if socket.read(&mut unread).await? == 0 {
        return Ok(());
    }
    socket.write_all(&refusal).await?;
    socket.shutdown().await?;
    // Closing with something unread would take the answer back.
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}
