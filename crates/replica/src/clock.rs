//! The clock: one of the three traits that carry IO. Everything else takes time as an argument.

use ropeway_core::time::Time;
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
    /// A number that tells one boot of the machine from another or, where the machine does not say, one run
    /// of the program.
    fn boot(&self) -> u64;
}

/// The machine's clocks. On Linux all programs of one boot share its identity and a monotonic clock that
/// also counts while the machine sleeps, so that what one of them measured corrects what another wrote.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    boot: u64,
    /// Whether the boot is the machine's own.
    machine: bool,
}

/// What the kernel calls this boot. `None` where it does not say.
fn machine_boot() -> Option<u64> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok().filter(|id| !id.is_empty())?;
    let hash = *blake3::hash(&id).as_bytes();
    let head: [u8; 8] = hash.first_chunk().copied()?;
    // 53 bits: what every JSON reader keeps exactly.
    Some(u64::from_le_bytes(head) >> 11)
}

/// Microseconds since the machine started, sleep included. `None` where the platform has no such clock.
#[cfg(target_os = "linux")]
fn since_boot() -> Option<i64> {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    at.tv_sec.checked_mul(1_000_000)?.checked_add(at.tv_nsec / 1_000)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<i64> {
    None
}

impl SystemClock {
    /// Begins a run.
    #[allow(clippy::disallowed_methods, clippy::new_without_default)] // the one place that reads the machine's clocks
    pub fn new() -> Self {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let boot = machine_boot().filter(|_| since_boot().is_some());
        Self { started: Instant::now(), boot: boot.unwrap_or(run), machine: boot.is_some() }
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
        let run = || i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        since_boot().filter(|_| self.machine).unwrap_or_else(run)
    }
    fn boot(&self) -> u64 {
        self.boot
    }
}

/// A clock that stands still until it is told otherwise: for tests, the demo and the simulator.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(i64, i64, u64)>,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Time) -> Self {
        Self { state: Mutex::new((now.0, 0, 1)) }
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
    /// The machine starts again: another boot, whose monotonic clock begins anew.
    pub fn reboot(&self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (state.1, state.2) = (0, state.2 + 1);
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
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).2
    }
}
