//! What is SQLite's own: the file, damage, a full disk, the views.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use ropeway_core::{
    id::{Epoch, Key},
    outbox::{Entry, EntryState},
    profile,
    receipt::Verdict,
    time::{Stamp, Time},
};
use ropeway_store::{Options, SqliteStore, Store, StoreError, Stored, conformance::hand::*};
use rusqlite::Connection;
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("node.db")
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, Options::new(Epoch::trusted("one"), NOW))
}

async fn filled(path: &Path, rows: usize) {
    let store: Stored = Arc::new(open(path).unwrap());
    store.open_space(&space()).await.unwrap();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(400));
    put_all(&store, &space(), (0..rows).map(|i| (key(&format!("r{i}")), doc(&text))).collect()).await;
}

fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let Err(error) = open(path) else { panic!("it was opened") };
    assert_eq!(fs::read(path).unwrap(), before, "what is refused is not touched");
    error
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 3).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file(&dir)), 0o600);
    let store = open(&file(&dir)).unwrap();
    store.put_meta("a", "b").await.unwrap();
    assert_eq!(mode(&dir.path().join("node.db-wal")), 0o600);
    assert!(store.size().await.unwrap() > 4_096);
    fs::set_permissions(file(&dir), fs::Permissions::from_mode(0o644)).unwrap();
    drop((open(&file(&dir)).unwrap(), store));
    assert_eq!(mode(&file(&dir)), 0o600);
}

#[tokio::test]
async fn the_epoch_is_given_once() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 1).await;
    let other = SqliteStore::open(file(&dir), Options::new(Epoch::trusted("two"), NOW)).unwrap();
    assert_eq!(&*other.space(&space()).await.unwrap().epoch, "one");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir);
    for garbage in [&b"hello"[..], &[0; 8_192], b"SQLite format 3\0"] {
        fs::write(&path, garbage).unwrap();
        assert!(matches!(refused(&path), StoreError::Corrupt { .. }));
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE accounts (id INTEGER)").unwrap();
    let error = refused(&path);
    assert!(error.to_string().contains("another program"), "{error}");
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 1).await;
    let db = Connection::open(file(&dir)).unwrap();
    db.execute("INSERT INTO rw_schema VALUES (99, 0, 0)", []).unwrap();
    drop(db);
    let error = refused(&file(&dir));
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 1 }), "{error}");
}

