//! The race logger's documented API under stress: windows, twins at one instant, cut uploads, bad input, roles.

use crate::{
    described,
    rig::{Node, PATIENCE, call},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Barrier,
    thread,
};
use tempfile::TempDir;

/// A cloud that serves, with one race, and an administrator's token.
pub(crate) struct Cloud {
    pub(crate) node: Node,
    pub(crate) url: String,
    pub(crate) admin: Client,
    _dir: TempDir,
}

/// One device at its API.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) uuid: String,
    pub(crate) token: String,
}

impl Cloud {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same with settings.
    pub(crate) fn with(settings: impl FnOnce(&mut Node)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::new(dir.path().join("cloud"));
        settings(&mut node);
        node.write("race", "race-1", json!({ "name": "Sprint" }));
        let added = node.ask(&["device", "add", "Office", "--role", "admin"]);
        let url = node.serve(&[]);
        let admin = Client::of(&url, &added);
        Self { node, url, admin, _dir: dir }
    }

    pub(crate) fn device(&self, role: &str) -> Client {
        let added = self.node.ask(&["device", "add", "Pi", "--role", role]);
        Client::of(&self.url, &added)
    }
}

impl Client {
    pub(crate) fn of(url: &str, added: &Value) -> Self {
        let text = |name: &str| added[name].as_str().unwrap().to_owned();
        Self { url: url.to_owned(), uuid: text("device_uuid"), token: text("api_token") }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [&[("authorization", &*bearer)], more].concat();
        let path = format!("/api/v1/sync{path}");
        let (status, text) = call(&self.url, method, &path, &headers, body);
        described::is_documented(method, &path, status);
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, json) = self.ask("GET", path, &[], "");
        assert_eq!(status, 200, "{path}: {json:#}");
        json
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, &[], &body.to_string())
    }

    /// Uploads incidents; each result's status.
    pub(crate) fn incidents(&self, items: &[Value]) -> (u16, Vec<Value>) {
        self.upload("incidents", items)
    }

    pub(crate) fn upload(&self, kind: &str, items: &[Value]) -> (u16, Vec<Value>) {
        let (status, json) = self.post(&format!("/{kind}"), &json!({ kind: items }));
        let results = json["results"].as_array().unwrap_or_else(|| panic!("{status}: {json:#}")).clone();
        assert_eq!(results.len(), items.len(), "one result an item: {json:#}");
        (status, results)
    }
}

pub(crate) fn statuses(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().unwrap()).collect()
}

pub(crate) fn incident(id: &str, bib: u32, at: &str) -> Value {
    json!({ "client_uuid": id, "race_client_uuid": "race-1", "bib_number": bib, "created_at": at })
}

pub(crate) fn with(mut item: Value, name: &str, value: Value) -> Value {
    item[name] = value;
    item
}

/// ISMF-082, ISMF-130, ISMF-131, CT-01, CT-03, TR-02: which two incidents are one, over the documented API.
#[test]
pub(crate) fn which_two_incidents_are_one() {
    let cloud = Cloud::new();
    cloud.node.write("race_location", "gate", json!({ "race": "race-1" }));
    cloud.node.write("race_location", "finish", json!({ "race": "race-1" }));
    let pi = cloud.device("device");
    let at = |second: &str| format!("2026-02-15T10:{second}Z");
    let times = |first: &str, second: &str| (incident("", 7, &at(first)), incident("", 7, &at(second)));
    let changed = |name: &str, value: Value| {
        let (first, second) = times("32:00", "32:05");
        (first, with(second, name, value))
    };
    let twice = |change: &dyn Fn(Value) -> Value| {
        let (first, second) = times("32:00", "32:05");
        (change(first), change(second))
    };
    let timeless = |mut item: Value| {
        item.as_object_mut().unwrap().remove("created_at");
        item
    };
    let pairs = [
        ("2 s across the edge of a bucket", times("32:29", "32:31"), true),
        ("31 s", times("32:00", "32:31"), false),
        ("30 s", times("32:00", "32:30"), true),
        ("30 s backwards", times("32:30", "32:00"), true),
        ("25 s", times("32:10", "32:35"), true),
        ("another bib", changed("bib_number", json!(8)), false),
        ("the bib as a text", changed("bib_number", json!("7")), true),
        ("a place and none", changed("race_location_client_uuid", json!("gate")), false),
        ("one place", twice(&|item| with(item, "race_location_client_uuid", json!("gate"))), true),
        ("no bib", twice(&|item| with(item, "bib_number", Value::Null)), false),
        ("no time", twice(&timeless), false),
        ("a time that is none", twice(&|item| with(item, "created_at", json!("noon"))), false),
    ];
    for (number, (name, (first, second), one)) in pairs.into_iter().enumerate() {
        // A race of its own for each pair.
        let race = format!("pair-{number}");
        cloud.node.write("race", &race, json!({ "name": name }));
        let own = |item: Value, id: &str| {
            with(with(item, "race_client_uuid", json!(race)), "client_uuid", json!(format!("{race}-{id}")))
        };
        let (_, results) = cloud.admin.incidents(&[own(first, "a")]);
        assert_eq!(statuses(&results), ["created"], "{name}");
        let (status, results) = pi.incidents(&[own(second, "b")]);
        let wanted = if one { (200, vec!["merged"]) } else { (201, vec!["created"]) };
        assert_eq!((status, statuses(&results)), wanted, "{name}: {results:?}");
    }
    let shown = pi.get("/incidents/pair-11-a");
    assert_eq!(shown["record"]["created_at_sent"], "noon", "nothing that was sent is lost");
    assert!(shown["record"]["created_at"].is_string(), "the time of its arrival");
}

