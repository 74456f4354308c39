//! One connection and its transactions: every one ends in this file, committed or rolled back.

use super::{errors::Done, names::Names};
use crate::asking::{fault, words};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A connection with what it has learned.
pub(super) struct Conn {
    pub(super) db: Connection,
    pub(super) names: Names,
    /// Whether this node has an upstream.
    pub(super) follows: bool,
}

impl Conn {
    pub(super) fn new(db: Connection, follows: bool) -> Self {
        db.set_prepared_statement_cache_capacity(160);
        Self { db, names: Names::default(), follows }
    }

    /// Runs `work` in one write transaction: commits it, or rolls it back on an error or a panic.
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = self.guarded(work).and_then(|done| {
            self.db.prepare_cached("COMMIT")?.execute([])?;
            Ok(done)
        });
        match &done {
            Ok(_) => self.names.keep(),
            Err(_) => self.roll_back(),
        }
        done
    }

    /// The same, but a loss of power may take it. It never overtakes what was committed before.
    pub(super) fn write_unsynced<T>(&mut self, work: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        let usual: i64 = self.db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        let done = self.write(work);
        self.db.pragma_update(None, "synchronous", usual)?;
        done
    }

    /// Runs `work` in one read transaction: everything it reads is of one moment.
    pub(super) fn read<T>(&mut self, work: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        self.db.execute_batch("BEGIN")?;
        let done = self.guarded(work);
        self.roll_back();
        done
    }

    /// Runs `work` as one part of the open transaction, undone alone when it fails.
    pub(super) fn part<T>(&mut self, work: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        let mark = self.names.mark();
        self.db.execute_batch("SAVEPOINT part")?;
        let done = self.guarded(work).and_then(|done| {
            self.db.execute_batch("RELEASE part")?;
            Ok(done)
        });
        if done.is_err() {
            self.names.undo(mark);
            if self.is_open() {
                self.db.execute_batch("ROLLBACK TO part; RELEASE part")?;
            }
        }
        done
    }

    /// Whether a transaction is open: SQLite ends it by itself on some errors (a full disk).
    pub(super) fn is_open(&self) -> bool {
        !self.db.is_autocommit()
    }

    pub(super) fn roll_back(&mut self) {
        self.names.undo(0);
        if self.is_open()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|panic| Err(fault(format!("a transaction panicked: {}", words(&*panic)))))
    }
}
