//! Reference data: the competition with its stages, races, places, athletes and start lists.

use super::{
    SampleRecord, Set,
    build::{after, fields, instant, local, record},
    chance::Chance,
    course::{Place, RACE_TYPES, SECOND_GATE},
    penalties::{PENALTIES, title},
    people::{NATIONS, Names},
};
use ropeway_core::{id::RecordId, time::Time};
use serde_json::{Value, json};

/// A race with what a referee needs to know about it.
pub(super) struct Race {
    pub(super) id: RecordId,
    pub(super) start: Time,
    pub(super) places: Vec<(RecordId, &'static Place)>,
    pub(super) starters: Vec<Starter>,
}

/// Somebody on a start list.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) bib: u16,
    pub(super) athlete: RecordId,
    pub(super) participation: RecordId,
}

/// The competition before the first start.
pub(super) struct Meeting {
    pub(super) competition: RecordId,
    pub(super) sprint: RecordId,
    pub(super) begins: Time,
    pub(super) races: Vec<Race>,
    pub(super) records: Vec<SampleRecord>,
}

/// One round for women or men.
struct Round {
    stage: &'static str,
    word: &'static str,
    heats: usize,
    /// Starters in each heat. 0: everybody, in one heat; `NOBODY`: not drawn yet.
    seats: usize,
    /// Local hour and minute of the first heat, and minutes between heats.
    first: (i64, i64),
    apart: i64,
}

const NOBODY: usize = usize::MAX;

/// What distinguishes the sets.
struct Plan {
    name: &'static str,
    city: &'static str,
    athletes: [usize; 2],
    second_gate: bool,
    test_race: bool,
    rounds: [Vec<Round>; 2],
}

fn round(
    stage: &'static str,
    word: &'static str,
    heats: usize,
    seats: usize,
    first: (i64, i64),
    apart: i64,
) -> Round {
    Round { stage, word, heats, seats, first, apart }
}

fn plan(set: Set) -> Plan {
    match set {
        Set::S => Plan {
            name: "Olympic Sprint 2026",
            city: "Bormio",
            athletes: [18, 18],
            second_gate: false,
            test_race: false,
            rounds: [
                vec![
                    round("Heats", "Heat", 3, 6, (9, 50), 10),
                    round("Semifinals", "Semifinal", 2, 6, (12, 55), 10),
                    round("Finals", "Final", 1, 6, (13, 55), 0),
                ],
                vec![
                    round("Heats", "Heat", 3, 6, (10, 30), 10),
                    round("Semifinals", "Semifinal", 2, 6, (13, 25), 10),
                    round("Finals", "Final", 1, 6, (14, 15), 0),
                ],
            ],
        },
        Set::M => Plan {
            name: "Verbier 2026",
            city: "Verbier",
            athletes: [47, 67],
            second_gate: false,
            test_race: true,
            rounds: [
                vec![
                    round("Qualification", "Qualification", 1, 0, (8, 30), 0),
                    round("Quarterfinals", "Quarterfinal", 5, 6, (10, 30), 6),
                    round("Semifinals", "Semifinal", 2, 6, (12, 55), 7),
                    round("Finals", "Final", 1, 6, (13, 55), 0),
                ],
                vec![
                    round("Qualification", "Qualification", 1, 0, (9, 10), 0),
                    round("Quarterfinals", "Quarterfinal", 5, 6, (11, 10), 6),
                    round("Semifinals", "Semifinal", 2, 6, (13, 25), 7),
                    round("Finals", "Final", 1, 6, (14, 15), 0),
                ],
            ],
        },
        Set::L => Plan {
            name: "Load Test 2026",
            city: "Verbier",
            athletes: [200, 200],
            second_gate: true,
            test_race: false,
            rounds: [(7, 0), (7, 30)].map(|first| {
                vec![
                    round("Qualification", "Qualification", 10, 0, first, 60),
                    // Their start lists are not drawn yet.
                    round("Finals", "Final", 10, NOBODY, (first.0 + 10, first.1), 10),
                ]
            }),
        },
    }
}

/// Builds the reference data.
pub(super) fn meeting(set: Set, seed: u64) -> Meeting {
    let plan = plan(set);
    let begins = local(6, 0, 0);
    let mut chance = Chance::of(seed, "meeting");
    // Reference data was entered in the week before.
    let made = after(begins, -5 * 86_400);
    let mut records = Vec::new();
    let competition = chance.id(made);
    records.push(record(
        "competition",
        competition.clone(),
        fields([
            ("name", json!(plan.name)),
            ("city", json!(plan.city)),
            ("place", json!(plan.city)),
            ("country", json!(if plan.city == "Verbier" { "SUI" } else { "ITA" })),
            ("description", json!("Ski mountaineering sprint, women and men")),
            ("start_date", json!("2026-02-15")),
            ("end_date", json!("2026-02-15")),
            ("webpage_url", json!("https://example.org/sprint-2026")),
            ("created_at", instant(made)),
        ]),
    ));
    let sprint = race_types(&mut chance, made, &mut records);
    penalties(&mut chance, made, &mut records);
    let mut build = Build {
        plan: &plan,
        competition: competition.clone(),
        sprint: sprint.clone(),
        made,
        chance,
        records,
    };
    let stages = build.stages();
    let field = build.athletes(seed);
    let races = build.races(&stages, &field);
    Meeting { competition, sprint, begins, races, records: build.records }
}

