//! What a backup file is: the database as it was at one moment, then a manifest, then a footer with the
//! checksum over all of it. So a file that is cut short, was flipped or belongs to somebody else shows.

use crate::{Holding, StoreError};
use ropeway_core::{id::Epoch, time::Time};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The footer's first bytes; the last one of them is the version of this layout.
const MAGIC: [u8; 16] = *b"ropeway-backup\0\x01";
/// Magic, two lengths, and the hash of everything before it.
const FOOTER: usize = 16 + 8 + 8 + 32;
/// A manifest is a few lines; more than this is no manifest.
const MANIFEST_MAX: u64 = 16 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the tables in it.
    pub schema: u32,
    /// When it was taken.
    pub taken_at: Time,
    /// The node's epoch.
    pub epoch: Epoch,
    /// What its spaces hold.
    pub spaces: Vec<Holding>,
}

/// Why a file cannot be made, believed or restored. Nothing that was there before was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It was never one of ours.
    #[error("{file} is not a backup of a Ropeway node: {what}")]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Its end is missing.
    #[error("{file} was cut short: {what}; copy it again from where it was made, or take another one")]
    Short {
        /// The file.
        file: PathBuf,
        /// How that is seen.
        what: String,
    },
    /// It is as long as it should be, but not what was written.
    #[error("{file} is damaged: {}; take another copy of it, or an older backup", what.join("; "))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// All that is wrong.
        what: Vec<String>,
    },
    /// A newer Ropeway made it.
    #[error("{file} was made by a newer Ropeway ({what}): install that version and ask again")]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Which version of what.
        what: String,
    },
    /// There is a file of that name already.
    #[error("{0} is there already and was not touched: name another file, or say `--force` to replace it")]
    Exists(PathBuf),
    /// The node's database is not whole, so a backup of it would be none.
    #[error("{of} is not whole, no backup was made of it: {}", what.join("; "))]
    NotWhole {
        /// The database.
        of: String,
        /// All that is wrong.
        what: Vec<String>,
    },
    /// Somebody has the database open.
    #[error("{0} is in use: stop `ropeway serve` and every other command on it first")]
    InUse(String),
    /// A database on a server holds a node, and nobody said that it may be replaced.
    #[error(
        "{0} holds a node already and was not touched: name an empty database, or say `--force` to replace it"
    )]
    Occupied(String),
    /// The file system said no.
    #[error("{file}: {said}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What it said.
        said: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    /// A failure of the file system over a file.
    pub(crate) fn io(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |said| Self::Io { file, said }
    }

    /// A file that is not what was written.
    pub(crate) fn damaged(file: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), what: vec![what.into()] }
    }
}

/// Writes manifest and footer behind a database file that is complete, and syncs it to disk.
pub(crate) fn seal(file: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let failed = |e| BackupError::io(file)(e);
    let mut open = File::options().read(true).write(true).open(file).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let body = io::copy(&mut open, &mut hasher).map_err(failed)?;
    let text = serde_json::to_vec(manifest).map_err(|e| failed(e.into()))?;
    let mut end = text.clone();
    end.extend(MAGIC);
    end.extend(body.to_le_bytes());
    end.extend((text.len() as u64).to_le_bytes());
    hasher.update(&end);
    end.extend(hasher.finalize().as_bytes());
    open.write_all(&end).map_err(failed)?;
    open.sync_all().map_err(failed)
}

/// Reads the whole file and compares its checksum. Returns its manifest and how long the database in it is.
pub(crate) fn read(file: &Path) -> Result<(Manifest, u64), BackupError> {
    let failed = |e| BackupError::io(file)(e);
    let mut open = File::open(file).map_err(failed)?;
    let length = open.metadata().map_err(failed)?.len();
    let Some(start) = length.checked_sub(FOOTER as u64) else {
        return Err(unsealed(file, &mut open, length));
    };
    let mut footer = [0; FOOTER];
    open.seek(SeekFrom::Start(start)).map_err(failed)?;
    open.read_exact(&mut footer).map_err(failed)?;
    let (magic, rest) = footer.split_at(MAGIC.len());
    if magic[..15] != MAGIC[..15] {
        return Err(unsealed(file, &mut open, length));
    }
    if magic[15] > MAGIC[15] {
        let what = format!("its layout is version {}, this program knows {}", magic[15], MAGIC[15]);
        return Err(BackupError::TooNew { file: file.to_owned(), what });
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| rest[at + i]));
    let (body, text) = (word(0), word(8));
    open.rewind().map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut (&mut open).take(length - 32), &mut hasher).map_err(failed)?;
    if hasher.finalize().as_bytes()[..] != rest[16..] {
        return Err(BackupError::damaged(file, "its checksum is not the one it was made with"));
    }
    if body.checked_add(text).is_none_or(|sum| sum != start) || text > MANIFEST_MAX {
        return Err(BackupError::damaged(file, "its parts do not fit its length"));
    }
    let mut manifest = Vec::new();
    open.seek(SeekFrom::Start(body)).map_err(failed)?;
    open.take(text).read_to_end(&mut manifest).map_err(failed)?;
    let manifest = serde_json::from_slice(&manifest)
        .map_err(|e| BackupError::damaged(file, format!("its manifest cannot be read: {e}")))?;
    Ok((manifest, body))
}

/// What a file is that has no footer.
fn unsealed(file: &Path, open: &mut File, length: u64) -> BackupError {
    let mut head = Vec::new();
    let read = open.rewind().and_then(|()| open.take(100).read_to_end(&mut head));
    if let Err(said) = read {
        return BackupError::io(file)(said);
    }
    let foreign = |what: &str| BackupError::Foreign { file: file.to_owned(), what: what.to_owned() };
    let sqlite = b"SQLite format 3\0";
    if head.is_empty() {
        return foreign("it is empty");
    }
    if !head.starts_with(&sqlite[..head.len().min(sqlite.len())]) {
        return foreign("it does not begin like one");
    }
    if head.len() < 100 {
        let what = format!("only {length} bytes are there");
        return BackupError::Short { file: file.to_owned(), what };
    }
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
    if word(68).cast_signed() != crate::sqlite::APPLICATION_ID {
        return foreign("it is a SQLite database of another program");
    }
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    if u64::from(word(28)) * page == length {
        let what = "it is a database, not a backup of one; what was written last may still be in the log beside \
                    it (-wal): take a backup with `ropeway backup`";
        return foreign(what);
    }
    let what = format!("{length} bytes are there, and its end is not among them");
    BackupError::Short { file: file.to_owned(), what }
}
