//! `/v1/conflicts`: what waits for a person, and the person's answer.

use super::{json, shapes};
use crate::{
    Caller, Failure, Host,
    body::{malformed, read_json},
};
use axum::{
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    response::Response,
};
use ropeway_core::{
    conflict::{Conflict, Resolution},
    doc::{Doc, Fields},
    id::{ChangeId, RecordId},
    receipt::Receipt,
};
use ropeway_protocol::{Problem, ProblemCode};
use ropeway_replica::{ConflictView, Resolve};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Longest person's name that an answer may carry.
const PERSON_MAX: usize = ropeway_core::limits::PERSON_MAX;

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// `open` (what waits for a person) or `all`. Absent: `open`.
    #[serde(default)]
    state: Option<String>,
}

/// A conflict on the wire.
#[derive(Serialize)]
struct Shown {
    id: RecordId,
    version: u64,
    conflict: Conflict,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Doc>,
}

impl From<ConflictView> for Shown {
    fn from(view: ConflictView) -> Self {
        let ConflictView { id, version, conflict, now, .. } = view;
        Self { id, version, conflict, now }
    }
}

/// A person's answer on the wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    resolution: Resolution,
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    merged: Option<Fields>,
    #[serde(default)]
    notes: Option<String>,
    #[serde(default)]
    person: Option<String>,
    #[serde(default)]
    change: Option<ChangeId>,
}

/// The conflicts of the caller's space, oldest first.
#[utoipa::path(get, path = "/v1/conflicts", operation_id = "list_conflicts", tag = "conflicts", security(("token" = [])), params(Ask),
    responses((status = 200, body = shapes::Conflicts), shapes::Refused, shapes::Unwell))]
pub(super) async fn list(
    State(host): State<Host>,
    caller: Caller,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Conflicts {
        conflicts: Vec<Shown>,
    }
    let Query(ask) = ask.map_err(|e| malformed(e.body_text()))?;
    let only_open = match ask.state.as_deref() {
        None | Some("open") => true,
        Some("all") => false,
        Some(_) => return Err(malformed("`state` is `open` or `all`")),
    };
    let found = host.node().conflicts_for(&caller.device, only_open).await?;
    json(&Conflicts { conflicts: found.into_iter().map(Shown::from).collect() })
}

/// One conflict, with the record it is about as that stands now.
#[utoipa::path(get, path = "/v1/conflicts/{id}", operation_id = "show_conflict", tag = "conflicts", security(("token" = [])),
    params(("id" = String, Path, description = "The conflict's id: `<change id>:<group>`")),
    responses((status = 200, body = shapes::ConflictShown), shapes::Refused, shapes::Absent, shapes::Unwell))]
pub(super) async fn show(
    State(host): State<Host>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    json(&Shown::from(host.node().conflict_for(&caller.device, &named(&id)?).await?))
}

/// Answers a conflict. Refused with `moved` where the conflict moved since it was shown.
#[utoipa::path(post, path = "/v1/conflicts/{id}/resolve", operation_id = "resolve_conflict", tag = "conflicts", security(("token" = [])),
    params(("id" = String, Path, description = "The conflict's id")),
    request_body = shapes::Answer,
    responses((status = 200, body = shapes::Answered), shapes::Refused, shapes::Absent, shapes::Elsewhen,
        shapes::TooLarge, shapes::Unwell))]
pub(super) async fn resolve(
    State(host): State<Host>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Answered {
        receipt: Receipt,
        conflict: Shown,
    }
    let conflict = named(&id)?;
    let answer: Answer = read_json(&host, request).await?;
    if answer.person.as_ref().is_some_and(|person| person.len() > PERSON_MAX) {
        return Err(malformed(format!("`person` has at most {PERSON_MAX} bytes")));
    }
    let person = answer.person;
    let answer = Resolve {
        conflict,
        version: answer.version,
        resolution: answer.resolution,
        data: answer.merged,
        notes: answer.notes,
        change: answer.change,
    };
    let outcome = host.node().resolve_for(&caller.device, person, answer).await;
    host.wrote(&outcome);
    let (receipt, view) = outcome?;
    json(&Answered { receipt, conflict: view.into() })
}

/// A conflict's id. What cannot be one names nothing.
fn named(id: &str) -> Result<RecordId, Failure> {
    RecordId::parse(id)
        .map_err(|_| Problem::new(ProblemCode::NotFound, "there is no conflict of this id").into())
}
