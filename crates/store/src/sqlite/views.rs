//! The typed SQL views of a profile, for people and programs that read the database by SQL: one for each
//! collection (ISMF-039 to ISMF-048) and the documented ones of the engine's own tables.

use super::{
    conn::Conn,
    errors::{Done, bad_json},
    registry, rows,
};
use crate::view_names::{camel, ident, literal, mismatch};
use ropeway_core::{
    id::CONFLICT,
    profile::{Kind, Profile, Rules},
};
use std::collections::{BTreeMap, BTreeSet};

/// Where the installed views are noted: name → text.
const NOTED: &str = "@views";

/// Names and texts of views.
type Texts = BTreeMap<String, String>;
/// The numbers of collections.
type Numbers<'p> = BTreeMap<&'p str, i64>;

/// Whether the views of this profile are there, by reading alone.
pub(super) fn are_installed(conn: &mut Conn, profile: &Profile) -> Done<bool> {
    let mut numbers = Numbers::new();
    for name in names(profile) {
        let Some(no) = conn.names.find(&conn.db, name)? else { return Ok(false) };
        numbers.insert(name, no);
    }
    Ok(noted(conn)? == texts(profile, &numbers))
}

/// Replaces the views of an older profile by those of this one. Writes nothing where they are the same.
pub(super) fn install(conn: &mut Conn, profile: &Profile) -> Done<()> {
    let mut numbers = Numbers::new();
    for name in names(profile) {
        numbers.insert(name, conn.names.intern(&conn.db, name)?);
    }
    let (texts, old) = (texts(profile, &numbers), noted(conn)?);
    if old == texts {
        return Ok(());
    }
    for name in old.keys() {
        conn.db.execute_batch(&format!("DROP VIEW IF EXISTS {}", ident(name)))?;
    }
    for (name, text) in &texts {
        conn.db.execute_batch(&format!("CREATE VIEW {} AS {text}", ident(name)))?;
    }
    registry::put_meta(conn, NOTED, &rows::to_json(&texts, "the list of views")?)
}

fn noted(conn: &Conn) -> Done<Texts> {
    let noted = registry::meta(conn, NOTED)?.unwrap_or_else(|| "{}".into());
    serde_json::from_str(&noted).map_err(|e| bad_json("the list of views", e))
}

/// The collections that have views.
fn names(profile: &Profile) -> impl Iterator<Item = &str> {
    profile.collections.keys().map(|name| &**name).chain([CONFLICT])
}

fn texts(profile: &Profile, numbers: &Numbers<'_>) -> Texts {
    let mut texts = Texts::new();
    texts.insert(
        "devices".into(),
        DEVICES.replace("{created}", &time("created_at")).replace("{seen}", &time("last_seen_at")),
    );
    texts.insert("sync_queue".into(), queue(profile, numbers));
    texts.insert("sync_conflicts".into(), conflicts(profile, numbers));
    // A profile's own names win over the documented ones.
    for (name, rules) in &profile.collections {
        let text = collection(profile, rules, numbers);
        if let Some(table) = &rules.table {
            texts.insert(table.clone(), text.clone());
        }
        texts.insert(name.clone(), text);
    }
    texts
}

/// Nobody sees half a first pull (I6): what it brought shows when it is complete.
const IN_SIGHT: &str = "(coalesce(r.up_version, 0) = 0 OR r.up_held IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM rw_follow w WHERE w.space = r.space AND w.filling))";

