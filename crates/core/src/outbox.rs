//! The outbox as values: entries, coalescing, what may be sent next, and settling by receipts.

use crate::{
    change::{Base, Change},
    id::{Key, RecordId},
    receipt::{Reason, Verdict},
    time::{Stamp, Time},
};
use serde::{Deserialize, Serialize};

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// Not sent yet.
    Pending,
    /// In a batch whose bytes are on disk; it may have been sent.
    Sealed,
    /// The upstream waits for a parent; asked again on schedule.
    Waiting,
    /// The upstream refused it; a person's correction replaces it.
    Rejected,
    /// Decided upstream. Laid over the row until a pull has reached the receipt's stamp (ADR 0008).
    Receipted,
    /// Settled and absorbed; kept for a restored upstream, no longer part of any row.
    Settled,
    /// Given up by a person.
    Discarded,
}

impl EntryState {
    /// The word in tables and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sealed => "sealed",
            Self::Waiting => "waiting",
            Self::Rejected => "rejected",
            Self::Receipted => "receipted",
            Self::Settled => "settled",
            Self::Discarded => "discarded",
        }
    }
    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        use EntryState::*;
        [Pending, Sealed, Waiting, Rejected, Receipted, Settled, Discarded]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
    /// Whether the change is still part of the row here: not settled, not given up.
    pub fn is_unsettled(self) -> bool {
        !matches!(self, Self::Settled | Self::Discarded)
    }
    /// Whether the upstream has yet to take it in.
    pub fn is_unsent(self) -> bool {
        matches!(self, Self::Pending | Self::Waiting | Self::Rejected)
    }
}

/// One change on its way to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of acceptance.
    pub seq: i64,
    /// The change as it will be sent. Its base is the upstream's version or none.
    pub change: Change,
    /// The record over which it is laid here: the one it names or, where that is joined, the survivor.
    /// Entries are found by this name.
    pub over: Key,
    /// Other records that the provisional decision here touched (a survivor, cascaded children,
    /// conflicts): they are laid anew when this entry is settled.
    pub also: Vec<Key>,
    /// Whether it was made at this node's own desk: only such entries are coalesced.
    pub own: bool,
    /// Where it stands.
    pub state: EntryState,
    /// The batch it is sealed in.
    pub batch: Option<String>,
    /// Fields of it that wait in an open conflict and so are not laid over the row.
    pub held: Vec<String>,
    /// How often the upstream was asked and did not take it.
    pub attempts: u32,
    /// Not before this time.
    pub due: Time,
    /// When it was accepted here.
    pub accepted_at: Time,
    /// When it was last tried.
    pub tried_at: Option<Time>,
    /// What the upstream said.
    pub verdict: Option<Verdict>,
    /// Why not.
    pub reason: Option<Reason>,
    /// The upstream's head at the receipt.
    pub receipt_stamp: Option<Stamp>,
    /// The base that its receipt grants to the author's next edit of the record, where it grants one.
    pub granted: Option<Base>,
    /// The conflicts that its receipt named.
    pub conflicts: Vec<RecordId>,
}

impl Entry {
    /// Somebody else's change that was accepted at `now`, laid over `over` and not sent yet.
    pub fn pending(seq: i64, change: Change, over: Key, now: Time) -> Self {
        Self {
            seq,
            change,
            over,
            also: Vec::new(),
            own: false,
            state: EntryState::Pending,
            batch: None,
            held: Vec::new(),
            attempts: 0,
            due: Time(i64::MIN),
            accepted_at: now,
            tried_at: None,
            verdict: None,
            reason: None,
            receipt_stamp: None,
            granted: None,
            conflicts: Vec::new(),
        }
    }
}
