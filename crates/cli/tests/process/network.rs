//! A network that loses, doubles, delays and reorders; a server with small limits; tokens that do not fit.

use crate::{
    proxy::{Fate, Gate, Proxy},
    rig::{Lot, Pair, Ran, incident, pause, put_token, wait_for},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Stdio, time::Duration};

/// Requests lost, answers lost, doubled, late and reordered, by lot: the same result as without.
#[test]
pub(crate) fn whatever_the_network_does_everything_arrives_once() {
    let mut all_reviewed = 0;
    for seed in 1..=3 {
        let mut lot = Lot::new(seed);
        let mut pair = Pair::new();
        let url = pair.up();
        pair.settle();
        let mut faults = 0;
        let proxy = Proxy::before(&url, move |path| {
            let counts = matches!(path, "/v1/push" | "/v1/pull") && faults < 60;
            faults += u64::from(counts);
            match lot.below(if counts { 8 } else { 1 }) {
                1 => Fate::LoseRequest,
                2 | 3 => Fate::LoseAnswer,
                4 => Fate::Double,
                5 | 6 => Fate::Late,
                _ => Fate::Pass,
            }
        });
        pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
        pair.pi.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 7);
        pair.pi.set("ROPEWAY_LIMIT_SYNC_PAGE", 9);
        // What the cloud corrected while the Pi may still wait to hear that it arrived.
        let mut reviewed = BTreeSet::new();
        for wave in 0..4 {
            let here: Vec<Value> = (0..20).map(|n| incident(&format!("pi-{wave}-{n}"), "first")).collect();
            let there: Vec<Value> =
                (0..10).map(|n| incident(&format!("cloud-{wave}-{n}"), "there")).collect();
            pair.pi.write_all(&here);
            pair.cloud.write_all(&there);
            let _ = pair.pi.run(&["sync"]);
            let arrived = pair.cloud.live("incident");
            let pi = |wave: usize| (5..20).map(move |n| format!("pi-{wave}-{n}"));
            let fresh = |id: &String| arrived.contains_key(id) && !reviewed.contains(id);
            let review: Vec<String> = (0..=wave).flat_map(pi).filter(fresh).collect();
            let review_of = |id: &String| json!({ "collection": "incident", "id": id, "data": { "description": "reviewed" } });
            pair.cloud.write_all(&review.iter().map(review_of).collect::<Vec<_>>());
            reviewed.extend(review);
            let corrected: Vec<Value> =
                (0..5).map(|n| incident(&format!("pi-{wave}-{n}"), "corrected")).collect();
            pair.pi.write_all(&corrected);
            let _ = pair.pi.run(&["sync"]);
        }
        pair.settle();
        let cloud = pair.cloud.live("incident");
        assert_eq!(cloud.len(), 120, "seed {seed}");
        all_reviewed += reviewed.len();
        for (id, record) in &cloud {
            let n: u64 = id.rsplit('-').next().unwrap().parse().unwrap();
            let expected = match id.starts_with("pi-") {
                true if n < 5 => "corrected",
                true if reviewed.contains(id) => "reviewed",
                true => "first",
                false => "there",
            };
            assert_eq!(record["data"]["description"], expected, "seed {seed}: {id}");
            // A correction may have been merged with what was still unsent, and is never applied twice.
            let most = if matches!(expected, "corrected" | "reviewed") { 2 } else { 1 };
            assert!(record["version"].as_u64().unwrap() <= most, "seed {seed}: {record}");
        }
        assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]), "seed {seed}");
        let seen = proxy.seen().join("\n");
        for fate in ["LoseRequest", "LoseAnswer", "Double", "Late"] {
            assert!(seen.contains(&format!("push {fate}")), "seed {seed}: no push met {fate}");
        }
    }
    assert!(all_reviewed > 0, "nothing arrived before it was corrected");
}

