//! `GET /api/v1/sync/health`: is the way open, and is it really us (ISMF-094, TR-18)?

use super::{
    door::{Passer, Refused},
    shapes,
};
use axum::{Json, extract::State};
use ropeway_server::Host;
use serde_json::{Value, json};

/// Says who answers: a captive portal does not know these words.
#[utoipa::path(get, path = "/health", operation_id = "sync_health",
    tag = "race logger",
    responses(shapes::Door, (status = 200, body = Object)))]
pub(crate) async fn health(State(host): State<Host>, _: Passer) -> Result<Json<Value>, Refused> {
    Ok(Json(json!({ "status": "ok", "service": "race-logger", "time": host.node().clock().now() })))
}

/// What is not here, in the documents' shape (ISMF-038: users, sessions and magic links are not).
pub(crate) async fn nothing_here() -> Refused {
    Refused::not_found("this address")
}
