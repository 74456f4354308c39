//! A machine's clocks on virtual time: the wall clock may be wrong and may jump, the other one not.

use ropeway_core::time::Time;
use ropeway_replica::Clock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use tokio::time::Instant;

/// When every story begins: 2026-02-14T09:00:00Z.
pub(crate) const START: Time = Time(1_771_059_600_000_000);

/// The clocks of one machine.
#[derive(Debug)]
pub(crate) struct SimClock {
    started: Instant,
    /// By how much the wall clock is wrong, in microseconds.
    wrong: AtomicI64,
    boot: AtomicU64,
    booted: AtomicI64,
    /// The latest that the wall clock has ever shown.
    latest: AtomicI64,
    /// Whether it was ever wrong.
    strayed: AtomicBool,
}

impl SimClock {
    /// A right clock; `started` is when the story began.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            wrong: AtomicI64::new(0),
            boot: AtomicU64::new(1),
            booted: AtomicI64::new(0),
            latest: AtomicI64::new(0),
            strayed: AtomicBool::new(false),
        }
    }

    /// Makes the wall clock wrong by this many microseconds.
    pub(crate) fn set_wrong(&self, micros: i64) {
        self.wrong.store(micros, Ordering::Relaxed);
        self.strayed.fetch_or(micros != 0, Ordering::Relaxed);
    }

    /// Whether the wall clock is wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed) != 0
    }

    /// Whether the wall clock was ever wrong.
    pub(crate) fn has_strayed(&self) -> bool {
        self.strayed.load(Ordering::Relaxed)
    }

    /// The machine starts again: another boot, whose monotonic clock begins anew.
    pub(crate) fn reboot(&self) {
        self.boot.fetch_add(1, Ordering::Relaxed);
        self.booted.store(self.elapsed(), Ordering::Relaxed);
    }

    /// The latest that the wall clock has ever shown.
    pub(crate) fn latest(&self) -> Time {
        Time(self.latest.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let now = START.plus(self.elapsed()).plus(self.wrong.load(Ordering::Relaxed));
        self.latest.fetch_max(now.0, Ordering::Relaxed);
        now
    }
    fn mono(&self) -> i64 {
        self.elapsed() - self.booted.load(Ordering::Relaxed)
    }
    fn boot(&self) -> u64 {
        self.boot.load(Ordering::Relaxed)
    }
}
