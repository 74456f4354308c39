//! The race day of set M, "Verbier 2026": every special case that a race day knows, once.

use super::{
    Action, Actor, Phase,
    build::{after, fields, instant, local, record},
    day::{Case, Script, Seen, offence},
    meeting::{Meeting, Race},
};
use ropeway_core::{change::Op, id::RecordId, time::Time};
use serde_json::json;

/// Two records that belong together in a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The one made on the Pi.
    pub pi: RecordId,
    /// The one made on the cloud.
    pub cloud: RecordId,
}

/// The special cases of set M, each by the records that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specials {
    /// A true duplicate: one offence, seen at the Pi and 21 seconds later by VAR.
    pub twins: Pair,
    /// A false duplicate: one bib, two offences within the window.
    pub two_offences: Pair,
    /// An incident that the Pi and the jury decide differently.
    pub decision_mismatch: RecordId,
    /// An incident that the Pi and VAR both make official.
    pub both_official: RecordId,
    /// An incident whose description is corrected on both sides.
    pub same_id_edit: RecordId,
    /// An incident of which the Pi corrects the bib and VAR the description.
    pub other_field_edit: RecordId,
    /// A report that reaches the cloud before its incident does.
    pub missing_parent: RecordId,
    /// That incident, made on the Pi.
    pub missing_parent_of: RecordId,
    /// Two incidents at one place within the window, of which nobody could read the bib.
    pub unknown_bib: Pair,
    /// A report whose clip did not arrive.
    pub failed_clip: RecordId,
    /// Two competitions of one name: made on the Pi with 2 races, on the cloud with 5.
    pub duplicate_competition: Pair,
    /// An incident on a device that is revoked before it can send it.
    pub revoked_device: RecordId,
    /// A report to the Pi's twin, entered after that was joined into the cloud's.
    pub late_report: RecordId,
    /// An incident that is edited while its upload is under way.
    pub edited_in_flight: RecordId,
    /// An incident whose upload's answer is lost.
    pub lost_response: RecordId,
}

use Actor::{
    AscentReferee, FinishReferee, JuryPresident, RefereeManager, StartReferee, TransitionReferee, VarOperator,
};
use Phase::{Cut, Rejoined, Together};

/// Index of races in the meeting: the test race, two qualifications, then the rounds, women before men.
const QUALIFICATION: [usize; 2] = [1, 2];
const QUARTERFINALS: [usize; 2] = [3, 8];
const SEMIFINALS: [usize; 2] = [13, 15];
const FINALS: [usize; 2] = [17, 18];
/// Index of places on a sprint course.
const START: usize = 0;
const ASCENT: usize = 1;
const T3: usize = 5;
const CORRIDOR: usize = 7;

/// Writes the day and names its special cases.
pub(super) fn day(meeting: &Meeting, seed: u64) -> (Vec<Action>, Specials) {
    let mut day = Day { script: Script::new(seed), meeting };
    let morning = day.morning();
    let edits = day.edits(&morning);
    let twins = day.twins();
    let two_offences = day.two_offences();
    let unknown_bib = day.unknown_bib();
    let (missing_parent_of, missing_parent) = day.missing_parent();
    let revoked_device = day.revoked();
    day.ordinary();
    let duplicate_competition = day.competitions();
    let (late_report, edited_in_flight, lost_response) = day.evening(&twins.0);
    let failed_clip = morning.failed_clip;
    day.script.clips(45, Some(&failed_clip));
    let specials = Specials {
        twins: twins.1,
        two_offences,
        decision_mismatch: edits.decision_mismatch,
        both_official: edits.both_official,
        same_id_edit: edits.same_id,
        other_field_edit: edits.other_field,
        missing_parent,
        missing_parent_of,
        unknown_bib,
        failed_clip,
        duplicate_competition,
        revoked_device,
        late_report,
        edited_in_flight,
        lost_response,
    };
    (day.script.finish(), specials)
}

struct Day<'a> {
    script: Script,
    meeting: &'a Meeting,
}

/// Cases that both sides know when the cable is cut.
struct Morning<'a> {
    cases: Vec<Case<'a>>,
    failed_clip: RecordId,
}

/// Which of them are edited on both sides.
struct Edits {
    both_official: RecordId,
    decision_mismatch: RecordId,
    same_id: RecordId,
    other_field: RecordId,
}

