//! One space on one machine: what it has acknowledged there, and what its upstream knows of it.

use crate::{ledger::Ledger, machine::Machine};
use bytes::Bytes;
use ropeway_core::{
    digest::Digest,
    id::{ChangeId, DeviceId, Key},
    nonce::Pair,
    time::Stamp,
};
use std::{
    collections::BTreeSet,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::time::Instant;

/// A machine as one space has it.
pub(crate) struct Host {
    machine: Arc<Machine>,
    /// Whether the machine has anything to do with the space.
    takes_part: bool,
    /// What it has acknowledged.
    pub(crate) ledger: Mutex<Ledger>,
    /// The batches that it sent, as they were sent, with the nonces of their syncs.
    pub(crate) sent: Mutex<Vec<(Bytes, Option<Pair>)>>,
    /// The generation of the machine that was examined last.
    pub(crate) examined: Mutex<(u64, i64)>,
    /// What the trace said of it last: its head and its digest.
    pub(crate) told: Mutex<(Stamp, Digest)>,
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
    /// The deleted records that it has forgotten.
    pub(crate) buried: Mutex<BTreeSet<Key>>,
    /// What it had acknowledged when its last backup was taken.
    backed_up: Mutex<(Ledger, BTreeSet<ChangeId>)>,
    /// That it was put back to a backup, and has not been told so yet.
    pub(crate) put_back: Mutex<Option<()>>,
}

impl Deref for Host {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

/// What a lock holds, whatever happened to its last holder.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A space on a machine that has just been set up.
    pub(crate) fn new(machine: Arc<Machine>, takes_part: bool) -> Self {
        Self {
            machine,
            takes_part,
            ledger: Mutex::default(),
            sent: Mutex::default(),
            examined: Mutex::default(),
            told: Mutex::default(),
            token: Mutex::default(),
            device: Mutex::default(),
            unsettled: Mutex::default(),
            issued: Mutex::default(),
            barred: Mutex::default(),
            aside: Mutex::default(),
            heard: Mutex::new(Some(Instant::now())),
            buried: Mutex::default(),
            backed_up: Mutex::default(),
            put_back: Mutex::default(),
        }
    }

    /// Whether the machine is there and has to do with the space.
    pub(crate) fn is_there(&self) -> bool {
        self.takes_part && !self.asleep.load(Ordering::Relaxed)
    }

    /// Its machine has become a copy of another one: it has that one's token, and answers for what it did.
    pub(crate) fn stands_in_for(&self, other: &Self) {
        locked(&self.token).clone_from(&locked(&other.token));
        locked(&self.device).clone_from(&locked(&other.device));
        locked(&self.buried).clone_from(&locked(&other.buried));
        locked(&self.ledger).values.clone_from(&locked(&other.ledger).values);
    }

    /// A backup of its machine was taken.
    pub(crate) fn was_backed_up(&self) {
        *locked(&self.backed_up) = (locked(&self.ledger).clone(), locked(&self.aside).clone());
    }

    /// Its machine went back to its last backup.
    pub(crate) fn went_back(&self) {
        let (ledger, aside) = locked(&self.backed_up).clone();
        *locked(&self.ledger) = ledger;
        *locked(&self.aside) = aside;
        locked(&self.unsettled).clear();
    }
}
