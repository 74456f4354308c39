//! Opens the file: whose is it, is it whole, is it new; then the connections.

use super::{
    conn::Conn,
    errors::{Done, corrupt},
    restore, schema,
};
use crate::StoreError;
use ropeway_core::{id::Epoch, time::Time};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A crash of the program and a loss of power: synced at each commit.
    #[default]
    Full,
    /// A crash of the program only: a loss of power may take the latest commits.
    Normal,
}

/// Page cache of the connection that writes, in KiB: all of a node's memory counts on a small machine.
const WRITER_CACHE: i64 = 16_384;
/// Page cache of each connection that reads, in KiB.
const READER_CACHE: i64 = 4_096;

/// How to open a database.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's epoch, used only where the database is new.
    pub epoch: Epoch,
    /// The clock, for the note when a schema version was applied.
    pub now: Time,
    /// Whether this node follows an upstream.
    pub follows: bool,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Connections that read.
    pub readers: usize,
    /// How long to wait for another process that writes.
    pub busy: Duration,
}

impl Options {
    /// The defaults: no upstream, full durability, two readers, ten seconds of patience.
    pub fn new(epoch: Epoch, now: Time) -> Self {
        Self {
            epoch,
            now,
            follows: false,
            durability: Durability::Full,
            readers: 2,
            busy: Duration::from_secs(10),
        }
    }

    /// The same for a node with an upstream.
    pub fn following(self, follows: bool) -> Self {
        Self { follows, ..self }
    }
}

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The header's page size, file change counter, size in pages, and the counter for which that is valid.
const HEADER: usize = 100;
/// How often a length that does not fit is looked at again: another process may be at a checkpoint.
const LOOKS: usize = 5;

/// The connections of one open database.
pub(super) struct Opened {
    pub(super) writer: Conn,
    pub(super) readers: Vec<Conn>,
    pub(super) watch: Conn,
    /// Says to other processes that the database is in use.
    pub(super) held: Option<File>,
}

/// Opens or creates the database file.
pub(super) fn open(path: &Path, options: &Options) -> Done<Opened> {
    let held = restore::hold_shared(path)?;
    prepare_file(path)?;
    refuse_damage(path)?;
    let db = connect(path, options, WRITER_CACHE)?;
    let is_current = schema::found(&db)? == schema::known();
    db.pragma_update(None, "journal_mode", "WAL")?;
    let mode: String = db.pragma_query_value(None, "journal_mode", |r| r.get(0))?;
    if mode != "wal" {
        return Err(unavailable(format!(
            "the file system does not allow a write-ahead log (it is `{mode}`)"
        )));
    }
    let mut writer = Conn::new(db, options.follows);
    // Nobody has to wait for a long write just to look at a database that is as it should be.
    if !is_current {
        writer.write(|conn| {
            schema::migrate(&conn.db, options.now, &options.epoch)?;
            conn.db.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
            Ok(())
        })?;
    }
    refuse_shortened(path, &writer.db)?;
    let another = || Ok::<_, StoreError>(Conn::new(connect(path, options, READER_CACHE)?, options.follows));
    let readers = (0..options.readers.max(1)).map(|_| another()).collect::<Done<_>>()?;
    Ok(Opened { writer, readers, watch: another()?, held })
}

/// A connection with this much page cache, in KiB.
pub(super) fn connect(path: &Path, options: &Options, cache: i64) -> Done<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(options.busy)?;
    // Otherwise a statement over a partial index is planned anew at each binding.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "trusted_schema", "OFF")?;
    db.pragma_update(None, "foreign_keys", "OFF")?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -cache)?;
    db.pragma_update(None, "wal_autocheckpoint", 10_000)?;
    db.pragma_update(None, "journal_size_limit", 64 << 20)?;
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    Ok(db)
}

