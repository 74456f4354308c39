//! `kill -9` while writing: every acknowledged row is there afterwards (I3).

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]
#![allow(clippy::print_stdout, reason = "the child speaks through its output, the test to people")]

use ropeway_core::{
    id::{Epoch, Key},
    plan::Keys,
    time::Stamp,
};
use ropeway_store::{Options, SqliteStore, Stored, conformance::hand::*};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

const ROUNDS: u64 = 10;

fn open(path: &Path) -> Stored {
    Arc::new(SqliteStore::open(path, Options::new(Epoch::trusted("one"), NOW)).unwrap())
}

/// The child: three tasks that write and say what was acknowledged, until the process is killed.
#[tokio::main]
async fn write_until_killed(path: &Path, round: &str) {
    let store = open(path);
    store.open_space(&space()).await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..3 {
        let (store, round) = (store.clone(), round.to_owned());
        tasks.push(tokio::spawn(async move {
            for i in 0.. {
                let names = [format!("k{round}-{task}-{i}a"), format!("k{round}-{task}-{i}b")];
                let rows: Vec<Key> = names.iter().map(|n| key(n)).collect();
                let keys = Keys { records: rows.iter().cloned().collect(), ..Keys::default() };
                let decide = puts(rows.iter().map(|k| (k.clone(), doc("{}"))).collect());
                store.transact(&space(), NOW, keys, decide).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}\n{}", names[0], names[1]).unwrap();
                out.flush().unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::main]
async fn kill_and_look(program: &Path) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.db");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(program)
            .args(["write-until-killed", path.to_str().unwrap(), &round.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reading = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(60 + round * 137 % 300)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reading.join().unwrap());
        let store = open(&path);
        store.open_space(&space()).await.unwrap();
        let (rows, _) = read_on(&*store, &space(), Stamp(0), 1_000).await;
        let there: BTreeSet<String> = rows.iter().map(|r| r.key.id.to_string()).collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        for name in &there {
            let twin = match name.strip_suffix('a') {
                Some(stem) => format!("{stem}b"),
                None => format!("{}a", name.trim_end_matches('b')),
            };
            assert!(there.contains(&twin), "half a transaction is there: {name} without {twin}");
        }
        sound(&*store, &space()).await;
    }
    assert!(acknowledged.len() as u64 > ROUNDS * 10, "only {} were written", acknowledged.len());
    println!("{} acknowledged rows survived {ROUNDS} kills", acknowledged.len());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, path, round] = args.as_slice()
        && word == "write-until-killed"
    {
        write_until_killed(Path::new(path), round);
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().unwrap();
    let trial = libtest_mimic::Trial::test("sqlite::crash::kill_nine_loses_nothing", move || {
        kill_and_look(&program);
        Ok(())
    });
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), vec![trial]).exit_code()
}
