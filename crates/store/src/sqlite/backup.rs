//! Taking a backup of a database that is in use, and proving that a backup is whole without a node.

use super::{audit, conn::Conn, open, restore, schema};
use crate::{
    Audit, SqliteStore, StoreError,
    backup::{self, BackupError, Manifest},
};
use ropeway_core::time::Time;
use rusqlite::{Connection, OpenFlags, backup::Backup};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

type Made<T> = Result<T, BackupError>;

/// What a read transaction begins with is all that it sees.
const BEGIN_READING: &str = "SELECT count(*) FROM sqlite_schema";
/// Pages copied between two words of progress.
const STEP: i32 = 512;

impl SqliteStore {
    /// Copies the database at `database` as it is at one moment into a backup file, while others read and
    /// write it: they are never blocked, their writes only stay in the log until the copy is done. The
    /// copy is counted anew and compared before it gets its name, and appears all at once: killed at any
    /// moment, whatever was at `file` before is still there.
    ///
    /// `progress` hears how many of how many pages are copied. Blocks: call it on a thread for it.
    pub fn backup(
        database: &Path,
        file: &Path,
        force: bool,
        now: Time,
        progress: &dyn Fn(u64, u64),
    ) -> Made<Manifest> {
        let growing = Growing::begin(file, force)?;
        let _held = restore::hold_shared(database)?;
        copy(database, growing.part(), progress)?;
        growing.finish(&format!("the database {}", database.display()), now)
    }

    /// Proves that a backup is whole: its checksum, SQLite's own check, and everything that its manifest
    /// says counted anew from its records. Only reads.
    pub fn verify(file: &Path) -> Made<Manifest> {
        let (manifest, _) = backup::read(file)?;
        if manifest.schema > schema::known() {
            let what =
                format!("its tables are version {}, this program knows {}", manifest.schema, schema::known());
            return Err(BackupError::TooNew { file: file.to_owned(), what });
        }
        let (_, audit) = look(file).map_err(|error| match error {
            BackupError::Store(StoreError::Corrupt { what }) => BackupError::damaged(file, what),
            other => other,
        })?;
        let mut what = audit.faults;
        if audit.epoch != manifest.epoch || audit.spaces != manifest.spaces {
            what.push("it does not hold what its manifest says".into());
        }
        match what.is_empty() {
            true => Ok(manifest),
            false => Err(BackupError::Damaged { file: file.to_owned(), what }),
        }
    }
}

/// A backup file while it is made, beside the name that it will get. Dropped before that, it is gone.
pub(crate) struct Growing {
    part: PathBuf,
    file: PathBuf,
    force: bool,
    has_name: bool,
    /// Locked, so that a second one sees it.
    _mine: File,
}

impl Drop for Growing {
    fn drop(&mut self) {
        if !self.has_name {
            let _ = fs::remove_file(&self.part);
        }
    }
}

impl Growing {
    /// Makes the growing file anew, readable by its owner only: it holds hashes of passwords and tokens. What
    /// a killed backup left behind is overwritten; one that is still at work is left alone.
    pub(crate) fn begin(file: &Path, force: bool) -> Made<Self> {
        free(file, force)?;
        let part = part_of(file)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mine = options.open(&part).map_err(BackupError::io(&part))?;
        match mine.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                return Err(BackupError::InUse(part.display().to_string()));
            }
            Err(fs::TryLockError::Error(_)) | Ok(()) => {}
        }
        mine.set_len(0).map_err(BackupError::io(&part))?;
        for suffix in ["-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(open::beside(&part, suffix));
        }
        Ok(Self { part, file: file.to_owned(), force, has_name: false, _mine: mine })
    }

    /// The file that grows: a database and nothing else.
    pub(crate) fn part(&self) -> &Path {
        &self.part
    }

    /// Counts everything in it anew, seals it, syncs it to disk, and gives it its name. `of` says whose copy
    /// it is.
    pub(crate) fn finish(mut self, of: &str, now: Time) -> Made<Manifest> {
        let (schema, audit) = look(&self.part)?;
        if !audit.faults.is_empty() {
            return Err(BackupError::NotWhole { of: of.to_owned(), what: audit.faults });
        }
        let manifest = Manifest { schema, taken_at: now, epoch: audit.epoch, spaces: audit.spaces };
        backup::seal(&self.part, &manifest)?;
        free(&self.file, self.force)?;
        fs::rename(&self.part, &self.file).map_err(BackupError::io(&self.file))?;
        self.has_name = true;
        restore::sync_directory(&self.file)?;
        Ok(manifest)
    }
}

fn free(file: &Path, force: bool) -> Made<()> {
    match !force && file.exists() {
        true => Err(BackupError::Exists(file.to_owned())),
        false => Ok(()),
    }
}

/// The name under which a file grows, beside it so that it can be renamed.
fn part_of(file: &Path) -> Made<PathBuf> {
    let name = file.file_name().ok_or_else(|| {
        BackupError::io(file)(std::io::Error::new(std::io::ErrorKind::InvalidInput, "this names no file"))
    })?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(".part");
    Ok(file.with_file_name(part))
}

fn copy(database: &Path, part: &Path, progress: &dyn Fn(u64, u64)) -> Made<()> {
    let source = Connection::open_with_flags(database, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
        .map_err(StoreError::from)?;
    pages(&source, part, progress)?;
    // A file of its own, without a log beside it: what is in it is all there is.
    let copied = Connection::open_with_flags(part, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
        .map_err(StoreError::from)?;
    copied.pragma_update(None, "journal_mode", "DELETE").map_err(StoreError::from)?;
    copied.close().map_err(|(_, e)| StoreError::from(e))?;
    Ok(())
}

fn pages(source: &Connection, part: &Path, progress: &dyn Fn(u64, u64)) -> Result<(), StoreError> {
    source.busy_timeout(std::time::Duration::from_secs(10))?;
    schema::found(source)?;
    // One read transaction around all steps: the copy is of one moment, and no writer makes it begin again.
    source.execute_batch("BEGIN")?;
    let _: i64 = source.query_row(BEGIN_READING, [], |r| r.get(0))?;
    let mut target = Connection::open_with_flags(part, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    target.pragma_update(None, "synchronous", "OFF")?;
    let steps = Backup::new(source, &mut target)?;
    loop {
        let step = steps.step(STEP)?;
        let at = steps.progress();
        let (all, left) =
            (u64::try_from(at.pagecount).unwrap_or(0), u64::try_from(at.remaining).unwrap_or(0));
        progress(all.saturating_sub(left), all);
        match step {
            rusqlite::backup::StepResult::Done => return Ok(()),
            rusqlite::backup::StepResult::More => {}
            _ => std::thread::yield_now(),
        }
    }
}

/// Reads a database file without a log beside it, and changes nothing.
fn look(file: &Path) -> Made<(u32, Audit)> {
    let read = || -> Result<(u32, Audit), StoreError> {
        let db = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        let schema = schema::found(&db)?;
        open::whole(&db)?;
        let mut conn = Conn::new(db, false);
        Ok((schema, conn.read(audit::audit)?))
    };
    Ok(read()?)
}

fn flags(how: OpenFlags) -> OpenFlags {
    how | OpenFlags::SQLITE_OPEN_NO_MUTEX
}