#[tokio::test]
async fn a_file_cut_short_is_refused() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 400).await;
    let whole = fs::read(file(&dir)).unwrap();
    assert!(whole.len() > 100_000);
    for length in [50, 4_096, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
        fs::write(file(&dir), &whole[..length]).unwrap();
        let error = refused(&file(&dir));
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains("cut short")), "{error}");
    }
    fs::write(file(&dir), b"").unwrap();
    fs::write(dir.path().join("node.db-wal"), b"frames").unwrap();
    assert!(matches!(refused(&file(&dir)), StoreError::Corrupt { .. }));
    assert_eq!(fs::read(dir.path().join("node.db-wal")).unwrap(), b"frames", "the log is evidence");
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 400).await;
    let mut damaged = fs::OpenOptions::new().read(true).write(true).open(file(&dir)).unwrap();
    let length = damaged.seek(SeekFrom::End(0)).unwrap();
    for page in (length / 4_096 / 2)..(length / 4_096) {
        damaged.seek(SeekFrom::Start(page * 4_096)).unwrap();
        damaged.write_all(&[0xAB; 64]).unwrap();
    }
    drop(damaged);
    let store = open(&file(&dir)).unwrap();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let read = store.feed(&space(), Stamp(0), 10_000, &[]).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{:?}", read.map(|p| p.rows.len()));
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 50).await;
    let plain = Arc::new(open(&file(&dir)).unwrap());
    let store: Stored = plain.clone();
    let pages: u32 =
        Connection::open(file(&dir)).unwrap().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    plain.allow_pages(Some(pages + 3)).await.unwrap();
    let before = store.space(&space()).await.unwrap();
    let text = doc(&format!(r#"{{"text":"{}"}}"#, "y".repeat(3_000)));
    let rows = |name: &str| -> Vec<(Key, _)> {
        (0..40).map(|i| (key(&format!("{name}{i}")), text.clone())).collect()
    };
    // Alone, and several that are committed together.
    let tasks: Vec<_> = (0..30)
        .map(|i| {
            let (store, rows) = (store.clone(), rows(&format!("t{i}-")));
            let keys = keys(rows.iter().map(|(k, _)| &*k.id));
            tokio::spawn(async move { store.transact(&space(), NOW, keys, puts(rows)).await })
        })
        .collect();
    for task in tasks {
        let ended = task.await.unwrap();
        assert!(matches!(ended, Err(StoreError::Full)), "{:?}", ended.map(|p| p.rows.len()));
    }
    let fed = (0..40).map(|i| fed(&key(&format!("s{i}")), i, text.text())).collect();
    let staged = store.stage(&space(), &epoch("cloud"), fed, "t").await;
    assert!(matches!(staged, Err(StoreError::Full)), "{staged:?}");
    assert_eq!(store.space(&space()).await.unwrap(), before);
    assert_eq!(read_on(&*store, &space(), Stamp(0), 10).await.0.len(), 50);
    plain.allow_pages(None).await.unwrap();
    put_all(&store, &space(), rows("t")).await;
    assert_eq!(read_on(&*store, &space(), Stamp(0), 10).await.0.len(), 90);
    sound(&*store, &space()).await;
}

/// Who only looks waits for no writer: opening a database that is as it should be takes no lock.
#[tokio::test]
async fn opening_waits_for_no_writer() {
    let dir = TempDir::new().unwrap();
    let profile = profile(PROFILE);
    let first = open(&file(&dir)).unwrap();
    first.open_space(&space()).await.unwrap();
    first.install_views(&profile).await.unwrap();
    let other = Connection::open(file(&dir)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let impatient = Options { busy: Duration::ZERO, ..Options::new(Epoch::trusted("one"), NOW) };
    let second = SqliteStore::open(file(&dir), impatient).unwrap();
    second.install_views(&profile).await.unwrap();
    assert_eq!(second.open_space(&space()).await.unwrap(), first.space(&space()).await.unwrap());
    assert!(second.put_meta("a", "b").await.is_err(), "the lock is held");
    other.execute_batch("ROLLBACK").unwrap();
    second.put_meta("a", "b").await.unwrap();
}

#[tokio::test]
async fn another_process_that_holds_the_database_is_waited_for() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 1).await;
    let mut options = Options::new(Epoch::trusted("one"), NOW);
    options.busy = std::time::Duration::from_millis(50);
    let store: Stored = Arc::new(SqliteStore::open(file(&dir), options).unwrap());
    let other = Connection::open(file(&dir)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.put_meta("a", "b").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let ended = store.transact(&space(), NOW, keys(["a"]), puts(vec![(key("a"), doc("{}"))])).await;
    assert!(ended.is_err_and(|e| e.is_transient()));
    assert_eq!(store.feed(&space(), Stamp(0), 9, &[]).await.unwrap().rows.len(), 1, "readers go on");
    other.execute_batch("COMMIT").unwrap();
    put(&store, "a", "{}").await;
}

const PROFILE: &str = r#"
name = "sample"
version = 1
retry = ["1m", "5m"]
[views]
id = "client_uuid"
local_id = "id"
reference = "{}_client_uuid"
numbered = "incident"
mismatch = "decision"
[roles.admin]
write = "*"
resolve = true
[collections.race]
table = "races"
[collections.race.fields]
name = "text"
[collections.incident]
table = "incidents"
references = { race = "race" }
[collections.incident.fields]
bib_number = "int"
official = "bool"
description = "text"
clip = "object"
decision = "text"
created_at = "datetime"
"#;

fn profile(source: &str) -> profile::Profile {
    profile::parse(source, "sample.toml").unwrap_or_else(|e| panic!("{e:?}"))
}

fn query(path: &Path, sql: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "trusted_schema", "OFF").unwrap();
    let mut stmt = db.prepare(sql).unwrap();
    let names: Vec<String> = stmt.column_names().map(str::to_owned).collect();
    let read = |row: &rusqlite::Row<'_>| {
        let cell = |i| match row.get_ref(i).unwrap() {
            rusqlite::types::ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
            rusqlite::types::ValueRef::Integer(i) => format!("#{i}"),
            rusqlite::types::ValueRef::Null => "-".into(),
            other => format!("{other:?}"),
        };
        Ok((0..names.len()).map(cell).collect())
    };
    let rows = stmt.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap();
    (names, rows)
}

