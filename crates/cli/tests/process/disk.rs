//! A disk that takes no more: a clear error, nothing half written, the node stays up and recovers.

use crate::rig::{Pair, get, incident};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// The largest file that the serving process may write: what a full disk is to it.
fn allow(pair: &Pair, bytes: Option<u64>) {
    prlimit(Some(pair.cloud.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// The serving cloud can write no more: pushes are answered with a reason and stay in the Pi's outbox; what
/// is there can still be read; with room again everything goes, without a restart.
#[test]
fn a_node_without_room_keeps_serving_says_so_and_recovers() {
    let mut pair = Pair::new();
    // The signal that comes with the limit is ignored, as on a full disk there is none.
    let mut sh = Command::new("/bin/sh");
    sh.env_clear().args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ropeway"), "serve"]);
    sh.arg("--data-dir").arg(&pair.cloud.dir);
    let url = pair.cloud.serve_by(sh, &[]);
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &url);
    pair.settle();
    let log = pair.cloud.dir.join("ropeway.db-wal");
    let room = fs::metadata(&log).map_or(0, |meta| meta.len()) + 20_000;
    allow(&pair, Some(room));
    let large: Vec<Value> = (0..60).map(|n| incident(&format!("i-{n}"), &"x".repeat(2_000))).collect();
    pair.pi.write_all(&large);
    let report = pair.pi.run(&["sync"]).exits(1).json();
    assert_eq!((&report["outcome"], &report["unsettled"]), (&json!("failed"), &json!(60)), "{report}");
    let said = report["error"].as_str().unwrap();
    assert!(said.contains("nothing was written"), "it says whether data is safe: {said}");
    assert!(pair.cloud.is_up(), "the node stays up");
    let probe = get(&url, "/health/ready");
    assert!(probe.starts_with("HTTP/1.1 503") && probe.contains("\"reasons\":[\""), "{probe}");
    assert!(probe.contains("the disk"), "a probe is told why: {probe}");
    assert!(get(&url, "/health/live").starts_with("HTTP/1.1 200"), "and the process is there");
    assert!(pair.cloud.live("incident").is_empty(), "nothing half written");
    assert_eq!(pair.cloud.live("race").len(), 1, "what is there can be read");
    assert_eq!(pair.pi.live("incident").len(), 60, "and nothing is lost where it was made");
    allow(&pair, None);
    pair.settle();
    assert_eq!(pair.cloud.live("incident").len(), 60);
    assert!(pair.cloud.is_up());
    assert!(get(&url, "/health/ready").starts_with("HTTP/1.1 200"), "a write that succeeds ends the trouble");
}

/// The same at the desk: exit 1, nothing written, and the same edit goes once there is room.
#[test]
fn a_write_without_room_fails_clearly_and_can_be_repeated() {
    let pair = Pair::new();
    let edit = json!({ "note": "x".repeat(400_000) }).to_string();
    let before = pair.cloud.canonical();
    let mut sh = Command::new("/bin/sh");
    sh.env_clear().args([
        "-c",
        "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_ropeway"),
    ]);
    sh.args(["write", "race", "race-2", "-", "--json", "--data-dir"]).arg(&pair.cloud.dir);
    let file = pair.dir.path().join("edit.json");
    fs::write(&file, &edit).unwrap();
    sh.stdin(fs::File::open(&file).unwrap());
    let ran: crate::rig::Ran = sh.output().unwrap().into();
    let ran = ran.exits(1);
    let error = &ran.json()["error"];
    assert!(error["what"].as_str().unwrap().contains("nothing was written"), "{ran}");
    assert_eq!(pair.cloud.canonical(), before);
    let mut again = pair.cloud.command(&["write", "race", "race-2", "-", "--json"]);
    let again: crate::rig::Ran = again.stdin(fs::File::open(&file).unwrap()).output().unwrap().into();
    assert_eq!(again.exits(0).json()["verdict"], "created");
    assert_eq!(pair.cloud.live("race").len(), 2);
}
