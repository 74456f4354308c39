//! Forgetting what no live reader can ask about any more, a bounded step at a time.

use super::{apply::PRINTS_GONE, conn::Tx, errors::Done, rows, space::Space};
use crate::purge::{Purged, RUNS_KEPT, Walk};
use ropeway_core::{id::SpaceId, retention::Lines, time::Stamp};
use tokio_postgres::Row;

/// Nothing may be laid over the row that goes: an unsettled entry, or what the upstream last said.
const TOMBSTONES: &str = "SELECT r.stamp, r.version, r.collection, r.id,
    r.up_held IS NULL AND NOT r.contested AND NOT EXISTS (
    SELECT 1 FROM rw_outbox o WHERE o.space = $1 AND o.state = ANY ('{0,1,2,3,4}')
    AND o.collection = r.collection AND o.record = r.id) AND NOT EXISTS (
    SELECT 1 FROM rw_links l WHERE l.space = $1 AND l.parent_collection = r.collection
    AND l.parent = r.id AND l.field = '@joined')
  FROM rw_records r WHERE r.space = $1 AND r.state = 1 AND r.stamp > $2 AND r.stamp <= $3
  ORDER BY r.stamp LIMIT $4";
const BURIED: &str = rows::delete!("rw_records", "$2::bigint[]", "stamp", "r.stamp = k.stamp");
const WORN: &str = rows::delete!(
    "rw_audiences",
    "$2::text[], $3::text[]",
    "collection, id",
    "r.collection = k.collection AND r.record = k.id"
);
const LEFT: &str =
    "DELETE FROM rw_audiences WHERE (space, collection, record, audience, via_collection, via) IN (
    SELECT space, collection, record, audience, via_collection, via FROM rw_audiences
    WHERE space = $1 AND left_at <= $2 ORDER BY left_at LIMIT $3) RETURNING left_at";
const ENDED: &str = "DELETE FROM rw_subscriptions WHERE (space, reader, audience, via_collection, via) IN (
    SELECT space, reader, audience, via_collection, via FROM rw_subscriptions
    WHERE space = $1 AND left_at <= $2 ORDER BY left_at LIMIT $3) RETURNING left_at";
const WOULD_LEAVE: &str = "SELECT (SELECT count(*) FROM rw_audiences WHERE space = $1 AND left_at <= $2)
  + (SELECT count(*) FROM rw_subscriptions WHERE space = $1 AND left_at <= $2)";
const NOTE: &str = "UPDATE rw_spaces SET purged = greatest(purged, $2), buried = greatest(buried, $3),
  writes = writes + 1 WHERE no = $1";
const RECEIPTS: &str =
    "SELECT change, stamp FROM rw_receipts WHERE space = $1 AND change > $2 ORDER BY change LIMIT $3";
const RECEIPT: &str = rows::delete!("rw_receipts", "$2::text[]", "change", "r.change = k.change");
/// A version counts from when it was superseded, not from when it was written. Versions of one stamp (a
/// restored database may have some) stay together.
const HISTORY: &str = "SELECT h.stamp, h.collection, h.id, h.version, h.stamp <= $3
    AND coalesce(least(
      (SELECT min(n.stamp) FROM (SELECT n.stamp FROM rw_history n WHERE n.space = $1
        AND n.collection = h.collection AND n.id = h.id AND n.version > h.version OFFSET 0) n),
      (SELECT r.stamp FROM rw_records r WHERE r.space = $1 AND r.collection = h.collection AND r.id = h.id)
    ), $3) <= $3
  FROM rw_history h WHERE h.space = $1 AND h.stamp > $2 ORDER BY h.stamp FETCH FIRST $4 ROWS WITH TIES";