/// TR-04, ISMF-163: two devices upload twins at the same instant, again and again: one incident each time.
#[test]
pub(crate) fn twins_at_the_same_instant_are_one() {
    let cloud = Cloud::new();
    let devices = [cloud.device("device"), cloud.device("device"), cloud.device("device")];
    for round in 0..6 {
        let start = Barrier::new(devices.len());
        let told: Vec<Value> = thread::scope(|scope| {
            let uploads = devices.iter().enumerate().map(|(n, device)| {
                let start = &start;
                scope.spawn(move || {
                    let at = format!("2026-02-15T10:{round:02}:{:02}Z", n * 5);
                    let item = incident(&format!("twin-{round}-{n}"), 42, &at);
                    start.wait();
                    device.incidents(&[item]).1.remove(0)
                })
            });
            let uploads: Vec<_> = uploads.collect();
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
        });
        let created = told.iter().filter(|result| result["status"] == "created").count();
        assert_eq!(created, 1, "{told:?}");
        let one = &told[0]["cloud_id"];
        assert!(told.iter().all(|result| result["cloud_id"] == *one), "{told:?}");
    }
    let live = cloud.node.live("incident");
    let live = live.values().filter(|row| row["state"] == "live").count();
    assert_eq!(live, 6);
}

/// ISMF-153, ISMF-018: fifty incidents, of which thirty arrive and their answer does not.
#[test]
pub(crate) fn fifty_incidents_are_cut_after_thirty() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let items: Vec<Value> =
        (0..50).map(|n| incident(&format!("i-{n:02}"), n + 1, "2026-02-15T10:32:00Z")).collect();
    // The first thirty go out; the line is dead before the answer.
    let body = json!({ "incidents": items[..30] }).to_string();
    let mut line = TcpStream::connect(cloud.url.strip_prefix("http://").unwrap()).unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        line,
        "POST /api/v1/sync/incidents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        pi.token,
        body.len()
    )
    .unwrap();
    let mut first = [0; 1];
    line.read_exact(&mut first).unwrap();
    drop(line);
    // Meanwhile somebody at the cloud corrects one of them.
    cloud.node.write("incident", "i-03", json!({ "description": "seen on video" }));
    let (status, results) = pi.incidents(&items);
    assert_eq!(status, 200);
    let words = statuses(&results);
    assert!(words[..30].iter().all(|word| *word == "already_synced"), "{words:?}");
    assert!(words[30..].iter().all(|word| *word == "created"), "{words:?}");
    assert_eq!(cloud.node.live("incident").len(), 50);
    assert_eq!(cloud.admin.get("/conflicts?resolution=all")["conflicts"], json!([]));
    // A tenth upload of the same changes nothing (ISMF-004).
    let dump = cloud.node.canonical();
    pi.incidents(&items);
    assert_eq!(cloud.node.canonical(), dump);
}

