//! Putting a backup in the place of a database: nobody may have it open, and what was there is kept.

use super::{SqliteStore, audit, conn::Conn, open, schema};
use crate::{
    Audit, Options, StoreError,
    backup::{self, BackupError, Manifest},
};
use ropeway_core::{
    id::{Epoch, SpaceId},
    time::{Stamp, Time},
};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

type Made<T> = Result<T, BackupError>;

/// The file by whose lock processes see whether a database is open: shared by those who use it, alone by
/// one that puts another in its place.
const LOCK: &str = ".lock";

/// Opens the lock file and says that the database is in use.
pub(super) fn hold_shared(database: &Path) -> Result<Option<File>, StoreError> {
    let Some(file) = lock_file(database) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable {
            what: format!("a backup is just being restored to {}", database.display()),
            source: None,
        }),
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "this file system has no locks: do not restore while the node is open");
            Ok(None)
        }
    }
}

fn lock_file(database: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(open::beside(database, LOCK));
    opened.inspect_err(|error| tracing::warn!(%error, "no lock file can be made beside the database")).ok()
}

/// What stands where a backup is to be restored.
#[derive(Debug)]
pub enum Present {
    /// No database.
    Nothing,
    /// A whole one, and how many of its records are newer than the backup, by space.
    Database(Audit, Vec<(SpaceId, u64)>),
    /// One that cannot be read, or is not whole: why.
    Unreadable(String),
}

/// A verified backup, unpacked beside the database that it will replace, with nobody else having that open.
/// Dropped before [`Self::put_in_place`], it leaves everything as it was.
pub struct Unpacked {
    manifest: Manifest,
    database: PathBuf,
    fresh: PathBuf,
    present: Present,
    _alone: Option<File>,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", LOCK] {
            let _ = fs::remove_file(open::beside(&self.fresh, suffix));
        }
    }
}

impl Unpacked {
    /// Verifies the backup and looks at what it would replace, which may be in use. Changes nothing.
    pub fn foresee(file: &Path, database: &Path) -> Made<(Manifest, Present)> {
        let manifest = SqliteStore::verify(file)?;
        let present = present(database, &manifest);
        Ok((manifest, present))
    }

    /// Verifies the backup, takes the database for itself alone, and unpacks beside it.
    /// [`BackupError::InUse`] while anybody has it open.
    pub fn new(file: &Path, database: &Path) -> Made<Self> {
        let manifest = SqliteStore::verify(file)?;
        let alone = hold_alone(database)?;
        let present = present(database, &manifest);
        let fresh = open::beside(database, ".restoring");
        let unpacked = Self { manifest, database: database.to_owned(), fresh, present, _alone: alone };
        let (_, body) = backup::read(file)?;
        unpack(file, body, &unpacked.fresh)?;
        Ok(unpacked)
    }

    /// Verifies the backup and unpacks it at `fresh`, for a database on a server.
    pub fn aside(file: &Path, fresh: &Path) -> Made<Self> {
        let manifest = SqliteStore::verify(file)?;
        let (database, fresh) = (fresh.to_owned(), fresh.to_owned());
        let unpacked = Self { manifest, database, fresh, present: Present::Nothing, _alone: None };
        let (_, body) = backup::read(file)?;
        unpack(file, body, &unpacked.fresh)?;
        Ok(unpacked)
    }

    /// The file that it is unpacked in.
    pub(crate) fn fresh(&self) -> &Path {
        &self.fresh
    }

    /// What the backup says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is there now and will be replaced.
    pub fn present(&self) -> &Present {
        &self.present
    }

    /// The database that will be put in place, opened: whatever has to be done to it is done before.
    pub fn open(&self, now: Time) -> Made<SqliteStore> {
        Ok(SqliteStore::open(&self.fresh, Options::new(Epoch::trusted("restored"), now))?)
    }

    /// Replaces the database, and keeps what was there beside it under the name returned. Whoever is killed
    /// in here leaves the old one whole or the new one whole. `store` is what [`Self::open`] gave.
    pub fn put_in_place(self, store: SqliteStore, now: Time) -> Made<Option<PathBuf>> {
        drop(store);
        let failed = |e| BackupError::io(&self.fresh)(e);
        into_one_file(&self.fresh)?;
        File::open(&self.fresh).and_then(|file| file.sync_all()).map_err(failed)?;
        let kept = match self.database.exists() {
            true => Some(keep(&self.database, now)?),
            false => None,
        };
        fs::rename(&self.fresh, &self.database).map_err(failed)?;
        sync_directory(&self.database)?;
        Ok(kept)
    }
}

