//! Backup files as they come back from sticks and mails: cut, flipped, foreign, newer; and databases that
//! are in use, damaged or not there when one is restored.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use ropeway_core::{id::Epoch, plan::Keys, time::Time};
use ropeway_store::{
    BackupError, Manifest, Options, Present, SqliteStore, Store, Stored, Unpacked,
    conformance::hand::{NOW, doc, key, put_all, puts, space},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;

fn open(path: &Path) -> Stored {
    Arc::new(SqliteStore::open(path, Options::new(Epoch::trusted("one"), NOW)).unwrap())
}

fn take(database: &Path, file: &Path) -> Manifest {
    SqliteStore::backup(database, file, false, NOW, &|_, _| {}).unwrap()
}

/// A database with some records, open, and a backup of it.
async fn place(records: usize) -> (TempDir, PathBuf, PathBuf, Stored) {
    let dir = tempfile::tempdir().unwrap();
    let (database, file) = (dir.path().join("node.db"), dir.path().join("backup"));
    let store = open(&database);
    store.open_space(&space()).await.unwrap();
    let rows = (0..records).map(|i| (key(&format!("r{i}")), doc(r#"{"note":"as it was"}"#))).collect();
    put_all(&store, &space(), rows).await;
    take(&database, &file);
    (dir, database, file, store)
}

fn refused(file: &Path) -> BackupError {
    SqliteStore::verify(file).unwrap_err()
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_is_refused() {
    let (dir, _, file, _store) = place(40).await;
    let whole = fs::read(&file).unwrap();
    let changed = dir.path().join("changed");
    let near_the_end = whole.len() - 400..whole.len();
    let places: Vec<usize> = (0..whole.len()).step_by(997).chain(near_the_end).collect();
    for at in &places {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1;
        fs::write(&changed, &bytes).unwrap();
        let is_told = match refused(&changed) {
            BackupError::Damaged { what, .. } => what.iter().all(|w| w.contains("checksum")),
            // The footer's own first bytes: what it is cannot be seen any more.
            BackupError::Short { .. } => *at + 64 >= whole.len() && *at + 49 <= whole.len(),
            BackupError::TooNew { .. } => whole.len() - at == 49,
            _ => false,
        };
        assert!(is_told, "byte {at} of {}: {}", whole.len(), refused(&changed));
    }
    for at in places {
        fs::write(&changed, &whole[..at]).unwrap();
        let told = refused(&changed);
        let is_told = match &told {
            BackupError::Short { .. } => true,
            BackupError::Foreign { what, .. } => at == 0 && what.contains("empty") || what.contains("-wal"),
            _ => false,
        };
        assert!(is_told, "cut at {at}: {told}");
    }
    assert_eq!(SqliteStore::verify(&file).unwrap().spaces[0].records, 40);
}

#[tokio::test]
async fn foreign_newer_and_lying_files_each_get_their_own_answer() {
    let (dir, database, file, store) = place(3).await;
    let other = dir.path().join("other");
    fs::write(&other, "PRIVATE LETTER ".repeat(50)).unwrap();
    assert!(refused(&other).to_string().contains("does not begin like one"));
    fs::remove_file(&other).unwrap();
    let strange = rusqlite::Connection::open(&other).unwrap();
    strange.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    assert!(refused(&other).to_string().contains("another program"));
    drop(store);
    assert!(refused(&database).to_string().contains("it is a database, not a backup"));
    assert!(matches!(refused(&dir.path().join("nowhere")), BackupError::Io { .. }));

    let rewrite = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(&file).unwrap();
        bytes.truncate(bytes.len() - 32);
        change(&mut bytes);
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        fs::write(&other, bytes).unwrap();
    };
    let replaced = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.windows(from.len()).rposition(|w| w == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    };
    rewrite(&replaced("\"schema\":1", "\"schema\":9"));
    assert!(refused(&other).to_string().contains("version 9, this program knows 1"));
    rewrite(&|bytes| {
        let at = bytes.len() - 17;
        bytes[at] = 2;
    });
    assert!(refused(&other).to_string().contains("its layout is version 2"));
    // The checksum fits, the records do not: whoever wrote this had a bad memory, or was up to something.
    rewrite(&replaced("\"records\":3", "\"records\":4"));
    assert!(refused(&other).to_string().contains("does not hold what its manifest says"));
    rewrite(&|bytes| {
        let at = bytes.windows(9).position(|w| w == b"as it was").unwrap();
        bytes[at..at + 9].copy_from_slice(b"otherwise");
    });
    assert!(refused(&other).to_string().contains("its digest is"));
}

/// Somebody writes without a pause; the copy is of one moment, the writer is never blocked for long, and
/// whatever was there under the name stays until it is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_a_busy_writer_is_of_one_moment() {
    let (dir, database, file, store) = place(5_000).await;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (seen, count) = (stop.clone(), written.clone());
    let writer = tokio::spawn(async move {
        while !seen.load(Ordering::Relaxed) {
            // Two records that always agree, so that half a transaction would show.
            let n = count.fetch_add(1, Ordering::Relaxed);
            let rows = ["left", "right"].map(|side| (key(side), doc(&format!(r#"{{"n":{n}}}"#)))).to_vec();
            let keys = Keys { records: rows.iter().map(|(k, _)| k.clone()).collect(), ..Keys::default() };
            store.transact(&space(), NOW, keys, puts(rows)).await.unwrap();
        }
    });
    while written.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    let occupied = SqliteStore::backup(&database, &file, false, NOW, &|_, _| {}).unwrap_err();
    assert!(matches!(occupied, BackupError::Exists(_)));
    for round in 0..5 {
        let (database, other) = (database.clone(), dir.path().join(format!("busy-{round}")));
        let counted = written.clone();
        let before = written.load(Ordering::Relaxed);
        let during = tokio::task::spawn_blocking(move || {
            let wrote = AtomicU64::new(0);
            SqliteStore::backup(&database, &other, true, NOW, &|_, _| {
                // The writer gets on between two steps of the copy.
                let now = counted.load(Ordering::Relaxed);
                while counted.load(Ordering::Relaxed) < now + 2 {
                    std::thread::yield_now();
                }
                wrote.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            let unpacked = Unpacked::new(&other, &other.with_extension("db")).unwrap();
            (wrote.into_inner(), unpacked.open(NOW).unwrap())
        });
        let (steps, copy) = during.await.unwrap();
        assert!(steps > 0 && written.load(Ordering::Relaxed) >= before + 2 * steps);
        let sides = copy.records(&space(), &[key("left"), key("right")]).await.unwrap();
        assert_eq!(sides[0].1.data, sides[1].1.data);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert!(
        fs::read_dir(dir.path()).unwrap().all(|f| !f.unwrap().file_name().to_str().unwrap().contains("part"))
    );
}

#[tokio::test]
async fn a_database_that_is_open_is_not_replaced_and_one_that_is_damaged_is_kept() {
    let (dir, database, file, store) = place(30).await;
    assert!(matches!(Unpacked::new(&file, &database), Err(BackupError::InUse(_))));
    put_all(&store, &space(), vec![(key("newer"), doc("{}"))]).await;
    drop(store);
    {
        let unpacked = Unpacked::new(&file, &database).unwrap();
        let Present::Database(_, newer) = unpacked.present() else { panic!("{:?}", unpacked.present()) };
        assert_eq!(newer, &[(space(), 1)]);
        let opens = SqliteStore::open(&database, Options::new(Epoch::trusted("x"), NOW));
        assert!(opens.is_err_and(|e| e.is_transient()), "nobody opens it while it is being replaced");
    }
    assert_eq!(
        open(&database).records(&space(), &[key("newer")]).await.unwrap().len(),
        1,
        "nothing was done"
    );

    let names = || -> Vec<String> {
        let all = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        all.filter(|name| name.contains("before-restore") || name.contains("restoring")).collect()
    };
    assert_eq!(names(), Vec::<String>::new());
    let unpacked = Unpacked::new(&file, &database).unwrap();
    let fresh = unpacked.open(NOW).unwrap();
    let kept = unpacked.put_in_place(fresh, Time(NOW.0 + 1)).unwrap().unwrap();
    assert_eq!(open(&kept).records(&space(), &[key("newer")]).await.unwrap().len(), 1);
    assert_eq!(open(&database).records(&space(), &[key("newer")]).await.unwrap().len(), 0);

    let mut torn = fs::read(&database).unwrap();
    let middle = torn.len() / 2;
    torn[..middle].fill(7);
    fs::write(&database, &torn).unwrap();
    fs::write(database.with_extension("db-wal"), "the end of a log").unwrap();
    let unpacked = Unpacked::new(&file, &database).unwrap();
    assert!(matches!(unpacked.present(), Present::Unreadable(_)));
    let fresh = unpacked.open(NOW).unwrap();
    let kept = unpacked.put_in_place(fresh, Time(NOW.0 + 2)).unwrap().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), torn, "what cannot be read is kept as it is");
    assert_eq!(fs::read(format!("{}-wal", kept.display())).unwrap(), b"the end of a log");
    assert_eq!(open(&database).audit().await.unwrap().spaces[0].records, 30);
}
