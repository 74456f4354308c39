//! Small pieces of which records are made.

use super::SampleRecord;
use ropeway_core::{
    doc::Fields,
    id::{Collection, RecordId},
    time::Time,
};
use serde_json::Value;

/// Midnight (UTC) of the race day, 2026-02-15.
const MIDNIGHT: i64 = 1_771_113_600_000_000;
const SECOND: i64 = 1_000_000;

/// An instant of the race day by the clock on the wall in Verbier, which is an hour ahead of UTC.
pub(super) fn local(hour: i64, minute: i64, second: i64) -> Time {
    Time(MIDNIGHT + ((hour - 1) * 3_600 + minute * 60 + second) * SECOND)
}

/// So many seconds later.
pub(super) fn after(at: Time, seconds: i64) -> Time {
    at.plus(seconds * SECOND)
}

/// An instant as documents write it.
pub(super) fn instant(at: Time) -> Value {
    Value::String(at.to_string())
}

/// A record's fields from pairs; null ones are left out.
pub(super) fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Fields {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A record.
pub(super) fn record(collection: &'static str, id: RecordId, fields: Fields) -> SampleRecord {
    SampleRecord { collection: Collection::trusted(collection), id, fields }
}

/// Parents before children.
pub(super) fn rank(collection: &str) -> usize {
    const ORDER: [&str; 5] = ["competition", "stage", "race", "incident", "report"];
    ORDER.iter().position(|name| *name == collection).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_race_day_is_the_documented_one() {
        assert_eq!(Some(local(1, 0, 0)), Time::parse("2026-02-15T00:00:00Z"));
        assert_eq!(instant(local(11, 32, 15)), "2026-02-15T10:32:15Z");
    }
}
