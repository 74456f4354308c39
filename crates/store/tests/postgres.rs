//! What is PostgreSQL's own: the server, the connections, and SQL that other engines understand too.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use ropeway_core::{id::Epoch, plan::Keys};
use ropeway_store::{PostgresOptions, PostgresStore, StoreError, Stored, conformance::hand::*};
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

/// DESIGN §5: SQL that any PostgreSQL-compatible engine runs.
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
        for word in forbidden {
            assert!(!code.contains(word), "{} uses `{word}`", path.display());
        }
        looked += 1;
    }
    assert!(looked > 10, "only {looked} files were looked at");
}
