//! A node that can be put back to a backup of it, on every store.

use super::*;
use ropeway_core::conflict::{Kind, Resolution};
use ropeway_replica::begin_epoch;
use ropeway_store::{Store, Unpacked};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A node that can be put back to a backup of it, under the name by which its ids are drawn.
pub struct Place {
    pub profile: String,
    pub node: Node,
    pub clock: Arc<ManualClock>,
    kept: Kept,
    ground: Arc<Ground>,
}

/// Where a place keeps its data.
pub enum Kept {
    Memory(Arc<MemoryStore>),
    File(PathBuf),
    Server(Arc<PostgresStore>),
}

/// A backup of a place: a copy of its memory, or a directory with the file that `backup` makes.
pub enum Image {
    Memory(MemoryStore),
    File(tempfile::TempDir),
}

const BACKUP: &str = "backup";

impl Kept {
    /// A store by that name that nobody has used yet, or the one that was restored there.
    pub async fn open(on: On, ground: &Ground, name: &str, follows: bool, now: Time) -> (Self, Stored) {
        let epoch = Epoch::trusted(format!("epoch-{name}"));
        match on {
            On::Memory => Self::memory(MemoryStore::new(epoch, follows)),
            On::Sqlite => {
                let file = ground.file(name);
                let store = SqliteStore::open(&file, Options::new(epoch, now).following(follows)).unwrap();
                (Self::File(file), Arc::new(store))
            }
            On::Postgres => {
                let options = PostgresOptions::new(ground.url(name).await, epoch, now).following(follows);
                let store = Arc::new(PostgresStore::open(options).await.unwrap());
                (Self::Server(store.clone()), store)
            }
        }
    }

    fn memory(store: MemoryStore) -> (Self, Stored) {
        let store = Arc::new(store);
        (Self::Memory(store.clone()), store)
    }

    fn on(&self) -> On {
        match self {
            Self::Memory(_) => On::Memory,
            Self::File(_) => On::Sqlite,
            Self::Server(_) => On::Postgres,
        }
    }
}

impl Place {
    pub async fn new(on: On, name: &str, follows: bool, clock: &Arc<ManualClock>) -> Self {
        Self::with(on, PROFILE, name, follows, clock).await
    }

    /// Where an upstream has a server, its followers keep their data in files.
    pub async fn with(on: On, profile: &str, name: &str, follows: bool, clock: &Arc<ManualClock>) -> Self {
        let on = if matches!((on, follows), (On::Postgres, true)) { On::Sqlite } else { on };
        let ground = Arc::new(Ground::new());
        let (kept, store) = Kept::open(on, &ground, name, follows, clock.now()).await;
        let node = opened(store, profile, name, follows, clock).await;
        Self { profile: profile.to_owned(), node, clock: clock.clone(), kept, ground }
    }

    pub fn store(&self) -> &Stored {
        self.node.store()
    }

    /// A backup of it, taken while it works.
    pub async fn image(&self) -> Image {
        let (now, dir) = (self.clock.now(), tempfile::tempdir().unwrap());
        let file = dir.path().join(BACKUP);
        match &self.kept {
            Kept::Memory(store) => return Image::Memory(store.image()),
            Kept::File(database) => {
                SqliteStore::backup(database, &file, false, now, &|_, _| {}).unwrap();
            }
            Kept::Server(store) => {
                store.backup(file, false, now, Arc::new(|_, _| {})).await.unwrap();
            }
        }
        Image::File(dir)
    }

