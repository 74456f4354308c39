//! Cloned devices: a follower begins each sync with a pair of numbered nonces that is on disk before it is
//! sent, and a node that serves remembers the newest pair of each device (DESIGN §7).

use crate::{Ids, Node, ReplicaError};
use async_trait::async_trait;
use bytes::Bytes;
use ropeway_core::{
    id::{DeviceId, SpaceId},
    nonce::{Chain, Fork, Meeting, Own, Pair},
    planted::{self, Bug},
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, Page, Problem, ProblemCode, Pushed, Transport, TransportError};
use ropeway_store::{Device, Durability, PROMOTED, Store, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a setting is read again that somebody else wrote at the same moment.
const TRIES: usize = 20;
/// A refused copy is noted at most this often, in microseconds: asking must not cost a commit each time.
const NOTED_EVERY: i64 = 10_000_000;

/// How a copy becomes an installation of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Another copy lives on: this one writes under a new device id from now on.
    Copy,
    /// This is the only one, restored from a backup of itself: it stays the author it was.
    Restored,
}

/// What a node knows of the syncs of a device.
pub type Seen = Chain;

impl Node {
    /// Judges the pair with which a device begins a sync, and remembers it. Two servers of one node agree:
    /// of two pairs that follow the same one only the first is taken.
    ///
    /// Errors: [`ReplicaError::Cloned`] for a pair whose first nonce has been followed by another.
    pub async fn meet(&self, device: &Device, pair: &Pair) -> Result<(), ReplicaError> {
        let name = chain_name(device);
        let store = &self.inner.store;
        if planted::has(Bug::IgnoredNonce) {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (text, chain) = self.chain(&name).await?;
            let now = self.inner.clock.now();
            let after = match chain.meet(pair, now) {
                Meeting::Repeat => return Ok(()),
                Meeting::Taken(after) => after,
                Meeting::Behind(after) => {
                    tracing::warn!(device = %device.id, "a device is ahead: this node's data is an earlier one");
                    after
                }
                Meeting::Fork(fork) => {
                    tracing::warn!(device = %device.id, ?fork, "a copy of a device was refused");
                    self.note_copy(&name, text.as_deref(), chain, now).await;
                    return Err(ReplicaError::Cloned(forked(device, fork)));
                }
            };
            // Whatever is acknowledged after it takes it to the disk. Lost before that with the power, the device is
            // ahead the next time, and a copy is told one sync later.
            if store.swap_meta(&name, text.as_deref(), &write(&after)?, Durability::Normal).await? {
                return Ok(());
            }
        }
        Err(ReplicaError::Busy(format!("the device `{}` is syncing many times at once", device.name)))
    }

    /// What this node knows of the syncs of a device that follows it.
    pub async fn seen_of(&self, device: &Device) -> Result<Seen, ReplicaError> {
        Ok(self.chain(&chain_name(device)).await?.1)
    }

    /// Makes this copy of a device's data an installation of its own: it pulls everything anew and keeps
    /// its outbox. Returns the device id under which it writes from now on. A running `serve` writes under
    /// the old id until it is started again.
    pub async fn renew(&self, space: &SpaceId, renewal: Renewal) -> Result<DeviceId, ReplicaError> {
        let lease = self.take_lease(space).await?;
        let renewed = self.renew_leased(space, renewal).await;
        self.drop_lease(space, &lease).await?;
        renewed
    }

    async fn renew_leased(&self, space: &SpaceId, renewal: Renewal) -> Result<DeviceId, ReplicaError> {
        let store = &self.inner.store;
        // First what costs a longer pull, last what lets it sync again: cut in between, it is asked anew.
        store.pull_anew(space).await?;
        let id = match renewal {
            Renewal::Restored => self.inner.device.clone(),
            Renewal::Copy => DeviceId::parse(&self.inner.ids.id())?,
        };
        store.put_meta(crate::node::DEVICE, &id).await?;
        begin_installation(&**store, &*self.inner.ids, space).await?;
        Ok(id)
    }

    /// Since when the upstream has refused this node as a copy of a device.
    pub(crate) async fn cloned_at(&self, space: &SpaceId) -> Result<Option<Time>, ReplicaError> {
        let text = self.inner.store.meta(&own_name(space)).await?;
        Ok(text.map(|text| read::<Own>(&text)).transpose()?.and_then(|own| own.cloned_at))
    }

