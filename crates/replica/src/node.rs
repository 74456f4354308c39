//! The node: one store, one profile, one clock, and the spaces it keeps.

use crate::{Clock, Ids, ReplicaError};
use ropeway_core::{
    id::{DeviceId, SpaceId},
    limits,
    measured::Boots,
    profile::Profile,
    time::Stamp,
};
use ropeway_store::{SpaceState, Stored};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{broadcast::error::RecvError, watch};

/// The setting that holds the node's own device id.
pub(crate) const DEVICE: &str = "node.device";

/// What a node is made of.
pub struct NodeOptions {
    /// Where everything is kept.
    pub store: Stored,
    /// The app's policies.
    pub profile: Arc<Profile>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// New ids and secrets.
    pub ids: Arc<dyn Ids>,
    /// Whether this node follows an upstream: then what it takes in enters the outbox too.
    pub follows: bool,
}

/// One node. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Stored,
    pub(crate) profile: Arc<Profile>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) follows: bool,
    /// This node's own device id: the author's device of what is written at its desk.
    pub(crate) device: DeviceId,
    /// Key of the cursors' seal.
    pub(crate) secret: [u8; 32],
    /// The top's clock as measured in each boot.
    pub(crate) boots: Mutex<Boots>,
    /// Rows that this process has purged, by kind.
    pub(crate) forgotten: Mutex<BTreeMap<&'static str, u64>>,
    /// The head of each space, for whoever waits for news.
    heads: Mutex<BTreeMap<SpaceId, Told>>,
    /// Whether news of other servers are heard.
    hears: AtomicBool,
    /// Whether what is shared is kept beside a space.
    pub(crate) beside: Mutex<BTreeMap<SpaceId, bool>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("device", &self.inner.device)
            .field("follows", &self.inner.follows)
            .finish()
    }
}

impl Node {
    /// Opens the node on its store: gives it an identity on the first day, installs the profile's views.
    pub async fn open(options: NodeOptions) -> Result<Self, ReplicaError> {
        let NodeOptions { store, profile, clock, ids, follows } = options;
        let device = crate::secret::own(&store, DEVICE, || ids.id()).await?;
        let secret = crate::secret::own(&store, "node.secret", || crate::secret::hex(&ids.secret())).await?;
        let device = DeviceId::parse(&device)?;
        let secret = *blake3::hash(secret.as_bytes()).as_bytes();
        store.install_views(&profile).await?;
        let boots = crate::measure::read(&store).await?;
        let inner = Inner {
            store,
            profile,
            clock,
            ids,
            follows,
            device,
            secret,
            boots: Mutex::new(boots),
            forgotten: Mutex::default(),
            heads: Mutex::default(),
            hears: AtomicBool::default(),
            beside: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node's own device id.
    pub fn device(&self) -> &DeviceId {
        &self.inner.device
    }
    /// The profile it runs.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.inner.profile
    }
    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }
    /// Its source of ids.
    pub fn ids(&self) -> &Arc<dyn Ids> {
        &self.inner.ids
    }
    /// Its store, for the commands that inspect it.
    pub fn store(&self) -> &Stored {
        &self.inner.store
    }
    /// Whether it follows an upstream.
    pub fn follows(&self) -> bool {
        self.inner.follows
    }

    /// Makes sure that a space is there, and that its records carry audiences where the profile has some.
    pub async fn open_space(&self, space: &SpaceId) -> Result<SpaceState, ReplicaError> {
        self.inner.store.open_space(space).await?;
        self.must_hold_shared(space).await?;
        self.gain_audiences(space).await?;
        if let Some(shared) = self.beside(space).await? {
            self.gain_audiences(&shared).await?;
        }
        let state = self.state(space).await?;
        if let Some(text) = self.head_alarm(state.head) {
            tracing::error!(%space, "{text}");
        }
        Ok(state)
    }

