//! Alerts: a local mail server and a local webhook hear of them, once each.

use crate::{
    dialect::{Client, incident},
    rig::{Node, Pair, get, wait_for},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Something that listens and notes what it was told.
struct Heard {
    address: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    /// Listens until the test ends; `talk` speaks with one client and gives what it said.
    fn by(talk: fn(TcpStream) -> Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        thread::spawn(move || {
            for line in listener.incoming().flatten() {
                heard.lock().unwrap().extend(talk(line));
            }
        });
        Self { address, told }
    }

    fn all(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

/// A mail server: takes one mail.
fn smtp(line: TcpStream) -> Option<String> {
    let mut out = line.try_clone().ok()?;
    let mut lines = BufReader::new(line).lines();
    write!(out, "220 here\r\n").ok()?;
    let (mut mail, mut in_mail) = (String::new(), false);
    while let Some(Ok(said)) = lines.next() {
        let answer = match (in_mail, said.as_str()) {
            (true, ".") => {
                in_mail = false;
                "250 taken"
            }
            (true, text) => {
                mail.push_str(text);
                mail.push('\n');
                continue;
            }
            (false, "DATA") => {
                in_mail = true;
                "354 go on"
            }
            (false, "QUIT") => {
                let _ = write!(out, "221 bye\r\n");
                break;
            }
            (false, text) => {
                if text.starts_with("RCPT") {
                    mail.push_str(text);
                    mail.push('\n');
                }
                "250 well"
            }
        };
        write!(out, "{answer}\r\n").ok()?;
    }
    (!mail.is_empty()).then_some(mail)
}

/// A webhook: takes one request.
fn hook(mut line: TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut reader = BufReader::new(line.try_clone().ok()?);
    let mut length = 0;
    loop {
        text.clear();
        reader.read_line(&mut text).ok()?;
        if let Some(value) = text.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if text.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    write!(line, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").ok()?;
    String::from_utf8(body).ok()
}

/// ISMF-146, CT-04: ten conflicts in an hour wake nobody, nor do merges; the eleventh wakes once.
#[test]
fn the_eleventh_conflict_in_an_hour_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mail, web) = (Heard::by(smtp), Heard::by(hook));
    let mut cloud = Node::new(dir.path().join("cloud"));
    cloud.set("SYNC_CONFLICT_EMAIL", "admin@ismf.org");
    cloud.set("ROPEWAY_SMTP_URL", format!("smtp://{}", mail.address));
    cloud.set("ROPEWAY_ALERT_WEBHOOK", format!("http://{}/alerts", web.address));
    cloud.set("ROPEWAY_LIMIT_ALERT_EVERY_MS", 20);
    cloud.write("race", "race-1", json!({ "name": "Sprint" }));
    let added = cloud.ask(&["device", "add", "Pi", "--role", "admin"]);
    let url = cloud.serve(&[]);
    let pi = Client::of(&url, &added);
    let items: Vec<Value> =
        (0..12).map(|n| incident(&format!("i{n}"), n + 1, "2026-02-15T10:00:00Z")).collect();
    pi.incidents(&items);
    let twins: Vec<Value> =
        (0..12).map(|n| incident(&format!("t{n}"), n + 1, "2026-02-15T10:00:05Z")).collect();
    assert!(pi.incidents(&twins).1.iter().all(|result| result["status"] == "merged"));
    let other = |n: u32| json!({ "client_uuid": format!("i{n}"), "bib_number": 1_000 });
    let ten: Vec<Value> = (0..10).map(other).collect();
    assert_eq!(pi.incidents(&ten).0, 409);
    // That the ten were looked at shows in what comes after: the alert counts eleven.
    assert_eq!(pi.incidents(&[other(10)]).0, 409);
    let first = wait_for("the webhook", || web.all().into_iter().next());
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["event"], &first["details"]["conflicts"]), (&json!("conflict_spike"), &json!(11)));
    let text = wait_for("the mail", || mail.all().into_iter().next());
    assert!(text.contains("RCPT TO:<admin@ismf.org>") && text.contains("11 conflicts"), "{text}");
    // The same for machines.
    wait_for("the alert to be shown", || {
        let metrics = get(&url, "/metrics");
        let shows = |line: &str| metrics.lines().any(|shown| shown == line);
        (shows("ropeway_alert{name=\"conflict_spike\"} 1") && shows("ropeway_conflicts_last_hour 11"))
            .then_some(())
    });
    // A twelfth, and a restart, tell nothing new.
    assert_eq!(pi.incidents(&[other(11)]).0, 409);
    cloud.stop();
    cloud.serve(&[]);
    let heads = |node: &Node| node.ask(&["status"])["head"].clone();
    let before = heads(&cloud);
    cloud.write("race", "race-2", json!({}));
    assert_ne!(heads(&cloud), before);
    assert_eq!((web.all().len(), mail.all().len()), (1, 1));
}

/// ISMF-122: what the upstream did not take after the last retry is told, by name.
#[test]
fn what_failed_for_good_is_told_by_name() {
    let web = Heard::by(hook);
    let profile =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../apps/race-logger/profile.toml"));
    let hasty = profile.unwrap().replace(r#"retry = ["1m", "5m", "15m", "1h", "6h"]"#, r#"retry = ["1s"]"#);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hasty.toml");
    std::fs::write(&path, hasty).unwrap();
    let mut pair = Pair::with(
        |_, pi| {
            pi.set("ROPEWAY_PROFILE", path.display());
            pi.set("ROPEWAY_ALERT_WEBHOOK", format!("http://{}/alerts", web.address));
            pi.set("ROPEWAY_LIMIT_ALERT_EVERY_MS", 20);
            pi.set("ROPEWAY_LIMIT_SYNC_EVERY_MS", 20);
        },
        "national_referee",
    );
    let url = pair.up();
    assert!(matches!(pair.pi.run(&["sync"]).code, 0 | 3));
    // The Pi's own desk lets a decision through; the cloud does not take it from this device.
    pair.pi.write("incident", "decided", json!({ "race": "race-1", "decision": "no_action" }));
    pair.pi.serve(&["--upstream", &url]);
    let told = wait_for("the alert", || web.all().into_iter().next());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["event"], &told["details"]["failed"]), (&json!("sync_failed"), &json!(1)), "{told:#}");
    assert_eq!(told["details"]["records"][0]["client_uuid"], "decided");
    let queue = pair.pi.run(&["queue", "ls"]).json();
    assert_eq!(queue[0]["status"], "failed", "{queue:?}");
}
