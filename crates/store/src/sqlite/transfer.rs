//! The file's side of moving a node: a fresh file written of a server's rows, and a file's rows read for one.

use super::{
    conn::Conn,
    errors::{Done, corrupt},
    schema,
};
use crate::{
    columns::{Kind, TABLES, Table},
    transfer::{Cell, Gathered, Piece},
};
use ropeway_core::time::Time;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::path::Path;
use tokio::sync::mpsc::{Receiver, Sender};

/// The page cache for it, in KiB: keys come in no order.
const CACHE: i64 = 16_384;

/// Writes a database into an empty file, of the pieces that come. An error leaves a file that is worth nothing.
/// Blocks.
pub(crate) fn write(file: &Path, now: Time, mut pieces: Receiver<Piece>) -> Done<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.pragma_update(None, "journal_mode", "MEMORY")?;
    db.pragma_update(None, "synchronous", "OFF")?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    let mut conn = Conn::new(db, false);
    conn.write(|conn| {
        schema::migrate(&conn.db, now, "")?;
        conn.db.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
        conn.db.execute("DELETE FROM rw_meta", [])?;
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Rows(table, cells)) => add(conn, &TABLES[table], cells)?,
                Some(Piece::End) => return Ok(()),
                None => return Err(corrupt("what was to be written was cut short")),
            }
        }
    })?;
    conn.db.close().map_err(|(_, e)| e.into())
}

fn add(conn: &mut Conn, table: &Table, cells: Vec<Cell>) -> Done<()> {
    let (names, kinds): (Vec<&str>, Vec<Kind>) = table.in_file().unzip();
    let binds = vec!["?"; names.len()].join(", ");
    let sql = format!("INSERT INTO {} ({}) VALUES ({binds})", table.name, names.join(", "));
    let Conn { db, names, .. } = conn;
    let mut stmt = db.prepare_cached(&sql)?;
    let mut cells = cells.into_iter().peekable();
    while cells.peek().is_some() {
        let mut row = Vec::with_capacity(kinds.len());
        for (cell, kind) in cells.by_ref().take(kinds.len()).zip(&kinds) {
            row.push(match (cell, kind) {
                (Cell::Text(name), Kind::Name | Kind::NameOrEmpty) => Cell::Integer(names.intern(db, &name)?),
                (cell, _) => cell,
            });
        }
        stmt.execute(params_from_iter(row))?;
    }
    Ok(())
}

/// Sends everything that a file holds. Blocks; ends early where nobody takes it any more.
pub(crate) fn read(file: &Path, pieces: &Sender<Piece>) -> Done<()> {
    let db = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    schema::found(&db)?;
    let mut conn = Conn::new(db, false);
    conn.read(|conn| {
        for (at, table) in TABLES.iter().enumerate() {
            let width = table.on_server().count();
            let mut stmt = conn.db.prepare(&table.ask_file())?;
            let mut rows = stmt.query([])?;
            let mut gathered = Gathered::default();
            while let Some(row) = rows.next()? {
                for column in 0..width {
                    gathered.add(row.get(column)?);
                }
                if let Some(cells) = gathered.enough()
                    && pieces.blocking_send(Piece::Rows(at, cells)).is_err()
                {
                    return Ok(());
                }
            }
            if pieces.blocking_send(Piece::Rows(at, gathered.rest())).is_err() {
                return Ok(());
            }
        }
        let _ = pieces.blocking_send(Piece::End);
        Ok(())
    })
}

/// How many rows of a file [`read`] sends.
pub(crate) fn count(file: &Path) -> Done<u64> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut all = 0;
    for table in &TABLES {
        let sql = format!("SELECT count(*) FROM {} WHERE {}", table.name, table.told());
        all += db.query_row(&sql, [], |r| r.get::<_, i64>(0))?.cast_unsigned();
    }
    Ok(all)
}
