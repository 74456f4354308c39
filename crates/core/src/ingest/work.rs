//! The working copy of a decision: the snapshot with what this batch has already changed laid over it.

use super::{Answer, refs::links_of, same::print};
use crate::{
    change::{Author, Change, Door, Grant},
    conflict::Conflict,
    digest::hash64,
    doc::Doc,
    id::{CONFLICT, ChangeId, Collection, Key, RecordId, is_name},
    limits, outbox,
    plan::{Keys, Link, Probe, Snapshot, Superseded},
    profile::Profile,
    receipt::{Receipt, Remembered},
    record::{Mark, Marks, Record, State},
    time::{Stamp, Time},
};
use indexmap::{IndexMap, map::Entry};
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, BTreeSet};

/// Something has to be loaded first; what it is stands in [`Work::need`].
pub(crate) struct Missing;

/// A step of a decision that may find that it needs more.
pub(crate) type Step<T> = Result<T, Missing>;

/// A record that this batch touches.
pub(crate) struct Touched {
    pub(crate) before: Option<Record>,
    pub(crate) now: Record,
    /// Whether readers must be told: otherwise only what the node notes for itself changed.
    pub(crate) visible: bool,
    /// The clock offset of the author who filled the fingerprint's time.
    pub(crate) offset: i64,
    /// What it links to now.
    links: Vec<Link>,
    /// Its print now, where that is not the one it came with.
    print: Option<(String, i64)>,
    /// Whether its stored print, if it had one, no longer counts.
    reprinted: bool,
}

/// Who writes a version, and when.
pub(crate) struct By<'a> {
    pub(crate) author: &'a Author,
    pub(crate) at: Time,
    /// The role to note in the marks, where a rule looks at roles.
    pub(crate) role: Option<String>,
}

/// An answer with the record to show beside it, filled in when all is decided.
pub(crate) struct Pending {
    pub(crate) receipt: Receipt,
    pub(crate) show: Option<Key>,
    /// Whether it was decided now, so that its stamp is this plan's.
    pub(crate) fresh: bool,
}

pub(crate) struct Work<'a> {
    pub(crate) snap: &'a Snapshot,
    pub(crate) profile: &'a Profile,
    pub(crate) grant: &'a Grant,
    /// In the order in which they were first touched: their stamps follow it, parents first. A plain hash does: of
    /// a batch's bounded number of names no choice makes it slow.
    pub(crate) touched: IndexMap<Key, Touched, FxBuildHasher>,
    /// Links of touched records, by parent, and touched records by the print that they carry now: so that
    /// what a change asks of a batch does not cost a look at all of it.
    pub(crate) linked: BTreeMap<Key, BTreeSet<Link>>,
    printed: BTreeMap<(Collection, String), BTreeSet<Key>>,
    pub(crate) history: Vec<Superseded>,
    pub(crate) links: BTreeSet<Link>,
    pub(crate) links_gone: BTreeSet<Link>,
    pub(crate) receipts: BTreeMap<ChangeId, Remembered>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) outbox: BTreeMap<i64, outbox::Entry>,
    pub(crate) next_entry: i64,
    pub(crate) need: Keys,
    /// What the change being decided has touched.
    pub(crate) side: BTreeSet<Key>,
    /// The record that it found, before it changed anything.
    pub(crate) found: Option<Record>,
    /// Whether it changed anything that readers are told.
    pub(crate) told: bool,
    /// The clock offset of its author.
    pub(crate) offset: i64,
    /// Whether the clock of its author was never measured.
    pub(crate) unmeasured: bool,
    /// Whether it is tried for the last time.
    pub(crate) last_try: bool,
    /// Whether this is the upstream's answer being taken in, not a change made here.
    pub(crate) absorbs: bool,
    /// Whether receipts are remembered.
    pub(crate) repeatable: bool,
    /// Records that leave what this node may see.
    pub(crate) gone: BTreeSet<Key>,
    /// Records over which changes were only handed on.
    pub(crate) passed: BTreeSet<Key>,
    /// Whether edits that move records between audiences are refused.
    pub(crate) refuses_moves: bool,
    /// Whether records of shared collections are kept beside this space.
    pub(crate) apart: bool,
}

