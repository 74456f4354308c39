//! Audience rows and subscriptions: written with a plan, read for decisions and for readers.

use super::{conn::Conn, errors::Done, rows, space::Space};
use crate::reading::Shelf;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    digest::Digest,
    id::{Collection, DeviceId, Key, RecordId},
    plan::{Fed, Plan},
    time::Stamp,
};
use rusqlite::{Params, Row};
use std::collections::BTreeSet;

macro_rules! columns {
    () => {
        "SELECT collection, record, audience, via_collection, via, entered, left_at FROM rw_audiences "
    };
}
const OF_RECORD: &str = concat!(columns!(), "WHERE space = ?1 AND collection = ?2 AND record = ?3");
const ENTERED: &str = concat!(
    columns!(),
    "WHERE space = ?1 AND audience IN (SELECT value FROM json_each(?2)) AND entered > ?3 AND entered <= ?4
     ORDER BY entered LIMIT ?5"
);
const LEFT: &str = concat!(
    columns!(),
    "WHERE space = ?1 AND left_at > ?2 AND (?3 IS NULL OR audience IN (SELECT value FROM json_each(?3)))
     ORDER BY left_at LIMIT ?4"
);
const AGAIN: &str = "UPDATE rw_audiences SET entered = ?7, left_at = ?8 WHERE space = ?1 AND collection = ?2
  AND record = ?3 AND audience = ?4 AND via_collection IS ?5 AND via IS ?6";
const ADD: &str = "INSERT INTO rw_audiences
  (space, collection, record, audience, via_collection, via, entered, left_at)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const NO_SIGHTS: &str = "DELETE FROM rw_sights WHERE space = ?1";
const SIGHT: &str = "INSERT INTO rw_sights (space, sight, count, sum) VALUES (?1, ?2, ?3, ?4)
  ON CONFLICT (space, sight) DO UPDATE SET count = ?3, sum = ?4";
const ONE_SIGHT: &str = "SELECT count, sum FROM rw_sights WHERE space = ?1 AND sight = ?2";
const SIGHTS: &str = "SELECT sight, count, sum FROM rw_sights WHERE space = ?1 AND count <> 0";
const OF_READER: &str = "SELECT audience, via_collection, via, entered, left_at FROM rw_subscriptions
  WHERE space = ?1 AND reader = ?2 ORDER BY entered";
const SUBSCRIBE_AGAIN: &str = "UPDATE rw_subscriptions SET entered = ?6, left_at = ?7 WHERE space = ?1
  AND reader = ?2 AND audience = ?3 AND via_collection IS ?4 AND via IS ?5";
const SUBSCRIBE: &str = "INSERT INTO rw_subscriptions
  (space, reader, audience, via_collection, via, entered, left_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// The `+` keeps the planner on the index in stamp order.
const NEWER: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records AS r WHERE space = ?1 AND stamp > ?2
      AND (?3 IS NULL OR +collection IN (SELECT value FROM json_each(?3))
        OR EXISTS (SELECT 1 FROM rw_audiences AS a WHERE a.space = r.space AND a.collection = r.collection
          AND a.record = r.id AND a.left_at IS NULL AND a.audience IN (SELECT value FROM json_each(?4))))
      ORDER BY stamp LIMIT ?5"
);
const ONE: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records WHERE space = ?1 AND collection = ?2 AND id = ?3"
);
/// Writes what a plan moves.
pub(super) fn apply(conn: &mut Conn, space: i64, plan: &Plan) -> Done<()> {
    let Conn { db, names, .. } = conn;
    let moved = plan.audiences_moved.iter().map(|row| (row, AGAIN));
    for (row, sql) in moved.chain(plan.audiences.iter().map(|row| (row, ADD))) {
        let collection = names.intern(db, &row.record.collection)?;
        let audience = names.intern(db, &row.audience)?;
        let via = row.via.as_ref().map(|v| names.intern(db, &v.collection)).transpose()?;
        let bound = (
            space,
            collection,
            row.record.id.as_str(),
            audience,
            via,
            row.via.as_ref().map(|v| v.id.as_str()),
            row.entered.0,
            row.left.map(|l| l.0),
        );
        db.prepare_cached(sql)?.execute(bound)?;
    }
    if plan.sights_anew {
        db.prepare_cached(NO_SIGHTS)?.execute((space,))?;
    }
    for (sight, moved) in &plan.sights {
        let Digest { count, sum } = one_sight(db, space, sight)?;
        let row = (space, sight, count + moved.count, sum.wrapping_add(moved.sum));
        db.prepare_cached(SIGHT)?.execute(row)?;
    }
    for one in &plan.subscriptions {
        let reader = names.intern(db, &one.reader)?;
        let audience = names.intern(db, &one.audience)?;
        let via = one.via.as_ref().map(|v| names.intern(db, &v.collection)).transpose()?;
        let id = one.via.as_ref().map(|v| v.id.as_str());
        let bound = (space, reader, audience, via, id, one.entered.0, one.left.map(|l| l.0));
        if db.prepare_cached(SUBSCRIBE_AGAIN)?.execute(bound)? == 0 {
            db.prepare_cached(SUBSCRIBE)?.execute(bound)?;
        }
    }
    Ok(())
}

