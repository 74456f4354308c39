//! Test cases as data (feature `cases`): what comes in, what is answered, what is there at the end. The
//! same files are run on the pure core, on every store and over a socket.

mod play;

pub use play::{Bench, play};

use crate::{
    change::{Author, Base, Batch, Change, Door, Grant, Op},
    conflict::{Conflict, Kind, Resolution, Standing},
    doc::Fields,
    id::{CONFLICT, ChangeId, Collection, DeviceId, Epoch, RecordId},
    receipt::{Code, Verdict},
    time::{AuthorTime, Time},
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The day on which every case happens; times in a case are times of this day.
const DAY: &str = "2026-02-14";

/// One file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The profile that its cases run under: a file name in `profiles/` without its ending.
    pub profile: String,
    /// The cases.
    pub case: Vec<Case>,
}

/// One case: changes in, in order; then what is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: String,
    /// Ids of the requirements that it proves.
    #[serde(default)]
    pub proves: Vec<String>,
    /// Whether the node follows an upstream (which it cannot reach).
    #[serde(default)]
    pub follows: bool,
    /// The changes, each a batch of its own unless it says `and`.
    #[serde(default)]
    pub change: Vec<Given>,
    /// Records at the end.
    #[serde(default)]
    pub record: Vec<Wanted>,
    /// Conflicts at the end: these and no others.
    #[serde(default)]
    pub conflict: Vec<WantedConflict>,
}

/// One change that comes in, and its answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// `collection/id` of a record to create. One of the five ways to name what is done.
    pub create: Option<String>,
    /// `collection/id` of a record to change.
    pub patch: Option<String>,
    /// `collection/id` of a record to delete.
    pub delete: Option<String>,
    /// The id of a conflict to answer.
    pub resolve: Option<String>,
    /// The number of an earlier change of this case, from 1, that is sent again exactly as it was.
    pub again: Option<usize>,
    /// The answer to a conflict.
    pub with: Option<Resolution>,
    /// The values wanted.
    #[serde(default)]
    pub set: Fields,
    /// Fields wanted to be null, which TOML cannot write.
    #[serde(default)]
    pub null: Vec<String>,
    /// What the author saw.
    pub seen: Option<Fields>,
    /// The version on which the author made it.
    pub base: Option<On>,
    /// The change's id; `c1`, `c2` … by its place where none is given.
    pub id: Option<String>,
    /// The device; `a` where none is given.
    pub by: Option<String>,
    /// The person at it.
    pub person: Option<String>,
    /// The role granted; where none is given `manager` for an answer, else `editor`.
    pub role: Option<String>,
    /// At this node's own desk instead of a push.
    #[serde(default)]
    pub desk: bool,
    /// What the author's clock said. Its arrival where none is given.
    pub at: Option<String>,
    /// Seconds to add to the author's clock, as measured.
    pub offset: Option<f64>,
    /// The node's clock when it arrives; a second later than the batch before where none is given.
    pub now: Option<String>,
    /// In one batch with the change before it.
    #[serde(default)]
    pub and: bool,
    /// Tried for the last time.
    #[serde(default)]
    pub last: bool,
    /// The verdict; where nothing is said, any that takes the change in.
    pub is: Option<Verdict>,
    /// Why it was refused or waits.
    pub why: Option<Code>,
    /// Words that the reason must hold.
    pub text: Option<String>,
    /// Fields that wait in a conflict.
    pub parked: Option<Vec<String>>,
    /// The version answered.
    pub version: Option<u64>,
    /// Whether the record is shown again.
    pub shown: Option<bool>,
    /// The id of the record shown.
    pub shows: Option<String>,
}

/// A base version.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum On {
    /// This version of this node's epoch.
    Version(u64),
    /// `now`: the version that the node holds; `lost`: a version of another epoch; `none`.
    Word(String),
}

/// What a record must be at the end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// `collection/id`.
    pub key: String,
    /// `live`, `deleted`, `absent` or `joined:<id>`; `live` where nothing is said.
    #[serde(default = "live")]
    pub is: String,
    /// Its version.
    pub version: Option<u64>,
    /// Fields and their values.
    #[serde(default)]
    pub has: BTreeMap<String, Value>,
    /// Fields that are null.
    #[serde(default)]
    pub null: Vec<String>,
    /// Fields that are absent.
    #[serde(default)]
    pub lacks: Vec<String>,
}

fn live() -> String {
    "live".into()
}