/// I7: an edit made while its record's upload is in flight stays pending and arrives.
#[test]
pub(crate) fn an_edit_made_during_its_upload_stays_pending_and_arrives() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    let gate = Gate::default();
    let (at_gate, mut held) = (gate.clone(), false);
    let proxy = Proxy::before(&url, move |path| match path {
        "/v1/push" if !std::mem::replace(&mut held, true) => Fate::HoldAnswer(at_gate.clone()),
        _ => Fate::Pass,
    });
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "first" }));
    let sync =
        pair.pi.command(&["sync", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    gate.reached();
    assert_eq!(pair.cloud.data("incident", "i-1")["description"], "first", "decided, and not yet answered");
    let receipt = pair.pi.write("incident", "i-1", json!({ "description": "second" }));
    assert_eq!(receipt["verdict"], "applied");
    let queue = pair.pi.ask(&["queue", "ls"]);
    let states: Vec<&str> = queue.as_array().unwrap().iter().filter_map(|e| e["state"].as_str()).collect();
    assert_eq!(states, ["sealed", "pending"], "{queue}");
    gate.open();
    let ran: Ran = sync.wait_with_output().unwrap().into();
    ran.exits(0);
    pair.settle();
    for node in [&pair.cloud, &pair.pi] {
        assert_eq!(node.data("incident", "i-1")["description"], "second");
    }
    let shown = pair.cloud.ask(&["get", "incident", "i-1", "--history"]);
    assert_eq!(
        (&shown["version"], &shown["history"][0]["data"]["description"]),
        (&json!(2), &json!("first"))
    );
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]), "nobody contested anything");
}

/// A server that takes 7 changes a push and gives 3 records a page: the follower halves and goes on.
#[test]
pub(crate) fn a_batch_over_the_servers_limit_is_halved() {
    let small = |cloud: &mut crate::rig::Node, _: &mut crate::rig::Node| {
        cloud.set("ROPEWAY_LIMIT_PUSH_CHANGES", 7);
        cloud.set("ROPEWAY_LIMIT_PAGE_ROWS", 3);
        cloud.set("ROPEWAY_LIMIT_BODY_BYTES", 4_000);
    };
    let mut pair = Pair::with(small, "device");
    pair.up();
    pair.settle();
    pair.pi.write_all(&(0..50).map(|n| incident(&format!("i-{n}"), "one of many")).collect::<Vec<_>>());
    let report = pair.pi.ask(&["sync"]);
    assert_eq!((&report["pushed"], &report["unsettled"]), (&json!(50), &json!(0)), "{report}");
    pair.assert_equal();
    let cloud = pair.cloud.live("incident");
    assert_eq!(cloud.len(), 50);
    assert!(cloud.values().all(|record| record["version"] == 1));
}

/// No token, a wrong one, a revoked device: an exit code, a sentence, and the outbox is kept.
#[test]
pub(crate) fn without_a_good_token_nothing_goes_and_nothing_is_lost() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "kept" }));
    let kept = |pair: &Pair| {
        assert_eq!(pair.pi.ask(&["status"])["unsettled"], 1);
        assert_eq!(pair.pi.data("incident", "i-1")["description"], "kept");
        assert!(pair.cloud.live("incident").is_empty());
    };
    std::fs::remove_file(pair.pi.dir.join("upstream.token")).unwrap();
    let ran = pair.pi.run(&["sync"]).exits(1);
    let error = &ran.json()["error"];
    assert!(error["what"].as_str().unwrap().contains(&url), "{error}");
    assert!(error["next"].as_str().unwrap().contains("ropeway device add"), "{error}");
    kept(&pair);
    put_token(&pair.pi.dir, &"f".repeat(64));
    let ran = pair.pi.run(&["sync"]).exits(1);
    assert_eq!(
        (&ran.json()["problem"], &ran.json()["outcome"]),
        (&json!("unauthenticated"), &json!("failed"))
    );
    kept(&pair);
    put_token(&pair.pi.dir, &pair.token);
    pair.cloud.ask(&["device", "revoke", &pair.device, "--yes"]);
    let ran = pair.pi.run(&["sync"]).exits(1);
    assert_eq!(ran.json()["problem"], "device_revoked");
    kept(&pair);
    let text: Ran = pair.pi.command(&["sync"]).output().unwrap().into();
    assert!(text.stderr.contains("the outbox is kept"), "{text}");
    assert!(pair.pi.ask(&["status"])["revoked_at"].is_string());
    let doctor = pair.pi.run(&["doctor"]).exits(1).lines();
    assert!(doctor.iter().any(|c| c["check"] == "token" && c["found"] == "fail"), "{doctor:?}");
    let again = pair.cloud.ask(&["device", "add", "Start Line Pi again"]);
    put_token(&pair.pi.dir, again["api_token"].as_str().unwrap());
    pair.settle();
    assert_eq!(pair.cloud.data("incident", "i-1")["description"], "kept");
}

