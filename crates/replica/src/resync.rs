//! The end of a pull from the beginning: what this node held from its upstream and what did not come again
//! is gone there, for the upstream has purged the tombstone meanwhile (I10).

use crate::{Node, ReplicaError};
use ropeway_core::{
    absorb,
    id::{Key, SpaceId},
    plan::Keys,
};

/// How many records one transaction lets go.
const STEP: usize = 500;

impl Node {
    /// Lets go of what the upstream no longer knows. Nothing happens unless everything was pulled anew, to
    /// the end. Records of another epoch of the upstream are no business of this: they were lost there, not
    /// deleted. Whether it was so.
    pub(crate) async fn let_go(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        let store = &self.inner.store;
        let followed = store.followed(space).await?;
        if !followed.anew || followed.token.is_none() {
            return Ok(false);
        }
        let partial = followed.audiences.is_some();
        let mut after: Option<Key> = None;
        loop {
            let missing = store.unseen(space, after.as_ref(), STEP).await?;
            let Some((last, _)) = missing.last() else { break };
            after = Some(last.clone());
            let of_this_epoch = |r: &ropeway_core::record::Record| {
                r.upstream.as_ref().map(|u| &u.epoch) == followed.epoch.as_ref()
            };
            let gone: Vec<Key> =
                missing.iter().filter(|(_, r)| of_this_epoch(r)).map(|(key, _)| key.clone()).collect();
            if gone.is_empty() {
                continue;
            }
            let names = || gone.iter().cloned().collect();
            let keys = Keys { records: names(), outbox: names(), ..Keys::default() };
            let profile = self.inner.profile.clone();
            let decide = Box::new(move |snapshot: &_| absorb::gone(snapshot, &gone, partial, &profile));
            let plan = store.transact(space, self.inner.clock.now(), keys, decide).await?;
            self.announce(space, plan.head);
        }
        store.pulled_anew(space).await?;
        Ok(true)
    }
}
