//! Backup beside a running node, verify, restore; and kills in the middle of each.

use crate::rig::{Lot, Node, PATIENCE, Pair, Place, Ran, get, incident, pause, place, ropeway, wait_for};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

pub(crate) fn verify(file: &Path) -> Ran {
    ropeway().arg("verify").arg(file).arg("--json").output().unwrap().into()
}

/// A node on a server is replaced only where that is said.
pub(crate) fn restore(file: &Path) -> Vec<&str> {
    let told = (place() == Place::Server).then_some("--force");
    ["restore", path(file)].into_iter().chain(told).collect()
}

pub(crate) fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

#[test]
pub(crate) fn a_backup_of_a_serving_node_is_verified_restored_and_never_put_under_one_that_runs() {
    let mut pair = Pair::new();
    pair.up();
    pair.cloud.write_all(&(0..20).map(|n| incident(&format!("early-{n}"), "before")).collect::<Vec<_>>());
    let file = pair.dir.path().join("monday.ropeway");
    let made = pair.cloud.ask(&["backup", path(&file)]);
    assert_eq!(made["manifest"]["spaces"][0]["records"], 21);
    let again = pair.cloud.run(&["backup", path(&file)]).exits(1);
    assert!(again.stdout.contains("is there already"), "{again}");
    assert_eq!(verify(&file).exits(0).json()["manifest"], made["manifest"]);
    let at_backup = pair.cloud.canonical();
    pair.cloud.write_all(&[incident("late", "after")]);

    let refused = pair.cloud.run(&restore(&file)).exits(1);
    assert!(refused.stdout.contains("stop `ropeway serve`"), "{refused}");
    let foreseen = pair.cloud.ask(&["restore", path(&file), "--dry-run"]);
    assert_eq!(foreseen["replaces"]["newer_than_backup"]["main"], 1);
    assert_eq!(pair.cloud.stop(), 0);

    let flipped = pair.dir.path().join("flipped");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&flipped, bytes).unwrap();
    let before = pair.cloud.canonical();
    assert!(verify(&flipped).exits(1).stdout.contains("checksum"));
    assert!(pair.cloud.run(&restore(&flipped)).exits(1).stdout.contains("checksum"));
    assert_eq!(pair.cloud.canonical(), before, "nothing was replaced");

    let epoch = pair.cloud.ask(&["status"])["epoch"].clone();
    let restored = pair.cloud.ask(&restore(&file));
    assert_ne!(restored["epoch"], epoch);
    assert_eq!(pair.cloud.ask(&["status"])["epoch"], restored["epoch"]);
    assert_eq!(pair.cloud.canonical(), at_backup);
    let kept = restored["kept"].as_str().unwrap();
    let mut old = Node::new(pair.dir.path().join("old"));
    match place() {
        Place::File => old.set("ROPEWAY_DATABASE_URL", format!("sqlite:{kept}")),
        Place::Server => drop(old.ask(&["restore", kept])),
    }
    assert_eq!(old.canonical(), before, "what was replaced is kept whole");

    let elsewhere = Node::new(pair.dir.path().join("another machine"));
    elsewhere.ask(&["restore", path(&file)]);
    assert_eq!(elsewhere.canonical(), at_backup, "a backup is enough to begin again");
}

