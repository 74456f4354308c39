//! The limit that a node on PostgreSQL is measured against: the database's own batched upsert of the same rows
//! into one lean table, and its own way to stream rows out.

use crate::bench::{Watch, rate};
use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use std::net::IpAddr;
use tokio_postgres::{Client, Config, NoTls, config::Host};

const TABLE: &str =
    "CREATE TABLE bench_item (seq bigint PRIMARY KEY, id bytea NOT NULL UNIQUE, data text NOT NULL)";
const UPSERT: &str = "INSERT INTO bench_item (seq, id, data)
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[])
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, data = excluded.data";
/// The node's own rows in the feed's order, as the database alone would send them.
const STREAM: &str = "COPY (SELECT collection, id, version, stamp, state, author, person, modified_at, data
  FROM rw_records ORDER BY space, stamp) TO STDOUT";
const TABLES: &str =
    "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
const BYTES: &str =
    "SELECT pg_total_relation_size('rw_records'), pg_total_relation_size('rw_receipts'), count(*)
  FROM rw_records";

/// A bare connection to the database.
pub(super) struct Bare {
    db: Client,
    seq: i64,
}

impl Bare {
    /// Connects to an empty database on this machine: over a network, the network would be measured.
    pub(super) async fn open(url: &str) -> Result<Self> {
        let config: Config = url.parse()?;
        let is_here = |host: &Host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
            Host::Unix(_) => true,
        };
        ensure!(config.get_hosts().iter().all(is_here), "name a database on this machine");
        let (db, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let tables: i64 = db.query_one(TABLES, &[]).await?.get(0);
        ensure!(tables == 0, "the database is in use: name an empty one, the measurement fills it");
        db.batch_execute(TABLE).await?;
        Ok(Self { db, seq: 0 })
    }

    /// Upserts in transactions of `batch` rows. Rows a second.
    pub(super) async fn upsert(&mut self, rows: &[([u8; 16], String)], batch: usize) -> Result<f64> {
        let upsert = self.db.prepare(UPSERT).await?;
        let watch = Watch::start();
        for chunk in rows.chunks(batch) {
            let seqs: Vec<i64> = (self.seq..).take(chunk.len()).collect();
            self.seq += chunk.len() as i64;
            let ids: Vec<&[u8]> = chunk.iter().map(|(id, _)| id.as_slice()).collect();
            let data: Vec<&str> = chunk.iter().map(|(_, data)| data.as_str()).collect();
            self.db.execute(&upsert, &[&seqs, &ids, &data]).await?;
        }
        Ok(rate(rows.len(), watch.elapsed()))
    }

    /// Streams the node's records out. Rows a second.
    pub(super) async fn stream(&self) -> Result<f64> {
        let watch = Watch::start();
        let rows = self.db.copy_out(STREAM).await?;
        let lines = rows.try_fold(0, |lines, piece| async move {
            Ok(lines + piece.iter().filter(|byte| **byte == b'\n').count())
        });
        Ok(rate(lines.await?, watch.elapsed()))
    }

    /// Bytes on disk for each record, indexes included; and for its receipt, which is purged in time.
    pub(super) async fn bytes_per_record(&self) -> Result<(f64, f64)> {
        let row = self.db.query_one(BYTES, &[]).await?;
        let [records, receipts, count] = [0, 1, 2].map(|at| row.get::<_, i64>(at) as f64);
        Ok((records / count, receipts / count))
    }

    /// Removes what it made itself.
    pub(super) async fn close(self) -> Result<()> {
        Ok(self.db.batch_execute("DROP TABLE bench_item").await?)
    }
}