fn hold_alone(database: &Path) -> Made<Option<File>> {
    let Some(file) = lock_file(database) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse(database.display().to_string())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn present(database: &Path, manifest: &Manifest) -> Present {
    if !database.exists() {
        return Present::Nothing;
    }
    let read = || -> Result<(Audit, Vec<(SpaceId, u64)>), StoreError> {
        let db = careful(database)?;
        schema::found(&db)?;
        open::whole(&db)?;
        let mut conn = Conn::new(db, false);
        conn.read(|conn| {
            let audit = audit::audit(conn)?;
            let mut newer = Vec::new();
            for holding in &audit.spaces {
                let then = manifest.spaces.iter().find(|h| h.space == holding.space);
                let count = audit::newer(conn, &holding.space, then.map_or(Stamp(0), |h| h.head))?;
                newer.push((holding.space.clone(), count));
            }
            Ok((audit, newer))
        })
    };
    match read() {
        Ok((audit, newer)) if audit.faults.is_empty() => Present::Database(audit, newer),
        Ok((audit, _)) => Present::Unreadable(audit.faults.join("; ")),
        Err(error) => Present::Unreadable(error.to_string()),
    }
}

fn unpack(file: &Path, body: u64, fresh: &Path) -> Made<()> {
    let failed = |e| BackupError::io(fresh)(e);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(open::beside(fresh, suffix));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut target = options.open(fresh).map_err(failed)?;
    let source = File::open(file).map_err(BackupError::io(file))?;
    io::copy(&mut source.take(body), &mut target).map_err(failed)?;
    target.sync_all().map_err(failed)
}

/// A connection that leaves the log as it is when it is closed: a file that may be damaged is only looked at.
fn careful(database: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(database, flags)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

/// Takes a database's log into its file, so that one name stands for all of it.
fn into_one_file(database: &Path) -> Result<(), StoreError> {
    let db = careful(database)?;
    schema::found(&db)?;
    let mode: String = db.query_row("PRAGMA journal_mode = DELETE", [], |r| r.get(0))?;
    db.close().map_err(|(_, e)| StoreError::from(e))?;
    match mode.as_str() {
        "delete" if fs::metadata(open::beside(database, "-wal")).is_err() => Ok(()),
        _ => Err(StoreError::Unavailable { what: "the log cannot be taken in".into(), source: None }),
    }
}

/// Copies the database to a name under which it stays. One that cannot be opened keeps its log beside it.
fn keep(database: &Path, now: Time) -> Made<PathBuf> {
    let when: String = now.to_string().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let kept = open::beside(database, &format!(".before-restore-{when}"));
    if let Err(error) = into_one_file(database) {
        tracing::warn!(%error, "the database that is replaced cannot be opened; it is kept as it is");
        let log = open::beside(database, "-wal");
        if log.exists() {
            copy_to(&log, &open::beside(&kept, "-wal"))?;
        }
        copy_to(database, &kept)?;
        // The log of one database must never meet the file of another.
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(open::beside(database, suffix));
        }
        return Ok(kept);
    }
    copy_to(database, &kept)?;
    Ok(kept)
}

/// Copies a file; the copy has its name only when it is whole and on disk. A second name for the same file
/// would not do: left behind by a kill, it would change with the database.
fn copy_to(file: &Path, name: &Path) -> Made<()> {
    let part = open::beside(name, ".part");
    fs::copy(file, &part).map_err(BackupError::io(&part))?;
    File::open(&part).and_then(|file| file.sync_all()).map_err(BackupError::io(&part))?;
    fs::rename(&part, name).map_err(BackupError::io(name))?;
    sync_directory(name)
}

/// Makes a rename in a file's directory durable.
pub(super) fn sync_directory(file: &Path) -> Made<()> {
    #[cfg(unix)]
    {
        let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(BackupError::io(parent))?;
    }
    Ok(())
}
