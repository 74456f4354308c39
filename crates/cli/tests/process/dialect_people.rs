//! The race logger's documented API: who asks and what they may, devices, competitions, downloads.

use crate::{
    dialect::{Client, Cloud, incident, statuses, with},
    rig::{Node, call, get},
};
use serde_json::{Value, json};
use std::time::Instant;

/// ISMF-085, CT-07, CT-22: whose token it is, and what its holder may do.
#[test]
pub(crate) fn the_door_knows_who_asks_and_what_they_may() {
    let cloud = Cloud::new();
    let (pi, other) = (cloud.device("device"), cloud.device("device"));
    let item = json!({ "incidents": [incident("i", 1, "2026-02-15T10:00:00Z")] }).to_string();
    let send = |client: &Client, headers: &[(&str, &str)]| client.ask("POST", "/incidents", headers, &item).0;
    assert_eq!(send(&pi, &[("x-device-uuid", &other.uuid)]), 401, "another device's header");
    let (status, json) = Client { token: "nobody".into(), ..pi.clone() }.ask("GET", "/competitions", &[], "");
    assert_eq!((status, &json["error"]["code"]), (401, &json!("unauthenticated")));
    assert_eq!(Client { token: "nobody".into(), ..pi.clone() }.ask("GET", "/health", &[], "").0, 401);
    let (status, text) = call(&cloud.url, "GET", "/api/v1/sync/health", &[], "");
    assert!(status == 200 && text.contains("race-logger"), "{text}");
    assert_eq!(send(&pi, &[("x-device-uuid", &pi.uuid)]), 201);
    assert_eq!(send(&pi, &[]), 200, "the header may be left out");

    let competition = json!({ "client_uuid": "c", "name": "Verbier" });
    let decided = with(incident("d", 2, "2026-02-15T11:00:00Z"), "decision", json!("no_action"));
    let plain = incident("p", 3, "2026-02-15T12:00:00Z");
    let roles = [
        ("var_operator", 403, 403, 201, 403),
        ("national_referee", 403, 403, 201, 403),
        ("international_referee", 403, 201, 201, 403),
        ("referee_manager", 200, 201, 201, 403),
        ("jury_president", 200, 201, 201, 200),
        ("broadcast_viewer", 403, 403, 403, 403),
        ("device", 200, 201, 201, 403),
    ];
    cloud.node.write("incident", "contested", json!({ "race": "race-1", "description": "of the cloud" }));
    let contested = json!({ "client_uuid": "contested", "description": "of the pi" });
    let conflict = pi.incidents(&[contested]).1[0]["conflict_id"].clone();
    for (n, (role, on_competition, on_decision, on_incident, on_answer)) in roles.into_iter().enumerate() {
        let client = cloud.device(role);
        let own = |item: &Value| {
            with(
                item.clone(),
                "client_uuid",
                json!(format!("{role}-{}", item["client_uuid"].as_str().unwrap())),
            )
        };
        let far = |item: &Value| with(own(item), "bib_number", json!(n + 100));
        assert_eq!(client.upload("competitions", &[own(&competition)]).0, on_competition, "{role}");
        assert_eq!(client.incidents(&[far(&decided)]).0, on_decision, "{role} decides");
        assert_eq!(client.incidents(&[far(&plain)]).0, on_incident, "{role} reports");
        assert_eq!(client.ask("GET", "/devices", &[], "").0, 403, "{role}");
        let answer =
            client.post(&format!("/conflicts/{conflict}/resolve"), &json!({ "resolution": "cloud_wins" }));
        assert_eq!(answer.0, on_answer, "{role}: {}", answer.1);
    }
}

