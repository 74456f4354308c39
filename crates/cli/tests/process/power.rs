//! A power cut, 500 times on each side: whatever the disk had not synced is lost or torn, and nothing that a
//! command had reported as durable is. The calls are those of the real program, as the kernel saw them; the
//! disk that they leave behind is the model in `platter.rs`.

use crate::{
    platter::Platter,
    rig::{Lot, Node, Pair, Ran, post, put_token, setting},
    tracer::{Call, Traced, trace, watch},
};
use nix::sys::signal::Signal;
use ropeway_core::{id::Epoch, time::Time};
use ropeway_store::{Durability, Options, SqliteStore, Store};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// Everything that processes did one after the other in one data directory.
struct Recording {
    dir: PathBuf,
    calls: Vec<Call>,
    /// The number of the first call of a process that speaks to the upstream.
    online: usize,
}

#[test]
fn a_power_cut_of_the_cloud_loses_nothing_that_was_acknowledged() {
    let mut pair = Pair::bare();
    let recording = record_cloud(&mut pair);
    assert!(recording.acknowledged(recording.calls.len()).len() >= 100);
    recording.check(true, setting("ROPEWAY_IMAGES", 500));
}

#[test]
fn a_power_cut_of_a_follower_loses_nothing_that_was_acknowledged() {
    let mut pair = Pair::new();
    let recording = record_follower(&mut pair);
    assert!(recording.acknowledged(recording.online).len() >= 60, "written without a network");
    recording.check(true, setting("ROPEWAY_IMAGES", 500));
}

/// The check of the check: on a disk that says that it synced and did not, acknowledged writes are lost.
#[test]
fn a_disk_that_only_says_that_it_synced_is_found_out() {
    let mut pair = Pair::bare();
    let recording = record_cloud(&mut pair);
    let found = std::panic::catch_unwind(|| recording.check(false, 50));
    let found = *found.expect_err("nothing was found").downcast::<String>().unwrap();
    assert!(found.contains("after call"), "{found}");
}

/// A cloud node from its first moment on: clients push, it is killed, serves again, and is stopped.
fn record_cloud(pair: &mut Pair) -> Recording {
    let dir = pair.cloud.dir.clone();
    let mut calls = Vec::new();
    let added: Value = traced_command(&pair.cloud, &["device", "add", "Pi"], &mut calls);
    let token = added["api_token"].as_str().unwrap().to_owned();
    let race =
        "{\"collection\":\"race\",\"id\":\"race-1\",\"data\":{\"name\":\"said-0\"},\"change\":\"said-0\"}\n";
    calls.extend(traced_desk(&pair.cloud, race, 1));
    for (life, signal) in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        let (serving, url) = traced_serve(&pair.cloud);
        push_from_three(&url, &token, life);
        serving.signal(signal);
        calls.extend(serving.ended().1);
    }
    let online = calls.len();
    Recording { dir, calls, online }
}

/// A follower from its first moment on: work without a network, a sync, then it serves and follows while
/// others push to it, is killed in between, and works without a network again.
fn record_follower(pair: &mut Pair) -> Recording {
    let url = pair.cloud.serve(&[]);
    let (token, dir) = (pair.token.clone(), pair.dir.path().join("leaf"));
    let mut leaf = Node::new(dir.clone());
    leaf.set("SYSTEM_MODE", "offline_device");
    leaf.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 10);
    let mut calls = traced_desk(&leaf, &edits(0), 40);
    calls.extend(traced_desk(&leaf, &edits(1), 40));
    let online = calls.len();
    leaf.set("ROPEWAY_UPSTREAM_URL", &url);
    let added: Value = traced_command(&leaf, &["device", "add", "Tablet"], &mut calls);
    put_token(&dir, &token);
    let report: Value = traced_command(&leaf, &["sync"], &mut calls);
    assert_eq!(report["unsettled"], 0, "{report}");
    for life in 0..2 {
        pair.cloud.write("race", &format!("race-there-{life}"), json!({ "name": "from the cloud" }));
        let (serving, url) = traced_serve(&leaf);
        push_from_three(&url, added["api_token"].as_str().unwrap(), life);
        serving.signal([Signal::SIGKILL, Signal::SIGTERM][life]);
        calls.extend(serving.ended().1);
    }
    calls.extend(traced_desk(&leaf, &edits(2), 40));
    Recording { dir, calls, online }
}

