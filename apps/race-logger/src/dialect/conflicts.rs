//! Conflicts: listed, shown with both sides, answered, asked again (ISMF-125 to ISMF-128, CT-21).

use super::{
    clash::{self, Numbered},
    door::{Asker, Refused, read_object},
    shapes,
};
use axum::{
    Json,
    extract::{Path, Query, Request, State},
};
use ropeway_core::{
    conflict::Resolution,
    doc::Fields,
    id::{CONFLICT, Key, RecordId},
};
use ropeway_replica::{ConflictView, ReplicaError, Resolve};
use ropeway_server::Host;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct Ask {
    /// `pending` (what waits for a person), `all`, or one of the ways in which one ended. Absent: `pending`.
    #[serde(default)]
    resolution: Option<String>,
}

/// `GET /conflicts`, oldest first.
#[utoipa::path(get, path = "/conflicts", operation_id = "list_sync_conflicts",
    tag = "race logger", security(("token" = [])),
    params(Ask),
    responses(shapes::Door, (status = 200, body = Object), shapes::Unusable))]
pub(crate) async fn list(
    State(host): State<Host>,
    asker: Asker,
    Query(ask): Query<Ask>,
) -> Result<Json<Value>, Refused> {
    let wanted = ask.resolution.as_deref().unwrap_or("pending");
    if !["pending", "cloud_wins", "device_wins", "manual", "all"].contains(&wanted) {
        return Err(Refused::invalid("`resolution` is pending, cloud_wins, device_wins, manual or all"));
    }
    let found = host.node().conflicts_for(&asker.caller.device, wanted == "pending").await?;
    let listed = found.into_iter().filter(|view| {
        clash::is_listed(&view.conflict)
            && (wanted == "all" || clash::resolution_word(&view.conflict) == wanted)
    });
    let mut shown = Vec::new();
    for view in listed {
        shown.push(show_one(&host, &asker, view).await?);
    }
    Ok(Json(json!({ "conflicts": shown })))
}

/// `GET /conflicts/{id}`: by number, or by the id that other nodes know.
#[utoipa::path(get, path = "/conflicts/{id}", operation_id = "show_sync_conflict",
    tag = "race logger", security(("token" = [])),
    params(("id" = String, Path, description = "Its number, or its id")),
    responses(shapes::Door, (status = 200, body = Object), shapes::Absent))]
pub(crate) async fn show(
    State(host): State<Host>,
    asker: Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let view = find(&host, &asker, &id).await?;
    Ok(Json(json!({ "conflict": show_one(&host, &asker, view).await? })))
}

/// `POST /conflicts/{id}/resolve`. An answer to what has moved since is refused with what stands now (TR-16).
#[utoipa::path(post, path = "/conflicts/{id}/resolve", operation_id = "resolve_sync_conflict",
    tag = "race logger", security(("token" = [])),
    params(("id" = String, Path, description = "Its number, or its id")),
    request_body = Object,
    responses(shapes::Door, (status = 200, body = Object), (status = 409,
        description = "It moved since: what stands now", body = Object), shapes::Unread, shapes::Absent,
        shapes::Unusable))]
pub(crate) async fn resolve(
    State(host): State<Host>,
    asker: Asker,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let mut body = read_object(&host, request).await?;
    let view = find(&host, &asker, &id).await?;
    let resolution = match body.get("resolution").and_then(Value::as_str) {
        Some("cloud_wins") => Resolution::Server,
        Some("device_wins") => Resolution::Incoming,
        Some("manual") => Resolution::Merged,
        Some("keep_both") => Resolution::Apart,
        _ => {
            let why =
                "`resolution` is cloud_wins, device_wins, manual or keep_both; the conflict stays as it was";
            return Err(Refused::invalid(why));
        }
    };
    let data = match (resolution, body.remove("data")) {
        (Resolution::Merged, data) => Some(written(&host, &view, data)?),
        (_, None | Some(Value::Null)) => None,
        (_, Some(_)) => return Err(Refused::invalid("`data` belongs to the resolution `manual`")),
    };
    answer(&host, &asker, view, resolution, data, &body).await
}

