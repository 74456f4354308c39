//! Plans made by hand: what a decision would answer, as short as a test wants it.

use crate::{Decide, FeedPage, Store, Stored};
use ropeway_core::{
    change::{Author, Change, Op},
    digest::{Digest, contribution},
    doc::Doc,
    id::{ChangeId, Collection, DeviceId, Epoch, Key, RecordId, SpaceId},
    outbox::{Entry, EntryState},
    plan::{Decision, Fed, Keys, Plan, Row, Snapshot, Superseded},
    receipt::{Detail, Remembered, Verdict},
    record::{Record, State},
    time::{Stamp, Time},
};
use std::collections::{BTreeMap, BTreeSet};

/// The time at which hand-made plans are written.
pub const NOW: Time = Time(1_771_065_689_000_000);

/// The space of most cases.
pub fn space() -> SpaceId {
    SpaceId::trusted("alps")
}

/// A record's name: `incident/a`.
pub fn key(text: &str) -> Key {
    let (collection, id) = text.split_once('/').unwrap_or(("incident", text));
    Key { collection: Collection::trusted(collection), id: RecordId::trusted(id) }
}

/// Several names.
pub fn keys<'a>(texts: impl IntoIterator<Item = &'a str>) -> Keys {
    Keys { records: texts.into_iter().map(key).collect(), ..Keys::default() }
}

/// A document.
pub fn doc(text: &str) -> Doc {
    Doc::read(text).unwrap()
}

/// A device by its name.
pub fn device(name: &str) -> DeviceId {
    DeviceId::trusted(name)
}

/// The author of most plans.
pub fn author() -> Author {
    Author { device: device("pi-start"), person: Some("Ada".into()) }
}

/// A change as an outbox entry carries it.
pub fn change(id: &str, on: &Key) -> Change {
    Change {
        id: ChangeId::trusted(id),
        collection: on.collection.clone(),
        record: on.id.clone(),
        op: Op::Patch,
        fields: doc(r#"{"bib":7}"#).fields().clone(),
        seen: None,
        base: None,
        lost: None,
        author: author(),
        at: None,
    }
}

/// An outbox entry.
pub fn entry(seq: i64, id: &str, on: &Key, state: EntryState) -> Entry {
    Entry { own: true, state, due: NOW, ..Entry::pending(seq, change(id, on), on.clone(), NOW) }
}

/// A receipt to remember.
pub fn remembered(change: &str, on: &Key, stamp: Stamp) -> Remembered {
    Remembered {
        change: ChangeId::trusted(change),
        content: u64::MAX - 7,
        device: device("pi-start"),
        verdict: Verdict::Applied,
        key: on.clone(),
        version: 3,
        stamp,
        detail: Detail::default(),
    }
}

/// A record as an upstream feeds it.
pub fn fed(on: &Key, stamp: i64, data: &str) -> Fed {
    Fed {
        key: on.clone(),
        version: 4,
        stamp: Stamp(stamp),
        state: State::Live,
        data: doc(data),
        owner: device("cloud"),
        author: Author { device: device("cloud"), person: None },
        modified_at: NOW,
        left: false,
    }
}

/// A plan in the making, over the snapshot that it answers.
pub struct Draft<'a> {
    snapshot: &'a Snapshot,
    /// The plan so far.
    pub plan: Plan,
}

impl<'a> Draft<'a> {
    /// A plan that writes nothing yet.
    pub fn over(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, plan: Plan { head: snapshot.head, ..Plan::default() } }
    }

    /// Creates the record or gives it new data; what it held goes to the history.
    pub fn put(&mut self, key: &Key, data: Doc) -> &mut Self {
        self.write(key, State::Live, Some(data))
    }

    /// Deletes the record.
    pub fn delete(&mut self, key: &Key) -> &mut Self {
        self.write(key, State::Deleted, None)
    }

    /// Joins the record into another of its collection.
    pub fn join(&mut self, key: &Key, survivor: &str) -> &mut Self {
        self.write(key, State::Joined(RecordId::trusted(survivor)), None)
    }

    /// Remembers a receipt.
    pub fn receipt(&mut self, change: &str, key: &Key) -> &mut Self {
        self.plan.receipts.push(remembered(change, key, self.plan.head));
        self
    }

    /// The decision.
    pub fn done(&mut self) -> Decision {
        Decision::Plan(Box::new(std::mem::take(&mut self.plan)))
    }

    fn write(&mut self, key: &Key, state: State, data: Option<Doc>) -> &mut Self {
        assert!(self.snapshot.keys.records.contains(key), "{key} was not loaded");
        let earlier = self.plan.rows.iter().rev().find(|r| r.key == *key).map(|r| &r.record);
        let old = earlier.or_else(|| self.snapshot.records.get(key)).cloned();
        let stamp = self.plan.head.next(self.snapshot.now);
        let was = old.as_ref().map_or(0, |r| contribution(&key.collection, &key.id, r));
        let is_new = old.is_none();
        let mut record = old.clone().unwrap_or_else(|| blank(self.snapshot.now));
        record.version += 1;
        record.stamp = stamp;
        record.state = state;
        record.data = data.unwrap_or(record.data);
        let is = contribution(&key.collection, &key.id, &record);
        self.plan.head = stamp;
        self.plan.digest = self.plan.digest.moved(was, is);
        self.plan.history.extend(old.map(|record| Superseded { key: key.clone(), record }));
        self.plan.rows.push(Row { key: key.clone(), record, is_new, contribution: (was, is) });
        self
    }
}

