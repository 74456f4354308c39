//! The oracle of I11: for which readers each record is, worked out anew from all that a machine holds, and
//! asked of every page, every receipt and every follower at rest.

use crate::{
    check::Sight,
    host::{Host, locked},
    world::World,
};
use ropeway_core::{
    audience::{AudienceRow, EVERYBODY, Worn},
    conflict::Conflict,
    digest::{Digest, contribution},
    id::{CONFLICT, Collection, DeviceId, Key, RecordId},
    limits,
    outbox::EntryState,
    plan::Fed,
    profile::{Audience, Profile, Rules},
    receipt::Receipt,
    record::{Record, State},
};
use ropeway_replica::Device;
use ropeway_store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

type Keys = BTreeSet<String>;

/// The keys that records carry.
struct Carried {
    /// Of themselves: their children inherit these.
    own: BTreeMap<Key, Keys>,
    /// With those that children bring, which cannot be read without them.
    all: BTreeMap<Key, Keys>,
}

impl Carried {
    /// `told`: what is noted for records that name a parent which is not here. Only then nobody can say anew.
    fn by(profile: &Profile, sight: &Sight, told: &BTreeMap<Key, Worn>) -> Self {
        let mut own: BTreeMap<Key, Keys> = BTreeMap::new();
        for name in &profile.order {
            let Some(rules) = profile.rules(name) else { continue };
            // Joined records share their keys.
            let mut shared: BTreeMap<Key, Keys> = BTreeMap::new();
            let of = || sight.records.iter().filter(|(key, _)| *key.collection == **name);
            for (key, record) in of() {
                let keys = match (told.get(key), &rules.audience) {
                    (Some(worn), _) => worn.own.clone(),
                    (None, Some(audience)) => base(rules, audience, key, record, &own),
                    (None, None) => everybody(),
                };
                shared.entry(survivor(sight, key)).or_default().extend(keys);
            }
            own.extend(of().map(|(key, _)| (key.clone(), shared[&survivor(sight, key)].clone())));
        }
        let mut all = own.clone();
        for (key, worn) in told {
            all.entry(key.clone()).or_default().extend(worn.via.iter().map(|(_, key)| key.clone()));
        }
        let all = lifted(profile, sight, all);
        let mut carried = Self { own, all };
        for (key, record) in sight.records.iter().filter(|(key, _)| &*key.collection == CONFLICT) {
            carried.all.insert(key.clone(), carried.of_conflict(profile, record));
        }
        carried
    }

    /// A conflict is for those who see all records that it names.
    fn of_conflict(&self, profile: &Profile, record: &Record) -> Keys {
        let Some(conflict) = Conflict::read(&record.data) else { return Keys::new() };
        // What is for every reader is so when it is deleted and forgotten here, too.
        let is_open = |named: &Key| profile.rules(&named.collection).is_some_and(|r| r.audience.is_none());
        let forgotten = |named: &Key| if is_open(named) { everybody() } else { Keys::new() };
        let of = |named: &Key| self.all.get(named).cloned().unwrap_or_else(|| forgotten(named));
        let limited =
            conflict.names().iter().map(of).filter(|keys| !keys.contains(EVERYBODY)).collect::<Vec<_>>();
        let common = limited.into_iter().reduce(|a, b| a.intersection(&b).cloned().collect());
        common.unwrap_or_else(everybody)
    }

    fn is_seen(&self, key: &Key, held: &Keys) -> bool {
        self.all.get(key).is_some_and(|keys| keys.contains(EVERYBODY) || !keys.is_disjoint(held))
    }
}

/// Whether a record names a parent of which it has its keys, and which is not here.
fn is_adrift(profile: &Profile, sight: &Sight, key: &Key, record: &Record) -> bool {
    let Some(rules) = profile.rules(&key.collection) else { return false };
    let mut from = rules.audience.iter().flat_map(|audience| &audience.from);
    from.any(|field| parent(rules, record, field).is_some_and(|parent| !sight.records.contains_key(&parent)))
}

fn everybody() -> Keys {
    Keys::from([EVERYBODY.to_owned()])
}

/// The last record that a joined one leads to, as far as it is here.
fn survivor(sight: &Sight, key: &Key) -> Key {
    let mut key = key.clone();
    for _ in 0..limits::JOIN_CHAIN_MAX {
        let Some(State::Joined(into)) = sight.records.get(&key).map(|record| &record.state) else { break };
        let next = Key::new(&key.collection, into);
        if !sight.records.contains_key(&next) {
            break;
        }
        key = next;
    }
    key
}

