//! The typed SQL views of a profile, for people and programs that read the database by SQL: one for each
//! collection (ISMF-039 to ISMF-048) and the documented ones of the engine's own tables.

use super::{
    conn::Tx,
    errors::{Done, bad_json},
    registry,
    rows::to_json,
};
use crate::view_names::{camel, ident, literal, mismatch};
use ropeway_core::{
    id::CONFLICT,
    profile::{Kind, Profile, Rules},
};
use std::collections::{BTreeMap, BTreeSet};

/// Where the installed views are noted: name → text.
const NOTED: &str = "@views";
const FIRST: &str = "INSERT INTO rw_meta (name, value) VALUES ($1, '{}') ON CONFLICT (name) DO NOTHING";
/// Locked: of several servers that start at the same time one makes them.
const HOLD: &str = "SELECT value FROM rw_meta WHERE name = $1 FOR UPDATE";

/// Names and texts of views.
pub(super) type Texts = BTreeMap<String, String>;

/// Replaces the views of an older profile by these. Writes nothing where they are the same.
pub(super) async fn install(tx: &Tx, texts: &Texts) -> Done<()> {
    if noted(registry::meta(tx, NOTED).await?.as_deref())? == *texts {
        return Ok(());
    }
    tx.execute(FIRST, &[&NOTED]).await?;
    let row = tx.one(HOLD, &[&NOTED]).await?;
    let old = noted(row.as_ref().map(|row| row.try_get(0)).transpose()?)?;
    if old == *texts {
        return Ok(());
    }
    for name in old.keys() {
        tx.run(&format!("DROP VIEW IF EXISTS {}", ident(name))).await?;
    }
    for (name, text) in texts {
        tx.run(&format!("CREATE VIEW {} AS {text}", ident(name))).await?;
    }
    registry::put_meta(tx, NOTED, &to_json(texts, "the list of views")?).await
}

fn noted(text: Option<&str>) -> Done<Texts> {
    serde_json::from_str(text.unwrap_or("{}")).map_err(|e| bad_json("the list of views", e))
}

/// The views of a profile.
pub(super) fn texts(profile: &Profile) -> Texts {
    let mut texts = Texts::new();
    texts.insert(
        "devices".into(),
        DEVICES.replace("{created}", &time("created_at")).replace("{seen}", &time("last_seen_at")),
    );
    texts.insert("sync_queue".into(), queue(profile));
    texts.insert("sync_conflicts".into(), conflicts(profile));
    // A profile's own names win over the documented ones.
    for (name, rules) in &profile.collections {
        let text = collection(profile, rules);
        if let Some(table) = &rules.table {
            texts.insert(table.clone(), text.clone());
        }
        texts.insert(name.clone(), text);
    }
    texts
}

/// Microseconds as a time with its zone.
fn time(micros: &str) -> String {
    format!("(timestamptz 'epoch' + ({micros}) * interval '1 microsecond')")
}

/// Nobody sees half a first pull (I6): what it brought shows when it is complete.
const IN_SIGHT: &str = "(coalesce(r.up_version, 0) = 0 OR r.up_held IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM rw_follow w WHERE w.space = r.space AND w.filling))";
const SPACE: &str = "(SELECT s.id FROM rw_spaces s WHERE s.no = r.space)";

/// The live records of one collection, a column for each declared field.
fn collection(profile: &Profile, rules: &Rules) -> String {
    let views = &profile.views;
    let mut columns =
        vec![(views.local_id.clone(), "r.local_id".to_owned()), (views.id.clone(), "r.id".to_owned())];
    for (name, field) in &rules.fields {
        match rules.references.get(name) {
            Some(to) => columns.push((views.reference.replace("{}", name), reference(name, &to.to))),
            None => columns.push((name.clone(), value(name, &field.kind))),
        }
    }
    let taken: BTreeSet<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let bookkeeping = [
        ("version", "r.version".to_owned()),
        ("stamp", "r.stamp".to_owned()),
        ("modified_at", time("r.modified_at")),
        ("device", "r.author".to_owned()),
        ("person", "r.person".to_owned()),
        ("space", SPACE.to_owned()),
    ];
    let own = bookkeeping.into_iter().filter(|(name, _)| !taken.contains(*name));
    columns.extend(own.map(|(name, text)| (name.to_owned(), text)));
    let list: Vec<String> = columns.iter().map(|(name, text)| format!("{text} AS {}", ident(name))).collect();
    format!(
        "SELECT {} FROM rw_records r WHERE r.collection = {} AND r.state = 0 AND {IN_SIGHT}",
        list.join(", "),
        literal(&rules.name)
    )
}