/// GP-13: a device gets a new token, shown once; the old one stops at once, and nothing of the device's work is lost.
#[test]
fn a_device_gets_a_new_token_and_the_old_one_stops() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "kept" }));
    let rotated: Ran = pair.cloud.command(&["device", "rotate", &pair.device]).output().unwrap().into();
    let said = rotated.exits(0).stdout;
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (uuid, token) = (line("Device UUID: "), line("API Token: "));
    assert!(uuid == pair.device && token.len() == 64 && token != pair.token, "{said}");
    assert_eq!(pair.pi.run(&["sync"]).exits(1).json()["problem"], "unauthenticated");
    put_token(&pair.pi.dir, &token);
    pair.settle();
    assert_eq!(pair.cloud.data("incident", "i-1")["description"], "kept");
    let listed = pair.cloud.ask(&["device", "ls"]);
    assert!(listed.as_array().unwrap().len() == 1 && !listed.to_string().contains(&token), "{listed}");
    pair.cloud.run(&["device", "rotate", "nobody"]).exits(1);
    pair.cloud.ask(&["device", "revoke", &pair.device, "--yes"]);
    pair.cloud.run(&["device", "rotate", &pair.device]).exits(1);
    assert_eq!(pair.pi.run(&["sync"]).exits(1).json()["problem"], "device_revoked", "it stays revoked");
}

/// F14: a credential that ends in the middle of a pull. What came is kept, and so is what was written meanwhile;
/// with a new one the pull goes on where it was.
#[test]
fn a_token_that_ends_in_the_middle_of_a_pull_costs_nothing() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    pair.cloud.write_all(&(0..60).map(|n| incident(&format!("c-{n}"), "there")).collect::<Vec<_>>());
    let gate = Gate::default();
    let (at_gate, mut pulls) = (gate.clone(), 0);
    let proxy = Proxy::before(&url, move |path| {
        pulls += usize::from(path == "/v1/pull");
        if path == "/v1/pull" && pulls == 4 { Fate::HoldAnswer(at_gate.clone()) } else { Fate::Pass }
    });
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
    pair.pi.set("ROPEWAY_LIMIT_SYNC_PAGE", 9);
    let sync = pair.pi.command(&["sync", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    gate.reached();
    pair.pi.write("incident", "p-1", json!({ "race": "race-1", "description": "meanwhile" }));
    pair.cloud.ask(&["device", "revoke", &pair.device, "--yes"]);
    gate.open();
    let ran: Ran = sync.wait_with_output().unwrap().into();
    assert_eq!(ran.exits(1).json()["problem"], "device_revoked");
    assert_eq!(pair.pi.ask(&["status"])["unsettled"], 1);
    assert!(pair.pi.live("incident").len() == 1, "half a pull is not seen");
    let count = || proxy.seen().iter().filter(|seen| seen.starts_with("/v1/pull")).count();
    let before = count();
    let again = pair.cloud.ask(&["device", "add", "Start Line Pi again"]);
    put_token(&pair.pi.dir, again["api_token"].as_str().unwrap());
    pair.pi.ask(&["sync"]);
    assert!(count() - before < 5, "it went on where it was: {:?}", proxy.seen());
    pair.settle();
    assert_eq!(pair.cloud.live("incident").len(), 61);
}

/// A node that has no token yet works on, says how to get one, and follows once it is there.
#[test]
pub(crate) fn a_node_without_a_token_works_on_and_follows_when_it_is_there() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    std::fs::remove_file(pair.pi.dir.join("upstream.token")).unwrap();
    pair.pi.serve(&[]);
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "before" }));
    wait_for("the advice", || pair.pi.log().contains("ropeway device add NAME").then_some(()));
    assert!(!pair.pi.log().contains(&pair.token));
    put_token(&pair.pi.dir, &pair.token);
    wait_for("the incident to arrive", || pair.cloud.live("incident").contains_key("i-1").then_some(()));
    assert!(!pair.pi.log().contains(&pair.token), "no secret in the log");
}

