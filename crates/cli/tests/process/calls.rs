//! Each single call on the disk may be a process's last, or may fail (F2, F8): the next start needs no help,
//! an error is told, and nothing is half done.

use crate::{
    rig::{Node, Pair, Ran, incident, post, put_token},
    tracer::{Call, Meddle, Then, trace},
};
use nix::{errno::Errno, sys::signal::Signal};
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Lets the call of this number, counted from 0, meet its fate; counts what changes a file.
fn at(number: usize, fate: Then, counted: &Arc<AtomicUsize>) -> Meddle {
    let counted = Arc::clone(counted);
    Box::new(move |call| {
        let counts = match call {
            Call::Write { file, .. } => !file.to_string_lossy().ends_with("-shm"),
            _ => true,
        };
        match counts && counted.fetch_add(1, Ordering::Relaxed) == number {
            true => fate,
            false => Then::Go,
        }
    })
}

/// Runs a command whose call of this number meets its fate; what it printed, and how many calls there were.
fn run(node: &Node, args: &[&str], number: usize, fate: Then) -> (Ran, usize) {
    let counted = Arc::default();
    let mut command = node.command(args);
    let mut traced = trace(command.arg("--json"), &node.dir, at(number, fate, &counted));
    let mut stdout = String::new();
    traced.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let (code, _) = traced.ended();
    (Ran { code, stdout, stderr: String::new() }, counted.load(Ordering::Relaxed))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A follower with work to send and work to take in is killed before each of its calls in turn.
#[test]
fn a_sync_killed_at_any_of_its_calls_goes_on_without_repair() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 3);
    let (mut number, mut calls, mut killed) = (0, usize::MAX, 0);
    while number < calls {
        let mine = format!("pi-{number}");
        pair.pi.write_all(&[incident(&mine, "first"), incident(&mine, "corrected")]);
        pair.cloud.write_all(&[incident(&format!("cloud-{number}"), "there")]);
        let (ran, seen) = run(&pair.pi, &["sync"], number, Then::Kill);
        match ran.code {
            0 => calls = seen,
            code => {
                assert_eq!(code, -(Signal::SIGKILL as i32), "{ran}");
                killed += 1;
            }
        }
        // Every call of the first ones, then some.
        number += 1 + number / 5;
    }
    assert!(killed >= 8, "only {killed} kills hit");
    pair.settle();
    let cloud = pair.cloud.live("incident");
    for (id, record) in &cloud {
        let expected = if id.starts_with("pi-") { "corrected" } else { "there" };
        assert_eq!(record["data"]["description"], expected, "{id}");
        assert!(record["version"].as_u64().unwrap() <= 2, "{record}");
    }
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
}

/// A desk is killed before each of its calls in turn, the very first start included; the same edit again is
/// taken in once.
#[test]
fn a_write_killed_at_any_of_its_calls_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let edit = ["write", "race", "race-1", "{\"name\":\"Sprint\"}", "--change", "c-1"];
    let (mut number, mut calls) = (0, usize::MAX);
    while number < calls {
        let node = Node::new(dir.path().join(format!("node-{number}")));
        let (ran, seen) = run(&node, &edit, number, Then::Kill);
        if ran.code == 0 {
            calls = seen;
        }
        let again = node.ask(&edit);
        assert_eq!(
            (&again["verdict"], &again["version"]),
            (&json!("created"), &json!(1)),
            "killed at {number}"
        );
        assert_eq!(node.live("race").len(), 1);
        number += 1 + number / 4;
    }
}

/// A call of the desk fails: exit 1 and a sentence, and what is there is what was there; or exit 0, and the
/// edit is there.
#[test]
fn a_call_that_fails_at_the_desk_is_told_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let template = Node::new(dir.path().join("template"));
    template.write("race", "race-0", json!({ "name": "Relay" }));
    let before = template.canonical();
    let edit = ["write", "race", "race-1", "{\"name\":\"Sprint\"}", "--change", "c-1"];
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::EROFS, Errno::EDQUOT] {
        let (mut number, mut failed, mut reached) = (0, 0, true);
        while reached {
            let node = Node::new(dir.path().join(format!("{errno:?}-{number}")));
            copy(&template.dir, &node.dir);
            let (ran, seen) = run(&node, &edit, number, Then::Fail(errno));
            // One that fails early makes fewer calls than one that goes through.
            reached = seen > number;
            match ran.code {
                0 => assert_eq!(node.live("race").len(), 2, "{errno:?} at {number}"),
                _ => {
                    failed += 1;
                    let error = &ran.json()["error"];
                    let said = format!("{} {}", error["what"], error["next"]);
                    assert_eq!(ran.code, 1, "{errno:?} at {number}: {ran}");
                    assert!(said.len() > 40 && !said.contains("panicked"), "{errno:?} at {number}: {said}");
                    assert_eq!(node.canonical(), before, "{errno:?} at {number}");
                }
            }
            assert_eq!(node.ask(&edit)["verdict"], "created", "{errno:?} at {number}");
            number += if errno == Errno::EIO { 1 } else { 2 + number / 3 };
        }
        assert!(failed > 0, "{errno:?}: no failure was seen");
    }
}

/// While every write fails the node keeps serving: pushes are refused with a reason, reads work; when the disk
/// is well again so is the node, without a restart.
#[test]
fn a_serving_node_whose_disk_fails_for_a_while_recovers_by_itself() {
    let mut pair = Pair::new();
    let fails = Arc::new(AtomicU64::new(0));
    let errno = Arc::clone(&fails);
    let meddle: Meddle = Box::new(move |call| match (call, errno.load(Ordering::Relaxed)) {
        (_, 0) => Then::Go,
        (Call::Write { file, .. }, _) if file.to_string_lossy().ends_with("-shm") => Then::Go,
        (_, errno) => Then::Fail(Errno::from_raw(errno as i32)),
    });
    let command = pair.cloud.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut traced = trace(&command, &pair.cloud.dir, meddle);
    let mut stdout = BufReader::new(traced.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let url = first.trim_end().strip_prefix("listening on ").unwrap().to_owned();
    let push = |id: &str| {
        let change = json!({ "id": format!("c-{id}"), "collection": "incident", "record": id, "op": "create",
            "fields": { "race": "race-1" }, "author": { "device": "tablet" } });
        post(&url, "/v1/push", &pair.token, &json!({ "changes": [change] }).to_string()).unwrap()
    };
    for (round, errno) in [Errno::EIO, Errno::ENOSPC, Errno::EROFS].into_iter().enumerate() {
        let id = format!("i-{round}");
        fails.store(errno as u64, Ordering::Relaxed);
        let (status, answer) = push(&id);
        assert_eq!(status, 503, "{errno:?}: {answer}");
        fails.store(0, Ordering::Relaxed);
        assert!(!pair.cloud.live("incident").contains_key(&id), "{errno:?}: nothing half written");
        let (status, answer) = push(&id);
        assert_eq!(
            (status, &answer["receipts"][0]["verdict"]),
            (200, &json!("created")),
            "{errno:?}: {answer}"
        );
    }
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &url);
    put_token(&pair.pi.dir, &pair.token);
    pair.settle();
    traced.signal(Signal::SIGTERM);
    assert_eq!(traced.ended().0, 0);
}
