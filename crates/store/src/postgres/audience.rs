//! Audience rows and subscriptions: written with a plan, read for decisions and for readers.

use super::{
    conn::{Tx, together},
    errors::Done,
    load, rows,
    space::Space,
};
use crate::{SpaceState, reading::Shelf};
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    digest::Digest,
    id::{Collection, DeviceId, Key, RecordId},
    limits,
    plan::{Fed, Plan},
    time::Stamp,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Row, types::ToSql};

/// No child is the empty name: a null could be no part of a key.
macro_rules! columns {
    () => {
        "a.collection, a.record, a.audience, a.via_collection, a.via, a.entered, a.left_at"
    };
}
const OF_RECORDS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM unnest($2::text[], $3::text[]) AS k (collection, record) CROSS JOIN LATERAL (SELECT *
      FROM rw_audiences a WHERE a.space = $1 AND a.collection = k.collection AND a.record = k.record OFFSET 0) a"
);
const ENTERED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rw_audiences a WHERE a.space = $1 AND a.audience = ANY ($2::text[]) AND a.entered > $3
      AND a.entered <= $4 ORDER BY a.entered LIMIT $5"
);
const LEFT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM rw_audiences a WHERE a.space = $1 AND a.left_at > $2
      AND ($3::text[] IS NULL OR a.audience = ANY ($3::text[])) ORDER BY a.left_at LIMIT $4"
);
const PUT: &str = "INSERT INTO rw_audiences
  (space, collection, record, audience, via_collection, via, entered, left_at)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
  $8::bigint[]) AS n
  ON CONFLICT (space, collection, record, audience, via_collection, via) WHERE record IS NOT NULL
  DO UPDATE SET entered = excluded.entered, left_at = excluded.left_at";
const NO_SIGHTS: &str = "DELETE FROM rw_sights WHERE space = $1";
const SOME_SIGHTS: &str =
    "SELECT sight, count, sum FROM rw_sights WHERE space = $1 AND sight = ANY ($2::text[])";
const SIGHTS: &str = "SELECT sight, count, sum FROM rw_sights WHERE space = $1 AND count <> 0";
const PUT_SIGHTS: &str = "INSERT INTO rw_sights (space, sight, count, sum)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS n
  ON CONFLICT (space, sight) DO UPDATE SET count = excluded.count, sum = excluded.sum";
const OF_READERS: &str =
    "SELECT reader, audience, via_collection, via, entered, left_at FROM rw_subscriptions
  WHERE space = $1 AND reader = ANY ($2::text[]) ORDER BY entered";
const SUBSCRIBE: &str = "INSERT INTO rw_subscriptions
  (space, reader, audience, via_collection, via, entered, left_at)
  SELECT $1::int, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
  AS n ON CONFLICT (space, reader, audience, via_collection, via)
  DO UPDATE SET entered = excluded.entered, left_at = excluded.left_at";
const NEWER: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM rw_records r WHERE r.space = $1 AND r.stamp > $2
      AND ($3::text[] IS NULL OR r.collection = ANY ($3::text[])
        OR EXISTS (SELECT 1 FROM rw_audiences a WHERE a.space = r.space AND a.collection = r.collection
          AND a.record = r.id AND a.left_at IS NULL AND a.audience = ANY ($4::text[])))
      ORDER BY r.stamp LIMIT $5"
);
const FED: &str = concat!(
    "SELECT ",
    rows::fed_columns!(),
    " FROM unnest($2::text[], $3::text[]) AS k (collection, id) CROSS JOIN LATERAL (SELECT *
      FROM rw_records r WHERE r.space = $1 AND r.collection = k.collection AND r.id = k.id OFFSET 0) r"
);
/// Writes what a plan moves.
pub(super) async fn apply(tx: &Tx, space: i32, plan: &Plan) -> Done<()> {
    together!(
        rows: rows(tx, space, plan),
        sights: sights(tx, space, plan),
        readers: subscribe(tx, space, plan),
    )?;
    Ok(())
}

