//! The profile: an app's policies as data (DESIGN §6). These are the compiled forms; `parse` reads TOML.

mod audience;
mod check;
mod draft;
mod names;
pub mod normalise;
mod order;
pub mod parse;
mod rule;
pub mod same;
mod shared;
mod source;

pub use audience::{Audience, KeyOf};
pub use normalise::admit;
pub use parse::parse;
pub use same::{print_of, same_text};
pub use source::Mistake;

use crate::{
    doc::Fields,
    planted::{self, Bug},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// An app's description, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The app's name.
    pub name: String,
    /// Version of the profile, counted by its author.
    pub version: u32,
    /// Who settles conflicts.
    pub resolver: Resolver,
    /// When a change that the upstream did not take is tried again (ISMF-119).
    pub retry: Retry,
    /// How often a follower syncs on its own (ISMF-064).
    pub sync_every: Duration,
    /// Names in the SQL views.
    pub views: Views,
    /// What it says to people.
    pub words: Words,
    /// Roles and what they may write.
    pub roles: BTreeMap<String, Role>,
    /// Collections by name.
    pub collections: BTreeMap<String, Rules>,
    /// Collection names, parents before children.
    pub order: Vec<String>,
    /// Whether any collection has an audience.
    pub(crate) audiences: bool,
    /// Whether any collection is shared.
    pub(crate) shares: bool,
}

/// Who settles conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// People at the node without an upstream.
    Upstream,
    /// The author of the parked side, wherever they are.
    Author,
    /// Anyone who may write the collection.
    Anyone,
}

/// Delays before the second, third, … attempt; after the last the entry has failed until a person acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The delays.
    pub delays: Vec<Duration>,
}

/// Names in the generated SQL views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Views {
    /// Column of the record id, `client_uuid` for the race logger.
    pub id: String,
    /// Column of the local integer.
    pub local_id: String,
    /// Column of a reference; `{}` stands for the field's name.
    pub reference: String,
    /// The collection whose number stands beside each conflict about it, in the column `<collection>_id` (ISMF-057).
    pub numbered: Option<String>,
    /// The field whose contests are told apart from others, as `<field>_mismatch` (ISMF-058).
    pub mismatch: Option<String>,
}

/// What the app says to people at the two ends of the work in the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// When all that was asked for is here (ISMF-063).
    pub ready: String,
    /// When it was given back (ISMF-071).
    pub cleared: String,
}

/// A role of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// What it may write.
    pub write: Writes,
    /// Whether it may settle conflicts where the profile's resolver is `upstream`.
    pub resolve: bool,
    /// What it sees.
    pub sees: Sees,
    /// Names of the audiences that it may choose to subscribe to.
    pub choose: Vec<String>,
}

/// What a role sees of the collections that have audiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sees {
    /// Every record.
    #[default]
    All,
    /// What carries a key that it is subscribed to.
    Subscribed,
}

/// What a role may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// Every collection.
    All,
    /// These.
    Only(Vec<String>),
}

/// The rules of one collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Its name.
    pub name: String,
    /// Documented name of its SQL view beside the collection's own (ISMF-039: `competitions`).
    pub table: Option<String>,
    /// Known fields, references included. Unknown ones are kept and travel on (GP-04).
    pub fields: BTreeMap<String, Field>,
    /// References by field.
    pub references: BTreeMap<String, Reference>,
    /// Fields settled together.
    pub groups: Vec<Group>,
    /// Rule for every field that neither names one nor is in a group.
    pub merge: Rule,
    /// What a deletion against an edit does.
    pub delete: DeleteRule,
    /// How a dialect's stale whole-record push is read.
    pub stale_replace: StaleReplace,
    /// Layer 2: when two records are the same.
    pub same: Option<Same>,
    /// Which readers its records are for; `None`: every reader of the space.
    pub audience: Option<Audience>,
    /// Whether its records are the app's, the same ones for every space (IRON-032).
    pub shared: bool,
    /// Whether records of the spaces refer to it: then nobody can tell whether anything still needs one of its
    /// records, and none is ever deleted.
    pub(crate) kept: bool,
}

/// One declared field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its type.
    pub kind: Kind,
    /// Whether a live record must have it, not null.
    pub required: bool,
    /// No client can write it.
    pub server_only: bool,
    /// Value of a new record that names none.
    pub default: Option<Value>,
    /// Its own rule, when not the collection's.
    pub merge: Option<Rule>,
}

/// A field's type. Values are normalised to one spelling at the door (ADR 0007).
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text of at most this many characters.
    Text {
        /// Most characters (Unicode scalar values).
        max: usize,
    },
    /// A whole number within bounds.
    Int {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// Any finite number.
    Number,
    /// True or false.
    Bool,
    /// A calendar date, `YYYY-MM-DD`.
    Date,
    /// An instant.
    DateTime,
    /// One of these words.
    Enum(Vec<String>),
    /// A record's id.
    Ref,
    /// An object, kept whole.
    Object,
    /// A list, kept whole, or a set under the rule `union`.
    List,
    /// An object merged by key under `per_key`.
    Map,
    /// Device → that device's own total.
    Counter,
    /// Anything.
    Json,
}

/// A reference to a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The parent's collection.
    pub to: String,
    /// Whether it may be absent or null.
    pub optional: bool,
    /// What the parent's deletion does.
    pub on_delete: OnDelete,
}