/// A record that nobody has written yet.
pub fn blank(now: Time) -> Record {
    Record {
        local_id: 0,
        version: 0,
        stamp: Stamp(0),
        state: State::Live,
        data: Doc::default(),
        marks: BTreeMap::new(),
        owner: device("pi-start"),
        author: author(),
        modified_at: now,
        contested: false,
        upstream: None,
    }
}

/// A decision that puts these records.
pub fn puts(rows: Vec<(Key, Doc)>) -> Decide {
    Box::new(move |snapshot| {
        let mut draft = Draft::over(snapshot);
        for (key, data) in &rows {
            draft.put(key, data.clone());
        }
        draft.done()
    })
}

/// Puts records, all in one transaction.
pub async fn put_all(store: &Stored, space: &SpaceId, rows: Vec<(Key, Doc)>) -> Plan {
    let keys = Keys { records: rows.iter().map(|(key, _)| key.clone()).collect(), ..Keys::default() };
    store.transact(space, NOW, keys, puts(rows)).await.unwrap()
}

/// Puts one record.
pub async fn put(store: &Stored, on: &str, data: &str) -> Plan {
    put_all(store, &space(), vec![(key(on), doc(data))]).await
}

/// Runs a decision over these records.
pub async fn transact(
    store: &Stored,
    on: &[&str],
    decide: impl FnMut(&Snapshot) -> Decision + Send + 'static,
) -> Plan {
    store.transact(&space(), NOW, keys(on.iter().copied()), Box::new(decide)).await.unwrap()
}

/// Writes parts of a plan that touch no record.
pub async fn write(store: &Stored, fill: impl Fn(&mut Plan) + Send + 'static) -> Plan {
    let decide = move |snapshot: &Snapshot| {
        let mut draft = Draft::over(snapshot);
        fill(&mut draft.plan);
        draft.done()
    };
    transact(store, &[], decide).await
}

/// Loads these keys and returns what the decision was given.
pub async fn snapshot(store: &Stored, keys: Keys) -> Snapshot {
    let (tell, told) = std::sync::mpsc::channel();
    let look = move |snapshot: &Snapshot| {
        tell.send(snapshot.clone()).unwrap();
        Draft::over(snapshot).done()
    };
    store.transact(&space(), NOW, keys, Box::new(look)).await.unwrap();
    told.recv().unwrap()
}

/// The whole feed after a stamp, read by pages, with the checks that hold for every reader: stamps
/// strictly increase, and only the last page is complete.
pub async fn read_on(store: &dyn Store, space: &SpaceId, after: Stamp, limit: usize) -> (Vec<Fed>, Stamp) {
    let (mut all, mut cursor) = (Vec::new(), after);
    loop {
        let FeedPage { rows, space: state, complete } = store.feed(space, cursor, limit, &[]).await.unwrap();
        assert!(rows.len() <= limit);
        assert!(complete || rows.len() == limit, "a page that is not full must be the last");
        for row in &rows {
            assert!(row.stamp > cursor, "{} after {cursor}", row.stamp);
            assert!(row.stamp <= state.head, "{} beyond the head {}", row.stamp, state.head);
            cursor = row.stamp;
        }
        all.extend(rows);
        if complete {
            return (all, state.head);
        }
    }
}

/// What the digest must be, computed from every record in the feed.
pub async fn recomputed(store: &dyn Store, space: &SpaceId) -> Digest {
    let (rows, _) = read_on(store, space, Stamp(0), 1_000).await;
    let mut digest = Digest::default();
    for fed in rows {
        let found = store.records(space, std::slice::from_ref(&fed.key)).await.unwrap();
        let is = contribution(&fed.key.collection, &fed.key.id, &found[0].1);
        digest = digest.moved(0, is);
    }
    digest
}

/// Asserts what holds for every space at rest.
pub async fn sound(store: &dyn Store, space: &SpaceId) {
    let state = store.space(space).await.unwrap();
    assert_eq!(state.digest, recomputed(store, space).await, "the digest is not the sum of the records");
    let (rows, head) = read_on(store, space, Stamp(0), 500).await;
    assert_eq!(head, state.head);
    assert!(rows.last().is_none_or(|r| r.stamp <= head));
    let names: BTreeSet<&Key> = rows.iter().map(|r| &r.key).collect();
    assert_eq!(names.len(), rows.len(), "a record is twice in the feed");
    store.check().await.unwrap();
}

/// The epoch of an upstream.
pub fn epoch(name: &str) -> Epoch {
    Epoch::trusted(name)
}
