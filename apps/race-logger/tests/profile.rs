//! The race logger's profile: it compiles, keeps the documented order, and admits the documents' samples.

use ropeway_core::{
    doc::Fields,
    profile::{Profile, Resolver, Rule, Writes, admit, parse, print_of},
};
use ropeway_race_logger::PROFILE;
use serde_json::{Value, json};
use std::time::Duration;

fn profile() -> Profile {
    parse(PROFILE, "apps/race-logger/profile.toml").unwrap_or_else(|mistakes| {
        panic!("{}", mistakes.iter().map(|m| format!("{m}\n")).collect::<String>())
    })
}

fn fields(value: Value) -> Fields {
    serde_json::from_value(value).expect("an object")
}

#[test]
fn the_order_is_the_documented_one() {
    let order = profile().order;
    let documented = [
        "competition",
        "stage",
        "race",
        "race_location",
        "athlete",
        "team",
        "race_participation",
        "incident",
        "report",
    ];
    let kept: Vec<&str> = order.iter().map(String::as_str).filter(|c| documented.contains(c)).collect();
    assert_eq!(kept, documented, "ISMF-072");
    assert!(place(&order, "race_type") < place(&order, "race"), "CT-10");
}

/// In the order of the text, and where somebody writes it the other way round.
#[test]
fn parents_come_before_children() {
    let (head, collections) = PROFILE.split_at(PROFILE.find("[collections.").unwrap());
    let mut turned: Vec<String> = Vec::new();
    for line in collections.lines() {
        match line.strip_prefix("[collections.") {
            Some(name) if !name.contains('.') => turned.push(format!("{line}\n")),
            _ => turned.last_mut().unwrap().extend([line, "\n"]),
        }
    }
    let turned = format!("{head}{}", turned.into_iter().rev().collect::<String>());
    for profile in [profile(), parse(&turned, "turned.toml").unwrap()] {
        for (name, rules) in &profile.collections {
            for reference in rules.references.values() {
                assert!(place(&profile.order, &reference.to) < place(&profile.order, name), "{name}");
            }
        }
        assert_eq!(profile.order.len(), profile.collections.len());
    }
}

fn place(order: &[String], name: &str) -> usize {
    order.iter().position(|o| o == name).unwrap_or_else(|| panic!("{name} is not in the order"))
}

#[test]
fn only_what_every_document_sends_is_required() {
    let mut required = Vec::new();
    for (name, rules) in &profile().collections {
        let named = rules.fields.iter().filter(|(_, f)| f.required && f.default.is_none());
        required.extend(named.map(|(field, _)| format!("{name}.{field}")));
    }
    assert_eq!(required, ["incident.race", "report.incident"]);
}

#[test]
fn reference_data_belongs_to_its_origin() {
    let profile = profile();
    for name in ["competition", "stage", "race_type", "race", "race_location", "athlete", "team"] {
        let rules = profile.rules(name).unwrap();
        for field in rules.fields.keys() {
            assert_eq!(*rules.group_of(field).rule, Rule::Origin, "{name}.{field}");
        }
    }
}

#[test]
fn the_documents_samples_are_admitted() {
    let profile = profile();
    for (collection, sample) in samples() {
        let rules = profile.rules(collection).unwrap();
        let sample = fields(sample);
        let admitted = admit(rules, sample.clone()).unwrap_or_else(|e| panic!("{collection}: {e:?}"));
        assert_eq!(admitted, sample, "{collection}: the documents already use the canonical spellings");
        let unknown: Vec<&String> = sample.keys().filter(|f| !rules.fields.contains_key(*f)).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "{collection}");
    }
}