/// ISMF-048, CT-06, TR-23: bad items get their own answer, and their neighbours go through.
#[test]
pub(crate) fn bad_items_do_not_spoil_their_neighbours() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let script = "<script>alert(1)</script>'; DROP TABLE rw_records; --";
    let items = [
        incident("good-1", 1, "2026-02-15T10:00:00Z"),
        json!({ "race_client_uuid": "race-1" }),
        json!({ "client_uuid": 7, "race_client_uuid": "race-1" }),
        json!({ "client_uuid": "no spaces here", "race_client_uuid": "race-1" }),
        json!("not an object"),
        with(incident("bad-bib", 1, "2026-02-15T11:00:00Z"), "bib_number", json!({ "a": 1 })),
        with(incident("bad-word", 2, "2026-02-15T11:00:00Z"), "status", json!("cancelled")),
        with(incident("no-race", 3, "2026-02-15T11:00:00Z"), "race_client_uuid", json!("nowhere")),
        with(incident("bad-base", 4, "2026-02-15T11:00:00Z"), "base_version", json!("two")),
        json!({ "client_uuid": "script", "race_client_uuid": "race-1", "description": script, "weather": script,
            "officialized_by": script, "actor": script }),
        incident("good-2", 5, "2026-02-15T12:00:00Z"),
    ];
    let (status, results) = pi.incidents(&items);
    assert_eq!(status, 200, "mixed");
    let codes: Vec<u64> = results.iter().map(|result| result["http_status"].as_u64().unwrap()).collect();
    assert_eq!(codes, [201, 422, 422, 422, 422, 422, 422, 422, 422, 201, 201], "{results:#?}");
    let ids: Vec<&Value> = results.iter().map(|result| &result["client_uuid"]).collect();
    assert_eq!(ids[0], "good-1");
    assert_eq!((ids[1], ids[5], ids[10]), (&Value::Null, &json!("bad-bib"), &json!("good-2")));
    assert_eq!(results[7]["error"]["code"], "foreign_key_not_found");
    let kept = cloud.node.data("incident", "script");
    assert_eq!((kept["description"].as_str(), kept["weather"].as_str()), (Some(script), Some(script)));
    assert_eq!(cloud.node.live("incident").len(), 3);

    let (status, results) = pi.incidents(&items[1..4]);
    assert_eq!((status, statuses(&results)), (422, vec!["error"; 3]), "all of them bad");
    assert_eq!(pi.incidents(&[]), (200, vec![]));
    for (body, wanted) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("{}", 422),
        ("{\"incidents\": 1}", 422),
        ("{\"incidents\": null}", 422),
        ("{\"incidents\": [], \"reports\": [{}]}", 422),
    ] {
        let (status, json) = pi.ask("POST", "/incidents", &[], body);
        assert_eq!(status, wanted, "{body}: {json}");
        assert!(json["error"]["message"].is_string(), "{json}");
    }
    let many: Vec<Value> = (0..10_000)
        .map(|n| json!({ "client_uuid": format!("m{n}"), "race_client_uuid": "race-1" }))
        .collect();
    let (status, json) = pi.post("/incidents", &json!({ "incidents": many }));
    assert_eq!((status, &json["error"]["code"]), (413, &json!("too_large")));
    let (status, _) = pi.incidents(&many[..1_000]);
    assert_eq!((status, cloud.node.live("incident").len()), (201, 1_003));
    assert_eq!(pi.ask("POST", "/cheeses", &[], "{}").0, 404);
    assert_eq!(pi.ask("DELETE", "/incidents", &[], "").0, 405);
}