/// A field of its declared type. A value of another kind, from before the profile declared it so, is null and
/// breaks no query.
fn value(field: &str, kind: &Kind) -> String {
    let (json, text) =
        (format!("(r.data::json -> {})", literal(field)), format!("(r.data::json ->> {})", literal(field)));
    let where_is =
        |kind: &str, value: String| format!("CASE json_typeof({json}) WHEN '{kind}' THEN {value} END");
    let where_like =
        |pattern: &str, to: &str| format!("CASE WHEN {text} ~ '{pattern}' THEN {text}::{to} END");
    match kind {
        Kind::Int { .. } => where_like("^-?[0-9]{1,18}$", "bigint"),
        Kind::Number => where_is("number", format!("{text}::double precision")),
        Kind::Bool => where_is("boolean", format!("{text}::boolean")),
        Kind::Date => where_like("^[1-9][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]$", "date"),
        Kind::DateTime => where_like("^[1-9][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:", "timestamptz"),
        Kind::Counter => where_is(
            "object",
            format!("(SELECT sum(c.value::numeric)::bigint FROM json_each_text({json}) c)"),
        ),
        Kind::Object | Kind::List | Kind::Map | Kind::Json => json,
        Kind::Text { .. } | Kind::Enum(_) | Kind::Ref => text,
    }
}

/// A parent's id, and where that one is joined, its survivor's: references are stored as their author
/// wrote them and resolved when read.
fn reference(field: &str, parent: &str) -> String {
    format!(
        "(WITH RECURSIVE chain (id, n) AS (SELECT (r.data::json ->> {}) COLLATE \"C\", 0 UNION ALL \
         SELECT p.joined_into COLLATE \"C\", chain.n + 1 FROM chain JOIN rw_records p ON p.space = r.space \
         AND p.collection = {} AND p.id = chain.id AND p.state = 2 WHERE chain.n < 64) \
         SELECT chain.id FROM chain ORDER BY n DESC LIMIT 1)",
        literal(field),
        literal(parent)
    )
}

/// ISMF-049, ISMF-050, ISMF-051, ISMF-052. `offline` is not stored: it depends on the clock of whoever asks.
const DEVICES: &str = "SELECT id AS device_uuid, name, mode AS system_mode,
  CASE status WHEN 0 THEN 'active' ELSE 'decommissioned' END AS status, {seen} AS last_seen_at,
  token_hash AS api_token_digest, metadata::json AS metadata, {created} AS created_at,
  coalesce({seen}, {created}) AS updated_at, role, pulled, space FROM rw_devices";

/// ISMF-053 to ISMF-056: one row a record, its latest entry.
const QUEUE: &str = "SELECT o.record AS client_uuid, {type} AS record_type, r.local_id AS local_id,
  coalesce(r.data::json, o.change::json -> 'fields') AS payload,
  CASE WHEN o.state = 3 THEN 'failed'
    WHEN o.state IN (0, 2) AND o.attempts > {tries} THEN 'failed'
    WHEN o.state IN (0, 1, 2) THEN 'pending'
    WHEN o.verdict = 6 AND coalesce(r.contested, false) THEN 'conflict'
    ELSE 'synced' END AS status,
  o.attempts AS retry_count, {tried} AS last_retry_at, o.reason::json ->> 'text' AS error_message,
  {first} AS created_at, {last} AS updated_at, (SELECT s.id FROM rw_spaces s WHERE s.no = o.space) AS space
  FROM (SELECT e.*, row_number() OVER (PARTITION BY e.space, e.collection, e.record ORDER BY e.seq DESC) AS place,
    min(e.accepted_at) OVER (PARTITION BY e.space, e.collection, e.record) AS first_at
    FROM rw_outbox e WHERE e.state <> 6) o
  LEFT JOIN rw_records r ON r.space = o.space AND r.collection = o.collection AND r.id = o.record
  WHERE o.place = 1";

