//! Rows of the ledger's fault table that need a real machine: many copies at once, one direction cut, a process
//! that stands still, many first starts, a damaged file, a first pull that is killed again and again.

use crate::{
    proxy::{Fate, Proxy},
    rig::{Lot, Node, Pair, Place, Ran, incident, pause, place, post},
};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

/// F4: the same request eight times at the same moment, and again after a restart.
#[test]
pub(crate) fn eight_copies_of_one_push_at_once_and_one_after_a_restart_take_effect_once() {
    let mut pair = Pair::new();
    let url = pair.up();
    let change = |n: usize| {
        json!({ "id": format!("c-{n}"), "collection": "incident", "record": format!("i-{n}"), "op": "create",
            "fields": { "race": "race-1", "description": "seen" }, "author": { "device": "tablet" } })
    };
    let body = json!({ "changes": (0..5).map(change).collect::<Vec<_>>() }).to_string();
    let receipts = |url: &str| -> Value {
        let (status, answer) = post(url, "/v1/push", &pair.token, &body).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer["receipts"].clone()
    };
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let copies: Vec<_> = (0..8).map(|_| scope.spawn(|| receipts(&url))).collect();
        copies.into_iter().map(|copy| copy.join().unwrap()).collect()
    });
    pair.cloud.kill();
    let url = pair.cloud.serve(&[]);
    let later = receipts(&url);
    for answer in &answers {
        assert_eq!(answer, &later, "every copy gets the same receipts");
    }
    let incidents = pair.cloud.live("incident");
    assert_eq!(incidents.len(), 5);
    assert!(incidents.values().all(|record| record["version"] == 1), "{incidents:?}");
}

/// F4: what was delivered to the cloud is delivered again to another node, eight times at once and after a correction;
/// that node hands it on, and it replaces nothing, asks nothing and jams nothing.
#[test]
pub(crate) fn copies_of_one_push_at_two_nodes_take_effect_once() {
    for pulled in [false, true] {
        let mut pair = Pair::new();
        let url = pair.up();
        pair.cloud.write_all(&[incident("i-old", "there before")]);
        pair.settle();
        let cut = Arc::new(AtomicU8::new(1));
        let state = Arc::clone(&cut);
        let proxy = Proxy::before(&url, move |_| match state.load(Ordering::Relaxed) {
            1 => Fate::LoseRequest,
            _ => Fate::Pass,
        });
        let create = |n: usize| {
            json!({ "id": format!("c-{n}"), "collection": "incident", "record": format!("i-{n}"), "op": "create",
                "fields": { "race": "race-1", "description": "seen" }, "author": { "device": "tablet" } })
        };
        let base = json!({ "epoch": pair.cloud.ask(&["status"])["epoch"], "version": 1 });
        let patch = json!({ "id": "c-old", "collection": "incident", "record": "i-old", "op": "patch", "base": base,
            "fields": { "description": "seen" }, "author": { "device": "tablet" } });
        let changes: Vec<Value> = (0..5).map(create).chain([patch]).collect();
        let body = json!({ "changes": changes }).to_string();
        let delivered = |url: &str, token: &str| {
            let (status, answer) = post(url, "/v1/push", token, &body).unwrap();
            assert_eq!(status, 200, "{answer}");
            answer["receipts"].clone()
        };
        let first = delivered(&url, &pair.token);
        for id in ["i-old", "i-0"] {
            pair.cloud.write("incident", id, json!({ "description": "reviewed" }));
        }
        pair.cloud.ask(&["delete", "incident", "i-1"]);
        if pulled {
            pair.settle();
        }
        pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
        let tablet = pair.pi.ask(&["device", "add", "Tablet"]);
        let (nearby, token) = (pair.pi.serve(&[]), tablet["api_token"].as_str().unwrap());
        std::thread::scope(|scope| {
            (0..8).for_each(|_| drop(scope.spawn(|| delivered(&nearby, token))));
        });
        // Where it is known already, what says nothing else goes no further.
        assert_eq!(pair.pi.ask(&["status"])["unsettled"], if pulled { 3 } else { 6 }, "to be handed on");
        let before = pair.cloud.canonical();
        cut.store(0, Ordering::Relaxed);
        pair.settle();
        assert_eq!(pair.cloud.canonical(), before, "what came by the second way changed something");
        assert_eq!(pair.pi.ask(&["queue", "ls"]), json!([]));
        assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
        let verdicts = |receipts: &Value| -> Vec<(Value, Value)> {
            let each = receipts.as_array().unwrap().iter();
            each.map(|receipt| (receipt["verdict"].clone(), receipt["version"].clone())).collect()
        };
        assert_eq!(verdicts(&delivered(&url, &pair.token)), verdicts(&first));
    }
}