    /// Opens every space that a device or a member belongs to: whoever is let in is decided and fed there. Said
    /// before a node serves, so that the records of all of them carry audiences.
    pub async fn open_named_spaces(&self) -> Result<(), ReplicaError> {
        for space in self.named_spaces().await? {
            self.open_space(&space).await?;
        }
        Ok(())
    }

    /// The spaces that a device or a member belongs to.
    pub(crate) async fn named_spaces(&self) -> Result<BTreeSet<SpaceId>, ReplicaError> {
        let devices = self.devices().await?.into_iter().map(|device| device.space);
        let members = self.members().await?.into_iter().map(|member| member.space);
        Ok(devices.chain(members).collect())
    }

    /// Why a head is an alarm: it is so far ahead of this machine's clock that times would mislead people and
    /// cursors for as long. `None` where it is not.
    pub fn head_alarm(&self, head: Stamp) -> Option<String> {
        let ahead = head.time().since(self.inner.clock.now());
        let most = i64::try_from(limits::HEAD_AHEAD_ALARM.as_micros()).unwrap_or(i64::MAX);
        (ahead > most).then(|| {
            format!(
                "the newest change here is of {}, {} s ahead of this machine's clock; nothing is lost and changes keep \
                 their order; set the clock or, where it is right, stop the node and run `ropeway restore` with a \
                 fresh `ropeway backup` and `--restamp`",
                head.time(),
                ahead / 1_000_000
            )
        })
    }

    /// Watches a space's head: a value is sent after each commit of this process. A hint, not the truth:
    /// other processes commit too, so whoever waits also polls.
    pub fn watch(&self, space: &SpaceId) -> watch::Receiver<Stamp> {
        self.hear();
        self.heads().entry(space.clone()).or_insert_with(Told::nothing).news.subscribe()
    }

    /// Hears what other servers of this node commit, as soon as anybody waits for news here.
    fn hear(&self) {
        let Some(news) = self.inner.store.news() else { return };
        if self.inner.hears.swap(true, Ordering::Relaxed) {
            return;
        }
        let (inner, mut heard) = (Arc::downgrade(&self.inner), news.hear());
        tokio::spawn(async move {
            loop {
                let told = heard.recv().await;
                let Some(inner) = inner.upgrade() else { return };
                match told {
                    Ok((space, head)) => drop(Self { inner }.raise(&space, head)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// Says that this process has committed something, here and to the other servers of the node.
    pub(crate) fn announce(&self, space: &SpaceId, head: Stamp) {
        if self.raise(space, head)
            && let Some(news) = self.inner.store.news()
        {
            news.tell(space, head);
        }
    }

    fn raise(&self, space: &SpaceId, head: Stamp) -> bool {
        let mut all = self.heads();
        let own = all.entry(space.clone()).or_insert_with(Told::nothing);
        if head <= own.newest {
            return false;
        }
        own.newest = head;
        own.tell(head);
        if *space == SpaceId::shared() {
            // To whoever reads any space.
            all.iter().filter(|(other, _)| *other != space).for_each(|(_, told)| told.tell(head));
        }
        true
    }

    /// Notes what was purged, for whoever watches.
    pub(crate) fn forgot(&self, rows: &BTreeMap<&'static str, u64>) {
        let mut all = self.inner.forgotten.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (what, rows) in rows {
            *all.entry(what).or_default() += rows;
        }
    }

    fn heads(&self) -> MutexGuard<'_, BTreeMap<SpaceId, Told>> {
        self.inner.heads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is told of a space to whoever waits for it.
pub(crate) struct Told {
    /// The newest head of its own that was told.
    newest: Stamp,
    news: watch::Sender<Stamp>,
}

impl Told {
    fn nothing() -> Self {
        Self { newest: Stamp(0), news: watch::channel(Stamp(0)).0 }
    }

    /// Tells a new head, which is news also where that of what is shared lies ahead of it.
    fn tell(&self, head: Stamp) {
        self.news.send_modify(|told| *told = head.max(Stamp(told.0 + 1)));
    }
}
