//! Quarantine in the database.

use super::{
    PostgresStore,
    conn::Tx,
    errors::{Done, bad_json},
    registry,
    space::Space,
};
use crate::{Quarantine, QuarantineEnd, Quarantined, Room, StoreError, codes};
use async_trait::async_trait;
use ropeway_core::{
    change::Change,
    id::{DeviceId, SpaceId},
    time::Time,
};
use tokio_postgres::Row;

const HELD: &str = "SELECT count(*), coalesce(sum(octet_length(content)), 0)::bigint FROM rw_quarantine
  WHERE space = $1 AND device = $2 AND ended_at IS NULL";
const THERE: &str = "SELECT 1 FROM rw_quarantine WHERE space = $1 AND device = $2 AND change = $3";
const KEEP: &str = "INSERT INTO rw_quarantine (space, no, device, change, received_at, content)
  SELECT $1::int, coalesce(max(no), 0) + 1, $2, $3, $4, $5 FROM rw_quarantine WHERE space = $1::int";
const LIST: &str = "SELECT no, device, received_at, ended_at, ended_by, verdict, content FROM rw_quarantine
  WHERE space = $1 AND no > $2 ORDER BY no LIMIT $3";
const END: &str = "UPDATE rw_quarantine SET ended_at = $3, ended_by = $4, verdict = $5
  WHERE space = $1 AND no = $2 AND ended_at IS NULL";
const PURGE: &str = "DELETE FROM rw_quarantine WHERE space = $1 AND ended_at < $2";

/// What a device hands in.
struct Handed {
    space: SpaceId,
    device: DeviceId,
    now: Time,
    changes: Vec<Change>,
    room: Room,
}

#[async_trait]
impl Quarantine for PostgresStore {
    async fn quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        now: Time,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<u64, StoreError> {
        let handed = Handed { space: space.clone(), device: device.clone(), now, changes, room };
        self.db.write(handed, |tx, handed| Box::pin(keep(tx, handed))).await
    }

    async fn quarantined(&self, space: &SpaceId, after: i64, limit: usize) -> Done<Vec<Quarantined>> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db
            .read((space.clone(), after, most), |tx, (space, after, most)| {
                Box::pin(async move {
                    let space = Space::read(tx, space).await?.no;
                    tx.query(LIST, &[&space, after, most]).await?.iter().map(read).collect()
                })
            })
            .await
    }

    async fn end_quarantine(&self, space: &SpaceId, ended: Vec<(i64, QuarantineEnd)>) -> Done<u64> {
        self.db.write((space.clone(), ended), |tx, (space, ended)| Box::pin(end(tx, space, ended))).await
    }

    async fn purge_quarantine(&self, space: &SpaceId, before: Time) -> Done<u64> {
        self.db
            .write((space.clone(), before), |tx, (space, before)| {
                Box::pin(async move {
                    let space = Space::lock(tx, space).await?.no;
                    tx.execute(PURGE, &[&space, &before.0]).await
                })
            })
            .await
    }
}

async fn keep(tx: &Tx, handed: &Handed) -> Done<u64> {
    let Handed { space, device, now, changes, room } = handed;
    let space = Space::lock(tx, space).await?.no;
    let (mut held, mut bytes) = match tx.one(HELD, &[&space, &device.as_str()]).await? {
        Some(row) => (row.try_get::<_, i64>(0)?.cast_unsigned(), row.try_get::<_, i64>(1)?.cast_unsigned()),
        None => (0, 0),
    };
    let mut there = 0;
    for change in changes {
        if tx.one(THERE, &[&space, &device.as_str(), &change.id.as_str()]).await?.is_none() {
            let text = serde_json::to_string(change).map_err(|e| bad_json("a change", e))?;
            (held, bytes) = (held + 1, bytes + text.len() as u64);
            if held > room.changes || bytes > room.bytes {
                break;
            }
            tx.execute(KEEP, &[&space, &device.as_str(), &change.id.as_str(), &now.0, &text]).await?;
        }
        there += 1;
    }
    registry::count(tx).await?;
    Ok(there)
}

fn read(row: &Row) -> Done<Quarantined> {
    let content: &str = row.try_get(6)?;
    let ended = match row.try_get::<_, Option<i64>>(3)? {
        None => None,
        Some(at) => Some(QuarantineEnd {
            at: Time(at),
            by: row.try_get(4)?,
            verdict: row.try_get::<_, Option<i16>>(5)?.map(|v| codes::verdict(v.into())).transpose()?,
        }),
    };
    Ok(Quarantined {
        no: row.try_get(0)?,
        device: DeviceId::trusted(row.try_get::<_, &str>(1)?),
        change: serde_json::from_str(content).map_err(|e| bad_json("a change in quarantine", e))?,
        received_at: Time(row.try_get(2)?),
        ended,
    })
}

async fn end(tx: &Tx, space: &SpaceId, ended: &[(i64, QuarantineEnd)]) -> Done<u64> {
    let space = Space::lock(tx, space).await?.no;
    let mut done = 0;
    for (no, end) in ended {
        let verdict = end.verdict.map(|verdict| codes::of_verdict(verdict) as i16);
        done += tx.execute(END, &[&space, no, &end.at.0, &end.by, &verdict]).await?;
    }
    registry::count(tx).await?;
    Ok(done)
}
