//! What a node knows besides records: devices, people, syncs, settings.

use super::{
    conn::Conn,
    errors::{Done, bad_json},
};
use crate::{Device, Member, SyncRun, codes};
use ropeway_core::{
    id::{DeviceId, SpaceId},
    time::{Stamp, Time},
};
use rusqlite::{OptionalExtension, Params, Row};

macro_rules! put {
    ($rest:literal) => {
        concat!(
            "INSERT INTO rw_devices (id, space, name, mode, role, status, token_hash, metadata, created_at, \
             last_seen_at, pulled, pulled_shared) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (space, id) DO ",
            $rest
        )
    };
}
const ADD_DEVICE: &str = put!("NOTHING");
const PUT_DEVICE: &str = put!(
    "UPDATE SET name = excluded.name, mode = excluded.mode, role = excluded.role, status = excluded.status, \
     token_hash = excluded.token_hash, metadata = excluded.metadata, created_at = excluded.created_at, \
     last_seen_at = excluded.last_seen_at, pulled = excluded.pulled, pulled_shared = excluded.pulled_shared"
);
macro_rules! devices {
    ($rest:literal) => {
        concat!(
            "SELECT id, space, name, mode, role, status, token_hash, metadata, created_at, last_seen_at, \
             pulled, pulled_shared FROM rw_devices ",
            $rest
        )
    };
}
const DEVICES: &str = devices!("ORDER BY name, id, space");
const DEVICE: &str = devices!("WHERE space = ?1 AND id = ?2");
const BY_TOKEN: &str = devices!("WHERE token_hash = ?1");
const TOUCH: &str = "UPDATE rw_devices SET last_seen_at = max(coalesce(last_seen_at, ?2), ?2),
  pulled = coalesce(?3, pulled), pulled_shared = coalesce(?5, pulled_shared) WHERE space = ?4 AND id = ?1";
