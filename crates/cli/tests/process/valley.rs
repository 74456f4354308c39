//! One cloud, two Pis that follow it, four devices that follow the Pis: seven real nodes and six cables.

use crate::{
    proxy::{Fate, Proxy},
    rig::{Lot, Node, pause, put_token, wait_for},
};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// Which station each follows: the cloud nobody, two Pis the cloud, two devices each Pi.
const UPSTREAM: [Option<usize>; 7] = [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)];
pub(crate) const NAMES: [&str; 7] = ["cloud", "pi-1", "pi-2", "dev-1", "dev-2", "dev-3", "dev-4"];

/// What a cable does to the requests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    Whole = 0,
    Cut = 1,
    /// It loses, doubles and delays some of them, and cuts some answers.
    Bad = 2,
}

/// One node, the desk at it, and its cable upwards.
pub(crate) struct Station {
    pub(crate) node: Node,
    desk: Option<Desk>,
    cable: Option<(Arc<AtomicU8>, Proxy)>,
    is_paused: bool,
}

/// A process that writes what it is told and answers with receipts.
struct Desk {
    process: Child,
    told: ChildStdin,
    receipts: BufReader<ChildStdout>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All seven.
pub(crate) struct Valley {
    pub(crate) stations: Vec<Station>,
    pub(crate) dir: TempDir,
}

impl Valley {
    /// All of them serve, the cables are whole, and the race is everywhere.
    pub(crate) fn begin(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let profile = dir.path().join("profile.toml");
        // What was refused is tried again at once: nobody here waits for an hour.
        let usual = "retry = [\"1m\", \"5m\", \"15m\", \"1h\", \"6h\"]";
        let quick = format!("retry = [{}]", vec!["\"1s\""; 60].join(", "));
        let text = ropeway_race_logger::PROFILE;
        assert!(text.contains(usual));
        fs::write(&profile, text.replace(usual, &quick)).unwrap();
        let mut stations: Vec<Station> = Vec::new();
        for (n, name) in NAMES.iter().enumerate() {
            let mut node = Node::new(dir.path().join(name));
            node.set("ROPEWAY_PROFILE", profile.display());
            node.set("ROPEWAY_LIMIT_SYNC_PROBE_MS", 300);
            node.set("ROPEWAY_LIMIT_SYNC_EVERY_MS", 2_000);
            node.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 200);
            node.set("ROPEWAY_LIMIT_SYNC_PAGE", 500);
            node.set("ROPEWAY_LIMIT_IDLE_TIMEOUT_MS", 2_000);
            node.set("ROPEWAY_LIMIT_DEVICE_RATE", 100_000);
            node.set("ROPEWAY_TEST_CLOCK", node.dir.join("clock").display());
            let cable = UPSTREAM[n].map(|up| {
                let upstream = &stations[up].node;
                let added = upstream.ask(&["device", "add", name, "--role", "device"]);
                put_token(&node.dir, added["api_token"].as_str().unwrap());
                let (state, proxy) = cable(&upstream.url(), seed * 31 + n as u64);
                node.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
                (state, proxy)
            });
            if n == 0 {
                node.write("race", "race-1", json!({ "name": "Sprint" }));
            }
            node.serve(&[]);
            stations.push(Station { node, desk: None, cable, is_paused: false });
        }
        let valley = Self { stations, dir };
        for station in &valley.stations {
            wait_for("the race", || station.node.live("race").contains_key("race-1").then_some(()));
        }
        valley
    }

    /// Every process runs, every cable is whole.
    pub(crate) fn heal(&mut self) {
        for station in &mut self.stations {
            station.set_cable(Cable::Whole);
            station.set_clock(0);
            station.resume();
            station.start();
            station.desk = None;
        }
    }
}

