//! What people do: mistakes that are refused and corrected, two sides that differ, a jury that decides.

use crate::rig::{Node, Pair, ropeway};
use serde_json::{Value, json};

/// A profile that is stricter about bibs than the built-in one.
fn stricter() -> String {
    let text = ropeway_race_logger::PROFILE;
    let strict = text.replace("max = 9999", "max = 100");
    assert_ne!(text, strict);
    strict
}

/// Both nodes, the cloud with the stricter profile; the Pi has the race.
fn pair_with_strict_cloud() -> Pair {
    let strict = |cloud: &mut Node, _: &mut Node| {
        let file = cloud.dir.with_file_name("strict.toml");
        std::fs::write(&file, stricter()).unwrap();
        cloud.set("ROPEWAY_PROFILE", file.display());
    };
    let mut pair = Pair::with(strict, "device");
    pair.up();
    pair.settle();
    pair
}

/// A refused record holds back itself and its children, nothing else, and goes through once corrected.
#[test]
pub(crate) fn a_refused_record_holds_back_its_children_only_and_goes_once_corrected() {
    let pair = pair_with_strict_cloud();
    let race = |bib: u64| json!({ "race": "race-1", "bib_number": bib });
    pair.pi.write("incident", "bad", race(500));
    pair.pi.write("report", "bad-child", json!({ "incident": "bad", "description": "child of bad" }));
    pair.pi.write("incident", "good", race(7));
    pair.pi.write("report", "good-child", json!({ "incident": "good", "description": "child of good" }));
    let report = pair.pi.run(&["sync"]).exits(3).json();
    assert_eq!(
        (&report["outcome"], &report["verdicts"]["rejected"]),
        (&json!("partly"), &json!(1)),
        "{report}"
    );
    let ids = |node: &Node, collection| node.live(collection).into_keys().collect::<Vec<_>>();
    assert_eq!(
        (ids(&pair.cloud, "incident"), ids(&pair.cloud, "report")),
        (vec!["good".into()], vec!["good-child".into()])
    );
    let queue = pair.pi.ask(&["queue", "ls"]);
    let (first, second) = (&queue[0], &queue[1]);
    assert_eq!((&first["record"], &first["state"]), (&json!("bad"), &json!("rejected")), "{queue}");
    assert_eq!(
        (&first["reason"]["code"], &first["reason"]["field"]),
        (&json!("invalid"), &json!("bib_number"))
    );
    assert_eq!((&second["record"], &second["state"]), (&json!("bad-child"), &json!("waiting")), "{queue}");
    assert_eq!(pair.pi.data("incident", "bad")["bib_number"], 500, "what the person wrote still stands here");
    pair.pi.write("incident", "bad", json!({ "bib_number": 50 }));
    let report = pair.pi.ask(&["sync"]);
    assert_eq!((&report["pushed"], &report["unsettled"]), (&json!(2), &json!(0)), "{report}");
    pair.assert_equal();
    assert_eq!(pair.cloud.data("incident", "bad")["bib_number"], 50);
    assert_eq!(pair.cloud.data("report", "bad-child")["description"], "child of bad");
}

/// A refused change that a person gives up: nothing happens without --yes; then the record shows the
/// upstream's value again, and what was given up stands in history.
#[test]
pub(crate) fn a_refused_change_can_be_given_up_and_stays_in_history() {
    let pair = pair_with_strict_cloud();
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "bib_number": 7 }));
    pair.settle();
    pair.pi.write("incident", "i-1", json!({ "bib_number": 500 }));
    pair.pi.run(&["sync"]).exits(3);
    let seq = pair.pi.ask(&["queue", "ls"])[0]["seq"].to_string();
    pair.pi.run(&["queue", "discard", &seq]).exits(2);
    pair.pi.run(&["queue", "discard", &seq, "--dry-run"]).exits(0);
    assert_eq!(pair.pi.data("incident", "i-1")["bib_number"], 500, "nothing happened yet");
    assert_eq!(pair.pi.ask(&["queue", "retry", &seq])["armed"], 1);
    pair.pi.run(&["sync"]).exits(3);
    assert_eq!(pair.pi.ask(&["queue", "ls"])[0]["attempts"], 1, "a person's word begins the schedule anew");
    assert_eq!(pair.pi.ask(&["queue", "discard", &seq, "--yes"])["discarded"], 1);
    assert_eq!(pair.pi.data("incident", "i-1")["bib_number"], 7);
    let history = pair.pi.ask(&["get", "incident", "i-1", "--history"])["history"].to_string();
    assert!(history.contains("500"), "{history}");
    pair.settle();
}

/// A role that may not write a collection: refused for good, and everything else goes.
#[test]
pub(crate) fn what_the_devices_role_may_not_write_is_refused_by_the_cloud() {
    let mut pair = Pair::with(|_, _| {}, "national_referee");
    pair.up();
    pair.settle();
    pair.pi.write("stage", "s-1", json!({ "name": "Not mine to add" }));
    pair.pi.write("incident", "i-1", json!({ "race": "race-1" }));
    pair.pi.run(&["sync"]).exits(3);
    assert!(pair.cloud.live("stage").is_empty());
    assert_eq!(pair.cloud.live("incident").len(), 1);
    let queue = pair.pi.ask(&["queue", "ls"]);
    assert_eq!(
        (&queue[0]["reason"]["code"], queue.as_array().unwrap().len()),
        (&json!("forbidden"), 1),
        "{queue}"
    );
    pair.pi.ask(&["queue", "discard", &queue[0]["seq"].to_string(), "--yes"]);
    pair.settle();
    assert!(pair.pi.live("stage").is_empty());
}