/// The name holds a whole backup at every moment: the old one or the new one.
#[test]
pub(crate) fn kill_9_during_a_backup_leaves_the_backup_that_was_there() {
    let node = Node::new(tempfile::tempdir().unwrap().keep());
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    node.write_all(&(0..2_000).map(|n| incident(&format!("i-{n}"), &"x".repeat(200))).collect::<Vec<_>>());
    let file = node.dir.join("backup");
    let took = timed(|| node.ask(&["backup", path(&file)]));
    let mut lot = Lot::new(15);
    let mut killed = 0;
    for _ in 0..12 {
        let mut command = node.command(&["backup", path(&file), "--force"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(Duration::from_micros(lot.below(took)));
        killed += u64::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(verify(&file).exits(0).json()["manifest"]["spaces"][0]["records"], 2_001);
    }
    assert!(killed > 0, "no kill hit a backup");
    node.ask(&["backup", path(&file), "--force"]);
    let left: Vec<String> = names(&node.dir).into_iter().filter(|name| name.contains(".part")).collect();
    assert_eq!(left, Vec::<String>::new(), "what the killed ones left behind is gone");
    fs::remove_dir_all(&node.dir).unwrap();
}

/// Killed at any moment, the node is what it was or what it was to become.
#[test]
pub(crate) fn kill_9_during_a_restore_leaves_the_old_node_or_the_new_one() {
    let node = Node::new(tempfile::tempdir().unwrap().keep());
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    node.write_all(&(0..1_000).map(|n| incident(&format!("i-{n}"), &"x".repeat(200))).collect::<Vec<_>>());
    let file = node.dir.join("backup");
    node.ask(&["backup", path(&file)]);
    let took = timed(|| node.ask(&restore(&file)));
    let then = node.canonical();
    let mut lot = Lot::new(16);
    let (mut killed, mut became) = (0, 0);
    for round in 0..12 {
        node.write_all(&[incident(&format!("late-{round}"), "after")]);
        let before = node.canonical();
        let mut command = node.command(&restore(&file));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(Duration::from_micros(lot.below(took)));
        killed += u64::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        let after = node.canonical();
        assert!(after == before || after == then, "neither the one nor the other");
        became += u64::from(after == then);
    }
    assert!(killed > 0, "no kill hit a restore, {became} ended");
    let restored = node.ask(&restore(&file));
    assert_eq!(restored["replaces"]["unreadable"], Value::Null);
    assert_eq!(node.canonical(), then);
    let left: Vec<String> = names(&node.dir).into_iter().filter(|name| name.contains(".restoring")).collect();
    assert_eq!(left, Vec::<String>::new());
    fs::remove_dir_all(&node.dir).unwrap();
}

/// How many microseconds it takes on this machine: a kill drawn from within them hits.
#[allow(clippy::disallowed_methods, reason = "how long another process takes can only be measured")]
fn timed(work: impl FnOnce() -> Value) -> u64 {
    let began = Instant::now();
    work();
    u64::try_from(began.elapsed().as_micros()).unwrap().max(1)
}

/// F20: somebody puts the files of two nodes in order again and again while both write and follow. Nobody is refused,
/// nothing is lost, and each side still knows how far it has read.
#[test]
fn a_database_put_in_order_while_it_works_loses_nothing() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.serve(&[]);
    let mut writers = [pair.cloud.writer(), pair.pi.writer()];
    for (n, writer) in writers.iter_mut().enumerate() {
        let mut stdin = writer.stdin.take().unwrap();
        let lines: Vec<Value> = (0..300).map(|i| incident(&format!("i-{n}-{i}"), &"x".repeat(500))).collect();
        std::thread::spawn(move || lines.iter().for_each(|line| writeln!(stdin, "{line}").unwrap()));
    }
    let files = [&pair.cloud, &pair.pi].map(|node| {
        let file = rusqlite::Connection::open(node.dir.join("ropeway.db")).unwrap();
        file.busy_timeout(PATIENCE).unwrap();
        file
    });
    let mut rounds = 0;
    while rounds < 5 || writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        files.iter().for_each(|file| file.execute_batch("VACUUM").unwrap());
        rounds += 1;
    }
    for writer in writers {
        let ran = Ran::from(writer.wait_with_output().unwrap()).exits(0);
        assert_eq!(ran.lines().len(), 300);
    }
    pair.settle();
    for node in [&pair.cloud, &pair.pi] {
        assert_eq!(node.live("incident").len(), 600);
        assert!(node.run(&["doctor"]).exits(0).lines().iter().all(|check| check["found"] != "fail"));
        let log = fs::metadata(node.dir.join("ropeway.db-wal")).unwrap().len();
        assert!(log < 80 << 20, "the log of {rounds} rounds is begun anew: {log} bytes");
    }
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect()
}

