//! A node moves from a file to a database on a server and back, in a backup file, and nothing of it changes.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use ropeway_core::{
    audience::{AudienceRow, Subscription},
    change::Base,
    digest::Digest,
    id::{DeviceId, Epoch, SpaceId},
    outbox::EntryState,
    plan::{Decision, Link, Print, Sealed, Snapshot},
    receipt::{Code, Reason, Verdict},
    record::{Held, Mark, State, Upstream},
    time::{Stamp, Time},
};
use ropeway_store::{
    BackupError, Device, DeviceStatus, Durability, Member, Options, PostgresOptions, PostgresStore, Present,
    Progress, QuarantineEnd, Room, SqliteStore, Store, Stored, SyncOutcome, SyncRun, Unpacked,
    conformance::{hand::*, known},
};
use rusqlite::{Connection, OpenFlags, types::Value};
use server::Database;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;

fn quietly() -> Progress {
    Arc::new(|_, _| {})
}

async fn on(database: &Database) -> PostgresStore {
    PostgresStore::open(PostgresOptions::new(database.url(), Epoch::trusted("server"), NOW)).await.unwrap()
}

fn unpacked(file: &Path) -> (Unpacked, SqliteStore) {
    let unpacked = Unpacked::aside(file, &file.with_extension("fresh")).unwrap();
    let store = unpacked.open(NOW).unwrap();
    (unpacked, store)
}

async fn restored(file: &Path) -> Database {
    let database = Database::create().await;
    take(&database, unpacked(file), false).await.unwrap();
    database
}

/// Restores into a database that nobody else has open.
async fn take(
    database: &Database,
    (unpacked, store): (Unpacked, SqliteStore),
    replace: bool,
) -> Result<(), BackupError> {
    let target = on(database).await;
    let alone = target.alone().await?;
    target.restore(unpacked, store, alone, replace, quietly()).await
}

/// A newer schema has a column that nobody moves: this fails.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_sqlite_columns_are_all_moved() {
    let all = |which: fn(&str, bool, Option<&str>) -> Option<String>| -> BTreeMap<String, BTreeSet<String>> {
        let column = |&(name, file, server): &_| which(name, file, server);
        let tables = known().into_iter();
        tables.map(|(table, columns)| (table.into(), columns.iter().filter_map(column).collect())).collect()
    };
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("node.db");
    drop(SqliteStore::open(&file, Options::new(Epoch::trusted("one"), NOW)).unwrap());
    let db = Connection::open(&file).unwrap();
    const IN_FILE: &str = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c
      WHERE m.type = 'table' AND m.name LIKE 'rw_%' AND m.name NOT IN ('rw_schema', 'rw_names')";
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut stmt = db.prepare(IN_FILE).unwrap();
    let mut rows = stmt.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        there.entry(row.get(0).unwrap()).or_default().insert(row.get(1).unwrap());
    }
    assert_eq!(all(|name, file, _| file.then(|| name.into())), there);

    let database = Database::create().await;
    drop(on(&database).await);
    const ON_SERVER: &str = "SELECT table_name::text, column_name || ' ' || data_type
      FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'rw_schema'";
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in database.connect().await.query(ON_SERVER, &[]).await.unwrap() {
        there.entry(row.get(0)).or_default().insert(row.get(1));
    }
    assert_eq!(all(|name, _, server| server.map(|of| format!("{name} {of}"))), there);
}

fn other() -> SpaceId {
    SpaceId::trusted("valais")
}

