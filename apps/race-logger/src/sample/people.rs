//! People. Every one of them is invented: an offence must never stand beside a real person's name.

use super::chance::Chance;
use std::collections::BTreeSet;

/// Nations by their Olympic codes, which are not always those of ISO; AIN has no code of its own there.
pub(super) const NATIONS: [&str; 23] = [
    "AIN", "AND", "AUS", "AUT", "AZE", "BEL", "CAN", "CHN", "CZE", "ESP", "FRA", "GBR", "GER", "GRE", "ITA",
    "JPN", "NOR", "POL", "SLO", "SUI", "SVK", "SWE", "USA",
];

const WOMEN: [&str; 26] = [
    "Alva", "Brisa", "Celine", "Dagny", "Elina", "Fiora", "Greta", "Hedda", "Ilaria", "Jorunn", "Kaja",
    "Livia", "Maelle", "Noor", "Oriane", "Petra", "Runa", "Salome", "Tamsin", "Ursina", "Vilma", "Wanda",
    "Xenia", "Yuki", "Zoja", "Aurelie",
];
const MEN: [&str; 26] = [
    "Aksel", "Bruno", "Cyprien", "Damjan", "Emil", "Fabrice", "Gauthier", "Henrik", "Ivo", "Jannik",
    "Kaspar", "Lorin", "Matej", "Nevio", "Oskar", "Pirmin", "Quentin", "Ruben", "Silvan", "Tadej", "Urs",
    "Valentin", "Wim", "Yannis", "Zeno", "Anselm",
];
// Two halves that make surnames nobody bears.
const HEADS: [&str; 24] = [
    "Arvelo", "Bastru", "Corvani", "Dralo", "Eskemo", "Fornabe", "Gravelu", "Haldori", "Irvesto", "Jorvani",
    "Keskora", "Lumbere", "Morvasi", "Nevolu", "Orlanto", "Pralune", "Quelori", "Rovaste", "Sarvelo",
    "Tarnuvi", "Ulvaso", "Vorsani", "Wendulo", "Zavoste",
];
const TAILS: [&str; 18] = [
    "ndaz", "lquist", "mberg", "vetti", "skov", "rdane", "ltheim", "nnoud", "cchia", "zzoli", "rnik",
    "ldsen", "vreux", "gnard", "stein", "kovar", "lland", "mpard",
];

/// An athlete's names, each pair once.
pub(super) struct Names {
    chance: Chance,
    given: BTreeSet<(String, String)>,
}

impl Names {
    /// Nobody is named yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { chance: Chance::of(seed, "names"), given: BTreeSet::new() }
    }

    /// A first and a last name that nobody else in this set bears.
    pub(super) fn draw(&mut self, woman: bool) -> (String, String) {
        loop {
            let first = self.chance.pick(if woman { &WOMEN } else { &MEN });
            let last = format!("{}{}", self.chance.pick(&HEADS), self.chance.pick(&TAILS));
            let name = ((*first).to_owned(), last);
            if self.given.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Where somebody works on the race day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seat {
    /// At the cloud's desk.
    Cloud,
    /// At the Pi at the finish line.
    Pi,
    /// At the Pi on the ascent, which is revoked during the day.
    AscentPi,
    /// At a tablet at the start, which pushes straight to the cloud.
    Tablet,
}

impl Seat {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Pi => "Finish Line Pi",
            Self::AscentPi => "Ascent Pi",
            Self::Tablet => "Start tablet",
        }
    }
}

/// Somebody who takes part in the race day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// National referee at the finish.
    FinishReferee,
    /// International referee at the third transition.
    TransitionReferee,
    /// Runs the Pi and, where there is no network, enters reference data.
    RefereeManager,
    /// Watches the video.
    VarOperator,
    /// Presides over the jury.
    JuryPresident,
    /// Prepares the competition.
    Admin,
    /// National referee on the ascent.
    AscentReferee,
    /// National referee at the start.
    StartReferee,
}

impl Actor {
    /// Everybody.
    pub const ALL: [Self; 8] = [
        Self::FinishReferee,
        Self::TransitionReferee,
        Self::RefereeManager,
        Self::VarOperator,
        Self::JuryPresident,
        Self::Admin,
        Self::AscentReferee,
        Self::StartReferee,
    ];

    /// The name. Invented.
    pub fn name(self) -> &'static str {
        match self {
            Self::FinishReferee => "Jonas Brekkvallo",
            Self::TransitionReferee => "Mira Tolvanedda",
            Self::RefereeManager => "Nadja Holmquellu",
            Self::VarOperator => "Pavle Ostrimark",
            Self::JuryPresident => "Camille Verrondasse",
            Self::Admin => "Sven Aldermorra",
            Self::AscentReferee => "Ilse Dornecklo",
            Self::StartReferee => "Tom Vasserune",
        }
    }

    /// The role in the profile under which they work at their desk.
    pub fn role(self) -> &'static str {
        match self {
            Self::FinishReferee | Self::AscentReferee | Self::StartReferee => "national_referee",
            Self::TransitionReferee => "international_referee",
            // Enters competitions and races on a Pi in an emergency (ISMF-095): the Pi's own role.
            Self::RefereeManager => "device",
            Self::VarOperator => "var_operator",
            Self::JuryPresident => "jury_president",
            Self::Admin => "admin",
        }
    }

    /// Where they sit.
    pub fn seat(self) -> Seat {
        match self {
            Self::FinishReferee | Self::TransitionReferee | Self::RefereeManager => Seat::Pi,
            Self::VarOperator | Self::JuryPresident | Self::Admin => Seat::Cloud,
            Self::AscentReferee => Seat::AscentPi,
            Self::StartReferee => Seat::Tablet,
        }
    }
}
