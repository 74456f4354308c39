//! Runs every promise of `conformance` on every store of this crate.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use async_trait::async_trait;
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
    async fn image(&self, now: Time) -> On {
        let aside = TempDir::new().unwrap();
        let file = aside.path().join("backup");
        let from = PostgresOptions::new(self.0.get().unwrap().url(), Epoch::trusted("another"), Time(5));
        let from = PostgresStore::open(from).await.unwrap();
        from.backup(file.clone(), false, now, Arc::new(|_, _| {})).await.unwrap();
        let copy = Self(tokio::sync::OnceCell::from(Database::create().await));
        let to = PostgresOptions::new(copy.0.get().unwrap().url(), Epoch::trusted("copy"), Time(5));
        let to = PostgresStore::open(to).await.unwrap();
        let unpacked = Unpacked::aside(&file, &aside.path().join("fresh")).unwrap();
        let store = unpacked.open(now).unwrap();
        let alone = to.alone().await.unwrap();
        to.restore(unpacked, store, alone, false, Arc::new(|_, _| {})).await.unwrap();
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
