//! The clock of the race day: it runs like the machine's, but from the morning of the race, and can be put
//! forward to the next thing that happens.

use ropeway_core::time::Time;
use ropeway_replica::{Clock, SystemClock};
use std::sync::atomic::{AtomicI64, Ordering};

/// A machine's clock, moved.
#[derive(Debug)]
pub(super) struct RaceClock {
    machine: SystemClock,
    /// Microseconds from the machine's wall clock to the race day's.
    ahead: AtomicI64,
    /// Microseconds by which it was put forward.
    skipped: AtomicI64,
}

impl RaceClock {
    /// Begins at this time.
    pub(super) fn from(begins: Time) -> Self {
        let machine = SystemClock::new();
        let ahead = AtomicI64::new(begins.since(machine.now()));
        Self { machine, ahead, skipped: AtomicI64::new(0) }
    }

    /// Puts the clock forward to `at`; never back.
    pub(super) fn reach(&self, at: Time) {
        let missing = at.since(self.now()).max(0);
        self.ahead.fetch_add(missing, Ordering::Relaxed);
        self.skipped.fetch_add(missing, Ordering::Relaxed);
    }
}

impl Clock for RaceClock {
    fn now(&self) -> Time {
        self.machine.now().plus(self.ahead.load(Ordering::Relaxed))
    }
    fn mono(&self) -> i64 {
        self.machine.mono().saturating_add(self.skipped.load(Ordering::Relaxed))
    }
    fn boot(&self) -> u64 {
        self.machine.boot()
    }
}
