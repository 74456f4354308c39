//! Devices: registered with a token that is shown once, listed, given a new token, decommissioned (ISMF-049 to
//! ISMF-052, ISMF-144, CT-09, GP-13). For administrators, each within their own space.

use super::{
    door::{Asker, Refused, read_object},
    shapes,
};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
};
use ropeway_core::{id::DeviceId, time::Time};
use ropeway_replica::{Device, DeviceStatus, Enrolled, Enrolment, SyncOutcome};
use ropeway_server::Host;
use serde_json::{Value, json};

/// A device that was not seen for so long is offline: three automatic syncs missed (GP-13).
const OFFLINE_AFTER: i64 = 15 * 60 * 1_000_000;

/// Syncs that are looked through for each device's last one.
const LATEST: usize = 1_000;

/// `POST /devices`: the token is in this answer and nowhere else.
#[utoipa::path(post, path = "/devices", operation_id = "register_device",
    tag = "race logger", security(("token" = [])),
    request_body = Object,
    responses(shapes::Door, (status = 201, body = Object), shapes::Unread, shapes::Unusable))]
pub(crate) async fn register(
    State(host): State<Host>,
    asker: Asker,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Refused> {
    asker.caller.must_be_admin()?;
    let mut body = read_object(&host, request).await?;
    let mut text = |name: &str| match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refused::invalid(format!("`{name}` must be a text"))),
    };
    let id = text("device_uuid")?.map(|id| DeviceId::parse(&id)).transpose();
    let id = id.map_err(|e| Refused::invalid(format!("`device_uuid`: {e}")))?;
    let name = text("name")?.ok_or_else(|| Refused::invalid("a device needs a `name`"))?;
    let mode = text("system_mode")?.unwrap_or_else(|| "offline_device".into());
    let role = text("role")?.unwrap_or_else(|| "device".into());
    let metadata = match body.remove("metadata") {
        None | Some(Value::Null) => json!({}),
        Some(metadata) if metadata.is_object() => metadata,
        Some(_) => return Err(Refused::invalid("`metadata` must be an object")),
    };
    let space = asker.caller.space().clone();
    let enrolled = host.node().enrol(Enrolment { id, name, space, role, mode, metadata }).await?;
    Ok((StatusCode::CREATED, with_token(&host, enrolled).await?))
}

/// `GET /devices`, by name. Tokens are nowhere.
#[utoipa::path(get, path = "/devices", operation_id = "list_sync_devices",
    tag = "race logger", security(("token" = [])),
    responses(shapes::Door, (status = 200, body = Object)))]
pub(crate) async fn list(State(host): State<Host>, asker: Asker) -> Result<Json<Value>, Refused> {
    asker.caller.must_be_admin()?;
    let runs = host.node().device_runs(asker.caller.space(), LATEST).await?;
    let mut shown = Vec::new();
    for device in host.node().devices().await? {
        if device.space == *asker.caller.space() {
            let mut json = show(&host, &device).await?;
            if let Some(run) = runs.iter().find(|run| run.device.as_ref() == Some(&device.id)) {
                json["last_sync_at"] = json!(run.started_at);
                json["last_sync_success"] = (run.outcome == SyncOutcome::Done).into();
                json["last_sync_held"] = run.held.into();
            }
            shown.push(json);
        }
    }
    Ok(Json(json!({ "devices": shown })))
}

/// `POST /devices/{device_uuid}/rotate`: a new token; the old one is good for nothing.
#[utoipa::path(post, path = "/devices/{device_uuid}/rotate", operation_id = "rotate_device",
    tag = "race logger", security(("token" = [])),
    params(("device_uuid" = String, Path, description = "The device")),
    responses(shapes::Door, (status = 200, body = Object), shapes::Absent))]
pub(crate) async fn rotate(
    State(host): State<Host>,
    asker: Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let enrolled = host.rotate(&asker.caller, &id).await?;
    with_token(&host, enrolled).await
}

/// `POST /devices/{device_uuid}/decommission`: it may not sync any more, for good.
#[utoipa::path(post, path = "/devices/{device_uuid}/decommission", operation_id = "decommission_device",
    tag = "race logger", security(("token" = [])),
    params(("device_uuid" = String, Path, description = "The device")),
    responses(shapes::Door, (status = 200, body = Object), shapes::Absent))]
pub(crate) async fn decommission(
    State(host): State<Host>,
    asker: Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let device = host.revoke(&asker.caller, &id).await?;
    Ok(Json(json!({ "device": show(&host, &device).await? })))
}

async fn with_token(host: &Host, enrolled: Enrolled) -> Result<Json<Value>, Refused> {
    let mut device = show(host, &enrolled.device).await?;
    device["api_token"] = enrolled.token.into();
    Ok(Json(json!({ "device": device })))
}

async fn show(host: &Host, device: &Device) -> Result<Value, Refused> {
    let offset = host.node().clock_of(device).await?;
    Ok(json!({
        "device_uuid": device.id,
        "name": device.name,
        "system_mode": device.mode,
        "role": device.role,
        "status": status(device, host.node().clock().now()),
        "last_seen_at": device.last_seen_at,
        "metadata": device.metadata,
        "clock_offset_ms": offset.map(|micros| micros / 1_000),
        "created_at": device.created_at,
    }))
}

/// `offline` is not stored: it is read from when the device last spoke (ISMF-050).
fn status(device: &Device, now: Time) -> &'static str {
    let quiet = device.last_seen_at.is_some_and(|seen| now.since(seen) > OFFLINE_AFTER);
    match device.status {
        DeviceStatus::Active if quiet => "offline",
        DeviceStatus::Active => "active",
        DeviceStatus::Decommissioned => "decommissioned",
    }
}
