//! The race day: who does what, where and when.

use super::{
    Actor, SampleRecord,
    build::{after, fields, instant, record},
    chance::Chance,
    course::Place,
    meeting::{Race, Starter},
    penalties,
};
use ropeway_core::{
    change::Op,
    doc::Fields,
    id::{Collection, RecordId},
    time::Time,
};
use serde_json::{Value, json};

/// A part of the race day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The Pi and the cloud see each other.
    Together,
    /// The cable is cut: nobody sees what the others do.
    Cut,
    /// The cable is joined again and both have caught up.
    Rejoined,
}

/// What somebody does.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// When.
    pub at: Time,
    /// In which part of the day.
    pub phase: Phase,
    /// Who; they know where.
    pub actor: Actor,
    /// Create or patch.
    pub op: Op,
    /// The record, with the fields that this action writes.
    pub record: SampleRecord,
}

impl Action {
    /// Whether a record comes into being.
    pub fn creates(&self) -> bool {
        self.op == Op::Create
    }
}

/// Something that happened on the course, as one person saw it.
#[derive(Clone)]
pub(super) struct Seen<'a> {
    pub(super) race: &'a Race,
    pub(super) place: &'a (RecordId, &'static Place),
    /// `None`: nobody could read the bib.
    pub(super) starter: Option<&'a Starter>,
    pub(super) code: &'static str,
    pub(super) at: Time,
}

/// A case, to which reports and decisions are added.
#[derive(Clone)]
pub(super) struct Case<'a> {
    pub(super) id: RecordId,
    pub(super) seen: Seen<'a>,
    pub(super) phase: Phase,
    pub(super) actor: Actor,
}

/// Writes the script of a day.
pub(super) struct Script {
    pub(super) chance: Chance,
    pub(super) actions: Vec<Action>,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self { chance: Chance::of(seed, "day"), actions: Vec::new() }
    }

    /// Picks what happens to whom in a race, `seconds` after its start.
    pub(super) fn seen<'a>(&mut self, race: &'a Race, seconds: i64) -> Seen<'a> {
        let place = self.chance.pick(&race.places);
        let code = *self.chance.pick(place.1.offences);
        let starter = (!race.starters.is_empty()).then(|| self.chance.pick(&race.starters));
        Seen { race, place, starter, code, at: after(race.start, seconds) }
    }

    /// Somebody opens a case, and with it comes its first report.
    pub(super) fn incident<'a>(&mut self, phase: Phase, actor: Actor, seen: Seen<'a>) -> Case<'a> {
        let id = self.chance.id(seen.at);
        let made = fields([
            ("race", json!(seen.race.id.as_str())),
            ("race_location", json!(seen.place.0.as_str())),
            ("bib_number", seen.starter.map_or(Value::Null, |s| json!(s.bib))),
            ("description", json!(offence(seen.code))),
            ("status", json!("unofficial")),
            ("decision", json!("pending")),
            ("created_at", instant(seen.at)),
        ]);
        self.push(seen.at, phase, actor, Op::Create, record("incident", id.clone(), made));
        let case = Case { id, seen, phase, actor };
        self.report(&case, phase, actor, case.seen.at, "seen from the place itself");
        case
    }

    /// Somebody adds what they saw to a case.
    pub(super) fn report(
        &mut self,
        case: &Case<'_>,
        phase: Phase,
        actor: Actor,
        at: Time,
        words: &str,
    ) -> RecordId {
        let (id, seen) = (self.chance.id(at), &case.seen);
        let made = fields([
            ("incident", json!(case.id.as_str())),
            ("race", json!(seen.race.id.as_str())),
            ("race_location", json!(seen.place.0.as_str())),
            ("race_participation", seen.starter.map_or(Value::Null, |s| json!(s.participation.as_str()))),
            ("athlete", seen.starter.map_or(Value::Null, |s| json!(s.athlete.as_str()))),
            ("bib_number", seen.starter.map_or(Value::Null, |s| json!(s.bib))),
            ("user", json!(actor.name())),
            ("description", json!(format!("{} at {}: {words}", seen.code, seen.place.1.name))),
            ("created_at", instant(at)),
        ]);
        self.push(at, phase, actor, Op::Create, record("report", id.clone(), made));
        id
    }

    /// Somebody makes a case official.
    pub(super) fn officialize(&mut self, case: &Case<'_>, phase: Phase, actor: Actor, at: Time) {
        let made = fields([
            ("status", json!("official")),
            ("officialized_at", instant(at)),
            ("officialized_by", json!(actor.name())),
        ]);
        self.patch(case, phase, actor, at, made);
    }

    /// Somebody decides a case.
    pub(super) fn decide(&mut self, case: &Case<'_>, phase: Phase, actor: Actor, at: Time, decision: &str) {
        let made = fields([
            ("decision", json!(decision)),
            ("decided_at", instant(at)),
            ("decided_by", json!(actor.name())),
        ]);
        self.patch(case, phase, actor, at, made);
    }

    /// Somebody corrects a case.
    pub(super) fn patch(&mut self, case: &Case<'_>, phase: Phase, actor: Actor, at: Time, made: Fields) {
        self.push(at, phase, actor, Op::Patch, record("incident", case.id.clone(), made));
    }

    pub(super) fn push(&mut self, at: Time, phase: Phase, actor: Actor, op: Op, record: SampleRecord) {
        self.actions.push(Action { at, phase, actor, op, record });
    }

    /// Gives so many reports an eight-second clip. That of `failed` never arrived: its film is still
    /// pending, while the report itself is complete (ISMF-159).
    pub(super) fn clips(&mut self, count: usize, failed: Option<&RecordId>) {
        let is_report = |collection: &Collection| &**collection == "report";
        let mut reports: Vec<usize> =
            (0..self.actions.len()).filter(|at| is_report(&self.actions[*at].record.collection)).collect();
        self.chance.shuffle(&mut reports);
        // Stable: whoever's clip failed is among those who have one.
        reports.sort_by_key(|at| Some(&self.actions[*at].record.id) != failed);
        for at in reports.into_iter().take(count) {
            let from = 60 + self.chance.below(5_400);
            let clock = |s: usize| format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60);
            let report = &mut self.actions[at].record;
            let status = if Some(&report.id) == failed { "pending" } else { "uploaded" };
            let clip = json!({"start_time": clock(from), "end_time": clock(from + 8), "status": status});
            report.fields.insert("video_clip".into(), clip);
        }
    }

    /// The script in the order of time.
    pub(super) fn finish(mut self) -> Vec<Action> {
        self.actions.sort_by_key(|a| (a.phase, a.at));
        self.actions
    }
}

/// An offence in words.
pub(super) fn offence(code: &str) -> String {
    penalties::find(code).map_or_else(|| code.to_owned(), |p| format!("{code} {}", p.name))
}