/// The write-ahead log beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the file where there is none, readable by its owner only; the log beside it gets the same mode.
fn prepare_file(path: &Path) -> Done<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|e| disk(path, e))?;
    #[cfg(unix)]
    narrow(&file, path);
    drop(file);
    Ok(())
}

#[cfg(unix)]
fn narrow(file: &File, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(meta) = file.metadata() else { return };
    if meta.permissions().mode() & 0o077 != 0
        && let Err(error) = file.set_permissions(fs::Permissions::from_mode(0o600))
    {
        tracing::warn!(%error, path = %path.display(), "other users may read the database file");
    }
}

/// What can be seen before SQLite touches the file. Beside a log or a rollback journal the file alone says
/// nothing: a power cut may have left it half written, and SQLite takes that back.
fn refuse_damage(path: &Path) -> Done<()> {
    let beside = |suffix| fs::metadata(beside(path, suffix)).map_or(0, |m| m.len());
    let (log, journal) = (beside("-wal"), beside("-journal"));
    let length = fs::metadata(path).map_err(|e| disk(path, e))?.len();
    if length == 0 {
        return match log {
            0 => Ok(()),
            _ => Err(corrupt("the file is empty, but its log (-wal) is not: the file was cut or replaced")),
        };
    }
    if log == 0 && journal == 0 { refuse_cut(path) } else { Ok(()) }
}

/// After the log was taken in, the file must be as long as its header says.
fn refuse_shortened(path: &Path, db: &Connection) -> Done<()> {
    for look in 1.. {
        let (busy, log, done): (i64, i64, i64) =
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        if busy != 0 || log != done {
            return Ok(()); // Somebody else is at work in it: pages may still be in the log.
        }
        match refuse_cut(path) {
            Err(_) if look < LOOKS => {}
            looked => return looked,
        }
    }
    Ok(())
}

fn refuse_cut(path: &Path) -> Done<()> {
    let file = File::open(path).map_err(|e| disk(path, e))?;
    let length = file.metadata().map_err(|e| disk(path, e))?.len();
    let mut head = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut head).map_err(|e| disk(path, e))?;
    if head.len() < MAGIC.len() || head[..MAGIC.len()] != MAGIC[..] {
        return Err(corrupt("the file is not a SQLite database"));
    }
    if head.len() < HEADER {
        return Err(corrupt("the file was cut short: not even its header is whole"));
    }
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let wanted = u64::from(word(28)) * page;
    let is_valid = word(24) == word(92);
    if is_valid && length < wanted {
        return Err(corrupt(format!("the file was cut short: {length} of {wanted} bytes are there")));
    }
    Ok(())
}

fn disk(path: &Path, error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::StorageFull {
        return StoreError::Full;
    }
    StoreError::Unavailable { what: format!("{}: {error}", path.display()), source: Some(error.into()) }
}

fn unavailable(what: String) -> StoreError {
    StoreError::Unavailable { what, source: None }
}

/// Reads the whole file with a connection and a thread of its own, since it may take long.
pub(super) async fn check(path: &Path, options: &Options) -> Done<()> {
    let (path, options) = (path.to_owned(), options.clone());
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("ropeway-check".into());
    let started = thread.spawn(move || {
        let _ = tell.send(check_now(&path, &options));
    });
    started.map_err(|e| disk(Path::new("no thread could be started"), e))?;
    told.await.unwrap_or_else(|_| Err(unavailable("the check was interrupted".into())))
}

fn check_now(path: &Path, options: &Options) -> Done<()> {
    let db = connect(path, options, READER_CACHE)?;
    schema::found(&db)?;
    whole(&db)
}

/// SQLite's own check of everything in the file.
pub(super) fn whole(db: &Connection) -> Done<()> {
    let found: Vec<String> =
        db.prepare("PRAGMA integrity_check(10)")?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    match found.as_slice() {
        [ok] if ok == "ok" => Ok(()),
        wrong => Err(corrupt(wrong.join("; "))),
    }
}