/// CT-11, CT-14, CT-15, TR-01, TR-03: what is new comes through the feed; an edit on its base goes through; twins
/// that were decided differently are asked about; a merge is taken apart and nothing of either is lost.
#[test]
pub(crate) fn changes_edits_twins_and_merges_come_to_a_device() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let begin = pi.get("/changes")["cursor"].as_str().unwrap().to_owned();
    let (_, made) = pi.incidents(&[incident("a", 42, "2026-02-15T10:32:10Z")]);
    let corrected =
        json!({ "client_uuid": "a", "description": "cut the course", "base_version": made[0]["version"] });
    let (status, results) = pi.incidents(&[corrected]);
    assert_eq!((status, statuses(&results)), (200, vec!["updated"]), "{results:?}");
    let newest = results[0]["version"].clone();
    cloud.node.write("incident", "a", json!({ "status": "official" }));
    let stale = json!({ "client_uuid": "a", "description": "cut it at gate 3", "base_version": newest });
    let (status, results) = pi.incidents(&[stale]);
    assert_eq!(
        (status, statuses(&results)),
        (200, vec!["updated"]),
        "only the status changed since: {results:?}"
    );
    cloud.node.write("incident", "a", json!({ "description": "of the jury" }));
    let stale = json!({ "client_uuid": "a", "description": "of the pi", "base_version": newest });
    let (status, results) = pi.incidents(&[stale]);
    assert_eq!((status, statuses(&results)), (409, vec!["conflict"]), "{results:?}");

    // A twin, with a report for it and one for the other.
    let (_, results) = cloud.admin.incidents(&[incident("b", 42, "2026-02-15T10:32:25Z")]);
    assert_eq!(statuses(&results), ["merged"]);
    let report =
        |id: &str, of: &str| json!({ "client_uuid": id, "incident_client_uuid": of, "bib_number": 42 });
    assert_eq!(pi.upload("reports", &[report("ra", "a"), report("rb", "b")]).0, 201);
    let news = pi.get(&format!("/changes?since={begin}"));
    let reports: Vec<&Value> =
        news["reports"].as_array().unwrap().iter().map(|r| &r["incident_client_uuid"]).collect();
    assert_eq!(reports, ["a", "a"], "both hang on the incident that stays");
    assert_eq!(
        news["aliases"],
        json!([{ "record_type": "Incident", "client_uuid": "b", "merged_into": "a" }])
    );
    let kinds: Vec<&Value> =
        news["conflicts"].as_array().unwrap().iter().map(|c| &c["conflict_type"]).collect();
    assert_eq!(kinds, ["uuid_exists_different_data", "auto_merged"], "{news:#}");
    assert_eq!(news["conflicts"][1]["resolution"], "cloud_wins", "CT-04: written already resolved");
    assert_eq!(
        cloud.admin.get("/conflicts")["conflicts"].as_array().unwrap().len(),
        1,
        "merges wait for nobody"
    );
    let upto = news["cursor"].as_str().unwrap();
    let nothing = pi.get(&format!("/changes?since={upto}"));
    assert_eq!((&nothing["incidents"], &nothing["has_more"]), (&json!([]), &json!(false)));

    let (status, _) = cloud.admin.post("/incidents/b/unmerge", &json!({ "notes": "two athletes" }));
    assert_eq!(status, 200);
    assert_eq!(cloud.admin.post("/incidents/b/unmerge", &json!({})).0, 404, "it is no merge any more");
    let news = pi.get(&format!("/changes?since={upto}"));
    assert_eq!(news["incidents"][0]["client_uuid"], "b", "it lives again: {news:#}");
    assert_eq!(pi.get("/reports/rb")["record"]["incident_client_uuid"], "b", "with its report");
    let again = pi.incidents(&[incident("b", 42, "2026-02-15T10:32:25Z")]).1;
    assert_eq!(statuses(&again), ["already_synced"], "a person said that they are two");

    // Twins with different decisions.
    let decided =
        |id: &str, word: &str| with(incident(id, 7, "2026-02-15T11:00:00Z"), "decision", json!(word));
    cloud.admin.incidents(&[decided("c", "no_action")]);
    let (status, results) = pi.incidents(&[decided("d", "penalty_applied")]);
    assert_eq!(
        (status, &results[0]["conflict_type"]),
        (409, &json!("fingerprint_match_uuid_differs")),
        "{results:?}"
    );
    assert_eq!(pi.upload("reports", &[report("rd", "d")]).0, 201, "its reports are taken in");
    let id = &results[0]["conflict_id"];
    let (status, answer) =
        cloud.admin.post(&format!("/conflicts/{id}/resolve"), &json!({ "resolution": "device_wins" }));
    assert_eq!(status, 200, "{answer:#}");
    let one = pi.get("/incidents/d");
    assert_eq!(
        (&one["record"]["client_uuid"], &one["record"]["decision"]),
        (&json!("c"), &json!("penalty_applied"))
    );
}

/// CT-03: a report brings its bib to an incident that has none, which is then found to be one with another.
#[test]
pub(crate) fn a_report_brings_the_bib_and_the_match() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    cloud.admin.incidents(&[incident("known", 42, "2026-02-15T10:32:10Z")]);
    let nameless = json!({ "client_uuid": "nameless", "race_client_uuid": "race-1", "created_at": "2026-02-15T10:32:20Z" });
    assert_eq!(statuses(&pi.incidents(&[nameless]).1), ["created"], "no bib, no match");
    let report = |id: &str, bib: u32| json!({ "client_uuid": id, "incident_client_uuid": "nameless", "bib_number": bib });
    let (status, results) = pi.upload("reports", &[report("r1", 42), report("r2", 43)]);
    assert_eq!((status, statuses(&results)), (201, vec!["created", "created"]), "{results:?}");
    assert_eq!(results[0]["deduplication"]["layer"], "fingerprint_match", "{results:?}");
    assert_eq!(results[1].get("deduplication"), None);
    assert_eq!(pi.get("/reports/r1")["record"]["incident_client_uuid"], "known");
    assert_eq!(cloud.admin.get("/conflicts")["conflicts"], json!([]));
}

