//! What all requests share: the node, the bounds and what is counted against them.

use crate::{Limits, allowance::Allowance, heads::Heads, metrics::Metrics, slots::Slots};
use axum::http::HeaderValue;
use bytes::Bytes;
use ropeway_core::id::{DeviceId, Epoch, SpaceId};
use ropeway_replica::{Node, ReplicaError, StoreError};
use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long a failed write speaks against a node to which nobody has written since.
const TROUBLE: Duration = Duration::from_secs(150);

/// The host as handlers see it. Cheap to clone; all clones are the same host.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node: Node,
    pub(crate) space: SpaceId,
    pub(crate) limits: Limits,
    /// Whether devices may sync here.
    pub(crate) syncs: bool,
    pub(crate) build: String,
    pub(crate) schema: u32,
    pub(crate) metrics: Metrics,
    pub(crate) heads: Heads,
    /// By space and id: a device of the same id in another space is another device (I11).
    pub(crate) devices: Allowance<(SpaceId, DeviceId)>,
    pub(crate) addresses: Allowance<IpAddr>,
    pub(crate) pushes: Semaphore,
    pub(crate) live: Arc<Slots<(SpaceId, DeviceId)>>,
    /// Cancelled when the host is told to stop.
    pub(crate) drain: CancellationToken,
    /// Changes when this process revoked a device or gave one another token.
    pub(crate) revoked: watch::Sender<()>,
    /// Counts requests, for their ids.
    pub(crate) requests: AtomicU64,
    /// The OpenAPI document.
    pub(crate) document: OnceLock<Bytes>,
    epoch: RwLock<HeaderValue>,
    /// Why the last write failed and when, while none has succeeded since.
    trouble: Mutex<Option<(String, Instant)>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Host {
    pub(crate) fn new(
        node: Node,
        space: SpaceId,
        limits: Limits,
        syncs: bool,
        (build, schema): (String, u32),
        epoch: &Epoch,
    ) -> Self {
        let drain = CancellationToken::new();
        let inner = Inner {
            metrics: Metrics::new(),
            heads: Heads::new(node.clone(), limits.live_poll, drain.clone()),
            devices: Allowance::new(limits.device_rate),
            addresses: Allowance::new(limits.address_rate),
            pushes: Semaphore::new(limits.pushes_at_once.max(1)),
            live: Slots::new(limits.live_streams, limits.live_streams_per_device),
            drain,
            revoked: watch::channel(()).0,
            requests: AtomicU64::new(0),
            document: OnceLock::new(),
            epoch: RwLock::new(header_of(epoch)),
            trouble: Mutex::new(None),
            node,
            space,
            limits,
            syncs,
            build,
            schema,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The node that it serves.
    pub fn node(&self) -> &Node {
        &self.inner.node
    }
    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }
    /// Whether it was told to stop.
    pub fn is_draining(&self) -> bool {
        self.inner.drain.is_cancelled()
    }

    /// The node's epoch as the header of every answer.
    pub(crate) fn epoch(&self) -> HeaderValue {
        self.inner.epoch.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Notes the epoch that an answer speaks of.
    pub(crate) fn saw(&self, epoch: &Epoch) {
        let header = header_of(epoch);
        if self.epoch() != header {
            *self.inner.epoch.write().unwrap_or_else(PoisonError::into_inner) = header;
        }
    }

    /// Why the last write failed, while none has succeeded since. A node to which nobody writes any more is
    /// given another chance after a while.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().filter(|(_, since)| since.elapsed() < TROUBLE).map(|(why, _)| why.clone())
    }
    /// Notes how a write ended: a disk that is full or broken shows to writers only.
    pub(crate) fn wrote<T>(&self, outcome: &Result<T, ReplicaError>) {
        use StoreError::{Corrupt, Full, Unavailable};
        let trouble = match outcome {
            Ok(_) => None,
            Err(ReplicaError::Store(error @ (Full | Corrupt { .. } | Unavailable { .. }))) => {
                Some((error.to_string(), Instant::now()))
            }
            Err(_) => return,
        };
        *self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

fn header_of(epoch: &Epoch) -> HeaderValue {
    HeaderValue::try_from(epoch.as_str()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_replica::{NodeOptions, RandomIds, SystemClock};
    use ropeway_store::MemoryStore;

    #[tokio::test]
    async fn a_disk_that_is_full_is_trouble_until_a_write_succeeds() {
        let profile = "name = \"t\"\nversion = 1\nresolver = \"anyone\"\n[roles.a]\nwrite = \"*\"\n[collections.c]\nfields = { x = \"int\" }\n";
        let profile = ropeway_core::profile::parse(profile, "t").unwrap();
        let epoch = Epoch::trusted("e1");
        let options = NodeOptions {
            store: Arc::new(MemoryStore::new(epoch.clone(), false)),
            profile: Arc::new(profile),
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(RandomIds),
            follows: false,
        };
        let node = Node::open(options).await.unwrap();
        let host =
            Host::new(node, SpaceId::trusted("main"), Limits::default(), true, (String::new(), 1), &epoch);
        assert_eq!(host.trouble(), None);
        host.wrote::<()>(&Err(StoreError::Full.into()));
        host.wrote::<()>(&Err(ReplicaError::CursorInvalid));
        assert!(host.trouble().unwrap().contains("disk is full"));
        host.wrote(&Ok(()));
        assert_eq!(host.trouble(), None);
        host.saw(&Epoch::trusted("e2"));
        assert_eq!(host.epoch(), "e2");
    }
}
