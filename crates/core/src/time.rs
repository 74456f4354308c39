//! Time as a value: microseconds, stamps and what an author's clock said. Nothing here reads a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z. On the wire an RFC 3339 text in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

impl Time {
    /// Reads an RFC 3339 instant with any offset. `None` when it is not one, or has no offset.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }
    /// This instant moved by `micros`, without ever wrapping.
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
    /// Microseconds from `earlier` to this instant.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}µs", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 instant with an offset"))
    }
}

/// Commit position in a space: microseconds that also read as a time, strictly increasing, given under
/// the space's lock (I2). On the wire an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub i64);

impl Stamp {
    /// The stamp after this head: `max(head + 1, now)`.
    pub fn next(self, now: Time) -> Self {
        Self(self.0.saturating_add(1).max(now.0))
    }
    /// The stamp read as an instant.
    pub fn time(self) -> Time {
        Time(self.0)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an author's clock said when the edit was made: evidence, never truth (DESIGN §6, Time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorTime {
    /// Wall clock as the device showed it.
    pub wall: Time,
    /// Which boot of the device this was; an offset holds only within one boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<u64>,
    /// Monotonic microseconds since that boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mono: Option<i64>,
    /// Microseconds to add to `wall` to get the deciding node's time, as measured at a contact within
    /// the same boot (TR-21). Absent while nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

impl AuthorTime {
    /// A plain reading of a wall clock.
    pub fn wall(wall: Time) -> Self {
        Self { wall, boot: None, mono: None, offset: None }
    }
    /// The wall clock with its measured offset.
    pub fn corrected(&self) -> Time {
        self.wall.plus(self.offset.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_any_offset_and_print_utc() {
        let a = Time::parse("2026-02-14T10:41:29Z").unwrap();
        assert_eq!(Time::parse("2026-02-14T11:41:29.000+01:00"), Some(a));
        assert_eq!(a.to_string(), "2026-02-14T10:41:29Z");
        assert_eq!(Time::parse("2026-02-14T10:41:29"), None, "a time without an offset is not an instant");
    }

    #[test]
    fn stamps_increase_whatever_the_clock_does() {
        let head = Stamp(100);
        assert_eq!(head.next(Time(50)), Stamp(101));
        assert_eq!(head.next(Time(500)), Stamp(500));
    }
}
