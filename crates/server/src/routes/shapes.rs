//! The shapes of bodies, for the OpenAPI document. What travels is written and read by the types of the
//! core; a test holds these against them.

#![allow(dead_code, reason = "shapes are read by the document only")]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};

/// The state of a probe.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `live` or `ready`.
    pub(super) status: String,
}

/// An error answer (RFC 9457) with a code of the closed list.
#[derive(ToSchema)]
pub(super) struct Problem {
    /// The code; a caller acts on it.
    code: String,
    /// The code's name for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened.
    detail: String,
    /// What to do next.
    next: String,
    /// Seconds to wait, where waiting helps.
    retry_after: Option<u64>,
    /// How many changes of a push by a revoked device are kept in quarantine.
    quarantined: Option<u64>,
}

/// Why a node is not ready.
#[derive(ToSchema)]
pub(super) struct NotReady {
    code: String,
    title: String,
    status: u16,
    detail: String,
    next: String,
    retry_after: Option<u64>,
    /// Each reason by itself.
    reasons: Vec<String>,
}

/// The request is refused.
#[derive(IntoResponses)]
pub(super) enum Refused {
    /// `malformed`, `cursor_invalid`
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// `unauthenticated`
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// `forbidden`, `device_revoked`
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// `rate_limited`
    #[response(status = 429, content_type = "application/problem+json")]
    RateLimited(Problem),
}

/// There is nothing that the caller may see.
#[derive(IntoResponses)]
pub(super) enum Absent {
    /// `not_found`
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
}

/// It is not as the caller takes it to be.
#[derive(IntoResponses)]
pub(super) enum Elsewhen {
    /// `moved`, `epoch_changed`, `resync_required`
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
}

/// A limit was passed.
#[derive(IntoResponses)]
pub(super) enum TooLarge {
    /// `too_large`
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
}

/// The node cannot answer.
#[derive(IntoResponses)]
pub(super) enum Unwell {
    /// `internal`
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// `unavailable`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Who is there.
#[derive(ToSchema)]
pub(super) struct Hello {
    service: String,
    build: String,
    schema: u32,
    epoch: String,
    profile: String,
    #[schema(format = DateTime)]
    now: String,
    /// Microseconds from `now` to the time of the node at the top, where this node knows it.
    offset: Option<i64>,
}

/// Who made a change.
#[derive(ToSchema)]
pub(super) struct Author {
    device: String,
    person: Option<String>,
}

/// The version on which an edit was made, and the epoch that issued it.
#[derive(ToSchema)]
pub(super) struct Base {
    epoch: String,
    version: u64,
}

/// What the author's clock said.
#[derive(ToSchema)]
pub(super) struct AuthorTime {
    #[schema(format = DateTime)]
    wall: String,
    boot: Option<u64>,
    mono: Option<i64>,
    offset: Option<i64>,
}

/// One intended edit.
#[derive(ToSchema)]
pub(super) struct Change {
    id: String,
    collection: String,
    record: String,
    /// `create`, `patch` or `delete`.
    op: String,
    fields: Option<Map<String, Value>>,
    seen: Option<Map<String, Value>>,
    base: Option<Base>,
    /// The version of a lost epoch at which the record was so.
    lost: Option<Base>,
    author: Author,
    at: Option<AuthorTime>,
}

/// Changes, parents before children.
#[derive(ToSchema)]
pub(super) struct Push {
    /// The batch's id, for logs.
    batch: Option<String>,
    /// The epoch of the node for which it was made; a node of another one refuses it.
    epoch: Option<String>,
    changes: Vec<Change>,
    /// Ids of changes that are tried for the last time.
    last: Option<Vec<String>>,
}

/// A record as it now stands.
#[derive(ToSchema)]
pub(super) struct Record {
    id: String,
    version: u64,
    /// `"live"`, `"deleted"` or `{"joined": id}`.
    state: Value,
    data: Map<String, Value>,
    author: Author,
    #[schema(format = DateTime)]
    modified_at: String,
}

/// What of a change waits or went elsewhere.
#[derive(ToSchema)]
pub(super) struct Detail {
    parked: Option<Vec<String>>,
    conflicts: Option<Vec<String>>,
}

/// Why a change was refused or waits.
#[derive(ToSchema)]
pub(super) struct Reason {
    code: String,
    field: Option<String>,
    text: String,
}

/// The answer to one change.
#[derive(ToSchema)]
pub(super) struct Receipt {
    change: String,
    /// `created applied merged joined unchanged overruled parked waiting rejected`
    verdict: String,
    collection: String,
    id: String,
    version: u64,
    stamp: i64,
    record: Option<Record>,
    detail: Option<Detail>,
    reason: Option<Reason>,
}

/// The answer to a push.
#[derive(ToSchema)]
pub(super) struct Pushed {
    epoch: String,
    #[schema(format = DateTime)]
    now: String,
    receipts: Vec<Receipt>,
}

/// A conflict with the record it is about.
#[derive(ToSchema)]
pub(super) struct ConflictShown {
    id: String,
    version: u64,
    /// The conflict record's data.
    conflict: Map<String, Value>,
    /// The record's data as it stands now.
    now: Option<Map<String, Value>>,
}

/// The audiences that a device is subscribed to.
#[derive(ToSchema)]
pub(super) struct Subscriptions {
    /// Absent where the device sees everything.
    audiences: Option<Vec<String>>,
}

/// Conflicts, oldest first.
#[derive(ToSchema)]
pub(super) struct Conflicts {
    conflicts: Vec<ConflictShown>,
}

/// A person's answer to a conflict.
#[derive(ToSchema)]
pub(super) struct Answer {
    /// `server`, `incoming`, `merged`, `apart` or `reopen`.
    resolution: String,
    /// The conflict's version that the person had on the screen.
    version: Option<u64>,
    /// The values to write, for `merged`.
    merged: Option<Map<String, Value>>,
    /// Why.
    notes: Option<String>,
    /// Who.
    person: Option<String>,
    /// The answer's change id, so that it may be repeated safely.
    change: Option<String>,
}

/// What came of an answer.
#[derive(ToSchema)]
pub(super) struct Answered {
    receipt: Receipt,
    conflict: ConflictShown,
}

/// A registered device.
#[derive(ToSchema)]
pub(super) struct Device {
    id: String,
    name: String,
    mode: String,
    role: String,
    /// `active` or `decommissioned`.
    status: String,
    metadata: Map<String, Value>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_seen_at: Option<String>,
    pulled: Option<i64>,
}

/// Devices, by name.
#[derive(ToSchema)]
pub(super) struct Devices {
    devices: Vec<Device>,
}

/// A device to register.
#[derive(ToSchema)]
pub(super) struct NewDevice {
    /// Where the device already has one.
    id: Option<String>,
    name: String,
    /// A role of the profile.
    role: String,
    /// `offline_device` (the default) or `cloud`.
    mode: Option<String>,
    metadata: Option<Map<String, Value>>,
}

/// A registered device and the only sight of its token.
#[derive(ToSchema)]
pub(super) struct Enrolled {
    device: Device,
    token: String,
}