/// The documents' objects, with `<parent>_client_uuid` as the field of the reference.
fn samples() -> Vec<(&'static str, Value)> {
    vec![
        (
            "competition",
            json!({"name": "ISMF World Cup - Verbier 2026", "start_date": "2026-02-15",
            "end_date": "2026-02-15"}),
        ),
        (
            "competition",
            json!({"name": "Emergency Competition", "place": "Chamonix", "country": "FRA",
            "start_date": "2026-02-20", "end_date": "2026-02-20", "created_at": "2026-02-20T08:00:00Z"}),
        ),
        (
            "competition",
            json!({"name": "Val Ferret Skimo Days", "city": "La Fouly", "place": "Val Ferret",
            "country": "CHE", "description": "Two-day sprint and relay", "start_date": "2026-02-14",
            "end_date": "2026-02-15", "webpage_url": "https://example.org/valferret"}),
        ),
        (
            "race",
            json!({"stage": "stage-uuid-789", "name": "Men's Sprint - Qualification",
            "scheduled_at": "2026-02-15T09:00:00Z"}),
        ),
        (
            "race",
            json!({"competition": "01984f00-0000-7000-8000-00000000c001", "race_type": "Sprint",
            "name": "Women's Sprint", "stage_type": "Semifinal", "stage_name": "Semifinal 2",
            "heat_number": 2, "gender_category": "W", "position": 4, "scheduled_at": "2026-02-14T10:30:00Z",
            "status": "in_progress"}),
        ),
        (
            "race_location",
            json!({"race": "01984f00-0000-7000-8000-00000000a001",
            "name": "Transition 1 entry", "course_segment": "transition_1to2", "segment_position": "start",
            "display_order": 40, "color_code": "red", "is_standard": true}),
        ),
        (
            "athlete",
            json!({"first_name": "Léa", "last_name": "Pralong", "country": "CHE", "gender": "F",
            "license_number": "SUI-F-20417"}),
        ),
        (
            "race_participation",
            json!({"race": "01984f00-0000-7000-8000-00000000a001",
            "athlete": "01984f00-0000-7000-8000-00000000d042", "team": null, "bib_number": 42,
            "heat": "semi_2", "active_in_heat": true, "status": "registered"}),
        ),
        (
            "incident",
            json!({"race": "race-uuid-456", "race_location": "loc-uuid-789",
            "status": "unofficial", "description": "Athlete cut course",
            "created_at": "2026-02-15T10:32:15Z"}),
        ),
        ("incident", json!({"race": "race-123", "status": "unofficial"})),
        (
            "incident",
            json!({"race": "race-123", "race_location": "loc-456", "bib_number": 42,
            "created_at": "2026-02-15T10:32:25Z"}),
        ),
        ("incident", json!({"race": "race-123", "decision": "penalty_applied", "status": "official"})),
        (
            "incident",
            json!({"race": "01984f00-0000-7000-8000-00000000a001",
            "race_location": "01984f00-0000-7000-8000-00000000b003", "bib_number": 42,
            "status": "unofficial", "decision": "pending",
            "description": "Ski not stowed leaving transition", "created_at": "2026-02-14T10:41:29Z"}),
        ),
        (
            "report",
            json!({"incident": "incident-uuid-123", "race": "race-uuid-456",
            "race_participation": "part-uuid-789", "bib_number": 42, "description": "Athlete skipped gate",
            "video_clip": {"start_time": "00:15:32", "end_time": "00:15:38",
                "file_data": "<base64_encoded_video>"},
            "created_at": "2026-02-15T10:32:20Z"}),
        ),
        (
            "report",
            json!({"race": "01984f00-0000-7000-8000-00000000a001",
            "incident": "01984f10-0000-7000-8000-000000000127", "user": "ref-start-pi", "bib_number": 42,
            "race_location": "01984f00-0000-7000-8000-00000000b003",
            "race_participation": "01984f00-0000-7000-8000-00000000e042", "description": "Left ski loose",
            "video_clip": {"start_time": "00:11:20", "end_time": "00:11:26", "status": "pending"},
            "created_at": "2026-02-14T10:41:29Z"}),
        ),
    ]
}

#[test]
fn incidents_are_compared_by_race_place_and_bib() {
    let profile = profile();
    let print = |value: Value| print_of(profile.rules("incident").unwrap(), &fields(value));
    // The pair of the documents' own unit test, 25 seconds apart and without a place (ISMF-129).
    let (a, at) =
        print(json!({"race": "race-123", "bib_number": 42, "created_at": "2026-02-15T10:32:10Z"})).unwrap();
    let (b, bt) =
        print(json!({"race": "race-123", "bib_number": 42, "created_at": "2026-02-15T10:32:35Z"})).unwrap();
    assert_eq!((a.clone(), bt - at), (b, 25_000_000));
    let window = profile.rules("incident").unwrap().same.as_ref().unwrap().within.as_ref().unwrap();
    assert_eq!(window.micros, 30_000_000);
    // Another bib, and a place where the other has none (ISMF-130, CT-03).
    let other = print(json!({"race": "race-123", "bib_number": 43, "created_at": "2026-02-15T10:32:10Z"}));
    assert_ne!(other.unwrap().0, a);
    let placed = json!({"race": "race-123", "race_location": "loc-456", "bib_number": 42,
        "created_at": "2026-02-15T10:32:10Z"});
    assert_ne!(print(placed).unwrap().0, a);
    // Without a bib or without a time nothing matches (CT-03, TR-02).
    assert_eq!(print(json!({"race": "race-123", "created_at": "2026-02-15T10:32:10Z"})), None);
    assert_eq!(print(json!({"race": "race-123", "bib_number": 42})), None);
}