/// F12: two processes on one database whose clocks are ten minutes apart write in turns. There is one order, no
/// reader misses anything, and the clock that is behind holds nobody up.
#[test]
fn two_processes_whose_clocks_are_apart_give_out_one_order() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    let mut desks: Vec<_> = [300_000_000_i64, -300_000_000]
        .into_iter()
        .map(|wrong| {
            let clock = pair.dir.path().join(format!("clock{wrong}"));
            fs::write(&clock, wrong.to_string()).unwrap();
            let mut command = pair.cloud.command(&["write", "--from", "-", "--json"]);
            command.env("ROPEWAY_TEST_CLOCK", clock).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let told = process.stdin.take().unwrap();
            (BufReader::new(process.stdout.take().unwrap()), told, process)
        })
        .collect();
    let mut stamps = Vec::new();
    for n in 0..40 {
        let (receipts, told, _) = &mut desks[n % 2];
        writeln!(told, "{}", incident(&format!("i-{}", n / 2), &format!("word {n}"))).unwrap();
        let mut line = String::new();
        receipts.read_line(&mut line).unwrap();
        let receipt: Value = serde_json::from_str(&line).unwrap();
        stamps.push(receipt["stamp"].as_i64().unwrap());
        if n % 10 == 9 {
            pair.pi.ask(&["sync"]);
        }
    }
    for (receipts, told, mut process) in desks {
        drop((receipts, told));
        process.wait().unwrap();
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    pair.settle();
    let incidents = pair.pi.live("incident");
    assert_eq!(incidents.len(), 20);
    for (id, record) in incidents {
        let n: usize = id[2..].parse().unwrap();
        assert_eq!(record["data"]["description"], format!("word {}", 2 * n + 1), "{id}: who wrote last");
    }
}

/// F5: for a while everything arrives and no answer comes back, then nothing arrives.
#[test]
fn a_network_that_is_cut_in_one_direction_loses_and_doubles_nothing() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    let cut = Arc::new(AtomicU8::new(0));
    let state = Arc::clone(&cut);
    let proxy = Proxy::before(&url, move |_| match state.load(Ordering::Relaxed) {
        1 => Fate::LoseAnswer,
        2 => Fate::LoseRequest,
        _ => Fate::Pass,
    });
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
    for (round, direction) in [1, 1, 2, 1].into_iter().enumerate() {
        cut.store(direction, Ordering::Relaxed);
        let id = format!("i-{round}");
        pair.pi.write_all(&[incident(&id, "first"), incident(&id, "corrected")]);
        pair.pi.run(&["sync"]).exits(4);
        let unsettled = pair.pi.ask(&["status"])["unsettled"].as_u64().unwrap();
        assert!(unsettled > round as u64, "kept until an answer came: {unsettled}");
    }
    cut.store(0, Ordering::Relaxed);
    pair.settle();
    let incidents = pair.cloud.live("incident");
    assert_eq!(incidents.len(), 4);
    for (id, record) in incidents {
        assert_eq!(record["data"]["description"], "corrected", "{id}");
        assert!(record["version"].as_u64().unwrap() <= 2, "{record}");
    }
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
}