fn one_sight(db: &rusqlite::Connection, space: i64, sight: &str) -> Done<Digest> {
    let mut stmt = db.prepare_cached(ONE_SIGHT)?;
    let mut found = stmt.query((space, sight))?;
    Ok(match found.next()? {
        Some(row) => Digest { count: row.get(0)?, sum: row.get(1)? },
        None => Digest::default(),
    })
}

/// A record's audience rows, those that left included.
pub(super) fn rows_of(conn: &mut Conn, space: i64, record: &Key) -> Done<Vec<AudienceRow>> {
    let Some(collection) = conn.names.find(&conn.db, &record.collection)? else { return Ok(Vec::new()) };
    read(conn, OF_RECORD, (space, collection, record.id.as_str()))
}

/// A reader's subscriptions, ended ones included.
pub(super) fn subscriptions(conn: &mut Conn, space: i64, reader: &DeviceId) -> Done<Vec<Subscription>> {
    let Conn { db, names, .. } = conn;
    let Some(no) = names.find(db, reader)? else { return Ok(Vec::new()) };
    let mut stmt = db.prepare_cached(OF_READER)?;
    let mut at = stmt.query((space, no))?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        let via: Option<i64> = row.get(1)?;
        let via = via.map(|v| names.name(db, v)).transpose()?;
        let id: Option<String> = row.get(2)?;
        found.push(Subscription {
            reader: reader.clone(),
            audience: names.name(db, row.get(0)?)?.to_string(),
            via: via
                .zip(id)
                .map(|(c, id)| Key { collection: Collection::trusted(c), id: RecordId::trusted(id) }),
            entered: Stamp(row.get(3)?),
            left: row.get::<_, Option<i64>>(4)?.map(Stamp),
        });
    }
    Ok(found)
}

fn read(conn: &mut Conn, sql: &str, params: impl Params) -> Done<Vec<AudienceRow>> {
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(sql)?;
    let mut at = stmt.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = at.next()? {
        found.push(audience_row(db, names, row)?);
    }
    Ok(found)
}

fn audience_row(
    db: &rusqlite::Connection,
    names: &mut super::names::Names,
    row: &Row<'_>,
) -> Done<AudienceRow> {
    let key = |names: &mut super::names::Names, collection: i64, id: std::sync::Arc<str>| -> Done<Key> {
        Ok(Key { collection: Collection::trusted(names.name(db, collection)?), id: RecordId::trusted(id) })
    };
    let via = match row.get::<_, Option<i64>>(3)? {
        Some(collection) => Some(key(names, collection, rows::text(row, 4)?)?),
        None => None,
    };
    Ok(AudienceRow {
        record: key(names, row.get(0)?, rows::text(row, 1)?)?,
        audience: names.name(db, row.get(2)?)?.to_string(),
        via,
        entered: Stamp(row.get(5)?),
        left: row.get::<_, Option<i64>>(6)?.map(Stamp),
    })
}

