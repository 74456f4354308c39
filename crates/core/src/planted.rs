//! Bugs planted on purpose, one at a time, to prove that the simulator finds them. Nothing of this is in a
//! build without the feature `planted`: [`has`] is then a constant.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A change is decided and its receipt forgotten.
    SkippedReceipt = 1,
    /// The head is read before the lock is taken.
    UnlockedHead,
    /// A page's cursor says more than the page held.
    RunawayCursor,
    /// A pulled joined row does not say into what it was joined.
    LostJoin,
    /// A pull is absorbed page by page.
    PagewiseAbsorb,
    /// A receipt's version is taken as base without the record that goes with it.
    BareBase,
    /// Nonces are not looked at.
    IgnoredNonce,
    /// The later time wins, however wrong the clock was.
    RawClock,
    /// A tombstone is purged although a live device has not read it.
    EarlyPurge,
    /// A follower does not care of which epoch its upstream is.
    IgnoredEpoch,
    /// The feed gives every reader everything, whatever audiences they hold.
    OpenFeed,
    /// Quarantine says that it kept a change which it dropped.
    DroppedQuarantine,
    /// The history of a record is read without regard to its space.
    SharedHistory,
    /// A page's cursor says more of what is shared than the page held.
    RunawaySharedCursor,
    /// What is shared is purged by the cursors of one space's devices.
    SharedByOneSpace,
    /// Whoever may write everything of a space may write what is shared.
    SharedByAnybody,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SkippedReceipt,
        Self::UnlockedHead,
        Self::RunawayCursor,
        Self::LostJoin,
        Self::PagewiseAbsorb,
        Self::BareBase,
        Self::IgnoredNonce,
        Self::RawClock,
        Self::EarlyPurge,
        Self::IgnoredEpoch,
        Self::OpenFeed,
        Self::DroppedQuarantine,
        Self::SharedHistory,
        Self::RunawaySharedCursor,
        Self::SharedByOneSpace,
        Self::SharedByAnybody,
    ];
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Plants a bug in this process, and takes out the one before.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub fn has(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this bug is planted: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}
