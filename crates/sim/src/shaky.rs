//! A store whose machine dies at a named call: before the call had its effect, or right after.

use async_trait::async_trait;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    change::Change,
    epoch::Gap,
    id::{Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::{Fed, Keys, Plan, Sealed, Superseded},
    profile::Profile,
    record::Record,
    retention::Lines,
    time::{Stamp, Time},
};
use ropeway_store::{
    Absorb, Audit, Counts, Decide, Device, Durability, FeedPage, Followed, Member, Place, Portion, PullEnd,
    Purged, Quarantine, QuarantineEnd, Quarantined, Reader, ReaderPage, Room, SpaceState, Store, StoreError,
    Stored, SyncRun, Walk,
};
use std::{
    future::{Future, pending},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake},
    thread::{self, Thread},
};
use tokio::sync::watch;

/// One run of a machine, from switching on until it dies.
pub(crate) struct Life {
    dead: watch::Sender<bool>,
    /// Calls that are left, and whether the last one still has its effect.
    fuse: Mutex<Option<(u64, bool)>>,
}

impl Life {
    /// Begins.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { dead: watch::channel(false).0, fuse: Mutex::new(None) })
    }

    /// Lets the machine die at its `call`-th writing call from now on (0: the next one).
    pub(crate) fn arm(&self, fuse: Option<(u64, bool)>) {
        *self.fuse.lock().unwrap_or_else(PoisonError::into_inner) = fuse;
    }

    /// Dies now.
    pub(crate) fn end(&self) {
        self.dead.send_replace(true);
    }

    /// Whether it has died.
    pub(crate) fn is_over(&self) -> bool {
        *self.dead.borrow()
    }

    /// Waits until it dies.
    pub(crate) async fn over(&self) {
        let mut dead = self.dead.subscribe();
        if dead.wait_for(|dead| *dead).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Counts a writing call. `Some(after)`: this is the last one.
    fn burn(&self) -> Option<bool> {
        let mut fuse = self.fuse.lock().unwrap_or_else(PoisonError::into_inner);
        match *fuse {
            Some((0, after)) => {
                *fuse = None;
                Some(after)
            }
            Some((left, after)) => {
                *fuse = Some((left - 1, after));
                None
            }
            None => None,
        }
    }

    async fn reads<T>(&self, call: impl Future<Output = T>) -> T {
        if self.is_over() {
            // Nobody is there any more to get an answer.
            return pending().await;
        }
        call.await
    }

    async fn writes<T>(&self, call: impl Future<Output = T>) -> T {
        let last = self.burn();
        if last == Some(false) {
            self.end();
        }
        let answer = self.reads(call).await;
        if last == Some(true) {
            self.end();
            return pending().await;
        }
        answer
    }
}

/// A store that lives as long as its machine.
pub(crate) struct Shaky {
    pub(crate) inner: Stored,
    pub(crate) life: Arc<Life>,
    /// Whether each call runs to its end before anything else happens.
    pub(crate) on_the_spot: bool,
}

impl Shaky {
    async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        if self.on_the_spot { wait_for(call) } else { call.await }
    }
}

