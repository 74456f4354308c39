//! A race day of any size, without special cases.

use super::{
    Actor,
    build::after,
    day::{Action, Case, Phase, Script},
    meeting::{Meeting, Race},
};

/// Seconds between two incidents of one race: more than the window within which two are taken for one.
const APART: i64 = 40;

/// Spreads incidents over all races that have a start list, and reports and clips over the incidents.
pub(super) fn day(
    meeting: &Meeting,
    seed: u64,
    incidents: usize,
    reports: usize,
    clips: usize,
) -> Vec<Action> {
    let mut script = Script::new(seed);
    let races: Vec<&Race> = meeting.races.iter().filter(|r| !r.starters.is_empty()).collect();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for at in 0..incidents {
        let nth = i64::try_from(at / races.len()).unwrap_or(0);
        let seconds = 30 + nth * APART + i64::try_from(script.chance.below(5)).unwrap_or(0);
        let seen = script.seen(races[at % races.len()], seconds);
        let actor = [Actor::VarOperator, Actor::FinishReferee, Actor::TransitionReferee][at % 3];
        let phase = if at * 3 < incidents { Phase::Together } else { Phase::Cut };
        cases.push(script.incident(phase, actor, seen));
    }
    for at in 0..reports.saturating_sub(incidents) {
        let case = cases[at % cases.len()].clone();
        let later = 10 + i64::try_from(at / cases.len()).unwrap_or(0) * 5;
        script.report(&case, case.phase, case.actor, after(case.seen.at, later), "seen from the other side");
    }
    script.clips(clips, None);
    script.finish()
}