/// ISMF-049 to ISMF-052, ISMF-060, ISMF-099, ISMF-144, GP-13: a device's life over the API.
#[test]
pub(crate) fn a_device_is_registered_renewed_and_decommissioned() {
    let cloud = Cloud::new();
    let new = json!({ "name": "Start Line Pi", "system_mode": "offline_device",
        "metadata": { "hardware": "Pi 5", "os": "Debian", "app_version": "1" } });
    let (status, answer) = cloud.admin.post("/devices", &new);
    let device = &answer["device"];
    assert_eq!((status, &device["status"]), (201, &json!("active")), "{answer}");
    let token = device["api_token"].as_str().unwrap();
    assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
    assert_eq!(cloud.admin.post("/devices", &with(new.clone(), "system_mode", json!("foo"))).0, 422);
    let pi = Client {
        url: cloud.url.clone(),
        uuid: device["device_uuid"].as_str().unwrap().into(),
        token: token.into(),
    };
    pi.ask("GET", "/competitions", &[("x-device-time", "2030-01-01T00:00:00Z")], "");
    let list = cloud.admin.get("/devices");
    let shown = list["devices"].as_array().unwrap().iter().find(|d| d["device_uuid"] == *pi.uuid).unwrap();
    assert!(shown["last_seen_at"].is_string() && shown["metadata"]["hardware"] == "Pi 5", "{shown}");
    assert!(shown["clock_offset_ms"].as_i64().unwrap() < -86_400_000, "its clock is years ahead: {shown}");
    assert!(!list.to_string().contains(token), "the token is shown once");
    for file in ["ropeway.db", "ropeway.db-wal"] {
        let bytes = std::fs::read(cloud.node.dir.join(file)).unwrap_or_default();
        assert!(!bytes.windows(64).any(|window| window == token.as_bytes()), "{file} holds the token");
    }
    let (_, answer) = cloud.admin.post(&format!("/devices/{}/rotate", pi.uuid), &json!({}));
    let renewed = Client { token: answer["device"]["api_token"].as_str().unwrap().into(), ..pi.clone() };
    assert_eq!(
        (pi.ask("GET", "/competitions", &[], "").0, renewed.ask("GET", "/competitions", &[], "").0),
        (401, 200)
    );
    let (status, answer) = cloud.admin.post(&format!("/devices/{}/decommission", pi.uuid), &json!({}));
    assert_eq!((status, &answer["device"]["status"]), (200, &json!("decommissioned")));
    for (method, path) in
        [("GET", "/competitions"), ("GET", "/changes"), ("POST", "/incidents"), ("GET", "/health")]
    {
        assert_eq!(renewed.ask(method, path, &[], "{}").0, 403, "{path}");
    }
    assert_eq!(cloud.admin.post("/devices/nobody/rotate", &json!({})).0, 404);
}

