//! What was acknowledged survives `kill -9`, of either side and at any moment (I1, I3, I12).

use crate::rig::{self, Lot, Pair, Ran, incident, pause, wait_for};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    time::Duration,
};

const PAIRS: u64 = 5;
const ROUNDS: u64 = 10;
const INCIDENTS: u64 = 50;
const EDITS: u64 = 5;

/// Each incident's description, and how many changes the cloud must have taken in for it.
type Expected = BTreeMap<String, (String, u64)>;

/// Two processes, an upload of 50 incidents and edits of older ones, and a kill by lot: 50 times, on five
/// pairs side by side, so that the damage of one round would show in every later one of its pair.
#[test]
pub(crate) fn kill_9_of_either_side_during_an_upload_loses_nothing_and_doubles_nothing() {
    let place = rig::place();
    let pair = |seed| std::thread::spawn(move || rig::on(place, || rounds(seed)));
    let pairs: Vec<_> = (0..PAIRS).map(pair).collect();
    let hits: Vec<[u64; 3]> = pairs.into_iter().map(|pair| pair.join().unwrap()).collect();
    let hit = |victim: usize| hits.iter().map(|hits| hits[victim]).sum::<u64>();
    let all = [hit(0), hit(1), hit(2)];
    assert!(all.iter().sum::<u64>() >= PAIRS * ROUNDS / 4, "too few kills hit an upload: {all:?}");
    assert!(all.iter().all(|hits| *hits > 0), "the Pi, the cloud, both: {all:?}");
}

/// How many kills hit an upload: of the Pi, of the cloud, of both.
fn rounds(seed: u64) -> [u64; 3] {
    let mut lot = Lot::new(2026 + seed);
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    let (mut expected, mut hits) = (Expected::new(), [0; 3]);
    for round in 0..ROUNDS {
        let edits = edits(round, &mut expected);
        pair.pi.write_all(&edits);
        // Small batches: many moments at which a kill can hit.
        pair.pi.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 1 + lot.below(12));
        pair.pi.serve(&[]);
        pause(Duration::from_micros(lot.below(150_000)));
        let victim = lot.below(3) as usize;
        if victim != 0 {
            pair.cloud.kill();
        }
        if victim != 1 {
            pair.pi.kill();
        }
        hits[victim] += u64::from(pair.pi.ask(&["status"])["unsettled"] != 0);
        if victim != 0 {
            pair.cloud.serve(&[]);
        }
        pair.settle();
        pair.pi.kill();
        assert_all_there(&pair, &expected);
    }
    hits
}

/// What people write in a round: 50 new incidents, and corrections of older ones.
fn edits(round: u64, expected: &mut Expected) -> Vec<Value> {
    let older: Vec<String> = expected.keys().cloned().collect();
    let mut edits: Vec<Value> = Vec::new();
    for n in 0..INCIDENTS {
        let (id, description) = (format!("incident-{round}-{n}"), format!("seen {round}.{n}"));
        edits.push(incident(&id, &description));
        expected.insert(id, (description, 1));
    }
    for n in 0..EDITS.min(older.len() as u64) {
        let id = &older[(round * 7 + n * 11) as usize % older.len()];
        let (description, changes) = expected.get_mut(id).unwrap();
        let corrected = format!("corrected in {round}");
        if *description != corrected {
            (*description, *changes) = (corrected, *changes + 1);
            edits.push(json!({ "collection": "incident", "id": id, "data": { "description": description } }));
        }
    }
    edits
}

/// Everything with its last value, once, and each change decided once.
fn assert_all_there(pair: &Pair, expected: &Expected) {
    let cloud = pair.cloud.live("incident");
    assert_eq!(cloud.len(), expected.len());
    for (id, (description, changes)) in expected {
        let record = &cloud[id];
        assert_eq!(record["data"]["description"], **description, "{id}");
        assert_eq!(record["version"], *changes, "{id} was changed as often as somebody changed it");
    }
}

/// A receipt that `write` printed is a promise, whatever happens to the process that printed it.
#[test]
pub(crate) fn what_write_printed_is_there_after_kill_9_of_the_writer_and_of_the_node() {
    let mut lot = Lot::new(7);
    let mut pair = Pair::new();
    pair.pi.set("SYSTEM_MODE", "offline_device");
    pair.pi.write("race", "race-1", json!({ "name": "Sprint" }));
    for round in 0..8 {
        pair.pi.serve(&[]);
        let mut child = pair.pi.writer();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stop = 1 + lot.below(30);
        let feeding = std::thread::spawn(move || {
            for n in 0..1_000 {
                if writeln!(stdin, "{}", incident(&format!("w-{round}-{n}"), "x")).is_err() {
                    return;
                }
            }
        });
        let mut printed = Vec::new();
        for _ in 0..stop {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            printed.push(serde_json::from_str::<Value>(&line).unwrap());
        }
        child.kill().unwrap();
        pair.pi.kill();
        child.wait().unwrap();
        feeding.join().unwrap();
        let live = pair.pi.live("incident");
        let queue = pair.pi.ask(&["queue", "ls"]);
        let queued: Vec<&str> =
            queue.as_array().unwrap().iter().filter_map(|e| e["record"].as_str()).collect();
        for receipt in printed {
            let id = receipt["id"].as_str().unwrap();
            assert_eq!(receipt["verdict"], "created");
            assert!(live.contains_key(id), "{id} was acknowledged and is gone");
            assert!(queued.contains(&id), "{id} is there and would never be sent");
        }
        assert_eq!(
            live.len(),
            queued.len() - 1,
            "each incident has its entry in the outbox, and so has the race"
        );
    }
}

/// Two processes write into one data directory while a third serves it and follows: nothing is lost.
#[test]
pub(crate) fn two_writers_beside_a_serving_node_lose_nothing() {
    let mut pair = Pair::new();
    pair.up();
    pair.pi.serve(&[]);
    wait_for("the race to come down", || pair.pi.live("race").contains_key("race-1").then_some(()));
    let writer = |name: &str| {
        let mut child = pair.pi.writer();
        let mut stdin = child.stdin.take().unwrap();
        let edits: Vec<Value> = (0..100).map(|n| incident(&format!("{name}-{n}"), name)).collect();
        let feeding =
            std::thread::spawn(move || edits.iter().for_each(|edit| writeln!(stdin, "{edit}").unwrap()));
        (child, feeding)
    };
    let writers = [writer("left"), writer("right")];
    let both = json!({ "collection": "incident", "id": "both", "data": { "race": "race-1", "description": "serve" } });
    pair.pi.write_all(&[both]);
    for (child, feeding) in writers {
        feeding.join().unwrap();
        let ran: Ran = child.wait_with_output().unwrap().into();
        assert_eq!(ran.exits(0).lines().len(), 100);
    }
    pair.settle();
    let cloud = pair.cloud.live("incident");
    assert_eq!(cloud.len(), 201);
    for name in ["left", "right"] {
        for n in 0..100 {
            let record = &cloud[&format!("{name}-{n}")];
            assert_eq!((&record["data"]["description"], &record["version"]), (&json!(name), &json!(1)));
        }
    }
}
