//! The contract with scripts: the first line, the exit codes, and JSON from every command.

use crate::rig::{Node, Pair, Ran, ropeway, wait_for};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_first_line_names_the_address_and_sigterm_ends_with_0() {
    let mut pair = Pair::new();
    let url = pair.up();
    assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    assert!(get(&url, "/health/ready").starts_with("HTTP/1.1 200"));
    assert!(get(&url, "/version").contains("\"service\":\"ropeway\""));
    pair.pi.serve(&[]);
    wait_for("the race to come down", || pair.pi.live("race").contains_key("race-1").then_some(()));
    assert_eq!((pair.pi.stop(), pair.cloud.stop()), (0, 0));
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let taken = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let ran = pair.cloud.run(&["serve", "--listen", &format!("127.0.0.1:{port}")]).exits(1);
    assert!(ran.json()["error"]["what"].as_str().unwrap().contains(&port), "{ran}");
    drop(taken);
    pair.cloud.run(&["serve", "--listen", "nonsense"]).exits(2);
}

/// Each command that shows something prints one JSON document, or one a line, with or without a `serve`.
#[test]
pub(crate) fn every_command_speaks_json_whether_or_not_a_node_serves() {
    let mut pair = Pair::new();
    for serves in [false, true] {
        if serves {
            pair.up();
            pair.settle();
            pair.pi.serve(&[]);
        }
        let node = &pair.cloud;
        let id = format!("race-{serves}");
        let receipt = node.write("race", &id, json!({ "name": "Relay" }));
        assert_eq!((&receipt["verdict"], &receipt["version"]), (&json!("created"), &json!(1)));
        assert_eq!(node.write("race", &id, json!({ "name": "Relay" }))["verdict"], "unchanged");
        assert_eq!(node.ask(&["get", "race", &id])["data"]["name"], "Relay");
        assert!(node.run(&["get", "race"]).exits(0).lines().iter().all(|row| row["state"] == "live"));
        assert!(node.run(&["dump"]).exits(0).lines().len() >= 2);
        assert!(node.run(&["dump", "--canonical"]).exits(0).lines().len() >= 2);
        assert_eq!(node.ask(&["delete", "race", &id])["verdict"], "applied");
        assert_eq!(node.ask(&["get", "race", &id])["state"], "deleted");
        let status = node.ask(&["status"]);
        assert_eq!((&status["profile"], &status["space"]), (&json!("race-logger"), &json!("main")));
        assert_eq!(node.ask(&["queue", "ls"]), json!([]));
        assert_eq!(node.ask(&["queue", "retry"])["armed"], 0);
        assert_eq!(node.ask(&["conflicts", "ls"]), json!([]));
        assert_eq!(node.ask(&["device", "ls"])[0]["name"], "Start Line Pi");
        let email = format!("jury-{serves}@example.org");
        let added = node.ask(&["user", "add", &email, "--role", "jury_president"]);
        assert_eq!(added["password"].as_str().map(str::len), Some(24), "{added}");
        assert!(!node.ask(&["user", "ls"]).to_string().contains("password"));
        assert_eq!(node.ask(&["user", "disable", &email])["disabled"], true);
        let checks = node.run(&["doctor"]).exits(0).lines();
        assert!(checks.iter().all(|check| check["found"] == "ok"), "{checks:?}");
    }
    assert_eq!(pair.pi.ask(&["sync"])["digests"]["equal"], true);
    let openapi: Ran = ropeway().args(["openapi", "--json"]).output().unwrap().into();
    assert!(openapi.exits(0).json()["paths"]["/v1/push"].is_object());
    let limits: Ran = ropeway().args(["check", "--limits", "--json"]).output().unwrap().into();
    assert!(limits.exits(0).json().as_array().unwrap().len() > 20);
}