/// 40 edits of 10 incidents, each in a field of its own, so that the latest edit holds them all.
fn edits(wave: usize) -> String {
    let edit = |n: usize| {
        let (id, word) = (format!("incident-{}-{}", wave / 2, n % 10), format!("said-{wave}-{n}"));
        let data = json!({ "race": "race-1", format!("field_{wave}_{n}"): word });
        let record = json!({ "collection": "incident", "id": id, "data": data, "change": word });
        format!("{record}\n")
    };
    let race = json!({ "collection": "race", "id": "race-1", "data": { "name": "Sprint" } });
    format!("{race}\n") + &(0..40).map(edit).collect::<String>()
}

/// Three clients push at the same time, each some requests of one to five changes.
fn push_from_three(url: &str, token: &str, life: usize) {
    let client = |client: usize| {
        let (url, token) = (url.to_owned(), token.to_owned());
        move || {
            for request in 0..8 {
                let change = |n: usize| {
                    let word = format!("said-{life}-{client}-{request}-{n}");
                    json!({ "id": word, "collection": "incident", "record": format!("i-{life}-{client}-{request}-{n}"),
                        "op": "create", "fields": { "race": "race-1", "description": word },
                        "author": { "device": "tablet" } })
                };
                let changes: Vec<Value> = (0..1 + request % 5).map(change).collect();
                let body = json!({ "changes": changes }).to_string();
                let (status, answer) = post(&url, "/v1/push", &token, &body).unwrap();
                assert_eq!(status, 200, "{answer}");
            }
        }
    };
    let clients: Vec<_> = (0..3).map(|n| std::thread::spawn(client(n))).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// Runs a command to its end; the JSON that it printed.
fn traced_command(node: &Node, args: &[&str], calls: &mut Vec<Call>) -> Value {
    let mut command = node.command(args);
    let mut traced = trace(command.arg("--json"), parent(&node.dir), watch());
    let mut text = String::new();
    traced.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let (code, made) = traced.ended();
    assert_eq!(code, 0, "{args:?}: {text}");
    calls.extend(made);
    serde_json::from_str(&text).unwrap()
}

/// A process at the desk that is told these edits and ends.
fn traced_desk(node: &Node, edits: &str, at_least: usize) -> Vec<Call> {
    let command = node.command(&["write", "--from", "-", "--json"]);
    let mut traced = trace(&command, parent(&node.dir), watch());
    traced.stdin.take().unwrap().write_all(edits.as_bytes()).unwrap();
    let mut text = String::new();
    traced.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.lines().count() >= at_least, "{text}");
    let (code, calls) = traced.ended();
    assert_eq!(code, 0, "{text}");
    calls
}

fn traced_serve(node: &Node) -> (Traced, String) {
    let command = node.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut traced = trace(&command, parent(&node.dir), watch());
    let mut stdout = BufReader::new(traced.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let url =
        first.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}")).to_owned();
    traced.stdout = Some(stdout.into_inner());
    (traced, url)
}

/// Calls on the directory that holds the data directory are watched too: its entry must be synced there.
fn parent(dir: &Path) -> &Path {
    dir.parent().unwrap()
}

impl Recording {
    /// Every change of which somebody was told, before this call, that it was taken in.
    fn acknowledged(&self, before: usize) -> BTreeSet<String> {
        self.calls[..before].iter().flat_map(told).collect()
    }

    /// Cuts the power at moments by lot, every second time right after somebody was told something, and
    /// opens what is left with the real store.
    fn check(&self, is_honest: bool, images: u64) {
        let mut lot = Lot::new(setting("ROPEWAY_SEED", 2026));
        let telling: Vec<usize> =
            (0..self.calls.len()).filter(|n| told(&self.calls[*n]).next().is_some()).collect();
        let mut moments: BTreeMap<usize, u64> = BTreeMap::new();
        for image in 0..images {
            let moment = match image % 2 {
                0 => telling[lot.below(telling.len() as u64) as usize] + 1,
                _ => lot.below(self.calls.len() as u64 + 1) as usize,
            };
            *moments.entry(moment).or_default() += 1;
        }
        let mut platter = Platter::new(is_honest);
        let mut acknowledged = BTreeSet::new();
        for (n, call) in self.calls.iter().enumerate() {
            for _ in 0..moments.get(&n).copied().unwrap_or(0) {
                self.image(&platter, &acknowledged, n, &mut lot);
            }
            platter.take(call);
            acknowledged.extend(told(call));
        }
        self.image(&platter, &acknowledged, self.calls.len(), &mut lot);
    }

