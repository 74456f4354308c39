//! What a node knows of the top's clock: one measurement a boot, and the times that it corrects.
//!
//! A device's wall clock may be wrong and may be set at any moment. Its monotonic clock only counts, so that
//! one contact orders every change of the same boot, before and after it, whatever the wall clock said.

use crate::time::{AuthorTime, Time};
use serde::{Deserialize, Serialize};

/// A round trip longer than this, in microseconds, says too little about the time.
pub const ROUND_TRIP_MAX: i64 = 10_000_000;
/// After this many monotonic microseconds a clock is measured again, because crystals drift.
pub const MEASURED_EVERY: i64 = 900_000_000;
/// Boots of which a measurement is kept: changes of an older one went or wait uncorrected.
pub const BOOTS_MAX: usize = 64;
/// Crystals drift by one part in so many.
const DRIFT: i64 = 10_000;
/// Two measurements further apart than their doubts and this: a clock was set, and the newer one counts.
const SET: i64 = 1_000_000;

/// Two clocks read at one moment: this node's monotonic one and the top's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The boot of this node.
    pub boot: u64,
    /// Its monotonic microseconds.
    pub mono: i64,
    /// The top's time.
    pub top: Time,
    /// How far it may be off at that moment, in microseconds either way.
    pub within: i64,
}

impl Measured {
    /// Measures by a question sent and answered at these monotonic microseconds: the answer is taken as of
    /// the middle. `None` where the round trip was too long, or ran backwards.
    pub fn by(boot: u64, sent: i64, answered: i64, top: Time) -> Option<Self> {
        let round = answered.checked_sub(sent).filter(|round| (0..=ROUND_TRIP_MAX).contains(round))?;
        Some(Self { boot, mono: sent + round / 2, top, within: (round + 1) / 2 })
    }

    /// The top's time at a moment of the same boot.
    pub fn at(&self, mono: i64) -> Time {
        self.top.plus(mono.saturating_sub(self.mono))
    }

    /// How far [`Self::at`] may be off there, in microseconds either way.
    fn doubt(&self, mono: i64) -> i64 {
        let apart = mono.saturating_sub(self.mono).saturating_abs();
        self.within.saturating_add(apart / DRIFT)
    }
}

/// The best measurement of each boot, the newest boot last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boots(Vec<Measured>);

impl Boots {
    fn of(&self, boot: u64) -> Option<&Measured> {
        self.0.iter().rev().find(|m| m.boot == boot)
    }

    /// Takes a measurement where it is better than what is known of its boot, or shows that a clock was set
    /// since. Whether anything changed.
    pub fn take(&mut self, new: Measured) -> bool {
        if let Some(old) = self.0.iter_mut().find(|m| m.boot == new.boot) {
            let (doubt, apart) = (old.doubt(new.mono), new.top.since(old.at(new.mono)).saturating_abs());
            let was_set = apart > doubt.saturating_add(new.within).saturating_add(SET);
            let better = new.within <= doubt || was_set;
            if better {
                *old = new;
            }
            return better;
        }
        self.0.push(new);
        let surplus = self.0.len().saturating_sub(BOOTS_MAX);
        self.0.drain(..surplus);
        true
    }

    /// Whether the clock is to be measured at this moment.
    pub fn wants(&self, boot: u64, mono: i64) -> bool {
        self.of(boot).is_none_or(|m| mono.saturating_sub(m.mono).saturating_abs() >= MEASURED_EVERY)
    }

    /// The top's time at a moment of a boot. `None` where that boot had no contact.
    pub fn top(&self, boot: u64, mono: i64) -> Option<Time> {
        self.of(boot).map(|m| m.at(mono))
    }

    /// What is to be added to the wall clock of a change made here to get the top's time (TR-21).
    pub fn offset(&self, at: &AuthorTime) -> Option<i64> {
        let top = self.top(at.boot?, at.mono?)?;
        Some(top.since(at.wall))
    }
}