/// ISMF-151, ISMF-152, CT-25: two competitions of one name, and who may edit which.
#[test]
pub(crate) fn competitions_of_one_name_are_merged_by_a_person() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    cloud.node.write("competition", "cloud-c", json!({ "name": "Verbier 2026", "country": "CHE" }));
    for n in 0..5 {
        cloud.node.write(
            "race",
            &format!("cloud-r{n}"),
            json!({ "competition": "cloud-c", "name": format!("Race {n}") }),
        );
    }
    let own = json!({ "client_uuid": "pi-c", "name": "Verbier 2026", "country": "SUI" });
    assert_eq!(
        statuses(&pi.upload("competitions", std::slice::from_ref(&own)).1),
        ["created"],
        "both are kept"
    );
    let race =
        |id: &str, name: &str| json!({ "client_uuid": id, "competition_client_uuid": "pi-c", "name": name });
    assert_eq!(pi.upload("races", &[race("pi-r0", "Race 0"), race("pi-r1", "Night race")]).0, 200);
    let (status, results) = pi.upload("competitions", &[json!({ "client_uuid": "cloud-c", "name": "Mine" })]);
    assert_eq!(
        (status, &results[0]["conflict_type"]),
        (409, &json!("uuid_exists_different_data")),
        "{results:?}"
    );
    let version = pi.get("/competitions/pi-c")["record"]["version"].clone();
    let edit = json!({ "client_uuid": "pi-c", "place": "Le Châble", "base_version": version });
    assert_eq!(statuses(&pi.upload("competitions", &[edit]).1), ["updated"], "its own side edits it");

    let merge = json!({ "into": "cloud-c", "competitions": ["pi-c"], "resolved_by": "Ana" });
    let (status, answer) =
        cloud.admin.post("/competitions/merge", &with(merge.clone(), "preview", json!(true)));
    assert_eq!(status, 200, "{answer:#}");
    let fields: Vec<&Value> =
        answer["preview"][0]["fields"].as_array().unwrap().iter().map(|f| &f["field"]).collect();
    assert_eq!(fields, ["country", "place"]);
    assert_eq!(answer["preview"][0]["races"], json!([{ "race": "pi-r0", "like": "cloud-r0", "by": "name" }]));
    assert_eq!(
        cloud.admin.get("/competitions")["competitions"].as_array().unwrap().len(),
        2,
        "only looked at"
    );
    let (status, answer) = pi.post("/competitions/merge", &merge);
    assert_eq!(status, 403, "not everybody may: {answer}");
    assert_eq!(
        pi.post("/competitions/merge", &with(merge.clone(), "preview", json!(true))).0,
        403,
        "nor look"
    );
    let open = cloud.admin.get("/conflicts")["conflicts"].as_array().unwrap().clone();
    assert_eq!(open.len(), 1, "no question is left behind: {open:#?}");
    cloud
        .admin
        .post(&format!("/conflicts/{}/resolve", open[0]["id"]), &json!({ "resolution": "cloud_wins" }));
    let (status, answer) = cloud.admin.post("/competitions/merge", &merge);
    assert_eq!((status, &answer["merged"][0]["merged_into"]), (200, &json!("cloud-c")), "{answer:#}");
    let list = cloud.admin.get("/competitions");
    let of = |id: &str| {
        list["competitions"].as_array().unwrap().iter().find(|c| c["client_uuid"] == id).unwrap().clone()
    };
    assert_eq!(
        (of("pi-c")["merged_into"].as_str(), &of("cloud-c")["races_count"]),
        (Some("cloud-c"), &json!(7))
    );
    assert_eq!(pi.upload("races", &[race("pi-late", "Late")]).0, 200, "a late device is still resolved");
    let document = pi.get("/download?competition_client_uuid=pi-c");
    assert_eq!(document["competition"]["client_uuid"], "cloud-c");
    let races = document["races"].as_array().unwrap();
    let of_it = races.iter().filter(|race| race["competition_client_uuid"] == "cloud-c");
    assert_eq!(of_it.count(), 8, "{races:#?}");
    let others: Vec<_> = races.iter().filter(|race| race["competition_client_uuid"] != "cloud-c").collect();
    assert!(
        others.len() == 1 && others[0]["client_uuid"] == "race-1",
        "one of no competition is for everybody"
    );

    assert_eq!(cloud.admin.post("/competitions/pi-c/unmerge", &json!({})).0, 200);
    let list = cloud.admin.get("/competitions");
    let of = |id: &str| {
        list["competitions"].as_array().unwrap().iter().find(|c| c["client_uuid"] == id).unwrap().clone()
    };
    assert_eq!((&of("pi-c")["races_count"], &of("cloud-c")["races_count"]), (&json!(3), &json!(5)));
    assert_eq!((&of("pi-c")["country"], &of("pi-c")["place"]), (&json!("SUI"), &json!("Le Châble")));
}

/// CT-20, ISMF-020, I11: a Pi that takes competitions along sees those that it downloaded, page by page.
#[test]
pub(crate) fn a_download_is_resumed_and_shows_nothing_else() {
    let cloud = Cloud::new();
    let pi = cloud.device("venue");
    for c in ["here", "there"] {
        cloud.node.write("competition", c, json!({ "name": c }));
        cloud.node.write("race", &format!("{c}-race"), json!({ "competition": c, "name": "Sprint" }));
        let incidents: Vec<Value> = (0..12)
            .map(|n| {
                with(
                    incident(&format!("{c}-{n}"), n + 1, "2026-02-15T10:00:00Z"),
                    "race_client_uuid",
                    json!(format!("{c}-race")),
                )
            })
            .collect();
        assert_eq!(cloud.admin.incidents(&incidents).0, 201);
    }
    assert_eq!(
        pi.get("/competitions")["competitions"].as_array().unwrap().len(),
        2,
        "there is something to choose"
    );
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = pi.get(&format!("/download?competition_client_uuid=here&limit=5&cursor={cursor}"));
        assert_eq!(page["competition"]["client_uuid"], "here", "each page says what it is of");
        for list in ["races", "incidents"] {
            ids.extend(
                page[list].as_array().unwrap().iter().map(|r| r["client_uuid"].as_str().unwrap().to_owned()),
            );
        }
        pages += 1;
        cursor = page["cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
    }
    assert!(pages > 2, "{pages}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 14, "{ids:?}");
    let is_its = |id: &String| id.starts_with("here") || id == "race-1";
    assert!(ids.iter().all(is_its), "and a race of no competition, which is for everybody: {ids:?}");
    let seen = pi.get("/changes").to_string();
    assert!(seen.contains("here-3") && !seen.contains("there"), "{seen}");
    assert_eq!(pi.ask("GET", "/incidents/there-1", &[], "").0, 404);
    assert_eq!(pi.ask("GET", "/changes?since=rubbish", &[], "").0, 400);
}

/// ISMF-145: switched off, everything waits.
#[test]
pub(crate) fn switched_off_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path().join("cloud"));
    node.set("SYNC_ENABLED", "false");
    node.set("REDIS_URL", "redis://nobody:1");
    let url = node.serve(&[]);
    let (status, text) = call(&url, "GET", "/api/v1/sync/health", &[], "");
    assert_eq!(status, 503, "{text}");
}

