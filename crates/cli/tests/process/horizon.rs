//! What a node forgets, and a device that comes back from beyond the horizon.

use crate::rig::{Pair, Ran, pause, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

fn pair(horizon: u64) -> Pair {
    let mut pair = Pair::with(
        |cloud, _| {
            cloud.set("ROPEWAY_LIMIT_KEEP_TOMBSTONES_S", 1);
            cloud.set("ROPEWAY_LIMIT_KEEP_RECEIPTS_S", 1);
            cloud.set("ROPEWAY_LIMIT_KEEP_HORIZON_S", horizon);
        },
        "device",
    );
    pair.up();
    for id in ["i-1", "i-2"] {
        pair.cloud.write("incident", id, json!({ "race": "race-1", "description": "first" }));
    }
    pair.settle();
    pair.pi.ask(&["sync"]);
    pair
}

/// Longer than a second, the shortest time for which a node keeps anything.
fn a_second_passes() {
    pause(Duration::from_millis(1_100));
}

fn tombstones(purge: &Value) -> u64 {
    purge["rows"]["tombstones"].as_u64().unwrap_or(0)
}

/// A device that sleeps holds tombstones back, and an operator sees which one and how many.
#[test]
pub(crate) fn a_sleeping_device_holds_tombstones_back_and_is_named() {
    let mut pair = pair(3_600);
    pair.cloud.ask(&["delete", "incident", "i-1"]);
    a_second_passes();
    assert_eq!(tombstones(&pair.cloud.ask(&["purge"])), 0);
    let dry = pair.cloud.ask(&["purge", "--dry-run"]);
    let held = &dry["held"][0];
    assert_eq!((&held["device"], &held["name"]), (&json!(pair.device), &json!("Start Line Pi")), "{dry}");
    assert!(held["rows"].as_u64().unwrap() >= 1, "{dry}");
    let text: Ran = pair.cloud.command(&["purge", "--dry-run"]).output().unwrap().into();
    assert!(text.stdout.contains("`Start Line Pi`") && text.stdout.contains("holds back"), "{text}");
    pair.pi.ask(&["sync"]);
    assert_eq!(tombstones(&pair.cloud.ask(&["purge"])), 0, "whether it arrived is not known yet");
    pair.pi.ask(&["sync"]);
    assert_eq!(tombstones(&pair.cloud.ask(&["purge", "--dry-run"])), 1);
    assert_eq!(tombstones(&pair.cloud.ask(&["purge"])), 1);
    assert_eq!(tombstones(&pair.cloud.ask(&["purge"])), 0);
    let report = pair.pi.ask(&["sync"]);
    assert_eq!((&report["pulled"], &report["digests"]["equal"]), (&json!(0), &json!(true)), "{report}");
    assert_eq!(pair.cloud.stop(), 0);
}

/// It was away for longer than anybody waited: it pulls everything anew before anything of it is decided,
/// gives up what was deleted, hands over what it made, and what it changed of what is gone waits for a
/// person.
#[test]
pub(crate) fn a_device_from_beyond_the_horizon_loses_nothing_and_brings_nothing_back() {
    let mut pair = pair(1);
    assert_eq!(pair.cloud.stop(), 0);
    pair.cloud.set("ROPEWAY_LIMIT_PURGE_EVERY_S", 1);
    pair.pi.write("incident", "i-2", json!({ "description": "from far out" }));
    pair.pi.write("incident", "i-3", json!({ "race": "race-1", "description": "made far out" }));
    for id in ["i-1", "i-2"] {
        pair.cloud.ask(&["delete", "incident", id]);
    }
    a_second_passes();
    pair.cloud.serve(&[]);
    let old = || pair.cloud.run(&["get", "incident", "i-1"]).code == 1;
    wait_for("the node to purge by itself", || old().then_some(()));
    let report = pair.pi.run(&["sync"]).exits(3).json();
    assert_eq!((&report["verdicts"]["parked"], &report["unsettled"]), (&json!(1), &json!(0)), "{report}");
    pair.settle();
    let alive: Vec<String> = pair.pi.live("incident").into_keys().collect();
    assert_eq!(alive, ["i-3"]);
    for node in [&pair.cloud, &pair.pi] {
        let open = node.ask(&["conflicts", "ls"]);
        assert_eq!(open[0]["conflict"]["incoming"]["values"]["description"], "from far out", "{open}");
    }
}
