//! `GET /{record_type}/{id}`: one record with its history: who changed what, on which device, when.

use super::{
    door::{Asker, Refused},
    record_types::by_plural,
    shapes,
    view::{View, row_of},
};
use axum::{
    Json,
    extract::{Path, State},
};
use ropeway_core::id::{Collection, Key, RecordId};
use ropeway_server::Host;
use serde_json::{Value, json};

/// Shows one record; a joined one is the one that it was joined into, and says so.
#[utoipa::path(get, path = "/{record_type}/{client_uuid}", operation_id = "show_record",
    tag = "race logger", security(("token" = [])),
    params(("record_type" = String, Path, description = "Plural snake case"), ("client_uuid" = String,
        Path, description = "The id of a record")),
    responses(shapes::Door, (status = 200, body = Object), shapes::Absent))]
pub(crate) async fn show(
    State(host): State<Host>,
    asker: Asker,
    Path((plural, id)): Path<(String, String)>,
) -> Result<Json<Value>, Refused> {
    let missing = || Refused::not_found(&format!("`{plural}/{id}`"));
    let kind = by_plural(&plural).ok_or_else(missing)?;
    let id = RecordId::parse(&id).map_err(|_| missing())?;
    let key = Key { collection: Collection::trusted(kind.collection), id };
    let (node, space) = (host.node(), asker.caller.space());
    if !node.sees(&asker.caller.device, &key).await? {
        return Err(missing());
    }
    let (now, record) = node.resolve_record(space, &key).await?.ok_or_else(missing)?;
    let mut rows = vec![row_of(&now, &record)];
    rows.extend(node.history(space, &now).await?.iter().map(|old| row_of(&old.key, &old.record)));
    let view = View::of(node, space, &rows).await?;
    let history = rows.iter().map(|row| {
        json!({
            "version": row.version,
            "device_uuid": row.author.device,
            "actor": row.author.person,
            "at": row.modified_at,
            "data": view.row(row),
        })
    });
    Ok(Json(json!({
        "record_type": kind.word,
        "record": view.row(&rows[0]),
        "deleted": !record.is_live(),
        "history": history.collect::<Vec<_>>(),
    })))
}