/// ISMF-147, ISMF-162, ISMF-164, CT-04: each upload is noted, and the rates count what people settle and nothing else.
#[test]
#[allow(clippy::disallowed_methods, reason = "it measures how long the uploads took")]
pub(crate) fn uploads_are_measured() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let items: Vec<Value> =
        (0..20).map(|n| incident(&format!("i{n}"), n + 1, "2026-02-15T10:00:00Z")).collect();
    let began = Instant::now();
    pi.incidents(&items);
    pi.incidents(&[
        incident("twin", 1, "2026-02-15T10:00:05Z"),
        json!({ "client_uuid": "i0", "bib_number": 99 }),
    ]);
    pi.incidents(&[json!({ "client_uuid": "bad", "race_client_uuid": "nowhere" })]);
    assert_eq!(pi.ask("POST", "/incidents", &[], "{").0, 400);
    assert_eq!(pi.ask("GET", "/sync_metrics", &[], "").0, 403);
    let shown = cloud.admin.get("/sync_metrics");
    let runs = shown["sync_metrics"].as_array().unwrap();
    let of = |name: &str| runs.iter().map(|run| run[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("records_synced"), [0, 0, 2, 20].map(Value::from), "{shown:#}");
    assert_eq!(of("success"), [false, false, true, true].map(Value::from));
    assert!(runs.iter().all(|run| run["device_uuid"] == *pi.uuid), "{shown:#}");
    let most = i64::try_from(began.elapsed().as_millis()).unwrap();
    let durations: Vec<i64> = runs.iter().map(|run| run["duration_ms"].as_i64().unwrap()).collect();
    assert!(durations.iter().all(|ms| *ms >= 0) && durations.iter().sum::<i64>() <= most, "{shown:#}");
    assert!(durations.iter().sum::<i64>() > 0, "twenty incidents take a while: {shown:#}");
    let rates = &shown["rates"];
    assert_eq!((&rates["sync_success"]["count"], &rates["sync_success"]["of"]), (&json!(2), &json!(4)));
    assert_eq!((&rates["conflicts"]["count"], &rates["conflicts"]["of"]), (&json!(1), &json!(20)));
    assert_eq!(rates["duplicates"]["rate"], 0.0);
    let metrics = get(&cloud.url, "/metrics");
    for line in [
        "ropeway_rate{name=\"sync_success\"} 0.5",
        "ropeway_rate{name=\"conflicts\"} 0.05",
        "ropeway_rate{name=\"duplicates\"} 0.0",
        "ropeway_rate_target{name=\"sync_success\"} 0.99",
        "ropeway_conflicts_last_hour 1",
        "ropeway_alert{name=\"conflict_spike\"} 0",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}: {metrics}");
    }
}