/// The live records of one collection, a column for each declared field.
fn collection(profile: &Profile, rules: &Rules, numbers: &BTreeMap<&str, i64>) -> String {
    let views = &profile.views;
    let mut columns =
        vec![(views.local_id.clone(), "r.local_id".to_owned()), (views.id.clone(), "r.id".to_owned())];
    for (name, field) in &rules.fields {
        match rules.references.get(name) {
            Some(to) => {
                let column = views.reference.replace("{}", name);
                columns.push((column, reference(name, numbers.get(to.to.as_str()))));
            }
            None => columns.push((name.clone(), value(name, &field.kind))),
        }
    }
    let taken: BTreeSet<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let of_name = |column: &str| format!("(SELECT n.name FROM rw_names n WHERE n.no = r.{column})");
    let bookkeeping = [
        ("version", "r.version".to_owned()),
        ("stamp", "r.stamp".to_owned()),
        ("modified_at", time("r.modified_at")),
        ("device", of_name("author")),
        ("person", of_name("person")),
        ("space", "(SELECT s.id FROM rw_spaces s WHERE s.no = r.space)".to_owned()),
    ];
    let own = bookkeeping.into_iter().filter(|(name, _)| !taken.contains(*name));
    columns.extend(own.map(|(name, text)| (name.to_owned(), text)));
    let list: Vec<String> = columns.iter().map(|(name, text)| format!("{text} AS {}", ident(name))).collect();
    let number = numbers.get(rules.name.as_str()).copied().unwrap_or(-1);
    format!(
        "SELECT {} FROM rw_records r WHERE r.collection = {number} AND r.state = 0 AND {IN_SIGHT}",
        list.join(", ")
    )
}

fn value(field: &str, kind: &Kind) -> String {
    let path = literal(&format!("$.{}", ident(field)));
    let read = format!("json_extract(r.data, {path})");
    match kind {
        Kind::Int { .. } => format!("CAST({read} AS INTEGER)"),
        Kind::Counter => format!("(SELECT sum(c.value) FROM json_each(r.data, {path}) c)"),
        _ => read, // JSON's true and false read as 1 and 0, objects and lists as their JSON text.
    }
}

/// A parent's id, and where that one is joined, its survivor's: references are stored as their author
/// wrote them and resolved when read.
fn reference(field: &str, parent: Option<&i64>) -> String {
    let read = format!("json_extract(r.data, {})", literal(&format!("$.{}", ident(field))));
    let Some(parent) = parent else { return read };
    format!(
        "(WITH RECURSIVE chain (id, n) AS (SELECT {read}, 0 UNION ALL \
         SELECT p.joined_into, chain.n + 1 FROM chain JOIN rw_records p ON p.space = r.space \
         AND p.collection = {parent} AND p.id = chain.id AND p.state = 2 WHERE chain.n < 64) \
         SELECT id FROM chain ORDER BY n DESC LIMIT 1)"
    )
}

/// ISMF-049, ISMF-050, ISMF-051, ISMF-052. `offline` is not stored: it depends on the clock of whoever asks.
const DEVICES: &str = "SELECT id AS device_uuid, name, mode AS system_mode,
  CASE status WHEN 0 THEN 'active' ELSE 'decommissioned' END AS status, {seen} AS last_seen_at,
  token_hash AS api_token_digest, metadata, {created} AS created_at,
  coalesce({seen}, {created}) AS updated_at, role, pulled, space FROM rw_devices";

/// ISMF-053 to ISMF-056: one row a record, its latest entry.
const QUEUE: &str = "SELECT o.record AS client_uuid, {type} AS record_type, r.local_id AS local_id,
  coalesce(r.data, json_extract(o.change, '$.fields')) AS payload,
  CASE WHEN o.state = 3 THEN 'failed'
    WHEN o.state IN (0, 2) AND o.attempts > {tries} THEN 'failed'
    WHEN o.state IN (0, 1, 2) THEN 'pending'
    WHEN o.verdict = 6 AND coalesce(r.contested, 0) THEN 'conflict'
    ELSE 'synced' END AS status,
  o.attempts AS retry_count, {tried} AS last_retry_at, json_extract(o.reason, '$.text') AS error_message,
  {first} AS created_at, {last} AS updated_at, (SELECT s.id FROM rw_spaces s WHERE s.no = o.space) AS space
  FROM (SELECT *, row_number() OVER (PARTITION BY space, collection, record ORDER BY seq DESC) AS place,
    min(accepted_at) OVER (PARTITION BY space, collection, record) AS first_at
    FROM rw_outbox WHERE state <> 6) o
  LEFT JOIN rw_records r ON r.space = o.space AND r.collection = o.collection AND r.id = o.record
  WHERE o.place = 1";

