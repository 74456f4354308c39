//! Bad input: settings, profiles, database files and records that cannot be used. Each gets a clear error,
//! changes nothing, and says whether the data is safe.

use crate::rig::{Node, Pair, Ran, ropeway};
use serde_json::{Value, json};
use std::fs;

/// The error of a command that failed with `--json`.
fn error(ran: &Ran) -> String {
    let error = &ran.json()["error"];
    format!("{} / {}", error["what"].as_str().unwrap(), error["next"].as_str().unwrap_or_default())
}

/// ISMF-032.
#[test]
fn another_system_mode_refuses_to_start_and_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path().join("node"));
    node.set("SYSTEM_MODE", "foo");
    for command in [&["serve"][..], &["status"], &["write", "race", "{}"]] {
        let said = error(&node.run(command).exits(2));
        for word in ["SYSTEM_MODE", "foo", "`cloud`", "`offline_device`"] {
            assert!(said.contains(word), "{said}");
        }
    }
    assert!(!node.dir.exists(), "nothing was made");
    node.set("SYSTEM_MODE", "offline_device");
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    node.unset("SYSTEM_MODE");
    let status = node.ask(&["status"]);
    assert_eq!(
        (&status["follows"], &status["unsettled"]),
        (&json!(true), &json!(1)),
        "the database remembers: {status}"
    );
    node.write("race", "race-2", json!({ "name": "Relay" }));
    assert_eq!(node.ask(&["status"])["unsettled"], 2, "whoever writes, it enters the outbox");
}

#[test]
fn a_malformed_profile_is_shown_by_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.toml");
    let name = file.display().to_string();
    let profile = "name = \"app\"\nversion = 1\n[roles.admin]\nwrite = \"*\"\nresolve = true\n[collections.a]\nreferences = { b = \"nowhere\" }\n";
    fs::write(&file, profile).unwrap();
    let checked: Ran = ropeway().args(["check", &name]).output().unwrap().into();
    let checked = checked.exits(1);
    assert!(
        checked.stdout.contains(&format!("{name}:7:")) && checked.stdout.contains("nowhere"),
        "{checked}"
    );
    let json: Ran = ropeway().args(["check", &name, "--json"]).output().unwrap().into();
    let mistakes = json.exits(1).json()["mistakes"].clone();
    assert_eq!((&mistakes[0]["line"], mistakes[0]["column"].is_u64()), (&json!(7), true), "{mistakes}");
    let node = Node::new(dir.path().join("node"));
    let said = error(&node.run(&["serve", "--profile", &name]).exits(2));
    assert!(said.contains(&format!("{name}:7:")), "{said}");
    fs::write(&file, "name = 'app\n").unwrap();
    let broken: Ran = ropeway().args(["check", &name]).output().unwrap().into();
    assert!(broken.exits(1).stdout.contains(&format!("{name}:1:")));
    fs::write(&file, "[limits]\npage_rows = 1\nlisten_on = 2\n").unwrap();
    let config: Ran = ropeway().args(["check", &name]).output().unwrap().into();
    assert!(config.exits(1).stdout.contains("listen_on"));
    fs::write(&file, "[limits]\npage_rows = 1\n").unwrap();
    let config: Ran = ropeway().args(["check", &name]).output().unwrap().into();
    config.exits(0);
}

#[test]
fn a_database_file_cut_short_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path().join("node"));
    node.serve(&[]);
    for n in 0..50 {
        node.write("race", &format!("race-{n}"), json!({ "name": "x".repeat(2_000) }));
    }
    assert_eq!(node.stop(), 0);
    let file = node.dir.join("ropeway.db");
    let whole = fs::read(&file).unwrap();
    for length in [whole.len() / 2, 50, 10] {
        fs::write(&file, &whole[..length]).unwrap();
        for command in [&["status"][..], &["serve"], &["write", "race", "{\"name\":\"y\"}"]] {
            let said = error(&node.run(command).exits(1));
            assert!(said.contains("ropeway.db") || said.contains("damaged"), "{said}");
            assert!(said.contains("backup") && said.contains("copy"), "it says what to do: {said}");
        }
        assert_eq!(fs::read(&file).unwrap(), whole[..length], "nothing was written to it");
    }
    fs::write(&file, "this is no database at all, and long enough to look at").unwrap();
    assert!(error(&node.run(&["status"]).exits(1)).contains("not a SQLite database"));
    fs::write(&file, &whole).unwrap();
    assert_eq!(node.live("race").len(), 50);
}