#[test]
fn one_value_has_one_spelling_however_a_device_writes_it() {
    let profile = profile();
    let admitted = |value: Value| admit(profile.rules("incident").unwrap(), fields(value));
    let one = json!({"race": "01984f00-0000-7000-8000-00000000a001", "bib_number": 42,
        "created_at": "2026-02-15T10:32:15Z"});
    let two = json!({"race": "01984F00-0000-7000-8000-00000000A001", "bib_number": "42",
        "created_at": "2026-02-15T10:32:15.000+00:00"});
    assert_eq!(admitted(two), admitted(one), "TR-20");
    assert!(admitted(json!({"status": "closed"})).is_err());
    assert!(admitted(json!({"race": null})).is_err(), "a required reference");
    assert!(admitted(json!({"race_location": null, "decision": null, "weather": "fog"})).is_ok(), "GP-04");
}

#[test]
fn people_and_devices_may_what_the_documents_say() {
    let profile = profile();
    let may = |role: &str, collection: &str| match &profile.roles[role].write {
        Writes::All => true,
        Writes::Only(list) => list.iter().any(|c| c == collection),
    };
    for collection in &profile.order {
        assert!(may("admin", collection));
        assert!(!may("viewer", collection) && !may("broadcast_viewer", collection));
        let bundled = ["penalty", "race_type_location_template"].contains(&collection.as_str());
        assert_eq!(may("device", collection), !bundled, "{collection}: ISMF-095");
    }
    for role in
        ["jury_president", "referee_manager", "international_referee", "national_referee", "var_operator"]
    {
        assert!(may(role, "incident") && may(role, "report"), "{role}");
    }
    let resolve: Vec<&String> =
        profile.roles.iter().filter(|(_, r)| r.resolve).map(|(name, _)| name).collect();
    assert_eq!(resolve, ["admin", "jury_president"]);
    assert_eq!(profile.resolver, Resolver::Upstream);
}

#[test]
fn decisions_wait_for_people_and_officializing_twice_does_not() {
    let profile = profile();
    let incident = profile.rules("incident").unwrap();
    let decided = incident.group_of("decided_by");
    assert_eq!(
        (decided.name, decided.rule, decided.unset),
        ("decision", &Rule::Park, Some(&json!("pending")))
    );
    let official = incident.group_of("officialized_at");
    let states = ["unofficial", "official"].map(str::to_owned).to_vec();
    assert_eq!((official.name, official.rule), ("status", &Rule::Ratchet(states)), "ISMF-154");
    assert_eq!(incident.group_of("description").rule, &Rule::Park, "ISMF-074");
    assert_eq!(
        incident.with_defaults(Fields::new()),
        fields(json!({"status": "unofficial", "decision": "pending"}))
    );
}

#[test]
fn schedules_and_names_are_the_documented_ones() {
    let profile = profile();
    assert_eq!(profile.retry.delays, [60, 300, 900, 3_600, 21_600].map(Duration::from_secs), "ISMF-119");
    assert_eq!(profile.sync_every, Duration::from_secs(300), "ISMF-064");
    let tables = [
        ("competition", "competitions"),
        ("stage", "stages"),
        ("race", "races"),
        ("race_location", "race_locations"),
        ("athlete", "athletes"),
        ("team", "teams"),
        ("race_participation", "race_participations"),
        ("incident", "incidents"),
        ("report", "reports"),
    ];
    for (collection, table) in tables {
        assert_eq!(profile.rules(collection).unwrap().table.as_deref(), Some(table), "ISMF-039 to ISMF-047");
    }
    assert_eq!(
        (profile.views.id.as_str(), profile.views.reference.as_str()),
        ("client_uuid", "{}_client_uuid")
    );
}
