//! The store in memory: for tests and simulations, with the same meaning as the others and no disk.

mod audience;
mod epoch;
mod purge;
mod quarantine;
mod resync;
mod space;

use crate::{
    Absorb, Audit, Counts, Decide, Device, Durability, FeedPage, Followed, Member, Place, Portion, PullEnd,
    Purged, Reader, ReaderPage, SpaceState, Step, Store, StoreError, SyncRun, Walk,
    asking::{Asked, Asking, CHUNK, Settling, fault, waits_for_the_end},
    reading,
};
use async_trait::async_trait;
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    epoch::Gap,
    id::{CONFLICT, Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::{Fed, Keys, Plan, Sealed, Snapshot, Superseded},
    planted::{self, Bug},
    profile::Profile,
    record::Record,
    retention::Lines,
    time::{Stamp, Time},
};
use space::Space;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

type Done<T> = Result<T, StoreError>;

/// Spaces in memory, behind one lock that is never held across an `await`.
pub struct MemoryStore {
    epoch: Mutex<Epoch>,
    follows: bool,
    all: Mutex<All>,
}

#[derive(Default, Clone)]
struct All {
    spaces: BTreeMap<SpaceId, Space>,
    devices: BTreeMap<(SpaceId, DeviceId), Device>,
    members: BTreeMap<String, Member>,
    meta: BTreeMap<String, String>,
    generation: i64,
}

impl All {
    fn space(&self, space: &SpaceId) -> Done<&Space> {
        self.spaces.get(space).ok_or_else(|| StoreError::NoSpace(space.to_string()))
    }

    fn space_mut(&mut self, space: &SpaceId) -> Done<&mut Space> {
        self.spaces.get_mut(space).ok_or_else(|| StoreError::NoSpace(space.to_string()))
    }
}

impl MemoryStore {
    /// An empty store of this epoch; `follows` says whether its node has an upstream.
    pub fn new(epoch: Epoch, follows: bool) -> Self {
        Self { epoch: Mutex::new(epoch), follows, all: Mutex::default() }
    }

    /// An image of it as it is now: what a backup is for the others.
    pub fn image(&self) -> Self {
        let all = self.all().clone();
        Self { epoch: Mutex::new(self.epoch()), follows: self.follows, all: Mutex::new(all) }
    }

    fn epoch(&self) -> Epoch {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, space: &Space) -> SpaceState {
        let (epoch, filling) = (self.epoch(), space.filling);
        SpaceState { epoch, head: space.head, digest: space.digest, filling, purged: space.purged }
    }