/// F9: a server stands still, a device is revoked meanwhile, and what that device had sent into the standing
/// server's socket is refused when it wakes up.
#[test]
fn a_server_that_wakes_up_does_not_take_what_a_revoked_device_sent() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.set("ROPEWAY_LIMIT_IDLE_TIMEOUT_MS", 300);
    pair.pi.set("ROPEWAY_LIMIT_HELLO_TIMEOUT_MS", 300);
    pair.pi.write("incident", "i-1", json!({ "race": "race-1" }));
    kill_process(pair.cloud.pid(), Signal::STOP).unwrap();
    let report = pair.pi.run(&["sync"]).exits(4).json();
    assert_eq!(report["unsettled"], 1, "{report}");
    let change = json!({ "id": "c-1", "collection": "incident", "record": "i-2", "op": "create",
        "fields": { "race": "race-1" }, "author": { "device": "tablet" } });
    let (url, token) = (pair.cloud.url(), pair.token.clone());
    let sent = std::thread::spawn(move || {
        post(&url, "/v1/push", &token, &json!({ "changes": [change] }).to_string())
    });
    pair.cloud.ask(&["device", "revoke", &pair.device, "--yes"]);
    kill_process(pair.cloud.pid(), Signal::CONT).unwrap();
    // It was on its way before or comes after: the revocation was there first.
    let (status, answer) = sent.join().unwrap().unwrap();
    assert_eq!((status, &answer["code"]), (403, &json!("device_revoked")), "{answer}");
    assert_eq!(pair.pi.run(&["sync"]).exits(1).json()["problem"], "device_revoked");
    assert!(pair.cloud.live("incident").is_empty());
    assert_eq!(pair.pi.live("incident").len(), 1, "its own work is kept");
}

