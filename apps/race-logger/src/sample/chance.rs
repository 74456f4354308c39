//! Chance that is no chance: the same seed gives the same numbers on every machine, for ever.

use ropeway_core::{id::RecordId, time::Time};

/// SplitMix64 (Steele, Lea, Flood 2014): small, quick, and all that sample data needs.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// A stream of its own for each purpose, so that more of one kind of data changes no other kind.
    pub(super) fn of(seed: u64, purpose: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(seed ^ hash)
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where the bound is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// One of several.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Mixes a list (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// An id in the shape of a UUIDv7 made at that time.
    pub(super) fn id(&mut self, at: Time) -> RecordId {
        let millis = u64::try_from(at.0 / 1_000).unwrap_or(0) & 0xffff_ffff_ffff;
        let (a, b) = (self.next(), self.next());
        RecordId::trusted(format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
            millis >> 16,
            millis & 0xffff,
            a & 0xfff,
            0x8000 | (a >> 12) & 0x3fff,
            b & 0xffff_ffff_ffff,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_published_ones() {
        let mut chance = Chance(1_234_567);
        assert_eq!(chance.next(), 6_457_827_717_110_365_317);
        assert_eq!(chance.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn ids_have_the_shape_of_version_seven() {
        let id = Chance::of(1, "ids").id(Time(1_771_113_600_000_000));
        assert_eq!(RecordId::parse(&id).map(|parsed| parsed == id), Ok(true));
        assert_eq!((id.len(), &id[14..15]), (36, "7"));
        assert!("89ab".contains(&id[19..20]));
    }
}
