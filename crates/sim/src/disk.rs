//! The disk of a machine: it survives the machine's death, and can be copied. In memory, or a SQLite file in a
//! directory that goes with it.

use crate::shaky::{Life, Shaky};
use ropeway_core::{id::Epoch, time::Time};
use ropeway_store::{MemoryStore, Options, SqliteStore, StoreError, Stored};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// On what the nodes of a story keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum StoreKind {
    /// In memory.
    #[default]
    Memory,
    /// In files.
    Sqlite,
}

/// A directory in memory where there is one: what a kernel does to a file that nobody syncs is not at issue here.
const IN_MEMORY: &str = "/dev/shm";
const NAME: &str = "ropeway.db";

/// The disk of a machine.
#[derive(Clone)]
pub(crate) enum Disk {
    Memory(Arc<MemoryStore>),
    Sqlite { store: Arc<SqliteStore>, options: Options, home: Arc<TempDir> },
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(kind: StoreKind, epoch: Epoch, follows: bool) -> Result<Self, StoreError> {
        match kind {
            StoreKind::Memory => Ok(Self::Memory(Arc::new(MemoryStore::new(epoch, follows)))),
            StoreKind::Sqlite => {
                let options = Options { readers: 1, ..Options::new(epoch, Time(0)).following(follows) };
                Self::open(home().map_err(broken)?, options)
            }
        }
    }

    fn open(home: TempDir, options: Options) -> Result<Self, StoreError> {
        let store = Arc::new(SqliteStore::open(home.path().join(NAME), options.clone())?);
        Ok(Self::Sqlite { store, options, home: Arc::new(home) })
    }

    /// What stands on it, for a node that lives as long as `life`.
    pub(crate) fn store(&self, life: Arc<Life>) -> Shaky {
        match self {
            Self::Memory(store) => Shaky { inner: store.clone(), life, on_the_spot: false },
            // The file is answered for by threads of its own; while a story waited for them, its clock would jump
            // to the next timer.
            Self::Sqlite { store, .. } => Shaky { inner: store.clone() as Stored, life, on_the_spot: true },
        }
    }

    /// The same file opened anew, after its machine died.
    pub(crate) fn reopened(&self) -> Result<Self, StoreError> {
        let Self::Sqlite { options, home, .. } = self else { return Ok(self.clone()) };
        let store = Arc::new(SqliteStore::open(home.path().join(NAME), options.clone())?);
        Ok(Self::Sqlite { store, options: options.clone(), home: home.clone() })
    }

    /// Another disk with what is on this one. Nobody writes meanwhile.
    pub(crate) fn copy(&self) -> Result<Self, StoreError> {
        match self {
            Self::Memory(store) => Ok(Self::Memory(Arc::new(store.image()))),
            Self::Sqlite { options, home, .. } => {
                let copy = self::home().map_err(broken)?;
                for name in [NAME.to_owned(), format!("{NAME}-wal")] {
                    copied(&home.path().join(&name), copy.path().join(&name)).map_err(broken)?;
                }
                Self::open(copy, options.clone())
            }
        }
    }
}

fn home() -> io::Result<TempDir> {
    let in_memory = Path::new(IN_MEMORY);
    if in_memory.is_dir() { TempDir::with_prefix_in("ropeway-sim", in_memory) } else { TempDir::new() }
}

fn copied(from: &Path, to: PathBuf) -> io::Result<()> {
    if from.exists() { fs::copy(from, to).map(drop) } else { Ok(()) }
}

fn broken(error: io::Error) -> StoreError {
    StoreError::Unavailable {
        what: "a directory for the files of a story".into(),
        source: Some(error.into()),
    }
}