/// Out of reach is no failure: exit 4, no attempt used up, and all of it goes when the upstream is back.
#[test]
pub(crate) fn an_upstream_out_of_reach_uses_up_no_retry() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.cloud.kill();
    pair.pi.write("incident", "i-1", json!({ "race": "race-1" }));
    for _ in 0..7 {
        let ran = pair.pi.run(&["sync"]).exits(4);
        assert_eq!(ran.json()["outcome"], "offline");
    }
    let queue = pair.pi.ask(&["queue", "ls"]);
    assert_eq!((&queue[0]["attempts"], &queue[0]["status"]), (&json!(0), &json!("pending")), "{queue}");
    pair.pi.run(&["doctor"]).exits(4);
    pair.cloud.serve(&[]);
    assert_eq!(pair.pi.ask(&["sync"])["pushed"], 1);
    pair.assert_equal();
}

/// A middlebox that ends every live stream after its first event sets off no storm of syncs.
#[test]
pub(crate) fn a_live_stream_that_is_cut_again_and_again_sets_off_no_storm() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    let proxy = Proxy::before(&url, |path| if path == "/v1/live" { Fate::CutAnswer } else { Fate::Pass });
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &proxy.url);
    let count = |path: &str| proxy.seen().iter().filter(|seen| seen.starts_with(path)).count();
    pair.pi.serve(&[]);
    wait_for("the first live stream", || (count("/v1/live") > 0).then_some(()));
    pause(Duration::from_secs(2));
    let (streams, pulls) = (count("/v1/live"), count("/v1/pull"));
    assert!(streams <= 5 && pulls <= 8, "{streams} streams and {pulls} pulls within two seconds");
    pair.cloud.write("incident", "i-1", json!({ "race": "race-1" }));
    wait_for("the news", || pair.pi.live("incident").contains_key("i-1").then_some(()));
}

/// I9: what a revoked device still holds is handed in; an administrator looks at it, accepts it, and nothing comes
/// twice when the device is registered anew.
#[test]
fn an_administrator_accepts_what_a_revoked_device_handed_in() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    let device = pair.device.clone();
    pair.cloud.ask(&["device", "revoke", &device, "--yes"]);
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "seen" }));
    pair.pi.write("incident", "i-2", json!({ "race": "race-1", "description": "a joke" }));
    let ran = pair.pi.run(&["sync"]).exits(1);
    assert_eq!(ran.json()["problem"], "device_revoked");
    let queue = pair.pi.ask(&["queue", "ls"]);
    assert_eq!((&queue[0]["status"], &queue[0]["reason"]["code"]), (&json!("pending"), &json!("revoked")));
    let quarantine = |command: &str, more: &[&str]| {
        let mut all = vec!["device", "quarantine", command];
        all.extend(more);
        pair.cloud.run(&all)
    };
    let there = quarantine("ls", &[]).exits(0).json();
    assert_eq!((&there[0]["device_uuid"], &there[0]["waiting"]), (&json!(device), &json!(2)));
    let shown = quarantine("show", &[&device]).exits(0).json();
    let of = |at: usize| shown[at]["change"]["id"].as_str().unwrap().to_owned();
    assert_eq!((&shown[0]["change"]["record"], &shown[1]["state"]), (&json!("i-1"), &json!("waiting")));
    quarantine("accept", &[&device]).exits(2);
    let dry = quarantine("accept", &[&device, "--change", &of(0), "--dry-run"]).exits(0).json();
    assert_eq!((&dry["receipts"][0]["verdict"], &dry["dry_run"]), (&json!("created"), &json!(true)));
    assert!(pair.cloud.live("incident").is_empty(), "nothing was decided yet");
    quarantine("accept", &[&device, "--change", &of(0), "--person", "Ada", "--yes"]).exits(0);
    let gone = quarantine("discard", &[&device, "--dry-run"]).exits(0).json();
    assert_eq!(gone["discarded"], 1);
    quarantine("discard", &[&device, "--person", "Ada", "--yes"]).exits(0);
    let shown = quarantine("show", &[&device]).exits(0).json();
    assert_eq!((&shown[0]["state"], &shown[0]["decided_by"]), (&json!("accepted"), &json!("Ada")));
    assert_eq!(shown[1]["state"], "discarded");
    assert_eq!(pair.cloud.data("incident", "i-1")["description"], "seen");
    let version = pair.cloud.live("incident")["i-1"]["version"].clone();
    pair.pi.ask(&["queue", "discard", "2", "--yes"]);
    let again = pair.cloud.ask(&["device", "add", "Start Line Pi again"]);
    put_token(&pair.pi.dir, again["api_token"].as_str().unwrap());
    pair.settle();
    assert_eq!(pair.cloud.live("incident")["i-1"]["version"], version, "it came once");
    pair.assert_equal();
}