/// F13: many processes begin the same node at the same moment: as many as a database lets in.
#[test]
pub(crate) fn many_first_starts_at_once_make_one_node_and_lose_nothing() {
    let many = if place() == Place::File { 32 } else { 8 };
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    let start = |args: &[&str]| -> Child {
        let mut command = node.command(args);
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let race = |n: usize| format!("race-{n}");
    let writers: Vec<Child> =
        (0..many).map(|n| start(&["write", "race", &race(n), "{\"name\":\"Sprint\"}"])).collect();
    let ended = |child: Child| Ran::from(child.wait_with_output().unwrap());
    for writer in writers {
        assert_eq!(ended(writer).exits(0).json()["verdict"], "created");
    }
    assert_eq!(node.live("race").len(), many);
    assert!(node.run(&["doctor"]).exits(0).lines().iter().all(|check| check["found"] == "ok"));
    let email = ["user", "add", "jury@example.org", "--role", "admin"];
    let adding: Vec<Child> = (0..many).map(|_| start(&email)).collect();
    let added = adding.into_iter().map(ended).filter(|ran| ran.code == 0).count();
    assert_eq!((added, node.ask(&["user", "ls"]).as_array().unwrap().len()), (1, 1), "one of them added it");
}

/// F13: one device is registered 32 times at the same moment.
#[test]
fn one_device_registered_many_times_at_once_is_one() {
    let mut pair = Pair::with(|_, _| {}, "admin");
    let url = pair.up();
    registered_once(&[&url, &url], &pair.token);
    let listed = pair.cloud.ask(&["device", "ls"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

/// 32 registrations of one device at each of these addresses at once: one of them has a token, which all know, and
/// the others are told that the device is there.
pub(crate) fn registered_once(urls: &[&str; 2], admin: &str) {
    let new = json!({ "id": "tablet-1", "name": "Tablet", "role": "device" }).to_string();
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let one = |n: usize| {
            scope.spawn({
                let new = &new;
                move || post(urls[n % 2], "/v1/devices", admin, new).unwrap()
            })
        };
        let all: Vec<_> = (0..64).map(one).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 201);
    assert_eq!(won.len(), 1, "{won:?}");
    for (status, problem) in lost {
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("`tablet-1` is taken"), "{problem}");
    }
    let token = won[0].1["token"].as_str().unwrap();
    for url in urls {
        assert_eq!(post(url, "/v1/push", token, "{\"changes\":[]}").unwrap().0, 200);
    }
}

/// F19: a byte is flipped anywhere in the file. Either nothing that anybody can see is another, or it is told.
#[test]
fn a_flipped_byte_is_told_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    let races: Vec<Value> = (0..60)
        .map(|n| json!({ "collection": "race", "id": format!("race-{n}"), "data": { "name": "x".repeat(500) } }))
        .collect();
    node.write_all(&races);
    let before = node.canonical();
    let file = node.dir.join("ropeway.db");
    let whole = fs::read(&file).unwrap();
    let (mut lot, mut told) = (Lot::new(19), 0);
    for _ in 0..24 {
        let mut flipped = whole.clone();
        let at = lot.below(whole.len() as u64) as usize;
        flipped[at] ^= 1 << lot.below(8);
        fs::write(&file, &flipped).unwrap();
        let dump: Ran = node.command(&["dump", "--canonical"]).output().unwrap().into();
        let doctor = node.run(&["doctor"]);
        let is_told = doctor.code == 1 || dump.code != 0;
        told += u64::from(is_told);
        assert!(is_told || dump.stdout == before, "byte {at} is another, and nobody is told: {doctor}");
        assert!(
            !doctor.stderr.contains("panicked") && !dump.stderr.contains("panicked"),
            "byte {at}: {dump}"
        );
    }
    assert!(told > 0, "no flip did any harm");
}

/// F19: the log is cut or gone, as after a copy of the file alone: what is there is whole, and the node serves.
#[test]
fn a_log_that_was_cut_or_removed_leaves_a_whole_database() {
    let mut pair = Pair::new();
    pair.cloud.serve(&[]);
    pair.cloud.write_all(&(0..40).map(|n| incident(&format!("i-{n}"), "seen")).collect::<Vec<_>>());
    pair.cloud.kill();
    let (file, log) = (pair.cloud.dir.join("ropeway.db"), pair.cloud.dir.join("ropeway.db-wal"));
    let (database, whole) = (fs::read(&file).unwrap(), fs::read(&log).unwrap());
    assert!(whole.len() > 40_000, "the last writes are in the log: {}", whole.len());
    let mut seen = Vec::new();
    for keep in [whole.len(), whole.len() - 5_000, whole.len() / 2 + 100, 3_000, 10, 0] {
        fs::write(&file, &database).unwrap();
        fs::write(&log, &whole[..keep]).unwrap();
        let _ = fs::remove_file(pair.cloud.dir.join("ropeway.db-shm"));
        if keep == 0 {
            fs::remove_file(&log).unwrap();
        }
        let checks = pair.cloud.run(&["doctor"]).exits(0).lines();
        assert!(checks.iter().all(|check| check["found"] != "fail"), "{keep}: {checks:?}");
        seen.push(pair.cloud.live("incident").len());
        pair.cloud.serve(&[]);
        assert_eq!(pair.cloud.stop(), 0);
    }
    assert_eq!(seen[0], 40);
    assert!(seen.is_sorted_by(|a, b| a >= b), "never a later write without an earlier one: {seen:?}");
}

/// F21: a first pull is killed again and again (each kill leaves a lease of up to 3 s behind) and goes on where it was, not from the beginning.
#[test]
pub(crate) fn a_first_pull_killed_again_and_again_goes_on_where_it_was() {
    let mut pair = Pair::new();
    let url = pair.up();
    const RECORDS: usize = 600;
    const PAGE: usize = 10;
    pair.cloud.write_all(&(0..RECORDS).map(|n| incident(&format!("i-{n}"), "there")).collect::<Vec<_>>());
    let proxy = Proxy::before(&url, |_| Fate::Pass);
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
    pair.pi.set("ROPEWAY_LIMIT_SYNC_PAGE", PAGE);
    let pulls = || proxy.seen().iter().filter(|seen| seen.starts_with("/v1/pull")).count();
    let mut lot = Lot::new(21);
    let mut interrupted = 0;
    for _ in 0..6 {
        let before = pulls();
        let mut sync =
            pair.pi.command(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        crate::rig::wait_for("some pages", || {
            (pulls() >= before + 3 || sync.try_wait().unwrap().is_some()).then_some(())
        });
        pause(Duration::from_micros(lot.below(10_000)));
        sync.kill().unwrap();
        interrupted += u32::from(!sync.wait().unwrap().success());
    }
    assert!(interrupted >= 3, "only {interrupted} of 6 were interrupted");
    pair.settle();
    assert_eq!(pair.pi.live("incident").len(), RECORDS);
    let most = RECORDS / PAGE + 6 * 2 + 20;
    assert!(pulls() <= most, "{} pages of {PAGE} were asked for {RECORDS} records", pulls());
}
