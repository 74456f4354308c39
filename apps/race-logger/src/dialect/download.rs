//! `GET /download`: a whole competition before going offline, and `GET /changes`: what is new since (CT-11).

use super::{
    competitions::{Chosen, choose},
    door::{Asker, Refused},
    record_types::{RECORD_TYPES, by_collection},
    shapes,
    view::{Lists, View, row_of},
};
use axum::{
    Json,
    extract::{Query, State},
};
use ropeway_core::{
    id::{CONFLICT, SpaceId},
    plan::Fed,
    record::State as Standing,
};
use ropeway_replica::{FeedRequest, Node, ServedPage};
use ropeway_server::Host;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

/// What to read. A parameter of another name is let pass: documented clients add their own.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct Ask {
    #[serde(default)]
    competition_id: Option<String>,
    #[serde(default)]
    competition_client_uuid: Option<String>,
    /// Where the last page ended.
    #[serde(default, alias = "since")]
    cursor: Option<String>,
    /// Most records in this answer; without one a download is one document.
    #[serde(default)]
    limit: Option<String>,
}

impl Ask {
    fn limit(&self) -> Result<Option<usize>, Refused> {
        let Some(text) = &self.limit else { return Ok(None) };
        let limit = text.parse().ok().filter(|limit| *limit > 0);
        limit.map(Some).ok_or_else(|| Refused::invalid("`limit` must be a whole number above 0"))
    }

    fn cursor(&self) -> Option<String> {
        self.cursor.clone().filter(|cursor| !cursor.is_empty())
    }
}

/// The documented document: the competition and everything in it, with counts. With `limit` it comes in
/// pages, and a cut download goes on at the cursor of its last page.
#[utoipa::path(get, path = "/download", operation_id = "download",
    tag = "race logger", security(("token" = [])),
    params(Ask),
    responses(shapes::Door, (status = 200, body = Object), shapes::Unread, shapes::Absent, shapes::Unusable))]
pub(crate) async fn download(
    State(host): State<Host>,
    asker: Asker,
    Query(ask): Query<Ask>,
) -> Result<Json<Value>, Refused> {
    let (node, space) = (host.node(), asker.caller.space());
    let number = ask.competition_id.as_deref();
    let chosen = choose(node, space, number, ask.competition_client_uuid.as_deref()).await?;
    take_along(node, &asker, &chosen).await?;
    let (limit, mut cursor) = (ask.limit()?, ask.cursor());
    let mut lists = Lists::new(RECORD_TYPES.iter().filter(|kind| kind.collection != "competition"));
    let end = loop {
        let page = page(node, &asker, &chosen.audiences, cursor.take(), limit).await?;
        let rows: Vec<Fed> = page.rows.iter().filter(|row| is_part(row, &chosen)).cloned().collect();
        let view = View::of(node, space, &rows).await?;
        for row in &rows {
            let list = match row.state {
                Standing::Joined(_) => "aliases",
                _ => by_collection(&row.key.collection).map_or("others", |kind| kind.plural),
            };
            lists.push(list, view.row(row));
        }
        cursor = Some(page.cursor.clone());
        if page.complete || limit.is_some() {
            break page;
        }
    };
    let own = row_of(&chosen.key, &chosen.record);
    let counts = lists.counts();
    let mut json = lists.into_map();
    json.insert("competition".into(), View::of(node, space, std::slice::from_ref(&own)).await?.row(&own));
    json.insert("counts".into(), counts);
    json.insert("cursor".into(), end.cursor.into());
    json.insert("has_more".into(), (!end.complete).into());
    Ok(Json(Value::Object(json)))
}

/// Whoever sees only what they subscribed to subscribes by downloading.
async fn take_along(node: &Node, asker: &Asker, chosen: &Chosen) -> Result<(), Refused> {
    let device = &asker.caller.device;
    let Some(held) = node.subscriptions(device).await? else { return Ok(()) };
    for key in chosen.audiences.iter().filter(|key| !held.contains(key)) {
        node.subscribe(device, key, true).await?;
    }
    Ok(())
}

fn is_part(row: &Fed, chosen: &Chosen) -> bool {
    let is_record = &*row.key.collection != CONFLICT && row.key != chosen.key;
    is_record && !row.left && row.state != Standing::Deleted
}

async fn page(
    node: &Node,
    asker: &Asker,
    audiences: &[String],
    cursor: Option<String>,
    limit: Option<usize>,
) -> Result<ServedPage, Refused> {
    let request = FeedRequest { cursor, limit, collections: Vec::new() };
    Ok(node.feed_to(&asker.caller.device, audiences, &request).await?)
}

/// What is new since a cursor: every type, conflicts with their answers, what was joined, what was deleted.
#[utoipa::path(get, path = "/changes", operation_id = "changes",
    tag = "race logger", security(("token" = [])),
    params(Ask),
    responses(shapes::Door, (status = 200, body = Object), shapes::Unread, shapes::Absent, shapes::Unusable))]
pub(crate) async fn changes(
    State(host): State<Host>,
    asker: Asker,
    Query(ask): Query<Ask>,
) -> Result<Json<Value>, Refused> {
    let (node, space) = (host.node(), asker.caller.space());
    let audiences = match (&ask.competition_id, &ask.competition_client_uuid) {
        (None, None) => Vec::new(),
        (number, id) => choose(node, space, number.as_deref(), id.as_deref()).await?.audiences,
    };
    let cursor = ask.cursor();
    let page = page(node, &asker, &audiences, cursor.clone(), ask.limit()?).await?;
    host.note_read(&asker.caller, cursor.as_deref()).await;
    let mut json = told(node, space, &page.rows).await?.into_map();
    json.insert("cursor".into(), page.cursor.into());
    json.insert("has_more".into(), (!page.complete).into());
    json.insert("time".into(), json!(node.clock().now()));
    Ok(Json(Value::Object(json)))
}

async fn told(node: &Node, space: &SpaceId, rows: &[Fed]) -> Result<Lists, Refused> {
    let view = View::of(node, space, rows).await?;
    let mut lists = Lists::new(RECORD_TYPES.iter());
    for row in rows {
        let kind = by_collection(&row.key.collection);
        let gone = json!({
            "record_type": kind.map_or(&*row.key.collection, |kind| kind.word),
            "client_uuid": row.key.id,
        });
        match (&row.state, kind) {
            _ if row.left => lists.push("left", gone),
            (Standing::Live, _) if &*row.key.collection == CONFLICT => {
                if let Some(shown) = view.conflict(row) {
                    lists.push("conflicts", shown);
                }
            }
            (Standing::Deleted, _) => lists.push("deleted", gone),
            (Standing::Joined(_), _) => {
                let mut alias = gone;
                alias["merged_into"] = view.row(row)["merged_into"].clone();
                lists.push("aliases", alias);
            }
            (Standing::Live, Some(kind)) => lists.push(kind.plural, view.row(row)),
            (Standing::Live, None) => {}
        }
    }
    Ok(lists)
}