fn parent(rules: &Rules, record: &Record, field: &str) -> Option<Key> {
    let id = RecordId::parse(record.data.str(field)?).ok()?;
    Some(Key::new(&Collection::trusted(rules.references.get(field)?.to.as_str()), &id))
}

/// What a record carries because of its own fields and of its parents.
fn base(rules: &Rules, audience: &Audience, key: &Key, record: &Record, own: &BTreeMap<Key, Keys>) -> Keys {
    let mut keys = Keys::new();
    if let Some(of) = &audience.key {
        let value = match &of.field {
            None => Some(&*key.id),
            Some(field) => record.data.str(field).filter(|value| RecordId::parse(value).is_ok()),
        };
        keys.extend(value.map(|value| format!("{}:{value}", of.name)));
    }
    let mut named = audience.granted;
    for parent in audience.from.iter().filter_map(|field| parent(rules, record, field)) {
        let theirs = own.get(&parent).cloned().unwrap_or_default();
        // One that is for everybody says nothing about its children.
        if theirs != everybody() {
            named = true;
            keys.extend(theirs);
        }
    }
    if keys.is_empty() && !named { everybody() } else { keys }
}

/// With what children bring to the parents that they cannot be read without, to the end.
fn lifted(profile: &Profile, sight: &Sight, mut all: BTreeMap<Key, Keys>) -> BTreeMap<Key, Keys> {
    loop {
        let mut moved = false;
        for (child, record) in sight.records.iter().filter(|(_, record)| record.state != State::Deleted) {
            let Some(rules) = profile.rules(&child.collection) else { continue };
            let Some(audience) = &rules.audience else { continue };
            let brought = rules.references.iter().filter(|(f, r)| !r.optional || audience.grants.contains(f));
            let mut above: BTreeSet<Key> = brought.filter_map(|(f, _)| parent(rules, record, f)).collect();
            if let State::Joined(into) = &record.state {
                above.insert(Key::new(&child.collection, into));
            }
            let keys = all.get(child).cloned().unwrap_or_default();
            for parent in above.iter().filter(|parent| *parent != child) {
                if let Some(theirs) = all.get_mut(parent).filter(|theirs| !theirs.contains(EVERYBODY)) {
                    let before = theirs.len();
                    theirs.extend(keys.iter().cloned());
                    moved |= theirs.len() != before;
                }
            }
        }
        if !moved {
            return all;
        }
    }
}

impl World {
    /// Whether a machine gets only a part of what its upstream has.
    pub(crate) fn is_scout(&self, index: usize) -> bool {
        self.stands_for(index).is_some_and(|index| self.setting.scouts.contains(&index))
    }

    /// Whether a machine, or one that it hangs on, gets only a part.
    pub(crate) fn is_partial(&self, host: &Host) -> bool {
        self.is_scout(host.index) || host.parent.is_some_and(|parent| self.is_partial(&self.hosts[parent]))
    }

    /// The machines above one.
    pub(crate) fn above<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Host> {
        std::iter::successors(host.parent, |parent| self.hosts[*parent].parent)
            .map(|index| &self.hosts[index])
    }

    /// The machines beneath one that hold only a part of it.
    pub(crate) fn partial_beneath<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Host> {
        let beneath = |other: &&Host| self.above(other).any(|above| above.index == host.index);
        self.hosts.iter().filter(beneath).filter(|other| self.is_partial(other))
    }

    /// The records that a device may see at `host`; `None`: all that there are.
    async fn seen_by(&self, host: &Host, device: &Device) -> Result<Option<BTreeSet<Key>>, StoreError> {
        if self.profile.sees_all(&device.role) {
            return Ok(None);
        }
        let sight = self.sight(host).await?;
        // A tombstone is for those who had the record, wherever its parents went afterwards.
        let adrift = sight.records.iter().filter(|(key, record)| {
            record.state == State::Deleted && &*key.collection != CONFLICT
                || is_adrift(&self.profile, &sight, key, record)
        });
        let adrift: Vec<Key> = adrift.map(|(key, _)| key.clone()).collect();
        let mut told: BTreeMap<Key, Vec<AudienceRow>> = BTreeMap::new();
        for row in host.image().audiences(&self.space, &adrift).await? {
            told.entry(row.record.clone()).or_default().push(row);
        }
        let told = told.into_iter().map(|(key, rows)| (key, Worn::read(&rows))).collect();
        let carried = Carried::by(&self.profile, &sight, &told);
        let held = self.held(host, &device.id, &sight, &carried).await?;
        Ok(Some(sight.records.into_keys().filter(|key| carried.is_seen(key, &held)).collect()))
    }

