//! `POST /api/v1/sync/{record_type}`: an upload, one result an item (ISMF-068, ISMF-088 to ISMF-093).

use super::{
    again,
    clip::Shelf,
    door::{Asker, Refused, Uploader},
    item::{self, Sender},
    late, measures,
    record_types::{RECORD_TYPES, RecordType, by_plural},
    result::{Answered, Entry, status_of_all},
    shapes,
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use ropeway_core::{
    change::Batch,
    conflict::Conflict,
    id::{CONFLICT, Collection, Key, RecordId},
    profile::Rules,
    receipt::Receipt,
    record::{Record, State as Standing},
};
use ropeway_replica::{Device, ReplicaError};
use ropeway_server::{Decided, Host, read_body};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};

/// For a report that came with a clip to a full shelf.
const NO_ROOM: &str = "there is no room for its clip: nothing of it was taken in; send it again when an operator has made \
    room, or without the clip";

/// Takes an upload in.
#[utoipa::path(post, path = "/{record_type}", operation_id = "upload",
    tag = "race logger", security(("token" = [])),
    params(("record_type" = String, Path, description = "Plural snake case,
        and the key of the list in the body")),
    request_body = Object,
    responses(shapes::Door, shapes::Uploaded, shapes::Unread, shapes::Absent))]
pub(crate) async fn upload(
    State(host): State<Host>,
    uploader: Uploader,
    Extension(shelf): Extension<Shelf>,
    Path(plural): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    of_type(host, uploader, &shelf, &plural, request).await
}

/// Takes competitions in: their address is also that of their list.
#[utoipa::path(post, path = "/competitions", operation_id = "upload_competitions",
    tag = "race logger", security(("token" = [])),
    request_body = Object,
    responses(shapes::Door, shapes::Uploaded, shapes::Unread))]
pub(crate) async fn competitions(
    State(host): State<Host>,
    uploader: Uploader,
    Extension(shelf): Extension<Shelf>,
    request: Request,
) -> Result<Response, Refused> {
    of_type(host, uploader, &shelf, "competitions", request).await
}

async fn of_type(
    host: Host,
    uploader: Uploader,
    shelf: &Shelf,
    plural: &str,
    request: Request,
) -> Result<Response, Refused> {
    let unknown = || Refused::not_found(&format!("the record type `{plural}`"));
    let kind = by_plural(plural).ok_or_else(unknown)?;
    let rules = host.node().profile().rules(kind.collection).ok_or_else(unknown)?.clone();
    let asker = match uploader {
        Uploader::Active(asker) => asker,
        Uploader::Revoked(device) => return Err(hand_in(&host, &device, kind, &rules, request).await?),
    };
    let began = (host.node().clock().now(), host.node().clock().mono());
    let entries = read_and_take_in(&host, &asker, kind, &rules, shelf, request).await;
    measures::note(&host, &asker, began, &entries).await;
    let entries = entries?;
    let status = StatusCode::from_u16(status_of_all(kind, &entries)).unwrap_or(StatusCode::OK);
    let results: Vec<_> = entries.into_iter().map(|entry| entry.json).collect();
    Ok((status, Json(json!({ "results": results }))).into_response())
}

/// What a revoked device still has is kept aside until an administrator decides (I9).
async fn hand_in(
    host: &Host,
    device: &Device,
    kind: &'static RecordType,
    rules: &Rules,
    request: Request,
) -> Result<Refused, Refused> {
    let body = read_body(host, request).await?;
    let _turn = host.turn().await?;
    let epoch = host.node().store().space(&device.space).await.map_err(ReplicaError::from)?.epoch;
    let sender = Sender { kind, rules, device: &device.id, epoch: &epoch, offset: None };
    // What cannot be read is refused like the rest: the device may not sync, whatever it says.
    let texts = open(&body, kind, host.limits().push_changes).unwrap_or_default();
    let items = texts.iter().filter_map(|text| item::read(&sender, text.get()).ok());
    let changes = items.map(|item| item.change).collect();
    Ok(host.quarantine(device, changes).await?.into())
}

