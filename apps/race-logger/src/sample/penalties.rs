//! The rule book's list of offences, A.1 to F.5, and what each costs (52 codes).

/// What an offence costs.
#[derive(Clone, Copy)]
pub(super) enum Cost {
    /// 30 seconds in team and individual races, 10 in the vertical, 3 in sprint and relay.
    Minor,
    /// 3 minutes, 1 minute, 30 seconds.
    Major,
    /// Disqualification.
    Out,
    /// Something else, in words: team and individual, vertical, sprint and relay.
    Other(&'static str, &'static str, &'static str),
}

impl Cost {
    /// In words: team and individual, vertical, sprint and relay. An empty text: not in this kind of race.
    pub(super) fn words(self) -> [&'static str; 3] {
        match self {
            Self::Minor => ["30 seconds", "10 seconds", "3 seconds"],
            Self::Major => ["3 minutes", "1 minute", "30 seconds"],
            Self::Out => ["disqualification"; 3],
            Self::Other(team, vertical, sprint) => [team, vertical, sprint],
        }
    }
}

/// One offence.
pub(super) struct Penalty {
    /// Its number: the letter of its category, a point, a number.
    pub(super) code: &'static str,
    /// What it is.
    pub(super) name: &'static str,
    /// What it costs.
    pub(super) cost: Cost,
    /// What is to be known besides; may be empty.
    pub(super) notes: &'static str,
}

/// The title of a category.
pub(super) fn title(category: &str) -> &'static str {
    match category {
        "A" => "General",
        "B" => "Equipment",
        "C" => "Behaviour",
        "D" => "Team races",
        "E" => "Relay races",
        _ => "Coaches",
    }
}

/// The offence with this code.
pub(super) fn find(code: &str) -> Option<&'static Penalty> {
    PENALTIES.iter().find(|p| p.code == code)
}

const fn p(code: &'static str, name: &'static str, cost: Cost) -> Penalty {
    Penalty { code, name, cost, notes: "" }
}

const fn n(code: &'static str, name: &'static str, cost: Cost, notes: &'static str) -> Penalty {
    Penalty { code, name, cost, notes }
}

use Cost::{Major, Minor, Other, Out};

/// All of them.
pub(super) const PENALTIES: [Penalty; 52] = [
    p("A.1", "cheating or a grave fault against safety", Out),
    p("A.2", "deliberate hindrance", Major),
    p("A.3", "minor technical error", Minor),
    p("B.1", "ski, binding or boot does not comply", Out),
    p("B.2", "equipment 1 to 20 grams underweight", Minor),
    p("B.3", "equipment 21 grams or more underweight", Out),
    p("B.4", "safety equipment missing at the start", Out),
    n(
        "B.5",
        "clothing or race equipment missing",
        Major,
        "for each item; a pole lost in the descent goes to A.3",
    ),
    n("B.6", "transceiver off or flat", Other("3 minutes", "1 minute", ""), "not in sprint and relay"),
    n("B.7", "crampon missing", Other("disqualification", "", ""), "not in vertical and sprint"),
    p("B.8", "headlamp off", Major),
    p("B.9", "no transponder at the start", Other("no start", "no start", "no start")),
    p("B.10", "no transponder at the finish", Minor),
    p("C.1", "false start", Major),
    p("C.2", "checkpoint missed", Out),
    p("C.3", "wrong track on a ridge", Out),
    p("C.4", "gate missed in the descent", Major),
    p("C.5", "dangerous skiing off the track", Out),
    p("C.6", "instruction of an official ignored", Major),
    p("C.7", "wrong mode of locomotion", Major),
    n("C.8", "no crampons where they are ordered", Out, "3 minutes where they broke"),
    p("C.9", "skis badly fixed on the pack", Minor),
    p("C.10", "skins badly stowed", Minor),
    p("C.11", "crampon straps not closed", Major),
    p("C.12", "crampons outside the pack", Major),
    p("C.13", "poles not flat in the transition", Minor),
    p("C.14", "karabiner not clipped", Major),
    p("C.15", "not yielding, or wrong use of the skating corridor", Minor),
    p("C.16", "pushing", Out),
    p("C.17", "no assistance to a person in danger", Major),
    p("C.18", "help from outside the support zone", Major),
    p("C.19", "damage to the environment", Major),
    p("C.20", "insult during the race", Out),
    p("C.21", "insult outside the race", Other("referral", "referral", "referral")),
    p("C.22", "absent at the ceremony", Other("no prize", "no prize", "no prize")),
    p("C.23", "wrong manoeuvre in the transition", Minor),
    n(
        "C.24",
        "leaving the race without notice",
        Other("rear start in the next race", "rear start in the next race", "rear start in the next race"),
        "and 100 euros",
    ),
    p("D.1", "team separated", Major),
    p("D.2", "wrong order in the team", Major),
    p("D.3", "team did not finish together", Out),
    p("D.4", "no help to the team mate", Major),
    p("D.5", "rope used where it is not allowed", Major),
    p("D.6", "rope not used where it is ordered", Out),
    p("D.7", "rope handled wrongly", Major),
    p("E.1", "exchange outside the zone", Other("", "", "30 seconds")),
    p("E.2", "exchange too early", Other("", "", "30 seconds")),
    p("E.3", "wrong course", Other("", "", "disqualification")),
    p("F.1", "coach on the course", Major),
    p("F.2", "coach helps outside the zone", Major),
    p("F.3", "coach interferes", Out),
    p("F.4", "disrespect by a coach", Out),
    p("F.5", "coach ignores officials", Major),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_its_documented_shape() {
        let count = |letter| PENALTIES.iter().filter(|p| p.code.starts_with(letter)).count();
        assert_eq!(['A', 'B', 'C', 'D', 'E', 'F'].map(count), [3, 10, 24, 7, 3, 5]);
    }
}
