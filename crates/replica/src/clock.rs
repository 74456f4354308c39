//! The clock: one of the three traits that carry IO. Everything else takes time as an argument.

use ropeway_core::time::{AuthorTime, Time};
use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where a node reads time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, which may be wrong and may jump.
    fn now(&self) -> Time;
    /// Microseconds on a clock that never runs backwards, within one boot.
    fn mono(&self) -> i64;
    /// A number that tells one boot (here: one run of the program) from another.
    fn boot(&self) -> u64;
    /// What an edit made now notes about its time.
    fn author_time(&self) -> AuthorTime {
        AuthorTime { wall: self.now(), boot: Some(self.boot()), mono: Some(self.mono()), offset: None }
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    boot: u64,
}

impl SystemClock {
    /// Begins a run.
    #[allow(clippy::disallowed_methods, clippy::new_without_default)] // the one place that reads the machine's clocks
    pub fn new() -> Self {
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        Self { started: Instant::now(), boot }
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that reads the machine's clocks
    fn now(&self) -> Time {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        #[cfg(feature = "testing")]
        let wall = wall.saturating_add(crate::wrong_clock::by());
        Time(wall)
    }
    fn mono(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
    fn boot(&self) -> u64 {
        self.boot
    }
}

/// A clock that stands still until it is told otherwise: for tests, the demo and the simulator.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(i64, i64)>,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Time) -> Self {
        Self { state: Mutex::new((now.0, 0)) }
    }
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 += by;
        state.1 += by;
    }
    /// Makes the wall clock jump, as wrong clocks do; the monotonic one does not notice.
    pub fn jump_to(&self, now: Time) {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0 = now.0;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0)
    }
    fn mono(&self) -> i64 {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
    fn boot(&self) -> u64 {
        1
    }
}
