//! The server's side of moving a node: its rows written to a backup file, and a file's rows taken in.

use super::{
    PostgresStore, audit,
    conn::{Db, How, Tx},
    errors::{Done, corrupt},
    registry,
};
use crate::{
    Present, SqliteStore, Store, StoreError, Unpacked,
    asking::fault,
    backup::{BackupError, Manifest},
    columns::{Kind, TABLES, Table},
    sqlite::{Growing, transfer as file},
    transfer::{Cell, Gathered, Piece, way},
};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use ropeway_core::time::{Stamp, Time};
use std::{error::Error, path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

type Made<T> = Result<T, BackupError>;

/// Hears how many of how many rows were moved.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A database that nobody else had open, as it was then.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    /// What moves with every write.
    generation: i64,
    /// Whether the server tells who uses it.
    told: bool,
}

/// One statement moves a table, however long that takes.
const LONG: &str = "SET LOCAL statement_timeout = 0";
/// What a node that was only begun does not hold yet.
const HOLDS: &str = "SELECT EXISTS (SELECT 1 FROM rw_spaces) OR EXISTS (SELECT 1 FROM rw_devices)
  OR EXISTS (SELECT 1 FROM rw_members)";
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
  AND application_name = 'ropeway'";
/// Whoever opens a database reads this table first, and whoever writes notes it there or in its space: they all
/// wait until the restore is over.
const CLOSE: &str = "LOCK TABLE rw_meta, rw_spaces IN ACCESS EXCLUSIVE MODE";
/// How often it is looked whether a process that was just stopped is gone, and the pause before.
const LOOKS: u32 = 30;
const BETWEEN: Duration = Duration::from_millis(100);

impl PostgresStore {
    /// Writes everything that the node holds at one moment into a backup file, while others read and write: the
    /// same file that a node with a file of its own makes, and it appears in the same way.
    pub async fn backup(&self, to: PathBuf, force: bool, now: Time, progress: Progress) -> Made<Manifest> {
        let growing = blocking(move || Growing::begin(&to, force)).await?;
        let (send, receive) = way();
        let part = growing.part().to_owned();
        let writing = tokio::task::spawn_blocking(move || file::write(&part, now, receive));
        let db = self.db.clone();
        let reading = tokio::spawn(async move {
            let tx = db.begin(How::Read).await?;
            let told = tell(&tx, &send, &progress).await;
            tx.roll_back().await;
            told
        });
        let (wrote, read) = (ended(writing).await, ended(reading).await);
        // Of two that stop each other, the one who reads knows why, unless it was only told to stop.
        let stopped = read?;
        wrote?;
        if stopped {
            return Err(fault("the file took no more rows".into()).into());
        }
        let of = self.name.clone();
        blocking(move || growing.finish(&of, now)).await
    }

    /// What stands where a backup is to be restored. Changes nothing.
    pub async fn present(&self, manifest: &Manifest) -> Result<Present, StoreError> {
        self.db
            .read(manifest.clone(), |tx, manifest| {
                Box::pin(async move {
                    if !holds(tx).await? {
                        return Ok(Present::Nothing);
                    }
                    let audit = audit::audit(tx).await?;
                    if !audit.faults.is_empty() {
                        return Ok(Present::Unreadable(audit.faults.join("; ")));
                    }
                    let mut newer = Vec::new();
                    for holding in &audit.spaces {
                        let then = manifest.spaces.iter().find(|h| h.space == holding.space);
                        let than = then.map_or(Stamp(0), |h| h.head);
                        newer.push((holding.space.clone(), audit::newer(tx, &holding.space, than).await?));
                    }
                    Ok(Present::Database(audit, newer))
                })
            })
            .await
    }

