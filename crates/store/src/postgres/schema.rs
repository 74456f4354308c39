//! The tables, and how a database of an older version gets the newer ones: one server at a time.

use super::errors::{Done, corrupt};
use crate::StoreError;
use ropeway_core::{digest::hash64, time::Time};
use tokio_postgres::{Client, Row};

/// The first tables. Never edited once released: a change is the next version.
///
/// The space comes first in every key, so that it can be the key by which a distributed engine spreads
/// rows; identifiers sort by bytes, as everywhere in the engine.
///
/// Where a table has several indexes that begin with the space, each says `IS NOT NULL` of a column of its own,
/// which every row is, so that only a statement that asks for that column may use it: on a table that was small
/// when the plan was made they look alike, and a lookup by id that walks the feed reads the whole space.
const V1: &str = r#"
CREATE TABLE rw_meta (name text COLLATE "C" PRIMARY KEY, value text NOT NULL);
CREATE TABLE rw_spaces (
  no int PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, head bigint NOT NULL,
  digest_count bigint NOT NULL, digest_sum bigint NOT NULL, next_local_id bigint NOT NULL,
  next_entry bigint NOT NULL, writes bigint NOT NULL,
  purged bigint NOT NULL DEFAULT 0, buried bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
CREATE TABLE rw_records (
  space int NOT NULL, state smallint NOT NULL, contested bool NOT NULL, local_id bigint NOT NULL,
  version bigint NOT NULL, stamp bigint NOT NULL, modified_at bigint NOT NULL,
  collection text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, joined_into text, owner text NOT NULL,
  author text NOT NULL, person text, up_epoch text, up_version bigint, up_held text, marks text,
  data text NOT NULL);
CREATE UNIQUE INDEX rw_records_key ON rw_records (space, collection, id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX rw_records_feed ON rw_records (space, stamp) WHERE stamp IS NOT NULL;
CREATE INDEX rw_records_gone ON rw_records (space, stamp) WHERE state = 1;
CREATE INDEX rw_records_contested ON rw_records (space, collection) WHERE contested;
CREATE TABLE rw_history (
  space int NOT NULL, state smallint NOT NULL, contested bool NOT NULL, local_id bigint NOT NULL,
  version bigint NOT NULL, stamp bigint NOT NULL, modified_at bigint NOT NULL,
  collection text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, joined_into text, owner text NOT NULL,
  author text NOT NULL, person text, up_epoch text, up_version bigint, up_held text, marks text,
  data text NOT NULL);
CREATE UNIQUE INDEX rw_history_key ON rw_history (space, collection, id, version, stamp) WHERE id IS NOT NULL;
CREATE INDEX rw_history_stamp ON rw_history (space, stamp) WHERE stamp IS NOT NULL;
CREATE TABLE rw_receipts (
  space int NOT NULL, verdict smallint NOT NULL, content bigint NOT NULL, version bigint NOT NULL,
  stamp bigint NOT NULL, change text COLLATE "C" NOT NULL, device text NOT NULL, collection text NOT NULL,
  record text NOT NULL, detail text, PRIMARY KEY (space, change));
CREATE TABLE rw_fingerprints (
  space int NOT NULL, at bigint NOT NULL, collection text COLLATE "C" NOT NULL,
  print text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL);
CREATE UNIQUE INDEX rw_fingerprints_key ON rw_fingerprints (space, collection, id, print, at) WHERE id IS NOT NULL;
CREATE INDEX rw_fingerprints_print ON rw_fingerprints (space, collection, print, at) WHERE print IS NOT NULL;
CREATE TABLE rw_links (
  space int NOT NULL, parent_collection text COLLATE "C" NOT NULL, parent text COLLATE "C" NOT NULL,
  field text COLLATE "C" NOT NULL, child_collection text COLLATE "C" NOT NULL, child text COLLATE "C" NOT NULL,
  PRIMARY KEY (space, parent_collection, parent, field, child_collection, child));
CREATE TABLE rw_audiences (
  space int NOT NULL, collection text COLLATE "C" NOT NULL, record text COLLATE "C" NOT NULL,
  audience text COLLATE "C" NOT NULL, via_collection text COLLATE "C" NOT NULL,
  via text COLLATE "C" NOT NULL, entered bigint NOT NULL, left_at bigint);
CREATE UNIQUE INDEX rw_audiences_key
  ON rw_audiences (space, collection, record, audience, via_collection, via) WHERE record IS NOT NULL;
CREATE INDEX rw_audiences_feed ON rw_audiences (space, audience, entered) WHERE audience IS NOT NULL;
CREATE INDEX rw_audiences_left ON rw_audiences (space, left_at) WHERE left_at IS NOT NULL;
CREATE TABLE rw_sights (
  space int NOT NULL, sight text COLLATE "C" NOT NULL, count bigint NOT NULL, sum bigint NOT NULL,
  PRIMARY KEY (space, sight));
CREATE TABLE rw_subscriptions (
  space int NOT NULL, reader text COLLATE "C" NOT NULL, audience text COLLATE "C" NOT NULL,
  via_collection text COLLATE "C" NOT NULL, via text COLLATE "C" NOT NULL, entered bigint NOT NULL,
  left_at bigint, PRIMARY KEY (space, reader, audience, via_collection, via));
CREATE TABLE rw_outbox (
  space int NOT NULL, state smallint NOT NULL, own bool NOT NULL, attempts int NOT NULL, seq bigint NOT NULL,
  due bigint NOT NULL, accepted_at bigint NOT NULL, tried_at bigint, receipt_stamp bigint,
  granted_version bigint, verdict smallint, collection text COLLATE "C" NOT NULL,
  record text COLLATE "C" NOT NULL, batch text, reason text, granted_epoch text, held text, conflicts text,
  also text, change text NOT NULL);
CREATE UNIQUE INDEX rw_outbox_key ON rw_outbox (space, seq) WHERE seq IS NOT NULL;
CREATE INDEX rw_outbox_state ON rw_outbox (space, state, collection, record) WHERE state IS NOT NULL;
CREATE TABLE rw_batches (
  space int NOT NULL, no bigint NOT NULL, id text COLLATE "C" NOT NULL, changes bigint NOT NULL,
  body bytea NOT NULL, PRIMARY KEY (space, id));
CREATE TABLE rw_follow (
  space int PRIMARY KEY, epoch text, cursor bigint NOT NULL, token text, staged text, staged_epoch text,
  audiences text, filling bool NOT NULL DEFAULT false, anew bool NOT NULL DEFAULT false);
CREATE TABLE rw_seen (
  space int NOT NULL, collection text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
  PRIMARY KEY (space, collection, id));
CREATE TABLE rw_staging (
  space int NOT NULL, no bigint NOT NULL, is_conflict bool NOT NULL, state smallint NOT NULL,
  version bigint NOT NULL, stamp bigint NOT NULL, modified_at bigint NOT NULL, collection text NOT NULL,
  id text NOT NULL, joined_into text, owner text NOT NULL, author text NOT NULL, person text,
  data text NOT NULL, PRIMARY KEY (space, is_conflict, no));
CREATE TABLE rw_devices (
  space text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, name text NOT NULL, mode text NOT NULL,
  role text NOT NULL, status smallint NOT NULL, token_hash text NOT NULL UNIQUE, metadata text NOT NULL,
  created_at bigint NOT NULL, last_seen_at bigint, pulled bigint, pulled_shared bigint,
  PRIMARY KEY (space, id));
CREATE TABLE rw_members (
  email text COLLATE "C" PRIMARY KEY, space text NOT NULL, role text NOT NULL, password_hash text NOT NULL,
  disabled bool NOT NULL, created_at bigint NOT NULL);
CREATE TABLE rw_runs (
  space int NOT NULL, no bigint NOT NULL, started_at bigint NOT NULL, duration_ms bigint NOT NULL,
  outcome smallint NOT NULL, pushed bigint NOT NULL, pulled bigint NOT NULL, held bigint NOT NULL, error text,
  device text, PRIMARY KEY (space, no));
CREATE TABLE rw_quarantine (
  space int NOT NULL, no bigint NOT NULL, device text NOT NULL, change text NOT NULL,
  received_at bigint NOT NULL, ended_at bigint, ended_by text, verdict smallint, content text NOT NULL,
  PRIMARY KEY (space, no), UNIQUE (space, device, change));
CREATE TABLE rw_gaps (
  space int NOT NULL, begins bigint NOT NULL, after bigint NOT NULL, lost bigint NOT NULL,
  epoch text NOT NULL, PRIMARY KEY (space, begins));
"#;

/// Every version ever released, oldest first.
const VERSIONS: [&str; 1] = [V1];

const IS_THERE: &str = "SELECT to_regclass('rw_meta') IS NOT NULL";
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS rw_schema (
  version int PRIMARY KEY, applied_at bigint NOT NULL, checksum bigint NOT NULL)";
/// Row 0 is no version: whoever holds it migrates, and the others wait for its end.
const LEASE: &str = "INSERT INTO rw_schema (version, applied_at, checksum) VALUES (0, 0, 0)
  ON CONFLICT (version) DO NOTHING";
const HOLD: &str = "SELECT version FROM rw_schema WHERE version = 0 FOR UPDATE";
const APPLIED: &str = "SELECT version, checksum FROM rw_schema WHERE version > 0 ORDER BY version";
const NOTE: &str = "INSERT INTO rw_schema (version, applied_at, checksum) VALUES ($1, $2, $3)";
const EPOCH: &str = "INSERT INTO rw_meta (name, value) VALUES ('@epoch', $1) ON CONFLICT (name) DO NOTHING";

/// Whether a node was begun in the database.
pub(super) async fn is_there(client: &Client) -> Done<bool> {
    Ok(client.query_one(IS_THERE, &[]).await?.try_get(0)?)
}

/// Brings the database to the newest version. Ten servers may ask at the same time. Whether this one began
/// it.
pub(super) async fn migrate(client: &mut Client, now: Time, epoch: &str) -> Done<bool> {
    // Nothing is written where nothing is to be done: a database that can only be read is opened too.
    if is_there(client).await? && known(&client.query(APPLIED, &[]).await?)? {
        return Ok(false);
    }
    // Two that create the ledger at the same moment may meet: the loser finds it made.
    if client.batch_execute(LEDGER).await.is_err() {
        client.batch_execute(LEDGER).await?;
    }
    client.execute(LEASE, &[]).await?;
    let tx = client.transaction().await?;
    tx.query_one(HOLD, &[]).await?;
    let applied = tx.query(APPLIED, &[]).await?;
    known(&applied)?;
    for (i, text) in VERSIONS.iter().enumerate().skip(applied.len()) {
        tx.batch_execute(text).await?;
        tx.execute(NOTE, &[&(i as i32 + 1), &now.0, &sum(text)]).await?;
    }
    tx.execute(EPOCH, &[&epoch]).await?;
    tx.commit().await?;
    Ok(applied.is_empty())
}

/// Whether these are all versions. Refuses what a newer program or another one wrote.
fn known(applied: &[Row]) -> Done<bool> {
    let known = VERSIONS.len() as u32;
    for (i, row) in applied.iter().enumerate() {
        let (version, checksum): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let Some(text) = VERSIONS.get(i) else {
            return Err(StoreError::TooNew { found: version.unsigned_abs(), known });
        };
        if version != i as i32 + 1 || checksum != sum(text) {
            return Err(corrupt(format!("schema version {version} is not the one this program knows")));
        }
    }
    Ok(applied.len() == VERSIONS.len())
}

fn sum(text: &str) -> i64 {
    hash64(text.as_bytes()).cast_signed()
}