/// A cable before the server at `url`, and what sets its state.
fn cable(url: &str, seed: u64) -> (Arc<AtomicU8>, Proxy) {
    let state = Arc::new(AtomicU8::new(Cable::Whole as u8));
    let (now, mut lot) = (Arc::clone(&state), Lot::new(seed));
    let proxy = Proxy::before(url, move |path| match now.load(Ordering::Relaxed) {
        1 => Fate::LoseRequest,
        2 => match lot.below(9) {
            0 => Fate::LoseRequest,
            1 | 2 => Fate::LoseAnswer,
            3 if path != "/v1/live" => Fate::Double,
            4 => Fate::Late,
            5 => Fate::CutAnswer,
            _ => Fate::Pass,
        },
        _ => Fate::Pass,
    });
    (state, proxy)
}

impl Station {
    /// Writes at the desk; the receipt, or nothing where the desk died under it.
    pub(crate) fn write(&mut self, edit: &Value) -> Option<Value> {
        if self.desk.is_none() {
            let mut process = self.node.writer();
            let told = process.stdin.take().unwrap();
            let receipts = BufReader::new(process.stdout.take().unwrap());
            self.desk = Some(Desk { process, told, receipts });
        }
        let desk = self.desk.as_mut().unwrap();
        let mut line = String::new();
        let told = writeln!(desk.told, "{edit}");
        if told.is_err() || desk.receipts.read_line(&mut line).unwrap_or(0) == 0 {
            self.desk = None;
            return None;
        }
        serde_json::from_str(&line).ok()
    }

    /// Writes and kills the desk at once: nobody knows whether it was written.
    pub(crate) fn write_and_kill(&mut self, edit: &Value) {
        if let Some(mut desk) = self.desk.take() {
            let _ = writeln!(desk.told, "{edit}");
        }
    }

    pub(crate) fn kill(&mut self) {
        self.resume();
        self.node.kill();
    }

    /// Starts it where it does not run.
    pub(crate) fn start(&mut self) {
        if !self.node.is_up() {
            self.node.kill();
            self.node.serve(&[]);
        }
    }

    /// The whole machine stands still for a while.
    pub(crate) fn pause(&mut self) {
        if self.node.is_up() && !self.is_paused {
            kill_process(self.node.pid(), Signal::STOP).unwrap();
            self.is_paused = true;
        }
    }

    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            kill_process(self.node.pid(), Signal::CONT).unwrap();
        }
    }

    /// Its wall clock is wrong by so many seconds from now on.
    pub(crate) fn set_clock(&self, seconds: i64) {
        let file = self.node.dir.join("clock");
        fs::write(file.with_extension("new"), (seconds * 1_000_000).to_string()).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    pub(crate) fn set_cable(&mut self, to: Cable) {
        if let Some((state, _)) = &self.cable {
            state.store(to as u8, Ordering::Relaxed);
        }
    }

    /// The people there give up what the upstream refused; how much that was.
    pub(crate) fn give_up_refused(&self) -> usize {
        // A node that is at a long piece of work may not answer in time: then later.
        let queue: Vec<Value> =
            serde_json::from_str(&self.node.run(&["queue", "ls"]).stdout).unwrap_or_default();
        let refused = queue.iter().filter(|entry| entry["state"] == "rejected");
        let given_up = |entry: &Value| {
            let ran = self.node.run(&["queue", "discard", &entry["seq"].to_string(), "--yes"]);
            ran.code == 0
        };
        refused.filter(|entry| given_up(entry)).count()
    }

    /// Every word of this shape that stands in its records or their history.
    pub(crate) fn words(&self) -> BTreeSet<String> {
        let file = self.node.dir.join("ropeway.db");
        let db = rusqlite::Connection::open(file).unwrap();
        let all = "SELECT data FROM rw_records UNION ALL SELECT data FROM rw_history";
        let mut rows = db.prepare(all).unwrap();
        let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.flat_map(|text| tokens(&text.unwrap()).map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// The words `said-…` of a text.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.match_indices("said-").map(move |(at, _)| text[at..].split(ends).next().unwrap_or_default())
}

/// A short moment in which the processes get on.
pub(crate) fn breathe(millis: u64) {
    pause(Duration::from_millis(millis));
}