/// ISMF-093, ISMF-035, CT-10, CT-24: every record type has its address, and comes with the download.
#[test]
pub(crate) fn every_record_type_is_uploaded_and_downloaded() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let types = [
        ("competitions", json!({ "client_uuid": "c", "name": "C" })),
        ("stages", json!({ "client_uuid": "s", "competition_client_uuid": "c" })),
        ("race_types", json!({ "client_uuid": "rt", "name": "Sprint" })),
        ("races", json!({ "client_uuid": "r", "stage_client_uuid": "s", "race_type_client_uuid": "rt" })),
        ("race_locations", json!({ "client_uuid": "l", "race_client_uuid": "r" })),
        ("athletes", json!({ "client_uuid": "a", "last_name": "A" })),
        ("teams", json!({ "client_uuid": "t", "race_client_uuid": "r", "athlete_1_client_uuid": "a" })),
        (
            "race_participations",
            json!({ "client_uuid": "p", "race_client_uuid": "r", "athlete_client_uuid": "a", "bib_number": 1 }),
        ),
        (
            "incidents",
            json!({ "client_uuid": "i", "race_client_uuid": "r", "race_location_client_uuid": "l" }),
        ),
        (
            "reports",
            json!({ "client_uuid": "re", "incident_client_uuid": "i", "race_participation_client_uuid": "p" }),
        ),
    ];
    for (kind, item) in &types {
        let (_, results) = pi.upload(kind, std::slice::from_ref(item));
        assert!(results[0]["status"] == "created" && results[0]["cloud_id"].is_i64(), "{kind}: {results:?}");
    }
    let document = pi.get("/download?competition_client_uuid=c");
    for (kind, item) in &types[1..] {
        let list = document[kind].as_array().unwrap();
        let shown = list.iter().find(|shown| shown["client_uuid"] == item["client_uuid"]);
        let shown = shown.unwrap_or_else(|| panic!("{kind}: {document:#}"));
        for (name, value) in item.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{kind}");
        }
    }
}

/// I9: what a revoked device still has is refused, and waits in quarantine.
#[test]
pub(crate) fn a_revoked_device_hands_its_work_in() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    assert_eq!(cloud.admin.post(&format!("/devices/{}/decommission", pi.uuid), &json!({})).0, 200);
    let items = json!({ "incidents": [incident("a", 1, "2026-02-15T10:00:00Z"), incident("b", 2, "2026-02-15T10:00:00Z")] });
    for _ in 0..2 {
        let (status, answer) = pi.post("/incidents", &items);
        assert_eq!(
            (status, &answer["error"]["code"], &answer["quarantined"]),
            (403, &json!("device_revoked"), &json!(2)),
            "{answer}"
        );
    }
    assert!(cloud.node.live("incident").is_empty(), "nothing was decided");
    assert_eq!(pi.ask("GET", "/changes", &[], "").0, 403);
}

/// CT-18, ISMF-014: a clip inside a report is larger than any record may be, and comes back byte for byte.
#[test]
pub(crate) fn a_clip_inside_a_report_is_kept_apart() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    pi.incidents(&[incident("i", 1, "2026-02-15T10:00:00Z")]);
    let report = |file_data: &str| {
        json!({ "client_uuid": "r", "incident_client_uuid": "i", "bib_number": 1,
            "video_clip": { "start_time": "00:15:32", "end_time": "00:15:38", "file_data": file_data } })
    };
    // Three million bytes 0x41 0x41 0x41 are four million characters of QUFB.
    let text = "QUFB".repeat(1_000_000);
    for wanted in [201, 200] {
        let (status, results) = pi.upload("reports", &[report(&text)]);
        assert_eq!(status, wanted, "{results:?}");
    }
    let clip = pi.get("/reports/r")["record"]["video_clip"].clone();
    assert_eq!(
        (&clip["status"], &clip["size"], &clip["start_time"]),
        (&json!("uploaded"), &json!(3_000_000), &json!("00:15:32"))
    );
    assert_eq!(clip.get("file_data"), None);
    let bearer = format!("Bearer {}", pi.token);
    let (status, bytes) =
        call(&cloud.url, "GET", "/api/v1/sync/reports/r/video", &[("authorization", &bearer)], "");
    assert_eq!((status, bytes.len()), (200, 3_000_000));
    assert!(bytes.bytes().all(|b| b == b'A'));
    assert_eq!(pi.ask("GET", "/reports/i/video", &[], "").0, 404);
}