#[test]
fn the_database_of_another_app_or_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    let other = dir.path().join("other.toml");
    let text = ropeway_race_logger::PROFILE.replace("name = \"race-logger\"", "name = \"other\"");
    fs::write(&other, text).unwrap();
    let said = error(&node.run(&["status", "--profile", &other.display().to_string()]).exits(1));
    assert!(said.contains("`race-logger`") && said.contains("`other`"), "{said}");
    assert!(error(&node.run(&["status", "--profile", "insight"]).exits(2)).contains("race-logger"));
    assert_eq!(node.data("race", "race-1")["name"], "Sprint");
    let said = error(&node.run(&["serve", "--database", "mysql://ropeway@db/ropeway"]).exits(2));
    assert!(said.contains("`mysql` is no database"), "{said}");
    let db = rusqlite::Connection::open(node.dir.join("ropeway.db")).unwrap();
    db.execute("INSERT INTO rw_schema (version, applied_at, checksum) VALUES (99, 0, 0)", []).unwrap();
    drop(db);
    let said = error(&node.run(&["status"]).exits(1));
    assert!(said.contains("schema 99") && said.contains("nothing was changed"), "{said}");
}

#[test]
fn a_node_with_records_does_not_begin_to_follow_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    let said = error(&node.run(&["sync", "--upstream", "http://127.0.0.1:9"]).exits(1));
    assert!(said.contains("never be sent") && said.contains("--from"), "{said}");
    assert_eq!(node.ask(&["status"])["follows"], false);
    let status = Node::new(dir.path().join("nowhere"));
    assert!(error(&status.run(&["status"]).exits(1)).contains("there is no database"));
    assert!(!status.dir.exists());
}

/// Records that cannot be taken in: an exit code, a reason, and nothing is written.
#[test]
fn records_that_cannot_be_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    let before = node.canonical();
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let refused = |collection: &str, data: Value, code: &str| {
        let file = dir.path().join("edit.ndjson");
        fs::write(&file, json!({ "collection": collection, "data": data }).to_string()).unwrap();
        let ran = node.run(&["write", "--from", &file.display().to_string()]).exits(3);
        let receipt = ran.json();
        assert_eq!(
            (&receipt["verdict"], &receipt["reason"]["code"]),
            (&json!("rejected"), &json!(code)),
            "{receipt}"
        );
        assert!(receipt["reason"]["text"].as_str().unwrap().len() > 10, "{receipt}");
    };
    refused("weather", json!({}), "unknown_collection");
    refused("incident", json!({ "race": "race-1", "bib_number": "seven" }), "invalid");
    refused("incident", json!({ "description": "which race?" }), "invalid");
    refused("incident", json!({ "race": "never-was" }), "parent_missing");
    refused("incident", json!({ "race": "race-1", "note": "x".repeat(2 << 20) }), "too_large");
    refused("incident", json!({ "race": "race-1", "note": deep }), "invalid");
    node.run(&["write", "incident", &"x".repeat(129), "{}"]).exits(2);
    node.run(&["write", "incident", "i-1", "{not json"]).exits(2);
    node.run(&["write", "incident", "i-1", "[1]"]).exits(2);
    node.run(&["write", "incident", "i-1", "{\"race\":\"race-1\"}", "--role", "emperor"]).exits(2);
    node.run(&["write", "incident", "i-1", "{\"race\":\"race-1\"}", "--role", "viewer"]).exits(1);
    assert_eq!(node.canonical(), before, "nothing of it was written");
}

/// A tampered or foreign cursor, a captive portal and a path under another program are met by name.
#[test]
fn what_answers_and_is_no_ropeway_counts_as_offline() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write("incident", "i-1", json!({ "race": "race-1" }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let portal = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let mut client = client;
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 7\r\nconnection: close\r\n\r\nWelcome");
        }
    });
    let report = pair.pi.run(&["sync", "--upstream", &portal]).exits(4).json();
    assert_eq!((&report["outcome"], &report["unsettled"]), (&json!("offline"), &json!(1)), "{report}");
    pair.settle();
}