    /// Asks until there is a plan that can be written.
    fn ask(
        &self,
        (space, shared): (&Space, Option<&Space>),
        now: Time,
        keys: Keys,
        decide: &mut dyn FnMut(&Snapshot) -> ropeway_core::plan::Decision,
    ) -> Done<Box<Plan>> {
        let mut head = space.head;
        if planted::has(Bug::UnlockedHead) {
            head.0 -= 1;
        }
        let mut snapshot = Snapshot::empty(self.epoch(), head, self.follows, now);
        snapshot.next_entry = space.next_entry;
        snapshot.buried = space.buried;
        snapshot.filling = space.filling;
        let mut asking = Asking::new(snapshot, keys);
        loop {
            match asking.next(decide)? {
                Asked::Load(keys) => {
                    space.load(&keys, &mut asking.snapshot);
                    if let Some(shared) = shared {
                        shared.load_records(keys.shared.clone(), &mut asking.snapshot);
                    }
                    asking.loaded(*keys);
                }
                Asked::Plan(plan) => {
                    space.refuse(&plan)?;
                    return Ok(plan);
                }
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn open_space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        let mut all = self.all();
        let there = all.spaces.entry(space.clone()).or_default();
        Ok(self.state(there))
    }

    async fn space(&self, space: &SpaceId) -> Result<SpaceState, StoreError> {
        Ok(self.state(self.all().space(space)?))
    }

    async fn transact(
        &self,
        space: &SpaceId,
        now: Time,
        keys: Keys,
        mut decide: Decide,
    ) -> Result<Plan, StoreError> {
        let mut all = self.all();
        let beside = all.spaces.get(&SpaceId::shared());
        let mut plan = self.ask((all.space(space)?, beside), now, keys, &mut *decide)?;
        let wrote = all.space_mut(space)?.apply(&mut plan);
        all.generation += i64::from(wrote);
        Ok(*plan)
    }

    async fn feed(
        &self,
        space: &SpaceId,
        after: Stamp,
        limit: usize,
        collections: &[Collection],
    ) -> Result<FeedPage, StoreError> {
        let all = self.all();
        let there = all.space(space)?;
        let (rows, complete) = there.feed(after, limit.max(1), collections);
        Ok(FeedPage { rows, space: self.state(there), complete })
    }

    async fn feed_to(
        &self,
        space: &SpaceId,
        reader: &Reader,
        place: Place,
        limit: usize,
        collections: &[Collection],
    ) -> Result<ReaderPage, StoreError> {
        let all = self.all();
        let space = all.space(space)?;
        let state = self.state(space);
        let mut shelf = audience::Open { space, state };
        reading::at_once(reading::page(&mut shelf, reader, place, limit, collections))
    }

    async fn audiences(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<AudienceRow>, StoreError> {
        let all = self.all();
        let space = all.space(space)?;
        Ok(keys.iter().flat_map(|key| space.audiences.rows_of(key)).collect())
    }

    async fn subscriptions(
        &self,
        space: &SpaceId,
        reader: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError> {
        Ok(self.all().space(space)?.audiences.subscriptions(reader))
    }

    async fn list(
        &self,
        space: &SpaceId,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        Ok(self.all().space(space)?.list(collection, after, limit))
    }

    async fn collections(&self, space: &SpaceId) -> Result<Vec<Collection>, StoreError> {
        let mut found: Vec<Collection> =
            self.all().space(space)?.records.keys().map(|key| key.collection.clone()).collect();
        found.dedup();
        Ok(found)
    }

    async fn contested(&self, space: &SpaceId, collection: &Collection) -> Result<u64, StoreError> {
        let all = self.all();
        let contested = |(key, r): &(&Key, &Record)| key.collection == *collection && r.contested;
        Ok(all.space(space)?.records.iter().filter(contested).count() as u64)
    }

    async fn records(&self, space: &SpaceId, keys: &[Key]) -> Result<Vec<(Key, Record)>, StoreError> {
        let all = self.all();
        let there = all.space(space)?;
        let found = keys.iter().filter_map(|k| there.records.get(k).map(|r| (k.clone(), r.clone())));
        Ok(found.filter(|(_, r)| there.shows(r)).collect())
    }

    async fn history(&self, space: &SpaceId, key: &Key) -> Result<Vec<Superseded>, StoreError> {
        let all = self.all();
        let own = all.space(space)?;
        let others = all.spaces.values().filter(|_| planted::has(Bug::SharedHistory));
        let kept = std::iter::once(own).chain(others).filter_map(|space| space.history.get(key));
        let newest_first = kept.flat_map(|kept| kept.iter().rev());
        Ok(newest_first.map(|r| Superseded { key: key.clone(), record: r.clone() }).collect())
    }

    async fn outbox(
        &self,
        space: &SpaceId,
        states: &[EntryState],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let all = self.all();
        let newer = all.space(space)?.outbox.range(after.saturating_add(1)..);
        let wanted = |e: &&Entry| match states {
            [] => e.state.is_unsettled(),
            states => states.contains(&e.state),
        };
        Ok(newer.map(|(_, e)| e).filter(wanted).take(limit).cloned().collect())
    }

    async fn outbox_counts(&self, space: &SpaceId) -> Result<Counts, StoreError> {
        Ok(self.all().space(space)?.counts())
    }

    async fn sealed(&self, space: &SpaceId) -> Result<Option<Sealed>, StoreError> {
        Ok(self.all().space(space)?.batches.first().cloned())
    }

    async fn followed(&self, space: &SpaceId) -> Result<Followed, StoreError> {
        Ok(self.all().space(space)?.followed.clone())
    }

    async fn stage(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        rows: Vec<Fed>,
        upto: &str,
    ) -> Result<(), StoreError> {
        let mut all = self.all();
        all.space_mut(space)?.stage(epoch, rows, upto);
        all.generation += 1;
        Ok(())
    }

    async fn portion(
        &self,
        space: &SpaceId,
        now: Time,
        portion: Portion,
        mut absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let mut all = self.all();
        let mut copy = all.space(space)?.clone();
        let Portion { epoch, rows, upto } = portion;
        let (waiting, rows): (Vec<Fed>, Vec<Fed>) =
            rows.into_iter().partition(|row| waits_for_the_end(row, copy.records.get(&row.key)));
        let taken = rows.len() as u64;
        for rows in rows.chunks(CHUNK) {
            let mut decide = |snapshot: &Snapshot| absorb(snapshot, Step::Rows(rows));
            let mut plan = self.ask((&copy, None), now, Keys::default(), &mut decide)?;
            copy.apply(&mut plan);
        }
        copy.stage(&epoch, waiting, &upto);
        copy.filling = true;
        all.spaces.insert(space.clone(), copy);
        all.generation += 1;
        Ok(taken)
    }

    async fn unstage(&self, space: &SpaceId) -> Result<(), StoreError> {
        let mut all = self.all();
        all.space_mut(space)?.unstage();
        all.generation += 1;
        Ok(())
    }

    async fn pull_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        let mut all = self.all();
        all.space_mut(space)?.pull_anew();
        all.generation += 1;
        Ok(())
    }

    async fn unseen(
        &self,
        space: &SpaceId,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>, StoreError> {
        Ok(self.all().space(space)?.unseen(after, limit))
    }

    async fn pulled_anew(&self, space: &SpaceId) -> Result<(), StoreError> {
        let mut all = self.all();
        all.space_mut(space)?.pulled_anew();
        all.generation += 1;
        Ok(())
    }

    async fn absorb(
        &self,
        space: &SpaceId,
        now: Time,
        end: PullEnd,
        mut absorb: Absorb,
    ) -> Result<u64, StoreError> {
        let mut all = self.all();
        // Steps are written as they come, into a copy that replaces the space when all went well.
        let mut copy = all.space(space)?.clone();
        let PullEnd { page, epoch, cursor, token, audiences } = end;
        if let Some(page) = page {
            copy.stage(&epoch, page, &token);
        }
        let mut staged = std::mem::take(&mut copy.staging);
        // Conflicts come last: what they are about is there by then.
        staged.sort_by_key(|row| &*row.key.collection == CONFLICT);
        if let Some(other) = copy.staged_epoch.take().filter(|staged| *staged != epoch) {
            return Err(fault(format!("rows of epoch {other} are staged, not of {epoch}")));
        }
        for rows in staged.chunks(CHUNK) {
            let mut decide = |snapshot: &Snapshot| absorb(snapshot, Step::Rows(rows));
            let mut plan = self.ask((&copy, None), now, Keys::default(), &mut decide)?;
            copy.apply(&mut plan);
        }
        let mut settling = Settling::default();
        loop {
            let entries = copy.reached(cursor, CHUNK);
            if settling.is_done(&entries)? {
                break;
            }
            let mut decide = |snapshot: &Snapshot| absorb(snapshot, Step::Settle(&entries));
            let mut plan = self.ask((&copy, None), now, Keys::default(), &mut decide)?;
            copy.apply(&mut plan);
        }
        copy.filling = false;
        let anew = copy.followed.anew;
        copy.followed =
            Followed { epoch: Some(epoch), cursor, token: Some(token), staged: None, audiences, anew };
        all.spaces.insert(space.clone(), copy);
        all.generation += 1;
        Ok(staged.len() as u64)
    }

    async fn install_views(&self, _profile: &Profile) -> Result<(), StoreError> {
        Ok(())
    }

    async fn add_device(&self, device: &Device) -> Result<bool, StoreError> {
        let mut all = self.all();
        let key = (device.space.clone(), device.id.clone());
        if all.devices.contains_key(&key) {
            return Ok(false);
        }
        all.devices.insert(key, device.clone());
        all.generation += 1;
        Ok(true)
    }

    async fn put_device(&self, device: &Device) -> Result<(), StoreError> {
        let mut all = self.all();
        let key = (device.space.clone(), device.id.clone());
        if all.devices.iter().any(|(other, d)| d.token_hash == device.token_hash && *other != key) {
            return Err(fault("another device has the same token".into()));
        }
        all.devices.insert(key, device.clone());
        all.generation += 1;
        Ok(())
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        let mut devices: Vec<Device> = self.all().devices.values().cloned().collect();
        devices.sort_by(|a, b| (&a.name, &a.id, &a.space).cmp(&(&b.name, &b.id, &b.space)));
        Ok(devices)
    }

    async fn device(&self, space: &SpaceId, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        Ok(self.all().devices.get(&(space.clone(), id.clone())).cloned())
    }

    async fn device_by_token(&self, token_hash: &str) -> Result<Option<Device>, StoreError> {
        Ok(self.all().devices.values().find(|d| d.token_hash == token_hash).cloned())
    }

    async fn touch_device(
        &self,
        space: &SpaceId,
        id: &DeviceId,
        seen: Time,
        pulled: Option<Stamp>,
        shared: Option<Stamp>,
    ) -> Result<(), StoreError> {
        let mut all = self.all();
        if let Some(device) = all.devices.get_mut(&(space.clone(), id.clone())) {
            device.last_seen_at = device.last_seen_at.max(Some(seen));
            device.pulled = pulled.or(device.pulled);
            device.pulled_shared = shared.or(device.pulled_shared);
            all.generation += 1;
        }
        Ok(())
    }

    async fn add_member(&self, member: &Member) -> Result<bool, StoreError> {
        let mut all = self.all();
        if all.members.contains_key(&member.email) {
            return Ok(false);
        }
        all.members.insert(member.email.clone(), member.clone());
        all.generation += 1;
        Ok(true)
    }

    async fn put_member(&self, member: &Member) -> Result<(), StoreError> {
        let mut all = self.all();
        all.members.insert(member.email.clone(), member.clone());
        all.generation += 1;
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Member>, StoreError> {
        Ok(self.all().members.values().cloned().collect())
    }

    async fn put_run(&self, space: &SpaceId, run: &SyncRun) -> Result<(), StoreError> {
        let mut all = self.all();
        all.space_mut(space)?.runs.push(run.clone());
        all.generation += 1;
        Ok(())
    }

    async fn runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        let (all, own) = (self.all(), |run: &&SyncRun| run.device.is_none());
        Ok(all.space(space)?.runs.iter().rev().filter(own).take(limit).cloned().collect())
    }

    async fn device_runs(&self, space: &SpaceId, limit: usize) -> Result<Vec<SyncRun>, StoreError> {
        let (all, of_device) = (self.all(), |run: &&SyncRun| run.device.is_some());
        Ok(all.space(space)?.runs.iter().rev().filter(of_device).take(limit).cloned().collect())
    }

    async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.all().meta.get(name).cloned())
    }

    async fn put_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut all = self.all();
        all.meta.insert(name.to_owned(), value.to_owned());
        all.generation += 1;
        Ok(())
    }

    async fn swap_meta(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
        _: Durability,
    ) -> Result<bool, StoreError> {
        let mut all = self.all();
        if all.meta.get(name).map(String::as_str) != expected {
            return Ok(false);
        }
        all.meta.insert(name.to_owned(), value.to_owned());
        all.generation += 1;
        Ok(true)
    }

    async fn purge(
        &self,
        space: &SpaceId,
        lines: &Lines,
        at: Walk,
        rows: usize,
        dry: bool,
    ) -> Result<Purged, StoreError> {
        let mut all = self.all();
        let purged = all.space_mut(space)?.purge(lines, at, rows.max(1), dry);
        all.generation += i64::from(!dry && purged.rows > 0);
        Ok(purged)
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        Ok(self.all().generation)
    }

    async fn size(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        let all = self.all();
        Ok(all.audit(self.epoch()))
    }

    async fn begin_epoch(&self, epoch: &Epoch, now: Time, restamp: bool) -> Result<(), StoreError> {
        let mut all = self.all();
        all.begin_epoch(now, restamp);
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = epoch.clone();
        Ok(())
    }

    async fn unfed(
        &self,
        space: &SpaceId,
        epoch: &Epoch,
        after: Stamp,
        limit: usize,
    ) -> Result<Vec<(Stamp, Key)>, StoreError> {
        Ok(self.all().space(space)?.unfed(epoch, after, limit))
    }

    async fn gaps(&self, space: &SpaceId) -> Result<Vec<Gap>, StoreError> {
        Ok(self.all().space(space)?.gaps.clone())
    }
}
