//! Whether anybody uses the app that this replica is part of: a phone's app comes to the foreground and is
//! put to sleep, and a machine is suspended with it (IRON-016, IRON-017, REP-054, REP-063).

use crate::Clock;
use ropeway_core::time::Time;
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How often it is looked whether the machine was suspended.
const LOOK: Duration = Duration::from_secs(1);
/// By how much the two clocks must part to tell: less is a clock being set right.
const SUSPENDED: i64 = 20_000_000;

/// What the app last said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) asleep: bool,
    /// How often it came to the foreground, or its machine woke up.
    pub(crate) woken: u64,
}

impl Presence {
    pub(crate) fn wake(&mut self) {
        (self.asleep, self.woken) = (false, self.woken + 1);
    }
}

/// Ends when the app has been asleep for `grace`. Without anybody who could say so, never.
pub(crate) async fn long_asleep(mut presence: watch::Receiver<Presence>, grace: Duration) {
    loop {
        if presence.wait_for(|p| p.asleep).await.is_err() {
            return std::future::pending().await;
        }
        if timeout(grace, presence.wait_for(|p| !p.asleep)).await.is_err() {
            return;
        }
    }
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    wall: Time,
    mono: i64,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), mono: clock.mono() }
    }

    /// How long ago it was. The monotonic clock stands while a machine is suspended, and the wall clock may be
    /// set back: the longer time counts.
    pub(crate) fn ago(self, clock: &dyn Clock) -> Duration {
        let micros = clock.now().since(self.wall).max(clock.mono() - self.mono);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// Ends when the clocks have parted since then: the machine was suspended, or its clock was set. Timers and connections
/// know nothing of the time that is missing.
pub(crate) async fn resumed(clock: &dyn Clock, before: Moment) {
    loop {
        sleep(LOOK).await;
        let parted = clock.now().since(before.wall) - (clock.mono() - before.mono);
        if parted.abs() > SUSPENDED {
            return;
        }
    }
}