/// A version in which no column is null.
fn rich(snapshot: &Snapshot) -> Decision {
    let mut draft = Draft::over(snapshot);
    draft.put(&key("rich"), doc(r#"{"bib":9}"#));
    let record = &mut draft.plan.rows[0].record;
    record.contested = true;
    let mark = Mark { version: 2, at: NOW, device: device("pi"), role: Some("jury".into()) };
    record.marks = [("bib".into(), mark)].into();
    let held = Held { state: State::Live, data: doc(r#"{"bib":6}"#), left: false };
    record.upstream = Some(Upstream { epoch: epoch("cloud"), version: 4, held: Some(held) });
    draft.done()
}

/// Something in every table and in every column, in two spaces.
async fn everything(store: &Stored) {
    for space in [space(), other()] {
        store.open_space(&space).await.unwrap();
    }
    put(store, "race/r1", r#"{"name":"Final","note":"it's \\ \"quoted\"\tné é 山"}"#).await;
    put(store, "a", r#"{"bib":7}"#).await;
    put(store, "a", r#"{"bib":8}"#).await;
    put(store, "conflict/c1", r#"{"open":true}"#).await;
    put(store, "gone", "{}").await;
    put(store, "b", "{}").await;
    transact(store, &["gone", "b"], |snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.delete(&key("gone")).join(&key("b"), "a").done()
    })
    .await;
    put(store, "rich", "{}").await;
    for _ in 0..2 {
        transact(store, &["rich"], rich).await;
    }
    write(store, |plan| {
        plan.head = plan.head.next(NOW);
        let head = plan.head;
        plan.receipts.push(remembered("c-1", &key("a"), head));
        let mut told = remembered("c-2", &key("b"), head);
        told.detail.parked = vec!["bib".into()];
        plan.receipts.push(told);
        plan.prints.push(Print { key: key("a"), print: "7|é".into(), at: -5 });
        plan.links.push(Link { parent: key("race/r1"), child: key("a"), field: "race".into() });
        let row = |record: &str, via: Option<&str>, left| AudienceRow {
            record: key(record),
            audience: "competition:c1".into(),
            via: via.map(key),
            entered: head,
            left,
        };
        plan.audiences = vec![row("a", None, None), row("race/r1", Some("a"), Some(head))];
        let reader = |via: Option<&str>, left| Subscription {
            reader: device("phone"),
            audience: "competition:c1".into(),
            via: via.map(key),
            entered: head,
            left,
        };
        plan.subscriptions = vec![reader(None, Some(head)), reader(Some("membership/m"), None)];
        plan.sights.insert("competition:c1".into(), Digest { count: 2, sum: -77 });
        let mut first = entry(1, "c-1", &key("a"), EntryState::Sealed);
        first.batch = Some("batch-1".into());
        first.granted = Some(Base { epoch: epoch("cloud"), version: 9 });
        first.held = vec!["bib".into()];
        first.also = vec![key("race/r1")];
        first.conflicts = vec![key("c1").id];
        first.tried_at = Some(NOW);
        first.receipt_stamp = Some(head);
        first.verdict = Some(Verdict::Parked);
        first.reason = Some(Reason { code: Code::Invalid, field: None, text: "no".into() });
        plan.outbox = vec![first, entry(2, "c-2", &key("b"), EntryState::Settled)];
        plan.sealed = vec![Sealed { id: "batch-1".into(), body: vec![0, 255, b'{', b'\\'], changes: 1 }];
    })
    .await;
    let staged =
        vec![fed(&key("t"), 6, r#"{"n":1}"#), fed(&key("s"), 7, "{}"), fed(&key("conflict/s"), 5, "{}")];
    store.stage(&space(), &epoch("cloud"), Vec::new(), "begun").await.unwrap();
    store.pull_anew(&space()).await.unwrap();
    store.stage(&space(), &epoch("cloud"), staged, "token").await.unwrap();
    let device = |space, status, pulled: Option<Stamp>| Device {
        id: DeviceId::trusted("pi"),
        space,
        name: "Pi".into(),
        mode: "offline_device".into(),
        role: "timing".into(),
        status,
        token_hash: format!("hash-{pulled:?}"),
        metadata: serde_json::json!({ "os": "Debian" }),
        created_at: NOW,
        last_seen_at: pulled.map(|_| NOW),
        pulled,
        pulled_shared: pulled,
    };
    store.put_device(&device(space(), DeviceStatus::Active, Some(Stamp(3)))).await.unwrap();
    store.put_device(&device(other(), DeviceStatus::Decommissioned, None)).await.unwrap();
    let member = Member {
        email: "jo@example.org".into(),
        space: space(),
        role: "admin".into(),
        password_hash: "argon".into(),
        disabled: true,
        created_at: NOW,
    };
    store.put_member(&member).await.unwrap();
    for space in [space(), other()] {
        let run = SyncRun {
            started_at: NOW,
            duration_ms: 5,
            outcome: SyncOutcome::Failed,
            pushed: 1,
            pulled: 2,
            held: 3,
            error: Some("cut".into()),
            device: Some(DeviceId::trusted("pi")),
        };
        store.put_run(&space, &run).await.unwrap();
        store.put_run(&space, &SyncRun { error: None, device: None, ..run }).await.unwrap();
        let room = Room { changes: 9, bytes: 100_000 };
        let of = DeviceId::trusted("lost");
        store.quarantine(&space, &of, NOW, vec![change("q-1", &key("q"))], room).await.unwrap();
    }
    let ended = QuarantineEnd { at: NOW, by: Some("Ada".into()), verdict: Some(Verdict::Created) };
    let no = store.quarantined(&space(), 0, 1).await.unwrap()[0].no;
    store.end_quarantine(&space(), vec![(no, ended)]).await.unwrap();
    store.swap_meta("cli.app", None, "race-logger", Durability::Full).await.unwrap();
    store.begin_epoch(&epoch("two"), Time(NOW.0 + 9), false).await.unwrap();
}

/// Every row of every table of a file, names instead of their numbers, without the numbers of rows.
fn rows(file: &Path) -> BTreeMap<String, Vec<String>> {
    const NAMES: [&str; 12] = [
        "collection",
        "owner",
        "author",
        "person",
        "up_epoch",
        "audience",
        "reader",
        "via_collection",
        "granted_epoch",
        "parent_collection",
        "child_collection",
        "device",
    ];
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let names: BTreeMap<i64, String> = {
        let mut stmt = db.prepare("SELECT no, name FROM rw_names").unwrap();
        let all = stmt.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        all.collect::<Result<_, _>>().unwrap()
    };
    let mut all = BTreeMap::new();
    for (table, _) in known() {
        let mut stmt = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns: Vec<String> = stmt.column_names().map(String::from).collect();
        let mut at = stmt.query([]).unwrap();
        let mut found = Vec::new();
        while let Some(row) = at.next().unwrap() {
            let cell = |(i, name): (usize, &String)| match row.get(i).unwrap() {
                _ if name == "no" && table != "rw_spaces" => String::new(),
                Value::Integer(no) if NAMES.contains(&name.as_str()) => {
                    format!("{name}: name {}", names[&no])
                }
                value => format!("{name}: {value:?}"),
            };
            found.push(columns.iter().enumerate().map(cell).collect::<Vec<_>>().join(", "));
        }
        if !matches!(table, "rw_batches" | "rw_runs" | "rw_quarantine" | "rw_staging") {
            found.sort(); // The others are in the order of their numbers, which must stay.
        }
        all.insert(table.to_owned(), found);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_back_a_node_keeps_everything() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let store: Stored = Arc::new(
        SqliteStore::open(path("node.db"), Options::new(Epoch::trusted("one"), NOW).following(true)).unwrap(),
    );
    everything(&store).await;
    let audit = store.audit().await.unwrap();
    assert_eq!(audit.faults, Vec::<String>::new());
    drop(store);
    SqliteStore::backup(&path("node.db"), &path("first"), false, NOW, &|_, _| {}).unwrap();
    let before = rows(&path("node.db"));
    let empty: Vec<&String> =
        before.iter().filter(|(_, rows)| rows.is_empty()).map(|(name, _)| name).collect();
    assert_eq!(empty, Vec::<&String>::new(), "something stands in every table");

    let database = restored(&path("first")).await;
    let moved = on(&database).await;
    assert_eq!(moved.audit().await.unwrap(), audit);
    let beside = database.connect().await;
    const CONFLICTS: &str = "SELECT string_agg(id, ' ') FROM rw_staging WHERE is_conflict";
    assert_eq!(beside.query_one(CONFLICTS, &[]).await.unwrap().get::<_, String>(0), "s");
    // What is the database's own stays: the next one to open it takes it for what it is.
    assert_eq!(moved.space(&space()).await.unwrap().epoch, epoch("two"));
    drop(moved);
    assert_eq!(on(&database).await.space(&space()).await.unwrap().epoch, epoch("two"));

    let told = Arc::new(AtomicU64::new(0));
    let heard = told.clone();
    let progress: Progress = Arc::new(move |done, all| {
        assert!(done <= all);
        heard.store(all, Ordering::Relaxed);
    });
    let manifest = on(&database).await.backup(path("second"), false, NOW, progress).await.unwrap();
    assert!(told.load(Ordering::Relaxed) > 30);
    assert_eq!(SqliteStore::verify(&path("second")).unwrap(), manifest);
    assert_eq!((&manifest.spaces, &manifest.epoch), (&audit.spaces, &audit.epoch));
    let again = on(&database).await.backup(path("second"), false, NOW, quietly()).await;
    assert!(matches!(again, Err(BackupError::Exists(_))));
    let (unpacked, store) = unpacked(&path("second"));
    drop(store);
    for (table, rows) in rows(&path("second.fresh")) {
        assert_eq!(rows, before[&table], "{table}");
    }
    drop(unpacked);
}

/// Somebody writes without a pause: what is copied is of one moment, and the file appears when it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_backups_beside_a_busy_writer_are_of_one_moment() {
    let (dir, database) = (TempDir::new().unwrap(), Database::create().await);
    let store: Stored = Arc::new(on(&database).await);
    store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), (0..3_000).map(|i| (key(&format!("r{i}")), doc(r#"{"n":1}"#))).collect()).await;
    drop(store);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (seen, count, url) = (stop.clone(), written.clone(), database.url());
    let writes = async move {
        let options = PostgresOptions::new(url, Epoch::trusted("writer"), NOW);
        let store: Stored = Arc::new(PostgresStore::open(options).await.unwrap());
        while !seen.load(Ordering::Relaxed) {
            // Two records that always agree, so that half a transaction would show.
            let n = count.fetch_add(1, Ordering::Relaxed);
            let rows = ["left", "right"].map(|side| (key(side), doc(&format!(r#"{{"n":{n}}}"#)))).to_vec();
            put_all(&store, &space(), rows).await;
        }
    };
    // On threads of its own: it goes on whatever waits on these.
    let writer = std::thread::spawn(|| server::alone(writes));
    while written.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    let asked = on(&database).await;
    for round in 0..3 {
        let file = dir.path().join(format!("busy-{round}"));
        let (counted, before) = (written.clone(), written.load(Ordering::Relaxed));
        let waits: Progress = Arc::new(move |_, _| {
            // The writer gets on between two pieces of the copy.
            let now = counted.load(Ordering::Relaxed);
            while counted.load(Ordering::Relaxed) < now + 2 {
                std::thread::yield_now();
            }
        });
        let manifest = asked.backup(file.clone(), false, NOW, waits).await.unwrap();
        assert!(written.load(Ordering::Relaxed) > before + 2);
        assert_eq!(SqliteStore::verify(&file).unwrap(), manifest);
        let (_unpacked, copy) = unpacked(&file);
        let sides = copy.records(&space(), &[key("left"), key("right")]).await.unwrap();
        assert_eq!(sides[0].1.data, sides[1].1.data);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let left = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("part")));
}

/// Nothing is replaced without being told, nor while others use it, nor by half.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_nodes_are_replaced_when_told_and_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("backup");
    let from = Database::create().await;
    let store: Stored = Arc::new(on(&from).await);
    store.open_space(&space()).await.unwrap();
    put_all(&store, &space(), (0..2_000).map(|i| (key(&format!("r{i}")), doc("{}"))).collect()).await;
    on(&from).await.backup(file.clone(), false, NOW, quietly()).await.unwrap();
    let manifest = SqliteStore::verify(&file).unwrap();

    let to = Database::create().await;
    let target = on(&to).await;
    assert!(matches!(target.present(&manifest).await.unwrap(), Present::Nothing));
    target.open_space(&space()).await.unwrap();
    let target: Stored = Arc::new(target);
    put_all(&target, &space(), vec![(key("mine"), doc(r#"{"kept":true}"#))]).await;
    let mine = target.audit().await.unwrap();
    let used = take(&to, unpacked(&file), true).await.unwrap_err();
    assert!(matches!(used, BackupError::InUse(_)), "{used}");
    drop(target);
    let occupied = take(&to, unpacked(&file), false).await.unwrap_err();
    assert!(matches!(occupied, BackupError::Occupied(_)), "{occupied}");
    let Present::Database(there, newer) = on(&to).await.present(&manifest).await.unwrap() else { panic!() };
    assert_eq!((&there, newer), (&mine, vec![(space(), 0)]));

    // The file breaks off behind most of its tables, when most of it is on the server.
    let (broken, store) = unpacked(&file);
    let fresh = file.with_extension("fresh");
    drop(store);
    let torn = Connection::open(&fresh).unwrap();
    torn.execute_batch("ALTER TABLE rw_quarantine DROP COLUMN ended_by").unwrap();
    drop(torn);
    let store = SqliteStore::open(&fresh, Options::new(Epoch::trusted("x"), NOW)).unwrap();
    let broken = take(&to, (broken, store), true).await.unwrap_err();
    assert!(format!("{broken:?}").contains("ended_by"), "{broken:?}");
    // And one whose rows are not what it says they are.
    let (wrong, store) = unpacked(&file);
    drop(store);
    let file_of_it = Connection::open(&fresh).unwrap();
    file_of_it.execute_batch("UPDATE rw_records SET data = '{\"n\":2}' WHERE no = 1").unwrap();
    drop(file_of_it);
    let store = SqliteStore::open(&fresh, Options::new(Epoch::trusted("x"), NOW)).unwrap();
    let wrong = take(&to, (wrong, store), true).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    assert_eq!(on(&to).await.audit().await.unwrap(), mine, "nothing was replaced by half");

    take(&to, unpacked(&file), true).await.unwrap();
    assert_eq!(on(&to).await.audit().await.unwrap().spaces, manifest.spaces);
}

/// Between the moment when nobody had the database open and the one when it is replaced, a server may start, take
/// in what somebody makes, and stop again; or go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_is_not_replaced() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("backup");
    let from = Database::create().await;
    let store: Stored = Arc::new(on(&from).await);
    store.open_space(&space()).await.unwrap();
    put(&store, "a", "{}").await;
    on(&from).await.backup(file.clone(), false, NOW, quietly()).await.unwrap();

    let to = Database::create().await;
    let target = on(&to).await;
    target.open_space(&space()).await.unwrap();
    let alone = target.alone().await.unwrap();
    let passing: Stored = Arc::new(on(&to).await);
    put(&passing, "late", "{}").await;
    drop(passing);
    target.alone().await.unwrap();
    let (fresh, store) = unpacked(&file);
    let wrote = target.restore(fresh, store, alone, true, quietly()).await.unwrap_err();
    assert!(matches!(wrote, BackupError::InUse(_)), "{wrote}");

    let alone = target.alone().await.unwrap();
    let staying = on(&to).await;
    let (fresh, store) = unpacked(&file);
    let stays = target.restore(fresh, store, alone, true, quietly()).await.unwrap_err();
    assert!(matches!(stays, BackupError::InUse(_)), "{stays}");
    let records = staying.records(&space(), &[key("late")]).await.unwrap();
    assert_eq!(records.len(), 1, "what was written in between is there");

    drop((staying, target));
    take(&to, unpacked(&file), true).await.unwrap();
}