    /// The keys that a device holds: those that it chose, and those that its membership records carry.
    async fn held(
        &self,
        host: &Host,
        device: &DeviceId,
        sight: &Sight,
        carried: &Carried,
    ) -> Result<Keys, StoreError> {
        let told = host.image().subscriptions(&self.space, device).await?;
        let told = || told.iter().filter(|s| s.left.is_none());
        let mut held: Keys = told().filter(|s| s.via.is_none()).map(|s| s.audience.clone()).collect();
        for (key, record) in sight.records.iter().filter(|(_, record)| record.is_live()) {
            let audience = self.profile.rules(&key.collection).and_then(|rules| rules.audience.as_ref());
            let member = audience.and_then(|a| record.data.str(a.subscribes.as_deref()?));
            if member == Some(&**device) {
                held.extend(carried.own[key].iter().filter(|key| *key != EVERYBODY).cloned());
            }
        }
        let told: Keys = told().map(|s| s.audience.clone()).collect();
        if told != held {
            let text = format!("node {} subscribes {device} to {told:?}, and it holds {held:?}", host.index);
            self.violated("I11", text);
        }
        Ok(held)
    }

    /// I11: a page shows its reader nothing but what is theirs to see.
    pub(crate) async fn fed(&self, host: &Host, device: &Device, rows: &[Fed]) {
        rows.iter().for_each(|row| self.shown_here(row.data.fields(), host.index));
        let keys = rows.iter().filter(|row| !row.left).map(|row| &row.key);
        self.shown_to(host, device, keys, "feeds").await;
    }

    /// I11: nor does a receipt.
    pub(crate) async fn answered(&self, host: &Host, device: &Device, receipts: &[Receipt]) {
        let shown = |receipt: &Receipt| {
            let record = receipt.record.as_ref()?;
            Some(Key::new(&receipt.key.collection, &record.id))
        };
        for record in receipts.iter().filter_map(|receipt| receipt.record.as_ref()) {
            self.shown_here(record.data.fields(), host.index);
        }
        let keys: Vec<Key> = receipts.iter().filter_map(shown).collect();
        self.shown_to(host, device, keys.iter(), "shows").await;
    }

    async fn shown_to(&self, host: &Host, device: &Device, keys: impl Iterator<Item = &Key>, how: &str) {
        match self.seen_by(host, device).await {
            Ok(None) => {}
            Ok(Some(seen)) => {
                for key in keys.filter(|key| !seen.contains(*key)) {
                    let rows = host.image().audiences(&self.space, std::slice::from_ref(key)).await;
                    let stands = rows.unwrap_or_default().into_iter().filter(|row| row.left.is_none());
                    let carries: Vec<String> = stands.map(|row| row.audience).collect();
                    let text = format!(
                        "node {} {how} {key}, which carries {carries:?} there, to {}, who may not see it",
                        host.index, device.name
                    );
                    self.violated("I11", text);
                }
            }
            Err(error) => self.fault(&format!("node {} cannot be read: {error}", host.index)),
        }
    }

    /// At rest: what a follower has to hold of its upstream, and the digest of it. `None`: all that is there.
    pub(crate) async fn part_of(&self, host: &Host) -> Result<Option<(BTreeSet<Key>, Digest)>, StoreError> {
        let Some((upstream, device)) = self.known(host).await else { return Ok(None) };
        let Some(seen) = self.seen_by(upstream, &device).await? else { return Ok(None) };
        let mut digest = Digest::default();
        for (key, record) in self.sight(upstream).await?.records.iter().filter(|(key, _)| seen.contains(*key))
        {
            digest = digest.moved(0, contribution(&key.collection, &key.id, record));
        }
        Ok(Some((seen, digest)))
    }

    /// A record with unsettled changes leaves only when they are settled.
    pub(crate) async fn stayed(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        use EntryState::{Pending, Rejected, Sealed, Waiting};
        let unsettled = [Pending, Sealed, Waiting, Rejected];
        let entries = host.image().outbox(&self.space, &unsettled, i64::MIN, usize::MAX).await?;
        let now: BTreeMap<i64, Key> = entries.into_iter().map(|e| (e.seq, e.change.key())).collect();
        let here = now.iter().filter(|(_, key)| sight.records.contains_key(*key));
        let before = std::mem::replace(&mut *locked(&host.unsettled), here.map(|(seq, _)| *seq).collect());
        for (seq, key) in before.iter().filter_map(|seq| now.get_key_value(seq)) {
            if !sight.records.contains_key(key) {
                let text = format!("{key} left node {} with the unsettled change {seq}", host.index);
                self.violated("I11", text);
            }
        }
        Ok(())
    }
}
