//! The accept loop: our own, because a host is only as bounded as its timers. Header time, connection
//! caps, keep-alive, idle connections, and an end that lets requests in flight finish.

use crate::{Host, Limits, Peer, routes, socket::Socket};
use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use prometheus_client::metrics::gauge::Gauge;
use ropeway_core::id::SpaceId;
use ropeway_protocol::{NODE_HEADER, PROBLEM_TYPE, Problem, ProblemCode};
use ropeway_replica::{Node, ReplicaError};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

/// Connections beyond the bound that are told so at once; still more are closed without a word.
const TOLD_AT_ONCE: usize = 64;
/// How long telling them may take.
const TELLING: Duration = Duration::from_secs(2);
/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 64;
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

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
    /// The program's version, as `/version` tells it.
    pub build: String,
    /// The database schema's version, as `/version` tells it.
    pub schema: u32,
    /// Routes of the app, mounted beside the native ones under the same layers.
    pub apps: Vec<OpenApiRouter<Host>>,
}

impl ServerOptions {
    /// A node on an address, everything else as it is by default.
    pub fn new(listen: SocketAddr, node: Node, space: SpaceId) -> Self {
        let build = env!("CARGO_PKG_VERSION").to_owned();
        Self { listen, node, space, limits: Limits::default(), build, schema: 1, apps: Vec::new() }
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
    app: Router,
}

impl Server {
    /// Listens. Nothing is accepted before [`Server::serve`].
    pub async fn bind(options: ServerOptions) -> Result<Self, ServeError> {
        let ServerOptions { listen, node, space, limits, build, schema, apps } = options;
        let failed = |source| ServeError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let state = node.open_space(&space).await?;
        let host = Host::new(node, space, limits, build, schema, &state.epoch);
        let app = routes::app(&host, apps);
        Ok(Self { listener, local, host, app })
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
        let Self { listener, host, app, .. } = self;
        let limits = host.limits().clone();
        let slots = Arc::new(Semaphore::new(limits.connections.max(1)));
        let telling = Arc::new(Semaphore::new(TOLD_AT_ONCE));
        let (tasks, kill) = (TaskTracker::new(), CancellationToken::new());
        let builder = Arc::new(builder(&limits));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let (socket, peer) = tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        // Out of descriptors, most likely: leave those that are open time to end.
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                host.inner.metrics.connections_refused.inc();
                if let Ok(telling) = telling.clone().try_acquire_owned() {
                    let refusal = refusal(&host);
                    tokio::spawn(async move {
                        let _ = timeout(TELLING, tell(socket, refusal)).await;
                        drop(telling);
                    });
                }
                continue;
            };
            let connection =
                Connection { host: host.clone(), app: app.clone(), builder: builder.clone(), peer };
            let kill = kill.clone();
            tasks.spawn(async move {
                let _open = Open::new(connection.host.inner.metrics.connections.clone(), slot);
                connection.run(socket, kill).await;
            });
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

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32);
    builder
}

/// An open connection, counted until it is dropped.
struct Open {
    gauge: Gauge,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: Gauge, slot: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

struct Connection {
    host: Host,
    app: Router,
    builder: Arc<auto::Builder<TokioExecutor>>,
    peer: SocketAddr,
}

impl Connection {
    async fn run(self, socket: TcpStream, kill: CancellationToken) {
        let Self { host, app, builder, peer } = self;
        let limits = host.limits();
        let _ = socket.set_nodelay(true);
        let socket = Socket::new(socket, limits.header_timeout, limits.write_stall);
        let busy = Arc::new(Busy::new());
        let serving = busy.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let at_work = AtWork::new(&serving);
            let app = app.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                let response: Response<Body> = match app.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                Ok::<_, Infallible>(response.map(|body| Answering { body, _at_work: at_work }))
            }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
        let mut tick = interval((limits.connection_idle / 2).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stopping, mut asked) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = host.inner.drain.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = kill.cancelled() => return,
                _ = tick.tick() => if busy.idle_for() >= limits.connection_idle {
                    // Asked politely first; a peer that does not go is left.
                    if asked {
                        return;
                    }
                    asked = true;
                    connection.as_mut().graceful_shutdown();
                },
            }
        }
    }
}

/// Whether a connection has a request in flight, and since when it has none.
struct Busy {
    requests: AtomicUsize,
    last: Mutex<Instant>,
}

impl Busy {
    fn new() -> Self {
        Self { requests: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
    fn idle_for(&self) -> Duration {
        if self.requests.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A request in flight, until its answer is written or given up.
struct AtWork(Arc<Busy>);

impl AtWork {
    fn new(busy: &Arc<Busy>) -> Self {
        busy.requests.fetch_add(1, Ordering::AcqRel);
        Self(busy.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body that keeps its request in flight.
struct Answering {
    body: Body,
    _at_work: AtWork,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
