//! A page for a reader who sees what they are subscribed to. Put together in one place for every store,
//! from a few reads of one moment.
//!
//! The feed of such a reader is the records newer than the cursor that they see, merged by stamp with what
//! entered and left their audiences since. A subscription that began or ended behind the cursor is a
//! source of its own: its records are walked once, in the order in which they entered.

use crate::{Place, Reader, ReaderPage, SpaceState, StoreError, asking::fault};
use ropeway_core::{
    audience::{self, AudienceRow, EVERYBODY, Subscription, Worn},
    digest::Digest,
    id::{Collection, DeviceId, Key},
    limits,
    plan::Fed,
    time::Stamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

type Done<T> = Result<T, StoreError>;

/// The stamp of a reader who has read nothing.
const BEGINNING: Stamp = Stamp(i64::MIN);

/// The reads that a page is made of, all of one moment.
pub(crate) trait Shelf: Send {
    /// The space.
    fn state(&self) -> SpaceState;
    /// A reader's subscriptions, ended ones included.
    fn subscriptions(&mut self, reader: &DeviceId) -> impl Reading<Vec<Subscription>>;
    /// Records newer than `after` in stamp order: those of the `open` collections (`None`: of all) and
    /// those that carry one of `keys`. May give fewer where they are large, but never none.
    fn newer(
        &mut self,
        after: Stamp,
        open: Option<&[Collection]>,
        keys: &BTreeSet<String>,
        limit: usize,
    ) -> impl Reading<Vec<Fed>>;
    /// Audience rows of these keys that entered after one stamp and not after another, in that order.
    fn entered(
        &mut self,
        keys: &BTreeSet<String>,
        after: Stamp,
        upto: Stamp,
        limit: usize,
    ) -> impl Reading<Vec<AudienceRow>>;
    /// Audience rows (of these keys) that left after a stamp, in that order.
    fn left(
        &mut self,
        keys: Option<&BTreeSet<String>>,
        after: Stamp,
        limit: usize,
    ) -> impl Reading<Vec<AudienceRow>>;
    /// The audience rows of a record.
    fn rows_of(&mut self, record: &Key) -> impl Reading<Vec<AudienceRow>>;
    /// A record as the feed carries it.
    fn record(&mut self, key: &Key) -> impl Reading<Option<Fed>>;
    /// The digests of records that the same readers see.
    fn sights(&mut self) -> impl Reading<Vec<(String, Digest)>>;
}

/// A read on its way: from another machine, or done at once.
pub(crate) trait Reading<T>: Future<Output = Done<T>> + Send {}

impl<T, F: Future<Output = Done<T>> + Send> Reading<T> for F {}

/// The answer of reads that wait for nobody, for stores whose reads are calls.
pub(crate) fn at_once<T>(reading: impl Future<Output = Done<T>>) -> Done<T> {
    match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(fault("a read that waits for nobody waited".into())),
    }
}

/// What ended or began behind a reader's cursor.
struct Source {
    audience: String,
    began: bool,
}

struct Page<'s, S> {
    shelf: &'s mut S,
    reader: &'s Reader,
    wanted: &'s [Collection],
    keys: BTreeSet<String>,
    limit: usize,
    rows: Vec<Fed>,
    bytes: usize,
    sent: BTreeSet<Key>,
}

/// Reads the page behind `place`.
pub(crate) async fn page(
    shelf: &mut impl Shelf,
    reader: &Reader,
    place: Place,
    limit: usize,
    wanted: &[Collection],
) -> Done<ReaderPage> {
    let subscriptions = match &reader.device {
        Some(device) => shelf.subscriptions(device).await?,
        None => Vec::new(),
    };
    let held = audience::held(&subscriptions);
    let mut keys = held.clone();
    if let Some(only) = &reader.only {
        match reader.device {
            Some(_) => keys.retain(|key| only.contains(key)),
            None => keys.clone_from(only),
        }
    }
    keys.insert(EVERYBODY.to_owned());
    let limit = limit.max(1);
    let (rows, sent) = (Vec::new(), BTreeSet::new());
    let mut page = Page { shelf, reader, wanted, keys, limit, rows, bytes: 0, sent };
    let (place, complete) = page.read(place, &subscriptions).await?;
    let digest = page.digest().await?;
    let space = SpaceState { digest, ..page.shelf.state() };
    let audiences = reader.device.is_some().then(|| held.into_iter().collect());
    Ok(ReaderPage { rows: page.rows, space, complete, place, audiences })
}