/// Both edit one record; the Pi is parked, edits again, edits other fields; the jury decides on the cloud.
#[test]
pub(crate) fn what_two_sides_wrote_is_settled_by_the_jury_and_none_of_it_is_lost() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    let say = |node: &Node, text: &str| {
        node.run(&["write", "incident", "i-1", &json!({ "description": text }).to_string()])
    };
    pair.pi.write("incident", "i-1", json!({ "race": "race-1", "description": "as first seen" }));
    pair.settle();
    say(&pair.cloud, "as the video shows").exits(0);
    say(&pair.pi, "as the referee insists").exits(0);
    let report = pair.pi.run(&["sync"]).exits(3).json();
    assert_eq!(report["verdicts"]["parked"], 1, "{report}");
    pair.assert_equal();
    assert_eq!(
        pair.pi.data("incident", "i-1")["description"],
        "as the video shows",
        "the server's value shows"
    );
    // Again, and other fields: those flow.
    say(&pair.pi, "as the referee now insists").exits(3);
    pair.pi.write("incident", "i-1", json!({ "bib_number": 34, "weather": "fog" }));
    pair.pi.run(&["sync"]).exits(3);
    pair.assert_equal();
    let record = pair.cloud.data("incident", "i-1");
    assert_eq!((&record["bib_number"], &record["weather"]), (&json!(34), &json!("fog")), "{record}");
    let open = pair.cloud.ask(&["conflicts", "ls"]);
    assert_eq!(open.as_array().unwrap().len(), 1, "one question, however often it was asked: {open}");
    assert_eq!(open[0]["conflict"]["incoming"]["values"]["description"], "as the referee now insists");
    assert_eq!(
        open,
        with_versions_of(&pair.pi.ask(&["conflicts", "ls"]), &open),
        "both sides show the same question"
    );
    let id = open[0]["id"].as_str().unwrap();
    let jury = ["--person", "Jury president", "--role", "jury_president"];
    let resolve = |node: &Node, how: &[&str]| node.run(&[&["conflicts", "resolve", id], how, &jury].concat());
    resolve(&pair.pi, &["--keep", "incoming"]).exits(1);
    resolve(&pair.cloud, &["--keep", "incoming", "--version", "0"]).exits(1);
    let answer =
        resolve(&pair.cloud, &["--keep", "incoming", "--notes", "the referee was nearer"]).exits(0).json();
    assert_eq!(answer["conflict"]["state"], "resolved", "{answer}");
    pair.settle();
    for node in [&pair.cloud, &pair.pi] {
        assert_eq!(node.data("incident", "i-1")["description"], "as the referee now insists");
        assert_eq!(node.ask(&["conflicts", "ls"]), json!([]));
        let everything = [
            node.ask(&["get", "incident", "i-1", "--history"]).to_string(),
            node.ask(&["get", "conflict", id, "--history"]).to_string(),
            node.ask(&["conflicts", "ls", "--all"]).to_string(),
        ]
        .concat();
        for said in [
            "as first seen",
            "as the video shows",
            "as the referee insists",
            "as the referee now insists",
            "nearer",
        ] {
            assert!(everything.contains(said), "`{said}` is lost in {}: {everything}", node.dir.display());
        }
    }
}

/// Conflicts with the versions of others: a version is local to its node, everything else must be equal.
fn with_versions_of(conflicts: &Value, others: &Value) -> Value {
    let mut conflicts = conflicts.clone();
    for (mine, theirs) in conflicts.as_array_mut().unwrap().iter_mut().zip(others.as_array().unwrap()) {
        mine["version"] = theirs["version"].clone();
    }
    conflicts
}

/// GP-04: fields that the profile does not know are kept, travel, and survive another side's edit.
#[test]
pub(crate) fn unknown_fields_are_kept_and_travel_and_unknown_collections_are_refused() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    let odd = json!({ "race": "race-1", "shoe": 43.5, "nested": { "z": [1, { "y": null }], "a": "é\"" }, "none": null });
    pair.pi.write("incident", "i-1", odd.clone());
    pair.settle();
    pair.cloud.write("incident", "i-1", json!({ "description": "seen", "beard": true }));
    pair.settle();
    for node in [&pair.cloud, &pair.pi] {
        let data = node.data("incident", "i-1");
        for field in ["shoe", "nested", "none"] {
            assert_eq!(data[field], odd[field], "{field} in {data}");
        }
        assert_eq!((&data["beard"], &data["description"]), (&json!(true), &json!("seen")));
        assert!(
            data.as_object().unwrap().contains_key("none")
                && !data.as_object().unwrap().contains_key("never")
        );
    }
    let refused = pair.pi.run(&["write", "weather", "w-1", "{\"fog\":true}"]).exits(1).json();
    assert_eq!(refused["reason"]["code"], "unknown_collection", "{refused}");
    let help: crate::rig::Ran = ropeway().args(["write", "--help"]).output().unwrap().into();
    assert!(help.exits(0).stdout.contains("Examples:"));
}