impl<'a> Work<'a> {
    pub(crate) fn new(snap: &'a Snapshot, profile: &'a Profile, grant: &'a Grant) -> Self {
        Self {
            snap,
            profile,
            grant,
            touched: IndexMap::default(),
            linked: BTreeMap::new(),
            printed: BTreeMap::new(),
            history: Vec::new(),
            links: BTreeSet::new(),
            links_gone: BTreeSet::new(),
            receipts: BTreeMap::new(),
            pending: Vec::new(),
            outbox: BTreeMap::new(),
            next_entry: snap.next_entry,
            need: Keys::default(),
            side: BTreeSet::new(),
            found: None,
            told: false,
            offset: 0,
            unmeasured: false,
            last_try: false,
            absorbs: false,
            repeatable: true,
            gone: BTreeSet::new(),
            passed: BTreeSet::new(),
            refuses_moves: false,
            apart: false,
        }
    }

    /// Begins the next change.
    pub(crate) fn begin(&mut self, change: &Change) {
        // The top's own clock is the measure.
        let by_others_clock = self.grant.door == Door::Push || self.snap.follows;
        self.unmeasured = by_others_clock && change.at.is_some_and(|at| at.offset.is_none());
        self.side.clear();
        self.found = None;
        self.told = false;
        self.offset = 0;
    }

    /// A record as it stands now, whatever its state.
    pub(crate) fn lookup(&mut self, key: &Key) -> Step<Option<Record>> {
        if let Some(touched) = self.touched.get(key) {
            return Ok(Some(touched.now.clone()));
        }
        if let Some(record) = self.snap.records.get(key) {
            return Ok(Some(record.clone()));
        }
        let (asked, need) = match self.is_apart(key) {
            true => (&self.snap.keys.shared, &mut self.need.shared),
            false => (&self.snap.keys.records, &mut self.need.records),
        };
        if asked.contains(key) {
            return Ok(None);
        }
        need.insert(key.clone());
        Err(Missing)
    }

    /// Whether a record is the app's, and so kept beside the space in which this is decided.
    pub(crate) fn is_apart(&self, key: &Key) -> bool {
        self.apart && self.profile.is_shared(&key.collection)
    }

    /// A record through `joined_into`: the survivor where it was joined.
    pub(crate) fn resolve(&mut self, key: &Key) -> Step<(Key, Option<Record>)> {
        let mut key = key.clone();
        for _ in 0..limits::JOIN_CHAIN_MAX {
            match self.lookup(&key)? {
                Some(Record { state: State::Joined(survivor), .. }) => {
                    key = Key::new(&key.collection, &survivor)
                }
                other => return Ok((key, other)),
            }
        }
        // A circle is a fault elsewhere; nothing new is made of it.
        let last = self.lookup(&key)?;
        Ok((key, last))
    }

    /// The receipt of a change, when it has one.
    pub(crate) fn remembered(&mut self, id: &ChangeId) -> Step<Option<Remembered>> {
        let found = self.receipts.get(id).or_else(|| self.snap.receipts.get(id));
        if found.is_none() && !self.snap.keys.receipts.contains(id) {
            self.need.receipts.insert(id.clone());
            return Err(Missing);
        }
        Ok(found.cloned())
    }

    /// What links to a record, this batch's own links included.
    pub(crate) fn links_to(&mut self, key: &Key) -> Step<Vec<Link>> {
        if !self.snap.keys.links.contains(key) {
            self.need.links.insert(key.clone());
            return Err(Missing);
        }
        let stands = |l: &&Link| {
            !self.links_gone.contains(*l)
                && (l.field.starts_with('@') || !self.touched.contains_key(&l.child))
        };
        let stored = self.snap.links.get(key).into_iter().flatten().filter(stands);
        let mut links: BTreeSet<Link> = stored.cloned().collect();
        links.extend(self.links.iter().filter(|l| l.parent == *key).cloned());
        links.extend(self.linked.get(key).into_iter().flatten().cloned());
        Ok(links.into_iter().collect())
    }

