//! The tables, and how a database of an older version gets the newer ones.

use super::errors::{Done, corrupt};
use crate::StoreError;
use ropeway_core::{digest::hash64, time::Time};
use rusqlite::{Connection, OptionalExtension};

/// Marks the file as Ropeway's (`Rope` in ASCII).
pub(crate) const APPLICATION_ID: i32 = 0x526f_7065;

/// The first tables. Never edited once released: a change is the next version.
///
/// `rw_records` keeps rows by a number of its own, so that an update rewrites a row where it lies; the
/// feed is the index on (space, stamp), unique because two changes never share a commit position (I2).
const V1: &str = "
CREATE TABLE rw_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rw_names (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE rw_spaces (
  no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, head INTEGER NOT NULL,
  digest_count INTEGER NOT NULL, digest_sum INTEGER NOT NULL,
  next_local_id INTEGER NOT NULL, next_entry INTEGER NOT NULL,
  purged INTEGER NOT NULL DEFAULT 0, buried INTEGER NOT NULL DEFAULT 0);
CREATE TABLE rw_records (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, collection INTEGER NOT NULL, id TEXT NOT NULL,
  local_id INTEGER NOT NULL, version INTEGER NOT NULL, stamp INTEGER NOT NULL, state INTEGER NOT NULL,
  joined_into TEXT, owner INTEGER NOT NULL, author INTEGER NOT NULL, person INTEGER,
  modified_at INTEGER NOT NULL, contested INTEGER NOT NULL,
  up_epoch INTEGER, up_version INTEGER, up_held TEXT, marks TEXT, data TEXT NOT NULL);
CREATE UNIQUE INDEX rw_records_key ON rw_records (space, collection, id);
CREATE UNIQUE INDEX rw_records_feed ON rw_records (space, stamp);
CREATE INDEX rw_records_gone ON rw_records (space, stamp) WHERE state = 1;
CREATE INDEX rw_records_contested ON rw_records (space, collection) WHERE contested = 1;
CREATE TABLE rw_history (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, collection INTEGER NOT NULL, id TEXT NOT NULL,
  local_id INTEGER NOT NULL, version INTEGER NOT NULL, stamp INTEGER NOT NULL, state INTEGER NOT NULL,
  joined_into TEXT, owner INTEGER NOT NULL, author INTEGER NOT NULL, person INTEGER,
  modified_at INTEGER NOT NULL, contested INTEGER NOT NULL,
  up_epoch INTEGER, up_version INTEGER, up_held TEXT, marks TEXT, data TEXT NOT NULL);
CREATE INDEX rw_history_key ON rw_history (space, collection, id);
CREATE TABLE rw_receipts (
  space INTEGER NOT NULL, change TEXT NOT NULL, content INTEGER NOT NULL, device INTEGER NOT NULL,
  verdict INTEGER NOT NULL, collection INTEGER NOT NULL, record TEXT NOT NULL, version INTEGER NOT NULL,
  stamp INTEGER NOT NULL, detail TEXT, PRIMARY KEY (space, change)) WITHOUT ROWID;
CREATE TABLE rw_fingerprints (
  space INTEGER NOT NULL, collection INTEGER NOT NULL, print TEXT NOT NULL, at INTEGER NOT NULL,
  id TEXT NOT NULL, PRIMARY KEY (space, collection, print, at, id)) WITHOUT ROWID;
CREATE INDEX rw_fingerprints_key ON rw_fingerprints (space, collection, id);
CREATE TABLE rw_links (
  space INTEGER NOT NULL, parent_collection INTEGER NOT NULL, parent TEXT NOT NULL, field TEXT NOT NULL,
  child_collection INTEGER NOT NULL, child TEXT NOT NULL,
  PRIMARY KEY (space, parent_collection, parent, field, child_collection, child)) WITHOUT ROWID;
CREATE TABLE rw_audiences (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, collection INTEGER NOT NULL, record TEXT NOT NULL,
  audience INTEGER NOT NULL, via_collection INTEGER, via TEXT, entered INTEGER NOT NULL, left_at INTEGER);
CREATE INDEX rw_audiences_key ON rw_audiences (space, collection, record);
CREATE INDEX rw_audiences_feed ON rw_audiences (space, audience, entered);
CREATE INDEX rw_audiences_left ON rw_audiences (space, left_at) WHERE left_at IS NOT NULL;
CREATE TABLE rw_sights (
  space INTEGER NOT NULL, sight TEXT NOT NULL, count INTEGER NOT NULL, sum INTEGER NOT NULL,
  PRIMARY KEY (space, sight)) WITHOUT ROWID;
CREATE TABLE rw_subscriptions (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, reader INTEGER NOT NULL, audience INTEGER NOT NULL,
  via_collection INTEGER, via TEXT, entered INTEGER NOT NULL, left_at INTEGER);
CREATE INDEX rw_subscriptions_reader ON rw_subscriptions (space, reader);
CREATE TABLE rw_outbox (
  space INTEGER NOT NULL, seq INTEGER NOT NULL, collection INTEGER NOT NULL, record TEXT NOT NULL,
  state INTEGER NOT NULL, own INTEGER NOT NULL, batch TEXT, attempts INTEGER NOT NULL,
  due INTEGER NOT NULL, accepted_at INTEGER NOT NULL, tried_at INTEGER, verdict INTEGER, reason TEXT,
  receipt_stamp INTEGER, granted_epoch INTEGER, granted_version INTEGER, held TEXT, conflicts TEXT,
  also TEXT, change TEXT NOT NULL,
  PRIMARY KEY (space, seq)) WITHOUT ROWID;
CREATE INDEX rw_outbox_state ON rw_outbox (space, state, collection, record);
CREATE TABLE rw_batches (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, id TEXT NOT NULL, changes INTEGER NOT NULL,
  body BLOB NOT NULL, UNIQUE (space, id));
CREATE TABLE rw_follow (
  space INTEGER PRIMARY KEY, epoch TEXT, cursor INTEGER NOT NULL, token TEXT, staged TEXT,
  staged_epoch TEXT, audiences TEXT, filling INTEGER NOT NULL DEFAULT 0,
  anew INTEGER NOT NULL DEFAULT 0);
CREATE TABLE rw_gaps (
  space INTEGER NOT NULL, begins INTEGER NOT NULL, after INTEGER NOT NULL, lost INTEGER NOT NULL,
  epoch TEXT NOT NULL, PRIMARY KEY (space, begins)) WITHOUT ROWID;
CREATE TABLE rw_seen (
  space INTEGER NOT NULL, collection INTEGER NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY (space, collection, id)) WITHOUT ROWID;
CREATE TABLE rw_staging (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, collection INTEGER NOT NULL, id TEXT NOT NULL,
  version INTEGER NOT NULL, stamp INTEGER NOT NULL, state INTEGER NOT NULL, joined_into TEXT,
  owner INTEGER NOT NULL, author INTEGER NOT NULL, person INTEGER, modified_at INTEGER NOT NULL,
  data TEXT NOT NULL);
CREATE TABLE rw_devices (
  id TEXT NOT NULL, space TEXT NOT NULL, name TEXT NOT NULL, mode TEXT NOT NULL, role TEXT NOT NULL,
  status INTEGER NOT NULL, token_hash TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL,
  created_at INTEGER NOT NULL, last_seen_at INTEGER, pulled INTEGER, pulled_shared INTEGER,
  PRIMARY KEY (space, id)) WITHOUT ROWID;
CREATE TABLE rw_members (
  email TEXT PRIMARY KEY, space TEXT NOT NULL, role TEXT NOT NULL, password_hash TEXT NOT NULL,
  disabled INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rw_runs (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, started_at INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL, outcome INTEGER NOT NULL, pushed INTEGER NOT NULL,
  pulled INTEGER NOT NULL, held INTEGER NOT NULL, error TEXT, device TEXT);
CREATE INDEX rw_runs_space ON rw_runs (space);
CREATE TABLE rw_quarantine (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, device TEXT NOT NULL, change TEXT NOT NULL,
  received_at INTEGER NOT NULL, ended_at INTEGER, ended_by TEXT, verdict INTEGER, content TEXT NOT NULL,
  UNIQUE (space, device, change));
";

/// Every version ever released, oldest first.
const VERSIONS: [&str; 1] = [V1];

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS rw_schema (
  version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL, checksum INTEGER NOT NULL)";
const TABLES: &str = "SELECT count(*) FROM sqlite_schema";
const HAS_LEDGER: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'rw_schema'";
const APPLIED: &str = "SELECT version, checksum FROM rw_schema ORDER BY version";
const NOTE: &str = "INSERT INTO rw_schema (version, applied_at, checksum) VALUES (?1, ?2, ?3)";
const EPOCH: &str = "INSERT OR IGNORE INTO rw_meta (name, value) VALUES ('@epoch', ?1)";

/// The schema that this program writes.
pub(super) fn known() -> u32 {
    VERSIONS.len() as u32
}

/// How many versions a database has, by reading alone. 0 for an empty one. Refuses what a newer
/// program or another program wrote.
pub(super) fn found(db: &Connection) -> Done<u32> {
    if db.query_row(HAS_LEDGER, [], |_| Ok(())).optional()?.is_none() {
        let tables: i64 = db.query_row(TABLES, [], |r| r.get(0))?;
        return match tables {
            0 => Ok(0),
            _ => Err(corrupt("the file is a database of another program")),
        };
    }
    let mut stmt = db.prepare(APPLIED)?;
    let rows: Vec<(u32, i64)> =
        stmt.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
    let newest = rows.last().map_or(0, |(version, _)| *version);
    if newest > known() {
        return Err(StoreError::TooNew { found: newest, known: known() });
    }
    for (i, (version, checksum)) in rows.iter().enumerate() {
        if *version as usize != i + 1 || *checksum != sum(VERSIONS[i]) {
            return Err(corrupt(format!("schema version {version} is not the one this program knows")));
        }
    }
    Ok(newest)
}

/// Brings the database to the newest version, inside the caller's transaction.
pub(super) fn migrate(db: &Connection, now: Time, epoch: &str) -> Done<()> {
    let have = found(db)? as usize;
    db.execute_batch(LEDGER)?;
    for (i, sql) in VERSIONS.iter().enumerate().skip(have) {
        db.execute_batch(sql)?;
        db.execute(NOTE, (i as i64 + 1, now.0, sum(sql)))?;
    }
    db.execute(EPOCH, [epoch])?;
    Ok(())
}

fn sum(sql: &str) -> i64 {
    hash64(sql.as_bytes()).cast_signed()
}
