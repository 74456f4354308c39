//! Room 5: the feed as a reader asks for it, one page at a time, with sealed cursors.

use crate::{
    Node, ReplicaError,
    cursor::{self, Position},
};
use ropeway_core::{
    digest::Digest,
    id::{Collection, Epoch, SpaceId},
    limits,
    plan::Fed,
    planted::{self, Bug},
    time::Stamp,
};
use ropeway_store::Place;

/// What a reader asks for.
#[derive(Debug, Clone, Default)]
pub struct FeedRequest {
    /// The cursor of the last page, as it was given. `None`: from the beginning.
    pub cursor: Option<String>,
    /// Most records in the page; bounded by the engine's own limit.
    pub limit: Option<usize>,
    /// Only these collections. Empty: all.
    pub collections: Vec<Collection>,
}

/// One page.
#[derive(Debug, Clone)]
pub struct ServedPage {
    /// Records in stamp order.
    pub rows: Vec<Fed>,
    /// The cursor after this page.
    pub cursor: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The space's head when the page was read.
    pub head: Stamp,
    /// The digest at that head.
    pub digest: Digest,
    /// Whether the page reached the head: only then is what was read consistent.
    pub complete: bool,
    /// The keys that the reader is subscribed to; `None`: they see everything.
    pub audiences: Option<Vec<String>>,
}

impl Node {
    /// Reads one page of a space's feed.
    ///
    /// Errors: [`ReplicaError::CursorInvalid`] for a cursor that this node did not give to this space,
    /// [`ReplicaError::EpochChanged`] for one of another generation, [`ReplicaError::ResyncRequired`] for one
    /// behind which tombstones have been purged, [`ReplicaError::Busy`] while this
    /// node takes in its own first pull (I6).
    pub async fn feed(&self, space: &SpaceId, request: &FeedRequest) -> Result<ServedPage, ReplicaError> {
        let state = self.inner.store.space(space).await?;
        let from = match &request.cursor {
            None => Position::beginning(),
            Some(token) => cursor::open(&self.inner.secret, space, &state.epoch, None, token)?,
        };
        let after = from.place.after;
        let limit = request.limit.unwrap_or(limits::PAGE_DEFAULT).clamp(1, limits::PAGE_MAX);
        let page = self.inner.store.feed(space, after, limit, &request.collections).await?;
        if page.space.filling {
            let text = "this node is still taking in its first download; ask again when it is complete";
            return Err(ReplicaError::Busy(text.into()));
        }
        from.must_know(page.space.purged)?;
        let reached = if page.complete || planted::has(Bug::RunawayCursor) {
            page.space.head
        } else {
            page.rows.last().map_or(after, |row| row.stamp)
        };
        Ok(ServedPage {
            cursor: cursor::seal(
                &self.inner.secret,
                space,
                &page.space.epoch,
                None,
                from.then(Place::at(reached), page.space.purged),
            ),
            epoch: page.space.epoch,
            head: page.space.head,
            digest: page.space.digest,
            complete: page.complete,
            rows: page.rows,
            audiences: None,
        })
    }
}

/// Refuses a position behind which deletions may have been missed (I10).
pub(crate) fn horizon(read: Stamp, purged: Stamp) -> Result<(), ReplicaError> {
    if read >= purged {
        return Ok(());
    }
    Err(ReplicaError::ResyncRequired(format!(
        "deletions up to {} are no longer known here, and this reader had read up to {} only",
        purged.time(),
        read.time()
    )))
}
