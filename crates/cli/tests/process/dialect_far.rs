//! The race logger's documented API and devices that were away or copied: refused with advice, and nothing lost.

use crate::{
    dialect::{Client, Cloud, incident, statuses},
    rig::{pause, wait_for},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Reads everything from the beginning, page by page, as the advice says; the ids of the incidents that came.
fn read_anew(device: &Client) -> Vec<String> {
    let (mut ids, mut since) = (Vec::new(), String::new());
    loop {
        let page = device.get(&format!("/changes?since={since}"));
        let incidents = page["incidents"].as_array().unwrap().iter();
        ids.extend(incidents.map(|row| row["client_uuid"].as_str().unwrap().to_owned()));
        since = page["cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
    }
    // Naming the last cursor says that all of it arrived.
    device.get(&format!("/changes?since={since}"));
    ids
}

/// I10, TR-14: a device whose last sync is long ago gets what is new since; beyond the horizon, where deletions that it
/// has not heard of are forgotten, it is told to read everything anew, and then hands in what it made.
#[test]
pub(crate) fn a_device_that_was_away_for_long_is_told_and_loses_nothing() {
    let mut cloud = Cloud::with(|node| {
        node.set("ROPEWAY_LIMIT_KEEP_TOMBSTONES_S", 1);
        node.set("ROPEWAY_LIMIT_KEEP_RECEIPTS_S", 1);
        node.set("ROPEWAY_LIMIT_KEEP_HORIZON_S", 2);
    });
    let pi = cloud.device("device");
    cloud
        .admin
        .incidents(&[incident("a", 1, "2026-02-15T10:00:00Z"), incident("b", 2, "2026-02-15T10:00:00Z")]);
    let cursor = pi.get("/changes")["cursor"].as_str().unwrap().to_owned();
    let since = |cursor: &str| format!("/changes?since={cursor}");
    pi.get(&since(&cursor));
    // Away, and back within the horizon.
    cloud.admin.incidents(&[incident("c", 3, "2026-02-15T10:00:00Z")]);
    let news = pi.get(&since(&cursor));
    assert_eq!(news["incidents"].as_array().unwrap().len(), 1, "{news:#}");
    let cursor = news["cursor"].as_str().unwrap();
    // Away for longer than anybody waits for a device.
    cloud.node.ask(&["delete", "incident", "a"]);
    pause(Duration::from_millis(2_100));
    wait_for("the deletion to be forgotten", || {
        cloud.node.ask(&["purge"]);
        (cloud.node.run(&["get", "incident", "a", "--history"]).code == 1).then_some(())
    });
    let own = [incident("made far out", 4, "2026-02-15T11:00:00Z")];
    let own = own.map(|item| crate::dialect::with(item, "client_uuid", json!("far-out")));
    let told = |(status, answer): (u16, Value)| {
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (409, &json!("resync_required")), "{answer:#}");
        assert!(error["next"].as_str().unwrap().contains("`changes` without `since`"), "{answer:#}");
    };
    told(pi.ask("GET", &since(cursor), &[], ""));
    told(pi.post("/incidents", &json!({ "incidents": own })));
    assert!(!cloud.node.live("incident").contains_key("far-out"), "nothing of it was decided");
    assert_eq!(read_anew(&pi), ["b", "c"], "what did not come again is gone");
    let (status, results) = pi.incidents(&own);
    assert_eq!((status, statuses(&results)), (201, vec!["created"]), "{results:?}");
    assert!(!cloud.node.live("incident").contains_key("a"), "and nothing comes back to life");
    assert_eq!(cloud.node.stop(), 0);
}

/// E-16, F16: a device cloned from another's disk image. Whoever says which sync it is (`Ropeway-Sync`, as a Pi does) is
/// told from its copy: the copy is refused with advice, and with a registration of its own all of its work arrives once.
#[test]
pub(crate) fn of_two_copies_of_a_device_the_second_is_told() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let send = |device: &Client, sync: &str, items: &[Value]| {
        device.ask(
            "POST",
            "/incidents",
            &[("ropeway-sync", sync)],
            &json!({ "incidents": items }).to_string(),
        )
    };
    let shared = incident("before the copy", 1, "2026-02-15T10:00:00Z");
    let shared = crate::dialect::with(shared, "client_uuid", json!("shared"));
    assert_eq!(send(&pi, "disk-1 - 1.aaa", std::slice::from_ref(&shared)).0, 201);
    // The disk is copied; both go on from the same last sync.
    assert_eq!(send(&pi, "disk-1 1.aaa 2.bbb", &[incident("first", 2, "2026-02-15T10:00:00Z")]).0, 201);
    let second = incident("second", 3, "2026-02-15T10:00:00Z");
    for _ in 0..2 {
        let (status, answer) = send(&pi, "disk-1 1.aaa 2.ccc", std::slice::from_ref(&second));
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (409, &json!("device_cloned")), "{answer:#}");
        assert!(error["next"].as_str().unwrap().contains("register this one"), "{answer:#}");
    }
    assert!(!cloud.node.live("incident").contains_key("second"));
    assert_eq!(
        send(&pi, "disk-1 2.bbb 3.ddd", &[incident("third", 4, "2026-02-15T10:00:00Z")]).0,
        201,
        "the first goes on"
    );
    let seen = cloud.node.ask(&["device", "ls"]);
    let device = seen.as_array().unwrap().iter().find(|device| device["device_uuid"] == *pi.uuid).unwrap();
    assert!(device["cloned_at"].is_string(), "an operator sees it: {device}");
    let copy = cloud.device("device");
    let (status, answer) = send(&copy, "disk-1-copy - 1.eee", &[shared, second]);
    let words = statuses(answer["results"].as_array().unwrap());
    assert_eq!((status, words), (200, vec!["already_synced", "created"]), "{answer:#}");
    assert_eq!(cloud.node.live("incident").len(), 4, "all of it, once");
}
