//! The HTTP client of a follower: [`Transport`] over reqwest and rustls.
//!
//! Links may be slow for hours, so what is bounded is the time without progress and never the whole
//! exchange. Whatever does not show that it is a Ropeway counts as being offline (TR-18).

mod answer;
mod events;
mod parts;
mod trust;

use crate::{Hello, Page, PageReader, Pushed, Transport, TransportError, VERSION};
use answer::{Answer, JSON_TYPE, chain};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Client, RequestBuilder, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use ropeway_core::{id::DeviceId, nonce::Pair, time::Stamp};
use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The header by which every answer of a Ropeway shows what it is; its value is the node's epoch.
pub const NODE_HEADER: &str = "ropeway-node";
/// The header by which a device names itself beside its token.
pub const DEVICE_HEADER: &str = "x-device-uuid";
/// The header by which each request of a sync carries its pair of nonces.
pub const SYNC_HEADER: &str = "ropeway-sync";
/// The content type of a pull.
pub const PAGE_TYPE: &str = "application/x-ndjson";
/// The content type of an error answer.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// Bodies up to this size are sent as they are.
const COMPRESS_ABOVE: usize = 1 << 10;
/// On a push of 500 changes the usual level 3 packs no better and takes half as much time again.
const ZSTD_LEVEL: i32 = 1;
/// How much of a body is handed to the connection at once: the grain in which progress is seen.
const UPLOAD_PIECE: usize = 16 << 10;
/// A connection may hold this much of a body back for a second after it has taken it: so slow a link is
/// still a link. A dead one is noticed by TCP itself.
const SLOWEST_BYTES_A_SECOND: usize = 4 << 10;
/// Bound of the small answers, as they are after decompression.
const SMALL_ANSWER_MAX: usize = 64 << 10;

/// How to reach an upstream.
#[derive(Clone)]
pub struct HttpTransportOptions {
    /// `http://` or `https://`, with a path where the node is mounted under one.
    pub base_url: String,
    /// The device's token. Never logged.
    pub token: String,
    /// The device's id, sent beside the token so that a token in the wrong place is noticed.
    pub device: Option<DeviceId>,
    /// How long a connection may take to come up.
    pub connect_timeout: Duration,
    /// How long an exchange may stand still, in either direction. Slow is not still.
    pub idle_timeout: Duration,
    /// How long the question who is there may take altogether.
    pub hello_timeout: Duration,
    /// The largest answer taken in, after decompression. A page beyond it is asked for again in halves.
    pub answer_bytes_max: usize,
    /// An HTTP proxy to go through. The environment is not read.
    pub proxy: Option<String>,
    /// Certificates in the PEM format: then only these and those that they signed are believed. Otherwise the
    /// machine's own authorities count.
    pub authorities: Option<Vec<u8>>,
    /// Hosts beyond this machine that may be followed without encryption, by name or address.
    pub trusted_hosts: Vec<String>,
}

impl HttpTransportOptions {
    /// The defaults for an upstream.
    pub fn new(base_url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            token: token.into(),
            device: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            hello_timeout: Duration::from_secs(5),
            answer_bytes_max: 64 << 20,
            proxy: None,
            authorities: None,
            trusted_hosts: Vec::new(),
        }
    }
}

impl fmt::Debug for HttpTransportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransportOptions").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

/// The upstream's address, the token or the proxy cannot be used; the sentence says what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUpstream(String);

