//! What a node knows besides records: devices, people, syncs, settings.

use super::{
    conn::Tx,
    errors::{Done, bad_json},
};
use crate::{Device, Durability, Member, SyncRun, codes};
use ropeway_core::{
    id::{DeviceId, SpaceId},
    time::{Stamp, Time},
};
use tokio_postgres::{Row, types::ToSql};

macro_rules! put {
    ($rest:literal) => {
        concat!(
            "INSERT INTO rw_devices (id, space, name, mode, role, status, token_hash, metadata, created_at, \
             last_seen_at, pulled, pulled_shared) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
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
const DEVICES: &str = devices!("ORDER BY name COLLATE \"C\", id, space");
const DEVICE: &str = devices!("WHERE space = $1 AND id = $2");
const BY_TOKEN: &str = devices!("WHERE token_hash = $1");
/// What is not in a space is counted here, so that one process notices another.
macro_rules! count {
    ($from:literal) => {
        concat!(
            "INSERT INTO rw_meta (name, value) SELECT '@writes', '1' ",
            $from,
            " ON CONFLICT (name) DO UPDATE SET value = (rw_meta.value::bigint + 1)::text"
        )
    };
}
/// Not waited for until it is on disk: it never overtakes what was committed before, nor does anything that was
/// decided by it overtake it.
const TOUCH: &str = concat!(
    "WITH unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)), counted AS (",
    count!(""),
    ") UPDATE rw_devices SET last_seen_at = greatest(coalesce(last_seen_at, $2), $2),
     pulled = coalesce($3, pulled), pulled_shared = coalesce($5, pulled_shared) FROM unsynced WHERE space = $4 AND id = $1"
);
const PUT_MEMBER: &str = "INSERT INTO rw_members (email, space, role, password_hash, disabled, created_at)
  VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT (email) DO UPDATE SET space = excluded.space, role = excluded.role,
  password_hash = excluded.password_hash, disabled = excluded.disabled, created_at = excluded.created_at";
const ADD_MEMBER: &str = "INSERT INTO rw_members (email, space, role, password_hash, disabled, created_at)
  VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (email) DO NOTHING";
const MEMBERS: &str =
    "SELECT email, space, role, password_hash, disabled, created_at FROM rw_members ORDER BY email";
const PUT_RUN: &str = "INSERT INTO rw_runs
  (space, no, started_at, duration_ms, outcome, pushed, pulled, held, error, device)
  SELECT $1::int, coalesce(max(no), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9 FROM rw_runs WHERE space = $1::int";
const RUNS: &str = "SELECT started_at, duration_ms, outcome, pushed, pulled, held, error, device
  FROM rw_runs WHERE space = $1 AND (device IS NOT NULL) = $3 ORDER BY no DESC LIMIT $2";
const META: &str = "SELECT value FROM rw_meta WHERE name = $1";
const PUT_META: &str = concat!(
    "WITH counted AS (",
    count!(""),
    ") INSERT INTO rw_meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
);
/// A commit that is not waited for never overtakes what was committed before.
macro_rules! swap {
    ($swap:literal) => {
        concat!(
            "WITH synced AS MATERIALIZED (SELECT set_config('synchronous_commit', $3, true)), swapped AS (",
            $swap,
            " RETURNING 1) ",
            count!("FROM swapped")
        )
    };
}
const FIRST_META: &str =
    swap!("INSERT INTO rw_meta (name, value) SELECT $1, $2 FROM synced ON CONFLICT (name) DO NOTHING");
const NEXT_META: &str = swap!("UPDATE rw_meta SET value = $2 FROM synced WHERE name = $1 AND value = $4");
const COUNT: &str = count!("");
const GENERATION: &str = "SELECT coalesce((SELECT value::bigint FROM rw_meta WHERE name = '@writes'), 0)
  + (SELECT coalesce(sum(writes), 0)::bigint FROM rw_spaces)";

/// Notes that something outside of a space was written.
pub(super) async fn count(tx: &Tx) -> Done<()> {
    tx.execute(COUNT, &[]).await?;
    Ok(())
}

/// A number that moves with every write.
pub(super) async fn generation(tx: &Tx) -> Done<i64> {
    match tx.one(GENERATION, &[]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(0),
    }
}

/// Adds a device where its space has none of its id; whether it did.
pub(super) async fn add_device(tx: &Tx, device: &Device) -> Done<bool> {
    Ok(write_device(tx, ADD_DEVICE, device).await? == 1)
}

/// Adds or replaces a device.
pub(super) async fn put_device(tx: &Tx, device: &Device) -> Done<()> {
    write_device(tx, PUT_DEVICE, device).await.map(drop)
}

async fn write_device(tx: &Tx, sql: &'static str, device: &Device) -> Done<u64> {
    let params: [&(dyn ToSql + Sync); 12] = [
        &device.id.as_str(),
        &device.space.as_str(),
        &device.name,
        &device.mode,
        &device.role,
        &(codes::of_status(device.status) as i16),
        &device.token_hash,
        &device.metadata.to_string(),
        &device.created_at.0,
        &device.last_seen_at.map(|t| t.0),
        &device.pulled.map(|s| s.0),
        &device.pulled_shared.map(|s| s.0),
    ];
    let wrote = tx.execute(sql, &params).await?;
    count(tx).await?;
    Ok(wrote)
}

/// All devices, by name.
pub(super) async fn devices(tx: &Tx) -> Done<Vec<Device>> {
    tx.query(DEVICES, &[]).await?.iter().map(read_device).collect()
}

/// A space's device by its id.
pub(super) async fn device(tx: &Tx, space: &SpaceId, id: &DeviceId) -> Done<Option<Device>> {
    tx.one(DEVICE, &[&space.as_str(), &id.as_str()]).await?.as_ref().map(read_device).transpose()
}

/// A device by the hash of its token.
pub(super) async fn device_by_token(tx: &Tx, token_hash: &str) -> Done<Option<Device>> {
    tx.one(BY_TOKEN, &[&token_hash]).await?.as_ref().map(read_device).transpose()
}

/// Notes when a device was seen and how far it has pulled.
pub(super) async fn touch_device(
    tx: &Tx,
    space: &SpaceId,
    id: &DeviceId,
    seen: Time,
    (pulled, shared): (Option<Stamp>, Option<Stamp>),
) -> Done<()> {
    let (pulled, shared) = (pulled.map(|s| s.0), shared.map(|s| s.0));
    tx.execute(TOUCH, &[&id.as_str(), &seen.0, &pulled, &space.as_str(), &shared]).await?;
    Ok(())
}

fn read_device(row: &Row) -> Done<Device> {
    let metadata: &str = row.try_get(7)?;
    Ok(Device {
        id: DeviceId::trusted(row.try_get::<_, &str>(0)?),
        space: SpaceId::trusted(row.try_get::<_, &str>(1)?),
        name: row.try_get(2)?,
        mode: row.try_get(3)?,
        role: row.try_get(4)?,
        status: codes::status(row.try_get::<_, i16>(5)?.into())?,
        token_hash: row.try_get(6)?,
        metadata: serde_json::from_str(metadata).map_err(|e| bad_json("a device's metadata", e))?,
        created_at: Time(row.try_get(8)?),
        last_seen_at: row.try_get::<_, Option<i64>>(9)?.map(Time),
        pulled: row.try_get::<_, Option<i64>>(10)?.map(Stamp),
        pulled_shared: row.try_get::<_, Option<i64>>(11)?.map(Stamp),
    })
}

/// Adds a person whose address is not taken; whether it did.
pub(super) async fn add_member(tx: &Tx, m: &Member) -> Done<bool> {
    write_member(tx, ADD_MEMBER, m).await
}

/// Adds or replaces a person.
pub(super) async fn put_member(tx: &Tx, m: &Member) -> Done<()> {
    write_member(tx, PUT_MEMBER, m).await.map(drop)
}

async fn write_member(tx: &Tx, sql: &'static str, m: &Member) -> Done<bool> {
    let params: [&(dyn ToSql + Sync); 6] =
        [&m.email, &m.space.as_str(), &m.role, &m.password_hash, &m.disabled, &m.created_at.0];
    let wrote = tx.execute(sql, &params).await?;
    count(tx).await?;
    Ok(wrote == 1)
}

/// All persons, by e-mail address.
pub(super) async fn members(tx: &Tx) -> Done<Vec<Member>> {
    let read = |row: &Row| {
        Ok(Member {
            email: row.try_get(0)?,
            space: SpaceId::trusted(row.try_get::<_, &str>(1)?),
            role: row.try_get(2)?,
            password_hash: row.try_get(3)?,
            disabled: row.try_get(4)?,
            created_at: Time(row.try_get(5)?),
        })
    };
    tx.query(MEMBERS, &[]).await?.iter().map(read).collect()
}

/// Notes a finished sync.
pub(super) async fn put_run(tx: &Tx, space: i32, run: &SyncRun) -> Done<()> {
    let device = run.device.as_deref();
    let params: [&(dyn ToSql + Sync); 9] = [
        &space,
        &run.started_at.0,
        &run.duration_ms,
        &(codes::of_outcome(run.outcome) as i16),
        &run.pushed.cast_signed(),
        &run.pulled.cast_signed(),
        &run.held.cast_signed(),
        &run.error,
        &device,
    ];
    tx.execute(PUT_RUN, &params).await?;
    count(tx).await
}

/// The latest syncs, this node's own or those of devices, newest first.
pub(super) async fn runs(tx: &Tx, space: i32, limit: usize, of_devices: bool) -> Done<Vec<SyncRun>> {
    let read = |row: &Row| {
        let counted = |at: usize| row.try_get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(SyncRun {
            started_at: Time(row.try_get(0)?),
            duration_ms: row.try_get(1)?,
            outcome: codes::outcome(row.try_get::<_, i16>(2)?.into())?,
            pushed: counted(3)?,
            pulled: counted(4)?,
            held: counted(5)?,
            error: row.try_get(6)?,
            device: row.try_get::<_, Option<String>>(7)?.map(DeviceId::trusted),
        })
    };
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.query(RUNS, &[&space, &most, &of_devices]).await?.iter().map(read).collect()
}

/// A setting.
pub(super) async fn meta(tx: &Tx, name: &str) -> Done<Option<String>> {
    Ok(tx.one(META, &[&name]).await?.map(|row| row.try_get(0)).transpose()?)
}

/// Writes a setting.
pub(super) async fn put_meta(tx: &Tx, name: &str, value: &str) -> Done<()> {
    tx.execute(PUT_META, &[&name, &value]).await?;
    Ok(())
}

/// Writes a setting where it still holds `expected`.
pub(super) async fn swap_meta(
    tx: &Tx,
    name: &str,
    expected: Option<&str>,
    value: &str,
    durability: Durability,
) -> Done<bool> {
    let synced = match durability {
        Durability::Full => "on",
        Durability::Normal => "off",
    };
    let wrote = match expected {
        None => tx.execute(FIRST_META, &[&name, &value, &synced]).await?,
        Some(expected) => tx.execute(NEXT_META, &[&name, &value, &synced, &expected]).await?,
    };
    Ok(wrote == 1)
}
