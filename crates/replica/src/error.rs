//! What can go wrong in a replica, sorted by what the caller can do.

use ropeway_core::id::BadId;
use ropeway_store::StoreError;

/// A verb of the replica failed. Outcomes of changes are receipts, never errors.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The database failed; nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller's input cannot be used; nothing was written.
    #[error("{0}")]
    Invalid(String),
    /// A limit was passed; nothing was written.
    #[error("{0}")]
    TooLarge(String),
    /// There is nothing of that name here.
    #[error("{0} is not here")]
    NotFound(String),
    /// The record or conflict moved since it was shown; nothing was written.
    #[error("{0}")]
    Moved(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// What was read could not be handed to whoever asked for it.
    #[error("what was read could not be written out: {0}")]
    Output(#[source] std::io::Error),
    /// Somebody else is doing it right now.
    #[error("{0}")]
    Busy(String),
    /// No such token.
    #[error("the token is not known to this node")]
    Unauthenticated,
    /// The device was revoked.
    #[error("the device `{0}` was revoked: it can neither push nor pull, and keeps its outbox")]
    Revoked(String),
    /// The device was copied, and another copy went on (DESIGN §7).
    #[error("{0}")]
    Cloned(String),
    /// The reader was away for longer than tombstones are kept (I10).
    #[error("{0}")]
    ResyncRequired(String),
    /// The cursor was not given by this node to this space.
    #[error("the cursor is not one that this node gave to this space")]
    CursorInvalid,
    /// The cursor or the push is of another generation of this node's data; nothing was written.
    #[error("this node's data is of another generation than the request; nothing was taken in")]
    EpochChanged,
}

impl From<BadId> for ReplicaError {
    fn from(bad: BadId) -> Self {
        Self::Invalid(bad.to_string())
    }
}
