//! What is PostgreSQL's own: the server, the connections, and SQL that other engines understand too.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use ropeway_core::{
    id::Epoch,
    plan::{Decision, Keys, Plan, Snapshot},
    time::Stamp,
};
use ropeway_store::{PostgresOptions, PostgresStore, Store, StoreError, Stored, conformance::hand::*};
use server::Database;
use std::{fs, path::Path, sync::Arc, time::Duration};

async fn open(database: &Database) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(PostgresOptions::new(database.url(), Epoch::trusted("one"), NOW)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_cannot_be_used_says_why() {
    let why = async |url: String| {
        let options = PostgresOptions::new(url, Epoch::trusted("one"), NOW);
        let Err(error) = PostgresStore::open(options).await else { panic!("it was opened") };
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        error.to_string()
    };
    let server = server::server();
    assert!(why(format!("{server}/nowhere")).await.contains("no such database"));
    let stranger = why(format!("{}/postgres", server.replace("postgres@", "stranger@"))).await;
    assert!(stranger.contains("user or password"), "{stranger}");
    assert!(why("postgresql://postgres@127.0.0.1:1/x".into()).await.contains("connection"));
    let garbage = why("postgresql://me:secret@host:port/x".into()).await;
    assert!(garbage.contains("address") && !garbage.contains("secret"), "{garbage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_of_a_newer_program_is_refused() {
    let database = Database::create().await;
    drop(open(&database).await.unwrap());
    let beside = database.connect().await;
    beside.batch_execute("INSERT INTO rw_schema VALUES (2, 0, 0)").await.unwrap();
    assert!(matches!(open(&database).await, Err(StoreError::TooNew { found: 2, known: 1 })));
    beside
        .batch_execute("DELETE FROM rw_schema WHERE version = 2; UPDATE rw_schema SET checksum = 1")
        .await
        .unwrap();
    assert!(matches!(open(&database).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_migrated_once_by_ten_servers_at_the_same_time() {
    let database = Database::create().await;
    let opened = futures_util::future::join_all((0..10).map(|_| open(&database))).await;
    assert!(opened.iter().all(Result::is_ok), "{:?}", opened.into_iter().find_map(Result::err));
}

/// Connections break in the middle of everything: what was answered is there, what was not is there or
/// not, and no transaction stays open.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_connections_may_break_at_any_moment() {
    let database = Database::create().await;
    let store: Stored = Arc::new(open(&database).await.unwrap());
    store.open_space(&space()).await.unwrap();
    let beside = database.connect().await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            let mut answered = Vec::new();
            for n in 0..150 {
                let name = key(&format!("r{n}"));
                let keys = Keys { records: [name.clone()].into(), ..Keys::default() };
                match store.transact(&space(), NOW, keys, puts(vec![(name.clone(), doc("{}"))])).await {
                    Ok(_) => answered.push(name),
                    Err(StoreError::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            answered
        }
    });
    const BREAK: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while !writing.is_finished() {
        beside.query(BREAK, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let answered = writing.await.unwrap();
    assert!(answered.len() > 100, "it goes on after each break: {}", answered.len());
    let there = store.records(&space(), &answered).await.unwrap();
    assert_eq!(there.len(), answered.len(), "what was answered is there");
    assert_eq!(store.audit().await.unwrap().faults, Vec::<String>::new());
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity
      WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(beside.query_one(OPEN, &[]).await.unwrap().get::<_, i64>(0), 0, "a transaction stayed open");
}

/// A copy of the data in another database may lack what was acknowledged in the first: it is another epoch,
/// whoever looks first, and the first goes on as it was.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_data_in_another_place_begins_an_epoch() {
    let first = Database::create().await;
    let store = open(&first).await.unwrap();
    let was = store.open_space(&space()).await.unwrap();
    drop(store);
    let copy = first.copy().await;
    let reopened = async |database: &Database, seed: &str| {
        let options = PostgresOptions::new(database.url(), Epoch::trusted(seed), NOW);
        let store = PostgresStore::open(options).await.unwrap();
        (store.space(&space()).await.unwrap(), store.gaps(&space()).await.unwrap().len())
    };
    assert_eq!(reopened(&first, "two").await, (was.clone(), 0), "nothing is new in the first");
    let (now_is, gaps) = reopened(&copy, "three").await;
    assert!(now_is.epoch.starts_with("three.") && now_is.epoch != was.epoch, "{now_is:?}");
    assert_eq!(gaps, 1);
    assert_eq!(reopened(&copy, "four").await, (now_is, 1), "and is gone on with");
}

/// A decision that waits for the space's lock behind a server that begins an epoch is made in the new one.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_decisions_that_waited_behind_a_new_epoch_know_it() {
    let database = Database::create().await;
    let store: Stored = Arc::new(open(&database).await.unwrap());
    let head = store.open_space(&space()).await.unwrap().head.0;
    let (begins, beside) = (database.connect().await, database.connect().await);
    begins.batch_execute("BEGIN; SELECT FROM rw_spaces FOR UPDATE").await.unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let deciding = tokio::spawn({
        let store = store.clone();
        async move {
            let decide = Box::new(move |snapshot: &Snapshot| {
                tell.send((snapshot.epoch.clone(), snapshot.head)).unwrap();
                Decision::Plan(Box::new(Plan { head: snapshot.head, ..Plan::default() }))
            });
            store.transact(&space(), NOW, Keys::default(), decide).await.unwrap();
        }
    });
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while beside.query_one(WAITS, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = "UPDATE rw_spaces SET head = head + 7; UPDATE rw_meta SET value = 'two' WHERE name = '@epoch'; COMMIT";
    begins.batch_execute(begin).await.unwrap();
    deciding.await.unwrap();
    assert_eq!(told.recv().unwrap(), (Epoch::trusted("two"), Stamp(head + 7)));
}

/// Of statements that are on their way together one fails, and the others only echo it: what is done about it
/// follows the cause.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_transactions_that_met_others_are_run_again_whatever_their_statements_say() {
    const MEET: &str = "CREATE TABLE met (n int); INSERT INTO met VALUES (0);
      CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('meetings') % 3 <> 0 THEN RAISE EXCEPTION 'met' USING ERRCODE = '40001'; END IF;
        RETURN NULL; END $$;
      CREATE SEQUENCE meetings;
      CREATE TRIGGER met AFTER INSERT ON rw_records FOR EACH STATEMENT EXECUTE FUNCTION meet()";
    let database = Database::create().await;
    let store: Stored = Arc::new(open(&database).await.unwrap());
    store.open_space(&space()).await.unwrap();
    database.connect().await.batch_execute(MEET).await.unwrap();
    for n in 0..20 {
        let name = key(&format!("r{n}"));
        put_all(&store, &space(), vec![(name, doc("{}"))]).await;
    }
    assert_eq!(store.audit().await.unwrap().faults, Vec::<String>::new());
    assert_eq!(store.space(&space()).await.unwrap().digest.count, 20);
}

/// What one server commits another hears, without looking.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_tells_the_other_servers_of_a_node() {
    let database = Database::create().await;
    let [one, other] = [open(&database).await.unwrap(), open(&database).await.unwrap()];
    let (tells, hears) = (one.news().unwrap(), other.news().unwrap());
    let mut heard = hears.hear();
    // Told again until the other listens: news may be lost, and nobody is told when it is heard.
    for head in 1.. {
        tells.clone().tell(&space(), Stamp(head));
        let next = tokio::time::timeout(Duration::from_millis(100), heard.recv()).await;
        if let Ok(next) = next {
            let (of, at) = next.unwrap();
            assert_eq!((of, at <= Stamp(head)), (space(), true));
            return;
        }
        assert!(head < 100, "nothing was heard");
    }
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
mismatch = "status"
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
status = "text"
description = "text"
clip = "object"
created_at = "datetime"
"#;

/// The three queries of docs/postgresql.md, and the views of the engine's own tables.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_collections_have_typed_views() {
    let database = Database::create().await;
    let store: Stored = Arc::new(open(&database).await.unwrap());
    store.open_space(&space()).await.unwrap();
    let profile = |text: &str| ropeway_core::profile::parse(text, "sample.toml").unwrap();
    store.install_views(&profile(PROFILE)).await.unwrap();
    let rows = [
        ("race/final", r#"{"name":"Final"}"#),
        ("race/same", r#"{"name":"Final!"}"#),
        (
            "incident/i1",
            r#"{"bib_number":7,"clip":{"s":1},"created_at":"2026-02-14T10:41:29Z","official":true,"race":"same","status":"official"}"#,
        ),
        ("incident/i2", r#"{"bib_number":"seven","created_at":"soon","description":"it's","race":"final"}"#),
    ];
    put_all(&store, &space(), rows.map(|(k, d)| (key(k), doc(d))).into()).await;
    transact(&store, &["race/same"], |snapshot| {
        let mut draft = Draft::over(snapshot);
        draft.join(&key("race/same"), "final").done()
    })
    .await;
    let beside = database.connect().await;
    let queries =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/postgresql.md")).unwrap();
    let queries: Vec<&str> =
        queries.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(queries.len(), 3);
    let rows = beside.query(queries[0], &[]).await.unwrap();
    let of =
        |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
    assert_eq!(
        rows.iter().map(of).collect::<Vec<_>>(),
        [("Final".into(), 2, 1)],
        "a joined race is resolved"
    );
    let rows = beside.query(queries[1], &[]).await.unwrap();
    let bibs: Vec<Option<i64>> = rows.iter().map(|row| row.get("bib_number")).collect();
    assert_eq!(bibs, [Some(7)], "what is no number is null and breaks no query");
    assert_eq!(beside.query(queries[2], &[]).await.unwrap().len(), 0);
    for view in ["devices", "sync_queue", "sync_conflicts", "incident", "races"] {
        beside.query(&format!("SELECT * FROM {view}"), &[]).await.unwrap();
    }
    // Another profile replaces them; the same one again changes nothing.
    let noted = "SELECT oid FROM pg_class WHERE relname = 'incidents'";
    let before: Option<u32> = beside.query_opt(noted, &[]).await.unwrap().map(|row| row.get(0));
    store.install_views(&profile(PROFILE)).await.unwrap();
    assert_eq!(beside.query_opt(noted, &[]).await.unwrap().map(|row| row.get(0)), before);
    store.install_views(&profile(&PROFILE.replace("\"incidents\"", "\"events\""))).await.unwrap();
    assert!(beside.query_opt(noted, &[]).await.unwrap().is_none());
    assert_eq!(beside.query("SELECT bib_number FROM events", &[]).await.unwrap().len(), 2);
}

/// The space comes first in every key, so that it can be the key of a distributed engine; and nothing in the
/// database is there that other engines do not have.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_keys_begin_with_the_space_and_nothing_counts_by_itself() {
    const OTHER_KEYS: &str = "SELECT c.relname::text, a.attname::text FROM pg_index i
      JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname <> 'space'
      WHERE EXISTS (SELECT 1 FROM pg_attribute s WHERE s.attrelid = c.oid AND s.attname = 'space') ORDER BY 1";
    const OWN: &str = "SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'S'
        AND relnamespace = 'public'::regnamespace)
      + (SELECT count(*) FROM pg_trigger) + (SELECT count(*) FROM pg_constraint WHERE contype = 'f')
      + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)";
    let database = Database::create().await;
    let store = open(&database).await.unwrap();
    store.open_space(&space()).await.unwrap();
    store.install_views(&ropeway_core::profile::parse(PROFILE, "sample.toml").unwrap()).await.unwrap();
    let beside = database.connect().await;
    let keys = beside.query(OTHER_KEYS, &[]).await.unwrap();
    let keys: Vec<(&str, &str)> = keys.iter().map(|row| (row.get(0), row.get(1))).collect();
    // Found before it is known in which space they are.
    assert_eq!(keys, [("rw_devices", "token_hash"), ("rw_members", "email")]);
    assert_eq!(
        beside.query_one(OWN, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "a sequence, trigger or function"
    );
}

/// Plans are made when the tables are empty, and nothing analyses them meanwhile: a lookup by key still reads the
/// rows that it is for, and not the whole space.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_reads_what_is_asked_for_before_anything_was_analysed() {
    const TABLES: &str =
        "SELECT string_agg(format('ALTER TABLE %I SET (autovacuum_enabled = false)', relname), ';')
      FROM pg_class WHERE relname LIKE 'rw\\_%' AND relkind = 'r'";
    const END: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'ropeway'";
    const READ: &str = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables
      WHERE relname IN ('rw_records', 'rw_history', 'rw_receipts', 'rw_outbox', 'rw_links', 'rw_fingerprints')";
    let database = Database::create().await;
    let store: Stored = Arc::new(open(&database).await.unwrap());
    let beside = database.connect().await;
    let tables: String = beside.query_one(TABLES, &[]).await.unwrap().get(0);
    beside.batch_execute(&tables).await.unwrap();
    store.open_space(&space()).await.unwrap();
    put(&store, "note/first", "{}").await;
    put(&store, "note/first", r#"{"n":1}"#).await;
    let rows = (0..1_000).map(|n| (key(&format!("note/r{n}")), doc("{}"))).collect();
    put_all(&store, &space(), rows).await;
    for n in 0..100 {
        put(&store, &format!("note/r{n}"), r#"{"n":2}"#).await;
    }
    beside.query(END, &[]).await.unwrap();
    let read: i64 = beside.query_one(READ, &[]).await.unwrap().get(0);
    assert!((100..1_000).contains(&read), "102 rows were looked up and changed, and {read} were read");
}

/// SQL that any PostgreSQL-compatible engine runs: nothing of what they lack stands in a statement.
#[test]
fn postgres_sql_is_portable() {
    let forbidden = [
        "nextval",
        " serial",
        "bigserial",
        "xmin",
        "trigger",
        "plpgsql",
        "pg_advisory",
        "savepoint",
        "create temp",
        "temporary table",
        "create function",
        "generated always",
        "references rw_",
        "lock table",
        "deferrable",
        "listen ",
        "setval",
    ];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/postgres");
    let mut looked = 0;
    for file in fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let code: String =
            text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        // News are hints beside the core path, and the only place that listens.
        let is_hint = path.file_name().is_some_and(|name| name == "news.rs");
        // Nothing goes on beside a restore.
        let is_alone = path.file_name().is_some_and(|name| name == "transfer.rs");
        let may = |word: &str| (is_hint && word == "listen ") || (is_alone && word == "lock table");
        for word in forbidden.into_iter().filter(|word| !may(word)) {
            assert!(!code.contains(word), "{} uses `{word}`", path.display());
        }
        looked += 1;
    }
    assert!(looked > 10, "only {looked} files were looked at");
}
