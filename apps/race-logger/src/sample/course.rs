//! Where things happen: the places of a course by type of race, in the order in which they are passed.

/// A place on a course.
pub(super) struct Place {
    /// Its name for people.
    pub(super) name: &'static str,
    /// Part of the course.
    pub(super) segment: &'static str,
    /// Where in that part.
    pub(super) position: &'static str,
    /// Colour of the marking: green ascent, yellow foot, red descent, blue transition.
    pub(super) color: &'static str,
    /// Codes of the offences that are seen here.
    pub(super) offences: &'static [&'static str],
}

/// A type of race with its course.
pub(super) struct RaceType {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) description: &'static str,
    /// Its places.
    pub(super) places: &'static [Place],
}

macro_rules! places {
    ($($name:literal $segment:literal $position:literal $color:literal [$($code:literal)*];)*) => {
        &[$(Place {
            name: $name, segment: $segment, position: $position, color: $color, offences: &[$($code),*],
        },)*]
    };
}

const SPRINT: &[Place] = places! {
    "Start" "start_area" "start" "blue" ["C.1" "B.9" "B.4" "A.2"];
    "Ascent, diamonds" "uphill1" "middle" "green" ["C.7" "C.5" "C.15" "A.2"];
    "T1 skis to pack" "transition_1to2" "full" "blue" ["C.13" "C.9" "C.23"];
    "Foot part start" "footpart" "start" "yellow" ["C.9" "C.7" "C.15"];
    "T2 pack to skis" "transition_2to1" "full" "blue" ["C.13" "C.23" "C.15"];
    "T3 skins off" "uphill2" "end" "blue" ["C.10" "C.13" "C.23"];
    "Descent gate 1" "descent" "top" "red" ["C.4" "C.5" "A.3"];
    "Skating corridor" "descent" "bottom" "red" ["C.15" "A.2"];
    "Finish" "finish_area" "end" "blue" ["B.10" "B.5" "A.3"];
};

/// The sprint's course with a second gate: the load test has ten places a race.
pub(super) const SECOND_GATE: Place = Place {
    name: "Descent gate 2",
    segment: "descent",
    position: "middle",
    color: "red",
    offences: &["C.4", "C.5", "A.3"],
};

const RELAY: &[Place] = places! {
    "Start" "start_area" "start" "blue" ["C.1" "B.9" "A.2"];
    "Loop 1 ascent" "uphill1" "middle" "green" ["C.7" "C.15" "A.2"];
    "T1 skis to pack" "transition_1to2" "full" "blue" ["C.13" "C.9" "C.23"];
    "Foot part start" "footpart" "start" "yellow" ["C.9" "C.7"];
    "T2 pack to skis" "transition_2to1" "full" "blue" ["C.13" "C.23"];
    "T3 skins off" "uphill2" "end" "blue" ["C.10" "C.13" "C.23"];
    "Descent gate 1" "descent" "top" "red" ["C.4" "C.5" "A.3"];
    "Skating corridor" "descent" "bottom" "red" ["C.15" "A.2"];
    "Finish" "finish_area" "end" "blue" ["B.10" "B.5"];
    "Loop 2 ascent" "uphill2" "middle" "green" ["C.7" "C.15"];
    "Loop 2 foot part" "footpart" "middle" "yellow" ["C.9" "C.7"];
    "Loop 2 descent start" "descent" "start" "red" ["C.4" "C.5"];
    "Hand-over zone" "finish_area" "middle" "blue" ["E.1" "E.2" "C.13" "E.3"];
};

const INDIVIDUAL: &[Place] = places! {
    "Start" "start_area" "start" "blue" ["C.1" "B.9" "B.4"];
    "Ascent 1, low" "uphill1" "bottom" "green" ["C.7" "C.15"];
    "Ascent 1, middle" "uphill1" "middle" "green" ["C.7" "C.18"];
    "Ascent 1, top" "uphill1" "top" "green" ["C.5" "C.19"];
    "T1 skins off" "transition_1to2" "full" "blue" ["C.10" "C.13" "C.23"];
    "Descent 1" "descent" "full" "red" ["C.4" "C.5" "A.3"];
    "T2 skins on" "transition_2to1" "full" "blue" ["C.13" "C.23"];
    "Ascent 2, low" "uphill2" "bottom" "green" ["C.7" "C.18"];
    "Ascent 2, top" "uphill2" "top" "green" ["C.7" "C.19"];
    "Foot part, crampons" "footpart" "full" "yellow" ["C.8" "C.11" "C.14"];
    "Ridge checkpoint" "footpart" "top" "yellow" ["C.2" "C.3"];
    "T3 skins off" "uphill3" "end" "blue" ["C.10" "C.13" "C.23"];
    "Descent 2" "descent" "end" "red" ["C.4" "C.5"];
    "Finish" "finish_area" "end" "blue" ["B.10" "B.5" "B.6"];
};

const VERTICAL: &[Place] = places! {
    "Start" "start_area" "start" "blue" ["C.1" "B.9"];
    "Lower third" "uphill1" "bottom" "green" ["C.7" "C.15"];
    "Middle" "uphill1" "middle" "green" ["C.7" "C.18"];
    "Upper third" "uphill1" "top" "green" ["C.15" "C.18"];
    "Top" "uphill1" "end" "green" ["C.16" "C.19"];
    "Finish" "finish_area" "end" "blue" ["B.10" "B.5"];
};

/// All types of race. The first is the one that the sample sets run.
pub(super) const RACE_TYPES: &[RaceType] = &[
    RaceType {
        name: "Sprint",
        description: "About three minutes: ascent, foot part, descent",
        places: SPRINT,
    },
    RaceType { name: "Mixed Relay", description: "A woman and a man, two laps each", places: RELAY },
    RaceType {
        name: "Individual",
        description: "Mass start, several climbs and descents",
        places: INDIVIDUAL,
    },
    RaceType { name: "Vertical", description: "One climb, no descent", places: VERTICAL },
    RaceType { name: "Team", description: "Pairs who finish together", places: INDIVIDUAL },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_courses_have_their_documented_sizes() {
        let sizes: Vec<usize> = RACE_TYPES.iter().map(|t| t.places.len()).collect();
        assert_eq!(sizes, [9, 13, 14, 6, 14]);
    }

    #[test]
    fn every_offence_is_in_the_rule_book() {
        for place in RACE_TYPES.iter().flat_map(|t| t.places) {
            for code in place.offences {
                assert!(super::super::penalties::find(code).is_some(), "{code} at {}", place.name);
            }
        }
    }
}
