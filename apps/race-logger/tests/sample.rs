//! The sample sets: their documented sizes, the same bytes for the same seed, and nothing in them that the
//! profile refuses or that leads nowhere.

use ropeway_core::{
    change::Op,
    doc::Doc,
    id::RecordId,
    profile::{Profile, admit, parse, print_of},
};
use ropeway_race_logger::{
    PROFILE,
    sample::{Action, Actor, Phase, Sample, SampleRecord, Seat, Set, generate},
};
use std::collections::{BTreeMap, BTreeSet};

const SETS: [Set; 3] = [Set::S, Set::M, Set::L];

fn profile() -> Profile {
    parse(PROFILE, "profile.toml").unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn text(record: &SampleRecord, field: &str) -> String {
    record.fields.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
}

fn of<'a>(sample: &'a Sample, collection: &str) -> Vec<&'a SampleRecord> {
    sample.records.iter().filter(|r| &*r.collection == collection).collect()
}

fn bytes(sample: &Sample) -> String {
    let record =
        |r: &SampleRecord| format!("{}/{} {}\n", r.collection, r.id, Doc::of(r.fields.clone()).text());
    let action =
        |a: &Action| format!("{} {:?} {:?} {:?} {}", a.at, a.phase, a.actor, a.op, record(&a.record));
    sample.records.iter().map(record).chain(sample.day.iter().map(action)).collect()
}

#[test]
fn set_m_has_its_documented_sizes() {
    let m = generate(Set::M, 2026);
    let pair = &m.specials.as_ref().unwrap().duplicate_competition;
    let races_of = |competition: &RecordId| {
        of(&m, "race").iter().filter(|r| text(r, "competition") == competition.as_str()).count()
    };
    assert_eq!(races_of(&m.competition), 18 + 1, "18 races and a test race");
    assert_eq!((races_of(&pair.pi), races_of(&pair.cloud)), (2, 5), "the duplicate competition");
    assert_eq!(m.count("race"), 19 + 7);
    let gender = |g: &str| of(&m, "athlete").iter().filter(|a| text(a, "gender") == g).count();
    assert_eq!((gender("F"), gender("M")), (47, 67));
    assert_eq!(m.count("race_participation"), 210);
    assert_eq!(m.count("race_location"), 162);
    assert_eq!(m.count("penalty"), 52);
    assert_eq!((m.count("incident"), m.count("report")), (30, 72));
    assert_eq!(clips(&m).len(), 45);
    let nations: BTreeSet<String> = of(&m, "athlete").iter().map(|a| text(a, "country")).collect();
    assert_eq!(nations.len(), 23);
}

#[test]
fn sets_s_and_l_have_their_documented_sizes() {
    let sizes = |s: &Sample| {
        ["race", "athlete", "race_participation", "race_location", "incident", "report"].map(|c| s.count(c))
    };
    let (s, l) = (generate(Set::S, 1), generate(Set::L, 1));
    assert_eq!((sizes(&s), clips(&s).len()), ([12, 36, 72, 108, 8, 18], 12));
    assert_eq!((sizes(&l), clips(&l).len()), ([40, 400, 4_000, 400, 500, 1_200], 1_000));
    let mut starters: BTreeMap<String, usize> = BTreeMap::new();
    for participation in of(&l, "race_participation") {
        *starters.entry(text(participation, "race")).or_default() += 1;
    }
    assert!(starters.values().all(|n| *n == 200), "200 a race");
}

fn clips(sample: &Sample) -> Vec<&SampleRecord> {
    of(sample, "report").into_iter().filter(|r| r.fields.contains_key("video_clip")).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for set in SETS {
        assert_eq!(bytes(&generate(set, 7)), bytes(&generate(set, 7)));
        assert_ne!(bytes(&generate(set, 7)), bytes(&generate(set, 8)));
    }
}

#[test]
fn every_record_is_admitted_as_it_is_spelled() {
    let profile = profile();
    for set in SETS {
        let sample = generate(set, 2026);
        let day = sample.day.iter().map(|a| &a.record);
        for record in sample.records.iter().chain(day) {
            let rules = profile.rules(&record.collection).unwrap();
            assert!(RecordId::parse(&record.id).is_ok_and(|id| id == record.id));
            let admitted =
                admit(rules, record.fields.clone()).unwrap_or_else(|e| panic!("{record:?}: {e:?}"));
            assert_eq!(admitted, record.fields);
            let unknown = record.fields.keys().filter(|f| !rules.fields.contains_key(*f));
            assert!(unknown.eq(record.fields.keys().filter(|f| *f == "is_test")), "{record:?}");
        }
    }
}

#[test]
fn references_lead_to_records_that_came_before() {
    let profile = profile();
    for set in SETS {
        let sample = generate(set, 2026);
        let mut here: BTreeSet<(String, RecordId)> = BTreeSet::new();
        for record in &sample.records {
            let rules = profile.rules(&record.collection).unwrap();
            for (field, reference) in &rules.references {
                let Some(parent) = record.fields.get(field) else { continue };
                let parent = RecordId::parse(parent.as_str().unwrap()).unwrap();
                assert!(here.contains(&(reference.to.clone(), parent)), "{} of {record:?}", field);
            }
            assert!(
                here.insert((record.collection.to_string(), record.id.clone())),
                "{record:?} is there twice"
            );
        }
        let day = sample.day.iter().filter(|a| a.op == Op::Patch);
        assert!(
            day.into_iter().all(|a| here.contains(&(a.record.collection.to_string(), a.record.id.clone())))
        );
    }
}

