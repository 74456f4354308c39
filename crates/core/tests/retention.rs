//! What may be forgotten, as laws: whatever the devices are, none of them misses anything.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use proptest::prelude::*;
use ropeway_core::{
    limits::BACKUP_WINDOW,
    retention::{Keep, Reader, holders, is_live, lines},
    time::{Stamp, Time},
};
use std::time::Duration;

const NOW: Time = Time(1_771_065_689_000_000);
const DAY: i64 = 86_400_000_000;

fn reader(name: &str, read: Option<i64>, seen_days_ago: i64) -> Reader {
    Reader {
        name: (name.into(), name.into()),
        read: read.map(|days| Stamp(NOW.0 - days * DAY)),
        seen: NOW.plus(-seen_days_ago * DAY),
        active: true,
    }
}

#[test]
fn the_device_furthest_behind_holds_everything_back_until_the_horizon() {
    let keep = Keep { history: Some(Duration::from_secs(10 * 86_400)), ..Keep::default() };
    let sleeping = |days| vec![reader("awake", Some(0), 0), reader("asleep", Some(days), days)];
    let read = lines(&sleeping(179), NOW, &keep);
    assert_eq!(read.history, Stamp(NOW.0 - 179 * DAY));
    assert_eq!(read.receipts, Stamp(NOW.0 - 179 * DAY));
    assert_eq!(read.tombstones, Stamp(NOW.0 - 180 * DAY), "no tombstone goes sooner");
    let names = |readers: &[Reader]| {
        holders(readers, NOW, &keep).iter().map(|r| r.name.0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&sleeping(179)), ["asleep"]);
    let beyond = lines(&sleeping(181), NOW, &keep);
    assert_eq!(beyond.history, Stamp(NOW.0 - 10 * DAY));
    assert_eq!(beyond.receipts, Stamp(NOW.0 - 90 * DAY));
    assert!(names(&sleeping(181)).is_empty());
    let mut revoked = sleeping(100);
    revoked[1].active = false;
    assert_eq!(lines(&revoked, NOW, &keep).history, Stamp(NOW.0 - 10 * DAY));
    let never = [reader("new", None, 0)];
    assert_eq!(lines(&never, NOW, &keep).history, Stamp(NOW.0 - 10 * DAY), "who never read misses nothing");
}

fn any_reader() -> impl Strategy<Value = Reader> {
    (any::<bool>(), prop::option::of(any::<i64>()), any::<i64>()).prop_map(|(active, read, seen)| Reader {
        name: (String::new(), String::new()),
        read: read.map(Stamp),
        seen: Time(seen),
        active,
    })
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let seconds = || (0u64..1 << 40).prop_map(Duration::from_secs);
    (seconds(), seconds(), prop::option::of(seconds()), seconds())
        .prop_map(|(horizon, tombstones, history, receipts)| Keep { horizon, tombstones, history, receipts })
}

proptest! {
    /// I10: no line lies beyond what a live reader has read, nor within the time that is kept anyway; and
    /// one reader more never moves a line forward.
    #[test]
    fn no_live_reader_misses_anything(
        readers in prop::collection::vec(any_reader(), 0..6), now in any::<i64>(), keep in any_keep(),
    ) {
        let now = Time(now);
        let drawn = lines(&readers, now, &keep);
        for reader in readers.iter().filter(|r| is_live(r, now, &keep)) {
            let read = reader.read.unwrap_or(Stamp(i64::MAX));
            prop_assert!(drawn.tombstones <= read && drawn.history <= read && drawn.receipts <= read);
        }
        for line in [drawn.tombstones, drawn.history, drawn.receipts] {
            prop_assert!(line.time() <= now);
        }
        prop_assert!(now.since(drawn.tombstones.time()) >= i64::try_from(keep.tombstones.as_micros()).unwrap_or(i64::MAX)
            || drawn.tombstones.0 == i64::MIN);
        for n in 0..readers.len() {
            let fewer = lines(&readers[..n], now, &keep);
            prop_assert!(drawn.tombstones <= fewer.tombstones && drawn.receipts <= fewer.receipts);
        }
    }
}

/// What a node that goes back to a backup of last week wants to hear again is still there, on both sides.
#[test]
fn receipts_and_settled_changes_outlive_any_backup_that_is_brought_back_by_itself() {
    let keep = Keep::default();
    let window = i64::try_from(BACKUP_WINDOW.as_micros()).unwrap();
    for readers in [vec![], vec![reader("awake", Some(0), 0)], vec![reader("gone", None, 400)]] {
        let lines = lines(&readers, NOW, &keep);
        assert!(lines.receipts < Stamp(NOW.0 - window) && lines.settled < NOW.plus(-window), "{lines:?}");
    }
}
