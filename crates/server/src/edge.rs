//! What every request passes on its way in and out: one line in the log, the node's header, and the
//! promise that every error outside the dialects is `application/problem+json`.

use crate::{Failure, Host};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ropeway_protocol::{NODE_HEADER, Problem, ProblemCode};
use std::{any::Any, sync::atomic::Ordering};
use tokio::time::Instant;

/// The header that names a request in the log.
const REQUEST_HEADER: &str = "x-request-id";
/// What stands for a path that is no route.
const UNMATCHED: &str = "unmatched";

/// The outermost layer.
pub(crate) async fn edge(State(host): State<Host>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let number = host.inner.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number}", host.node().clock().boot());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.as_deref().unwrap_or(UNMATCHED);
    let mut response = as_problem(next.run(request).await);
    let headers = response.headers_mut();
    headers.insert(NODE_HEADER, host.epoch());
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::try_from(&id) {
        headers.insert(REQUEST_HEADER, id);
    }
    let status = response.status().as_u16();
    host.inner.metrics.request(known(&method), route, status);
    let ms = started.elapsed().as_millis();
    tracing::info!(request = id, %method, route, status, ms, "request");
    response
}

/// Refuses everything that devices sync by on a node whose operator switched syncing off (ISMF-145): with a
/// wait, so that they keep what they have and come back.
pub(crate) async fn sync_switch(State(host): State<Host>, request: Request, next: Next) -> Response {
    if host.inner.syncs {
        return next.run(request).await;
    }
    let why = "syncing is switched off on this node (SYNC_ENABLED); keep everything and ask later";
    Failure(Problem::new(ProblemCode::Unavailable, why).after(60)).into_response()
}

/// A method's name as a label: strangers may invent methods.
fn known(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A handler panicked: a fault of this program, of which the panic hook has already told.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let why = "the node is at fault; only a receipt says that something was taken in";
    Failure::new(ProblemCode::Internal, why).into_response()
}

/// Gives the errors of the layers and of the router the body that all errors have. An answer with a body
/// of its own, such as a dialect's, is left alone.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let plain = kind.is_none_or(|kind| kind.starts_with(b"text/plain"));
    if status.as_u16() < 400 || !plain {
        return response;
    }
    let (code, why) = match status {
        StatusCode::NOT_FOUND => (ProblemCode::NotFound, "there is nothing at this address"),
        StatusCode::METHOD_NOT_ALLOWED => (ProblemCode::Malformed, "this address does not take this method"),
        StatusCode::NOT_ACCEPTABLE => {
            (ProblemCode::Malformed, "the answer comes as it is, or as gzip or zstd")
        }
        status if status.is_server_error() => (ProblemCode::Internal, "the node is at fault"),
        _ => (ProblemCode::Malformed, "the request cannot be read"),
    };
    let mut problem = Problem::new(code, why);
    problem.status = status.as_u16();
    let mut unified = Failure(problem).into_response();
    for name in [header::ALLOW, header::ACCEPT_ENCODING] {
        if let Some(value) = response.headers().get(&name) {
            unified.headers_mut().insert(name, value.clone());
        }
    }
    drop(response.map(|_| Body::empty()));
    unified
}