struct Waiter(Thread);

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Holds this thread up until the call has ended.
fn wait_for<T>(call: impl Future<Output = T>) -> T {
    let waker = Arc::new(Waiter(thread::current())).into();
    // Nobody else has a turn on this thread, so there is nobody to give way to.
    let mut call = pin!(tokio::task::unconstrained(call));
    loop {
        match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

/// Passes every call on, and counts those that write.
macro_rules! pass_on {
    ($($kind:ident $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for Shaky {
            fn kind(&self) -> &'static str {
                self.inner.kind()
            }
            $(async fn $name(&self, $($arg: $ty),*) -> Result<$out, StoreError> {
                self.life.$kind(self.run(self.inner.$name($($arg),*))).await
            })*
        }
    };
}

#[async_trait]
impl Quarantine for Shaky {
    async fn quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        now: Time,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<u64, StoreError> {
        self.life.writes(self.run(self.inner.quarantine(space, device, now, changes, room))).await
    }
    async fn quarantined(
        &self,
        space: &SpaceId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Quarantined>, StoreError> {
        self.life.reads(self.run(self.inner.quarantined(space, after, limit))).await
    }
    async fn end_quarantine(
        &self,
        space: &SpaceId,
        ended: Vec<(i64, QuarantineEnd)>,
    ) -> Result<u64, StoreError> {
        self.life.writes(self.run(self.inner.end_quarantine(space, ended))).await
    }
    async fn purge_quarantine(&self, space: &SpaceId, before: Time) -> Result<u64, StoreError> {
        self.life.writes(self.run(self.inner.purge_quarantine(space, before))).await
    }
}

pass_on! {
    writes open_space(space: &SpaceId) -> SpaceState;
    reads space(space: &SpaceId) -> SpaceState;
    writes transact(space: &SpaceId, now: Time, keys: Keys, decide: Decide) -> Plan;
    reads feed(space: &SpaceId, after: Stamp, limit: usize, collections: &[Collection]) -> FeedPage;
    reads feed_to(space: &SpaceId, reader: &Reader, place: Place, limit: usize, of: &[Collection]) -> ReaderPage;
    reads audiences(space: &SpaceId, keys: &[Key]) -> Vec<AudienceRow>;
    reads subscriptions(space: &SpaceId, reader: &DeviceId) -> Vec<Subscription>;
    reads list(space: &SpaceId, of: &Collection, after: Option<&RecordId>, limit: usize) -> Vec<(RecordId, Record)>;
    reads records(space: &SpaceId, keys: &[Key]) -> Vec<(Key, Record)>;
    reads history(space: &SpaceId, key: &Key) -> Vec<Superseded>;
    reads outbox(space: &SpaceId, states: &[EntryState], after: i64, limit: usize) -> Vec<Entry>;
    reads outbox_counts(space: &SpaceId) -> Counts;
    reads sealed(space: &SpaceId) -> Option<Sealed>;
    reads followed(space: &SpaceId) -> Followed;
    writes stage(space: &SpaceId, epoch: &Epoch, rows: Vec<Fed>, upto: &str) -> ();
    writes portion(space: &SpaceId, now: Time, portion: Portion, absorb: Absorb) -> u64;
    writes unstage(space: &SpaceId) -> ();
    writes pull_anew(space: &SpaceId) -> ();
    reads unseen(space: &SpaceId, after: Option<&Key>, limit: usize) -> Vec<(Key, Record)>;
    writes pulled_anew(space: &SpaceId) -> ();
    writes purge(space: &SpaceId, lines: &Lines, at: Walk, rows: usize, dry: bool) -> Purged;
    writes absorb(space: &SpaceId, now: Time, end: PullEnd, absorb: Absorb) -> u64;
    writes install_views(profile: &Profile) -> ();
    writes add_device(device: &Device) -> bool;
    writes put_device(device: &Device) -> ();
    reads devices() -> Vec<Device>;
    reads device(space: &SpaceId, id: &DeviceId) -> Option<Device>;
    reads device_by_token(token_hash: &str) -> Option<Device>;
    writes touch_device(space: &SpaceId, id: &DeviceId, seen: Time, pulled: Option<Stamp>, shared: Option<Stamp>) -> ();
    writes add_member(member: &Member) -> bool;
    writes put_member(member: &Member) -> ();
    reads members() -> Vec<Member>;
    writes put_run(space: &SpaceId, run: &SyncRun) -> ();
    reads runs(space: &SpaceId, limit: usize) -> Vec<SyncRun>;
    reads device_runs(space: &SpaceId, limit: usize) -> Vec<SyncRun>;
    reads meta(name: &str) -> Option<String>;
    writes put_meta(name: &str, value: &str) -> ();
    writes swap_meta(name: &str, expected: Option<&str>, value: &str, durability: Durability) -> bool;
    reads generation() -> i64;
    reads size() -> u64;
    reads check() -> ();
    reads collections(space: &SpaceId) -> Vec<Collection>;
    reads audit() -> Audit;
    writes begin_epoch(epoch: &Epoch, now: Time, restamp: bool) -> ();
    reads unfed(space: &SpaceId, epoch: &Epoch, after: Stamp, limit: usize) -> Vec<(Stamp, Key)>;
    reads contested(space: &SpaceId, collection: &Collection) -> u64;
    reads gaps(space: &SpaceId) -> Vec<Gap>;
}
