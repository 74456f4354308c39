//! How often somebody may ask, by key, in bounded memory.
//!
//! A few lines of our own because the keys are chosen by strangers: the table forgets whoever has been
//! quiet, and beyond its bound all further strangers share one allowance instead of growing it.

use std::{collections::HashMap, hash::Hash, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// Most keys remembered at once.
const KEYS_MAX: usize = 20_000;
/// How often those who have been quiet are forgotten, while the table is full.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A rate for each key: `rate` a second, and twice that at once (the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Allowance<K> {
    every: Duration,
    burst: Duration,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// The time at which a key will have been quiet long enough to have its whole burst again.
    quiet: HashMap<K, Instant>,
    others: Option<Instant>,
    /// When the quiet ones were last forgotten: not with every stranger, which would cost more than it saves.
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Allowance<K> {
    /// `rate` requests a second.
    pub(crate) fn new(rate: u32) -> Self {
        let rate = rate.max(1);
        let every = Duration::from_secs(1) / rate;
        let state = Mutex::new(State { quiet: HashMap::new(), others: None, swept: None });
        Self { every, burst: every * rate.saturating_mul(2), state }
    }

    /// Whether `key` may ask now. `Err`: how long to wait.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = state.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if state.quiet.len() >= KEYS_MAX && due {
            state.quiet.retain(|_, quiet| *quiet > now);
            state.swept = Some(now);
        }
        let full = state.quiet.len() >= KEYS_MAX && !state.quiet.contains_key(&key);
        let seen = if full { state.others } else { state.quiet.get(&key).copied() };
        let quiet = seen.unwrap_or(now).max(now) + self.every;
        let ahead = quiet - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        match full {
            true => state.others = Some(quiet),
            false => {
                state.quiet.insert(key, quiet);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_passes_and_then_the_rate() {
        let allowance = Allowance::new(10);
        let start = Instant::now();
        let passed = |key: u32, at: Instant| (0..100).filter(|_| allowance.take(key, at).is_ok()).count();
        assert_eq!(passed(1, start), 20);
        assert_eq!(passed(2, start), 20, "another key has its own");
        assert!(allowance.take(1, start).unwrap_err() <= Duration::from_millis(100));
        assert_eq!(passed(1, start + Duration::from_millis(500)), 5);
        assert_eq!(passed(1, start + Duration::from_secs(3_600)), 20, "nothing is saved up");
    }

    #[tokio::test]
    async fn strangers_do_not_fill_the_memory() {
        let allowance = Allowance::new(1);
        let start = Instant::now();
        let passed = (0..KEYS_MAX as u32 * 3).filter(|key| allowance.take(*key, start).is_ok()).count();
        assert_eq!(passed, KEYS_MAX + 2);
        assert!(allowance.state.lock().unwrap().quiet.len() <= KEYS_MAX);
        assert!(allowance.take(u32::MAX, start + Duration::from_secs(60)).is_ok());
        assert!(allowance.state.lock().unwrap().quiet.len() <= 1);
    }

    #[tokio::test]
    async fn a_rate_of_one_still_lets_somebody_in() {
        let allowance = Allowance::new(1);
        let start = Instant::now();
        assert!(allowance.take("a", start).is_ok() && allowance.take("a", start).is_ok());
        assert!(allowance.take("a", start).is_err());
    }
}