/// A space as a reader's page is put together from it, in one read transaction.
pub(super) struct Open<'c> {
    pub(super) conn: &'c mut Conn,
    pub(super) space: Space,
}

impl Open<'_> {
    /// The numbers of keys as a JSON list; those never seen carry nothing.
    fn numbers(&mut self, keys: &BTreeSet<String>) -> Done<String> {
        let Conn { db, names, .. } = &mut *self.conn;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.extend(names.find(db, key)?);
        }
        rows::to_json(&found, "keys")
    }
}

impl Shelf for Open<'_> {
    fn state(&self) -> crate::SpaceState {
        self.space.state()
    }

    async fn subscriptions(&mut self, reader: &DeviceId) -> Done<Vec<Subscription>> {
        subscriptions(self.conn, self.space.no, reader)
    }

    async fn newer(
        &mut self,
        after: Stamp,
        open: Option<&[Collection]>,
        keys: &BTreeSet<String>,
        limit: usize,
    ) -> Done<Vec<Fed>> {
        let audiences = self.numbers(keys)?;
        let Conn { db, names, .. } = &mut *self.conn;
        let mut numbers = None;
        if let Some(open) = open {
            let mut found = Vec::with_capacity(open.len());
            for collection in open {
                found.extend(names.find(db, collection)?);
            }
            numbers = Some(rows::to_json(&found, "collections")?);
        }
        let mut stmt = db.prepare_cached(NEWER)?;
        let mut at = stmt.query((self.space.no, after.0, numbers, audiences, limit as i64))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = at.next()? {
            let fed = rows::fed(db, names, row)?;
            bytes += fed.data.text().len();
            found.push(fed);
            // One more than the page takes: it shows that the page does not reach the head.
            if bytes > ropeway_core::limits::PAGE_BYTES_MAX * 2 {
                break;
            }
        }
        Ok(found)
    }

    async fn entered(
        &mut self,
        keys: &BTreeSet<String>,
        after: Stamp,
        upto: Stamp,
        limit: usize,
    ) -> Done<Vec<AudienceRow>> {
        let keys = self.numbers(keys)?;
        read(self.conn, ENTERED, (self.space.no, keys, after.0, upto.0, limit as i64))
    }

    async fn left(
        &mut self,
        keys: Option<&BTreeSet<String>>,
        after: Stamp,
        limit: usize,
    ) -> Done<Vec<AudienceRow>> {
        let keys = keys.map(|keys| self.numbers(keys)).transpose()?;
        read(self.conn, LEFT, (self.space.no, after.0, keys, limit as i64))
    }

    async fn rows_of(&mut self, record: &Key) -> Done<Vec<AudienceRow>> {
        rows_of(self.conn, self.space.no, record)
    }

    async fn record(&mut self, key: &Key) -> Done<Option<Fed>> {
        let Conn { db, names, .. } = &mut *self.conn;
        let Some(collection) = names.find(db, &key.collection)? else { return Ok(None) };
        let mut stmt = db.prepare_cached(ONE)?;
        let mut at = stmt.query((self.space.no, collection, key.id.as_str()))?;
        match at.next()? {
            Some(row) => Ok(Some(rows::fed(db, names, row)?)),
            None => Ok(None),
        }
    }

    async fn sights(&mut self) -> Done<Vec<(String, Digest)>> {
        let mut stmt = self.conn.db.prepare_cached(SIGHTS)?;
        let read = |r: &Row<'_>| Ok((r.get(0)?, Digest { count: r.get(1)?, sum: r.get(2)? }));
        Ok(stmt.query_map([self.space.no], read)?.collect::<Result<_, _>>()?)
    }
}
