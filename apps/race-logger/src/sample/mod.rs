//! Sample data of whole race days, generated from a seed: the same seed gives the same bytes everywhere.
//!
//! Every athlete and every official is invented. The sizes are those of a World Cup sprint day (set M),
//! of an Olympic sprint (S) and of a load test (L).

mod build;
mod chance;
mod course;
mod day;
mod meeting;
mod occasions;
mod penalties;
mod people;
mod verbier;

pub use day::{Action, Phase};
pub use people::{Actor, Seat};
pub use verbier::{Pair, Specials};

use ropeway_core::{
    doc::Fields,
    id::{Collection, RecordId},
    time::Time,
};

/// Which sample set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// An Olympic sprint: 12 races, 36 athletes, 8 incidents.
    S,
    /// "Verbier 2026", a World Cup sprint: 18 races and a test race, 114 athletes, 30 incidents, and every
    /// special case of a race day once.
    M,
    /// A load test: 40 races, 400 athletes, 4000 participations, 500 incidents.
    L,
}

/// One record of a sample set.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRecord {
    /// Its collection in the race logger's profile.
    pub collection: Collection,
    /// Its id, in the shape of a UUIDv7.
    pub id: RecordId,
    /// Its data, in canonical spelling.
    pub fields: Fields,
}

/// A generated race day.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which set.
    pub set: Set,
    /// Everything that comes into being, parents before children: reference data, then what the day brings.
    pub records: Vec<SampleRecord>,
    /// How many of `records`, from the first, are reference data that the cloud has before the race.
    pub prepared: usize,
    /// What people do on the race day, in the order of time.
    pub day: Vec<Action>,
    /// The competition that is run.
    pub competition: RecordId,
    /// When the day begins.
    pub begins: Time,
    /// The special cases by name; only the set M has them.
    pub specials: Option<Specials>,
}

impl Sample {
    /// Reference data that the cloud has before the race.
    pub fn reference(&self) -> &[SampleRecord] {
        &self.records[..self.prepared]
    }

    /// How many records of a collection there are.
    pub fn count(&self, collection: &str) -> usize {
        self.records.iter().filter(|r| &*r.collection == collection).count()
    }
}

/// Generates a set from a seed.
pub fn generate(set: Set, seed: u64) -> Sample {
    let meeting = meeting::meeting(set, seed);
    let (day, specials) = match set {
        Set::M => {
            let (day, specials) = verbier::day(&meeting, seed);
            (day, Some(specials))
        }
        Set::S => (occasions::day(&meeting, seed, 8, 18, 12), None),
        Set::L => (occasions::day(&meeting, seed, 500, 1_200, 1_000), None),
    };
    let mut records = meeting.records;
    let prepared = records.len();
    let mut made: Vec<&Action> = day.iter().filter(|a| a.creates()).collect();
    made.sort_by_key(|a| (build::rank(&a.record.collection), a.at));
    records.extend(made.into_iter().map(|a| a.record.clone()));
    let (competition, begins) = (meeting.competition, meeting.begins);
    Sample { set, records, prepared, day, competition, begins, specials }
}