/// A cloud and a Pi that both serve; a backup beside writers; an afternoon of work; and back to the backup.
/// What the Pi's people wrote comes back without anybody's doing, what others wrote as one list.
#[test]
pub(crate) fn a_restored_cloud_gets_back_what_its_followers_hold() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.serve(&[]);
    pair.pi.write_all(&(0..10).map(|n| incident(&format!("early-{n}"), "before")).collect::<Vec<_>>());
    pair.settle();
    let file = pair.dir.path().join("noon.ropeway");
    // Taken while both sides write.
    let mut writers = [pair.cloud.writer(), pair.pi.writer()];
    for (n, writer) in writers.iter_mut().enumerate() {
        let mut stdin = writer.stdin.take().unwrap();
        let lines: Vec<Value> = (0..100).map(|i| incident(&format!("during-{n}-{i}"), "during")).collect();
        std::thread::spawn(move || lines.iter().for_each(|line| writeln!(stdin, "{line}").unwrap()));
    }
    pair.cloud.ask(&["backup", path(&file)]);
    for writer in writers {
        Ran::from(writer.wait_with_output().unwrap()).exits(0);
    }
    pair.pi.write_all(&(0..10).map(|n| incident(&format!("early-{n}"), "corrected")).collect::<Vec<_>>());
    pair.pi.write_all(&(0..10).map(|n| incident(&format!("late-{n}"), "after")).collect::<Vec<_>>());
    pair.cloud.write("race", "race-2", json!({ "name": "Relay" }));
    pair.cloud.write("incident", "of-the-var", json!({ "race": "race-2", "description": "on video" }));
    pair.settle();
    let whole = pair.cloud.canonical();

    let lost = pair.cloud.ask(&["status"])["epoch"].as_str().unwrap().to_owned();
    pair.cloud.stop();
    pair.cloud.ask(&restore(&file));
    assert_ne!(pair.cloud.canonical(), whole);
    pair.cloud.serve(&[]);
    // Nobody does anything: the Pi notices by itself.
    wait_for("the Pi's own work to be back in the cloud", || {
        let live = pair.cloud.live("incident");
        let is = |id: String, text: &str| live.get(&id).is_some_and(|r| r["data"]["description"] == *text);
        let all = (0..10).all(|n| is(format!("early-{n}"), "corrected") && is(format!("late-{n}"), "after"));
        (all && (0..100).all(|n| is(format!("during-1-{n}"), "during"))).then_some(())
    });
    let handed_in = || {
        let open = pair.cloud.ask(&["conflicts", "ls"]);
        let of = |record: &str| open.as_array().unwrap().iter().any(|c| c["conflict"]["record"] == *record);
        (of("race-2") && of("of-the-var")).then_some(open)
    };
    let open = wait_for("the list to be handed in", handed_in);
    let all_lost = open.as_array().unwrap().iter().all(|c| c["conflict"]["kind"] == "lost");
    assert!(all_lost, "{open}");
    pair.settle();
    assert!(!pair.cloud.live("race").contains_key("race-2"));

    let told =
        pair.cloud.ask(&["conflicts", "resolve", "--all-of", &lost, "--keep", "incoming", "--person", "Jo"]);
    assert_eq!(told["answered"], open.as_array().unwrap().len());
    pair.settle();
    assert_eq!(pair.cloud.canonical(), whole);
}

