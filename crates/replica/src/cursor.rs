//! Cursors: opaque to whoever holds one, sealed with the node's secret, bound to space and epoch, and that of a
//! reader who sees a part only to that reader: another one was told of other records.
//!
//! A cursor is a list of sources with their stamps: the space, and while a reader is catching up with
//! subscriptions, those and the key that is being walked. While a reader who began at the beginning is on the way,
//! it also says up to where deletions had been forgotten by then: those are no news to such a reader. Behind these
//! four stamps at most come two of what the app shares, where that is kept beside the space.

use crate::{ReplicaError, secret::hex};
use ropeway_core::{
    id::{DeviceId, Epoch, SpaceId},
    time::Stamp,
};
use ropeway_store::Place;
use subtle::ConstantTimeEq;

/// What a cursor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Where the reader is.
    pub(crate) place: Place,
    /// Up to here a deletion that nobody knows any more is no news to the reader.
    pub(crate) knows: Stamp,
    /// Where they are in what is shared, where that is a source of its own.
    pub(crate) shared: Option<Source>,
}

/// Where a reader is in one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Everything up to here has been read.
    pub(crate) after: Stamp,
    /// Up to here a deletion that nobody knows any more is no news.
    pub(crate) knows: Stamp,
}

impl Source {
    /// The beginning, for a reader who holds nothing of it.
    pub(crate) const BEGINNING: Self = Self { after: Stamp(i64::MIN), knows: Stamp(i64::MAX) };

    /// Where the reader is after a page.
    pub(crate) fn then(self, after: Stamp, purged: Stamp) -> Self {
        Self { after, knows: self.knows.min(purged).max(after) }
    }
}

impl Position {
    /// The beginning, for a reader who holds nothing.
    pub(crate) fn beginning() -> Self {
        Self { place: Place::at(Stamp(i64::MIN)), knows: Stamp(i64::MAX), shared: None }
    }

    /// Where the reader is after a page. `purged` is the newest deletion forgotten when it was read.
    pub(crate) fn then(self, place: Place, purged: Stamp) -> Self {
        Self { place, knows: self.knows.min(purged).max(place.after), shared: self.shared }
    }

    /// Refuses a position behind which deletions may have been missed (I10).
    pub(crate) fn must_know(self, purged: Stamp) -> Result<(), ReplicaError> {
        crate::feed::horizon(self.knows, purged)
    }
}

/// Writes a cursor: `<stamp>.<epoch>.<seal>`, with further sources behind the first stamp, and what is shared behind
/// a `+`.
pub(crate) fn seal(
    secret: &[u8; 32],
    space: &SpaceId,
    epoch: &Epoch,
    reader: Option<&DeviceId>,
    position: Position,
) -> String {
    let sources = write(position);
    format!("{sources}.{epoch}.{}", mac(secret, space, epoch, reader, &sources))
}

fn write(position: Position) -> String {
    let own = write_own(position);
    match position.shared {
        None => own,
        Some(Source { after, knows }) if knows > after => format!("{own}+{after}~{knows}"),
        Some(Source { after, .. }) => format!("{own}+{after}"),
    }
}

fn write_own(position: Position) -> String {
    let Position { place: Place { after, subscribed, within }, knows, .. } = position;
    let within = within.map(|within| within.to_string());
    match within {
        _ if knows > after => format!("{after}~{subscribed}~{}~{knows}", within.unwrap_or_default()),
        Some(within) => format!("{after}~{subscribed}~{within}"),
        None if subscribed == after => after.to_string(),
        None => format!("{after}~{subscribed}"),
    }
}

fn stamp(text: &str) -> Option<Stamp> {
    text.parse().ok().map(Stamp)
}

fn read(text: &str) -> Option<Position> {
    let (own, shared) = match text.split_once('+') {
        Some((own, shared)) => (own, Some(read_shared(shared)?)),
        None => (text, None),
    };
    let parts: Vec<&str> = own.split('~').collect();
    let after = stamp(parts[0])?;
    let subscribed = parts.get(1).map_or(Some(after), |text| stamp(text))?;
    let within = match parts.get(2) {
        None => None,
        Some(&"") if parts.len() > 3 => None,
        Some(text) => Some(stamp(text)?),
    };
    let knows = parts.get(3).map_or(Some(after), |text| stamp(text))?;
    (parts.len() <= 4).then_some(Position { place: Place { after, subscribed, within }, knows, shared })
}

fn read_shared(text: &str) -> Option<Source> {
    match text.split_once('~') {
        Some((after, knows)) => Some(Source { after: stamp(after)?, knows: stamp(knows)? }),
        None => stamp(text).map(|after| Source { after, knows: after }),
    }
}