async fn read_and_take_in(
    host: &Host,
    asker: &Asker,
    kind: &'static RecordType,
    rules: &Rules,
    shelf: &Shelf,
    request: Request,
) -> Result<Vec<Entry>, Refused> {
    let body = read_body(host, request).await?;
    let _turn = host.turn().await?;
    take_in(host, asker, kind, rules, shelf, body).await
}

async fn take_in(
    host: &Host,
    asker: &Asker,
    kind: &'static RecordType,
    rules: &Rules,
    shelf: &Shelf,
    body: Bytes,
) -> Result<Vec<Entry>, Refused> {
    let texts = open(&body, kind, host.limits().push_changes)?;
    let space = asker.caller.space();
    let epoch = host.node().store().space(space).await.map_err(ReplicaError::from)?.epoch;
    let sender = Sender { kind, rules, device: &asker.caller.device.id, epoch: &epoch, offset: asker.offset };
    let (mut changes, mut bad) = (Vec::with_capacity(texts.len()), Vec::new());
    let (mut last, retries) = (BTreeSet::new(), host.node().profile().retry.delays.len() as u64);
    for (place, text) in texts.iter().enumerate() {
        match item::read(&sender, text.get()) {
            Ok(item::Item { change, clip, retry_count }) => {
                if retry_count >= retries {
                    last.insert(change.id.clone());
                }
                let room = host.limits().blob_bytes as u64;
                let is_kept = match clip {
                    Some(clip) => shelf.put(clip, &host.node().ids().id(), room).await?,
                    None => true,
                };
                match is_kept {
                    true => changes.push(change),
                    false => {
                        bad.push((place, Entry::error(Some(&change.record), 503, "unavailable", NO_ROOM)))
                    }
                }
            }
            Err(item::BadItem { client_uuid, why }) => {
                let text = format!("{why}; correct it and send it again");
                bad.push((place, Entry::error(client_uuid.as_deref(), 422, "invalid", &text)));
            }
        }
    }
    let sent = changes.len();
    let filled = late::fills(host.node(), space, &changes).await?;
    changes.extend(filled.iter().map(|(_, fill)| fill.clone()));
    let said = changes.clone();
    let batch = Batch { last, ..host.batch(&asker.caller, changes) };
    let Decided { mut receipts, before, .. } = host.decide(&asker.caller, batch).await?;
    let heard = said.into_iter().zip(&receipts).take(sent).enumerate();
    let heard = heard.filter(|(_, (_, receipt))| receipt.stamp <= before && receipt.verdict.is_settled());
    let heard = heard.map(|(place, (change, receipt))| (place, change, receipt)).collect();
    let anew = again::said_anew(host.node(), space, rules, heard).await?;
    if !anew.is_empty() {
        let (places, changes): (Vec<usize>, Vec<_>) = anew.into_iter().unzip();
        let decided = host.decide(&asker.caller, host.batch(&asker.caller, changes)).await?;
        for (place, receipt) in places.into_iter().zip(decided.receipts) {
            receipts[place] = receipt;
        }
    }
    let known = Known::of(host, space, &receipts).await?;
    let (items, fills) = receipts.split_at(sent.min(receipts.len()));
    let mut entries: Vec<Entry> =
        items.iter().map(|receipt| known.entry(receipt, receipt.stamp <= before)).collect();
    for ((place, _), receipt) in filled.iter().zip(fills) {
        if let Some(entry) = entries.get_mut(*place) {
            late::told(entry, receipt, known.survivor(&receipt.key).map(|(_, record)| record));
        }
    }
    for (place, entry) in bad {
        entries.insert(place.min(entries.len()), entry);
    }
    Ok(entries)
}

