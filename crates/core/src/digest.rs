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
    let mut hasher = blake3::Hasher::new();
    for part in [collection, "\n", id, "\n", joined, "\n", record.data.text()] {
        hasher.update(part.as_bytes());
    }
    first64(&hasher.finalize()).max(1)
}

/// A 64-bit hash for equality checks between honest parties.
pub fn hash64(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or([0; 8]))
}

fn first64(hash: &blake3::Hash) -> i64 {
    // Positive, so that it is the same integer in every database and JSON reader's 64 bits.
    let bytes = hash.as_bytes()[..8].try_into().unwrap_or([0; 8]);
    i64::from_le_bytes(bytes) & i64::MAX
}
