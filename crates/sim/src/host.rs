//! A machine: a store that survives, and the node that runs on it until the machine dies.

use crate::{
    clock::SimClock,
    ledger::Ledger,
    shaky::{Life, Shaky},
};
use bytes::Bytes;
use ropeway_core::{
    id::{ChangeId, DeviceId, Epoch, SpaceId},
    nonce::Pair,
    profile::Profile,
};
use ropeway_replica::{Clock, Ids, Node, NodeOptions, ReplicaError, SequentialIds};
use ropeway_store::{MemoryStore, Stored};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::Instant;

/// The one space of a story.
pub(crate) fn space() -> SpaceId {
    SpaceId::trusted("main")
}

/// A machine of the story.
pub(crate) struct Host {
    /// Its place among the nodes.
    pub(crate) index: usize,
    /// Its upstream.
    pub(crate) parent: Option<usize>,
    /// Its clocks.
    pub(crate) clock: Arc<SimClock>,
    disk: Mutex<Arc<MemoryStore>>,
    /// Whether it is not there yet.
    pub(crate) asleep: AtomicBool,
    profile: Arc<Profile>,
    now: Mutex<Run>,
    /// What it has acknowledged.
    pub(crate) ledger: Mutex<Ledger>,
    /// The batches that it sent, as they were sent, with the nonces of their syncs.
    pub(crate) sent: Mutex<Vec<(Bytes, Option<Pair>)>>,
    /// The generation of the store that was examined last.
    pub(crate) examined: Mutex<i64>,
    /// Its token at the upstream.
    pub(crate) token: Mutex<String>,
    /// As what its upstream knows it.
    pub(crate) device: Mutex<Option<DeviceId>>,
    /// A token that was issued for it, and that it does not know yet.
    pub(crate) issued: Mutex<String>,
    /// Whether its upstream has revoked it.
    pub(crate) barred: Mutex<bool>,
    /// The changes that it said it keeps in quarantine, and that nobody has decided.
    pub(crate) aside: Mutex<BTreeSet<ChangeId>>,
    /// The unsettled changes, by their number in the outbox, whose records were here when it was examined last.
    pub(crate) unsettled: Mutex<BTreeSet<i64>>,
    /// When its upstream heard of it last, as far as that upstream remembers.
    pub(crate) heard: Mutex<Option<Instant>>,
    /// Its last backup.
    pub(crate) backup: Mutex<Option<Backup>>,
    /// That it was put back to a backup, and has not been told so yet.
    pub(crate) put_back: Mutex<Option<()>>,
}

/// A backup of a machine, with what it had acknowledged by then.
#[derive(Clone)]
pub(crate) struct Backup {
    pub(crate) disk: Arc<MemoryStore>,
    pub(crate) ledger: Ledger,
    aside: BTreeSet<ChangeId>,
}

/// The run that a machine is in.
struct Run {
    node: Node,
    life: Arc<Life>,
    number: u64,
}

/// What a lock holds, whatever happened to its last holder.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Sets a machine up and starts it.
    pub(crate) async fn new(
        index: usize,
        parent: Option<usize>,
        profile: &Arc<Profile>,
        clock: SimClock,
    ) -> Result<Self, ReplicaError> {
        let epoch = Epoch::trusted(format!("epoch-{index}"));
        let image = Arc::new(MemoryStore::new(epoch, parent.is_some()));
        let clock = Arc::new(clock);
        let run = start(&image, index, parent, 1, profile, &clock).await?;
        run.node.open_space(&space()).await?;
        Ok(Self {
            index,
            parent,
            clock,
            disk: Mutex::new(image),
            asleep: AtomicBool::new(false),
            profile: profile.clone(),
            now: Mutex::new(run),
            ledger: Mutex::default(),
            sent: Mutex::default(),
            examined: Mutex::new(-1),
            token: Mutex::default(),
            device: Mutex::default(),
            unsettled: Mutex::default(),
            issued: Mutex::default(),
            barred: Mutex::default(),
            aside: Mutex::default(),
            heard: Mutex::new(Some(Instant::now())),
            backup: Mutex::default(),
            put_back: Mutex::default(),
        })
    }

    /// What is on its disk.
    pub(crate) fn image(&self) -> Arc<MemoryStore> {
        locked(&self.disk).clone()
    }

    /// Whether it takes part.
    pub(crate) fn is_there(&self) -> bool {
        !self.asleep.load(Ordering::Relaxed)
    }

    /// Begins to take part, as a copy of another machine: its disk, its token, and what it answered for.
    pub(crate) async fn become_copy_of(&self, other: &Self) -> Result<(), ReplicaError> {
        *locked(&self.disk) = Arc::new(other.image().image());
        locked(&self.token).clone_from(&locked(&other.token));
        locked(&self.device).clone_from(&locked(&other.device));
        locked(&self.ledger).values.clone_from(&locked(&other.ledger).values);
        self.asleep.store(false, Ordering::Relaxed);
        self.restart().await
    }

    /// Takes a backup.
    pub(crate) fn back_up(&self) {
        let (ledger, aside) = (locked(&self.ledger).clone(), locked(&self.aside).clone());
        let backup = Backup { disk: Arc::new(self.image().image()), ledger, aside };
        *locked(&self.backup) = Some(backup);
    }

    /// Starts again on what the last backup holds.
    pub(crate) async fn start_on(&self, backup: &Backup) -> Result<(), ReplicaError> {
        *locked(&self.disk) = Arc::new(backup.disk.image());
        locked(&self.ledger).clone_from(&backup.ledger);
        locked(&self.aside).clone_from(&backup.aside);
        locked(&self.unsettled).clear();
        self.restart().await
    }

    /// The node that runs now.
    pub(crate) fn node(&self) -> Node {
        locked(&self.now).node.clone()
    }

    /// The life of the machine.
    pub(crate) fn life(&self) -> Arc<Life> {
        locked(&self.now).life.clone()
    }

    /// Starts the machine again on what its disk holds, with nothing of its memory.
    pub(crate) async fn restart(&self) -> Result<(), ReplicaError> {
        self.life().end();
        self.clock.reboot();
        let number = locked(&self.now).number + 1;
        let run = start(&self.image(), self.index, self.parent, number, &self.profile, &self.clock).await?;
        *locked(&self.now) = run;
        Ok(())
    }
}

async fn start(
    image: &Arc<MemoryStore>,
    index: usize,
    parent: Option<usize>,
    number: u64,
    profile: &Arc<Profile>,
    clock: &Arc<SimClock>,
) -> Result<Run, ReplicaError> {
    let life = Life::new();
    let store: Stored = Arc::new(Shaky { inner: image.clone(), life: life.clone() });
    let ids: Arc<dyn Ids> = Arc::new(SequentialIds::new(&format!("n{index}-{number}")));
    let clock: Arc<dyn Clock> = clock.clone();
    let profile = profile.clone();
    let node = Node::open(NodeOptions { store, profile, clock, ids, follows: parent.is_some() }).await?;
    Ok(Run { node, life, number })
}
