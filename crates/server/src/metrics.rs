//! What an operator watches: a registry as a value of the host, in the OpenMetrics text format. Labels
//! are routes, outcomes and states; never devices, people or spaces.

use crate::Host;
use futures_util::future::BoxFuture;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use ropeway_core::{id::SpaceId, receipt::Receipt};
use ropeway_replica::{CONFLICTS_AN_HOUR, Node, ReplicaError, Status};
use std::{
    sync::{OnceLock, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// The content type of the text.
pub(crate) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The state of the space is read at most this often, however many ask.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// What has to be counted from records is counted at most this often.
const RATES_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Standing {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    name: &'static str,
}

/// A share of a whole by which an app is measured, beside what it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Its name, for programs.
    pub name: &'static str,
    /// The part.
    pub count: usize,
    /// The whole.
    pub of: usize,
    /// What it should be, at least or at most.
    pub target: f64,
}

impl Rate {
    /// The share; of nothing there is none.
    pub fn share(&self) -> Option<f64> {
        (self.of > 0).then(|| self.count as f64 / self.of as f64)
    }
}

/// How an app counts its rates.
pub type Rates = fn(Node, SpaceId) -> BoxFuture<'static, Result<Vec<Rate>, ReplicaError>>;

/// The metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    push_seconds: Histogram,
    pull_seconds: Histogram,
    changes: Family<Outcome, Counter>,
    records_served: Counter,
    live_streams: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) clones_refused: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) certificates_refused: Counter,
    /// Seconds since 1970; 0 without TLS.
    pub(crate) certificate_until: Gauge,
    outbox: Family<Standing, Gauge>,
    purged_rows: Family<Kind, Gauge>,
    conflicts_open: Gauge,
    conflicts_last_hour: Gauge,
    alerts: Family<Named, Gauge>,
    rates: Family<Named, Gauge<f64, AtomicU64>>,
    targets: Family<Named, Gauge<f64, AtomicU64>>,
    head_ahead: Gauge<f64, AtomicU64>,
    store_bytes: Gauge,
    /// How the app counts its rates, where it has any.
    pub(crate) counted_by: OnceLock<Rates>,
    status_read: Mutex<Option<Instant>>,
    rates_read: Mutex<Option<Instant>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Self {
            registry: Registry::with_prefix("ropeway"),
            requests: Family::default(),
            push_seconds: seconds(),
            pull_seconds: seconds(),
            changes: Family::default(),
            records_served: Counter::default(),
            live_streams: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            clones_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            certificates_refused: Counter::default(),
            certificate_until: Gauge::default(),
            outbox: Family::default(),
            purged_rows: Family::default(),
            conflicts_open: Gauge::default(),
            conflicts_last_hour: Gauge::default(),
            alerts: Family::default(),
            rates: Family::default(),
            targets: Family::default(),
            counted_by: OnceLock::new(),
            head_ahead: Gauge::default(),
            store_bytes: Gauge::default(),
            status_read: Mutex::new(None),
            rates_read: Mutex::new(None),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("http_requests", "Requests by method, route and class of status", self.requests.clone());
        let (push, pull) = (self.push_seconds.clone(), self.pull_seconds.clone());
        r.register_with_unit(
            "push_duration",
            "From a push that has arrived to its receipts",
            Unit::Seconds,
            push,
        );
        r.register_with_unit("pull_duration", "Reading one page of the feed", Unit::Seconds, pull);
        r.register("changes", "Changes answered, by verdict", self.changes.clone());
        r.register("records_served", "Records sent in pages of the feed", self.records_served.clone());
        r.register("live_streams", "Live streams open now", self.live_streams.clone());
        r.register("connections", "Connections open now", self.connections.clone());
        let refused = self.connections_refused.clone();
        r.register("connections_refused", "Connections beyond the bound", refused);
        let clones = self.clones_refused.clone();
        r.register("clones_refused", "Requests of copies of a device that were refused", clones);
        let failed = self.handshakes_failed.clone();
        r.register("tls_handshakes_failed", "Connections that ended before TLS was agreed on", failed);
        let refused = self.certificates_refused.clone();
        r.register("tls_certificates_refused", "Renewed certificates that were of no use", refused);
        let until = self.certificate_until.clone();
        let what = "When the certificate runs out, since 1970 (0: no TLS)";
        r.register_with_unit("tls_certificate_until", what, Unit::Seconds, until);
        r.register("outbox_entries", "Outbox entries by state", self.outbox.clone());
        let purged = self.purged_rows.clone();
        r.register("purged_rows", "Rows purged since the start of the process, by kind", purged);
        r.register("conflicts_open", "Conflicts that wait for a person", self.conflicts_open.clone());
        let hour = self.conflicts_last_hour.clone();
        r.register("conflicts_last_hour", "Conflicts of the last hour that a person has to settle", hour);
        r.register("alert", "Alerts that stand now (1) or not (0)", self.alerts.clone());
        r.register("rate", "What the app is measured by, as shares", self.rates.clone());
        r.register("rate_target", "What those shares should be", self.targets.clone());
        let ahead = self.head_ahead.clone();
        r.register_with_unit("head_ahead", "How far the head is ahead of the clock", Unit::Seconds, ahead);
        r.register_with_unit("store_size", "The database on disk", Unit::Bytes, self.store_bytes.clone());
        self
    }

    pub(crate) fn request(&self, method: &str, route: &str, status: u16) {
        let class = match status {
            0..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let labels = Request { method: method.to_owned(), route: route.to_owned(), class };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn pushed(&self, took: Duration, receipts: &[Receipt]) {
        self.push_seconds.observe(took.as_secs_f64());
        for receipt in receipts {
            self.changes.get_or_create(&Outcome { verdict: receipt.verdict.as_str() }).inc();
        }
    }

    pub(crate) fn pulled(&self, took: Duration, records: usize) {
        self.pull_seconds.observe(took.as_secs_f64());
        self.records_served.inc_by(records as u64);
    }

    /// The whole as text. What is counted elsewhere is read now, but not more often than it is worth.
    pub(crate) async fn text(&self, host: &Host) -> Result<String, ReplicaError> {
        let mut read = self.status_read.lock().await;
        let now = Instant::now();
        if read.is_none_or(|last| now - last >= STATUS_EVERY) {
            let (node, space) = (host.node(), &host.inner.space);
            self.standing(&node.status(space).await?);
            self.asked(node.conflicts_of_the_last_hour(space).await?);
            *read = Some(now);
        }
        drop(read);
        let mut counted = self.rates_read.lock().await;
        if counted.is_none_or(|last| now - last >= RATES_EVERY) {
            // Before counting: whoever hangs up half-way does not make the next one begin again.
            *counted = Some(now);
            // What was counted last stands, and so does everything else.
            if let Err(error) = self.rated(host.node(), &host.inner.space).await {
                tracing::warn!(%error, "the rates cannot be counted now: those of the last time are shown");
            }
        }
        drop(counted);
        self.live_streams.set(i64::try_from(host.inner.live.taken()).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        Ok(text)
    }

    /// How often people are asked.
    fn asked(&self, conflicts: usize) {
        self.conflicts_last_hour.set(i64::try_from(conflicts).unwrap_or(i64::MAX));
        let spike = i64::from(conflicts > CONFLICTS_AN_HOUR);
        self.alerts.get_or_create(&Named { name: "conflict_spike" }).set(spike);
    }

    /// How the app's shares stand.
    async fn rated(&self, node: &Node, space: &SpaceId) -> Result<(), ReplicaError> {
        let Some(count) = self.counted_by.get() else { return Ok(()) };
        for rate in count(node.clone(), space.clone()).await? {
            let name = Named { name: rate.name };
            self.targets.get_or_create(&name).set(rate.target);
            if let Some(share) = rate.share() {
                self.rates.get_or_create(&name).set(share);
            }
        }
        Ok(())
    }

    fn standing(&self, status: &Status) {
        self.outbox.clear();
        for (state, count) in &status.outbox {
            let entries = self.outbox.get_or_create(&Standing { state: state.as_str() });
            entries.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        for (what, rows) in &status.forgotten {
            self.purged_rows.get_or_create(&Kind { what }).set(i64::try_from(*rows).unwrap_or(i64::MAX));
        }
        self.conflicts_open.set(i64::try_from(status.conflicts_open).unwrap_or(i64::MAX));
        self.head_ahead.set(Duration::from_micros(status.head_ahead.max(0).cast_unsigned()).as_secs_f64());
        self.store_bytes.set(i64::try_from(status.bytes).unwrap_or(i64::MAX));
    }
}
