//! Epochs as values: what a restored node remembers of the epoch that was lost, and where a bare time
//! that it once issued is served from.

use crate::time::{Stamp, Time};

/// The break between the epoch that a restored database comes from and the one it began. Positions in
/// between were issued to readers and exist no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// The newest position of the lost epoch that is still true: what came after it was lost or has moved.
    pub after: Stamp,
    /// The first position of the new epoch.
    pub begins: Stamp,
    /// The furthest position that the lost epoch is known to have issued. It lies beyond the new epoch's
    /// head where stamps were given anew because the clock had once been wrong.
    pub lost: Stamp,
}

/// The position from which a reader is served who knows nothing but a time, as some dialects have it.
///
/// A time inside a gap was issued by the lost epoch: whoever holds it has seen nothing of the new one, and
/// is served from the last position that both have in common. A time beyond the head was issued by a lost
/// epoch, or by a clock that is ahead: it is served from where that epoch ended, or else as the head.
pub fn serve_from(bare: Time, head: Stamp, gaps: &[Gap]) -> Stamp {
    let asked = Stamp(bare.0);
    if asked > head {
        let lost = gaps.iter().filter(|gap| asked <= gap.lost).map(|gap| gap.after);
        return lost.min().unwrap_or(head);
    }
    let inside = gaps.iter().filter(|gap| gap.after < asked && asked < gap.begins).map(|gap| gap.after);
    inside.min().unwrap_or(asked)
}

/// Where a database that was restored goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The break to remember.
    pub gap: Gap,
    /// The new head. The next stamp is greater.
    pub head: Stamp,
    /// The first new stamp of the records that lie ahead of the clock, in their order. `None`: all stamps
    /// stay.
    pub restamp: Option<Stamp>,
}

/// Begins an epoch at `max(head, now)`. `ahead` is asked for where records are to be given new stamps: how
/// many lie ahead of the clock, and the newest stamp that does not.
pub fn begin(head: Stamp, now: Time, ahead: Option<(i64, Stamp)>) -> Begin {
    let clock = Stamp(now.0);
    match ahead {
        Some((count, kept)) if head > clock => {
            // Right up to the clock, so that the head alarm is quiet and the order is what it was.
            let first = Stamp(kept.0.saturating_add(1).max(now.0.saturating_sub(count).saturating_add(1)));
            let last = Stamp(first.0.saturating_add(count).saturating_sub(1).max(now.0));
            let gap = Gap { after: kept, begins: first, lost: head };
            Begin { gap, head: last, restamp: Some(first) }
        }
        _ => {
            let begins = head.max(clock);
            Begin { gap: Gap { after: head, begins, lost: begins }, head: begins, restamp: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bare: i64, gaps: &[Gap]) -> i64 {
        serve_from(Time(bare), Stamp(1_000), gaps).0
    }

    #[test]
    fn a_bare_time_is_served_from_where_its_epoch_still_holds() {
        let gap = |after, begins, lost| Gap { after: Stamp(after), begins: Stamp(begins), lost: Stamp(lost) };
        assert_eq!((at(0, &[]), at(500, &[]), at(1_000, &[])), (0, 500, 1_000), "no gap: as it is");
        assert_eq!(at(5_000, &[]), 1_000, "ahead of the head: the head");
        let one = [gap(300, 600, 600)];
        let asked = [299, 300, 301, 599, 600, 700, 5_000];
        assert_eq!(asked.map(|t| at(t, &one)), [299, 300, 300, 300, 600, 700, 1_000]);
        let nested = [gap(300, 600, 600), gap(100, 800, 800)];
        assert_eq!([100, 101, 400, 700, 800].map(|t| at(t, &nested)), [100, 100, 100, 100, 800]);
        let restamped = [gap(300, 900, 9_000)];
        assert_eq!([400, 950, 9_000, 9_001].map(|t| at(t, &restamped)), [300, 950, 300, 1_000]);
    }

    #[test]
    fn an_epoch_begins_at_the_head_or_at_the_clock_and_a_cure_brings_the_head_back_to_the_clock() {
        let plain = begin(Stamp(300), Time(700), None);
        assert_eq!((plain.gap.after, plain.gap.begins, plain.head), (Stamp(300), Stamp(700), Stamp(700)));
        let ahead = begin(Stamp(9_000), Time(700), None);
        assert_eq!((ahead.head, ahead.restamp), (Stamp(9_000), None));
        let cured = begin(Stamp(9_000), Time(700), Some((5, Stamp(300))));
        assert_eq!((cured.restamp, cured.head), (Some(Stamp(696)), Stamp(700)));
        assert_eq!((cured.gap.after, cured.gap.lost), (Stamp(300), Stamp(9_000)));
        let tight = begin(Stamp(9_000), Time(700), Some((5, Stamp(699))));
        assert_eq!((tight.restamp, tight.head), (Some(Stamp(700)), Stamp(704)));
        assert_eq!(begin(Stamp(300), Time(700), Some((0, Stamp(300)))).restamp, None, "nothing is ahead");
        let empty = begin(Stamp(9_000), Time(700), Some((0, Stamp(300))));
        assert_eq!(empty.head, Stamp(700), "the head alone was ahead");
    }
}