/// Speaks with one upstream over HTTP. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client,
    base: Url,
    /// Why nothing may be sent to this address, where it may not.
    refusal: Option<String>,
    idle: Duration,
    hello: Duration,
    answer_max: usize,
    /// The pair of nonces of the sync that runs.
    pair: Arc<Mutex<Option<HeaderValue>>>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Makes the client; connects to nothing yet.
    pub fn new(options: HttpTransportOptions) -> Result<Self, BadUpstream> {
        let base = base(&options.base_url)?;
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", options.token))
            .map_err(|_| BadUpstream("the token has characters that no token has".into()))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        if let Some(device) = &options.device {
            let device = HeaderValue::try_from(device.as_str());
            headers.insert(DEVICE_HEADER, device.map_err(|e| BadUpstream(e.to_string()))?);
        }
        let mut builder = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("ropeway/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            // Shorter than the time after which a node closes a connection on which nothing happens.
            .pool_idle_timeout(Duration::from_secs(8))
            .no_proxy();
        if let Some(proxy) = &options.proxy {
            let proxy =
                reqwest::Proxy::all(proxy).map_err(|e| BadUpstream(format!("the proxy: {}", chain(e))))?;
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = &options.authorities {
            builder = builder.tls_backend_preconfigured(trust::only(pem)?);
        }
        let client = builder.build().map_err(|e| BadUpstream(chain(e)))?;
        let refusal = trust::refusal(&base, &options.trusted_hosts);
        let HttpTransportOptions { idle_timeout, hello_timeout, answer_bytes_max, .. } = options;
        let (idle, hello, answer_max) = (idle_timeout, hello_timeout, answer_bytes_max);
        Ok(Self { client, base, refusal, idle, hello, answer_max, pair: Arc::default() })
    }

    /// Puts the sync's pair of nonces on a request.
    fn presented(&self, request: RequestBuilder) -> RequestBuilder {
        let pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pair {
            Some(pair) => request.header(SYNC_HEADER, pair),
            None => request,
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Sends a request without a body and waits for the head of the answer.
    async fn get(&self, url: Url, accept: &str) -> Result<Answer, TransportError> {
        self.send(self.client.get(url).header(ACCEPT, accept), &AtomicUsize::new(0), self.idle).await
    }

    /// Sends a request and waits for the head of the answer, as long as `moved`, which counts what was
    /// taken of the body, does not stand still for `patience`.
    async fn send(
        &self,
        request: RequestBuilder,
        moved: &AtomicUsize,
        patience: Duration,
    ) -> Result<Answer, TransportError> {
        if let Some(why) = &self.refusal {
            return Err(TransportError::Untrusted(why.clone()));
        }
        let sent = patiently(patience, moved, request.send()).await;
        let response = sent.ok_or_else(|| {
            TransportError::Offline(format!("nothing moved for {} seconds", patience.as_secs_f32()))
        })?;
        let host = self.base.host_str().unwrap_or_default();
        Answer::of(response.map_err(|e| trust::failed(e, host))?, self.idle).await
    }

    /// Sends a push. `None`: the answer is too large to be taken in.
    async fn push_once(&self, body: Bytes) -> Result<Option<Pushed>, TransportError> {
        let mut request = self
            .client
            .post(self.url(&[VERSION, "push"]))
            .header(ACCEPT, JSON_TYPE)
            .header(CONTENT_TYPE, JSON_TYPE);
        let mut body = body;
        if body.len() > COMPRESS_ABOVE {
            body = compressed(body).await?;
            request = request.header(CONTENT_ENCODING, "zstd");
        }
        request = self.presented(request);
        let moved = Arc::new(AtomicUsize::new(0));
        let patience = self.idle + Duration::from_secs((body.len() / SLOWEST_BYTES_A_SECOND) as u64);
        let answer = self.send(request.body(counted(body, moved.clone())), &moved, patience).await?;
        match answer.json(self.answer_max).await {
            Err(TransportError::Garbled(why)) if why == answer::TOO_LARGE => Ok(None),
            body => read(&body?).map(Some),
        }
    }

    /// Something that cannot be asked for in smaller pieces.
    fn beyond(&self, what: &str) -> TransportError {
        let most = self.answer_max;
        TransportError::Garbled(format!(
            "one {what} alone is larger than the {most} bytes that may be taken in"
        ))
    }

    async fn page(&self, cursor: Option<&str>, limit: usize) -> Result<Option<Page>, TransportError> {
        let mut url = self.url(&[VERSION, "pull"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("after", cursor);
        }
        let request = self.presented(self.client.get(url).header(ACCEPT, PAGE_TYPE));
        let mut answer = self.send(request, &AtomicUsize::new(0), self.idle).await?;
        answer.must_be(PAGE_TYPE)?;
        let (mut reader, mut rows, mut taken) = (PageReader::new(), Vec::new(), 0);
        while let Some(piece) = answer.piece().await? {
            taken += piece.len();
            if taken > self.answer_max {
                return Ok(None);
            }
            reader.feed(&piece, &mut rows)?;
        }
        Ok(Some(Page { rows, end: reader.finish()? }))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    fn present(&self, pair: &Pair) {
        let value = HeaderValue::try_from(pair.to_string()).ok();
        *self.pair.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    async fn hello(&self) -> Result<Hello, TransportError> {
        let ask = async {
            let answer = self.get(self.url(&["version"]), JSON_TYPE).await?;
            let body = answer.json(SMALL_ANSWER_MAX).await?;
            let hello: Hello = read(&body)?;
            if hello.service != "ropeway" {
                return Err(TransportError::Offline(format!(
                    "what answered is `{}`, no Ropeway",
                    hello.service
                )));
            }
            Ok(hello)
        };
        let answered = tokio::time::timeout(self.hello, ask).await;
        answered.unwrap_or_else(|_| {
            Err(TransportError::Offline(format!("no answer within {} seconds", self.hello.as_secs_f32())))
        })
    }

    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        let (mut waiting, mut answered) = (vec![body], None);
        while let Some(part) = waiting.pop() {
            match self.push_once(part.clone()).await? {
                Some(pushed) => answered = Some(parts::join(answered, pushed)?),
                None => match parts::halves(&part) {
                    Some([first, second]) => waiting.extend([second, first]),
                    None => return Err(self.beyond("receipt")),
                },
            }
        }
        answered.ok_or_else(|| TransportError::Garbled("there was nothing to answer".into()))
    }

    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        let mut limit = limit.max(1);
        loop {
            match self.page(cursor, limit).await? {
                Some(page) => return Ok(page),
                None if limit > 1 => limit /= 2,
                None => return Err(self.beyond("record")),
            }
        }
    }

    async fn subscribe(&self, audience: &str, on: bool) -> Result<(), TransportError> {
        let url = self.url(&[VERSION, "subscriptions", audience]);
        let request = if on { self.client.put(url) } else { self.client.delete(url) };
        let answer = self.send(request.header(ACCEPT, JSON_TYPE), &AtomicUsize::new(0), self.idle).await?;
        answer.json(SMALL_ANSWER_MAX).await.map(drop)
    }

    async fn live(&self, mut on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        let mut answer = self.get(self.url(&[VERSION, "live"]), events::TYPE).await?;
        answer.must_be(events::TYPE)?;
        let mut events = events::Events::default();
        while let Some(piece) = answer.piece().await? {
            for head in events.feed(&piece)? {
                on_head(head);
            }
        }
        Ok(())
    }
}

/// Checks an upstream's address.
fn base(text: &str) -> Result<Url, BadUpstream> {
    let bad = |why: &str| BadUpstream(format!("the upstream's address must be like https://host/, {why}"));
    let url = Url::parse(text).map_err(|e| bad(&format!("this one cannot be read: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("and begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("without a user or password: the token is given apart"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("without ? and #"));
    }
    Ok(url)
}

async fn compressed(body: Bytes) -> Result<Bytes, TransportError> {
    let packed = tokio::task::spawn_blocking(move || {
        let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        // Damage on the way is noticed here, where gzip has its own checksum.
        zstd.include_checksum(true)?;
        zstd.compress(&body)
    })
    .await;
    match packed {
        Ok(Ok(packed)) => Ok(packed.into()),
        Ok(Err(e)) => Err(TransportError::Garbled(format!("the batch could not be compressed: {e}"))),
        Err(e) => Err(TransportError::Garbled(format!("the batch could not be compressed: {e}"))),
    }
}

/// A body that tells how much of it was taken.
fn counted(body: Bytes, moved: Arc<AtomicUsize>) -> reqwest::Body {
    if body.len() <= UPLOAD_PIECE {
        return body.into();
    }
    let pieces = futures_util::stream::unfold(body, move |mut rest| {
        let piece = rest.split_to(rest.len().min(UPLOAD_PIECE));
        moved.fetch_add(piece.len(), Ordering::Relaxed);
        async move { if piece.is_empty() { None } else { Some((Ok::<_, std::io::Error>(piece), rest)) } }
    });
    reqwest::Body::wrap_stream(pieces)
}

/// Waits for `what` as long as something moves. `None`: nothing did for `idle`.
async fn patiently<T>(idle: Duration, moved: &AtomicUsize, what: impl Future<Output = T>) -> Option<T> {
    let mut what = std::pin::pin!(what);
    let mut seen = moved.load(Ordering::Relaxed);
    loop {
        match tokio::time::timeout(idle, what.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) => {
                let now = moved.load(Ordering::Relaxed);
                if now == seen {
                    return None;
                }
                seen = now;
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, TransportError> {
    serde_json::from_slice(body).map_err(|e| TransportError::Garbled(e.to_string()))
}