    /// Begins a sync: what is asked over the transport from now on carries its pair of nonces.
    pub(crate) async fn presenting<'a>(
        &'a self,
        space: &'a SpaceId,
        transport: &'a dyn Transport,
    ) -> Result<Presenting<'a>, ReplicaError> {
        let draw = || crate::secret::hex(&self.inner.ids.secret()[..16]);
        let promoted = self.inner.store.meta(PROMOTED).await?;
        let installation = DeviceId::parse(&self.inner.ids.id())?;
        let begin = |own: &mut Own| {
            own.heed(promoted.as_deref(), || installation.clone());
            own.begin(draw)
        };
        let pair = self.own(space, Durability::Full, begin).await?;
        transport.present(&pair);
        Ok(Presenting { node: self, space, transport, pair, taken: AtomicBool::new(false) })
    }

    /// Changes what this node keeps of its own nonces.
    async fn own<T>(
        &self,
        space: &SpaceId,
        durability: Durability,
        change: impl Fn(&mut Own) -> T,
    ) -> Result<T, ReplicaError> {
        let name = own_name(space);
        for _ in 0..TRIES {
            let text = self.inner.store.meta(&name).await?;
            let mut own = match &text {
                Some(text) => read(text)?,
                None => Own::new(DeviceId::parse(&self.inner.ids.id())?),
            };
            let result = change(&mut own);
            let after = write(&own)?;
            if text.as_deref() == Some(&after)
                || self.inner.store.swap_meta(&name, text.as_deref(), &after, durability).await?
            {
                return Ok(result);
            }
        }
        Err(ReplicaError::Busy(format!("another process syncs the space `{space}`")))
    }

    async fn chain(&self, name: &str) -> Result<(Option<String>, Chain), ReplicaError> {
        let text = self.inner.store.meta(name).await?;
        let chain = text.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok((text, chain))
    }

    /// For the operator's eyes only, so whether it can be written does not matter.
    async fn note_copy(&self, name: &str, text: Option<&str>, chain: Chain, now: Time) {
        if chain.cloned_at.is_some_and(|at| now.since(at).abs() < NOTED_EVERY) {
            return;
        }
        if let Ok(after) = write(&Chain { cloned_at: Some(now), ..chain }) {
            let _ = self.inner.store.swap_meta(name, text, &after, Durability::Normal).await;
        }
    }
}

/// A transport on which every request carries the sync's pair of nonces.
pub(crate) struct Presenting<'a> {
    node: &'a Node,
    space: &'a SpaceId,
    transport: &'a dyn Transport,
    pair: Pair,
    /// Whether the upstream has answered to the pair.
    taken: AtomicBool,
}

impl Presenting<'_> {
    /// Notes what an answer says about the pair. Where it cannot be noted, the same pair is said again.
    async fn heard<T>(&self, answer: Result<T, TransportError>) -> Result<T, TransportError> {
        let noted = match &answer {
            Ok(_) if !self.taken.swap(true, Ordering::Relaxed) => {
                // Lost with the power, the same pair is said again.
                self.node.own(self.space, Durability::Normal, |own| own.taken(&self.pair)).await
            }
            Err(TransportError::Problem(Problem { code: ProblemCode::DeviceCloned, .. })) => {
                let now = self.node.inner.clock.now();
                self.node
                    .own(self.space, Durability::Full, |own| own.cloned_at = own.cloned_at.or(Some(now)))
                    .await
            }
            _ => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "what the upstream said about this sync could not be noted");
        }
        answer
    }
}

#[async_trait]
impl Transport for Presenting<'_> {
    fn present(&self, pair: &Pair) {
        self.transport.present(pair);
    }
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.transport.hello().await
    }
    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        self.heard(self.transport.push(body).await).await
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.heard(self.transport.pull(cursor, limit).await).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.transport.live(on_head).await
    }
}

/// Begins an installation anew: a copy that was restored on purpose is not taken for a clone.
pub(crate) async fn begin_installation(
    store: &dyn Store,
    ids: &dyn Ids,
    space: &SpaceId,
) -> Result<(), ReplicaError> {
    let own = Own::new(DeviceId::parse(&ids.id())?);
    Ok(store.put_meta(&own_name(space), &write(&own)?).await?)
}

fn chain_name(device: &Device) -> String {
    format!("nonces.of.{}.{}", device.space, device.id)
}

fn own_name(space: &SpaceId) -> String {
    format!("nonces.{space}")
}

fn forked(device: &Device, fork: Fork) -> String {
    let name = &device.name;
    match fork {
        Fork::Passed => format!(
            "another copy of the device `{name}` has synced since this one did; this request changed nothing"
        ),
        Fork::Replaced => format!(
            "the device `{name}` was installed anew and this is its former installation; this request changed nothing"
        ),
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ReplicaError> {
    serde_json::from_str(text).map_err(|e| fault(format!("stored nonces cannot be read: {e}")))
}

fn write(value: &impl serde::Serialize) -> Result<String, ReplicaError> {
    serde_json::to_string(value).map_err(|e| fault(format!("nonces cannot be written: {e}")))
}

fn fault(what: String) -> ReplicaError {
    StoreError::Fault { what, source: None }.into()
}