impl<S: Shelf> Page<'_, S> {
    async fn read(&mut self, place: Place, subscriptions: &[Subscription]) -> Done<(Place, bool)> {
        let head = self.shelf.state().head;
        let mut place = place;
        for (stamp, source) in self.sources(&place, subscriptions) {
            let from = place.within.take().unwrap_or(Stamp(i64::MIN));
            // From the beginning nothing is known to have been told: all that was ever there is named.
            let upto = if place.after == BEGINNING { Stamp(i64::MAX) } else { place.after };
            if let Some(within) = self.walk(&source, from, upto).await? {
                return Ok((Place { within: Some(within), ..place }, false));
            }
            place.subscribed = stamp;
        }
        if place.after == BEGINNING {
            // What is held at the beginning comes with the feed itself, and never again as news behind it.
            let newest = subscriptions.iter().map(|s| s.left.unwrap_or(s.entered)).max();
            place.subscribed = newest.map_or(place.subscribed, |newest| place.subscribed.max(newest));
        }
        place.within = None;
        match self.merged(place.after).await? {
            Some(reached) => Ok((Place { after: reached, ..place }, false)),
            None => {
                let reached = place.after.max(head);
                Ok((Place { after: reached, subscribed: reached, within: None }, true))
            }
        }
    }

    /// Subscriptions that began or ended since the reader was told, by when they did. Behind a cursor at the
    /// beginning lies nothing that came in sight, but a reader who reads anew may hold what left it.
    fn sources(&self, place: &Place, subscriptions: &[Subscription]) -> BTreeMap<Stamp, Source> {
        let moved = |s: &Subscription| {
            let stamp = s.left.unwrap_or(s.entered);
            let source = Source { audience: s.audience.clone(), began: s.left.is_none() };
            (stamp > place.subscribed).then_some((stamp, source))
        };
        let mut sources: BTreeMap<Stamp, Source> = subscriptions.iter().filter_map(moved).collect();
        sources.retain(|_, source| place.after != BEGINNING || !source.began);
        sources
    }

    /// Walks what lies behind the cursor under one key: what came in sight is sent, what went out of sight
    /// is told. Where the page is full: how far it came.
    async fn walk(&mut self, source: &Source, from: Stamp, upto: Stamp) -> Done<Option<Stamp>> {
        let key = BTreeSet::from([source.audience.clone()]);
        let mut from = from;
        loop {
            let found = self.shelf.entered(&key, from, upto, self.limit + 1).await?;
            if found.is_empty() {
                return Ok(None);
            }
            for row in found {
                if self.is_full() {
                    return Ok(Some(from));
                }
                from = row.entered;
                let stands = row.left.is_none_or(|left| left > upto) || upto == Stamp(i64::MAX);
                if !stands || !self.is_wanted(&row.record) {
                    continue;
                }
                match (self.sees(&row.record).await?, source.began) {
                    (true, true) => self.send(&row.record).await?,
                    (false, false) => self.tell(&row, row.entered),
                    _ => {}
                }
            }
        }
    }

    /// The feed proper. Where the page is full: how far it came.
    async fn merged(&mut self, after: Stamp) -> Done<Option<Stamp>> {
        let room = self.limit.saturating_sub(self.rows.len());
        if self.is_full() {
            return Ok(Some(after));
        }
        let most = room + 1;
        let open = (!self.reader.all || self.reader.only.is_some()).then_some(self.reader.open.as_slice());
        let newer = self.shelf.newer(after, open, &self.keys, most).await?;
        let cut = newer.len() == most || bytes(&newer) > limits::PAGE_BYTES_MAX;
        let entered = match open {
            Some(_) => self.shelf.entered(&self.keys, after, Stamp(i64::MAX), most).await?,
            None => Vec::new(),
        };
        let left = self.shelf.left(open.map(|_| &self.keys), after, most).await?;
        // Nothing beyond the last of a list that was cut is known to be complete.
        let mut upto = Stamp(i64::MAX);
        let ends = [
            cut.then(|| newer.last().map(|r| r.stamp)).flatten(),
            (entered.len() == most).then(|| entered.last().map(|r| r.entered)).flatten(),
            (left.len() == most).then(|| left.last().and_then(|r| r.left)).flatten(),
        ];
        for end in ends.into_iter().flatten() {
            upto = upto.min(end);
        }
        let mut events: Vec<(Stamp, Event)> = Vec::with_capacity(newer.len());
        events.extend(newer.into_iter().map(|fed| (fed.stamp, Event::Changed(Box::new(fed)))));
        events.extend(entered.into_iter().map(|row| (row.entered, Event::Entered(row))));
        events.extend(left.into_iter().filter_map(|row| Some((row.left?, Event::Left(row)))));
        events.sort_by_key(|(stamp, _)| *stamp);
        let mut reached = after;
        for (stamp, event) in events {
            if stamp > upto || (stamp > reached && self.is_full()) {
                return Ok(Some(reached));
            }
            self.take(stamp, event).await?;
            reached = stamp;
        }
        Ok((upto < Stamp(i64::MAX)).then_some(reached))
    }

    async fn take(&mut self, stamp: Stamp, event: Event) -> Done<()> {
        match event {
            Event::Changed(fed) => {
                if self.is_wanted(&fed.key) {
                    self.put(*fed);
                }
            }
            Event::Entered(row) => {
                let record = self.shelf.record(&row.record).await?;
                // A record that changed later comes at its own place.
                let later = record.is_none_or(|fed| fed.stamp >= stamp);
                if row.left.is_none() && !later && self.is_wanted(&row.record) {
                    self.send(&row.record).await?;
                }
            }
            Event::Left(row) => {
                let sees = match self.reader.all {
                    true => self.shelf.record(&row.record).await?.is_some(),
                    false => self.sees(&row.record).await?,
                };
                if !sees && self.is_wanted(&row.record) {
                    self.tell(&row, stamp);
                }
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.bytes >= limits::PAGE_BYTES_MAX
    }

    fn is_wanted(&self, record: &Key) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&record.collection)
    }

    async fn sees(&mut self, record: &Key) -> Done<bool> {
        let worn = Worn::read(&self.shelf.rows_of(record).await?);
        Ok(audience::sees(&self.keys, &worn.sight()) && self.shelf.record(record).await?.is_some())
    }

    async fn send(&mut self, record: &Key) -> Done<()> {
        if let Some(fed) = self.shelf.record(record).await? {
            self.put(fed);
        }
        Ok(())
    }

    fn put(&mut self, fed: Fed) {
        if self.sent.insert(fed.key.clone()) {
            self.bytes += fed.data.text().len();
            self.rows.push(fed);
        }
    }

    fn tell(&mut self, row: &AudienceRow, stamp: Stamp) {
        self.put(Fed::leaving(row.record.clone(), stamp, self.reader.node.clone()));
    }

    /// The digest of what the reader sees.
    async fn digest(&mut self) -> Done<Digest> {
        if self.reader.all && self.reader.only.is_none() {
            return Ok(self.shelf.state().digest);
        }
        let mut sum = Digest::default();
        for (sight, digest) in self.shelf.sights().await? {
            if audience::sees(&self.keys, &sight) {
                sum = sum.plus(digest);
            }
        }
        Ok(sum)
    }
}

enum Event {
    Changed(Box<Fed>),
    Entered(AudienceRow),
    Left(AudienceRow),
}

fn bytes(rows: &[Fed]) -> usize {
    rows.iter().map(|row| row.data.text().len()).sum()
}