    fn image(&self, platter: &Platter, acknowledged: &BTreeSet<String>, moment: usize, lot: &mut Lot) {
        // Where nothing is ever synced, if the machine has such a place: an image need not last.
        let memory = Path::new("/dev/shm");
        let image = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        platter.cut(&self.dir, image.path(), lot);
        let survivors = match examine(image.path()) {
            Ok(survivors) => survivors,
            Err(why) => {
                panic!("after call {moment}: {why}; the image is {}", image.keep().display())
            }
        };
        let lost: Vec<&String> =
            acknowledged.iter().filter(|word| !survivors.held.contains(word.as_str())).collect();
        if !lost.is_empty() {
            let kept = image.keep();
            panic!(
                "{lost:?} was acknowledged and is gone after call {moment}; the image is {}",
                kept.display()
            );
        }
        if moment <= self.online && self.online < self.calls.len() {
            let unsent: Vec<&String> =
                acknowledged.iter().filter(|word| !survivors.queued.contains(word.as_str())).collect();
            assert!(unsent.is_empty(), "{unsent:?} are there and would never be sent, after call {moment}");
        }
        if lot.below(40) == 0 && !acknowledged.is_empty() {
            let doctor: Ran = Node::new(image.path().to_owned()).run(&["doctor"]);
            let checks = doctor.lines();
            let is_whole = |check: &Value| {
                check["found"] != "fail" || !["database", "digest"].iter().any(|n| check["check"] == *n)
            };
            assert!(checks.len() > 3 && checks.iter().all(is_whole), "after call {moment}: {doctor}");
        }
    }
}

/// The words of the receipts in what a process is about to tell.
fn told(call: &Call) -> impl Iterator<Item = String> {
    let Call::Say { bytes } = call else { return Vec::new().into_iter() };
    let text = String::from_utf8_lossy(bytes);
    let mut words = Vec::new();
    for (at, _) in text.match_indices("\"change\":\"said-") {
        let mut parts = text[at..].split('"');
        let (word, verdict) = (parts.nth(3).unwrap_or_default(), parts.nth(3).unwrap_or_default());
        assert!(["created", "applied", "merged"].contains(&verdict), "{text}");
        words.push(word.to_owned());
    }
    words.into_iter()
}

/// What is left after a power cut.
struct Survivors {
    /// The words in records and their history.
    held: BTreeSet<String>,
    /// The words in the outbox.
    queued: BTreeSet<String>,
}

/// Opens the image with the real store, which must need no help, and has it check itself.
fn examine(dir: &Path) -> Result<Survivors, String> {
    let file = dir.join("ropeway.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let options = Options::new(Epoch::parse("epoch-after").unwrap(), Time(0));
    // The image itself need not survive another power cut.
    let options = Options { durability: Durability::Normal, readers: 1, ..options };
    let store = SqliteStore::open(&file, options).map_err(|e| format!("it does not open: {e}"))?;
    runtime.block_on(store.check()).map_err(|e| format!("it is not whole: {e}"))?;
    drop(store);
    let db = rusqlite::Connection::open(&file).map_err(|e| e.to_string())?;
    let words = |sql: &str| -> rusqlite::Result<BTreeSet<String>> {
        let mut rows = db.prepare(sql)?;
        let texts: Vec<String> = rows.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let word =
            |text: &String| text.split('"').filter(|w| w.starts_with("said-")).map(str::to_owned).collect();
        Ok(texts.iter().flat_map::<Vec<String>, _>(word).collect())
    };
    let held = words("SELECT data FROM rw_records UNION ALL SELECT data FROM rw_history");
    let queued = words("SELECT change FROM rw_outbox");
    let text = |e: rusqlite::Error| e.to_string();
    Ok(Survivors { held: held.map_err(text)?, queued: queued.map_err(text)? })
}
