//! Two competitions of one name (ISMF-151, ISMF-152): merged by a person, with a preview, and taken apart again.
//! Underneath it is a join like any other: two rows, no child touched.

use super::{
    clash,
    competitions::{all, choose},
    door::{Asker, Refused, read_object},
    record_types::by_plural,
    shapes,
};
use axum::{
    Json,
    extract::{Path, Request, State},
};
use ropeway_core::{
    conflict::{Kind, Resolution},
    doc::Fields,
    id::{Collection, Key, RecordId},
    merge::same,
    record::{Record, State as Standing},
};
use ropeway_replica::{ConflictView, Resolve};
use ropeway_server::Host;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the two sides may differ in without anybody caring.
const DATES: [&str; 2] = ["created_at", "updated_at"];

/// `POST /competitions/merge`: `{"into", "competitions": […], "preview"}`.
#[utoipa::path(post, path = "/competitions/merge", operation_id = "merge_competitions",
    tag = "race logger", security(("token" = [])),
    request_body = Object,
    responses(shapes::Door, (status = 200, body = Object), shapes::Unread, shapes::Absent, shapes::Unusable))]
pub(crate) async fn merge(
    State(host): State<Host>,
    asker: Asker,
    request: Request,
) -> Result<Json<Value>, Refused> {
    may_settle(&host, &asker)?;
    let body = read_object(&host, request).await?;
    let (node, space) = (host.node(), asker.caller.space());
    let into = body.get("into").and_then(Value::as_str);
    let into =
        choose(node, space, None, Some(into.ok_or_else(|| Refused::invalid("`into` is missing"))?)).await?;
    let mut others = Vec::new();
    for named in body.get("competitions").and_then(Value::as_array).into_iter().flatten() {
        let id = named.as_str().ok_or_else(|| Refused::invalid("`competitions` is a list of ids"))?;
        let other = choose(node, space, None, Some(id)).await?;
        if other.key != into.key && !others.iter().any(|(key, _)| *key == other.key) {
            others.push((other.key, other.record));
        }
    }
    if others.is_empty() {
        return Err(Refused::invalid("`competitions` names nothing that is not one already"));
    }
    let races = all(node, space, "race").await?;
    let clashes = others.iter().map(|(key, record)| clashes(&into.key, &into.record, key, record, &races));
    let clashes: Vec<Value> = clashes.collect();
    if body.get("preview").and_then(Value::as_bool).unwrap_or_default() {
        return Ok(Json(json!({ "into": into.key.id, "merged": [], "preview": clashes })));
    }
    let mut merged = Vec::new();
    for (key, _) in &others {
        let view = join(&host, &asker, &body, key, &into.key.id).await?;
        merged.push(json!({
            "client_uuid": key.id,
            "merged_into": into.key.id,
            "conflict_id": view.local_id,
            "resolution": clash::resolution_word(&view.conflict),
        }));
    }
    Ok(Json(json!({ "into": into.key.id, "merged": merged, "preview": clashes })))
}

/// Who may not answer is not let ask either, nor look at what both hold: a question without its answer would stay
/// open.
fn may_settle(host: &Host, asker: &Asker) -> Result<(), Refused> {
    let role = &asker.caller.device.role;
    let settles = host.node().profile().roles.get(role).is_some_and(|role| role.resolve);
    let why = || Refused::new(403, "forbidden", format!("the role `{role}` may not merge competitions"));
    settles.then_some(()).ok_or_else(why)
}

/// Asks, and answers at once in the same person's name.
async fn join(
    host: &Host,
    asker: &Asker,
    body: &Map<String, Value>,
    about: &Key,
    stays: &RecordId,
) -> Result<ConflictView, Refused> {
    let device = &asker.caller.device;
    let person = body.get("resolved_by").and_then(Value::as_str).map(str::to_owned);
    let asked = host.node().ask_for(device, person.clone(), about, stays).await?;
    let answer = Resolve {
        conflict: asked.id,
        version: Some(asked.version),
        resolution: Resolution::Server,
        data: None,
        notes: body.get("notes").and_then(Value::as_str).map(str::to_owned),
        change: None,
    };
    Ok(host.node().resolve_for(device, person, answer).await?.1)
}

