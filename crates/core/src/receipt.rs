//! The answer to one change, remembered so that asked again it is the same (I1).

use crate::{
    change::Author,
    doc::Doc,
    id::{ChangeId, Key, RecordId},
    record::State,
    time::{Stamp, Time},
};
use serde::{Deserialize, Serialize};

/// The outcome of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A new record, exactly as asked.
    Created,
    /// Took effect exactly as asked, on the base that its author saw.
    Applied,
    /// Took effect, and the record now holds something its author did not see.
    Merged,
    /// The record was found to be one with another (layer 2).
    Joined,
    /// Already so.
    Unchanged,
    /// A rule decided for the other side; the value is kept in a conflict.
    Overruled,
    /// At least one field group waits for a person, in an open conflict. The change itself is settled.
    Parked,
    /// A parent has not arrived. Not remembered: asked again, it is decided again.
    Waiting,
    /// Refused, with a reason. Not remembered either.
    Rejected,
}

impl Verdict {
    /// Whether the deciding node has taken the change in for good.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Waiting | Self::Rejected)
    }
    /// The word on the wire and in every table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Applied => "applied",
            Self::Merged => "merged",
            Self::Joined => "joined",
            Self::Unchanged => "unchanged",
            Self::Overruled => "overruled",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Rejected => "rejected",
        }
    }
    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        const ALL: [Verdict; 9] = [
            Verdict::Created,
            Verdict::Applied,
            Verdict::Merged,
            Verdict::Joined,
            Verdict::Unchanged,
            Verdict::Overruled,
            Verdict::Parked,
            Verdict::Waiting,
            Verdict::Rejected,
        ];
        ALL.into_iter().find(|v| v.as_str() == word)
    }
}

/// Why a change was refused or waits: a closed list for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind of refusal.
    pub code: Code,
    /// The field at fault, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The sentence: names the thing and says what to do next.
    pub text: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The profile has no such collection.
    UnknownCollection,
    /// A value does not fit its field.
    Invalid,
    /// A limit was passed.
    TooLarge,
    /// The role granted may not do this.
    Forbidden,
    /// The same change id came before with another content.
    ChangeReused,
    /// A parent has not arrived.
    ParentMissing,
    /// Other records still refer to this one.
    StillReferenced,
    /// An open conflict on this field group has to be resolved first; the text names it.
    ConflictOpen,
    /// The record or the conflict moved since it was shown.
    Moved,
    /// There is no such record.
    NotFound,
    /// The deciding node failed over this very change; its neighbours were decided.
    Fault,
    /// The upstream has revoked this device: it keeps a copy in quarantine until somebody decides there.
    Revoked,
    /// It went and no answer came: the upstream may have decided it. No upstream says so.
    Unanswered,
}

/// What of a change waits or went elsewhere; absent for the plain verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Detail {
    /// Fields that wait in an open conflict and so do not show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<String>,
    /// Conflicts written for this change, the settled ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<RecordId>,
    /// Whether the record holds something that its author did not see, so that it is shown again with
    /// the same receipt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shown: bool,
}

impl Detail {
    /// Nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A record as a receipt shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its id: for a joined record the survivor's.
    pub id: RecordId,
    /// Its version at the deciding node.
    pub version: u64,
    /// Its state.
    pub state: State,
    /// Its data.
    pub data: Doc,
    /// Who changed it last.
    pub author: Author,
    /// When.
    pub modified_at: Time,
}

/// The answer to one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The change.
    pub change: ChangeId,
    /// Its outcome.
    pub verdict: Verdict,
    /// The record that it named.
    #[serde(flatten)]
    pub key: Key,
    /// The record's version when the change was decided; 0 when there is none.
    pub version: u64,
    /// The space's head when it was decided, or where nothing moved it a later one: a reader whose cursor has
    /// reached it has seen the effect.
    pub stamp: Stamp,
    /// The record as it now stands, unless that is exactly what the change asked for on its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Shown>,
    /// What waits or went elsewhere.
    #[serde(default, skip_serializing_if = "Detail::is_empty")]
    pub detail: Detail,
    /// Why it was refused or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl Receipt {
    /// Whether its version may be the base of the author's next edit: only where the record is exactly
    /// what the author has (DESIGN §7).
    pub fn is_exact(&self) -> bool {
        self.record.is_none()
            && self.version > 0
            && matches!(self.verdict, Verdict::Created | Verdict::Applied | Verdict::Unchanged)
    }
}

/// A receipt as it is remembered: one narrow row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The change.
    pub change: ChangeId,
    /// Hash of its content.
    pub content: u64,
    /// Its author's device, so that the row can go once that device has pulled past the stamp.
    pub device: crate::id::DeviceId,
    /// Outcome.
    pub verdict: Verdict,
    /// The record it named.
    pub key: Key,
    /// Version then.
    pub version: u64,
    /// When it was decided: the head then, or the clock where that was further. It says how long the row stays;
    /// who asks again is told no stamp beyond the head.
    pub stamp: Stamp,
    /// What waits or went elsewhere.
    pub detail: Detail,
}