    /// Goes back to an image of it, as `restore` does. What it was works on for whoever has a cable to it.
    pub async fn restore(&mut self, image: &Image, again: &str) {
        let (ids, now) = (SequentialIds::new(&format!("epoch-{again}")), self.clock.now());
        let begin = async |store: &dyn Store| {
            begin_epoch(store, &*self.clock, &ids, &[space()], false).await.unwrap();
        };
        let follows = self.node.follows();
        let (kept, store) = match image {
            Image::Memory(image) => {
                let store = image.image();
                begin(&store).await;
                Kept::memory(store)
            }
            Image::File(dir) => {
                let (backup, file) = (dir.path().join(BACKUP), self.ground.file(again));
                let unpacked = Unpacked::new(&backup, &file).unwrap();
                let store = unpacked.open(now).unwrap();
                begin(&store).await;
                if let Kept::Server(_) = self.kept {
                    let options =
                        PostgresOptions::new(self.ground.url(again).await, Epoch::trusted("none"), now);
                    let server = PostgresStore::open(options).await.unwrap();
                    let alone = server.alone().await.unwrap();
                    server.restore(unpacked, store, alone, false, Arc::new(|_, _| {})).await.unwrap();
                } else {
                    unpacked.put_in_place(store, now).unwrap();
                }
                Kept::open(self.kept.on(), &self.ground, again, follows, now).await
            }
        };
        self.node = opened(store, &self.profile, again, follows, &self.clock).await;
        self.kept = kept;
    }

    pub async fn device(&self, name: &str) -> String {
        let enrolment = Enrolment {
            id: None,
            name: name.into(),
            space: space(),
            role: "device".into(),
            mode: "offline_device".into(),
            metadata: json!({}),
        };
        self.node.enrol(enrolment).await.unwrap().token
    }

    pub fn cable(&self, token: &str) -> Cable {
        Cable::new(self.node.clone(), token.to_owned())
    }

    pub async fn sync(&self, cable: &Cable) -> SyncReport {
        self.node.sync(&space(), cable, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    pub async fn put(&self, person: &str, collection: &str, id: &str, values: Value) -> Verdict {
        self.clock.advance(Duration::from_secs(1));
        let op = if self.node.get(&space(), &key(collection, id)).await.unwrap().is_some_and(|r| r.is_live())
        {
            Op::Patch
        } else {
            Op::Create
        };
        write(&self.node, person, op, collection, id, values).await.verdict
    }

    pub async fn delete(&self, person: &str, collection: &str, id: &str) -> Verdict {
        self.clock.advance(Duration::from_secs(1));
        write(&self.node, person, Op::Delete, collection, id, json!({})).await.verdict
    }

    pub async fn field(&self, collection: &str, id: &str, field: &str) -> Value {
        let live = self.node.get(&space(), &key(collection, id)).await.unwrap().is_some_and(|r| r.is_live());
        if live { data(&self.node, collection, id).await[field].clone() } else { Value::Null }
    }

    /// What waits in lists of lost records: record and value of `name` or `description`.
    pub async fn lost(&self) -> Vec<(String, Value)> {
        let open = self.node.conflicts(&space(), true).await.unwrap();
        let lost = open.into_iter().filter(|v| v.conflict.kind == Kind::Lost);
        let mut found: Vec<_> = lost
            .map(|v| {
                let values = &v.conflict.incoming.values;
                let value = values.get("name").or(values.get("description")).or(values.get("note"));
                (v.conflict.record.to_string(), value.cloned().unwrap_or_default())
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    pub async fn accept(&self, epoch: &str) -> (usize, usize) {
        self.answer(epoch, Resolution::Incoming).await
    }

    pub async fn answer(&self, epoch: &str, resolution: Resolution) -> (usize, usize) {
        self.clock.advance(Duration::from_secs(1));
        let desk = desk("Jury", "admin");
        let epoch = Epoch::trusted(epoch);
        let told = self.node.resolve_lost(&space(), &desk, &epoch, resolution, None).await.unwrap();
        (told.answered, told.left.len())
    }

    /// How far its upstream has been read.
    pub async fn store_followed(&self) -> ropeway_store::Followed {
        self.store().followed(&space()).await.unwrap()
    }

    pub async fn unsettled(&self) -> usize {
        self.node.queue(&space()).await.unwrap().len()
    }
}

pub async fn assert_equal(a: &Place, b: &Place) {
    assert_eq!(dump(&a.node).await, dump(&b.node).await, "canonical dumps differ");
    let digest = async |p: &Place| p.store().space(&space()).await.unwrap().digest;
    assert_eq!(digest(a).await, digest(b).await, "digests differ");
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Time::parse(START).unwrap()))
}

/// Runs a story on every store.
pub fn on_each(story: impl AsyncFn(On)) {
    for on in every_store() {
        eprintln!("on {on:?}");
        runtime().block_on(story(on));
    }
}