/// `POST /conflicts/{id}/reopen`: the question is asked again.
#[utoipa::path(post, path = "/conflicts/{id}/reopen", operation_id = "reopen_sync_conflict",
    tag = "race logger", security(("token" = [])),
    params(("id" = String, Path, description = "Its number, or its id")),
    request_body = Object,
    responses(shapes::Door, (status = 200, body = Object), (status = 409,
        description = "It moved since: what stands now", body = Object), shapes::Unread, shapes::Absent,
        shapes::Unusable))]
pub(crate) async fn reopen(
    State(host): State<Host>,
    asker: Asker,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let body = read_object(&host, request).await?;
    let view = find(&host, &asker, &id).await?;
    answer(&host, &asker, view, Resolution::Reopen, None, &body).await
}

/// The values that a person wrote; without any, those that the record holds now.
fn written(host: &Host, view: &ConflictView, data: Option<Value>) -> Result<Fields, Refused> {
    let now = view.now.as_ref().map(|doc| doc.fields().clone()).unwrap_or_default();
    let data = match data {
        None | Some(Value::Null) => {
            return Ok(now.into_iter().filter(|(name, _)| view.conflict.fields.contains(name)).collect());
        }
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refused::invalid("`data` must be an object of values")),
    };
    let rules = host.node().profile().rules(&view.conflict.collection);
    let name = |name: String| match name.strip_suffix("_client_uuid") {
        Some(field) if rules.is_some_and(|rules| rules.references.contains_key(field)) => field.to_owned(),
        _ => name,
    };
    let named = data.into_iter().map(|(field, value)| (name(field), value));
    // What is not in question and stands as it is may be sent along.
    Ok(named.filter(|(f, v)| view.conflict.fields.contains(f) || now.get(f) != Some(v)).collect())
}

async fn answer(
    host: &Host,
    asker: &Asker,
    view: ConflictView,
    resolution: Resolution,
    data: Option<Fields>,
    body: &Map<String, Value>,
) -> Result<Json<Value>, Refused> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let version =
        match body.get("version") {
            None | Some(Value::Null) => Some(view.version),
            Some(version) => {
                let version = version.as_u64();
                Some(version.ok_or_else(|| {
                    Refused::invalid("`version` must be that of the conflict as it was shown")
                })?)
            }
        };
    let resolve = Resolve {
        conflict: view.id.clone(),
        version,
        resolution,
        data,
        notes: text("resolution_notes").or_else(|| text("notes")),
        change: None,
    };
    let person = text("resolved_by").or_else(|| text("actor"));
    let outcome = host.node().resolve_for(&asker.caller.device, person, resolve).await;
    match outcome {
        Ok((_, view)) => Ok(Json(json!({ "conflict": show_one(host, asker, view).await? }))),
        Err(error @ ReplicaError::Moved(_)) => {
            let fresh = host.node().conflict_for(&asker.caller.device, &view.id).await?;
            Err(Refused::from(error).with("conflict", show_one(host, asker, fresh).await?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds a conflict that the asker may see.
async fn find(host: &Host, asker: &Asker, named: &str) -> Result<ConflictView, Refused> {
    let missing = || Refused::not_found(&format!("the conflict `{named}`"));
    let (node, space) = (host.node(), asker.caller.space());
    let id = match named.parse::<i64>() {
        Ok(number) => {
            super::competitions::numbered(node, space, CONFLICT, number).await?.ok_or_else(missing)?
        }
        Err(_) => RecordId::parse(named).map_err(|_| missing())?,
    };
    node.conflict_for(&asker.caller.device, &id).await.map_err(|error| match error {
        ReplicaError::NotFound(_) => missing(),
        error => error.into(),
    })
}

async fn show_one(host: &Host, asker: &Asker, view: ConflictView) -> Result<Value, Refused> {
    let about: Option<(Key, _)> =
        host.node().resolve_record(asker.caller.space(), &view.conflict.about()).await?;
    let about = about.map(|(_, record)| record);
    let own = Numbered {
        number: view.local_id,
        id: &view.id,
        version: view.version,
        about: about.as_ref().map(|record| record.local_id),
    };
    let mut shown = clash::shown(&own, &view.conflict, about.as_ref().map(|record| &record.data));
    if let Some(record) = about.filter(|_| &*view.conflict.collection == "incident") {
        shown["fingerprint"] = super::fingerprint::of(record.data.fields());
    }
    Ok(shown)
}