    /// Live records of a collection that carry this print near this time, with their times.
    pub(crate) fn candidates(&mut self, probe: &Probe) -> Step<Vec<(Key, i64)>> {
        if !self.snap.keys.twins.contains(probe) {
            self.need.twins.insert(probe.clone());
            return Err(Missing);
        }
        let stored = self.snap.twins.get(probe).into_iter().flatten();
        let mut found: BTreeMap<Key, i64> = stored.map(|p| (p.key.clone(), p.at)).collect();
        found.retain(|key, _| !self.touched.get(key).is_some_and(|t| t.reprinted));
        let here = self.printed.get(&(probe.collection.clone(), probe.print.clone()));
        for key in here.into_iter().flatten() {
            let at = self.touched.get(key).and_then(|t| t.print.as_ref()).map(|(_, at)| *at);
            if let Some(at) = at.filter(|at| (probe.from..=probe.to).contains(at)) {
                found.insert(key.clone(), at);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Conflicts about a record, this batch's own included.
    pub(crate) fn conflicts_of(&mut self, key: &Key) -> Step<Vec<(Key, Conflict)>> {
        let links = self.links_to(key)?;
        let keys: BTreeSet<Key> =
            links.into_iter().map(|l| l.child).filter(|k| &*k.collection == CONFLICT).collect();
        let mut found = Vec::new();
        let mut missing = false;
        for key in keys {
            match self.lookup(&key) {
                Ok(Some(record)) if record.is_live() => {
                    found.extend(Conflict::read(&record.data).map(|conflict| (key, conflict)));
                }
                Ok(_) => {}
                Err(Missing) => missing = true,
            }
        }
        if missing { Err(Missing) } else { Ok(found) }
    }

    /// The version with which a record begins here: above that of any tombstone that was purged.
    pub(crate) fn first_version(&self) -> u64 {
        self.snap.buried.saturating_add(1)
    }

    /// Puts a record that was not there, or only as a tombstone beside what was lost of it.
    pub(crate) fn insert(&mut self, key: Key, mut record: Record) {
        let there = self.touched.get(&key).map(|t| &t.now).or_else(|| self.snap.records.get(&key));
        match there.filter(|r| r.state == State::Deleted).cloned() {
            Some(there) => {
                record.version = there.version + 1;
                record.local_id = there.local_id;
                record.contested = there.contested;
                record.upstream.clone_from(&there.upstream);
                self.history.push(Superseded { key: key.clone(), record: there });
            }
            None => record.version = self.first_version(),
        }
        self.touch(key, record, true);
    }

    /// Writes the next version of a record and marks the fields that changed; the version it supersedes
    /// goes to history.
    pub(crate) fn supersede(&mut self, key: &Key, mut record: Record, by: &By<'_>, changed: &[String]) {
        let before = self.touched.get(key).map(|t| &t.now).or_else(|| self.snap.records.get(key)).cloned();
        if let Some(before) = before {
            if record.marks.is_empty() {
                record.marks.insert(String::new(), before.mark(""));
            }
            record.version = before.version + 1;
            self.history.push(Superseded { key: key.clone(), record: before });
        }
        let mark = Mark {
            version: record.version,
            at: by.at,
            device: by.author.device.clone(),
            role: by.role.clone(),
        };
        for field in changed {
            record.marks.insert(field.clone(), mark.clone());
        }
        record.author = by.author.clone();
        record.modified_at = by.at;
        self.touch(key.clone(), record, true);
    }

    /// Notes something that no reader needs to know: whether a conflict is open about a record.
    pub(crate) fn note_contested(&mut self, key: &Key, contested: bool) -> Step<()> {
        if let Some(mut record) = self.lookup(key)?
            && record.contested != contested
            && !self.gone.contains(key)
        {
            record.contested = contested;
            self.touch(key.clone(), record, false);
        }
        Ok(())
    }

    /// Lays a new state of a record over the snapshot.
    pub(crate) fn touch(&mut self, key: Key, mut now: Record, visible: bool) {
        if &*key.collection == CONFLICT {
            now.contested = now.is_live() && Conflict::read(&now.data).is_some_and(|c| c.is_open());
        }
        if !self.absorbs {
            self.side.insert(key.clone());
        }
        self.told |= visible;
        let at = match self.touched.entry(key) {
            Entry::Occupied(mut earlier) => {
                let touched = earlier.get_mut();
                touched.now = now;
                touched.visible |= visible;
                earlier.index()
            }
            Entry::Vacant(first) => {
                let before = self.snap.records.get(first.key()).cloned();
                let (links, print, reprinted) = (Vec::new(), None, false);
                let at = first.index();
                first.insert(Touched { before, now, visible, offset: self.offset, links, print, reprinted });
                at
            }
        };
        self.relink(at);
        self.reprint(at);
    }

    /// Takes back what was laid over a record.
    pub(crate) fn untouch(&mut self, key: &Key) {
        let Some(touched) = self.touched.shift_remove(key) else { return };
        for link in &touched.links {
            if let Some(children) = self.linked.get_mut(&link.parent) {
                children.remove(link);
            }
        }
        if let Some((text, _)) = &touched.print
            && let Some(alike) = self.printed.get_mut(&(key.collection.clone(), text.clone()))
        {
            alike.remove(key);
        }
    }

    /// Files a touched record under its parents.
    fn relink(&mut self, at: usize) {
        let Some((key, touched)) = self.touched.get_index_mut(at) else { return };
        let links = links_of(key, &touched.now, self.profile);
        if links == touched.links {
            return;
        }
        for link in &touched.links {
            if let Some(children) = self.linked.get_mut(&link.parent) {
                children.remove(link);
            }
        }
        for link in &links {
            self.linked.entry(link.parent.clone()).or_default().insert(link.clone());
        }
        touched.links = links;
    }

    /// Files a touched record under its print, where that is another than the stored one, which is
    /// corrected by the clock of whoever filled it.
    fn reprint(&mut self, at: usize) {
        let Some((key, touched)) = self.touched.get_index_mut(at) else { return };
        let Some(rules) = self.profile.rules(&key.collection).filter(|r| r.same.is_some()) else { return };
        if let Some((text, _)) = touched.print.take()
            && let Some(alike) = self.printed.get_mut(&(key.collection.clone(), text))
        {
            alike.remove(key);
        }
        let plain = |record: &Record| print(rules, record, 0);
        touched.reprinted = touched.before.as_ref().is_none_or(|before| plain(before) != plain(&touched.now));
        if touched.reprinted
            && let Some((text, at)) = print(rules, &touched.now, touched.offset)
        {
            let alike = self.printed.entry((key.collection.clone(), text.clone())).or_default();
            alike.insert(key.clone());
            touched.print = Some((text, at));
        }
    }

    /// Writes a conflict about a record and notes it there when it is open. One that is here already, because
    /// another node decided the same change before, stays as it is.
    pub(crate) fn open(&mut self, group: &str, conflict: &Conflict, author: &Author) -> Step<RecordId> {
        let id = conflict_id(&conflict.change, group);
        let key = Key::new(&Collection::trusted(CONFLICT), &id);
        if self.lookup(&key)?.is_some_and(|there| there.is_live()) {
            return Ok(id);
        }
        let record = new_record(conflict.write(), author, conflict.opened_at);
        self.insert(key, record);
        if conflict.is_open() {
            self.note_contested(&conflict.about(), true)?;
            if let Some(other) = &conflict.other {
                self.note_contested(&Key::new(&conflict.collection, other), true)?;
            }
        }
        Ok(id)
    }

    pub(crate) fn remember(&mut self, change: &Change, content: u64, answer: &Answer) {
        let remembered = Remembered {
            change: change.id.clone(),
            content,
            device: change.author.device.clone(),
            verdict: answer.verdict,
            key: change.key(),
            version: answer.version,
            stamp: Stamp::default(),
            detail: answer.detail.clone(),
        };
        self.receipts.insert(change.id.clone(), remembered);
    }

    pub(crate) fn answer(&mut self, change: &Change, answer: Answer) {
        let shows = answer.detail.shown || answer.reason.is_some();
        let receipt = Receipt {
            change: change.id.clone(),
            verdict: answer.verdict,
            key: change.key(),
            version: answer.version,
            stamp: self.snap.head,
            record: None,
            detail: answer.detail,
            reason: answer.reason,
        };
        self.pending.push(Pending { receipt, show: shows.then_some(answer.over), fresh: true });
    }

    pub(crate) fn answer_again(&mut self, remembered: Remembered) {
        let show = remembered.detail.shown.then(|| remembered.key.clone());
        // A change given twice in one batch was decided a moment ago and shares this plan's stamp.
        let fresh = self.receipts.contains_key(&remembered.change);
        let receipt = Receipt {
            change: remembered.change,
            verdict: remembered.verdict,
            key: remembered.key,
            version: remembered.version,
            stamp: remembered.stamp.min(self.snap.head),
            record: None,
            detail: remembered.detail,
            reason: None,
        };
        self.pending.push(Pending { receipt, show, fresh });
    }
}

/// `<change id>:<group>`; a group that is no name (a field that the profile does not know) goes by its
/// hash, so that the id is one everywhere.
pub(crate) fn conflict_id(change: &ChangeId, group: &str) -> RecordId {
    match is_name(group) {
        true => RecordId::trusted(format!("{change}:{group}")),
        false => RecordId::trusted(format!("{change}:f-{:016x}", hash64(group.as_bytes()))),
    }
}

/// A record's first version.
pub(crate) fn new_record(data: Doc, author: &Author, at: Time) -> Record {
    Record {
        local_id: 0,
        version: 1,
        stamp: Stamp::default(),
        state: State::Live,
        data,
        marks: Marks::new(),
        owner: author.device.clone(),
        author: author.clone(),
        modified_at: at,
        contested: false,
        upstream: None,
    }
}
