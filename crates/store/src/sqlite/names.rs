//! Interned names: device ids, persons, collections and epochs are stored as small integers.

use super::errors::{Done, corrupt};
use rusqlite::{Connection, OptionalExtension};
use std::{collections::HashMap, sync::Arc};

const FIND: &str = "SELECT no FROM rw_names WHERE name = ?1";
const READ: &str = "SELECT name FROM rw_names WHERE no = ?1";
const ADD: &str = "INSERT INTO rw_names (name) VALUES (?1)";

/// One connection's view of `rw_names`. Committed names never change, so what is cached stays true.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<Arc<str>, i64>,
    by_no: HashMap<i64, Arc<str>>,
    /// Added in the open transaction: gone again when it is rolled back.
    fresh: Vec<Arc<str>>,
}

impl Names {
    /// The number of a name, where it has one.
    pub(super) fn find(&mut self, db: &Connection, name: &str) -> Done<Option<i64>> {
        if let Some(no) = self.by_name.get(name) {
            return Ok(Some(*no));
        }
        let found: Option<i64> = db.prepare_cached(FIND)?.query_row([name], |r| r.get(0)).optional()?;
        if let Some(no) = found {
            self.remember(name.into(), no);
        }
        Ok(found)
    }

    /// The number of a name, given to it now where it had none.
    pub(super) fn intern(&mut self, db: &Connection, name: &str) -> Done<i64> {
        if let Some(no) = self.find(db, name)? {
            return Ok(no);
        }
        db.prepare_cached(ADD)?.execute([name])?;
        let no = db.last_insert_rowid();
        let name: Arc<str> = name.into();
        self.fresh.push(name.clone());
        self.remember(name, no);
        Ok(no)
    }

    /// The name behind a number.
    pub(super) fn name(&mut self, db: &Connection, no: i64) -> Done<Arc<str>> {
        if let Some(name) = self.by_no.get(&no) {
            return Ok(name.clone());
        }
        let found: Option<String> = db.prepare_cached(READ)?.query_row([no], |r| r.get(0)).optional()?;
        let name: Arc<str> = found.ok_or_else(|| corrupt(format!("name number {no} is missing")))?.into();
        self.remember(name.clone(), no);
        Ok(name)
    }

    /// How many names the open transaction has added so far.
    pub(super) fn mark(&self) -> usize {
        self.fresh.len()
    }

    /// The transaction is committed.
    pub(super) fn keep(&mut self) {
        self.fresh.clear();
    }

    /// What was added since `mark` is rolled back.
    pub(super) fn undo(&mut self, mark: usize) {
        for name in self.fresh.drain(mark..) {
            if let Some(no) = self.by_name.remove(&name) {
                self.by_no.remove(&no);
            }
        }
    }

    fn remember(&mut self, name: Arc<str>, no: i64) {
        self.by_no.insert(no, name.clone());
        self.by_name.insert(name, no);
    }
}
