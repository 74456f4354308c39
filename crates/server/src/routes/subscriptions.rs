//! `/v1/subscriptions`: what a device takes along. Whether anything carries a key is never told.

use super::{json, shapes};
use crate::{Caller, Failure, Host};
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;

/// A device's audiences on the wire.
#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    audiences: Option<Vec<String>>,
}

/// The audiences that the caller is subscribed to; absent where it sees everything.
#[utoipa::path(get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "sync", security(("token" = [])),
    responses((status = 200, body = shapes::Subscriptions), shapes::Refused, shapes::Unwell))]
pub(super) async fn list(State(host): State<Host>, caller: Caller) -> Result<Response, Failure> {
    json(&Shown { audiences: host.node().subscriptions(&caller.device).await? })
}

/// Subscribes the caller to an audience; its next pull brings what lies behind its cursor.
#[utoipa::path(put, path = "/v1/subscriptions/{audience}", tag = "sync", security(("token" = [])),
    params(("audience" = String, Path, description = "`name:value`")),
    responses((status = 200, body = shapes::Subscriptions), shapes::Refused, shapes::TooLarge, shapes::Unwell))]
pub(super) async fn subscribe(
    State(host): State<Host>,
    caller: Caller,
    Path(audience): Path<String>,
) -> Result<Response, Failure> {
    change(host, caller, &audience, true).await
}

/// Ends a subscription; the caller's next pull tells it what to evict.
#[utoipa::path(delete, path = "/v1/subscriptions/{audience}", tag = "sync", security(("token" = [])),
    params(("audience" = String, Path, description = "`name:value`")),
    responses((status = 200, body = shapes::Subscriptions), shapes::Refused, shapes::Unwell))]
pub(super) async fn unsubscribe(
    State(host): State<Host>,
    caller: Caller,
    Path(audience): Path<String>,
) -> Result<Response, Failure> {
    change(host, caller, &audience, false).await
}

async fn change(host: Host, caller: Caller, audience: &str, on: bool) -> Result<Response, Failure> {
    let changed = host.node().subscribe(&caller.device, audience, on).await;
    host.wrote(&changed);
    changed?;
    json(&Shown { audiences: host.node().subscriptions(&caller.device).await? })
}
