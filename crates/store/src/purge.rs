//! Forgetting, a bounded step at a time.

use ropeway_core::time::Stamp;

/// What a purge looks at next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Walk {
    /// Tombstones after this stamp.
    Tombstones(Stamp),
    /// Audience rows and subscriptions that ended: what left a sight is told for as long as what was deleted.
    Audiences,
    /// Receipts of change ids after this one.
    Receipts(String),
    /// Superseded versions after this row.
    History(i64),
    /// Settled outbox entries after this number.
    Outbox(i64),
    /// Finished syncs.
    Runs,
}

impl Walk {
    /// Where a purge begins.
    pub fn start() -> Self {
        Self::Tombstones(Stamp(i64::MIN))
    }

    /// The word for what it looks at.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Tombstones(_) => "tombstones",
            Self::Audiences => "audiences",
            Self::Receipts(_) => "receipts",
            Self::History(_) => "history",
            Self::Outbox(_) => "outbox",
            Self::Runs => "runs",
        }
    }

    /// What is looked at when this kind is done; `None`: nothing is left.
    pub(crate) fn then(&self) -> Option<Self> {
        match self {
            Self::Tombstones(_) => Some(Self::Audiences),
            Self::Audiences => Some(Self::Receipts(String::new())),
            Self::Receipts(_) => Some(Self::History(i64::MIN)),
            Self::History(_) => Some(Self::Outbox(i64::MIN)),
            Self::Outbox(_) => Some(Self::Runs),
            Self::Runs => None,
        }
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Rows that went, or would go.
    pub rows: u64,
    /// Where to go on; `None`: that was all.
    pub next: Option<Walk>,
}

/// The latest syncs are shown to people and stay however old they are.
pub(crate) const RUNS_KEPT: usize = 100;
