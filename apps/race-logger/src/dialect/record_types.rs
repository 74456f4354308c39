//! The record types of the documents: how each is called in an address, in a queue and in the profile.

/// One record type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordType {
    /// In addresses and as the key of a list: plural snake case (CT-24).
    pub(crate) plural: &'static str,
    /// In queues and conflicts: CamelCase.
    pub(crate) word: &'static str,
    /// The profile's collection.
    pub(crate) collection: &'static str,
    /// Whether a batch of new ones is answered with 201: what is collected is, reference data is not (CT-06).
    pub(crate) collected: bool,
}

const fn reference(plural: &'static str, word: &'static str, collection: &'static str) -> RecordType {
    RecordType { plural, word, collection, collected: false }
}

const fn collected(plural: &'static str, word: &'static str, collection: &'static str) -> RecordType {
    RecordType { plural, word, collection, collected: true }
}

/// All of them, in the documented order of a sync (ISMF-072), with the race types that its list forgets
/// before the races that need them (CT-10).
pub(crate) const RECORD_TYPES: [RecordType; 12] = [
    reference("competitions", "Competition", "competition"),
    reference("stages", "Stage", "stage"),
    reference("race_types", "RaceType", "race_type"),
    reference("race_type_location_templates", "RaceTypeLocationTemplate", "race_type_location_template"),
    reference("races", "Race", "race"),
    reference("race_locations", "RaceLocation", "race_location"),
    reference("athletes", "Athlete", "athlete"),
    reference("teams", "Team", "team"),
    reference("race_participations", "RaceParticipation", "race_participation"),
    reference("penalties", "Penalty", "penalty"),
    collected("incidents", "Incident", "incident"),
    collected("reports", "Report", "report"),
];

/// The type of this name in an address.
pub(crate) fn by_plural(plural: &str) -> Option<&'static RecordType> {
    RECORD_TYPES.iter().find(|kind| kind.plural == plural)
}

/// The type of a collection.
pub(crate) fn by_collection(collection: &str) -> Option<&'static RecordType> {
    RECORD_TYPES.iter().find(|kind| kind.collection == collection)
}
