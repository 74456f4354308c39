//! One device that became two, a device restored from its own backup, an app installed anew.

use crate::rig::{Node, Pair, Ran, put_token, wait_for};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Copies a data directory of a node that does not run.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A node on a copy of another's data directory, with the same settings.
fn twin_of(pair: &Pair, url: &str) -> Node {
    let mut twin = Node::new(pair.dir.path().join("twin"));
    copy(&pair.pi.dir, &twin.dir);
    twin.set("ROPEWAY_UPSTREAM_URL", url);
    twin
}

fn race() -> Value {
    json!({ "race": "race-1" })
}

fn ids(node: &Node) -> Vec<String> {
    node.live("incident").into_keys().collect()
}

/// Refused as a copy: a sentence, the whole outbox kept, and status and doctor say what to do.
#[track_caller]
fn assert_refused(node: &Node, waits: u64) {
    let report = node.run(&["sync"]).exits(1).json();
    assert_eq!(
        (&report["problem"], &report["unsettled"], &report["pushed"]),
        (&json!("device_cloned"), &json!(waits), &json!(0)),
        "{report}"
    );
    assert_ne!(node.ask(&["status"])["cloned_at"], json!(null));
    let text: Ran = node.command(&["status"]).output().unwrap().into();
    assert!(text.stdout.contains("ropeway device renew --copy --yes"), "{text}");
    let checks = node.run(&["doctor"]).exits(1).lines();
    assert!(checks.iter().any(|c| c["check"] == "identity" && c["found"] == "fail"), "{checks:?}");
}

/// The second copy is refused and loses nothing; registered anew, all that either wrote arrives once.
#[test]
fn of_two_copies_the_second_is_refused_and_registered_anew_all_arrives_once() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    pair.pi.write("incident", "both", race());
    let mut twin = twin_of(&pair, &url);
    pair.pi.write("incident", "of-pi", race());
    twin.write("incident", "of-twin", race());
    twin.write("incident", "both", json!({ "description": "seen by the twin" }));
    assert_eq!(pair.pi.ask(&["sync"])["pushed"], 2);
    for _ in 0..2 {
        assert_refused(&twin, 2);
    }
    assert_eq!(ids(&pair.cloud), ["both", "of-pi"]);
    assert_ne!(pair.cloud.ask(&["device", "ls"])[0]["cloned_at"], json!(null));
    pair.pi.write("incident", "of-pi-later", race());
    assert_eq!(pair.pi.ask(&["sync"])["pushed"], 1, "the first copy goes on");
    // Without a word nothing happens; then a registration of its own.
    twin.run(&["device", "renew", "--copy"]).exits(2);
    twin.run(&["device", "renew", "--yes"]).exits(2);
    let before = twin.ask(&["status"])["device"].clone();
    let added = pair.cloud.ask(&["device", "add", "Start Line Pi, the second"]);
    put_token(&twin.dir, added["api_token"].as_str().unwrap());
    let renewed = twin.ask(&["device", "renew", "--copy", "--yes"]);
    assert_eq!(renewed["unsettled"], 2, "{renewed}");
    assert_ne!(renewed["device_uuid"], before, "it writes under a device id of its own");
    let report = twin.ask(&["sync"]);
    assert_eq!((&report["unsettled"], &report["digests"]["equal"]), (&json!(0), &json!(true)), "{report}");
    assert_eq!(twin.ask(&["status"])["cloned_at"], json!(null));
    pair.settle();
    assert_eq!(ids(&pair.cloud), ["both", "of-pi", "of-pi-later", "of-twin"]);
    assert_eq!(pair.cloud.data("incident", "both")["description"], "seen by the twin");
    assert_eq!(twin.canonical(), pair.cloud.canonical());
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
    twin.unset("ROPEWAY_UPSTREAM_URL");
}

/// A copy renewed under the same token takes the registration over: then the other one is refused.
#[test]
fn one_registration_is_one_installation() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    let twin = twin_of(&pair, &url);
    twin.ask(&["device", "renew", "--copy", "--yes"]);
    twin.ask(&["sync"]);
    pair.pi.write("incident", "i-1", race());
    assert_refused(&pair.pi, 1);
    twin.ask(&["sync"]);
}

