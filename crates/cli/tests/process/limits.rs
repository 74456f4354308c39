//! A node that has no room for another connection, one whose syncing is switched off, and a login page in the
//! upstream's place.

use crate::rig::{Pair, get, incident, wait_for};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Out of file descriptors (EMFILE): those who are connected are served, nobody is cut off, the log is not
/// flooded, and with room again everybody is let in.
#[test]
fn a_node_out_of_descriptors_lives_on() {
    let mut pair = Pair::new();
    pair.cloud.set("ROPEWAY_LIMIT_HEADER_TIMEOUT_MS", 60_000);
    let mut sh = Command::new("/bin/sh");
    sh.env_clear().args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ropeway"), "serve"]);
    sh.env("ROPEWAY_LIMIT_HEADER_TIMEOUT_MS", "60000").arg("--data-dir").arg(&pair.cloud.dir);
    let url = pair.cloud.serve_by(sh, &[]);
    let address = url.strip_prefix("http://").unwrap();
    let mut first = TcpStream::connect(address).unwrap();
    let held: Vec<TcpStream> = (0..120).map(|_| TcpStream::connect(address).unwrap()).collect();
    wait_for("the last descriptor", || pair.cloud.log().contains("cannot be accepted").then_some(()));
    first.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut head = [0; 15];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK", "whoever is connected is served");
    drop(held);
    assert!(get(&url, "/health/ready").starts_with("HTTP/1.1 200"));
    assert!(pair.cloud.is_up());
    assert!(pair.cloud.log().matches("cannot be accepted").count() < 10, "{}", pair.cloud.log());
    pair.pi.set("ROPEWAY_UPSTREAM_URL", &url);
    pair.settle();
}

/// `SYNC_ENABLED=false` (ISMF-145): devices are told to come back later and keep everything; the desk works.
#[test]
fn a_node_whose_syncing_is_switched_off_keeps_everybody_waiting() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write_all(&[incident("i-1", "missed a gate")]);
    assert_eq!(pair.cloud.stop(), 0);
    pair.cloud.set("SYNC_ENABLED", "false");
    pair.up();
    let report = pair.pi.run(&["sync"]).exits(1).json();
    assert_eq!((&report["problem"], &report["unsettled"]), (&json!("unavailable"), &json!(1)), "{report}");
    assert!(report["error"].as_str().unwrap().contains("SYNC_ENABLED"), "{report}");
    assert_eq!(pair.pi.ask(&["queue", "ls"])[0]["attempts"], 0);
    pair.cloud.write_all(&[incident("c-1", "the desk works")]);
    assert_eq!(pair.cloud.stop(), 0);
    pair.cloud.unset("SYNC_ENABLED");
    pair.up();
    pair.settle();
    assert_eq!(pair.cloud.live("incident").len(), 2);
}

/// TR-18: between a node and its cloud stands a login page that answers 200 to everything. That is being
/// offline: exit 4, nothing marked as sent, no try used up; behind the page everything goes.
#[test]
fn a_login_page_in_the_clouds_place_is_being_offline() {
    let mut pair = Pair::new();
    let url = pair.up();
    pair.settle();
    pair.pi.write_all(&[incident("i-1", "missed a gate")]);
    assert_eq!(pair.cloud.stop(), 0);
    let listener = TcpListener::bind(url.strip_prefix("http://").unwrap()).unwrap();
    let open = Arc::new(AtomicBool::new(true));
    let goes_on = open.clone();
    let portal = std::thread::spawn(move || {
        for socket in listener.incoming() {
            if !goes_on.load(SeqCst) {
                return;
            }
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 8192]);
            let page = "<html>Welcome. Please log in.</html>";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close";
            let _ = write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        }
    });
    for _ in 0..5 {
        let report = pair.pi.run(&["sync"]).exits(4).json();
        assert_eq!((&report["outcome"], &report["unsettled"]), (&json!("offline"), &json!(1)), "{report}");
    }
    let entry = pair.pi.ask(&["queue", "ls"])[0].clone();
    assert_eq!((&entry["attempts"], &entry["status"]), (&json!(0), &json!("pending")), "{entry}");
    let status = pair.pi.ask(&["status"]);
    assert!(status["last_sync"]["error"].as_str().unwrap().contains("no Ropeway"), "{status}");
    open.store(false, SeqCst);
    drop(TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap());
    portal.join().unwrap();
    pair.up();
    pair.settle();
    assert!(pair.cloud.live("incident").contains_key("i-1"));
}