/// CT-23, ISMF-058, ISMF-157: a report whose incident never comes is asked for again; at the last retry of the
/// documented schedule it is put to a person, whole, and stands when its incident came after all.
#[test]
pub(crate) fn a_parent_that_never_comes_is_put_to_a_person_at_the_last_retry() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let report = json!({ "client_uuid": "r", "incident_client_uuid": "late", "bib_number": 42, "description": "seen" });
    for retry in 0..5 {
        let (status, results) = pi.upload("reports", &[with(report.clone(), "retry_count", json!(retry))]);
        assert_eq!(
            (status, &results[0]["error"]["code"]),
            (422, &json!("foreign_key_not_found")),
            "{results:?}"
        );
    }
    assert_eq!(cloud.admin.get("/conflicts?resolution=all")["conflicts"], json!([]), "nobody is asked yet");
    let last = with(report, "retry_count", json!(5));
    for _ in 0..2 {
        let (status, results) = pi.upload("reports", std::slice::from_ref(&last));
        let told = (status, &results[0]["status"], &results[0]["conflict_type"]);
        assert_eq!(told, (409, &json!("conflict"), &json!("foreign_key_not_found")), "{results:?}");
    }
    let conflicts = cloud.admin.get("/conflicts")["conflicts"].clone();
    assert_eq!(conflicts.as_array().unwrap().len(), 1, "{conflicts:#}");
    assert_eq!(conflicts[0]["device_data"]["description"], "seen");
    let answer = format!("/conflicts/{}/resolve", conflicts[0]["id"]);
    let (status, told) = cloud.admin.post(&answer, &json!({ "resolution": "device_wins" }));
    assert_eq!(status, 422, "its incident is still not here: {told}");
    assert_eq!(pi.incidents(&[incident("late", 42, "2026-02-15T10:32:10Z")]).0, 201);
    let (status, told) = cloud.admin.post(&answer, &json!({ "resolution": "device_wins" }));
    assert_eq!((status, &told["conflict"]["resolution"]), (200, &json!("device_wins")), "{told:#}");
    let shown = pi.get("/reports/r");
    assert_eq!(
        (&shown["record"]["incident_client_uuid"], &shown["deleted"]),
        (&json!("late"), &json!(false))
    );
    let (_, results) = pi.upload("reports", &[last]);
    assert_eq!(statuses(&results), ["already_synced"], "and its device hears how it ended: {results:?}");
}

/// ISMF-074, TR-09: a device that says A, then B, then A again without naming a version means the last A: it is no
/// repetition of the first. A repetition is still answered as before, whatever others did since.
#[test]
pub(crate) fn what_a_device_takes_back_is_not_taken_for_a_repetition() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let first = incident("a", 42, "2026-02-15T10:32:10Z");
    let says = |text: &str| with(first.clone(), "description", json!(text));
    let send = |text: &str| {
        let (status, results) = pi.incidents(&[says(text)]);
        (status, results[0]["status"].as_str().unwrap().to_owned())
    };
    let was = |status: u16, word: &str| (status, word.to_owned());
    assert_eq!(send("A"), was(201, "created"));
    // Taken back while the other waits for a person: nothing is left to ask.
    assert_eq!(send("B"), was(409, "conflict"));
    assert_eq!(send("A"), was(200, "already_synced"));
    assert_eq!(
        cloud.admin.get("/conflicts")["conflicts"],
        json!([]),
        "nobody is asked about what was taken back"
    );
    // Taken back after a person had decided for it.
    assert_eq!(send("C"), was(409, "conflict"));
    let open = cloud.admin.get("/conflicts")["conflicts"][0]["id"].clone();
    let answer = json!({ "resolution": "device_wins" });
    assert_eq!(cloud.admin.post(&format!("/conflicts/{open}/resolve"), &answer).0, 200);
    for _ in 0..2 {
        assert_eq!(send("A"), was(409, "conflict"), "the cloud has C now");
    }
    let open = cloud.admin.get("/conflicts")["conflicts"].clone();
    assert_eq!(open.as_array().unwrap().len(), 1, "sent twice it is one question: {open:#}");
    assert_eq!(
        (&open[0]["cloud_data"]["description"], &open[0]["device_data"]["description"]),
        (&json!("C"), &json!("A"))
    );
    assert_eq!(cloud.admin.post(&format!("/conflicts/{}/resolve", open[0]["id"]), &answer).0, 200);
    // Taken back after an edit on a version.
    let version = pi.get("/incidents/a")["record"]["version"].clone();
    let edit = json!({ "client_uuid": "a", "description": "D", "base_version": version });
    assert_eq!(statuses(&pi.incidents(&[edit]).1), ["updated"]);
    assert_eq!(send("A"), was(409, "conflict"), "the cloud has D now");
    // Somebody else's edit makes no conflict with oneself.
    let other = |text: &str| with(incident("b", 7, "2026-02-15T11:00:00Z"), "description", json!(text));
    pi.incidents(&[other("A")]);
    cloud.node.write("incident", "b", json!({ "description": "of the jury" }));
    assert_eq!(statuses(&pi.incidents(&[other("A")]).1), ["already_synced"]);
    assert_eq!(cloud.node.data("incident", "b")["description"], "of the jury");
}

