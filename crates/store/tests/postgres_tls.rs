//! TLS to a real server with certificates made for it: who is believed, and that nothing else goes through.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

#[path = "../../protocol/tests/certs/mod.rs"]
mod certs;
#[path = "../../../xtask/src/cluster.rs"]
mod cluster;
mod server;

use certs::{Authority, Certificate, self_signed};
use cluster::Cluster;
use ropeway_core::id::Epoch;
use ropeway_store::{PostgresOptions, PostgresStore, Store, StoreError, conformance::hand::*};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

async fn open(url: String) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(PostgresOptions::new(url, Epoch::trusted("one"), NOW)).await
}

async fn why(url: String) -> String {
    match open(url).await {
        Ok(_) => panic!("it was opened"),
        Err(StoreError::Unavailable { what, .. }) => what,
        Err(error) => panic!("{error}"),
    }
}

/// A server of this test's own, since it changes how it is reached.
struct Guarded(Cluster);

impl Guarded {
    async fn admin(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&format!("{}/postgres", self.0.url), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Makes it show a certificate to whoever connects from now on.
    async fn shows(&self, name: &str, certificate: &Certificate) {
        let admin = self.admin().await;
        for (text, file) in [(&certificate.cert, "crt"), (&certificate.key, "key")] {
            let lines = format!("SELECT unnest(string_to_array(trim($pem${text}$pem$, E'\\n'), E'\\n'))");
            let write = format!("COPY ({lines}) TO PROGRAM 'umask 077; cat > {name}.{file}'");
            admin.batch_execute(&write).await.unwrap();
        }
        for set in [
            format!("ssl_cert_file = '{name}.crt'"),
            format!("ssl_key_file = '{name}.key'"),
            "ssl = on".into(),
        ] {
            admin.batch_execute(&format!("ALTER SYSTEM SET {set}")).await.unwrap();
        }
        self.reload(&format!("{name}.crt")).await;
    }

    async fn reload(&self, certificate: &str) {
        self.admin().await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        loop {
            let is = self.admin().await.query_one("SHOW ssl_cert_file", &[]).await.unwrap();
            if is.get::<_, &str>(0) == certificate {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its address, with what is said about TLS.
    fn url(&self, said: &str) -> String {
        format!("{}/guarded?{said}", self.0.url)
    }
}

fn written(dir: &Path, name: &str, pem: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, pem).unwrap();
    format!("sslrootcert={}", file.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_believed_by_its_certificate() {
    let dir = TempDir::new().unwrap();
    let guarded = Guarded(Cluster::start().unwrap());
    guarded.admin().await.batch_execute("CREATE DATABASE guarded").await.unwrap();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let ours = written(dir.path(), "our ca.pem", &authority.cert).replace(' ', "%20");
    let theirs = written(dir.path(), "theirs.pem", &stranger.cert);
    let no_tls = why(guarded.url("sslmode=require")).await;
    assert!(no_tls.contains("does not speak TLS") && no_tls.contains("sslmode=disable"), "{no_tls}");
    drop(open(guarded.url("sslmode=prefer")).await.unwrap());

    guarded.shows("good", &authority.sign(&["localhost", "127.0.0.1"])).await;
    for said in ["sslmode=require", "sslmode=prefer", &format!("sslmode=verify-ca&{ours}")] {
        drop(open(guarded.url(said)).await.unwrap_or_else(|e| panic!("{said}: {e}")));
    }
    let signed_by_none = "nobody who is believed has signed";
    for (said, expected) in [
        (format!("sslmode=verify-full&{theirs}"), signed_by_none),
        (format!("sslmode=verify-ca&{theirs}"), signed_by_none),
        (format!("sslmode=require&{theirs}"), signed_by_none),
        ("sslmode=verify-full".into(), signed_by_none),
        (
            "sslmode=verify-full&sslrootcert=/nowhere/ca.pem".into(),
            "sslrootcert /nowhere/ca.pem: No such file",
        ),
    ] {
        let told = why(guarded.url(&said)).await;
        assert!(told.contains(expected), "{said}: {told}");
    }
    drop(
        open(guarded.url(&format!("sslmode=verify-full&{ours}")).replace("127.0.0.1", "localhost"))
            .await
            .unwrap(),
    );

    guarded.shows("elsewhere", &authority.sign(&["db.example"])).await;
    let told = why(guarded.url(&format!("sslmode=verify-full&{ours}"))).await;
    assert!(told.contains("db.example") && told.contains("not for 127.0.0.1"), "{told}");
    drop(open(guarded.url(&format!("sslmode=verify-ca&{ours}"))).await.unwrap());

    // One that signed itself, as the usual tools make it, and as others do.
    for (name, is_ca) in [("self-ca", true), ("self", false)] {
        let own = self_signed(&["127.0.0.1"], 2080, is_ca);
        guarded.shows(name, &own).await;
        let named = written(dir.path(), name, &own.cert);
        drop(open(guarded.url(&format!("sslmode=verify-full&{named}"))).await.unwrap());
        assert!(why(guarded.url(&format!("sslmode=verify-full&{ours}"))).await.contains("certificate"));
    }
}

/// Every connection of a node is safe, the one that hears the news too; and a password is bound to it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_connections_are_all_encrypted_and_a_wrong_password_is_told_without_it() {
    let dir = TempDir::new().unwrap();
    let guarded = Guarded(Cluster::start().unwrap());
    let authority = Authority::new("ours");
    let ours = written(dir.path(), "ca.pem", &authority.cert);
    guarded.shows("good", &authority.sign(&["127.0.0.1"])).await;
    let admin = guarded.admin().await;
    for sql in [
        "CREATE ROLE ropeway LOGIN PASSWORD 'the-right-one'",
        "CREATE DATABASE guarded OWNER ropeway",
        "COPY (VALUES ('host all postgres 127.0.0.1/32 trust'), ('hostssl all ropeway 127.0.0.1/32 scram-sha-256'))
          TO PROGRAM 'cat > pg_hba.conf'",
        "SELECT pg_reload_conf()",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let said = format!("sslmode=verify-full&{ours}&channel_binding=require");
    let with =
        |password: &str, said: &str| guarded.url(said).replace("postgres@", &format!("ropeway:{password}@"));
    // The rules hold once the server has read them.
    let plain = with("the-right-one", "sslmode=disable");
    while tokio_postgres::connect(&plain, NoTls).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = open(with("the-right-one", &said)).await.unwrap();
    store.open_space(&space()).await.unwrap();
    let _heard = store.news().unwrap().hear();
    let admin = guarded.admin().await;
    const SAFE: &str = "SELECT count(*) FILTER (WHERE s.ssl), count(*) FILTER (WHERE NOT s.ssl),
      count(*) FILTER (WHERE a.query LIKE 'LISTEN%') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
      WHERE a.application_name = 'ropeway'";
    for look in 0.. {
        assert!(look < 1_000, "the news are never heard");
        let row = admin.query_one(SAFE, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(1), 0, "a connection is in plain text");
        if row.get::<_, i64>(2) == 1 {
            assert!(row.get::<_, i64>(0) >= 2);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = why(with("the-wrong-one", &said)).await;
    assert!(told.contains("user or password is not accepted") && !told.contains("the-wrong-one"), "{told}");
    let told = why(plain).await;
    assert!(told.contains("user or password is not accepted") && !told.contains("the-right"), "{told}");
}
