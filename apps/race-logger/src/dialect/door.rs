//! Who asks, and how the race logger's own clients are refused: `{"error": {"code", "message"}}` (GP-01).

use axum::{
    Json,
    extract::{FromRequestParts, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use ropeway_core::time::Time;
use ropeway_protocol::ProblemCode;
use ropeway_replica::{Device, ReplicaError};
use ropeway_server::{Caller, Failure, Host, Pusher, read_body};
use serde_json::{Value, json};

/// What the device's clock says as it asks (TR-21).
const TIME_HEADER: &str = "x-device-time";
/// A difference below this says more about the way than about the clock.
const CLOCK_NOISE: i64 = 2_000_000;

/// A request that failed as a whole.
#[derive(Debug)]
pub(crate) struct Refused {
    status: u16,
    body: Value,
    wait: Option<u64>,
}

impl Refused {
    /// A refusal in the documents' shape.
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let body = json!({ "error": { "code": code, "message": message.into() } });
        Self { status, body, wait: None }
    }

    /// What the caller named is not here.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("{what} is not here"))
    }

    /// What the caller sent cannot be used.
    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::new(422, "invalid", why)
    }

    /// What it says.
    pub(crate) fn message(&self) -> String {
        self.body["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// With more to look at.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }
}

impl From<Failure> for Refused {
    fn from(Failure(problem): Failure) -> Self {
        let mut refused = Self::new(problem.status, problem.code.as_str(), problem.detail);
        let next = advice(problem.code).map_or(problem.next, str::to_owned);
        refused.body["error"]["next"] = next.into();
        if let Some(kept) = problem.quarantined {
            refused.body["quarantined"] = kept.into();
        }
        refused.wait = problem.retry_after;
        refused
    }
}

/// What to do next, in the words of this API where it has its own.
fn advice(code: ProblemCode) -> Option<&'static str> {
    match code {
        ProblemCode::ResyncRequired | ProblemCode::EpochChanged | ProblemCode::CursorInvalid => Some(
            "read `changes` without `since`, page by page to its end, and once more with its last `cursor`; forget \
             what did not come; then send what waits: nothing of it is lost",
        ),
        ProblemCode::DeviceCloned => Some(
            "another copy of this device is in use: register this one as a device of its own and give it that token; \
             what waits on it is then sent and not taken twice",
        ),
        _ => None,
    }
}

impl From<ReplicaError> for Refused {
    fn from(error: ReplicaError) -> Self {
        let mut problem = ropeway_server::problem_of(&error);
        // A value that cannot be used is 422 in these documents (CT-06, ISMF-128).
        if problem.code == ProblemCode::Malformed {
            problem.status = 422;
        }
        Failure(problem).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The device that asks. Its token says who it is; `X-Device-UUID` may be left out, and must be right where
/// it is not (CT-07).
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// The device.
    pub(crate) caller: Caller,
    /// Microseconds to add to its times, where it told its clock and that is off.
    pub(crate) offset: Option<i64>,
}

impl FromRequestParts<Host> for Asker {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, host).await?;
        Ok(Self::of(caller, parts, host).await)
    }
}

impl Asker {
    /// Hears what the device says of its clock.
    async fn of(caller: Caller, parts: &Parts, host: &Host) -> Self {
        let told = parts.headers.get(TIME_HEADER).and_then(|value| value.to_str().ok());
        let offset = told.and_then(Time::parse).map(|told| host.node().clock().now().since(told));
        if let Some(offset) = offset
            && let Err(error) = host.node().note_clock(&caller.device, offset).await
        {
            tracing::warn!(%error, "how far a device's clock is off could not be noted");
        }
        Self { caller, offset: offset.filter(|offset| offset.abs() >= CLOCK_NOISE) }
    }
}

/// A device that uploads: one that may, or one that was revoked and hands its work in to quarantine.
#[derive(Debug)]
pub(crate) enum Uploader {
    /// It may.
    Active(Asker),
    /// It may not any more.
    Revoked(Device),
}

impl FromRequestParts<Host> for Uploader {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refused> {
        Ok(match Pusher::from_request_parts(parts, host).await? {
            Pusher::Active(caller) => Self::Active(Asker::of(caller, parts, host).await),
            Pusher::Revoked(device) => Self::Revoked(device),
        })
    }
}

/// Somebody who asks whether the way is open: nobody in particular, but whoever shows a token must have a
/// good one (CT-22).
#[derive(Debug)]
pub(crate) struct Passer;

impl FromRequestParts<Host> for Passer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Refused> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            Caller::from_request_parts(parts, host).await?;
        }
        Ok(Self)
    }
}

/// Reads a small JSON object; an empty body is an empty one.
pub(crate) async fn read_object(
    host: &Host,
    request: Request,
) -> Result<serde_json::Map<String, Value>, Refused> {
    let body = read_body(host, request).await?;
    if body.is_empty() {
        return Ok(serde_json::Map::new());
    }
    let unread =
        |e: serde_json::Error| Refused::new(400, "malformed", format!("the body cannot be read: {e}"));
    match serde_json::from_slice(&body).map_err(unread)? {
        Value::Object(map) => Ok(map),
        _ => Err(Refused::new(400, "malformed", "the body must be an object")),
    }
}
