//! Pulling everything anew: after a restored backup of this device, or from beyond the horizon.

use super::{conn::Conn, errors::Done, follow, space::Space};
use ropeway_core::id::SpaceId;

const ANEW: &str = "UPDATE rw_follow SET token = NULL WHERE space = ?1";

/// Forgets how far the upstream was read.
pub(super) fn pull_anew(conn: &mut Conn, space: &SpaceId) -> Done<()> {
    follow::unstage(conn, space)?;
    let space = Space::read(conn, space)?.no;
    conn.db.prepare_cached(ANEW)?.execute([space])?;
    Ok(())
}