/// One statement writes a row once: of several that say something about it the last one counts.
async fn rows(tx: &Tx, space: i32, plan: &Plan) -> Done<()> {
    let mut last = BTreeMap::new();
    for row in plan.audiences_moved.iter().chain(&plan.audiences) {
        last.insert((&row.record, &row.audience, &row.via), row);
    }
    if last.is_empty() {
        return Ok(());
    }
    let rows: Vec<&AudienceRow> = last.into_values().collect();
    let (collections, records) = load::columns(rows.iter().map(|row| &row.record));
    let audiences: Vec<&str> = rows.iter().map(|row| row.audience.as_str()).collect();
    let (via_collections, vias) = children(rows.iter().map(|row| row.via.as_ref()));
    let entered: Vec<i64> = rows.iter().map(|row| row.entered.0).collect();
    let left: Vec<Option<i64>> = rows.iter().map(|row| row.left.map(|l| l.0)).collect();
    let params: [&(dyn ToSql + Sync); 8] =
        [&space, &collections, &records, &audiences, &via_collections, &vias, &entered, &left];
    tx.execute(PUT, &params).await?;
    Ok(())
}

/// Sums wrap, which no sum of the database does.
async fn sights(tx: &Tx, space: i32, plan: &Plan) -> Done<()> {
    if plan.sights_anew {
        tx.execute(NO_SIGHTS, &[&space]).await?;
    }
    if plan.sights.is_empty() {
        return Ok(());
    }
    let asked: Vec<&str> = plan.sights.keys().map(String::as_str).collect();
    let was: BTreeMap<String, Digest> =
        tx.query(SOME_SIGHTS, &[&space, &asked]).await?.iter().map(sight).collect::<Done<_>>()?;
    let (mut counts, mut sums) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
    for (name, moved) in &plan.sights {
        let was = was.get(name).copied().unwrap_or_default();
        counts.push(was.count + moved.count);
        sums.push(was.sum.wrapping_add(moved.sum));
    }
    tx.execute(PUT_SIGHTS, &[&space, &asked, &counts, &sums]).await?;
    Ok(())
}

async fn subscribe(tx: &Tx, space: i32, plan: &Plan) -> Done<()> {
    let mut last = BTreeMap::new();
    for one in &plan.subscriptions {
        last.insert((&one.reader, &one.audience, &one.via), one);
    }
    if last.is_empty() {
        return Ok(());
    }
    let all: Vec<&Subscription> = last.into_values().collect();
    let readers: Vec<&str> = all.iter().map(|one| one.reader.as_str()).collect();
    let audiences: Vec<&str> = all.iter().map(|one| one.audience.as_str()).collect();
    let (via_collections, vias) = children(all.iter().map(|one| one.via.as_ref()));
    let entered: Vec<i64> = all.iter().map(|one| one.entered.0).collect();
    let left: Vec<Option<i64>> = all.iter().map(|one| one.left.map(|l| l.0)).collect();
    let params: [&(dyn ToSql + Sync); 7] =
        [&space, &readers, &audiences, &via_collections, &vias, &entered, &left];
    tx.execute(SUBSCRIBE, &params).await?;
    Ok(())
}

fn children<'a>(via: impl Iterator<Item = Option<&'a Key>>) -> (Vec<&'a str>, Vec<&'a str>) {
    via.map(|key| key.map_or(("", ""), |key| (&*key.collection, &*key.id))).unzip()
}

/// The audience rows of these records, those that left included.
pub(super) async fn rows_of(tx: &Tx, space: i32, keys: impl Iterator<Item = &Key>) -> Done<Vec<AudienceRow>> {
    let (collections, records) = load::columns(keys);
    if records.is_empty() {
        return Ok(Vec::new());
    }
    tx.query(OF_RECORDS, &[&space, &collections, &records]).await?.iter().map(row).collect()
}

/// The subscriptions of these readers, ended ones included, oldest first.
pub(super) async fn subscriptions(
    tx: &Tx,
    space: i32,
    readers: impl Iterator<Item = &DeviceId>,
) -> Done<Vec<Subscription>> {
    let readers: Vec<&str> = readers.map(|id| id.as_str()).collect();
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let read = |row: &Row| {
        Ok(Subscription {
            reader: DeviceId::trusted(row.try_get::<_, &str>(0)?),
            audience: row.try_get(1)?,
            via: child(row, 2)?,
            entered: Stamp(row.try_get(4)?),
            left: row.try_get::<_, Option<i64>>(5)?.map(Stamp),
        })
    };
    tx.query(OF_READERS, &[&space, &readers]).await?.iter().map(read).collect()
}

fn row(row: &Row) -> Done<AudienceRow> {
    let (collection, id): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
    Ok(AudienceRow {
        record: Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) },
        audience: row.try_get(2)?,
        via: child(row, 3)?,
        entered: Stamp(row.try_get(5)?),
        left: row.try_get::<_, Option<i64>>(6)?.map(Stamp),
    })
}