#[test]
fn bibs_and_athletes_are_unique_in_a_race() {
    for set in SETS {
        let sample = generate(set, 2026);
        let mut seen = BTreeSet::new();
        for participation in of(&sample, "race_participation") {
            let bib = participation.fields["bib_number"].as_u64().unwrap();
            let race = text(participation, "race");
            assert!(seen.insert((race.clone(), bib.to_string())));
            assert!(seen.insert((race, text(participation, "athlete"))));
        }
        let licences: BTreeSet<String> =
            of(&sample, "athlete").iter().map(|a| text(a, "license_number")).collect();
        assert_eq!(licences.len(), sample.count("athlete"));
    }
}

#[test]
fn only_the_two_named_pairs_would_be_joined() {
    let profile = profile();
    let rules = profile.rules("incident").unwrap();
    for set in SETS {
        let sample = generate(set, 2026);
        let prints: Vec<(RecordId, String, i64)> = of(&sample, "incident")
            .iter()
            .filter_map(|r| print_of(rules, &r.fields).map(|(print, at)| (r.id.clone(), print, at)))
            .collect();
        let mut alike = BTreeSet::new();
        for (at, a) in prints.iter().enumerate() {
            for b in prints[at + 1..].iter().filter(|b| a.1 == b.1 && a.2.abs_diff(b.2) <= 30_000_000) {
                alike.insert(BTreeSet::from([a.0.clone(), b.0.clone()]));
            }
        }
        let named = sample.specials.iter().flat_map(|s| [&s.twins, &s.two_offences]);
        let named: BTreeSet<_> = named.map(|p| BTreeSet::from([p.pi.clone(), p.cloud.clone()])).collect();
        assert_eq!(alike, named, "{set:?}");
    }
}

#[test]
fn nobody_works_on_what_they_cannot_know() {
    for set in SETS {
        let sample = generate(set, 2026);
        let mut made: BTreeMap<RecordId, (Phase, Seat)> = BTreeMap::new();
        for action in &sample.day {
            let seat = action.actor.seat();
            if action.creates() {
                made.insert(action.record.id.clone(), (action.phase, seat));
            }
            let parent = action.record.fields.get("incident").and_then(|v| v.as_str()).map(RecordId::trusted);
            let about = parent.unwrap_or_else(|| action.record.id.clone());
            let (phase, at) = made[&about];
            let known = at == seat || phase < action.phase || action.phase != Phase::Cut;
            assert!(known || seat == Seat::Tablet, "{action:?}");
        }
    }
}

#[test]
fn the_special_cases_are_what_their_names_say() {
    let sample = generate(Set::M, 2026);
    let specials = sample.specials.clone().unwrap();
    let find = |id: &RecordId| sample.records.iter().find(|r| r.id == *id).unwrap();
    let made_at = |id: &RecordId| sample.day.iter().find(|a| a.creates() && a.record.id == *id).unwrap();
    for (pair, apart) in [(&specials.twins, 21), (&specials.two_offences, 14), (&specials.unknown_bib, 9)] {
        let (pi, cloud) = (made_at(&pair.pi), made_at(&pair.cloud));
        assert_eq!((pi.actor.seat(), cloud.actor.seat()), (Seat::Pi, Seat::Cloud));
        assert_eq!(cloud.at.since(pi.at), apart * 1_000_000);
    }
    assert_eq!(
        text(find(&specials.twins.pi), "description"),
        text(find(&specials.twins.cloud), "description")
    );
    assert_ne!(
        text(find(&specials.two_offences.pi), "description"),
        text(find(&specials.two_offences.cloud), "description")
    );
    assert!(!find(&specials.unknown_bib.pi).fields.contains_key("bib_number"));
    for id in [
        &specials.decision_mismatch,
        &specials.both_official,
        &specials.same_id_edit,
        &specials.other_field_edit,
    ] {
        let edits =
            sample.day.iter().filter(|a| a.phase == Phase::Cut && a.op == Op::Patch && a.record.id == *id);
        assert_eq!(
            edits.map(|a| a.actor.seat()).collect::<BTreeSet<_>>(),
            BTreeSet::from([Seat::Cloud, Seat::Pi])
        );
    }
    let report = find(&specials.missing_parent);
    assert_eq!(text(report, "incident"), specials.missing_parent_of.as_str());
    assert_eq!(made_at(&report.id).actor.seat(), Seat::Tablet);
    let pending = clips(&sample).into_iter().filter(|r| r.fields["video_clip"]["status"] == "pending");
    assert_eq!(pending.map(|r| &r.id).collect::<Vec<_>>(), [&specials.failed_clip]);
    assert_eq!(made_at(&specials.revoked_device).actor.seat(), Seat::AscentPi);
    assert_eq!(text(find(&specials.late_report), "incident"), specials.twins.pi.as_str());
    let named = [&specials.edited_in_flight, &specials.lost_response].map(|id| made_at(id).phase);
    assert_eq!(named, [Phase::Rejoined; 2]);
}

#[test]
fn everybody_has_a_role_of_the_profile_and_may_do_what_they_do() {
    let profile = profile();
    for actor in Actor::ALL {
        assert!(profile.roles.contains_key(actor.role()), "{actor:?}");
    }
    for set in SETS {
        for action in generate(set, 2026).day {
            let role = &profile.roles[action.actor.role()];
            let may = match &role.write {
                ropeway_core::profile::Writes::All => true,
                ropeway_core::profile::Writes::Only(names) => {
                    names.iter().any(|n| *n == *action.record.collection)
                }
            };
            assert!(may, "{action:?}");
        }
    }
}