/// What a parent's deletion does to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The deletion is refused.
    Refuse,
    /// The child goes too.
    Cascade,
    /// The child's field becomes null.
    Release,
}

/// Fields that are settled together, the first leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The fields; the group is named after the first.
    pub fields: Vec<String>,
    /// How a contest is settled.
    pub rule: Rule,
    /// A value of the leading field that counts as not yet set.
    pub unset: Option<Value>,
    /// The only roles that may set its fields; empty: whoever may write the collection.
    pub roles: Vec<String>,
}

/// How a contested field or group is settled.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// What is there stays.
    Server,
    /// What comes in replaces it.
    Incoming,
    /// The later author's time wins.
    Latest(Tie),
    /// The earlier author's time wins.
    Earliest(Tie),
    /// Who holds this role wins; two holders by time.
    Role(String, Tie),
    /// The state further on in this order wins; the first to reach a state keeps its companions.
    Ratchet(Vec<String>),
    /// The greater number.
    Max,
    /// The lesser number.
    Min,
    /// A set: what either side added, less what either side took away.
    Union,
    /// Device totals: a change sets its author device's own.
    Counter,
    /// Each key of a map by this rule.
    PerKey(Box<Rule>),
    /// Only the side that created the record; others are parked, contested or not.
    Origin,
    /// A person decides.
    Park,
}

/// Who wins at equal times (CT-47).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tie {
    /// The higher device id: the same record for every order of arrival. The default.
    #[default]
    Device,
    /// What is there.
    Server,
    /// What comes in.
    Incoming,
}

/// A deletion against an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteRule {
    /// The later one; a tie resurrects (CT-48).
    Latest,
    /// The deletion.
    Delete,
    /// The edit.
    Edit,
    /// A person decides.
    Park,
}

/// How a stale whole-record push is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReplace {
    /// As what it changed against its base.
    Diff,
    /// Every field that differs is contested.
    Whole,
}

/// Layer 2: records with equal fields near in time are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    /// Fields that must be equal, as a person reads them.
    pub on: Vec<SameField>,
    /// The time window.
    pub within: Option<Within>,
}

/// One field of a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameField {
    /// Its name.
    pub name: String,
    /// Whether absent equals absent; otherwise a record without it never matches (CT-03).
    pub optional: bool,
}

/// A sliding window: |Δt| ≤ this (CT-01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The time field.
    pub field: String,
    /// Width in microseconds.
    pub micros: i64,
}

/// A field group as a decision sees it: declared, or one field alone.
#[derive(Debug, Clone, Copy)]
pub struct GroupOf<'a> {
    /// Name: the leading field.
    pub name: &'a str,
    /// Its fields; empty for a field alone.
    pub fields: &'a [String],
    /// The rule.
    pub rule: &'a Rule,
    /// The value of the leading field that counts as not set.
    pub unset: Option<&'a Value>,
}

impl Rules {
    /// The group that `field` is settled in.
    pub fn group_of<'a>(&'a self, field: &'a str) -> GroupOf<'a> {
        if let Some(group) = self.groups.iter().find(|g| g.fields.iter().any(|f| f == field)) {
            return GroupOf {
                name: &group.fields[0],
                fields: &group.fields,
                rule: &group.rule,
                unset: group.unset.as_ref(),
            };
        }
        let rule = self.fields.get(field).and_then(|f| f.merge.as_ref()).unwrap_or(&self.merge);
        GroupOf { name: field, fields: &[], rule, unset: None }
    }

    /// A new record's values: what its author named, with the defaults laid under it.
    pub fn with_defaults(&self, mut named: Fields) -> Fields {
        for (field, rules) in &self.fields {
            if let Some(default) = rules.default.as_ref().filter(|_| !named.contains_key(field)) {
                named.insert(field.clone(), default.clone());
            }
        }
        named
    }
}

impl Profile {
    /// Whether any collection has an audience. A profile without pays nothing for them.
    pub fn has_audiences(&self) -> bool {
        self.audiences
    }
    /// Whether any collection is shared. A profile without pays nothing for them.
    pub fn has_shared(&self) -> bool {
        self.shares
    }
    /// Whether a collection's records are the app's, the same ones for every space.
    pub fn is_shared(&self, collection: &str) -> bool {
        self.shares && self.rules(collection).is_some_and(|rules| rules.shared)
    }
    /// Whether a role may write a collection. What is shared is everybody's, so a role that may write every
    /// collection may write those of its space; one that is shared it has to name.
    pub fn may_write(&self, role: &str, collection: &str) -> bool {
        match self.roles.get(role).map(|role| &role.write) {
            Some(Writes::All) => !self.is_shared(collection) || planted::has(Bug::SharedByAnybody),
            Some(Writes::Only(names)) => names.iter().any(|name| name == collection),
            None => false,
        }
    }
    /// Whether a role sees everything there is.
    pub fn sees_all(&self, role: &str) -> bool {
        !self.audiences || self.roles.get(role).is_none_or(|r| r.sees == Sees::All)
    }
    /// Whether a role may choose to subscribe to a key.
    pub fn may_choose(&self, role: &str, key: &str) -> bool {
        let name = key.split(':').next().unwrap_or_default();
        self.roles.get(role).is_some_and(|r| r.choose.iter().any(|c| c == name))
    }
    /// The rules of a collection.
    pub fn rules(&self, collection: &str) -> Option<&Rules> {
        self.collections.get(collection)
    }
}
