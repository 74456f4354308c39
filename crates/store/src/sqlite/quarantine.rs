//! Quarantine in the database.

use super::{
    SqliteStore,
    conn::Conn,
    errors::{Done, bad_json},
    space::Space,
};
use crate::{Quarantine, QuarantineEnd, Quarantined, Room, StoreError, codes};
use async_trait::async_trait;
use ropeway_core::{
    change::Change,
    id::{DeviceId, SpaceId},
    time::Time,
};
use rusqlite::Row;

const HELD: &str = "SELECT count(*), coalesce(sum(octet_length(content)), 0) FROM rw_quarantine
  WHERE space = ?1 AND device = ?2 AND ended_at IS NULL";
const THERE: &str = "SELECT 1 FROM rw_quarantine WHERE space = ?1 AND device = ?2 AND change = ?3";
const KEEP: &str = "INSERT INTO rw_quarantine (space, device, change, received_at, content)
  VALUES (?1, ?2, ?3, ?4, ?5)";
const LIST: &str = "SELECT no, device, received_at, ended_at, ended_by, verdict, content FROM rw_quarantine
  WHERE space = ?1 AND no > ?2 ORDER BY no LIMIT ?3";
const END: &str = "UPDATE rw_quarantine SET ended_at = ?3, ended_by = ?4, verdict = ?5
  WHERE space = ?1 AND no = ?2 AND ended_at IS NULL";
const PURGE: &str = "DELETE FROM rw_quarantine WHERE space = ?1 AND ended_at < ?2";

#[async_trait]
impl Quarantine for SqliteStore {
    async fn quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        now: Time,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<u64, StoreError> {
        let (space, device) = (space.clone(), device.clone());
        self.write(move |conn| keep(conn, &space, &device, now, &changes, room)).await
    }

    async fn quarantined(&self, space: &SpaceId, after: i64, limit: usize) -> Done<Vec<Quarantined>> {
        self.read_in(space, move |conn, no| list(conn, no, after, limit)).await
    }

    async fn end_quarantine(&self, space: &SpaceId, ended: Vec<(i64, QuarantineEnd)>) -> Done<u64> {
        let space = space.clone();
        self.write(move |conn| end(conn, &space, &ended)).await
    }

    async fn purge_quarantine(&self, space: &SpaceId, before: Time) -> Done<u64> {
        let space = space.clone();
        let purge = move |conn: &mut Conn| {
            let space = Space::read(conn, &space)?.no;
            Ok(conn.db.prepare_cached(PURGE)?.execute((space, before.0))? as u64)
        };
        self.write(purge).await
    }
}

fn keep(
    conn: &mut Conn,
    space: &SpaceId,
    device: &DeviceId,
    now: Time,
    changes: &[Change],
    room: Room,
) -> Done<u64> {
    let space = Space::read(conn, space)?.no;
    let (mut held, mut bytes): (u64, u64) =
        conn.db.prepare_cached(HELD)?.query_row((space, device.as_str()), |r| {
            Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get::<_, i64>(1)?.cast_unsigned()))
        })?;
    let mut there = 0;
    for change in changes {
        if !conn.db.prepare_cached(THERE)?.exists((space, device.as_str(), change.id.as_str()))? {
            let text = serde_json::to_string(change).map_err(|e| bad_json("a change", e))?;
            (held, bytes) = (held + 1, bytes + text.len() as u64);
            if held > room.changes || bytes > room.bytes {
                break;
            }
            let row = (space, device.as_str(), change.id.as_str(), now.0, text);
            conn.db.prepare_cached(KEEP)?.execute(row)?;
        }
        there += 1;
    }
    Ok(there)
}

fn list(conn: &Conn, space: i64, after: i64, limit: usize) -> Done<Vec<Quarantined>> {
    let mut stmt = conn.db.prepare_cached(LIST)?;
    let mut at = stmt.query((space, after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Done<Quarantined> {
    let content: String = row.get(6)?;
    let ended = match row.get::<_, Option<i64>>(3)? {
        None => None,
        Some(at) => Some(QuarantineEnd {
            at: Time(at),
            by: row.get(4)?,
            verdict: row.get::<_, Option<i64>>(5)?.map(codes::verdict).transpose()?,
        }),
    };
    Ok(Quarantined {
        no: row.get(0)?,
        device: DeviceId::trusted(row.get::<_, String>(1)?),
        change: serde_json::from_str(&content).map_err(|e| bad_json("a change in quarantine", e))?,
        received_at: Time(row.get(2)?),
        ended,
    })
}

fn end(conn: &mut Conn, space: &SpaceId, ended: &[(i64, QuarantineEnd)]) -> Done<u64> {
    let space = Space::read(conn, space)?.no;
    let mut stmt = conn.db.prepare_cached(END)?;
    let mut done = 0;
    for (no, end) in ended {
        let verdict = end.verdict.map(codes::of_verdict);
        done += stmt.execute((space, no, end.at.0, &end.by, verdict))? as u64;
    }
    Ok(done)
}
