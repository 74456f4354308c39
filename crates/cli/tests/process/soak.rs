//! Random work and random faults on seven real nodes; then quiet. Every outbox drains, all agree, and every
//! value that anybody entered can be found (I3, I4, I12).

use crate::{
    rig::{Lot, Node, Ran, setting},
    valley::{Cable, NAMES, Valley, breathe},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long everything may take to come to rest once the faults have ended (I12), in seconds. On a machine that
/// has nothing else to do it takes a few.
const REST: u64 = 60;

/// What a person entered and saw taken in.
struct Entered {
    word: String,
    station: usize,
    record: (String, String),
}

/// Who entered what, and where.
#[derive(Default)]
struct Ledger {
    entered: Vec<Entered>,
    words: usize,
    incidents: Vec<String>,
    /// What was done how often, to be printed.
    done: BTreeMap<&'static str, usize>,
}

impl Ledger {
    fn word(&mut self, station: usize) -> String {
        self.words += 1;
        format!("said-{}-{}", NAMES[station], self.words)
    }
}

struct Soak {
    valley: Valley,
    lot: Lot,
    ledger: Ledger,
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it lasts as long as it was told to")]
fn seven_nodes_come_to_rest_and_nothing_that_was_entered_is_lost() {
    let (seconds, seed) = (setting("ROPEWAY_SOAK_SECONDS", 20), setting("ROPEWAY_SEED", 1));
    let mut soak = Soak { valley: Valley::begin(seed), lot: Lot::new(seed), ledger: Ledger::default() };
    let (began, mut told) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(seconds) {
        soak.step();
        if began.elapsed() > told + Duration::from_secs(30) {
            told = began.elapsed();
            eprintln!("{told:.0?}: {} values entered, {:?}", soak.ledger.entered.len(), soak.ledger.done);
        }
    }
    soak.valley.heal();
    let healed = Instant::now();
    soak.come_to_rest(healed);
    eprintln!(
        "{seconds} s, seed {seed}: {} values entered, at rest after {:.1?}; {:?}",
        soak.ledger.entered.len(),
        healed.elapsed(),
        soak.ledger.done
    );
    soak.everything_is_found();
}

impl Soak {
    fn count(&mut self, what: &'static str) {
        *self.ledger.done.entry(what).or_default() += 1;
    }

    /// One thing happens, by lot.
    fn step(&mut self) {
        let station = [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6][self.lot.below(11) as usize];
        match self.lot.below(100) {
            0..30 => self.create(station),
            30..62 => self.edit(station),
            62..68 => self.decide(station),
            68..72 => self.edit_stale(station),
            72..75 => self.delete(station),
            75..78 => self.answer_a_conflict(),
            78 => self.give_up(station),
            79..91 => self.fault(station),
            _ => breathe(self.lot.below(80)),
        }
    }

    /// Writes one edit with a word of its own, and notes it once it was taken in.
    fn enter(&mut self, station: usize, collection: &str, id: &str, mut data: Value) {
        let word = self.ledger.word(station);
        data["description"] = json!(word);
        let edit = json!({ "collection": collection, "id": id, "data": data });
        if self.lot.below(60) == 0 {
            self.count("desks killed");
            return self.valley.stations[station].write_and_kill(&edit);
        }
        let Some(receipt) = self.valley.stations[station].write(&edit) else {
            return self.count("desks that died");
        };
        self.note(station, word, (collection.to_owned(), id.to_owned()), &receipt);
    }

    fn note(&mut self, station: usize, word: String, record: (String, String), receipt: &Value) {
        match receipt["verdict"].as_str() {
            Some("rejected" | "waiting") | None => self.count("refused"),
            Some(_) => self.ledger.entered.push(Entered { word, station, record }),
        }
    }

    /// A new incident, often the twin of one that another station sees at the same moment; or a report.
    fn create(&mut self, station: usize) {
        let known = self.ledger.incidents.len() as u64;
        if known > 0 && self.lot.below(3) == 0 {
            let incident = self.ledger.incidents[self.lot.below(known) as usize].clone();
            let id = format!("report-{}", self.ledger.words);
            return self.enter(station, "report", &id, json!({ "incident": incident }));
        }
        let id = format!("incident-{}", self.ledger.words);
        let (bib, second) = (1 + self.lot.below(60), self.lot.below(60));
        let mut data = json!({ "race": "race-1", "bib_number": bib });
        if self.lot.below(2) == 0 {
            data["created_at"] = json!(format!("2026-02-14T10:{:02}:{second:02}Z", self.lot.below(4)));
        }
        self.ledger.incidents.push(id.clone());
        self.enter(station, "incident", &id, data);
    }

    /// An incident that somebody knows, mostly a late one.
    fn some_incident(&mut self) -> Option<String> {
        let known = self.ledger.incidents.len() as u64;
        let reach = if self.lot.below(4) == 0 { known.max(1) } else { 12 };
        let back = self.lot.below(reach);
        self.ledger.incidents.get((known.checked_sub(1 + back)?) as usize).cloned()
    }

    fn edit(&mut self, station: usize) {
        let Some(id) = self.some_incident() else { return };
        self.enter(station, "incident", &id, json!({ "race": "race-1" }));
    }

    fn decide(&mut self, station: usize) {
        let Some(id) = self.some_incident() else { return };
        let decision = ["no_action", "penalty_applied", "rejected"][self.lot.below(3) as usize];
        self.enter(
            station,
            "incident",
            &id,
            json!({ "race": "race-1", "decision": decision, "status": "official" }),
        );
    }

    /// An edit of somebody who looked at an older version.
    fn edit_stale(&mut self, station: usize) {
        let Some(id) = self.some_incident() else { return };
        let word = self.ledger.word(station);
        let data = json!({ "description": word }).to_string();
        let node = &self.valley.stations[station].node;
        let Some(seen) = node.run(&["get", "incident", &id]).parsed() else { return };
        let version = seen["version"].as_u64().unwrap_or(1).saturating_sub(1).to_string();
        let ran = node.run(&["write", "incident", &id, &data, "--version", &version]);
        if let Some(receipt) = ran.parsed() {
            self.count("stale edits");
            self.note(station, word, ("incident".into(), id), &receipt);
        }
    }

    fn delete(&mut self, station: usize) {
        let Some(id) = self.some_incident() else { return };
        self.valley.stations[station].node.run(&["delete", "incident", &id]);
        self.count("deletions");
    }

    fn give_up(&mut self, station: usize) {
        let given_up = self.valley.stations[station].give_up_refused();
        *self.ledger.done.entry("refusals given up").or_default() += given_up;
    }

    fn answer_a_conflict(&mut self) {
        let cloud = &self.valley.stations[0].node;
        let Some(Value::Array(open)) = cloud.run(&["conflicts", "ls"]).parsed() else { return };
        if open.is_empty() {
            return;
        }
        let id = open[self.lot.below(open.len() as u64) as usize]["id"].as_str().unwrap().to_owned();
        let keep = ["server", "incoming"][self.lot.below(2) as usize];
        let jury = ["--person", "Jury president", "--role", "jury_president"];
        let ran = cloud.run(&[&["conflicts", "resolve", &id, "--keep", keep][..], &jury].concat());
        self.count(if ran.code == 0 { "conflicts answered" } else { "answers refused" });
    }

    /// Something breaks, or is mended.
    fn fault(&mut self, station: usize) {
        let kind = self.lot.below(14);
        let seconds = self.lot.below(366 * 86_400) as i64;
        let pause = self.lot.below(3_000);
        let some = &mut self.valley.stations[station];
        let what = match kind {
            0..3 => {
                some.set_cable(Cable::Cut);
                "cables cut"
            }
            3..5 => {
                some.set_cable(Cable::Bad);
                "cables made bad"
            }
            5..7 => {
                some.set_cable(Cable::Whole);
                "cables mended"
            }
            7..9 => {
                some.kill();
                "kill -9"
            }
            9..11 => {
                some.resume();
                some.start();
                "started again"
            }
            11 => {
                // Not for long: the desk beside it waits for the lock that it may hold.
                some.pause();
                breathe(pause);
                some.resume();
                "machines paused"
            }
            12 => {
                some.set_clock(if seconds % 2 == 0 { seconds } else { -seconds });
                "clocks that jumped"
            }
            _ => {
                some.resume();
                some.set_clock(0);
                "clocks set"
            }
        };
        self.count(what);
    }

    /// Waits until nothing waits anywhere and all hold the same.
    #[allow(clippy::disallowed_methods, reason = "how long it takes is what is promised")]
    fn come_to_rest(&mut self, healed: Instant) {
        let most = Duration::from_secs(setting("ROPEWAY_SOAK_REST", REST));
        loop {
            // A node that is at a long piece of work may not answer in time.
            let status = |node: &Node| node.run(&["status"]).parsed().unwrap_or_default();
            let states: Vec<Value> = self.valley.stations.iter().map(|s| status(&s.node)).collect();
            let is_quiet = states.iter().all(|s| s["unsettled"] == 0 && s["digest"] == states[0]["digest"]);
            if is_quiet {
                break;
            }
            eprintln!("not at rest after {:.1?}: {}", healed.elapsed(), unrest(&states));
            let refused = |state: &Value| state["outbox"]["rejected"].as_u64().unwrap_or(0) > 0;
            (0..states.len()).filter(|n| refused(&states[*n])).for_each(|n| self.give_up(n));
            if healed.elapsed() > most {
                self.explain(&states, most);
            }
            breathe(100);
        }
        let cloud = self.valley.stations[0].node.canonical();
        for (station, name) in self.valley.stations.iter().zip(NAMES) {
            assert!(station.node.canonical() == cloud, "{name} holds other records than the cloud");
        }
    }

    fn explain(&mut self, states: &[Value], most: Duration) -> ! {
        let mut text = String::new();
        for ((station, state), name) in self.valley.stations.iter().zip(states).zip(NAMES) {
            let queue = station.node.ask(&["queue", "ls"]);
            let first: Vec<String> =
                queue.as_array().unwrap().iter().take(4).map(ToString::to_string).collect();
            text += &format!(
                "{name}: digest {} outbox {} last {}\n  {}\n",
                state["digest"],
                state["outbox"],
                state["last_sync"],
                first.join("\n  ")
            );
        }
        self.keep();
        panic!("no rest within {most:?} after the faults ended\n{text}");
    }

    /// Every word is in the cloud, or at the desk where it was entered and somebody there entered another
    /// for the same record before it could be sent: that one is in the cloud.
    fn everything_is_found(&mut self) {
        let words: Vec<BTreeSet<String>> = self.valley.stations.iter().map(|s| s.words()).collect();
        let mut lost = Vec::new();
        let mut later: BTreeSet<(usize, &(String, String))> = BTreeSet::new();
        for Entered { word, station, record } in self.ledger.entered.iter().rev() {
            let replaced = words[*station].contains(word) && later.contains(&(*station, record));
            if words[0].contains(word) {
                later.insert((*station, record));
            } else if !replaced {
                let at: Vec<&str> = words
                    .iter()
                    .zip(NAMES)
                    .filter(|(words, _)| words.contains(word))
                    .map(|(_, n)| n)
                    .collect();
                lost.push(format!("{word} of {record:?}, only at {at:?}"));
            }
        }
        if !lost.is_empty() {
            let (count, all) = (lost.len(), self.ledger.entered.len());
            lost.truncate(20);
            self.keep();
            panic!("{count} of {all} values are lost:\n{}", lost.join("\n"));
        }
    }

    /// Keeps the data directories for the one who looks for the reason.
    fn keep(&mut self) {
        self.valley.dir.disable_cleanup(true);
        eprintln!("the nodes are kept in {}", self.valley.dir.path().display());
    }
}

/// Who is not at rest yet, and with what.
fn unrest(states: &[Value]) -> String {
    let cloud = &states[0]["digest"];
    let at = |(state, name): (&Value, &str)| {
        let differs = if state["digest"] == *cloud { "" } else { " differs" };
        (state["unsettled"] != 0 || !differs.is_empty())
            .then(|| format!("{name} {}{differs} {}", state["outbox"], state["last_sync"]))
    };
    states.iter().zip(NAMES).filter_map(at).collect::<Vec<_>>().join("; ")
}

impl Ran {
    /// Its one JSON document, where it printed one.
    fn parsed(&self) -> Option<Value> {
        serde_json::from_str(&self.stdout).ok()
    }
}
