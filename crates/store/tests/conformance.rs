//! Runs every promise of `conformance` on every store of this crate.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use libtest_mimic::{Arguments, Trial};
use ropeway_core::{id::Epoch, time::Time};
use ropeway_store::{
    MemoryStore, Options, PostgresOptions, PostgresStore, SqliteStore, Stored, Unpacked,
    conformance::{Case, On, Place, cases},
};
use server::Database;
use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
};
use tempfile::TempDir;

struct Memory(OnceLock<Arc<MemoryStore>>);

impl Memory {
    fn store(&self, follows: bool) -> Stored {
        self.0.get_or_init(|| Arc::new(MemoryStore::new(Epoch::trusted("one"), follows))).clone()
    }
}

#[async_trait]
impl Place for Memory {
    async fn open(&self) -> Stored {
        self.store(false)
    }
    async fn open_following(&self) -> Stored {
        self.store(true)
    }
    async fn image(&self, _now: Time) -> On {
        Box::new(Self(OnceLock::from(Arc::new(self.0.get().unwrap().image()))))
    }
}

struct Sqlite(TempDir);

impl Sqlite {
    fn store(&self, epoch: &str, follows: bool) -> Stored {
        let options = Options::new(Epoch::trusted(epoch), Time(5)).following(follows);
        Arc::new(SqliteStore::open(self.0.path().join("node.db"), options).unwrap())
    }
}

#[async_trait]
impl Place for Sqlite {
    async fn open(&self) -> Stored {
        self.store("one", false)
    }
    async fn open_following(&self) -> Stored {
        // Only the first epoch counts, so any other may be offered later.
        let epoch = if self.0.path().join("node.db").exists() { "another" } else { "one" };
        self.store(epoch, true)
    }
    async fn image(&self, now: Time) -> On {
        let (database, file) = (self.0.path().join("node.db"), self.0.path().join("backup"));
        let elsewhere = TempDir::new().unwrap();
        SqliteStore::backup(&database, &file, false, now, &|_, _| {}).unwrap();
        let unpacked = Unpacked::new(&file, &elsewhere.path().join("node.db")).unwrap();
        let store = unpacked.open(now).unwrap();
        unpacked.put_in_place(store, now).unwrap();
        Box::new(Self(elsewhere))
    }
}

/// A database of its own on a real server.
struct Postgres(tokio::sync::OnceCell<Database>);

impl Postgres {
    async fn store(&self, epoch: &str, follows: bool) -> Stored {
        let url = self.0.get_or_init(Database::create).await.url();
        let options = PostgresOptions::new(url, Epoch::trusted(epoch), Time(5)).following(follows);
        Arc::new(PostgresStore::open(options).await.unwrap())
    }
}

#[async_trait]
impl Place for Postgres {
    async fn open(&self) -> Stored {
        self.store("one", false).await
    }
    async fn open_following(&self) -> Stored {
        // Only the first epoch counts, so any other may be offered later.
        let epoch = if self.0.initialized() { "another" } else { "one" };
        self.store(epoch, true).await
    }
    async fn image(&self, _now: Time) -> On {
        let copy = Self(tokio::sync::OnceCell::new());
        drop(copy.store("copy", false).await);
        let (from, to) = (self.0.get().unwrap().connect().await, copy.0.get().unwrap().connect().await);
        let tables =
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'rw_schema'";
        for row in from.query(tables, &[]).await.unwrap() {
            let table: &str = row.get(0);
            to.batch_execute(&format!("DELETE FROM {table}")).await.unwrap();
            let mut out = Box::pin(from.copy_out(&format!("COPY {table} TO STDOUT")).await.unwrap());
            let mut into = Box::pin(to.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap());
            while let Some(piece) = out.next().await {
                into.send(piece.unwrap()).await.unwrap();
            }
            into.close().await.unwrap();
        }
        // An image by other means than a restore: which database it is in is noted anew.
        to.batch_execute("DELETE FROM rw_meta WHERE name = '@lineage'").await.unwrap();
        Box::new(copy)
    }
}

fn trial(store: &str, case: Case, place: fn() -> On) -> Trial {
    Trial::test(format!("{store}::{}", case.name), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        runtime.block_on((case.run)(place()));
        Ok(())
    })
}

/// The cases that let a decision panic say so in the panic: nobody needs to see those.
fn hush_wanted_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("a bug in a decision") {
            loud(info);
        }
    }));
}

fn main() -> ExitCode {
    hush_wanted_panics();
    let mut trials = Vec::new();
    for case in cases() {
        trials.push(trial("memory", case, || Box::new(Memory(OnceLock::new()))));
        trials.push(trial("sqlite", case, || Box::new(Sqlite(TempDir::new().unwrap()))));
        trials.push(trial("postgres", case, || Box::new(Postgres(tokio::sync::OnceCell::new()))));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
