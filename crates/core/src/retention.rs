//! What may be forgotten: by the cursors of live devices, never by days alone (I10, TR-14).

use crate::{
    planted::{self, Bug},
    time::{Stamp, Time},
};
use std::time::Duration;

/// How long a node keeps what it might still be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// A device not seen for longer than this holds nothing back; when it returns it pulls anew.
    pub horizon: Duration,
    /// For how long a tombstone is kept at least, whoever has read it (TR-14).
    pub tombstones: Duration,
    /// For how long a superseded version is kept; `None`: for ever.
    pub history: Option<Duration>,
    /// For how long receipts and settled outbox entries are kept at least: longer than the oldest backup
    /// that may be restored.
    pub receipts: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            horizon: Duration::from_secs(180 * DAY),
            tombstones: Duration::from_secs(180 * DAY),
            history: None,
            receipts: Duration::from_secs(90 * DAY),
        }
    }
}

/// Somebody who reads: a device that follows this node, or the upstream that it follows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Its id and its name for people.
    pub name: (String, String),
    /// How far it has read; `None`: it never began, and needs nothing of what went before.
    pub read: Option<Stamp>,
    /// When it was last seen, or registered.
    pub seen: Time,
    /// Whether it may read at all.
    pub active: bool,
}

/// Up to where each kind of thing may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Tombstones up to this stamp.
    pub tombstones: Stamp,
    /// Versions that were superseded up to this stamp.
    pub history: Stamp,
    /// Receipts up to this stamp.
    pub receipts: Stamp,
    /// Outbox entries settled before this time, and syncs that ran before it.
    pub settled: Time,
}

/// Whether a reader is live: it may read, and was seen within the horizon. A time ahead of the clock is a
/// clock that was wrong, and counts as seen.
pub fn is_live(reader: &Reader, now: Time, keep: &Keep) -> bool {
    reader.active && now.since(reader.seen) <= micros(keep.horizon)
}

/// Draws the lines. Nothing that a live reader has not read lies before any of them.
pub fn lines(readers: &[Reader], now: Time, keep: &Keep) -> Lines {
    let live = readers.iter().filter(|reader| is_live(reader, now, keep));
    let read = live.filter_map(|reader| reader.read).min().unwrap_or(Stamp(i64::MAX));
    let before = |kept: Duration| Stamp(now.0.saturating_sub(micros(kept)));
    Lines {
        tombstones: match planted::has(Bug::EarlyPurge) {
            true => before(keep.tombstones),
            false => read.min(before(keep.tombstones)),
        },
        history: keep.history.map_or(Stamp(i64::MIN), |kept| read.min(before(kept))),
        receipts: read.min(before(keep.receipts)),
        settled: before(keep.receipts).time(),
    }
}

/// The live readers that hold something back, the one furthest behind first.
pub fn holders<'a>(readers: &'a [Reader], now: Time, keep: &Keep) -> Vec<&'a Reader> {
    let free = Stamp(now.0.saturating_sub(micros(keep.tombstones.min(keep.receipts))));
    let holds = |r: &&Reader| is_live(r, now, keep) && r.read.is_some_and(|read| read < free);
    let mut holders: Vec<&Reader> = readers.iter().filter(holds).collect();
    holders.sort_by(|a, b| (a.read, &a.name).cmp(&(b.read, &b.name)));
    holders
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
