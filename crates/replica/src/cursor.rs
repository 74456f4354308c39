//! Cursors: opaque to whoever holds one, sealed with the node's secret, bound to space and epoch.

use crate::{ReplicaError, secret::hex};
use ropeway_core::{
    id::{Epoch, SpaceId},
    time::Stamp,
};
use subtle::ConstantTimeEq;

/// Writes a cursor: `<stamp>.<epoch>.<seal>`.
pub(crate) fn seal(secret: &[u8; 32], space: &SpaceId, epoch: &Epoch, stamp: Stamp) -> String {
    format!("{stamp}.{epoch}.{}", mac(secret, space, epoch, stamp))
}

/// Reads a cursor. A broken seal is [`ReplicaError::CursorInvalid`]; a whole one of another epoch is
/// [`ReplicaError::EpochChanged`].
pub(crate) fn open(
    secret: &[u8; 32],
    space: &SpaceId,
    epoch: &Epoch,
    token: &str,
) -> Result<Stamp, ReplicaError> {
    let (stamp, rest) = token.split_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let (issued, given) = rest.rsplit_once('.').ok_or(ReplicaError::CursorInvalid)?;
    let stamp = Stamp(stamp.parse().map_err(|_| ReplicaError::CursorInvalid)?);
    let issued = Epoch::parse(issued).map_err(|_| ReplicaError::CursorInvalid)?;
    let right = mac(secret, space, &issued, stamp);
    if !bool::from(right.as_bytes().ct_eq(given.as_bytes())) {
        return Err(ReplicaError::CursorInvalid);
    }
    if issued != *epoch {
        return Err(ReplicaError::EpochChanged);
    }
    Ok(stamp)
}

fn mac(secret: &[u8; 32], space: &SpaceId, epoch: &Epoch, stamp: Stamp) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    for part in [space.as_bytes(), b"\n", epoch.as_bytes(), b"\n", &stamp.0.to_le_bytes()] {
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
        let (epoch, later) = (Epoch::trusted("e.1"), Epoch::trusted("e2"));
        let token = seal(&[7; 32], &space, &epoch, Stamp(42));
        assert_eq!(open(&[7; 32], &space, &epoch, &token).unwrap(), Stamp(42));
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
