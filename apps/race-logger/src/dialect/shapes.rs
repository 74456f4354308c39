//! What the OpenAPI document says of answers that several addresses give: never built, only described.
#![allow(dead_code, reason = "described, never built")]

use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};

/// A refusal as a whole (GP-01).
#[derive(ToSchema)]
pub(crate) struct RaceLoggerError {
    error: ErrorText,
}

/// Why.
#[derive(ToSchema)]
struct ErrorText {
    /// A word for programs.
    code: String,
    /// A sentence for people.
    message: String,
    /// What to do next.
    next: Option<String>,
}

/// Nobody, somebody else, too often, or not now.
#[derive(IntoResponses)]
pub(crate) enum Door {
    /// No token, a wrong one, or another device's `X-Device-UUID`
    #[response(status = 401)]
    Unauthenticated(RaceLoggerError),
    /// The role may not, or the device was revoked
    #[response(status = 403)]
    Forbidden(RaceLoggerError),
    /// `device_cloned`, `resync_required`, `epoch_changed`: see `next`; nothing on the device is lost
    #[response(status = 409)]
    Elsewhen(RaceLoggerError),
    /// Too many requests: see `Retry-After`
    #[response(status = 429)]
    TooMany(RaceLoggerError),
    /// The node failed: send the same again later
    #[response(status = 500)]
    Internal(RaceLoggerError),
    /// Not now: see `Retry-After`
    #[response(status = 503)]
    Unavailable(RaceLoggerError),
}

/// What was sent cannot be read.
#[derive(IntoResponses)]
pub(crate) enum Unread {
    /// The body or the cursor cannot be read
    #[response(status = 400)]
    Malformed(RaceLoggerError),
    /// Too much at once: send half of it
    #[response(status = 413)]
    TooLarge(RaceLoggerError),
}

/// It is not here.
#[derive(IntoResponses)]
pub(crate) enum Absent {
    /// Nothing of this name is here, for this device
    #[response(status = 404)]
    NotFound(RaceLoggerError),
}

/// It can be read and not used.
#[derive(IntoResponses)]
pub(crate) enum Unusable {
    /// A value is missing or cannot be used
    #[response(status = 422)]
    Invalid(RaceLoggerError),
}

/// An upload's answer: one entry an item, in order.
#[derive(ToSchema)]
pub(crate) struct Results {
    results: Vec<ItemResult>,
}

/// How one item ended.
#[derive(ToSchema)]
struct ItemResult {
    client_uuid: Option<String>,
    /// `created`, `already_synced`, `updated`, `merged`, `conflict` or `error`
    status: String,
    /// The status that it would have alone
    http_status: u16,
    cloud_id: Option<i64>,
    version: Option<u64>,
    merged_into_client_uuid: Option<String>,
    deduplication: Option<Deduplication>,
    conflict_id: Option<i64>,
    conflict_type: Option<String>,
    conflict_ids: Option<Vec<i64>>,
    /// Both values of each contested field
    details: Option<Map<String, Value>>,
    /// Where the same was sent again after its conflict was answered: how
    resolution: Option<String>,
    error: Option<ItemError>,
}

/// What layer 2 did.
#[derive(ToSchema)]
struct Deduplication {
    layer: String,
    merged_with_incident_id: Option<i64>,
    action: String,
}

/// Why one item was not taken in.
#[derive(ToSchema)]
struct ItemError {
    code: String,
    message: String,
    field: Option<String>,
}

/// The statuses of an upload (CT-06).
#[derive(IntoResponses)]
pub(crate) enum Uploaded {
    /// Something was taken in, or was there already: read `results`
    #[response(status = 200)]
    Mixed(Results),
    /// Every incident or report is new
    #[response(status = 201)]
    Created(Results),
    /// Every item is a conflict
    #[response(status = 409)]
    Conflict(Results),
    /// Every item is refused: `results`; or the upload as a whole: `error`
    #[response(status = 422)]
    Refused(Results),
}
