//! Which data this is: another server, another timeline of it after a failover, or a copy in another database
//! may lack what was acknowledged before, so each begins a new epoch, like a restored backup.

use super::{
    conn::{How, Tx},
    epoch,
    errors::{Done, corrupt},
    registry,
};
use crate::PROMOTED;
use deadpool_postgres::Object;
use ropeway_core::{digest::hash64, id::Epoch, time::Time};
use tokio_postgres::Client;

/// Where it stands in this node's settings.
const NAME: &str = "@lineage";
/// The cluster, its timeline, and the database in it.
const LOOK: &str = "SELECT s.system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
  || '/' || d.oid FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()";
/// By the server's clock: a process that has run for long knows no other.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const NOTED: &str = "SELECT value FROM rw_meta WHERE name = $1";
const NOTE: &str = "INSERT INTO rw_meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
/// Locked, so that of several servers that notice it one begins the epoch.
const HOLD: &str = "SELECT value FROM rw_meta WHERE name = $1 FOR UPDATE";
const MOVE: &str = "UPDATE rw_meta SET value = $2 WHERE name = $1";

/// What the database is now. `None` where it does not tell: other engines, or a user who may not ask.
pub(super) async fn look(client: &Client) -> Option<String> {
    let row = client.query_one(LOOK, &[]).await;
    let told = row.and_then(|row| row.try_get(0));
    told.inspect_err(|error| tracing::debug!(%error, "the database does not tell which one it is")).ok()
}

/// Whether the database is the one that was noted; notes it where nothing is.
pub(super) async fn is_same(client: &Client, now_is: &str) -> Done<bool> {
    if let Some(row) = client.query_opt(NOTED, &[&NAME]).await? {
        return Ok(row.try_get::<_, &str>(0)? == now_is);
    }
    client.execute(NOTE, &[&NAME, &now_is]).await?;
    Ok(true)
}

/// Begins an epoch where the database is another one than noted. `seed` is drawn by this process alone.
pub(super) async fn begin(client: Object, now_is: &str, seed: &str) -> Done<()> {
    let tx = Tx::on(client, How::Write);
    let began = async {
        let row =
            tx.one(HOLD, &[&NAME]).await?.ok_or_else(|| corrupt("it is not noted which data this is"))?;
        let noted: String = row.try_get(0)?;
        if noted != now_is {
            tracing::warn!(noted, now_is, "the database is another one than before: a new epoch begins");
            let next = format!("{seed}.{:x}", hash64(now_is.as_bytes()));
            let clock = tx.one(NOW, &[]).await?.ok_or_else(|| corrupt("the server has no clock"))?;
            if is_promotion(&noted, now_is) {
                registry::put_meta(&tx, PROMOTED, &next).await?;
            }
            epoch::begin(&tx, &Epoch::trusted(next), Time(clock.try_get(0)?), false).await?;
            tx.execute(MOVE, &[&NAME, &now_is]).await?;
        }
        Ok(())
    };
    let began = began.await;
    tx.end(began).await
}

/// Whether only the timeline is another. A database on another cluster, or another one there, may be a copy
/// beside one that goes on.
fn is_promotion(noted: &str, now_is: &str) -> bool {
    let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    match (parts(noted).as_slice(), parts(now_is).as_slice()) {
        ([cluster, was, database], [now_cluster, is, now_database]) => {
            cluster == now_cluster && database == now_database && was != is
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_timeline_is_a_promotion() {
        let was = "7123/00000001/16384";
        assert!(is_promotion(was, "7123/00000002/16384"));
        for other in [was, "7124/00000002/16384", "7123/00000002/16385", "7123/00000001/16385", ""] {
            assert!(!is_promotion(was, other), "{other}");
        }
    }
}
