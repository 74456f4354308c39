//! The digest by which two replicas prove that they hold the same records (I4).

use crate::{
    id::CONFLICT,
    record::{Record, State},
};
use serde::{Deserialize, Serialize};

/// A sum over what a space holds: the number of records that count and the wrapping sum of their
/// hashes. Sums, not exclusive-ors, so that a record held twice shows; kept up to date by differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest {
    /// How many records count: live ones, joined ones and open conflicts.
    pub count: i64,
    /// Wrapping sum of the 64-bit hashes.
    pub sum: i64,
}

impl Digest {
    /// The digest of two sets of records that have none in common.
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum) }
    }

    /// Takes the difference that one record made.
    pub fn moved(self, before: i64, after: i64) -> Self {
        Self {
            count: self.count + i64::from(after != 0) - i64::from(before != 0),
            sum: self.sum.wrapping_sub(before).wrapping_add(after),
        }
    }
}

/// What one record adds: a hash over its name, state and data, never over version, stamp or local id.
/// Zero for what does not count: tombstones and settled conflicts.
pub fn contribution(collection: &str, id: &str, record: &Record) -> i64 {
    let joined = match &record.state {
        State::Deleted => return 0,
        State::Live => "",
        State::Joined(survivor) => survivor.as_str(),
    };
    if collection == CONFLICT && record.data.str("state") != Some("open") {
        return 0;
    }
    let text = [collection, "\n", id, "\n", joined, "\n", record.data.text()].concat();
    // Positive, so that it is the same integer in every database and JSON reader's 64 bits.
    (hash64(text.as_bytes()).cast_signed() & i64::MAX).max(1)
}

/// A 64-bit hash (XXH3) for equality checks between honest parties: each record and each change of a large sync
/// costs one, on a small board too.
pub fn hash64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Author,
        doc::Doc,
        id::{DeviceId, RecordId},
        ingest::work::new_record,
        time::Time,
    };

    /// As another implementation of XXH3 has them: what every client of the protocol computes.
    #[test]
    fn a_record_counts_as_the_protocol_says() {
        let author = Author { device: DeviceId::trusted("pi"), person: None };
        let record = |text: &str, state| Record { state, ..new_record(Doc::stored(text), &author, Time(0)) };
        let live = record(r#"{"bib":"7","time":"2026-02-14T10:41:29Z"}"#, State::Live);
        assert_eq!(contribution("incident", "i-1", &live), 8_553_656_921_063_088_229);
        let joined = record("{}", State::Joined(RecordId::trusted("i-1")));
        assert_eq!(contribution("incident", "i-2", &joined), 2_453_334_514_528_098_398);
        assert_eq!(contribution("incident", "i-3", &record("{}", State::Deleted)), 0);
    }
}