    /// Refuses while another process has the database open. One that was just stopped may take a moment to be
    /// gone. What the database is at that moment: [`Self::restore`] replaces nothing else.
    pub async fn alone(&self) -> Made<Alone> {
        for _ in 0..LOOKS {
            let others = self.db.once(self.db.clone(), |tx, db| Box::pin(others(tx, db))).await;
            let told = match others {
                Ok(true) => {
                    tokio::time::sleep(BETWEEN).await;
                    continue;
                }
                Ok(false) => true,
                Err(StoreError::Fault { what, .. }) => {
                    tracing::warn!(what, "the server does not tell who uses it: do not restore under a node");
                    false
                }
                Err(error) => return Err(error.into()),
            };
            return Ok(Alone { generation: Store::generation(self).await?, told });
        }
        Err(BackupError::InUse(self.name.clone()))
    }

    /// Takes in a backup that was unpacked beside, in one transaction: all of it, or nothing. `store` is what
    /// [`Unpacked::open`] gave. What a node held here before is replaced only where `replace` says so, and
    /// never while others use it, nor where somebody has written since it was found `alone`.
    pub async fn restore(
        &self,
        unpacked: Unpacked,
        store: SqliteStore,
        alone: Alone,
        replace: bool,
        progress: Progress,
    ) -> Made<()> {
        let (send, receive) = way();
        let (unpacked, all) = blocking(move || {
            drop(store);
            let all = file::count(unpacked.fresh())?;
            Ok((unpacked, all))
        })
        .await?;
        let reading =
            tokio::task::spawn_blocking(move || file::read(unpacked.fresh(), &send).map(|()| drop(unpacked)));
        let told = move |done| progress(done, all);
        let (db, name) = (self.db.clone(), self.name.clone());
        let writing = tokio::spawn(async move { take(&db, name, receive, alone, replace, told).await });
        let wrote = writing.await.unwrap_or_else(|e| Err(fault(format!("it ended early: {e}")).into()));
        let read = ended(reading).await;
        match (wrote, read) {
            // Cut short by the one who reads, who knows why.
            (Err(BackupError::Store(StoreError::Corrupt { .. })), Err(error)) => Err(error.into()),
            (wrote, _) => wrote,
        }
    }
}

/// Sends every row, table after table. Whether somebody stopped it.
async fn tell(tx: &Tx, pieces: &Sender<Piece>, progress: &Progress) -> Done<bool> {
    tx.run(LONG).await?;
    let (mut all, mut done) = (0, 0);
    for table in &TABLES {
        all += count(tx, table).await?;
    }
    for (at, table) in TABLES.iter().enumerate() {
        progress(done, all);
        let types: Vec<Type> = table.in_file().map(|(_, kind)| kind.of_postgres()).collect();
        let mut rows = pin!(tx.copy_out(&table.ask_server(), &types).await?);
        let mut gathered = Gathered::default();
        while let Some(row) = rows.try_next().await? {
            for column in 0..types.len() {
                gathered.add(row.try_get::<Moved>(column)?.0);
            }
            done += 1;
            if let Some(cells) = gathered.enough() {
                progress(done, all);
                if pieces.send(Piece::Rows(at, cells)).await.is_err() {
                    return Ok(true);
                }
            }
        }
        if pieces.send(Piece::Rows(at, gathered.rest())).await.is_err() {
            return Ok(true);
        }
    }
    progress(done, all);
    Ok(pieces.send(Piece::End).await.is_err())
}

async fn count(tx: &Tx, table: &Table) -> Done<u64> {
    let sql = format!("SELECT count(*) FROM {} WHERE {}", table.name, table.told());
    Ok(tx.made(&sql).await?.try_get::<_, i64>(0)?.cast_unsigned())
}