/// What a conflict must be at the end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedConflict {
    /// Its id.
    pub id: String,
    /// What was contested.
    pub kind: Kind,
    /// Where it stands; `open` where nothing is said.
    #[serde(default = "open")]
    pub state: Standing,
    /// The record that it is about.
    pub about: Option<String>,
    /// The other record.
    pub other: Option<String>,
    /// How it ended.
    pub resolution: Option<Resolution>,
    /// The server's values, where they matter.
    pub server: Option<BTreeMap<String, Value>>,
    /// The other values, where they matter.
    pub incoming: Option<BTreeMap<String, Value>>,
    /// The other side's device.
    pub by: Option<String>,
}

fn open() -> Standing {
    Standing::Open
}

/// What the runner must know of the node to make a change of a [`Given`].
pub(crate) struct Place<'a> {
    pub(crate) epoch: &'a Epoch,
    pub(crate) number: usize,
    pub(crate) device: &'a DeviceId,
    pub(crate) held: &'a dyn Fn(&str, &str) -> Option<u64>,
}

/// Reads a file. The error says what is wrong with it.
pub fn read(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|e| e.to_string())
}

/// A time of the cases' day (`10:32:15`, `10:32:15.5`), or a whole instant.
pub fn time(text: &str) -> Result<Time, String> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{DAY}T{text}Z") };
    Time::parse(&whole).ok_or_else(|| format!("`{text}` is no time"))
}

impl Given {
    /// Where it comes in and as whom.
    pub(crate) fn grant(&self, own: &DeviceId) -> Result<Grant, String> {
        let usual = if self.with.is_some() { "manager" } else { "editor" };
        let role = self.role.clone().unwrap_or_else(|| usual.into());
        let device = if self.desk { own.clone() } else { self.device()? };
        Ok(Grant { door: if self.desk { Door::Desk } else { Door::Push }, device, role })
    }

    fn device(&self) -> Result<DeviceId, String> {
        DeviceId::parse(self.by.as_deref().unwrap_or("a")).map_err(|e| e.to_string())
    }

    /// The change itself.
    pub(crate) fn change(&self, place: &Place<'_>) -> Result<Change, String> {
        let (op, collection, record) = self.target()?;
        let id = self.id.clone().unwrap_or_else(|| format!("c{}", place.number));
        let mut fields: Fields = self.set.clone();
        fields.extend(self.null.iter().map(|name| (name.clone(), Value::Null)));
        let mut base = self.base.clone();
        if let Some(resolution) = self.with {
            let merged = (!fields.is_empty()).then_some(fields);
            fields = Conflict::answer(resolution, merged, None);
            base = base.or(Some(On::Word("now".into())));
        }
        let base = match base {
            None => None,
            Some(On::Version(version)) => Some(Base { epoch: place.epoch.clone(), version }),
            Some(On::Word(word)) => match word.as_str() {
                "now" => (place.held)(&collection, &record)
                    .map(|version| Base { epoch: place.epoch.clone(), version }),
                "lost" => Some(Base { epoch: Epoch::trusted("lost"), version: 1 }),
                "none" => None,
                other => {
                    return Err(format!("`base` is a version, \"now\", \"lost\" or \"none\", not {other}"));
                }
            },
        };
        let at = match &self.at {
            None => None,
            Some(text) => {
                let offset = self.offset.map(|seconds| (seconds * 1e6) as i64);
                Some(AuthorTime { offset, ..AuthorTime::wall(time(text)?) })
            }
        };
        let device = if self.desk && self.by.is_none() { place.device.clone() } else { self.device()? };
        Ok(Change {
            id: ChangeId::parse(&id).map_err(|e| e.to_string())?,
            collection: Collection::parse(&collection).map_err(|e| e.to_string())?,
            record: RecordId::parse(&record).map_err(|e| e.to_string())?,
            op,
            fields,
            seen: self.seen.clone(),
            base,
            lost: None,
            author: Author { device, person: self.person.clone() },
            at,
        })
    }

    fn target(&self) -> Result<(Op, String, String), String> {
        if let Some(conflict) = &self.resolve {
            return Ok((Op::Patch, CONFLICT.into(), conflict.clone()));
        }
        let named = [(Op::Create, &self.create), (Op::Patch, &self.patch), (Op::Delete, &self.delete)];
        let (op, key) = named
            .into_iter()
            .find_map(|(op, key)| key.as_ref().map(|key| (op, key)))
            .ok_or("a change is a `create`, `patch`, `delete`, `resolve` or `again`")?;
        let (collection, id) = key.split_once('/').ok_or_else(|| format!("`{key}` is no collection/id"))?;
        Ok((op, collection.to_owned(), id.to_owned()))
    }
}

/// A batch with the changes' places in the case.
pub(crate) struct Sent {
    pub(crate) batch: Batch,
    pub(crate) now: Time,
    pub(crate) places: Vec<usize>,
}
