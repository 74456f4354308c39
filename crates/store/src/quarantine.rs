//! Quarantine: what a revoked device handed in waits here, beside the records and in nobody's sight, until an
//! administrator decides (I9).

use crate::StoreError;
use async_trait::async_trait;
use ropeway_core::{
    change::Change,
    id::{DeviceId, SpaceId},
    receipt::Verdict,
    time::Time,
};

/// A change in quarantine.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantined {
    /// Its place in the order of arrival.
    pub no: i64,
    /// The revoked device that handed it in.
    pub device: DeviceId,
    /// The change, as it came.
    pub change: Change,
    /// When it came.
    pub received_at: Time,
    /// What became of it; `None`: it waits.
    pub ended: Option<QuarantineEnd>,
}

/// What somebody decided about a change in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEnd {
    /// When.
    pub at: Time,
    /// Who.
    pub by: Option<String>,
    /// How it was decided when it was accepted; `None`: it was discarded.
    pub verdict: Option<Verdict>,
}

/// How much of one device may wait at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Most changes.
    pub changes: u64,
    /// Most bytes of their JSON.
    pub bytes: u64,
}

/// The part of a [`Store`](crate::Store) that keeps the work of revoked devices. Each method is one
/// transaction, or one consistent read.
#[async_trait]
pub trait Quarantine: Send + Sync + 'static {
    /// Keeps changes of a revoked device, in order, until one finds no room; none after that one. A change
    /// id that the device handed in before is there once, whatever became of it. Returns how many of these
    /// changes are kept, now or before.
    async fn quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        now: Time,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<u64, StoreError>;

    /// What was handed in, by its place after `after`, what was decided included.
    async fn quarantined(
        &self,
        space: &SpaceId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Quarantined>, StoreError>;

    /// Notes what became of changes that wait. Returns how many did wait: whoever is second changes nothing.
    async fn end_quarantine(
        &self,
        space: &SpaceId,
        ended: Vec<(i64, QuarantineEnd)>,
    ) -> Result<u64, StoreError>;

    /// Forgets what was decided before this time. Returns how many.
    async fn purge_quarantine(&self, space: &SpaceId, before: Time) -> Result<u64, StoreError>;
}