fn race_types(chance: &mut Chance, made: Time, records: &mut Vec<SampleRecord>) -> RecordId {
    let mut sprint = None;
    for kind in RACE_TYPES {
        let id = chance.id(made);
        records.push(record(
            "race_type",
            id.clone(),
            fields([
                ("name", json!(kind.name)),
                ("description", json!(kind.description)),
                ("created_at", instant(made)),
            ]),
        ));
        for (order, place) in (1..).zip(kind.places) {
            let mut template = placed(place, order);
            template.insert("race_type".into(), json!(id.as_str()));
            template.insert("created_at".into(), instant(made));
            records.push(record("race_type_location_template", chance.id(made), template));
        }
        sprint.get_or_insert(id);
    }
    sprint.unwrap_or_else(|| RecordId::trusted("sprint"))
}

/// What a place's template and a race's location have in common.
fn placed(place: &Place, order: i64) -> ropeway_core::doc::Fields {
    fields([
        ("name", json!(place.name)),
        ("course_segment", json!(place.segment)),
        ("segment_position", json!(place.position)),
        ("display_order", json!(order * 10)),
        ("color_code", json!(place.color)),
        ("is_standard", json!(true)),
    ])
}

fn penalties(chance: &mut Chance, made: Time, records: &mut Vec<SampleRecord>) {
    let text = |words: &str| if words.is_empty() { Value::Null } else { json!(words) };
    for penalty in &PENALTIES {
        let category = &penalty.code[..1];
        let [team, vertical, sprint] = penalty.cost.words();
        records.push(record(
            "penalty",
            chance.id(made),
            fields([
                ("penalty_number", json!(penalty.code)),
                ("category", json!(category)),
                ("category_title", json!(title(category))),
                ("name", json!(penalty.name)),
                ("team_individual", text(team)),
                ("vertical", text(vertical)),
                ("sprint_relay", text(sprint)),
                ("notes", text(penalty.notes)),
                ("created_at", instant(made)),
            ]),
        ));
    }
}

/// Somebody who has entered, before any race.
struct Entrant {
    athlete: RecordId,
    bib: u16,
}

struct Build<'a> {
    plan: &'a Plan,
    competition: RecordId,
    sprint: RecordId,
    made: Time,
    chance: Chance,
    records: Vec<SampleRecord>,
}