fn child(row: &Row, at: usize) -> Done<Option<Key>> {
    let (collection, id): (&str, &str) = (row.try_get(at)?, row.try_get(at + 1)?);
    let key = || Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) };
    Ok((!id.is_empty()).then(key))
}

fn sight(row: &Row) -> Done<(String, Digest)> {
    Ok((row.try_get(0)?, Digest { count: row.try_get(1)?, sum: row.try_get(2)? }))
}

/// A space as a reader's page is put together from it, in one read transaction. What a list names is read
/// with the list: a page costs a few round trips, not some for each of its rows.
pub(super) struct Open<'t> {
    tx: &'t Tx,
    space: Space,
    rows: BTreeMap<Key, Vec<AudienceRow>>,
    records: BTreeMap<Key, Option<Fed>>,
}

impl<'t> Open<'t> {
    /// A space of which nothing is read yet.
    pub(super) fn new(tx: &'t Tx, space: Space) -> Self {
        Self { tx, space, rows: BTreeMap::new(), records: BTreeMap::new() }
    }

    /// Reads records and all their audience rows ahead.
    async fn fetch(&mut self, keys: impl Iterator<Item = &Key>) -> Done<()> {
        let keys: BTreeSet<&Key> = keys.filter(|key| !self.records.contains_key(*key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (collections, ids) = load::columns(keys.iter().copied());
        let params: [&(dyn ToSql + Sync); 3] = [&self.space.no, &collections, &ids];
        let (worn, records) = together!(
            worn: rows_of(self.tx, self.space.no, keys.iter().copied()),
            records: self.tx.query(FED, &params),
        )?;
        for key in keys {
            self.rows.insert(key.clone(), Vec::new());
            self.records.insert(key.clone(), None);
        }
        for row in worn {
            self.rows.entry(row.record.clone()).or_default().push(row);
        }
        for row in &records {
            let fed = rows::fed(row)?;
            self.records.insert(fed.key.clone(), Some(fed));
        }
        Ok(())
    }

    async fn list(&mut self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Done<Vec<AudienceRow>> {
        let found: Vec<AudienceRow> =
            self.tx.query(sql, params).await?.iter().map(row).collect::<Done<_>>()?;
        self.fetch(found.iter().map(|row| &row.record)).await?;
        Ok(found)
    }
}

impl Shelf for Open<'_> {
    fn state(&self) -> SpaceState {
        self.space.state()
    }

    async fn subscriptions(&mut self, reader: &DeviceId) -> Done<Vec<Subscription>> {
        subscriptions(self.tx, self.space.no, [reader].into_iter()).await
    }

    async fn newer(
        &mut self,
        after: Stamp,
        open: Option<&[Collection]>,
        keys: &BTreeSet<String>,
        limit: usize,
    ) -> Done<Vec<Fed>> {
        let open: Option<Vec<&str>> = open.map(|open| open.iter().map(|c| c.as_str()).collect());
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.tx.query(NEWER, &[&self.space.no, &after.0, &open, &keys, &most]).await?;
        let (mut found, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        for row in &rows {
            let fed = rows::fed(row)?;
            bytes += fed.data.text().len();
            found.push(fed);
            // One more than the page takes: it shows that the page does not reach the head.
            if bytes > limits::PAGE_BYTES_MAX * 2 {
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
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (space, most) = (self.space.no, i64::try_from(limit).unwrap_or(i64::MAX));
        self.list(ENTERED, &[&space, &keys, &after.0, &upto.0, &most]).await
    }

    async fn left(
        &mut self,
        keys: Option<&BTreeSet<String>>,
        after: Stamp,
        limit: usize,
    ) -> Done<Vec<AudienceRow>> {
        let keys: Option<Vec<&str>> = keys.map(|keys| keys.iter().map(String::as_str).collect());
        let (space, most) = (self.space.no, i64::try_from(limit).unwrap_or(i64::MAX));
        self.list(LEFT, &[&space, &after.0, &keys, &most]).await
    }

    async fn rows_of(&mut self, record: &Key) -> Done<Vec<AudienceRow>> {
        self.fetch([record].into_iter()).await?;
        Ok(self.rows.get(record).cloned().unwrap_or_default())
    }

    async fn record(&mut self, key: &Key) -> Done<Option<Fed>> {
        self.fetch([key].into_iter()).await?;
        Ok(self.records.get(key).cloned().flatten())
    }

    async fn sights(&mut self) -> Done<Vec<(String, Digest)>> {
        self.tx.query(SIGHTS, &[&self.space.no]).await?.iter().map(sight).collect()
    }
}
