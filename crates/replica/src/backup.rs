//! What follows when a backup is put in the place of a node's data.

use crate::{Clock, Ids, ReplicaError, lease, nonce};
use ropeway_core::id::{Epoch, SpaceId};
use ropeway_store::Store;

/// Begins a new epoch in a database that was restored and is not open as a node yet. Everybody who follows
/// this node learns by it that it went back in time, and hands in what it lost. Leases of syncs that were
/// running when the backup was taken are dropped. Where it follows an upstream itself, it is a new
/// installation of the same device there, and is not taken for a clone. Returns the epoch.
pub async fn begin_epoch(
    store: &dyn Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
    spaces: &[SpaceId],
    restamp: bool,
) -> Result<Epoch, ReplicaError> {
    let epoch = Epoch::parse(&ids.id())?;
    store.begin_epoch(&epoch, clock.now(), restamp).await?;
    for space in spaces {
        nonce::begin_installation(store, ids, space).await?;
        let name = lease::name(space);
        if store.meta(&name).await?.is_some() {
            store.put_meta(&name, "").await?;
        }
    }
    Ok(epoch)
}