fn queue(profile: &Profile) -> String {
    let tries = profile.retry.delays.len().to_string();
    QUEUE
        .replace(
            "{type}",
            &types("o.collection", profile.collections.keys().map(String::as_str).chain([CONFLICT])),
        )
        .replace("{tries}", &tries)
        .replace("{tried}", &time("o.tried_at"))
        .replace("{first}", &time("o.first_at"))
        .replace("{last}", &time("greatest(o.accepted_at, coalesce(o.tried_at, o.accepted_at))"))
}

/// ISMF-057, ISMF-058, ISMF-059: the conflicts, in the words of the documents.
const CONFLICTS: &str = "SELECT r.local_id AS id,{numbered}
  r.data::json #>> '{incoming,by,device}' AS device_uuid_source,
  CASE r.data::json ->> 'kind' WHEN 'orphan' THEN 'foreign_key_not_found'
    WHEN 'join' THEN 'auto_merged' WHEN 'twins' THEN 'fingerprint_match_uuid_differs'
    WHEN 'alike' THEN 'fingerprint_match_uuid_differs'
    ELSE CASE r.data::json #>> '{fields,0}' {mismatch} ELSE 'uuid_exists_different_data' END
    END AS conflict_type,
  {type} AS record_type, r.data::json ->> 'record' AS record_client_uuid,
  r.data::json #> '{server,values}' AS cloud_data, r.data::json #> '{incoming,values}' AS device_data,
  CASE r.data::json ->> 'state' WHEN 'open' THEN 'pending'
    ELSE CASE r.data::json ->> 'resolution' WHEN 'incoming' THEN 'device_wins'
      WHEN 'merged' THEN 'manual' WHEN 'apart' THEN 'manual' ELSE 'cloud_wins' END END AS resolution,
  coalesce(r.data::json #>> '{resolved_by,person}', r.data::json #>> '{resolved_by,device}')
    AS resolved_by_user_id,
  r.data::json ->> 'resolved_at' AS resolved_at, r.data::json ->> 'notes' AS resolution_notes,
  r.data::json ->> 'opened_at' AS created_at, {modified} AS updated_at,
  r.data::json ->> 'state' AS state, r.id AS conflict, {space} AS space
  FROM rw_records r WHERE r.collection = {conflict} AND r.state = 0";

fn conflicts(profile: &Profile) -> String {
    let of = "(r.data::json ->> 'collection')";
    let numbered = profile.views.numbered.as_ref().map(|name| {
        let (of_it, column) = (literal(name), ident(&format!("{name}_id")));
        format!(
            " CASE {of} WHEN {of_it} THEN (SELECT i.local_id FROM rw_records i WHERE i.space = r.space \
             AND i.collection = {of_it} AND i.id = r.data::json ->> 'record') END AS {column},"
        )
    });
    CONFLICTS
        .replace("{type}", &types(of, profile.collections.keys().map(String::as_str)))
        .replace("{numbered}", &numbered.unwrap_or_default())
        .replace("{mismatch}", &mismatch(&profile.views))
        .replace("{modified}", &time("r.modified_at"))
        .replace("{space}", SPACE)
        .replace("{conflict}", &literal(CONFLICT))
}

/// A collection as the documents write a record type.
fn types<'a>(of: &str, collections: impl Iterator<Item = &'a str>) -> String {
    let types: Vec<String> =
        collections.map(|name| format!("WHEN {} THEN {}", literal(name), literal(&camel(name)))).collect();
    match types.is_empty() {
        true => of.to_owned(),
        false => format!("CASE {of} {} ELSE {of} END", types.join(" ")),
    }
}
