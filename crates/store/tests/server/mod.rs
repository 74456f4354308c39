//! Databases on the PostgreSQL server that `cargo xtask test` starts, one for each test.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_postgres::{Client, Config, NoTls};

/// How many databases this process has made.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A database that is gone with this value.
pub struct Database {
    pub name: String,
}

impl Database {
    /// An empty one.
    pub async fn create() -> Self {
        let name = format!("ropeway_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let admin = connect("postgres").await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { name }
    }

    /// An empty one, for tests that are not async.
    pub fn make() -> Self {
        alone(Self::create())
    }

    /// Another one with all that is in it; nobody may have it open.
    pub async fn copy(&self) -> Self {
        let copy = Self { name: format!("{}_copy", self.name) };
        let admin = connect("postgres").await;
        const BUSY: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        admin.query(BUSY, &[&self.name]).await.unwrap();
        let made = format!("CREATE DATABASE {} TEMPLATE {}", copy.name, self.name);
        admin.batch_execute(&made).await.unwrap();
        copy
    }

    /// Tells the server something about it, for `{}` its name, and ends every session in it.
    pub fn order(&self, order: &str) {
        let (name, order) = (self.name.clone(), order.replace("{}", &self.name));
        alone(async move {
            let admin = connect("postgres").await;
            admin.batch_execute(&order).await.unwrap();
            const BUSY: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
            admin.query(BUSY, &[&name]).await.unwrap();
        });
    }

    /// How a store names it.
    pub fn url(&self) -> String {
        format!("{}/{}", server(), self.name)
    }

    /// A connection beside the store's own.
    pub async fn connect(&self) -> Client {
        connect(&self.name).await
    }
}

impl Drop for Database {
    /// Leaves nothing behind where the server outlives the tests.
    fn drop(&mut self) {
        let name = self.name.clone();
        alone(async move {
            let admin = connect("postgres").await;
            let _ = admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        });
    }
}

/// Runs something to its end on a thread of its own, whatever runs on this one.
pub fn alone<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let running = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    });
    running.join().unwrap()
}

/// Where the server is, if there is one.
#[allow(clippy::disallowed_methods, reason = "the one who starts the server says so in the environment")]
pub fn found() -> Option<String> {
    std::env::var("ROPEWAY_TEST_POSTGRES").ok()
}

/// Where the server is.
pub fn server() -> String {
    found().expect(
        "ROPEWAY_TEST_POSTGRES names no PostgreSQL server: run `cargo xtask test`, which starts one, or keep one \
         with `cargo xtask pg` and set what it prints, or type `--skip postgres`",
    )
}

async fn connect(database: &str) -> Client {
    let mut config: Config = server().parse().unwrap();
    config.dbname(database);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