impl Build<'_> {
    fn stages(&mut self) -> Vec<(&'static str, RecordId)> {
        let names: Vec<&'static str> = self.plan.rounds[0].iter().map(|r| r.stage).collect();
        let mut stages = Vec::new();
        for (position, name) in (1..).zip(names) {
            let id = self.chance.id(self.made);
            self.records.push(record(
                "stage",
                id.clone(),
                fields([
                    ("competition", json!(self.competition.as_str())),
                    ("name", json!(name)),
                    ("date", json!("2026-02-15")),
                    ("position", json!(position)),
                    ("created_at", instant(self.made)),
                ]),
            ));
            stages.push((name, id));
        }
        stages
    }

    /// Women with bibs from 1, men from 101, in the order in which the qualification ranks them.
    fn athletes(&mut self, seed: u64) -> [Vec<Entrant>; 2] {
        let mut names = Names::new(seed);
        let mut licence = 20_000;
        [(0, true, 1_u16), (1, false, 101)].map(|(sex, woman, first_bib)| {
            let mut field = Vec::new();
            for (bib, at) in (first_bib..).zip(0..self.plan.athletes[sex]) {
                let (first, last) = names.draw(woman);
                let nation = NATIONS.get(at).copied().unwrap_or(*self.chance.pick(&NATIONS));
                let gender = if woman { "F" } else { "M" };
                licence += 1 + self.chance.below(40);
                let athlete = self.chance.id(self.made);
                self.records.push(record(
                    "athlete",
                    athlete.clone(),
                    fields([
                        ("first_name", json!(first)),
                        ("last_name", json!(last)),
                        ("country", json!(nation)),
                        ("gender", json!(gender)),
                        ("license_number", json!(format!("{nation}-{gender}-{licence}"))),
                        ("created_at", instant(self.made)),
                    ]),
                ));
                field.push(Entrant { athlete, bib });
            }
            self.chance.shuffle(&mut field);
            field
        })
    }

    fn races(&mut self, stages: &[(&'static str, RecordId)], field: &[Vec<Entrant>; 2]) -> Vec<Race> {
        let mut races = Vec::new();
        if self.plan.test_race {
            races.push(self.test_race());
        }
        for (at, (_, stage)) in stages.iter().enumerate() {
            for sex in [0, 1] {
                let round = &self.plan.rounds[sex][at];
                for heat in 0..round.heats {
                    let position = races.len() + 1;
                    races.push(self.race(sex, round, heat, stage, position, &field[sex]));
                }
            }
        }
        races
    }

    /// Run before the first start to try cameras and devices: no places, no start list.
    fn test_race(&mut self) -> Race {
        let (id, start) = (self.chance.id(self.made), local(7, 45, 0));
        self.records.push(record(
            "race",
            id.clone(),
            fields([
                ("competition", json!(self.competition.as_str())),
                ("race_type", json!(self.sprint.as_str())),
                ("name", json!("Test race")),
                ("position", json!(1)),
                ("scheduled_at", instant(start)),
                ("status", json!("scheduled")),
                // No document's race has it: kept and passed on like every field that the profile does not know.
                ("is_test", json!(true)),
                ("created_at", instant(self.made)),
            ]),
        ));
        Race { id, start, places: Vec::new(), starters: Vec::new() }
    }

    fn race(
        &mut self,
        sex: usize,
        round: &Round,
        heat: usize,
        stage: &RecordId,
        position: usize,
        field: &[Entrant],
    ) -> Race {
        let minutes = i64::try_from(heat).unwrap_or(0) * round.apart;
        let start = local(round.first.0, round.first.1 + minutes, 0);
        let several = round.heats > 1;
        let name = if several { format!("{} {}", round.word, heat + 1) } else { round.word.to_owned() };
        let id = self.chance.id(self.made);
        self.records.push(record(
            "race",
            id.clone(),
            fields([
                ("competition", json!(self.competition.as_str())),
                ("stage", json!(stage.as_str())),
                ("race_type", json!(self.sprint.as_str())),
                ("name", json!(format!("Sprint {} - {name}", ["Women", "Men"][sex]))),
                ("stage_type", json!(round.word)),
                ("stage_name", json!(name)),
                ("heat_number", if several { json!(heat + 1) } else { Value::Null }),
                ("gender_category", json!(["W", "M"][sex])),
                ("position", json!(position)),
                ("scheduled_at", instant(start)),
                ("status", json!("scheduled")),
                ("created_at", instant(self.made)),
            ]),
        ));
        let places = self.places(&id);
        let starters = self.start_list(&id, round, heat, field);
        Race { id, start, places, starters }
    }

    fn places(&mut self, race: &RecordId) -> Vec<(RecordId, &'static Place)> {
        let gate = self.plan.second_gate.then_some(&SECOND_GATE);
        let all: Vec<&'static Place> = RACE_TYPES[0].places.iter().chain(gate).collect();
        let mut places = Vec::new();
        for (order, place) in (1..).zip(all) {
            let id = self.chance.id(self.made);
            let mut location = placed(place, order);
            location.insert("race".into(), json!(race.as_str()));
            location.insert("created_at".into(), instant(self.made));
            self.records.push(record("race_location", id.clone(), location));
            places.push((id, place));
        }
        places
    }

    /// The best of the round before, dealt out over the heats like cards.
    fn start_list(&mut self, race: &RecordId, round: &Round, heat: usize, field: &[Entrant]) -> Vec<Starter> {
        let in_heat = |rank: usize| match round.seats {
            0 => true,
            NOBODY => false,
            seats => rank < seats * round.heats && rank % round.heats == heat,
        };
        let mut starters = Vec::new();
        for (rank, entrant) in field.iter().enumerate().filter(|(rank, _)| in_heat(*rank)) {
            let participation = self.chance.id(self.made);
            self.records.push(record(
                "race_participation",
                participation.clone(),
                fields([
                    ("race", json!(race.as_str())),
                    ("athlete", json!(entrant.athlete.as_str())),
                    ("bib_number", json!(entrant.bib)),
                    ("heat", json!(format!("{}_{}", round.word.to_lowercase(), heat + 1))),
                    ("active_in_heat", json!(true)),
                    ("status", json!("registered")),
                    ("mso_id", json!(format!("MSO-{:03}-{:02}", entrant.bib, rank + 1))),
                ]),
            ));
            let Entrant { athlete, bib } = entrant;
            starters.push(Starter { bib: *bib, athlete: athlete.clone(), participation });
        }
        starters
    }
}
