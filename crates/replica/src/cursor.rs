//! Cursors: opaque to whoever holds one, sealed with the node's secret, bound to space and epoch.
//!
//! A cursor is a list of sources with their stamps: the space, and while a reader is catching up with
//! subscriptions, those and the key that is being walked. It has three stamps at most.

use crate::{ReplicaError, secret::hex};
use ropeway_core::{
    id::{Epoch, SpaceId},
    time::Stamp,
};
use ropeway_store::Place;
use subtle::ConstantTimeEq;

/// Writes a cursor: `<stamp>.<epoch>.<seal>`, with further sources behind the first stamp.
pub(crate) fn seal(secret: &[u8; 32], space: &SpaceId, epoch: &Epoch, place: Place) -> String {
    let sources = write(place);
    format!("{sources}.{epoch}.{}", mac(secret, space, epoch, &sources))
}

fn write(place: Place) -> String {
    match place {
        Place { after, subscribed, within: None } if subscribed == after => after.to_string(),
        Place { after, subscribed, within: None } => format!("{after}~{subscribed}"),
        Place { after, subscribed, within: Some(within) } => format!("{after}~{subscribed}~{within}"),
    }
}

fn read(text: &str) -> Option<Place> {
    let stamps: Option<Vec<Stamp>> = text.split('~').map(|s| s.parse().ok().map(Stamp)).collect();
    match stamps?[..] {
        [after] => Some(Place::at(after)),
        [after, subscribed] => Some(Place { after, subscribed, within: None }),
        [after, subscribed, within] => Some(Place { after, subscribed, within: Some(within) }),
        _ => None,
    }
}

/// Reads a cursor. A broken seal is [`ReplicaError::CursorInvalid`]; a whole one of another epoch is
/// [`ReplicaError::EpochChanged`].
pub(crate) fn open(
    secret: &[u8; 32],
    space: &SpaceId,
    epoch: &Epoch,
    token: &str,
) -> Result<Place, ReplicaError> {
    let (sources, rest) = token.split_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let (issued, given) = rest.rsplit_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let place = read(sources).ok_or(ReplicaError::CursorInvalid)?;
    let issued = Epoch::parse(issued).map_err(|_| ReplicaError::CursorInvalid)?;
    let right = mac(secret, space, &issued, sources);
    if !bool::from(right.as_bytes().ct_eq(given.as_bytes())) {
        return Err(ReplicaError::CursorInvalid);
    }
    if issued != *epoch {
        return Err(ReplicaError::EpochChanged);
    }
    Ok(place)
}

fn mac(secret: &[u8; 32], space: &SpaceId, epoch: &Epoch, sources: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    for part in [space.as_bytes(), b"\n", epoch.as_bytes(), b"\n", sources.as_bytes()] {
        hasher.update(part);
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
        let (epoch, later) = (Epoch::trusted("e.1"), Epoch::trusted("e2"));
        let token = seal(&[7; 32], &space, &epoch, Place::at(Stamp(42)));
        assert_eq!(open(&[7; 32], &space, &epoch, &token).unwrap(), Place::at(Stamp(42)));
        let token = seal(&[7; 32], &space, &epoch, catching_up);
        assert_eq!(open(&[7; 32], &space, &epoch, &token).unwrap(), catching_up);
        assert!(matches!(open(&[7; 32], &space, &later, &token), Err(ReplicaError::EpochChanged)));
        assert!(matches!(open(&[7; 32], &other, &epoch, &token), Err(ReplicaError::CursorInvalid)));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert!(
                matches!(open(&[7; 32], &space, &epoch, &flipped), Err(ReplicaError::CursorInvalid)),
                "{flipped}"
            );
        }
    }
}
