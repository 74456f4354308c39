//! One sync at a time per space and store, by a lease row that several processes see.
//!
//! Nothing is lost if a wrong clock lets two syncs run at once, every part of a sync is idempotent; the
//! lease only keeps them out of each other's way.

use crate::{Node, ReplicaError};
use ropeway_core::{id::SpaceId, time::Time};
use ropeway_store::Durability;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a lease holds without being renewed: what a killed process leaves behind.
const HOLDS: Duration = Duration::from_secs(3);
const RENEWED: Duration = Duration::from_secs(1);
const ASKED: Duration = Duration::from_millis(100);

/// A lease that this sync holds.
pub(crate) struct Lease {
    value: String,
    heartbeat: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

impl Node {
    /// Takes the lease, waiting for one that a killed process left behind to run out.
    /// [`ReplicaError::Busy`] when somebody else goes on renewing it.
    pub(crate) async fn take_lease(&self, space: &SpaceId) -> Result<Lease, ReplicaError> {
        let name = name(space);
        let owner = self.inner.ids.id();
        let tries = HOLDS.as_millis() / ASKED.as_millis() + 5;
        for _ in 0..tries {
            let held = self.inner.store.meta(&name).await?;
            if held.as_deref().is_none_or(|value| self.is_free(value)) {
                let value = self.lease_value(&owner);
                if self.inner.store.swap_meta(&name, held.as_deref(), &value, Durability::Normal).await? {
                    let heartbeat = self.keep(name, owner.clone(), value.clone());
                    return Ok(Lease { value: owner, heartbeat });
                }
            }
            tokio::time::sleep(ASKED).await;
        }
        Err(ReplicaError::Busy(format!("another sync of the space `{space}` is running on this store")))
    }

    /// Gives the lease back.
    pub(crate) async fn drop_lease(&self, space: &SpaceId, lease: &Lease) -> Result<(), ReplicaError> {
        lease.heartbeat.abort();
        let name = name(space);
        let held = self.inner.store.meta(&name).await?;
        if let Some(value) = held.filter(|value| value.starts_with(&lease.value)) {
            self.inner.store.swap_meta(&name, Some(&value), "", Durability::Normal).await?;
        }
        Ok(())
    }

    fn keep(&self, name: String, owner: String, first: String) -> JoinHandle<()> {
        let node = self.clone();
        tokio::spawn(async move {
            let mut value = first;
            loop {
                tokio::time::sleep(RENEWED).await;
                let next = node.lease_value(&owner);
                match node.inner.store.swap_meta(&name, Some(&value), &next, Durability::Normal).await {
                    Ok(true) => value = next,
                    _ => return,
                }
            }
        })
    }

    fn lease_value(&self, owner: &str) -> String {
        let (clock, holds) = (&self.inner.clock, i64::try_from(HOLDS.as_micros()).unwrap_or(0));
        let (mono, wall) = (clock.mono().saturating_add(holds), clock.now().plus(holds));
        format!("{owner} {} {mono} {}", clock.boot(), wall.0)
    }

    /// A lease that ran out, or that lies so far ahead that a clock must have jumped. Within one boot the
    /// monotonic clock says so, whatever happens to the wall clock.
    fn is_free(&self, value: &str) -> bool {
        let mut parts = value.split(' ').skip(1).map(str::parse::<i64>);
        let (Some(Ok(boot)), Some(Ok(mono)), Some(Ok(wall))) = (parts.next(), parts.next(), parts.next())
        else {
            return true;
        };
        let clock = &self.inner.clock;
        let left = match u64::try_from(boot) == Ok(clock.boot()) {
            true => mono.saturating_sub(clock.mono()),
            false => Time(wall).since(clock.now()),
        };
        left <= 0 || left > i64::try_from(HOLDS.as_micros()).unwrap_or(0)
    }
}

pub(crate) fn name(space: &SpaceId) -> String {
    format!("lease.{space}")
}
