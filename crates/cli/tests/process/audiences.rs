//! A Pi takes one competition along, a tablet takes it from the Pi, and at the end of the day it is given
//! back: with real processes.

use crate::rig::{Node, Pair, put_token, wait_for};
use serde_json::{Value, json};

/// Two competitions with a race and an incident each.
fn competitions(cloud: &Node) {
    let mut edits = Vec::new();
    let mut edit = |collection: &str, id: String, data: Value| {
        edits.push(json!({ "collection": collection, "id": id, "data": data }));
    };
    for c in ["verbier", "arosa"] {
        edit("competition", c.into(), json!({ "name": c }));
        edit("race", format!("{c}-race"), json!({ "competition": c, "name": "Sprint" }));
        edit("incident", format!("{c}-1"), json!({ "race": format!("{c}-race"), "bib_number": 7 }));
    }
    edit("athlete", "ada".into(), json!({ "first_name": "Ada" }));
    cloud.write_all(&edits);
}

fn ids(node: &Node) -> Vec<String> {
    let text = node.canonical();
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    text.lines().map(read).collect()
}

/// ISMF-063, ISMF-101, ISMF-162: a competition is downloaded whole, nothing of another comes, changes go both
/// ways, and `clear` gives it back when nothing holds it back.
#[test]
pub(crate) fn a_competition_is_taken_along_and_given_back() {
    let mut pair = Pair::with(|_, _| {}, "venue");
    competitions(&pair.cloud);
    let url = pair.up();
    let ran = pair.pi.command(&["download", "verbier"]).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && text.ends_with("Ready for offline operation\n"), "{text}");
    let taken = ["race-1", "ada", "verbier", "verbier-1", "verbier-race"];
    let mut held = ids(&pair.pi);
    held.sort();
    let mut wanted = taken.map(str::to_owned).to_vec();
    wanted.sort();
    assert_eq!(held, wanted, "what it downloaded and what is for everybody");

    let pi_url = pair.pi.serve(&["--upstream", &url]);
    let added = pair.pi.ask(&["device", "add", "Tablet", "--role", "venue"]);
    let mut tablet = Node::new(pair.dir.path().join("tablet"));
    put_token(&tablet.dir, added["api_token"].as_str().unwrap());
    tablet.set("ROPEWAY_UPSTREAM_URL", &pi_url);
    let refused = tablet.run(&["download", "arosa"]);
    assert_eq!(refused.code, 1, "the Pi has not got it: {refused:?}");
    assert_eq!(tablet.ask(&["download", "competition:verbier"])["ready"], true);
    assert_eq!(tablet.data("incident", "verbier-1")["bib_number"], 7);
    tablet.write("incident", "t-1", json!({ "race": "verbier-race", "bib_number": 12 }));
    tablet.run(&["sync"]);
    wait_for("the tablet's incident to reach the cloud", || {
        pair.cloud.live("incident").contains_key("t-1").then_some(())
    });
    pair.cloud.write("incident", "verbier-1", json!({ "bib_number": 8 }));
    pair.cloud.write("incident", "arosa-1", json!({ "bib_number": 9 }));
    wait_for("the cloud's word to reach the tablet", || {
        tablet.run(&["sync"]);
        (tablet.data("incident", "verbier-1")["bib_number"] == 8).then_some(())
    });
    assert!(!ids(&tablet).iter().any(|id| id.starts_with("arosa")));

    tablet.write("incident", "t-2", json!({ "race": "verbier-race", "bib_number": 13 }));
    pair.pi.write("incident", "p-1", json!({ "race": "verbier-race", "bib_number": 14 }));
    let held = pair.pi.run(&["clear"]);
    assert_eq!(held.code, 3, "the tablet is behind: {held:?}");
    assert!(held.json()["reasons"].to_string().contains("Tablet"), "{held:?}");
    wait_for("the tablet to have it all", || {
        tablet.run(&["sync"]);
        (pair.pi.run(&["clear", "--dry-run"]).code == 0).then_some(())
    });
    let cleared = pair.pi.ask(&["clear"]);
    assert_eq!((&cleared["cleared"], &cleared["audiences"]), (&json!(true), &json!(["competition:verbier"])));
    let mut left = ids(&pair.pi);
    left.sort();
    assert_eq!(left, ["ada", "race-1"]);
    for id in ["t-1", "t-2", "p-1", "verbier-1"] {
        assert!(pair.cloud.live("incident").contains_key(id), "{id}: nothing was deleted");
    }
    wait_for("the tablet to be told", || {
        tablet.run(&["sync"]);
        let mut left = ids(&tablet);
        left.sort();
        (left == ["ada", "race-1"]).then_some(())
    });
}
