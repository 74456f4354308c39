//! The limit that everything is measured against: SQLite's own batched upsert of the same rows into one
//! lean, tuned table, with the same durability, in the same run.

use super::{Measure, rows};
use anyhow::Result;
use ropeway_core::doc::Doc;
use rusqlite::Connection;
use std::{path::Path, time::Duration};

const SETUP: &str = "
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 10000; PRAGMA temp_store = MEMORY;
CREATE TABLE item (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, data TEXT NOT NULL);";
const UPSERT: &str = "INSERT INTO item (seq, id, data) VALUES (?1, ?2, ?3)
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, data = excluded.data";

/// What a batched upsert into a lean table was measured to do when the targets were set, in rows a second. A
/// compiled loop does three to four times that on the same machine (ADR 0010), so both are printed.
pub(super) const PLANNED: f64 = 120_000.0;

/// The same figure against the limit that its target was set with.
pub(super) fn against_planned(planned: f64, ours: f64, unit: &'static str, at_least: f64) -> Measure {
    let (name, ratio) = ("the same against the limit of the plan", ours / planned);
    let target = format!("≥ {at_least:.2}");
    Measure { name, ours, limit: Some(planned), unit, ratio: Some(ratio), target, met: ratio >= at_least }
}

/// A bare database.
pub(super) struct Bare {
    db: Connection,
    seq: i64,
}

impl Bare {
    /// Opens one.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let db = Connection::open(path)?;
        db.execute_batch(SETUP)?;
        Ok(Self { db, seq: 0 })
    }

    /// Rows ready to bind, so that only the database is measured.
    pub(super) fn rows(run: u64, count: usize) -> Vec<([u8; 16], String)> {
        (0..count)
            .map(|n| {
                let hash = blake3::hash(rows::id(run, n).as_bytes());
                let mut id = [0; 16];
                id.copy_from_slice(&hash.as_bytes()[..16]);
                // Ordered by time like a UUIDv7.
                id[..8].copy_from_slice(&rows::moment(run, n).to_be_bytes());
                (id, Doc::of(rows::fields(run, n)).text().to_owned())
            })
            .collect()
    }

    /// Upserts in transactions of `batch` rows. How long it took.
    pub(super) fn upsert(&mut self, rows: &[([u8; 16], String)], batch: usize) -> Result<Duration> {
        let watch = super::Watch::start();
        for chunk in rows.chunks(batch) {
            let tx = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            {
                let mut stmt = tx.prepare_cached(UPSERT)?;
                for (id, data) in chunk {
                    self.seq += 1;
                    stmt.execute((self.seq, id.as_slice(), data))?;
                }
            }
            tx.commit()?;
        }
        Ok(watch.elapsed())
    }
}
