//! One connection: its handshake, its HTTP, and the timers that end it. A peer that is slow within its
//! bounds is served; one that says nothing or takes nothing is ended.

use crate::{Host, Limits, Peer, Tls, slots::Slot, socket::Socket};
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
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 64;
/// Streams that were ended because of a peer's mistake; one more ends the connection (CVE-2025-8671).
const STREAMS_MISTAKEN: usize = 64;
/// Bytes that one stream, and one connection, may have on their way to a host that has not read them.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one answer that wait for an HTTP/2 peer.
const UNSENT: usize = 256 << 10;
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// An answer is handed out in pieces of this many bytes: the grain in which a reader's progress is seen.
const PIECE: usize = 8 << 10;

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
        .max_local_error_reset_streams(STREAMS_MISTAKEN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(UNSENT)
        .max_header_list_size(HEAD_BYTES as u32);
    builder
}

/// What all connections of a server share.
#[derive(Clone)]
pub(crate) struct Connections {
    host: Host,
    app: Router,
    tls: Option<Tls>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    kill: CancellationToken,
}

impl Connections {
    pub(crate) fn new(host: Host, app: Router, tls: Option<Tls>, kill: CancellationToken) -> Self {
        let builder = Arc::new(builder(host.limits()));
        Self { host, app, tls, builder, kill }
    }

    /// Serves one connection to its end. A handshake counts as an open connection like any other.
    pub(crate) async fn run(self, socket: TcpStream, peer: SocketAddr, slot: Slot<IpAddr>) {
        let _open = Open::new(self.host.inner.metrics.connections.clone(), slot);
        let _ = socket.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.speak(socket, peer).await };
        let shaken = timeout(self.host.limits().header_timeout, tls.acceptor().accept(socket));
        let shaken = tokio::select! {
            shaken = shaken => shaken,
            () = self.host.inner.drain.cancelled() => return,
        };
        match shaken {
            Ok(Ok(socket)) => self.speak(socket, peer).await,
            Ok(Err(error)) => {
                self.host.inner.metrics.handshakes_failed.inc();
                tracing::debug!(%error, "a handshake failed");
            }
            Err(_) => {
                self.host.inner.metrics.handshakes_failed.inc();
            }
        }
    }

    async fn speak<S>(self, socket: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { host, app, builder, kill, .. } = self;
        let limits = host.limits();
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
                Ok::<_, Infallible>(response.map(|body| Answering::new(body, at_work)))
            }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
        let mut tick =
            interval((limits.connection_idle.min(limits.write_stall) / 2).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stopping, mut asked) = (false, None);
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
                now = tick.tick() => {
                    if busy.untaken_for(now) >= limits.write_stall {
                        tracing::debug!("a reader takes nothing of its answer");
                        return;
                    }
                    if busy.idle_for(now) < limits.connection_idle {
                        continue;
                    }
                    // Asked politely first; a peer that does not go is left.
                    match asked {
                        None => {
                            asked = Some(now);
                            connection.as_mut().graceful_shutdown();
                        }
                        Some(at) if now - at >= limits.connection_idle / 2 => return,
                        Some(_) => {}
                    }
                },
            }
        }
    }
}

/// An open connection, counted until it is dropped.
struct Open {
    gauge: Gauge,
    _slot: Slot<IpAddr>,
}

impl Open {
    fn new(gauge: Gauge, slot: Slot<IpAddr>) -> Self {
        gauge.inc();
        Self { gauge, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The requests in flight on a connection, and since when there is none.
struct Busy(Mutex<InFlight>);

struct InFlight {
    /// For each request: since when a piece of its answer lies ready that nobody came back for. `None`: it is
    /// the host's turn.
    requests: HashMap<u64, Option<Instant>>,
    next: u64,
    last: Instant,
}

impl Busy {
    fn new() -> Self {
        Self(Mutex::new(InFlight { requests: HashMap::new(), next: 0, last: now() }))
    }
    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn idle_for(&self, now: Instant) -> Duration {
        let in_flight = self.lock();
        if in_flight.requests.is_empty() {
            now.saturating_duration_since(in_flight.last)
        } else {
            Duration::ZERO
        }
    }
    /// How long the reader that is furthest behind has taken nothing.
    fn untaken_for(&self, now: Instant) -> Duration {
        let since = self.lock().requests.values().flatten().min().copied();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[allow(clippy::disallowed_methods)] // the runtime's own clock, only to wait by
fn now() -> Instant {
    Instant::now()
}

/// A request in flight, until its answer is written or given up.
struct AtWork {
    busy: Arc<Busy>,
    number: u64,
}

impl AtWork {
    fn new(busy: &Arc<Busy>) -> Self {
        let mut in_flight = busy.lock();
        let number = in_flight.next;
        in_flight.next += 1;
        in_flight.requests.insert(number, None);
        drop(in_flight);
        Self { busy: busy.clone(), number }
    }
    /// Something lies ready for the reader, or nothing does.
    fn ready_for_reader(&self, ready: bool) {
        self.busy.lock().requests.insert(self.number, ready.then(now));
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut in_flight = self.busy.lock();
        in_flight.last = now();
        in_flight.requests.remove(&self.number);
    }
}

/// An answer's body that keeps its request in flight, and is handed out in small pieces.
struct Answering {
    body: Body,
    rest: Bytes,
    at_work: AtWork,
}

impl Answering {
    fn new(body: Body, at_work: AtWork) -> Self {
        at_work.ready_for_reader(true);
        Self { body, rest: Bytes::new(), at_work }
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            this.at_work.ready_for_reader(false);
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        this.at_work.ready_for_reader(true);
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        let (left, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(left.lower() + rest);
        hint
    }
}
