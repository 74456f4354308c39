//! Times corrected by one contact in a boot: the order is the true one, whatever the wall clock did.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use proptest::prelude::*;
use ropeway_core::{
    measured::{BOOTS_MAX, Boots, MEASURED_EVERY, Measured, ROUND_TRIP_MAX},
    time::{AuthorTime, Time},
};

const YEAR: i64 = 365 * 86_400_000_000;

fn at(boot: u64, mono: i64, wall: i64) -> AuthorTime {
    AuthorTime { wall: Time(wall), boot: Some(boot), mono: Some(mono), offset: None }
}

fn corrected(boots: &Boots, at: AuthorTime) -> Option<Time> {
    boots.offset(&at).map(|offset| AuthorTime { offset: Some(offset), ..at }.corrected())
}

proptest! {
    /// Any steps of the wall clock within a boot, one contact anywhere in it.
    #[test]
    fn corrected_times_are_in_the_true_order(
        edits in prop::collection::vec((1..YEAR / 100, -20 * YEAR..80 * YEAR), 2..20),
        contact in 0..YEAR, trip in 0..ROUND_TRIP_MAX, lean in 0.0..=1.0f64,
    ) {
        let booted = 50 * YEAR;
        let mut boots = Boots::default();
        // The answer was given anywhere between sending and hearing it.
        let answered_at = contact + (trip as f64 * lean) as i64;
        let measured = Measured::by(7, contact, contact + trip, Time(booted + answered_at)).unwrap();
        prop_assert!(boots.take(measured));
        let (mut mono, mut last) = (0, None);
        for (later, wall) in edits {
            mono += later;
            let told = corrected(&boots, at(7, mono, wall)).unwrap();
            prop_assert!(last.is_none_or(|last| last < told), "the order of the boot");
            let off = told.since(Time(booted + mono)).abs();
            prop_assert!(off <= trip / 2 + 1, "off by {off} µs, the round trip took {trip}");
            last = Some(told);
        }
    }
}

#[test]
fn what_was_not_measured_is_not_corrected() {
    let mut boots = Boots::default();
    assert_eq!(boots.offset(&at(1, 5, 9)), None);
    boots.take(Measured::by(1, 0, 2, Time(1_000)).unwrap());
    assert_eq!(boots.offset(&at(2, 5, 9)), None, "another boot");
    assert_eq!(boots.offset(&AuthorTime::wall(Time(9))), None, "an app that notes no boot");
    assert_eq!(corrected(&boots, at(1, 5, 9)), Some(Time(1_004)));
    assert_eq!(corrected(&boots, at(1, -3, i64::MAX)), Some(Time(996)), "before the contact");
}

#[test]
fn a_long_round_trip_says_nothing() {
    assert_eq!(Measured::by(1, 0, ROUND_TRIP_MAX + 1, Time(0)), None);
    assert_eq!(Measured::by(1, 5, 4, Time(0)), None, "a clock that runs backwards is none");
    assert_eq!(Measured::by(1, i64::MIN, i64::MAX, Time(0)), None);
    assert!(Measured::by(1, 0, ROUND_TRIP_MAX, Time(0)).is_some());
}

#[test]
fn the_best_measurement_of_a_boot_stays() {
    let mut boots = Boots::default();
    let by = |sent: i64, trip: i64, top: i64| Measured::by(1, sent, sent + trip, Time(top)).unwrap();
    assert!(boots.take(by(0, 100, 1_050)));
    assert!(!boots.take(by(1_000, 5_000_000, 2_502_000)), "a worse one");
    assert!(boots.take(by(2_000, 10, 3_005)), "a better one");
    assert_eq!(corrected(&boots, at(1, 2_005, 0)), Some(Time(3_005)));
    // Much later it has drifted by more than the new one's doubt.
    assert!(boots.take(by(YEAR, 1_000_000, YEAR + 1_500_000)));
    // The top's clock was set, or the machine slept uncounted: the newer word counts.
    assert!(boots.take(by(YEAR + 10_000_000, 9_000_000, 9 * YEAR)));
}

#[test]
fn a_clock_is_measured_in_each_boot_and_now_and_then() {
    let mut boots = Boots::default();
    assert!(boots.wants(1, 0));
    boots.take(Measured::by(1, 0, 0, Time(0)).unwrap());
    assert!(!boots.wants(1, MEASURED_EVERY - 1));
    assert!(boots.wants(1, MEASURED_EVERY) && boots.wants(2, 0));
    for boot in 2..=BOOTS_MAX as u64 + 1 {
        boots.take(Measured::by(boot, 0, 0, Time(0)).unwrap());
    }
    assert_eq!((boots.top(1, 0), boots.top(2, 0)), (None, Some(Time(0))), "the oldest is forgotten");
    let text = serde_json::to_string(&boots).unwrap();
    assert_eq!(serde_json::from_str::<Boots>(&text).unwrap(), boots);
}