/// A cloud whose clock was a year ahead for a morning. Set right, its head is an alarm wherever somebody looks, and
/// the cure that the alarm names brings it back to the clock. A Pi that had read all of that year goes on by itself:
/// what was lost after the backup, what it had not sent yet and what waits for a person are all there.
#[test]
pub(crate) fn a_head_a_year_ahead_is_cured_and_its_followers_go_on() {
    let mut pair = Pair::new();
    let clock = pair.dir.path().join("clock");
    let off_by = |seconds: i64| fs::write(&clock, (seconds * 1_000_000).to_string()).unwrap();
    off_by(365 * 86_400);
    pair.cloud.set("ROPEWAY_TEST_CLOCK", clock.display());
    pair.up();
    pair.pi.serve(&[]);
    pair.cloud.write_all(&(0..10).map(|n| incident(&format!("var-{n}"), "of next year")).collect::<Vec<_>>());
    pair.pi.write_all(&(0..10).map(|n| incident(&format!("pi-{n}"), "of today")).collect::<Vec<_>>());
    pair.settle();
    assert_eq!(at_the_clock(&pair, "then"), (false, false), "the year is real");

    off_by(0);
    let alarms = [
        pair.cloud.ask(&["status"])["head_alarm"].to_string(),
        get(&pair.cloud.url(), "/health/ready"),
        pair.cloud.run(&["doctor"]).exits(1).stdout,
    ];
    for alarm in &alarms {
        assert!(alarm.contains("s ahead of this machine's clock") && alarm.contains("--restamp"), "{alarm}");
    }
    let file = pair.dir.path().join("now.ropeway");
    pair.cloud.ask(&["backup", path(&file)]);
    pair.cloud.write("incident", "var-0", json!({ "description": "after the backup" }));
    pair.pi.write("incident", "pi-0", json!({ "description": "after the backup" }));
    pair.settle();
    let whole = pair.cloud.canonical();
    let lost = pair.cloud.ask(&["status"])["epoch"].as_str().unwrap().to_owned();
    pair.cloud.stop();
    pair.pi.write("incident", "pi-1", json!({ "description": "not sent yet" }));
    pair.cloud.ask(&[restore(&file), vec!["--restamp"]].concat());
    assert_eq!(pair.cloud.ask(&["status"])["head_alarm"], Value::Null);
    pair.cloud.serve(&[]);
    assert!(get(&pair.cloud.url(), "/health/ready").starts_with("HTTP/1.1 200"));

    // Nobody does anything: the Pi notices by itself.
    let said = |id: &str| pair.cloud.data("incident", id)["description"].clone();
    wait_for("the Pi's own work to be back in the cloud", || {
        (said("pi-0") == "after the backup" && said("pi-1") == "not sent yet").then_some(())
    });
    wait_for("the list to be handed in", || {
        let open = pair.cloud.ask(&["conflicts", "ls"]);
        let open = open.as_array().unwrap();
        (open.len() == 1 && open[0]["conflict"]["record"] == "var-0").then_some(())
    });
    pair.cloud.ask(&["conflicts", "resolve", "--all-of", &lost, "--keep", "incoming", "--person", "Jo"]);
    pair.pi.write("incident", "pi-1", json!({ "description": "of today" }));
    pair.settle();
    assert_eq!(pair.cloud.canonical(), whole, "all that was written is there, and nothing else");
    assert_eq!(at_the_clock(&pair, "now"), (true, true), "every record and the next one are at the clock");
    assert_eq!(pair.cloud.run(&["doctor"]).exits(0).code, 0);
    pair.settle();
}

/// Whether every stamp of the cloud, and the next one that it gives, lie before that of a node that begins now.
fn at_the_clock(pair: &Pair, next: &str) -> (bool, bool) {
    let written = |node: &Node| node.write("race", next, json!({}))["stamp"].as_i64().unwrap();
    let next = written(&pair.cloud);
    let fresh = tempfile::tempdir().unwrap();
    let now = written(&Node::new(fresh.path().to_owned()));
    let all = pair.cloud.live("incident");
    (all.values().all(|record| record["stamp"].as_i64().unwrap() < now), next < now)
}