/// What differs between the two, and which races of both look alike.
fn clashes(into: &Key, stays: &Record, key: &Key, goes: &Record, races: &BTreeMap<Key, Record>) -> Value {
    let differ = |name: &String, value: &Value| {
        let kept = stays.data.get(name);
        !DATES.contains(&name.as_str()) && !value.is_null() && !kept.is_some_and(|kept| same(kept, value))
    };
    let fields = goes
        .data
        .fields()
        .iter()
        .filter(|(name, value)| differ(name, value))
        .map(|(name, value)| json!({ "field": name, "kept": stays.data.get(name), "left": value }));
    let of = |competition: &Key| -> Vec<(&Key, &Record)> {
        let belongs = |record: &Record| record.data.str("competition") == Some(&*competition.id);
        races.iter().filter(|(_, race)| race.is_live() && belongs(race)).collect()
    };
    let alike = |a: &Fields, b: &Fields, name: &str| {
        a.get(name).zip(b.get(name)).is_some_and(|(a, b)| !a.is_null() && same(a, b))
    };
    let (ours, theirs) = (of(into), of(key));
    let pairs = theirs.iter().flat_map(|(theirs, race)| {
        let race = race.data.fields();
        ours.iter().filter_map(move |(ours, other)| {
            let other = other.data.fields();
            let by = ["name", "position"].into_iter().find(|name| alike(race, other, name))?;
            Some(json!({ "race": theirs.id, "like": ours.id, "by": by }))
        })
    });
    json!({
        "client_uuid": key.id,
        "name": goes.data.get("name"),
        "fields": fields.collect::<Vec<_>>(),
        "races": pairs.collect::<Vec<_>>(),
        "races_count": theirs.len(),
    })
}

/// `POST /{record_type}/{id}/unmerge`: the joined record lives again; nothing of either is lost (TR-03).
#[utoipa::path(post, path = "/{record_type}/{client_uuid}/unmerge", operation_id = "unmerge",
    tag = "race logger", security(("token" = [])),
    params(("record_type" = String, Path, description = "Plural snake case"), ("client_uuid" = String,
        Path, description = "The id of a record")),
    request_body = Object,
    responses(shapes::Door, (status = 200, body = Object), (status = 409, description = "It moved since",
        body = shapes::RaceLoggerError), shapes::Unread, shapes::Absent))]
pub(crate) async fn unmerge(
    State(host): State<Host>,
    asker: Asker,
    Path((plural, id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Refused> {
    let body = read_object(&host, request).await?;
    let missing = || Refused::not_found(&format!("a merge of `{plural}/{id}`"));
    let kind = by_plural(&plural).ok_or_else(missing)?;
    let key = Key {
        collection: Collection::trusted(kind.collection),
        id: RecordId::parse(&id).map_err(|_| missing())?,
    };
    let (node, device) = (host.node(), &asker.caller.device);
    let joined = node.get(&device.space, &key).await?;
    joined.filter(|record| matches!(record.state, Standing::Joined(_))).ok_or_else(missing)?;
    let found = node.conflicts_for(device, false).await?.into_iter().rfind(|view| {
        view.conflict.kind == Kind::Join
            && view.conflict.about() == key
            && view.conflict.resolution != Some(Resolution::Apart)
    });
    let found = found.ok_or_else(missing)?;
    let answer = Resolve {
        conflict: found.id,
        version: Some(found.version),
        resolution: Resolution::Apart,
        data: None,
        notes: body.get("notes").and_then(Value::as_str).map(str::to_owned),
        change: None,
    };
    let person = body.get("resolved_by").and_then(Value::as_str).map(str::to_owned);
    node.resolve_for(device, person, answer).await?;
    Ok(Json(json!({ "client_uuid": key.id, "merged_into": Value::Null })))
}