/// What whoever sends a cursor back has read: of the space, and of what is shared. The seal is not looked at.
pub(crate) fn has_read(token: &str) -> Option<(Stamp, Option<Stamp>)> {
    let position = read(token.split_once('.')?.0)?;
    Some((position.place.after, position.shared.map(|shared| shared.after)))
}

/// Reads a cursor. A broken seal is [`ReplicaError::CursorInvalid`]; a whole one of another epoch is
/// [`ReplicaError::EpochChanged`].
pub(crate) fn open(
    secret: &[u8; 32],
    space: &SpaceId,
    epoch: &Epoch,
    reader: Option<&DeviceId>,
    token: &str,
) -> Result<Position, ReplicaError> {
    let (sources, rest) = token.split_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let (issued, given) = rest.rsplit_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let position = read(sources).ok_or(ReplicaError::CursorInvalid)?;
    let issued = Epoch::parse(issued).map_err(|_| ReplicaError::CursorInvalid)?;
    let right = mac(secret, space, &issued, reader, sources);
    if !bool::from(right.as_bytes().ct_eq(given.as_bytes())) {
        return Err(ReplicaError::CursorInvalid);
    }
    if issued != *epoch {
        return Err(ReplicaError::EpochChanged);
    }
    Ok(position)
}

fn mac(
    secret: &[u8; 32],
    space: &SpaceId,
    epoch: &Epoch,
    reader: Option<&DeviceId>,
    sources: &str,
) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    for part in [space.as_bytes(), b"\n", epoch.as_bytes(), b"\n", sources.as_bytes()] {
        hasher.update(part);
    }
    if let Some(reader) = reader {
        hasher.update(b"\n").update(reader.as_bytes());
    }
    hex(&hasher.finalize().as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (space, other) = (SpaceId::trusted("main"), SpaceId::trusted("other"));
        let catching_up = Place { after: Stamp(42), subscribed: Stamp(40), within: Some(Stamp(-7)) };
        let begun = Position::beginning().then(Place::at(Stamp(42)), Stamp(99));
        let catching_up = Position::beginning().then(catching_up, Stamp(7));
        let at_rest = begun.then(Place::at(Stamp(120)), Stamp(130));
        assert_eq!((begun.knows, catching_up.knows, at_rest.knows), (Stamp(99), Stamp(42), Stamp(120)));
        let (epoch, later) = (Epoch::trusted("e.1"), Epoch::trusted("e2"));
        let mixed = Position { knows: Stamp(50), ..catching_up };
        let both = Source::BEGINNING.then(Stamp(9), Stamp(30));
        let both = Position { shared: Some(both), ..mixed };
        let read_to_the_end = Source::BEGINNING.then(Stamp(-9), Stamp(30)).then(Stamp(31), Stamp(30));
        let read_to_the_end = Position { shared: Some(read_to_the_end), ..at_rest };
        for (position, text) in [
            (at_rest, "120.e.1"),
            (catching_up, "42~40~-7.e.1"),
            (begun, "42~42~~99.e.1"),
            (mixed, "42~40~-7~50.e.1"),
            (both, "42~40~-7~50+9~30.e.1"),
            (read_to_the_end, "120+31.e.1"),
        ] {
            let token = seal(&[7; 32], &space, &epoch, None, position);
            assert!(token.starts_with(text), "{token}");
            assert_eq!(open(&[7; 32], &space, &epoch, None, &token).unwrap(), position);
        }
        let token = seal(&[7; 32], &space, &epoch, None, both);
        assert_eq!(has_read(&token), Some((Stamp(42), Some(Stamp(9)))));
        assert!(matches!(open(&[7; 32], &space, &later, None, &token), Err(ReplicaError::EpochChanged)));
        assert!(matches!(open(&[7; 32], &other, &epoch, None, &token), Err(ReplicaError::CursorInvalid)));
        let (ann, bob) = (DeviceId::trusted("ann"), DeviceId::trusted("bob"));
        let hers = seal(&[7; 32], &space, &epoch, Some(&ann), mixed);
        assert_eq!(open(&[7; 32], &space, &epoch, Some(&ann), &hers).unwrap(), mixed);
        for other in [None, Some(&bob)] {
            let opened = open(&[7; 32], &space, &epoch, other, &hers);
            assert!(matches!(opened, Err(ReplicaError::CursorInvalid)));
        }
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert!(
                matches!(open(&[7; 32], &space, &epoch, None, &flipped), Err(ReplicaError::CursorInvalid)),
                "{flipped}"
            );
        }
    }
}