/// A device restored from its own old backup: refused until a person says so; then what it wrote since
/// arrives, what it had sent already is not taken twice, and what it had lost comes back.
#[test]
fn a_device_restored_from_its_own_backup_loses_nothing_and_sends_nothing_twice() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write("incident", "unsent-then", race());
    let backup = pair.dir.path().join("backup");
    copy(&pair.pi.dir, &backup);
    pair.pi.write("incident", "lost-since", race());
    pair.settle();
    let device = pair.pi.ask(&["status"])["device"].clone();
    fs::remove_dir_all(&pair.pi.dir).unwrap();
    copy(&backup, &pair.pi.dir);
    pair.pi.write("incident", "written-after", race());
    assert_refused(&pair.pi, 2);
    let renewed = pair.pi.ask(&["device", "renew", "--restored", "--yes"]);
    assert_eq!((&renewed["device_uuid"], &renewed["unsettled"]), (&device, &json!(2)), "{renewed}");
    pair.settle();
    let cloud = pair.cloud.live("incident");
    assert_eq!(cloud.keys().collect::<Vec<_>>(), ["lost-since", "unsent-then", "written-after"]);
    assert!(cloud.values().all(|record| record["version"] == 1), "{cloud:?}");
    pair.pi.ask(&["sync"]);
}

/// The same by the documented commands, in the middle of a day: the Pi serves, is backed up, goes on, breaks, and is
/// restored from its own backup while its upstream has heard more of it than it knows.
#[test]
fn a_pi_restored_by_its_own_backup_file_goes_on_where_its_upstream_is() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write("incident", "settled-then", race());
    pair.settle();
    pair.pi.write("incident", "unsent-then", race());
    let file = pair.dir.path().join("pi.ropeway").display().to_string();
    pair.pi.ask(&["backup", &file]);
    pair.pi.write("incident", "sent-since", race());
    pair.pi.write("incident", "settled-then", json!({ "description": "since" }));
    pair.settle();
    pair.cloud.write("incident", "of-the-cloud", race());
    pair.pi.write("incident", "never-sent", race());
    pair.pi.ask(&["restore", &file]);
    pair.pi.write("incident", "written-after", race());
    assert_eq!(pair.pi.ask(&["status"])["outbox"]["pending"], 2);
    // The command has said that it is restored: nobody has to say it again.
    pair.settle();
    let all = ["of-the-cloud", "sent-since", "settled-then", "unsent-then", "written-after"];
    assert_eq!(
        ids(&pair.cloud),
        all,
        "what was never sent and in no backup is gone with the disk, and no more"
    );
    assert_eq!(pair.cloud.data("incident", "settled-then")["description"], "since");
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
    pair.pi.serve(&[]);
    pair.pi.write("incident", "as-usual", race());
    wait_for("the restored Pi to sync by itself", || pair.cloud.live("incident").remove("as-usual"));
}

/// An app installed anew with the same token is a new installation; what comes from the former one is a
/// copy, even though its numbers are higher.
#[test]
fn an_app_installed_anew_goes_on_and_its_former_life_is_refused() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    for n in 0..3 {
        pair.pi.write("incident", &format!("i-{n}"), race());
        pair.settle();
    }
    let former = twin_of(&pair, &url);
    fs::remove_dir_all(&pair.pi.dir).unwrap();
    put_token(&pair.pi.dir, &pair.token);
    pair.settle();
    pair.pi.write("incident", "anew", race());
    pair.settle();
    assert_eq!(ids(&pair.pi), ["anew", "i-0", "i-1", "i-2"]);
    former.write("incident", "kept", race());
    assert_refused(&former, 1);
    pair.settle();
    assert_eq!(pair.cloud.ask(&["device", "ls"])[0]["installations"], 2);
}

/// A server whose data went back in time refuses nobody, and says that it went back.
#[test]
fn a_server_that_went_back_in_time_takes_its_devices_for_no_copies() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    assert_eq!(pair.cloud.stop(), 0);
    let backup = pair.dir.path().join("backup");
    copy(&pair.cloud.dir, &backup);
    pair.cloud.serve(&[]);
    for n in 0..3 {
        pair.pi.write("incident", &format!("i-{n}"), race());
        pair.settle();
    }
    assert_eq!(pair.cloud.stop(), 0);
    fs::remove_dir_all(&pair.cloud.dir).unwrap();
    copy(&backup, &pair.cloud.dir);
    pair.cloud.serve(&[]);
    pair.pi.write("incident", "after", race());
    let report = pair.pi.run(&["sync"]).json();
    assert_ne!(report["problem"], "device_cloned", "{report}");
    assert_eq!(pair.cloud.live("incident").keys().collect::<Vec<_>>(), ["after"]);
    assert_ne!(pair.cloud.ask(&["device", "ls"])[0]["behind_at"], json!(null));
    assert_eq!(pair.pi.ask(&["status"])["cloned_at"], json!(null));
}