const VERSIONS: &str = rows::delete!(
    "rw_history",
    "$2::text[], $3::text[], $4::bigint[], $5::bigint[]",
    "collection, id, version, stamp",
    "r.collection = k.collection AND r.id = k.id AND r.version = k.version AND r.stamp = k.stamp"
);
const ENTRIES: &str = "SELECT seq, state >= 5 AND coalesce(tried_at, accepted_at) < $3 FROM rw_outbox
  WHERE space = $1 AND seq > $2 ORDER BY seq LIMIT $4";
const ENTRY: &str = rows::delete!("rw_outbox", "$2::bigint[]", "seq", "r.seq = k.seq");
const RUNS: &str = "SELECT no FROM rw_runs WHERE space = $1 AND started_at < $2 AND no NOT IN (
  SELECT no FROM rw_runs WHERE space = $1 ORDER BY no DESC LIMIT $3) ORDER BY no LIMIT $4";
const RUN: &str = "DELETE FROM rw_runs WHERE space = $1 AND no = ANY ($2::bigint[])";

/// Which step, of what.
pub(super) struct Ask {
    pub(super) space: SpaceId,
    pub(super) lines: Lines,
    pub(super) at: Walk,
    pub(super) rows: usize,
    pub(super) dry: bool,
}

/// What went, and where this kind goes on when the step was full.
type Step = (u64, Option<Walk>);

/// One step, in the caller's transaction.
pub(super) async fn step(tx: &Tx, ask: &Ask) -> Done<Purged> {
    let Ask { space, lines, at, rows, dry } = ask;
    let space = match dry {
        true => Space::read(tx, space).await?.no,
        false => Space::lock(tx, space).await?.no,
    };
    let most = i64::try_from((*rows).max(1)).unwrap_or(i64::MAX);
    let walk = Steps { tx, space, most, dry: *dry };
    let (rows, last) = match at {
        Walk::Tombstones(after) => walk.tombstones(*after, lines.tombstones).await?,
        Walk::Audiences => walk.audiences(lines.tombstones).await?,
        Walk::Receipts(after) => walk.receipts(after, lines.receipts).await?,
        Walk::History(after) => walk.history(*after, lines.history).await?,
        Walk::Outbox(after) => walk.outbox(*after, lines).await?,
        Walk::Runs => walk.runs(lines).await?,
    };
    Ok(Purged { rows, next: last.or_else(|| at.then()) })
}

struct Steps<'t> {
    tx: &'t Tx,
    space: i32,
    most: i64,
    dry: bool,
}

