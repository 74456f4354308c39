//! Room 5: the feed as a reader asks for it, one page at a time, with sealed cursors.

use crate::{
    Node, ReplicaError,
    cursor::{self, Position, Source},
};
use ropeway_core::{
    digest::Digest,
    id::{Collection, Epoch, SpaceId},
    limits,
    plan::Fed,
    planted::{self, Bug},
    time::Stamp,
};
use ropeway_store::{FeedPage, Place, Reader, ReaderPage, SpaceState};

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
    /// Records in stamp order, of the space before those that are shared.
    pub rows: Vec<Fed>,
    /// The cursor after this page.
    pub cursor: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The newest head of what was read.
    pub head: Stamp,
    /// The digest at that head.
    pub digest: Digest,
    /// Whether the page reached the head: only then is what was read consistent.
    pub complete: bool,
    /// The keys that the reader is subscribed to; `None`: they see everything.
    pub audiences: Option<Vec<String>>,
}

impl Node {
    /// Reads one page of a space's feed, and of what the app shares.
    ///
    /// Errors: [`ReplicaError::CursorInvalid`] for a cursor that this node did not give to this space,
    /// [`ReplicaError::EpochChanged`] for one of another generation, [`ReplicaError::ResyncRequired`] for one
    /// behind which tombstones have been purged, [`ReplicaError::Busy`] while this
    /// node takes in its own first pull (I6).
    pub async fn feed(&self, space: &SpaceId, request: &FeedRequest) -> Result<ServedPage, ReplicaError> {
        self.page(space, None, request).await
    }

    /// One page for a reader who does not see everything, or for one who does (`None`).
    pub(crate) async fn page(
        &self,
        space: &SpaceId,
        reader: Option<Reader>,
        request: &FeedRequest,
    ) -> Result<ServedPage, ReplicaError> {
        let limited = reader.as_ref().and_then(|reader| reader.device.clone());
        let mut from = match &request.cursor {
            None => Position::beginning(),
            Some(token) => {
                let epoch = self.inner.store.space(space).await?.epoch;
                cursor::open(&self.inner.secret, space, &epoch, limited.as_ref(), token)?
            }
        };
        let limit = request.limit.unwrap_or(limits::PAGE_DEFAULT).clamp(1, limits::PAGE_MAX);
        let mut page = self.own_page(space, reader, from.place, (limit, &request.collections)).await?;
        if page.space.filling {
            let text = "this node is still taking in its first download; ask again when it is complete";
            return Err(ReplicaError::Busy(text.into()));
        }
        from.must_know(page.space.purged)?;
        let knows = from.then(page.place, page.space.purged);
        from = Position { shared: None, ..knows };
        if let Some(shared) = self.beside(space).await? {
            let read = knows.shared.unwrap_or(Source::BEGINNING);
            let read = self.add_shared(&shared, read, &mut page, (limit, &request.collections)).await?;
            from.shared = Some(read).filter(|read| *read != Source::BEGINNING);
        }
        let ReaderPage { rows, space: SpaceState { epoch, head, digest, .. }, complete, audiences, .. } =
            page;
        let cursor = cursor::seal(&self.inner.secret, space, &epoch, limited.as_ref(), from);
        Ok(ServedPage { rows, cursor, epoch, head, digest, complete, audiences })
    }

    async fn own_page(
        &self,
        space: &SpaceId,
        reader: Option<Reader>,
        place: Place,
        (limit, collections): (usize, &[Collection]),
    ) -> Result<ReaderPage, ReplicaError> {
        if let Some(reader) = reader {
            return Ok(self.inner.store.feed_to(space, &reader, place, limit, collections).await?);
        }
        let FeedPage { rows, space, complete } =
            self.inner.store.feed(space, place.after, limit, collections).await?;
        let reached = if complete || planted::has(Bug::RunawayCursor) {
            space.head
        } else {
            rows.last().map_or(place.after, |row| row.stamp)
        };
        Ok(ReaderPage { rows, space, complete, place: Place::at(reached), audiences: None })
    }

    /// Fills a page that reached the head of the space with what is shared. Read after the space: a parent is there
    /// before what refers to it, and never deleted, so what the page completes is whole (I6).
    async fn add_shared(
        &self,
        shared: &SpaceId,
        read: Source,
        page: &mut ReaderPage,
        (limit, collections): (usize, &[Collection]),
    ) -> Result<Source, ReplicaError> {
        let bytes: usize = page.rows.iter().map(|row| row.data.text().len()).sum();
        let room = if bytes < limits::PAGE_BYTES_MAX / 2 { limit - page.rows.len().min(limit) } else { 0 };
        if !page.complete || room == 0 {
            let state = self.inner.store.space(shared).await?;
            horizon(read.knows, state.purged)?;
            same_epoch(page, &state)?;
            page.complete &= read.after >= state.head;
            page.space = crate::shared::with(page.space.clone(), &state);
            return Ok(read);
        }
        let more = self.inner.store.feed(shared, read.after, room, collections).await?;
        same_epoch(page, &more.space)?;
        horizon(read.knows, more.space.purged)?;
        let reached = if more.complete || planted::has(Bug::RunawaySharedCursor) {
            more.space.head
        } else {
            more.rows.last().map_or(read.after, |row| row.stamp)
        };
        page.complete = more.complete;
        page.space = crate::shared::with(page.space.clone(), &more.space);
        page.rows.extend(more.rows);
        Ok(read.then(reached, more.space.purged))
    }
}

/// A page is of one epoch: one that began between two reads begins the pull anew.
fn same_epoch(page: &ReaderPage, shared: &SpaceState) -> Result<(), ReplicaError> {
    match page.space.epoch == shared.epoch {
        true => Ok(()),
        false => Err(ReplicaError::EpochChanged),
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
