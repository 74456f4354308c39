//! Words that are stored as small integers. Never renumbered: they are on disks.

use crate::{DeviceStatus, StoreError, SyncOutcome};
use ropeway_core::{outbox::EntryState, receipt::Verdict};

/// Codes of a record's state.
pub(crate) const LIVE: i64 = 0;
pub(crate) const DELETED: i64 = 1;
pub(crate) const JOINED: i64 = 2;
/// A staged row only: the record has left what this node may see.
pub(crate) const LEFT: i64 = 3;

/// Outbox states, in the order of their codes. Those below 5 are unsettled (an index depends on it).
pub(crate) const ENTRY: [EntryState; 7] = [
    EntryState::Pending,
    EntryState::Sealed,
    EntryState::Waiting,
    EntryState::Rejected,
    EntryState::Receipted,
    EntryState::Settled,
    EntryState::Discarded,
];

/// Verdicts, in the order of their codes.
const VERDICT: [Verdict; 9] = [
    Verdict::Created,
    Verdict::Applied,
    Verdict::Merged,
    Verdict::Joined,
    Verdict::Unchanged,
    Verdict::Overruled,
    Verdict::Parked,
    Verdict::Waiting,
    Verdict::Rejected,
];

const STATUS: [DeviceStatus; 2] = [DeviceStatus::Active, DeviceStatus::Decommissioned];

const OUTCOME: [SyncOutcome; 5] =
    [SyncOutcome::Done, SyncOutcome::Partly, SyncOutcome::Offline, SyncOutcome::Failed, SyncOutcome::Differs];

macro_rules! codes {
    ($to:ident, $from:ident, $type:ty, $all:ident, $what:literal) => {
        pub(crate) fn $to(value: $type) -> i64 {
            $all.iter().position(|v| *v == value).map_or(-1, |i| i as i64)
        }
        pub(crate) fn $from(code: i64) -> Result<$type, StoreError> {
            let found = usize::try_from(code).ok().and_then(|i| $all.get(i)).copied();
            let what = || format!(concat!($what, " {} is unknown"), code);
            found.ok_or_else(|| StoreError::Corrupt { what: what() })
        }
    };
}

codes!(of_entry, entry, EntryState, ENTRY, "outbox state");
codes!(of_verdict, verdict, Verdict, VERDICT, "verdict");
codes!(of_status, status, DeviceStatus, STATUS, "device status");
codes!(of_outcome, outcome, SyncOutcome, OUTCOME, "sync outcome");
