//! A machine: a disk that survives, and the node that runs on it until the machine dies.

use crate::{
    clock::SimClock,
    disk::{Disk, StoreKind},
    host::locked,
    shaky::{Life, Shaky},
};
use ropeway_core::{
    id::{Epoch, SpaceId},
    profile::Profile,
};
use ropeway_replica::{Clock, Ids, Node, NodeOptions, ReplicaError, SequentialIds, begin_epoch};
use ropeway_store::{Store, StoreError, Stored};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// A machine of the story. All spaces are on its one disk.
pub(crate) struct Machine {
    /// Its place among the nodes.
    pub(crate) index: usize,
    /// Its upstream.
    pub(crate) parent: Option<usize>,
    /// Its clocks.
    pub(crate) clock: Arc<SimClock>,
    disk: Mutex<Disk>,
    backup: Mutex<Option<Disk>>,
    /// Whether it is not there yet.
    pub(crate) asleep: AtomicBool,
    profile: Arc<Profile>,
    spaces: Vec<SpaceId>,
    now: Mutex<Run>,
}

/// The run that a machine is in.
struct Run {
    node: Node,
    life: Arc<Life>,
    number: u64,
}

impl Machine {
    /// Sets a machine up and starts it.
    pub(crate) async fn new(
        (index, parent): (usize, Option<usize>),
        kind: StoreKind,
        spaces: &[SpaceId],
        profile: &Arc<Profile>,
        clock: SimClock,
    ) -> Result<Self, ReplicaError> {
        let epoch = Epoch::trusted(format!("epoch-{index}"));
        let disk = Disk::new(kind, epoch, parent.is_some())?;
        let clock = Arc::new(clock);
        let run = start(&disk, index, parent, 1, profile, &clock).await?;
        for space in spaces {
            run.node.open_space(space).await?;
        }
        Ok(Self {
            index,
            parent,
            clock,
            disk: Mutex::new(disk),
            backup: Mutex::default(),
            asleep: AtomicBool::new(false),
            profile: profile.clone(),
            spaces: spaces.to_vec(),
            now: Mutex::new(run),
        })
    }

    /// What is on its disk.
    pub(crate) fn image(&self) -> Shaky {
        self.disk().store(Life::new())
    }

    fn disk(&self) -> Disk {
        locked(&self.disk).clone()
    }

    /// Moves whenever something was written, or it started again.
    pub(crate) async fn generation(&self) -> Result<(u64, i64), StoreError> {
        let number = locked(&self.now).number;
        Ok((number, self.image().generation().await?))
    }

    /// Begins to take part, with a copy of the disk of another machine.
    pub(crate) async fn become_copy_of(&self, other: &Self) -> Result<(), ReplicaError> {
        let copy = other.disk().copy()?;
        *locked(&self.disk) = copy;
        self.asleep.store(false, Ordering::Relaxed);
        self.restart().await
    }

    /// Takes a backup, in the place of the one before.
    pub(crate) fn back_up(&self) -> Result<(), StoreError> {
        let copy = self.disk().copy()?;
        *locked(&self.backup) = Some(copy);
        Ok(())
    }

    /// Whether it has a backup.
    pub(crate) fn has_backup(&self) -> bool {
        locked(&self.backup).is_some()
    }

    /// Starts again on what the last backup holds.
    pub(crate) async fn start_on_backup(&self) -> Result<(), ReplicaError> {
        let backup = locked(&self.backup).clone();
        if let Some(backup) = backup {
            let copy = backup.copy()?;
            *locked(&self.disk) = copy;
        }
        self.restart().await
    }

    /// Goes back to its last backup as `restore` does: in all its spaces a new epoch begins.
    pub(crate) async fn restore(&self, restamp: bool) -> Result<(), ReplicaError> {
        self.start_on_backup().await?;
        let ids = SequentialIds::new(&format!("{}-restored", self.node().ids().id()));
        begin_epoch(&self.image(), &*self.clock, &ids, &self.spaces, restamp).await?;
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
        let disk = self.disk().reopened()?;
        *locked(&self.disk) = disk.clone();
        let run = start(&disk, self.index, self.parent, number, &self.profile, &self.clock).await?;
        *locked(&self.now) = run;
        Ok(())
    }
}

async fn start(
    disk: &Disk,
    index: usize,
    parent: Option<usize>,
    number: u64,
    profile: &Arc<Profile>,
    clock: &Arc<SimClock>,
) -> Result<Run, ReplicaError> {
    let life = Life::new();
    let store: Stored = Arc::new(disk.store(life.clone()));
    let ids: Arc<dyn Ids> = Arc::new(SequentialIds::new(&format!("n{index}-{number}")));
    let clock: Arc<dyn Clock> = clock.clone();
    let profile = profile.clone();
    let node = Node::open(NodeOptions { store, profile, clock, ids, follows: parent.is_some() }).await?;
    Ok(Run { node, life, number })
}