/// CT-18: clips take no more room than they are given, and no neighbour suffers from one that finds none; a name that
/// leads elsewhere leads nowhere.
#[test]
pub(crate) fn clips_have_their_room_and_no_way_out_of_it() {
    let cloud = Cloud::with(|node| node.set("ROPEWAY_LIMIT_BLOB_BYTES", 5_000));
    let pi = cloud.device("device");
    pi.incidents(&[incident("i", 1, "2026-02-15T10:00:00Z")]);
    let report =
        |id: &str, clip: Value| json!({ "client_uuid": id, "incident_client_uuid": "i", "video_clip": clip });
    let film = |id: &str, letters: &str| report(id, json!({ "file_data": letters.repeat(1_000) }));
    assert_eq!(pi.upload("reports", &[film("one", "QUFB")]).0, 201, "three thousand bytes of A");
    let (status, results) =
        pi.upload("reports", &[film("two", "QkJC"), report("plain", json!({})), film("again", "QUFB")]);
    assert_eq!((status, statuses(&results)), (200, vec!["error", "created", "created"]), "{results:?}");
    assert_eq!((&results[0]["http_status"], &results[0]["client_uuid"]), (&json!(503), &json!("two")));
    assert!(results[0]["error"]["message"].as_str().unwrap().contains("no room"), "{results:?}");
    let clips = || std::fs::read_dir(cloud.node.dir.join("clips")).unwrap().count();
    assert_eq!(clips(), 1, "the same film lies there once, and nothing is left of the other");
    // What a client writes into its clip is text like any other.
    for (n, name) in
        ["../ropeway.db", "/etc/passwd", "..%2fropeway.db", "", &"a".repeat(64), &"../".repeat(21)]
            .iter()
            .enumerate()
    {
        let id = format!("evil-{n}");
        let clip = json!({ "sha256": name, "status": "uploaded", "path": name });
        assert_eq!(pi.upload("reports", &[report(&id, clip)]).0, 201);
        assert_eq!(pi.ask("GET", &format!("/reports/{id}/video"), &[], "").0, 404, "{name}");
    }
    for path in ["/reports/..%2f..%2fropeway.db/video", "/reports/%2e%2e/video", "/reports/one%00/video"] {
        assert_eq!(pi.ask("GET", path, &[], "").0, 404, "{path}");
    }
    assert_eq!(clips(), 1);
}

/// TR-21: a Pi whose clock is years ahead says so, and its incident is found to be one with the cloud's.
#[test]
pub(crate) fn a_clock_years_ahead_is_corrected() {
    let cloud = Cloud::new();
    let pi = cloud.device("device");
    let now = cloud.admin.get("/health")["time"].as_str().unwrap()[..19].to_owned() + "Z";
    // Four years, so that there is such a day on a 29 February too.
    let ahead = format!("{}{}", now[..4].parse::<u32>().unwrap() + 4, &now[4..]);
    cloud.admin.incidents(&[incident("cloud", 42, &now)]);
    let send = |headers: &[(&str, &str)], id: &str| {
        let body = json!({ "incidents": [incident(id, 42, &ahead)] }).to_string();
        pi.ask("POST", "/incidents", headers, &body).1["results"][0].clone()
    };
    assert_eq!(
        send(&[], "untold")["status"],
        "created",
        "nobody knows that its clock is wrong: nothing is lost or merged"
    );
    // Uncorrected it would be one with the Pi's own.
    let told = send(&[("x-device-time", &ahead)], "told");
    assert_eq!((&told["status"], &told["merged_into_client_uuid"]), (&json!("merged"), &json!("cloud")));
}

/// ISMF-027: a Pi has one person.
#[test]
pub(crate) fn a_second_person_on_a_pi_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut pi = Node::new(dir.path().join("pi"));
    pi.set("SYSTEM_MODE", "offline_device");
    pi.ask(&["user", "add", "referee@example.org", "--role", "national_referee"]);
    let refused = pi.run(&["user", "add", "other@example.org", "--role", "national_referee"]);
    assert!(refused.code == 1 && refused.stdout.contains("referee@example.org"), "{refused}");
    pi.ask(&["user", "disable", "referee@example.org"]);
    pi.ask(&["user", "add", "other@example.org", "--role", "national_referee"]);
}
