//! What a node knows besides records: its devices, its people, its syncs. None of it travels.

use ropeway_core::{
    id::{DeviceId, SpaceId},
    time::{Stamp, Time},
};

/// A device that may sync with this node (ISMF-049).
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its id, `device_uuid` in the documents.
    pub id: DeviceId,
    /// The one space it belongs to.
    pub space: SpaceId,
    /// Its name for people: "Start Line Pi".
    pub name: String,
    /// `cloud` or `offline_device` (ISMF-060).
    pub mode: String,
    /// The role granted to it: the most its people may do.
    pub role: String,
    /// Whether it may sync.
    pub status: DeviceStatus,
    /// SHA-256 of its token, hex. The token itself is nowhere (ISMF-049).
    pub token_hash: String,
    /// Hardware, operating system, app version: a JSON object (ISMF-052).
    pub metadata: serde_json::Value,
    /// When it was registered.
    pub created_at: Time,
    /// When it last spoke (ISMF-051).
    pub last_seen_at: Option<Time>,
    /// How far it has pulled: what it may still need is newer than this.
    pub pulled: Option<Stamp>,
    /// How far it has pulled of what the app shares, where that is kept beside its space.
    pub pulled_shared: Option<Stamp>,
}

/// Whether a device may sync (ISMF-050). `offline` is not stored: it is derived from when it last spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceStatus {
    /// It may.
    Active,
    /// It may not, ever again (I9).
    Decommissioned,
}

/// A person of this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// E-mail address, lower-cased.
    pub email: String,
    /// The one space they belong to.
    pub space: SpaceId,
    /// Their role in the profile.
    pub role: String,
    /// Password hash in PHC form. The password is nowhere.
    pub password_hash: String,
    /// Whether they are locked out.
    pub disabled: bool,
    /// When they were added.
    pub created_at: Time,
}

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncOutcome {
    /// Everything went and came.
    Done,
    /// It went through, but changes were refused, wait or were parked.
    Partly,
    /// The upstream was not reached; nothing was lost and no retry used up.
    Offline,
    /// The upstream answered with a failure.
    Failed,
    /// It went through and nothing waits, and yet the two replicas are not equal (I4).
    Differs,
}

/// One sync, for the metric of ISMF-147.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncRun {
    /// When it began.
    pub started_at: Time,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// How it ended.
    pub outcome: SyncOutcome,
    /// Changes the upstream took in.
    pub pushed: u64,
    /// Records absorbed.
    pub pulled: u64,
    /// Changes parked, refused or waiting.
    pub held: u64,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// Whose sync it was where a device synced with this node; `None`: this node's own, with its upstream.
    pub device: Option<DeviceId>,
}
