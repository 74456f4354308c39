//! Two replicas that differ with nothing under way between them: it is said, and mended by reading anew.

use crate::{Node, ReplicaError, SyncReport};
use ropeway_core::{id::SpaceId, time::Time};
use ropeway_protocol::PageEnd;
use ropeway_store::{Durability, Followed};
use std::time::Duration;

/// Not more often than this is an upstream read from the beginning because the digests differ: where that
/// does not mend it, once more would not either.
const REREAD_EVERY: Duration = Duration::from_secs(3_600);

impl Node {
    /// Whether this replica and its upstream differ although nothing is under way (I4).
    pub(crate) async fn differs(&self, space: &SpaceId, report: &SyncReport) -> Result<bool, ReplicaError> {
        let Some((_, ours)) = report.digests.filter(|(theirs, ours)| theirs != ours) else {
            return Ok(false);
        };
        let counts = self.inner.store.outbox_counts(space).await?;
        if counts.iter().any(|(state, n)| state.is_unsettled() && *n > 0) {
            return Ok(false);
        }
        // Somebody may have written, or given something up, between the two looks.
        Ok(self.inner.store.space(space).await?.digest == ours)
    }

    /// Whether the upstream may be read from the beginning now. Says so once in [`REREAD_EVERY`]; a time
    /// noted under a clock that was ahead is void.
    pub(crate) async fn may_reread(&self, space: &SpaceId) -> Result<bool, ReplicaError> {
        let name = format!("reread.{space}");
        let now = self.inner.clock.now();
        let noted = self.inner.store.meta(&name).await?;
        let last = noted.as_deref().and_then(|text| text.parse().ok()).map(Time);
        let every = i64::try_from(REREAD_EVERY.as_micros()).unwrap_or(i64::MAX);
        if last.is_some_and(|last| (0..every).contains(&now.since(last))) {
            return Ok(false);
        }
        Ok(self.inner.store.swap_meta(&name, noted.as_deref(), &now.0.to_string(), Durability::Full).await?)
    }
}

/// What people are told where replicas differ.
pub(crate) const DIFFERS: &str = "nothing waits here, and yet this replica and its upstream hold different \
     records; nothing was lost; run `ropeway doctor` on both sides and compare `ropeway dump --canonical`";

/// An upstream whose head lies before what it had told in the same epoch: its data went back, by a copied
/// disk say, and nobody said so. What it holds now is not to be taken in.
pub(crate) fn went_back(followed: &Followed, end: &PageEnd) -> Option<String> {
    let back = followed.epoch.as_ref() == Some(&end.epoch) && end.head < followed.cursor;
    back.then(|| {
        format!(
            "the upstream went back in time: its newest change is of {}, but it had told one of {}; nothing was \
             changed here; bring the upstream's data back with `ropeway restore`, which begins a new epoch",
            end.head.time(),
            followed.cursor.time()
        )
    })
}