fn queue(profile: &Profile, numbers: &BTreeMap<&str, i64>) -> String {
    let types = numbers.iter().map(|(name, no)| format!("WHEN {no} THEN {}", literal(&camel(name))));
    let types = format!("CASE o.collection {} END", types.collect::<Vec<_>>().join(" "));
    QUEUE
        .replace("{type}", &types)
        .replace("{tries}", &profile.retry.delays.len().to_string())
        .replace("{tried}", &time("o.tried_at"))
        .replace("{first}", &time("o.first_at"))
        .replace("{last}", &time("max(o.accepted_at, coalesce(o.tried_at, o.accepted_at))"))
}

/// ISMF-057, ISMF-058, ISMF-059: the conflicts, in the words of the documents.
const CONFLICTS: &str = "SELECT r.local_id AS id,{numbered}
  json_extract(r.data, '$.incoming.by.device') AS device_uuid_source,
  CASE json_extract(r.data, '$.kind') WHEN 'orphan' THEN 'foreign_key_not_found'
    WHEN 'join' THEN 'auto_merged' WHEN 'twins' THEN 'fingerprint_match_uuid_differs'
    WHEN 'alike' THEN 'fingerprint_match_uuid_differs'
    ELSE CASE json_extract(r.data, '$.fields[0]') {mismatch} ELSE 'uuid_exists_different_data' END
    END AS conflict_type,
  {type} AS record_type, json_extract(r.data, '$.record') AS record_client_uuid,
  json_extract(r.data, '$.server.values') AS cloud_data,
  json_extract(r.data, '$.incoming.values') AS device_data,
  CASE json_extract(r.data, '$.state') WHEN 'open' THEN 'pending'
    ELSE CASE json_extract(r.data, '$.resolution') WHEN 'incoming' THEN 'device_wins'
      WHEN 'merged' THEN 'manual' WHEN 'apart' THEN 'manual' ELSE 'cloud_wins' END END AS resolution,
  coalesce(json_extract(r.data, '$.resolved_by.person'), json_extract(r.data, '$.resolved_by.device'))
    AS resolved_by_user_id,
  json_extract(r.data, '$.resolved_at') AS resolved_at, json_extract(r.data, '$.notes') AS resolution_notes,
  json_extract(r.data, '$.opened_at') AS created_at, {modified} AS updated_at,
  json_extract(r.data, '$.state') AS state, r.id AS conflict,
  (SELECT s.id FROM rw_spaces s WHERE s.no = r.space) AS space
  FROM rw_records r WHERE r.collection = {conflict} AND r.state = 0";

fn conflicts(profile: &Profile, numbers: &BTreeMap<&str, i64>) -> String {
    let types =
        profile.collections.keys().map(|n| format!("WHEN {} THEN {}", literal(n), literal(&camel(n))));
    let types: Vec<String> = types.collect();
    let of = "json_extract(r.data, '$.collection')";
    let types =
        if types.is_empty() { of.into() } else { format!("CASE {of} {} ELSE {of} END", types.join(" ")) };
    let numbered = profile.views.numbered.as_ref().map(|name| {
        let (no, column) = (numbers.get(name.as_str()).copied().unwrap_or(-1), ident(&format!("{name}_id")));
        format!(
            " CASE {of} WHEN {} THEN (SELECT i.local_id FROM rw_records i WHERE i.space = r.space \
             AND i.collection = {no} AND i.id = json_extract(r.data, '$.record')) END AS {column},",
            literal(name)
        )
    });
    let conflict = numbers.get(CONFLICT).copied().unwrap_or(-1).to_string();
    CONFLICTS
        .replace("{type}", &types)
        .replace("{numbered}", &numbered.unwrap_or_default())
        .replace("{mismatch}", &mismatch(&profile.views))
        .replace("{modified}", &time("r.modified_at"))
        .replace("{conflict}", &conflict)
}

/// SQL that shows microseconds as an RFC 3339 time in UTC, and no time as null.
fn time(micros: &str) -> String {
    let fraction = format!("((({micros}) % 1000000 + 1000000) % 1000000)");
    format!(
        "strftime('%Y-%m-%dT%H:%M:%S', (({micros}) - {fraction}) / 1000000, 'unixepoch') || \
         printf('.%06dZ', {fraction})"
    )
}