/// The items of an upload, each still as text, so that a broken one does not spoil its neighbours.
fn open<'b>(body: &'b [u8], kind: &RecordType, most: usize) -> Result<Vec<&'b RawValue>, Refused> {
    #[derive(Deserialize)]
    struct Envelope<'a>(#[serde(borrow)] BTreeMap<&'a str, &'a RawValue>);
    let unread =
        |e: serde_json::Error| Refused::new(400, "malformed", format!("the body cannot be read: {e}"));
    let Envelope(named) = serde_json::from_slice(body).map_err(unread)?;
    let stranger = RECORD_TYPES.iter().find(|other| *other != kind && named.contains_key(other.plural));
    if let Some(stranger) = stranger {
        let why = format!(
            "an upload has one record type; send `{}` to its own address; nothing was taken in",
            stranger.plural
        );
        return Err(Refused::invalid(why));
    }
    let missing = || Refused::invalid(format!("the body needs the list `{}`", kind.plural));
    let list = named.get(kind.plural).ok_or_else(missing)?;
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| missing())?;
    if items.len() > most {
        let why = format!("an upload may carry {most} records, this one carries {}; send half", items.len());
        return Err(Refused::new(413, "too_large", why));
    }
    Ok(items)
}

/// What the results speak of, read at once.
struct Known {
    records: BTreeMap<Key, Record>,
    conflicts: BTreeMap<RecordId, (i64, Conflict)>,
}

impl Known {
    async fn of(
        host: &Host,
        space: &ropeway_core::id::SpaceId,
        receipts: &[Receipt],
    ) -> Result<Self, Refused> {
        let conflict = Collection::trusted(CONFLICT);
        let named = receipts.iter().flat_map(|r| &r.detail.conflicts).map(|id| Key::new(&conflict, id));
        let keys: Vec<Key> = receipts.iter().map(|r| r.key.clone()).chain(named).collect();
        let mut records = host.node().get_all(space, &keys).await?;
        survivors(host.node(), space, &mut records).await?;
        let conflicts = records
            .iter()
            .filter(|(key, _)| &*key.collection == CONFLICT)
            .filter_map(|(key, r)| Some((key.id.clone(), (r.local_id, Conflict::read(&r.data)?))))
            .collect();
        Ok(Self { records, conflicts })
    }

    fn survivor(&self, key: &Key) -> Option<(Key, &Record)> {
        survivor(&self.records, key)
    }

    fn entry(&self, receipt: &Receipt, again: bool) -> Entry {
        let conflicts = receipt.detail.conflicts.iter().filter_map(|id| self.conflicts.get(id));
        let conflicts = conflicts.map(|(number, conflict)| (*number, conflict)).collect();
        let record = self.survivor(&receipt.key).map(|(_, record)| record);
        Entry::of(&Answered { receipt, again, record, conflicts })
    }
}

/// Reads what joined records were joined into, until all of it is there.
pub(crate) async fn survivors(
    node: &ropeway_replica::Node,
    space: &ropeway_core::id::SpaceId,
    records: &mut BTreeMap<Key, Record>,
) -> Result<(), Refused> {
    for _ in 0..ropeway_core::limits::JOIN_CHAIN_MAX {
        let missing: Vec<Key> = records
            .iter()
            .filter_map(|(key, record)| match &record.state {
                Standing::Joined(into) => Some(Key::new(&key.collection, into)),
                _ => None,
            })
            .filter(|key| !records.contains_key(key))
            .collect();
        if missing.is_empty() {
            break;
        }
        let found = node.get_all(space, &missing).await?;
        if found.is_empty() {
            break;
        }
        records.extend(found);
    }
    Ok(())
}

/// The record that a name stands for by now (TR-01).
pub(crate) fn survivor<'r>(records: &'r BTreeMap<Key, Record>, key: &Key) -> Option<(Key, &'r Record)> {
    let mut key = key.clone();
    for _ in 0..ropeway_core::limits::JOIN_CHAIN_MAX {
        let record = records.get(&key)?;
        match &record.state {
            Standing::Joined(into) => key = Key::new(&key.collection, into),
            _ => return Some((key, record)),
        }
    }
    None
}
