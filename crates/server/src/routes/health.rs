//! What a node says about itself to probes, scripts and operators.

use super::{json, shapes};
use crate::{Failure, Host, auth::Guest, metrics};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ropeway_protocol::{Hello, PROBLEM_TYPE, Problem, ProblemCode};
use serde::Serialize;

/// The process is there.
#[utoipa::path(get, path = "/health/live", operation_id = "health_live", tag = "node", responses((status = 200, body = shapes::Health)))]
pub(super) async fn live() -> Result<Response, Failure> {
    json(&shapes::Health { status: "live".into() })
}

/// The node can work. Otherwise it says why not.
#[utoipa::path(get, path = "/health/ready", operation_id = "health_ready", tag = "node", responses(
    (status = 200, body = shapes::Health),
    (status = 503, body = shapes::NotReady, content_type = "application/problem+json"),
))]
pub(super) async fn ready(State(host): State<Host>) -> Result<Response, Failure> {
    let mut reasons = Vec::new();
    if host.is_draining() {
        reasons.push("the node is stopping".to_owned());
    }
    match host.node().state(&host.inner.space).await {
        Ok(state) => {
            host.saw(&state.epoch);
            reasons.extend(host.node().head_alarm(state.head));
        }
        // Whoever operates the node learns what the database said; other callers do not.
        Err(error) => reasons.push(error.to_string()),
    }
    reasons.extend(host.trouble());
    if reasons.is_empty() {
        return json(&shapes::Health { status: "ready".into() });
    }
    #[derive(Serialize)]
    struct NotReady {
        #[serde(flatten)]
        problem: Problem,
        reasons: Vec<String>,
    }
    let problem = Problem::new(ProblemCode::Unavailable, reasons.join("; ")).after(5);
    let mut response = json(&NotReady { problem, reasons })?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    Ok(response)
}

/// Who is there: build, schema, epoch, profile and clock.
#[utoipa::path(get, path = "/version", tag = "node", responses(
    (status = 200, body = shapes::Hello), shapes::Unwell,
))]
pub(super) async fn version(State(host): State<Host>) -> Result<Response, Failure> {
    let state = host
        .node()
        .store()
        .space(&host.inner.space)
        .await
        .map_err(|e| Failure::from(crate::problem_of(&e.into())))?;
    host.saw(&state.epoch);
    let profile = host.node().profile();
    json(&Hello {
        service: "ropeway".into(),
        build: host.inner.build.clone(),
        schema: host.inner.schema,
        epoch: state.epoch,
        profile: format!("{} {}", profile.name, profile.version),
        now: host.node().clock().now(),
        offset: host.node().offset_to_top(),
    })
}

/// What an operator watches, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"), shapes::Unwell,
))]
pub(super) async fn metrics(State(host): State<Host>, _: Guest) -> Result<Response, Failure> {
    let text = host.inner.metrics.text(&host).await?;
    Ok(([(header::CONTENT_TYPE, metrics::TYPE)], text).into_response())
}
