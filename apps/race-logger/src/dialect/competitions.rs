//! Competitions: listed to choose from, found by number or id (CT-20).

use super::{
    door::{Asker, Refused},
    shapes,
    upload::survivors,
    view::{View, row_of},
};
use axum::{Json, extract::State};
use ropeway_core::{
    id::{Collection, Key, RecordId, SpaceId},
    record::{Record, State as Standing},
};
use ropeway_replica::{Node, ReplicaError};
use ropeway_server::Host;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Records read at once.
const PAGE: usize = 1_000;

/// `GET /competitions`: all of them, whoever may take which along.
#[utoipa::path(get, path = "/competitions", operation_id = "list_competitions",
    tag = "race logger", security(("token" = [])),
    responses(shapes::Door, (status = 200, body = Object)))]
pub(crate) async fn list(State(host): State<Host>, asker: Asker) -> Result<Json<Value>, Refused> {
    let (node, space) = (host.node(), asker.caller.space());
    let all = all(node, space, "competition").await?;
    let races = races_of(node, space).await?;
    let known = all.iter().filter(|(_, record)| record.state != Standing::Deleted);
    let rows: Vec<_> = known.map(|(key, record)| row_of(key, record)).collect();
    let view = View::of(node, space, &rows).await?;
    let shown = rows.iter().map(|row| {
        let mut json = view.row(row);
        json["id"] = json["cloud_id"].clone();
        json["races_count"] = races.get(&row.key.id).copied().unwrap_or_default().into();
        json["created_by_device"] = json!(row.owner);
        json["created_here"] = (row.owner == *node.device()).into();
        json
    });
    Ok(Json(json!({ "competitions": shown.collect::<Vec<_>>() })))
}

/// All records of a collection.
pub(crate) async fn all(
    node: &Node,
    space: &SpaceId,
    collection: &str,
) -> Result<BTreeMap<Key, Record>, ReplicaError> {
    let collection = Collection::trusted(collection);
    let mut found = BTreeMap::new();
    let mut after: Option<RecordId> = None;
    loop {
        let page = node.list(space, &collection, after.as_ref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(id, _)| id.clone());
        found.extend(page.into_iter().map(|(id, record)| (Key::new(&collection, &id), record)));
        if is_last {
            return Ok(found);
        }
    }
}

/// The record of a collection with this number, looked for page by page: an index on numbers would cost every
/// write, and people name few records by theirs.
pub(crate) async fn numbered(
    node: &Node,
    space: &SpaceId,
    collection: &str,
    number: i64,
) -> Result<Option<RecordId>, ReplicaError> {
    let collection = Collection::trusted(collection);
    let mut after: Option<RecordId> = None;
    loop {
        let page = node.list(space, &collection, after.as_ref(), PAGE).await?;
        if let Some((id, _)) = page.iter().find(|(_, record)| record.local_id == number) {
            return Ok(Some(id.clone()));
        }
        if page.len() < PAGE {
            return Ok(None);
        }
        after = page.last().map(|(id, _)| id.clone());
    }
}

/// How many races each competition has, those that came with a competition joined into it included.
async fn races_of(node: &Node, space: &SpaceId) -> Result<BTreeMap<RecordId, usize>, Refused> {
    let mut known = all(node, space, "competition").await?;
    known.extend(all(node, space, "stage").await?);
    let races = all(node, space, "race").await?;
    survivors(node, space, &mut known).await?;
    let mut counts = BTreeMap::new();
    let named = |record: &Record, field: &str, collection: &str| {
        let id = RecordId::parse(record.data.str(field)?).ok()?;
        let key = Key { collection: Collection::trusted(collection), id };
        super::upload::survivor(&known, &key).map(|(key, record)| (key.id, record))
    };
    for race in races.values().filter(|race| race.is_live()) {
        let by_stage =
            || named(race, "stage", "stage").and_then(|(_, s)| named(s, "competition", "competition"));
        if let Some((id, _)) = named(race, "competition", "competition").or_else(by_stage) {
            *counts.entry(id).or_default() += 1;
        }
    }
    Ok(counts)
}

/// A competition with the ids that were joined into it.
pub(crate) struct Chosen {
    /// The one that stands.
    pub(crate) key: Key,
    /// Its record.
    pub(crate) record: Record,
    /// The audiences that belong to it now.
    pub(crate) audiences: Vec<String>,
}

/// Finds a competition by its number on this node or by its id; a joined one is the one that it was joined
/// into.
pub(crate) async fn choose(
    node: &Node,
    space: &SpaceId,
    number: Option<&str>,
    id: Option<&str>,
) -> Result<Chosen, Refused> {
    let missing = || Refused::not_found("this competition");
    let all = all(node, space, "competition").await?;
    let named = match (id, number) {
        (Some(id), _) => RecordId::parse(id).map_err(|_| missing())?,
        (None, Some(number)) => {
            // Not only a number: a documented client may hold nothing but the id.
            let by_number = |(_, r): &(&Key, &Record)| number.parse() == Ok(r.local_id);
            let found = all.iter().find(by_number).map(|(key, _)| key.id.clone());
            found.or_else(|| RecordId::parse(number).ok()).ok_or_else(missing)?
        }
        (None, None) => {
            return Err(Refused::invalid(
                "name the competition: `competition_id` or `competition_client_uuid`",
            ));
        }
    };
    let key = Key { collection: Collection::trusted("competition"), id: named };
    let (key, record) = super::upload::survivor(&all, &key).ok_or_else(missing)?;
    if !record.is_live() {
        return Err(missing());
    }
    let joined =
        all.keys().filter(|other| super::upload::survivor(&all, other).is_some_and(|(into, _)| into == key));
    let audiences = joined.map(|key| format!("competition:{}", key.id)).collect();
    Ok(Chosen { record: record.clone(), key, audiences })
}
