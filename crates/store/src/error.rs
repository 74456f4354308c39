//! What can go wrong below the engine. A conflict is never here: that is an outcome.

use std::error::Error;

/// The database failed, and what the caller can do about it. In every case nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It may work again by itself: locked for too long, out of connections, going down.
    #[error("the database cannot be reached now ({what}); nothing was written, try again")]
    Unavailable {
        /// What happened.
        what: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// No room to write.
    #[error(
        "the disk is full; nothing was written and what is stored is safe: free some space and try again"
    )]
    Full,
    /// The file or a row cannot be what this program wrote.
    #[error(
        "the database is damaged: {what}; do not write to it: keep a copy of the file and run `ropeway doctor`"
    )]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// A newer Ropeway has written this database.
    #[error(
        "the database has schema {found}, this program knows {known}: install the newer version; nothing was changed"
    )]
    TooNew {
        /// Schema found.
        found: u32,
        /// Newest known.
        known: u32,
    },
    /// The space was never opened on this node.
    #[error("this node has no space `{0}`")]
    NoSpace(String),
    /// The program itself is at fault: a decision asked for more without end, or SQL failed.
    #[error("internal fault: {what}; nothing was written")]
    Fault {
        /// What happened.
        what: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