impl<'a> Day<'a> {
    fn race(&self, at: usize) -> &'a Race {
        &self.meeting.races[at]
    }

    /// A thing that happens at a given place of a race.
    fn happens(&mut self, race: usize, place: usize, at: Time, code: &'static str) -> Seen<'a> {
        let race = self.race(race);
        let starter = Some(self.script.chance.pick(&race.starters));
        Seen { race, place: &race.places[place], starter, code, at }
    }

    /// Twelve cases in the two qualifications, by turns from the Pi and from VAR; ten of them get a report
    /// from the other side, four are settled before the cable is cut.
    fn morning(&mut self) -> Morning<'a> {
        let mut cases = Vec::new();
        let mut failed_clip = None;
        for at in 0..12_i64 {
            let race = self.race(QUALIFICATION[usize::from(at % 2 == 1)]);
            let jitter = i64::try_from(self.script.chance.below(40)).unwrap_or(0);
            let seen = self.script.seen(race, 90 + at * 150 + jitter);
            let (near, beside, far) = match at % 3 {
                0 => (FinishReferee, TransitionReferee, VarOperator),
                1 => (TransitionReferee, FinishReferee, VarOperator),
                _ => (VarOperator, JuryPresident, TransitionReferee),
            };
            let case = self.script.incident(Together, near, seen);
            let seen_at = case.seen.at;
            let second =
                self.script.report(&case, Together, beside, after(seen_at, 12), "seen from the other side");
            failed_clip.get_or_insert(second);
            if at < 10 {
                self.script.report(&case, Together, far, after(seen_at, 45), "seen again later");
            }
            cases.push(case);
        }
        let settled = ["penalty_applied", "rejected", "no_action", "penalty_applied"];
        for (case, decision) in cases[4..8].to_vec().iter().zip(settled) {
            self.script.officialize(case, Together, VarOperator, after(case.seen.at, 120));
            self.script.decide(case, Together, JuryPresident, after(case.seen.at, 300), decision);
        }
        self.script.officialize(&cases[1], Together, TransitionReferee, after(cases[1].seen.at, 100));
        let failed_clip = failed_clip.unwrap_or_else(|| cases[0].id.clone());
        Morning { cases, failed_clip }
    }

    /// The same incidents, worked on from both sides of the cut cable.
    fn edits(&mut self, morning: &Morning<'a>) -> Edits {
        let [official, decided, described, other] = [0, 1, 2, 3].map(|at| morning.cases[at].clone());
        self.script.officialize(&official, Cut, TransitionReferee, local(10, 20, 0));
        self.script.officialize(&official, Cut, VarOperator, local(10, 22, 0));
        self.script.decide(&decided, Cut, JuryPresident, local(14, 0, 0), "no_action");
        self.script.decide(&decided, Cut, TransitionReferee, local(14, 15, 0), "penalty_applied");
        let says = |words: &str| fields([("description", json!(words))]);
        self.script.patch(
            &described,
            Cut,
            VarOperator,
            local(10, 24, 0),
            says("left pole upright, right pole flat"),
        );
        self.script.patch(&described, Cut, FinishReferee, local(10, 25, 0), says("both poles upright"));
        // A bib that nobody else of this race wears.
        let read_again = fields([("bib_number", json!(99))]);
        self.script.patch(&other, Cut, FinishReferee, local(10, 26, 0), read_again);
        self.script.patch(&other, Cut, VarOperator, local(10, 27, 0), says("seen on camera 3 as well"));
        let id = |case: Case<'_>| case.id;
        let (both_official, decision_mismatch) = (id(official), id(decided));
        Edits { both_official, decision_mismatch, same_id: id(described), other_field: id(other) }
    }

    /// Two cases of one bib at one place, made on the Pi and, `seconds` later, by VAR.
    fn pair(&mut self, seen: Seen<'a>, seconds: i64, second_code: &'static str) -> (Case<'a>, Case<'a>) {
        let again = Seen { at: after(seen.at, seconds), code: second_code, ..seen.clone() };
        let pi = self.script.incident(Cut, TransitionReferee, seen);
        let cloud = self.script.incident(Cut, VarOperator, again);
        self.script.report(&pi, Cut, FinishReferee, after(pi.seen.at, 15), "seen from the finish");
        self.script.report(&cloud, Cut, JuryPresident, after(cloud.seen.at, 60), "seen on camera 2");
        (pi, cloud)
    }

    fn twins(&mut self) -> (Case<'a>, Pair) {
        let at = after(self.race(QUARTERFINALS[0]).start, 68);
        let seen = self.happens(QUARTERFINALS[0], T3, at, "C.13");
        let (pi, cloud) = self.pair(seen, 21, "C.13");
        let pair = Pair { pi: pi.id.clone(), cloud: cloud.id };
        (pi, pair)
    }

    fn two_offences(&mut self) -> Pair {
        let race = QUARTERFINALS[1] + 1;
        let at = after(self.race(race).start, 77);
        let seen = self.happens(race, T3, at, "C.13");
        let (pi, cloud) = self.pair(seen, 14, "C.10");
        Pair { pi: pi.id, cloud: cloud.id }
    }

    fn unknown_bib(&mut self) -> Pair {
        let race = QUARTERFINALS[0] + 2;
        let at = after(self.race(race).start, 130);
        let seen = self.happens(race, CORRIDOR, at, "C.15");
        let (pi, cloud) = self.pair(Seen { starter: None, ..seen }, 9, "C.15");
        Pair { pi: pi.id, cloud: cloud.id }
    }

    /// The Pi holds the incident; a tablet at the start, which still reaches the cloud, reports on it.
    fn missing_parent(&mut self) -> (RecordId, RecordId) {
        let race = QUARTERFINALS[1] + 3;
        let at = after(self.race(race).start, 5);
        let seen = self.happens(race, START, at, "C.1");
        let case = self.script.incident(Cut, FinishReferee, seen);
        self.script.report(&case, Cut, TransitionReferee, after(at, 20), "heard over the radio");
        let report = self.script.report(&case, Cut, StartReferee, after(at, 30), "seen at the line");
        (case.id, report)
    }

    fn revoked(&mut self) -> RecordId {
        let race = QUARTERFINALS[0] + 3;
        let at = after(self.race(race).start, 40);
        let seen = self.happens(race, ASCENT, at, "C.7");
        let case = self.script.incident(Cut, AscentReferee, seen);
        self.script.report(&case, Cut, AscentReferee, after(at, 25), "seen from above");
        case.id
    }

    /// Six cases of which nobody will ever speak again.
    fn ordinary(&mut self) {
        let races = [
            QUARTERFINALS[0] + 4,
            QUARTERFINALS[1],
            QUARTERFINALS[1] + 4,
            SEMIFINALS[0],
            SEMIFINALS[0] + 1,
            SEMIFINALS[1],
        ];
        for (at, race) in races.into_iter().enumerate() {
            let jitter = i64::try_from(self.script.chance.below(60)).unwrap_or(0);
            let seen = self.script.seen(self.race(race), 30 + jitter);
            let (near, beside) =
                if at % 2 == 0 { (FinishReferee, TransitionReferee) } else { (VarOperator, JuryPresident) };
            let case = self.script.incident(Cut, near, seen);
            self.script.report(&case, Cut, beside, after(case.seen.at, 18), "seen from the other side");
            if at == 0 {
                self.script.officialize(&case, Cut, TransitionReferee, after(case.seen.at, 240));
            }
        }
    }

    /// Without network the Pi makes the juniors' competition itself; the cloud makes it too (ISMF-151).
    fn competitions(&mut self) -> Pair {
        let pi = self.juniors(RefereeManager, local(11, 0, 0), 2);
        let cloud = self.juniors(Actor::Admin, local(11, 30, 0), 5);
        Pair { pi, cloud }
    }

    fn juniors(&mut self, actor: Actor, at: Time, races: i64) -> RecordId {
        let id = self.script.chance.id(at);
        let made = fields([
            ("name", json!("Verbier 2026 Juniors")),
            ("city", json!("Verbier")),
            ("place", json!("Verbier")),
            ("country", json!("SUI")),
            ("start_date", json!("2026-02-16")),
            ("end_date", json!("2026-02-16")),
            ("created_at", instant(at)),
        ]);
        self.script.push(at, Cut, actor, Op::Create, record("competition", id.clone(), made));
        for position in 1..=races {
            let at = after(at, position * 40);
            let race = fields([
                ("competition", json!(id.as_str())),
                ("race_type", json!(self.meeting.sprint.as_str())),
                ("name", json!(format!("Juniors - Heat {position}"))),
                ("stage_type", json!("Heat")),
                ("heat_number", json!(position)),
                ("gender_category", json!("M")),
                ("position", json!(position)),
                ("status", json!("scheduled")),
                ("created_at", instant(at)),
            ]);
            let race_id = self.script.chance.id(at);
            self.script.push(at, Cut, actor, Op::Create, record("race", race_id, race));
        }
        id
    }

    /// The cable is joined; what follows goes out at once.
    fn evening(&mut self, twin: &Case<'a>) -> (RecordId, RecordId, RecordId) {
        let words = "asked by the jury, entered late";
        let late = self.script.report(twin, Rejoined, FinishReferee, local(14, 40, 0), words);
        // Cases of the finals, opened after the race, while the jury sits.
        let mut cases = Vec::new();
        for (at, actor) in (0..).zip([FinishReferee, FinishReferee, FinishReferee, VarOperator]) {
            let race = self.race(FINALS[usize::from(at > 1)]);
            let opened = local(14, 45 + at * 2, 0);
            let seen = Seen { at: opened, ..self.script.seen(race, 0) };
            let beside = if actor == VarOperator { JuryPresident } else { TransitionReferee };
            let case = self.script.incident(Rejoined, actor, seen);
            self.script.report(&case, Rejoined, beside, after(opened, 50), "seen from the other side");
            cases.push(case);
        }
        let more = format!("{}; both hands", offence(cases[0].seen.code));
        let made = fields([("description", json!(more))]);
        self.script.patch(&cases[0], Rejoined, FinishReferee, after(cases[0].seen.at, 10), made);
        (late, cases[0].id.clone(), cases[1].id.clone())
    }
}