impl Steps<'_> {
    async fn tombstones(&self, after: Stamp, line: Stamp) -> Done<Step> {
        let found = self.tx.query(TOMBSTONES, &[&self.space, &after.0, &line.0, &self.most]).await?;
        let going = going(&found, 4)?;
        if let Some(newest) = going.last().filter(|_| !self.dry) {
            let newest: i64 = newest.try_get(0)?;
            let version = column::<i64>(&going, 1)?.into_iter().max();
            self.tx.execute(BURIED, &[&self.space, &column::<i64>(&going, 0)?]).await?;
            let (collections, ids) = (column::<&str>(&going, 2)?, column::<&str>(&going, 3)?);
            self.tx.execute(PRINTS_GONE, &[&self.space, &collections, &ids]).await?;
            self.tx.execute(WORN, &[&self.space, &collections, &ids]).await?;
            self.tx.execute(NOTE, &[&self.space, &newest, &version]).await?;
        }
        let last = self.last(&found).map(|row| row.try_get(0)).transpose()?;
        Ok((going.len() as u64, last.map(|stamp| Walk::Tombstones(Stamp(stamp)))))
    }

    /// What goes is as good as a deletion to a reader who had not read so far: it is noted with those.
    async fn audiences(&self, line: Stamp) -> Done<Step> {
        if self.dry {
            let row = self.tx.one(WOULD_LEAVE, &[&self.space, &line.0]).await?;
            let count: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
            return Ok((count.cast_unsigned(), None));
        }
        let (mut gone, mut full) = (0, false);
        for forget in [LEFT, ENDED] {
            let found = self.tx.query(forget, &[&self.space, &line.0, &self.most]).await?;
            gone += found.len() as u64;
            full |= self.last(&found).is_some();
            if let Some(newest) = column::<i64>(&found.iter().collect::<Vec<_>>(), 0)?.into_iter().max() {
                self.tx.execute(NOTE, &[&self.space, &newest, &0_i64]).await?;
            }
        }
        Ok((gone, full.then_some(Walk::Audiences)))
    }

    async fn receipts(&self, after: &str, line: Stamp) -> Done<Step> {
        let found = self.tx.query(RECEIPTS, &[&self.space, &after, &self.most]).await?;
        let mut going = Vec::new();
        for row in &found {
            if row.try_get::<_, i64>(1)? <= line.0 {
                going.push(row.try_get::<_, &str>(0)?);
            }
        }
        if !self.dry && !going.is_empty() {
            self.tx.execute(RECEIPT, &[&self.space, &going]).await?;
        }
        let last = self.last(&found).map(|row| row.try_get(0)).transpose()?;
        Ok((going.len() as u64, last.map(Walk::Receipts)))
    }

    async fn history(&self, after: i64, line: Stamp) -> Done<Step> {
        if line.0 == i64::MIN {
            return Ok((0, None));
        }
        let found = self.tx.query(HISTORY, &[&self.space, &after, &line.0, &self.most]).await?;
        let going = going(&found, 4)?;
        if !self.dry && !going.is_empty() {
            let (collections, ids) = (column::<&str>(&going, 1)?, column::<&str>(&going, 2)?);
            let (versions, stamps) = (column::<i64>(&going, 3)?, column::<i64>(&going, 0)?);
            self.tx.execute(VERSIONS, &[&self.space, &collections, &ids, &versions, &stamps]).await?;
        }
        let last = self.last(&found).map(|row| row.try_get(0)).transpose()?;
        Ok((going.len() as u64, last.map(Walk::History)))
    }

    async fn outbox(&self, after: i64, lines: &Lines) -> Done<Step> {
        let found = self.tx.query(ENTRIES, &[&self.space, &after, &lines.settled.0, &self.most]).await?;
        let going = column::<i64>(&going(&found, 1)?, 0)?;
        if !self.dry && !going.is_empty() {
            self.tx.execute(ENTRY, &[&self.space, &going]).await?;
        }
        let last = self.last(&found).map(|row| row.try_get(0)).transpose()?;
        Ok((going.len() as u64, last.map(Walk::Outbox)))
    }

    async fn runs(&self, lines: &Lines) -> Done<Step> {
        let most = if self.dry { i64::MAX } else { self.most };
        let kept = RUNS_KEPT as i64;
        let found = self.tx.query(RUNS, &[&self.space, &lines.settled.0, &kept, &most]).await?;
        let going = column::<i64>(&found.iter().collect::<Vec<_>>(), 0)?;
        if !self.dry && !going.is_empty() {
            self.tx.execute(RUN, &[&self.space, &going]).await?;
        }
        Ok((going.len() as u64, self.last(&found).filter(|_| !self.dry).map(|_| Walk::Runs)))
    }

    /// The last row of a step that was full.
    fn last<'r>(&self, found: &'r [Row]) -> Option<&'r Row> {
        found.last().filter(|_| found.len() as i64 >= self.most)
    }
}

/// The rows whose verdict, in this column, is that they go.
fn going(found: &[Row], verdict: usize) -> Done<Vec<&Row>> {
    let mut going = Vec::with_capacity(found.len());
    for row in found {
        if row.try_get(verdict)? {
            going.push(row);
        }
    }
    Ok(going)
}

fn column<'r, T: tokio_postgres::types::FromSql<'r>>(rows: &[&'r Row], at: usize) -> Done<Vec<T>> {
    rows.iter().map(|row| Ok(row.try_get(at)?)).collect()
}