/// 0 done, 1 failed, 2 usage, 3 partly, 4 unreachable. Partly and unreachable are in the tests of the network
/// and of people.
#[test]
fn wrong_usage_exits_2_and_what_is_not_there_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    for usage in [
        &["write"][..],
        &["write", "race"],
        &["frobnicate"],
        &["sync"],
        &["queue", "discard"],
        &["conflicts", "resolve", "c-1", "--person", "P"],
        &["conflicts", "resolve", "c-1", "--person", "P", "--keep", "server", "--merged", "{}"],
        &["get", "weather"],
        &["status", "--space", "Not A Space"],
        &["status", "--config", "/nonexistent/ropeway.toml"],
        &["check", "/nonexistent/profile.toml"],
        &["device", "add", "Pi", "--metadata", "no"],
        &["status", "--log", "a=b=c"],
    ] {
        let ran = node.run(usage);
        assert_eq!(ran.code, 2, "{usage:?}: {ran}");
    }
    for failed in [
        &["get", "race", "race-9"][..],
        &["conflicts", "show", "c-1"],
        &["conflicts", "resolve", "c-1", "--person", "P", "--keep", "server"],
        &["device", "revoke", "nobody", "--yes"],
        &["user", "disable", "nobody@example.org"],
        &["user", "add", "no address", "--role", "admin"],
        &["device", "add", "Pi", "--role", "emperor"],
        &["queue", "discard", "7", "--yes"],
        &["status", "--space", "elsewhere"],
    ] {
        let ran = node.run(failed);
        assert_eq!(ran.code, 1, "{failed:?}: {ran}");
        assert!(ran.json().is_object(), "{failed:?}: {ran}");
    }
    let device = node.ask(&["device", "add", "Pi"]);
    node.run(&["device", "revoke", device["device_uuid"].as_str().unwrap()]).exits(2);
    assert_eq!(node.ask(&["device", "ls"])[0]["status"], "active", "without --yes nothing happens");
    let help: Ran = ropeway().arg("--help").output().unwrap().into();
    assert!(help.exits(0).stdout.contains("Exit codes"));
    let none: Ran = ropeway().output().unwrap().into();
    none.exits(2);
}

/// ISMF-144: both lines, once, and 64 hexadecimal characters.
#[test]
fn a_device_is_told_its_uuid_and_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path().join("node"));
    let added: Ran = node.command(&["device", "add", "Start Line Pi"]).output().unwrap().into();
    let added = added.exits(0).stdout;
    let line = |name: &str| added.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (uuid, token) = (line("Device UUID: "), line("API Token: "));
    assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{added}");
    assert!(added.contains("upstream.token"), "and where to put it: {added}");
    let listed = node.ask(&["device", "ls"]);
    assert_eq!(
        (&listed[0]["device_uuid"], &listed[0]["system_mode"]),
        (&json!(uuid), &json!("offline_device"))
    );
    assert!(!listed.to_string().contains(&token));
}

/// The first administrator of the environment is added once; a repeated change id answers again.
#[test]
pub(crate) fn the_first_administrator_is_added_once_and_a_change_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path().join("node"));
    let secret = dir.path().join("password");
    std::fs::write(&secret, "correct horse battery\n").unwrap();
    node.set("ROPEWAY_ADMIN_EMAIL", "admin@example.org");
    node.set("ROPEWAY_ADMIN_PASSWORD_FILE", secret.display());
    for _ in 0..2 {
        node.serve(&[]);
        assert_eq!(node.stop(), 0);
    }
    let users = node.ask(&["user", "ls"]);
    assert_eq!(users.as_array().unwrap().len(), 1);
    assert_eq!((&users[0]["email"], &users[0]["role"]), (&json!("admin@example.org"), &json!("admin")));
    assert!(!node.log().contains("correct horse"));
    let write = |name: &str| {
        node.run(&["write", "race", "race-1", &json!({ "name": name }).to_string(), "--change", "c-1"])
    };
    assert_eq!(write("Sprint").exits(0).json()["version"], 1);
    assert_eq!(write("Relay").exits(1).json()["reason"]["code"], "change_reused");
    assert_eq!(node.data("race", "race-1")["name"], "Sprint");
}

/// `sync --watch` prints a line for each sync and ends with 0.
#[test]
pub(crate) fn watching_prints_a_line_for_each_sync() {
    let mut pair = Pair::new();
    pair.up();
    let mut watching =
        pair.pi.command(&["sync", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["trigger"], &first["pulled"]), (&json!("start"), &json!(1)), "{first}");
    pair.pi.write("incident", "i-1", json!({ "race": "race-1" }));
    let mut later = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let pushed = later.find(|sync| sync["pushed"] == 1).unwrap();
    assert_eq!(
        (&pushed["verdicts"]["created"], &pushed["digests"]["equal"]),
        (&json!(1), &json!(true)),
        "{pushed}"
    );
    rustix::process::kill_process(rustix::process::Pid::from_child(&watching), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(0));
    pair.settle();
}
