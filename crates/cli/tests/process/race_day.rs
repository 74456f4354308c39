//! The documents' own system test (ISMF-135): a full competition day, five incidents, twelve reports, no conflict.

use crate::{
    dialect::{Client, Cloud},
    rig::{Node, Pair},
};
use serde_json::{Value, json};

/// Reports of each incident: twelve in all.
const REPORTS: [usize; 5] = [4, 3, 2, 2, 1];

/// The competition as the cloud has it before the day.
fn competition(cloud: &Node) {
    cloud.write("competition", "verbier", json!({ "name": "Verbier 2026" }));
    cloud.write("stage", "day-1", json!({ "competition": "verbier" }));
    cloud.write("race", "sprint", json!({ "stage": "day-1", "name": "Men's Sprint" }));
    cloud.write("race_location", "gate", json!({ "race": "sprint", "name": "Gate 1" }));
    for bib in 1..=5 {
        cloud.write("athlete", &format!("athlete-{bib}"), json!({ "last_name": format!("A{bib}") }));
        let part = json!({ "race": "sprint", "athlete": format!("athlete-{bib}"), "bib_number": bib });
        cloud.write("race_participation", &format!("part-{bib}"), part);
    }
}

/// What the referees see, with references by the names that `name` gives them: each record with its type.
fn seen(name: fn(&str) -> String) -> Vec<(&'static str, String, Value)> {
    let mut records = Vec::new();
    for (n, reports) in REPORTS.into_iter().enumerate() {
        let (bib, at) = (n + 1, format!("2026-02-15T10:{n:02}:00Z"));
        let mut incident = json!({ "bib_number": bib, "description": "cut the course", "created_at": at });
        incident[name("race")] = "sprint".into();
        incident[name("race_location")] = "gate".into();
        records.push(("incident", format!("i{n}"), incident));
        for m in 0..reports {
            let mut report =
                json!({ "bib_number": bib, "created_at": format!("2026-02-15T10:{n:02}:{:02}Z", m + 1) });
            report[name("incident")] = format!("i{n}").into();
            report[name("race_participation")] = format!("part-{bib}").into();
            records.push(("report", format!("r{n}-{m}"), report));
        }
    }
    records
}

/// The day's end: what everybody sees at the cloud.
fn is_complete(admin: &Client) {
    let all = admin.get("/changes");
    let count = |list: &str| all[list].as_array().unwrap().len();
    assert_eq!((count("incidents"), count("reports")), (5, 12), "{all:#}");
    assert_eq!(admin.get("/conflicts?resolution=all")["conflicts"], json!([]));
}

/// ISMF-135, ISMF-001, ISMF-013, ISMF-071, ISMF-116: the Pi downloads, the network goes, the day is written, an
/// emergency competition too; the network comes back and everything is at the cloud; then the Pi is cleared.
#[test]
pub(crate) fn a_race_day_on_a_pi_without_a_network() {
    let mut pair = Pair::with(|_, _| {}, "venue");
    competition(&pair.cloud);
    let added = pair.cloud.ask(&["device", "add", "Office", "--role", "admin"]);
    let url = pair.up();
    assert_eq!(pair.pi.ask(&["download", "verbier"])["ready"], true);
    assert_eq!(pair.pi.live("race_participation").len(), 5);
    pair.cloud.kill();
    for (collection, id, data) in seen(str::to_owned) {
        pair.pi.write(collection, &id, data);
    }
    pair.pi.write("competition", "emergency", json!({ "name": "Emergency Competition" }));
    assert_eq!(pair.pi.run(&["sync"]).code, 4, "out of reach");
    let queue = pair.pi.run(&["queue", "ls"]).json();
    let queue = queue.as_array().unwrap();
    assert_eq!(queue.len(), 18);
    assert!(queue.iter().all(|entry| entry["status"] == "pending" && entry["attempts"] == 0), "{queue:?}");
    assert_eq!(pair.cloud.serve(&[]), url);
    pair.settle();
    is_complete(&Client::of(&url, &added));
    assert_eq!(pair.cloud.data("competition", "emergency")["name"], "Emergency Competition");
    let held = pair.pi.run(&["clear", "--dry-run"]).exits(0).json();
    assert!(held["receipt"]["records"].as_i64().unwrap() > 30, "{held:#}");
    let said = pair.pi.command(&["clear"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let digest = held["receipt"]["digest"].as_str().unwrap();
    assert!(said.contains(digest) && said.ends_with("Ready for next competition\n"), "{said}");
    assert!(pair.pi.live("incident").is_empty() && pair.pi.live("report").is_empty());
    assert_eq!(pair.cloud.live("report").len(), 12, "nothing was deleted");
}

/// ISMF-135, ISMF-030, ISMF-092: the same day by a documented client: download, then one upload a type. Sent again
/// after somebody went on with it, the day is what it was known to be, and what was done since stays.
#[test]
pub(crate) fn a_race_day_over_the_documented_api() {
    let cloud = Cloud::new();
    competition(&cloud.node);
    let pi = cloud.device("device");
    let list = pi.get("/competitions");
    let number = &list["competitions"][0]["id"];
    let document = pi.get(&format!("/download?competition_id={number}"));
    assert_eq!(document["race_participations"].as_array().unwrap().len(), 5);
    let upload = |kind: &str| {
        let seen = seen(|name| format!("{name}_client_uuid"));
        let of_kind = seen.into_iter().filter(|(collection, _, _)| format!("{collection}s") == kind);
        let items: Vec<Value> = of_kind
            .map(|(_, id, mut item)| {
                item["client_uuid"] = id.into();
                item
            })
            .collect();
        pi.upload(kind, &items).0
    };
    assert_eq!(upload("reports"), 422, "their incidents have not come");
    assert_eq!((upload("incidents"), upload("reports")), (201, 201));
    cloud.node.write("incident", "i0", json!({ "description": "cut the course at gate 1" }));
    assert_eq!((upload("incidents"), upload("reports")), (200, 200), "all of it again");
    assert_eq!(cloud.node.data("incident", "i0")["description"], "cut the course at gate 1");
    is_complete(&cloud.admin);
}

/// ISMF-008, ISMF-015, ISMF-017, ISMF-036, ISMF-102, CT-29: both sides count their records for themselves; ids and
/// references hold all the same.
#[test]
pub(crate) fn numbers_are_each_sides_own_and_references_hold() {
    let mut pair = Pair::new();
    for name in ["c-1", "c-2", "c-3"] {
        pair.cloud.write("race", name, json!({ "name": name }));
    }
    let url = pair.cloud.serve(&[]);
    // The Pi begins without the cloud, and counts its own races first.
    pair.pi.set("SYSTEM_MODE", "offline_device");
    pair.pi.write("race", "p-1", json!({ "name": "of the Pi" }));
    pair.pi.write("incident", "i-1", json!({ "race": "p-1", "bib_number": 7 }));
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &url);
    pair.settle();
    let number = |node: &Node, id: &str| node.ask(&["get", "race", id])["local_id"].as_i64().unwrap();
    let (here, there) = (number(&pair.pi, "p-1"), number(&pair.cloud, "p-1"));
    assert!(here == 1 && there > 3, "{here} on the Pi, {there} at the cloud");
    for node in [&pair.pi, &pair.cloud] {
        assert_eq!(node.data("incident", "i-1")["race"], "p-1");
        assert_eq!(node.live("race").len(), 5, "nothing took another's place");
    }
}