/// Takes rows in as they come: one transaction, committed when the last one was there and all of it was
/// counted anew.
async fn take(
    db: &Db,
    name: String,
    mut pieces: Receiver<Piece>,
    alone: Alone,
    replace: bool,
    told: impl Fn(u64),
) -> Made<()> {
    let tx = db.begin(How::Write).await?;
    let taken = async {
        tx.run(CLOSE).await?;
        let came = alone.told && others(&tx, db).await?;
        if came || registry::generation(&tx).await? != alone.generation {
            return Err(BackupError::InUse(name));
        }
        if holds(&tx).await? && !replace {
            return Err(BackupError::Occupied(name));
        }
        tx.run(LONG).await?;
        for table in &TABLES {
            tx.run(&format!("DELETE FROM {} WHERE {}", table.name, table.told())).await?;
        }
        fill(&tx, &mut pieces, &told).await?;
        let audit = audit::audit(&tx).await?;
        match audit.faults.is_empty() {
            true => Ok(registry::count(&tx).await?),
            false => Err(corrupt(audit.faults.join("; ")).into()),
        }
    };
    match taken.await {
        Ok(()) => Ok(tx.commit().await?),
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}

async fn fill(tx: &Tx, pieces: &mut Receiver<Piece>, told: &impl Fn(u64)) -> Done<()> {
    let mut done = 0;
    let mut next = pieces.recv().await;
    for (at, table) in TABLES.iter().enumerate() {
        let (names, kinds): (Vec<&str>, Vec<Kind>) = table.on_server().unzip();
        let types: Vec<Type> = kinds.into_iter().map(Kind::of_postgres).collect();
        let mut into = pin!(tx.copy_in(table.name, &names, &types).await?);
        while let Some(Piece::Rows(of, cells)) = &next
            && *of == at
        {
            for row in cells.chunks_exact(types.len()) {
                let row: Vec<Told<'_>> = row.iter().map(Told).collect();
                into.as_mut().write_raw(&row).await?;
                done += 1;
            }
            told(done);
            next = pieces.recv().await;
        }
        into.finish().await?;
    }
    match next {
        Some(Piece::End) => Ok(()),
        _ => Err(corrupt("what was to be taken in was cut short")),
    }
}

/// Whether nodes have more sessions in the database than this process has.
async fn others(tx: &Tx, db: &Db) -> Done<bool> {
    let row = tx.one(SESSIONS, &[]).await?;
    let sessions = row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
    Ok(usize::try_from(sessions).is_ok_and(|sessions| sessions > db.pool.status().size))
}

async fn holds(tx: &Tx) -> Done<bool> {
    let row = tx.one(HOLDS, &[]).await?;
    Ok(row.ok_or_else(|| corrupt("the server answers nothing"))?.try_get(0)?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Made<T> + Send + 'static) -> Made<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(fault(format!("it ended early: {e}")).into()))
}

async fn ended<T>(task: tokio::task::JoinHandle<Done<T>>) -> Done<T> {
    task.await.unwrap_or_else(|e| Err(fault(format!("it ended early: {e}"))))
}

/// A value as PostgreSQL tells it.
struct Moved(Cell);

impl<'a> FromSql<'a> for Moved {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *of {
            Type::INT2 => Cell::Integer(i16::from_sql(of, raw)?.into()),
            Type::INT4 => Cell::Integer(i32::from_sql(of, raw)?.into()),
            Type::BOOL => Cell::Integer(bool::from_sql(of, raw)?.into()),
            Type::BYTEA => Cell::Blob(raw.to_vec()),
            Type::TEXT => Cell::Text(String::from_sql(of, raw)?),
            _ => Cell::Integer(i64::from_sql(of, raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Cell::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value as it is told to PostgreSQL.
#[derive(Debug)]
struct Told<'a>(&'a Cell);

impl ToSql for Told<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self.0, of) {
            (Cell::Null, _) => Ok(IsNull::Yes),
            (Cell::Integer(n), &Type::INT2) => i16::try_from(*n)?.to_sql(of, out),
            (Cell::Integer(n), &Type::INT4) => i32::try_from(*n)?.to_sql(of, out),
            (Cell::Integer(n), &Type::INT8) => n.to_sql(of, out),
            (Cell::Integer(n), &Type::BOOL) => (*n != 0).to_sql(of, out),
            (Cell::Text(text), &Type::TEXT) => text.to_sql(of, out),
            (Cell::Blob(bytes), &Type::BYTEA) => bytes.to_sql(of, out),
            (cell, of) => Err(format!("{} stands where {of} belongs", cell.data_type()).into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}