const PUT_MEMBER: &str = "INSERT OR REPLACE INTO rw_members
  (email, space, role, password_hash, disabled, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const ADD_MEMBER: &str = "INSERT OR IGNORE INTO rw_members
  (email, space, role, password_hash, disabled, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const MEMBERS: &str =
    "SELECT email, space, role, password_hash, disabled, created_at FROM rw_members ORDER BY email";
const PUT_RUN: &str = "INSERT INTO rw_runs
  (space, started_at, duration_ms, outcome, pushed, pulled, held, error, device)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const RUNS: &str = "SELECT started_at, duration_ms, outcome, pushed, pulled, held, error, device
  FROM rw_runs WHERE space = ?1 AND (device IS NOT NULL) = ?3 ORDER BY no DESC LIMIT ?2";
const META: &str = "SELECT value FROM rw_meta WHERE name = ?1";
const PUT_META: &str = "INSERT OR REPLACE INTO rw_meta (name, value) VALUES (?1, ?2)";

/// Adds a device where its space has none of its id; whether it did.
pub(super) fn add_device(conn: &Conn, device: &Device) -> Done<bool> {
    Ok(write_device(conn, ADD_DEVICE, device)? == 1)
}

/// Adds or replaces a device.
pub(super) fn put_device(conn: &Conn, device: &Device) -> Done<()> {
    write_device(conn, PUT_DEVICE, device).map(drop)
}

fn write_device(conn: &Conn, sql: &str, device: &Device) -> Done<usize> {
    Ok(conn.db.prepare_cached(sql)?.execute(rusqlite::params![
        device.id.as_str(),
        device.space.as_str(),
        device.name,
        device.mode,
        device.role,
        codes::of_status(device.status),
        device.token_hash,
        device.metadata.to_string(),
        device.created_at.0,
        device.last_seen_at.map(|t| t.0),
        device.pulled.map(|s| s.0),
        device.pulled_shared.map(|s| s.0)
    ])?)
}

/// All devices, by name.
pub(super) fn devices(conn: &Conn) -> Done<Vec<Device>> {
    select_devices(conn, DEVICES, [])
}

/// A space's device by its id.
pub(super) fn device(conn: &Conn, space: &SpaceId, id: &DeviceId) -> Done<Option<Device>> {
    Ok(select_devices(conn, DEVICE, [space.as_str(), id.as_str()])?.pop())
}

/// A device by the hash of its token.
pub(super) fn device_by_token(conn: &Conn, token_hash: &str) -> Done<Option<Device>> {
    Ok(select_devices(conn, BY_TOKEN, [token_hash])?.pop())
}

/// Notes when a device was seen and how far it has pulled.
pub(super) fn touch_device(
    conn: &Conn,
    space: &SpaceId,
    id: &DeviceId,
    seen: Time,
    (pulled, shared): (Option<Stamp>, Option<Stamp>),
) -> Done<()> {
    let row = (id.as_str(), seen.0, pulled.map(|s| s.0), space.as_str(), shared.map(|s| s.0));
    conn.db.prepare_cached(TOUCH)?.execute(row)?;
    Ok(())
}

fn select_devices(conn: &Conn, sql: &str, params: impl Params) -> Done<Vec<Device>> {
    let mut stmt = conn.db.prepare_cached(sql)?;
    let mut at = stmt.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        found.push(read_device(row)?);
    }
    Ok(found)
}

fn read_device(row: &Row<'_>) -> Done<Device> {
    let metadata: String = row.get(7)?;
    Ok(Device {
        id: DeviceId::trusted(row.get::<_, String>(0)?),
        space: SpaceId::trusted(row.get::<_, String>(1)?),
        name: row.get(2)?,
        mode: row.get(3)?,
        role: row.get(4)?,
        status: codes::status(row.get(5)?)?,
        token_hash: row.get(6)?,
        metadata: serde_json::from_str(&metadata).map_err(|e| bad_json("a device's metadata", e))?,
        created_at: Time(row.get(8)?),
        last_seen_at: row.get::<_, Option<i64>>(9)?.map(Time),
        pulled: row.get::<_, Option<i64>>(10)?.map(Stamp),
        pulled_shared: row.get::<_, Option<i64>>(11)?.map(Stamp),
    })
}

/// Adds a person whose address is not taken; whether it did.
pub(super) fn add_member(conn: &Conn, m: &Member) -> Done<bool> {
    let row = (&m.email, m.space.as_str(), &m.role, &m.password_hash, m.disabled, m.created_at.0);
    Ok(conn.db.prepare_cached(ADD_MEMBER)?.execute(row)? == 1)
}

/// Adds or replaces a person.
pub(super) fn put_member(conn: &Conn, m: &Member) -> Done<()> {
    let row = (&m.email, m.space.as_str(), &m.role, &m.password_hash, m.disabled, m.created_at.0);
    conn.db.prepare_cached(PUT_MEMBER)?.execute(row)?;
    Ok(())
}

/// All persons, by e-mail address.
pub(super) fn members(conn: &Conn) -> Done<Vec<Member>> {
    let mut stmt = conn.db.prepare_cached(MEMBERS)?;
    let found = stmt.query_map([], |r| {
        Ok(Member {
            email: r.get(0)?,
            space: SpaceId::trusted(r.get::<_, String>(1)?),
            role: r.get(2)?,
            password_hash: r.get(3)?,
            disabled: r.get(4)?,
            created_at: Time(r.get(5)?),
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Notes a finished sync.
pub(super) fn put_run(conn: &Conn, space: i64, run: &SyncRun) -> Done<()> {
    conn.db.prepare_cached(PUT_RUN)?.execute(rusqlite::params![
        space,
        run.started_at.0,
        run.duration_ms,
        codes::of_outcome(run.outcome),
        run.pushed.cast_signed(),
        run.pulled.cast_signed(),
        run.held.cast_signed(),
        run.error,
        run.device.as_deref()
    ])?;
    Ok(())
}

/// The latest syncs, this node's own or those of devices, newest first.
pub(super) fn runs(conn: &Conn, space: i64, limit: usize, of_devices: bool) -> Done<Vec<SyncRun>> {
    let mut stmt = conn.db.prepare_cached(RUNS)?;
    let mut at = stmt.query((space, i64::try_from(limit).unwrap_or(i64::MAX), of_devices))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        found.push(SyncRun {
            started_at: Time(row.get(0)?),
            duration_ms: row.get(1)?,
            outcome: codes::outcome(row.get(2)?)?,
            pushed: row.get::<_, i64>(3)?.cast_unsigned(),
            pulled: row.get::<_, i64>(4)?.cast_unsigned(),
            held: row.get::<_, i64>(5)?.cast_unsigned(),
            error: row.get(6)?,
            device: row.get::<_, Option<String>>(7)?.map(DeviceId::trusted),
        });
    }
    Ok(found)
}

/// A setting.
pub(super) fn meta(conn: &Conn, name: &str) -> Done<Option<String>> {
    Ok(conn.db.prepare_cached(META)?.query_row([name], |r| r.get(0)).optional()?)
}

/// Writes a setting.
pub(super) fn put_meta(conn: &Conn, name: &str, value: &str) -> Done<()> {
    conn.db.prepare_cached(PUT_META)?.execute([name, value])?;
    Ok(())
}

/// Writes a setting where it still holds `expected`.
pub(super) fn swap_meta(conn: &Conn, name: &str, expected: Option<&str>, value: &str) -> Done<bool> {
    if meta(conn, name)?.as_deref() != expected {
        return Ok(false);
    }
    put_meta(conn, name, value)?;
    Ok(true)
}
