//! `/v1/devices`: who may sync with this node. For administrators, each within their own space.

use super::{json, shapes};
use crate::{Caller, Failure, Host, body::read_json};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use ropeway_core::{
    id::DeviceId,
    time::{Stamp, Time},
};
use ropeway_replica::{Device, DeviceStatus, Enrolled, Enrolment};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A device on the wire. Its token is nowhere.
#[derive(Serialize)]
struct Shown {
    id: DeviceId,
    name: String,
    mode: String,
    role: String,
    status: &'static str,
    metadata: Value,
    created_at: Time,
    last_seen_at: Option<Time>,
    pulled: Option<Stamp>,
}

impl From<Device> for Shown {
    fn from(device: Device) -> Self {
        let Device { id, name, mode, role, status, metadata, created_at, last_seen_at, pulled, .. } = device;
        let status = match status {
            DeviceStatus::Active => "active",
            DeviceStatus::Decommissioned => "decommissioned",
        };
        Self { id, name, mode, role, status, metadata, created_at, last_seen_at, pulled }
    }
}

/// A device to register, on the wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    #[serde(default)]
    id: Option<DeviceId>,
    name: String,
    role: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    metadata: Option<serde_json::Map<String, Value>>,
}

/// The devices of the caller's space, by name.
#[utoipa::path(get, path = "/v1/devices", operation_id = "list_devices", tag = "devices", security(("token" = [])),
    responses((status = 200, body = shapes::Devices), shapes::Refused, shapes::Unwell))]
pub(super) async fn list(State(host): State<Host>, caller: Caller) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Devices {
        devices: Vec<Shown>,
    }
    caller.must_be_admin()?;
    let all = host.node().devices().await?;
    let own = all.into_iter().filter(|device| device.space == *caller.space());
    json(&Devices { devices: own.map(Shown::from).collect() })
}

/// Registers a device in the caller's space and shows its token, once.
#[utoipa::path(post, path = "/v1/devices", operation_id = "enrol_device", tag = "devices", security(("token" = [])),
    request_body = shapes::NewDevice,
    responses((status = 201, body = shapes::Enrolled), shapes::Refused, shapes::TooLarge, shapes::Unwell))]
pub(super) async fn enrol(
    State(host): State<Host>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Answer {
        device: Shown,
        token: String,
    }
    caller.must_be_admin()?;
    let New { id, name, role, mode, metadata } = read_json(&host, request).await?;
    let enrolment = Enrolment {
        id,
        name,
        space: caller.space().clone(),
        role,
        mode: mode.unwrap_or_else(|| "offline_device".into()),
        metadata: Value::Object(metadata.unwrap_or_default()),
    };
    let Enrolled { device, token } = host.node().enrol(enrolment).await?;
    let mut response = json(&Answer { device: device.into(), token })?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Takes a device's right to sync away, for good. Its own unsent work stays on it.
#[utoipa::path(post, path = "/v1/devices/{id}/revoke", operation_id = "revoke_device", tag = "devices", security(("token" = [])),
    params(("id" = String, Path, description = "The device's id")),
    responses((status = 200, body = shapes::Device), shapes::Refused, shapes::Absent, shapes::Unwell))]
pub(super) async fn revoke(
    State(host): State<Host>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    json(&Shown::from(host.revoke(&caller, &id).await?))
}