async fn sample(dir: &TempDir) -> Stored {
    let store: Stored = Arc::new(open(&file(dir)).unwrap());
    store.open_space(&space()).await.unwrap();
    store.install_views(&profile(PROFILE)).await.unwrap();
    let rows = [
        ("race/final", r#"{"name":"Final"}"#),
        ("race/same", r#"{"name":"Final!"}"#),
        ("race/third", r#"{"name":"Final!!"}"#),
        (
            "incident/i1",
            r#"{"bib_number":7,"clip":{"s":1},"created_at":"2026-02-14T10:41:29Z","extra":1,"official":true,"race":"third"}"#,
        ),
        ("incident/i2", r#"{"description":"it's","race":"nowhere"}"#),
        ("incident/i3", "{}"),
    ];
    put_all(&store, &space(), rows.map(|(k, d)| (key(k), doc(d))).into()).await;
    transact(&store, &["race/same", "race/third", "incident/i3"], |snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.join(&key("race/third"), "same").join(&key("race/same"), "final");
        draft.delete(&key("incident/i3")).done()
    })
    .await;
    store
}

#[tokio::test]
async fn collections_have_typed_views() {
    let dir = TempDir::new().unwrap();
    let store = sample(&dir).await;
    let (names, rows) = query(&file(&dir), "SELECT * FROM incidents ORDER BY id");
    let wanted = [
        "id",
        "client_uuid",
        "bib_number",
        "clip",
        "created_at",
        "decision",
        "description",
        "official",
        "race_client_uuid",
        "version",
        "stamp",
        "modified_at",
        "device",
        "person",
        "space",
    ];
    assert_eq!(names, wanted);
    assert_eq!(rows.len(), 2, "live records only");
    let first = ["#4", "i1", "#7", r#"{"s":1}"#, "2026-02-14T10:41:29Z", "-", "-", "#1", "final", "#1"];
    assert_eq!(rows[0][..10], first, "a reference to a joined record is resolved");
    assert_eq!(rows[0][11..], ["2026-02-14T10:41:29.000000Z", "pi-start", "Ada", "alps"]);
    assert_eq!(rows[1][6..9], ["it's", "-", "nowhere"]);
    assert_eq!(query(&file(&dir), "SELECT * FROM incident").1.len(), 2);
    assert_eq!(query(&file(&dir), "SELECT client_uuid FROM races").1, [["final"]]);
    // The same profile again changes nothing, another one replaces all of it.
    let before = query(&file(&dir), "PRAGMA schema_version").1;
    store.install_views(&profile(PROFILE)).await.unwrap();
    assert_eq!(query(&file(&dir), "PRAGMA schema_version").1, before);
    let renamed = PROFILE.replace("\"incidents\"", "\"events\"").replace("bib_number", "bib");
    store.install_views(&profile(&renamed)).await.unwrap();
    assert_eq!(query(&file(&dir), "SELECT bib FROM events").1.len(), 2);
    let views = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name";
    let names: Vec<String> = query(&file(&dir), views).1.into_iter().flatten().collect();
    assert_eq!(names, ["devices", "events", "incident", "race", "races", "sync_conflicts", "sync_queue"]);
}

#[tokio::test]
async fn the_queue_is_shown_as_documented() {
    let dir = TempDir::new().unwrap();
    let store = sample(&dir).await;
    transact(&store, &["incident/i2"], |snapshot| {
        let mut draft = Draft::over(snapshot);
        let mut parked = entry(1, "c1", &key("incident/i2"), EntryState::Settled);
        parked.verdict = Some(Verdict::Parked);
        let mut record = snapshot.records[&key("incident/i2")].clone();
        record.contested = true;
        let contribution = (0, 0);
        draft.plan.rows.push(ropeway_core::plan::Row {
            key: key("incident/i2"),
            record,
            is_new: false,
            contribution,
        });
        let retried = |seq, id: &str, attempts, state| Entry {
            attempts,
            tried_at: Some(Time(NOW.0 + 2_500_000)),
            accepted_at: Time(NOW.0 + seq),
            ..entry(seq, &format!("c{seq}"), &key(id), state)
        };
        draft.plan.outbox = vec![
            parked,
            retried(2, "incident/i1", 2, EntryState::Settled),
            retried(3, "incident/i1", 2, EntryState::Pending),
            retried(4, "race/final", 3, EntryState::Waiting),
            retried(5, "race/same", 0, EntryState::Receipted),
            retried(6, "race/third", 0, EntryState::Discarded),
        ];
        draft.done()
    })
    .await;
    let (names, rows) = query(&file(&dir), "SELECT * FROM sync_queue ORDER BY client_uuid");
    let wanted = [
        "client_uuid",
        "record_type",
        "local_id",
        "payload",
        "status",
        "retry_count",
        "last_retry_at",
        "error_message",
        "created_at",
        "updated_at",
        "space",
    ];
    assert_eq!(names, wanted);
    let brief: Vec<_> = rows.iter().map(|r| [&*r[0], &*r[1], &*r[2], &*r[4], &*r[5]]).collect();
    let wanted = [
        ["final", "Race", "#1", "failed", "#3"],
        ["i1", "Incident", "#4", "pending", "#2"],
        ["i2", "Incident", "#5", "conflict", "#0"],
        ["same", "Race", "#2", "synced", "#0"],
    ];
    assert_eq!(brief, wanted);
    assert_eq!(rows[1][6], "2026-02-14T10:41:31.500000Z");
    assert_eq!(rows[1][8], "2026-02-14T10:41:29.000002Z", "created with the record's first entry");
    assert!(rows[1][3].contains("bib_number"), "the payload is the full record: {}", rows[1][3]);
}

#[tokio::test]
async fn conflicts_and_devices_are_shown_as_documented() {
    let dir = TempDir::new().unwrap();
    let store = sample(&dir).await;
    let conflict = r#"{"change":"c1","collection":"incident","fields":["decision"],"incoming":{"at":"2026-02-14T10:41:29Z","by":{"device":"pi-finish"},"values":{"decision":"penalty"}},"kind":"fields","opened_at":"2026-02-14T10:41:29Z","record":"i1","rule":"park","server":{"at":"2026-02-14T10:41:29Z","by":{"device":"cloud"},"values":{"decision":"no_action"}},"state":"open"}"#;
    put(&store, "conflict/c1:decision", conflict).await;
    let done = conflict.replace(r#""state":"open""#, r#""notes":"seen","resolution":"incoming","resolved_at":"2026-02-14T11:00:00Z","resolved_by":{"device":"cloud","person":"Bo"},"state":"resolved""#);
    put(&store, "conflict/c2:bib", &done.replace("\"decision\"]", "\"bib\"]").replace("incident", "race"))
        .await;
    // CT-04: a merge waits for nobody.
    let join =
        conflict.replace("\"fields\",", "\"join\",").replace(r#""state":"open""#, r#""state":"automatic""#);
    put(&store, "conflict/c3:join", &join).await;
    let (names, rows) = query(&file(&dir), "SELECT * FROM sync_conflicts ORDER BY conflict");
    let wanted = [
        "id",
        "incident_id",
        "device_uuid_source",
        "conflict_type",
        "record_type",
        "record_client_uuid",
        "cloud_data",
        "device_data",
        "resolution",
        "resolved_by_user_id",
        "resolved_at",
        "resolution_notes",
        "created_at",
        "updated_at",
        "state",
        "conflict",
        "space",
    ];
    assert_eq!(names, wanted);
    let open = [
        "#4",
        "pi-finish",
        "decision_mismatch",
        "Incident",
        "i1",
        r#"{"decision":"no_action"}"#,
        r#"{"decision":"penalty"}"#,
        "pending",
        "-",
        "-",
        "-",
        "2026-02-14T10:41:29Z",
    ];
    assert_eq!(rows[0][1..13], open);
    let resolved = ["device_wins", "Bo", "2026-02-14T11:00:00Z", "seen"];
    assert_eq!(rows[1][8..12], resolved);
    assert_eq!((&*rows[2][3], &*rows[2][8]), ("auto_merged", "cloud_wins"));
    assert_eq!([&*rows[1][1], &*rows[1][3], &*rows[1][4]], ["-", "uuid_exists_different_data", "Race"]);
    let pi = ropeway_store::Device {
        id: device("pi-1"),
        space: space(),
        name: "Start Line Pi".into(),
        mode: "offline_device".into(),
        role: "device".into(),
        status: ropeway_store::DeviceStatus::Active,
        token_hash: "abc".into(),
        metadata: serde_json::json!({"os": "Debian"}),
        created_at: NOW,
        last_seen_at: None,
        pulled: None,
        pulled_shared: None,
    };
    store.put_device(&pi).await.unwrap();
    let (names, rows) = query(&file(&dir), "SELECT * FROM devices");
    let documented = [
        "device_uuid",
        "name",
        "system_mode",
        "status",
        "last_seen_at",
        "api_token_digest",
        "metadata",
        "created_at",
        "updated_at",
    ];
    assert_eq!(names[..9], documented);
    let wanted = ["pi-1", "Start Line Pi", "offline_device", "active", "-", "abc", r#"{"os":"Debian"}"#];
    assert_eq!(rows[0][..7], wanted);
}

#[test]
fn a_damaged_header_reads_as_damage() {
    let dir = TempDir::new().unwrap();
    drop(open(&file(&dir)).unwrap());
    let mut bytes = Vec::new();
    fs::File::open(file(&dir)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes[..16].fill(0);
    fs::write(file(&dir), &bytes).unwrap();
    assert!(matches!(refused(&file(&dir)), StoreError::Corrupt { .. }));
}

#[tokio::test]
async fn a_long_log_is_taken_in_beside_the_writer() {
    let dir = TempDir::new().unwrap();
    let store: Stored = Arc::new(open(&file(&dir)).unwrap());
    store.open_space(&space()).await.unwrap();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    let length = || fs::metadata(file(&dir)).unwrap().len();
    let before = length();
    // 24 MB, less than the 64 MiB at which the writer itself stops for it.
    for batch in 0..20 {
        let rows = (0..20).map(|i| (key(&format!("r{batch}-{i}")), doc(&text))).collect();
        put_all(&store, &space(), rows).await;
    }
    let grown = async {
        // Some more commits, which ask again where the log was being taken in; too few to make it that long.
        for _ in 0..200 {
            put(&store, "more", "{}").await;
        }
        while length() < before + (16 << 20) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), grown).await.expect("the log stays long");
}

/// F20: somebody reads and never ends. Everybody else writes and reads on; when it is gone the log, which had to
/// grow meanwhile, is begun anew instead of growing for ever.
#[tokio::test]
async fn a_reader_that_never_ends_holds_nobody_up() {
    let dir = TempDir::new().unwrap();
    filled(&file(&dir), 3).await;
    let store: Stored = Arc::new(open(&file(&dir)).unwrap());
    let reader = Connection::open(file(&dir)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let count = |db: &Connection| -> i64 {
        db.query_row("SELECT count(*) FROM rw_records", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&reader), 3);
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(500_000));
    let log = || fs::metadata(dir.path().join("node.db-wal")).unwrap().len();
    for n in 0..50 {
        put(&store, &format!("large{n}"), &large).await;
    }
    assert_eq!(count(&reader), 3, "it sees what it began with");
    assert_eq!(store.list(&space(), &key("r0").collection, None, 999).await.unwrap().len(), 53);
    assert!(log() > 20 << 20, "nothing could be taken in behind it");
    drop(reader);
    // Written without a pause: who takes the log in beside the writer may never catch up, so the writer does.
    let mut longest = 0;
    for n in 50..250 {
        let before = log();
        put(&store, &format!("large{n}"), &large).await;
        longest = log();
        if longest == before {
            break;
        }
    }
    assert!(longest < 80 << 20, "the log is begun anew: {longest} bytes");
}