/// ISMF-074: what a device said last waits, however often it came back to it, and whatever it said first.
#[test]
pub(crate) fn the_last_word_of_a_device_is_never_lost() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let incident_of = |id: &str, minute: usize| incident(id, 42, &format!("2026-02-15T10:{minute:02}:10Z"));
    let waits = |id: &str| {
        let open = cloud.admin.get("/conflicts")["conflicts"].clone();
        let open = open.as_array().unwrap().clone().into_iter();
        let about = open.filter(|c| c["record_client_uuid"] == id);
        about.map(|c| c["device_data"]["description"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Who wrote first, and what the device says after that.
    let cases = [("own", "ABCBCB"), ("taken-back", "ABABAB"), ("of-another", "XAYAXA")];
    for (minute, (id, words)) in cases.into_iter().enumerate() {
        let first = incident_of(id, minute);
        let says = |word: char| with(first.clone(), "description", json!(word.to_string()));
        let mut there = None;
        if id == "of-another" {
            assert_eq!(cloud.device("device").incidents(&[says('R')]).0, 201);
            there = Some('R');
        }
        for (place, word) in words.chars().enumerate() {
            let there = *there.get_or_insert(word);
            // Each twice: that its answer was lost changes nothing.
            for time in ["said", "repeated"] {
                let (status, results) = pi.incidents(&[says(word)]);
                let left: Vec<String> = if word == there { vec![] } else { vec![word.to_string()] };
                assert_eq!(waits(id), left, "{id}: {word} at {place}, {time}: {results:?}");
                assert_eq!(status == 409, word != there, "{id}: {word} at {place}, {time}: {results:?}");
            }
        }
        // A withdrawn word is not asked about again when somebody else has written since.
        if id == "taken-back" {
            assert_eq!(pi.incidents(&[says('A')]).0, 200);
            cloud.node.write("incident", id, json!({ "description": "of the jury" }));
            assert_eq!(statuses(&pi.incidents(&[says('A')]).1), ["already_synced"]);
            assert_eq!(waits(id), Vec::<String>::new());
        }
    }
}

/// CT-06: one status for a whole answer.
#[test]
pub(crate) fn the_status_of_a_whole_answer() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let (a, b) = (incident("a", 1, "2026-02-15T10:00:00Z"), incident("b", 2, "2026-02-15T10:00:00Z"));
    let other = |item: &Value| with(item.clone(), "bib_number", json!(99));
    let orphan = json!({ "client_uuid": "o", "race_client_uuid": "nowhere" });
    assert_eq!(pi.incidents(&[a.clone(), b.clone()]).0, 201, "all new");
    assert_eq!(
        pi.upload("athletes", &[json!({ "client_uuid": "x", "last_name": "X" })]).0,
        200,
        "reference data"
    );
    assert_eq!(pi.incidents(&[a.clone(), incident("c", 3, "2026-02-15T10:00:00Z")]).0, 200, "one was there");
    assert_eq!(pi.incidents(&[other(&a), other(&b)]).0, 409, "all of them conflicts");
    assert_eq!(
        pi.incidents(&[other(&a), incident("d", 4, "2026-02-15T10:00:00Z")]).0,
        200,
        "no success is lost"
    );
    assert_eq!(pi.incidents(&[other(&a), orphan.clone()]).0, 200);
    assert_eq!(pi.incidents(&[orphan]).0, 422);
}
