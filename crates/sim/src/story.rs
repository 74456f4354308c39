//! A story as data: the nodes, and what happens to them. A seed only writes one; playing it needs no
//! chance, so that a story can be shortened, kept in a file and told again.

use ropeway_core::{change::Op, conflict::Resolution, doc::Fields};
use serde::{Deserialize, Serialize};

/// Everything that is needed to play it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The seed that wrote it.
    pub seed: u64,
    /// The nodes and how they are set.
    pub setting: Setting,
    /// What happens, in order.
    pub acts: Vec<Act>,
}

/// The nodes and how they are set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// `world`, `race-logger` or `parts`.
    pub profile: String,
    /// What a deletion against an edit does, where the profile leaves it open.
    pub delete: String,
    /// Who settles conflicts, where the profile leaves it open.
    pub resolver: String,
    /// The upstream of each node; node 0 has none.
    pub parents: Vec<Option<usize>>,
    /// Most changes in one batch.
    pub batch: usize,
    /// Records in one page.
    pub page: usize,
    /// The node whose disk may be copied into one more machine, the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<usize>,
    /// The nodes that get only those audiences that they are subscribed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scouts: Vec<usize>,
    /// The nodes that have to do with a second space, each with its upstream; none: there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub second: Vec<usize>,
    /// The nodes whose devices may write what is shared among the spaces, the top first; none: nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<usize>,
    /// For how long the nodes keep what readers may still ask about.
    #[serde(default)]
    pub kept: Kept,
}

/// For how long the nodes keep what readers may still ask about, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// A device not seen for longer holds nothing back.
    pub horizon_ms: u64,
    /// Tombstones are kept for so long at least.
    pub tombstones_ms: u64,
}

impl Default for Kept {
    fn default() -> Self {
        let days = 180 * 24 * 3_600_000;
        Self { horizon_ms: days, tombstones_ms: days }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Time passes everywhere.
    Wait {
        /// Milliseconds.
        ms: u64,
    },
    /// A node's wall clock is wrong by this much from now on.
    Clock {
        /// The node.
        node: usize,
        /// Milliseconds; 0 sets it right.
        wrong_ms: i64,
    },
    /// A person writes at a desk.
    Write {
        /// The node.
        node: usize,
        /// Who.
        person: String,
        /// What.
        edit: Edit,
        /// By how many versions the screen was behind; `None`: the desk did not say.
        behind: Option<u64>,
    },
    /// A device without a replica pushes to a node.
    Push {
        /// The node.
        node: usize,
        /// Which device.
        client: usize,
        /// What, in one batch.
        edits: Vec<Edit>,
        /// Whether it looked at the records before; otherwise it goes by what it saw last.
        looks: bool,
    },
    /// A device sends its last batch to a node again, as it was.
    PushAgain {
        /// The node.
        node: usize,
        /// Which device.
        client: usize,
        /// Whether the contents changed under the old ids, which must be refused.
        altered: bool,
    },
    /// A node syncs with its upstream.
    Sync {
        /// The node.
        node: usize,
        /// What the network does to its requests, the first one first.
        faults: Vec<Fault>,
        /// Something else happens while a request is on its way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        meanwhile: Option<Meanwhile>,
        /// A machine dies in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crash: Option<Crash>,
    },
    /// A batch that was sent some time ago arrives at the upstream again.
    Late {
        /// The node that had sent it.
        node: usize,
        /// Which of its batches, counted backwards.
        back: usize,
    },
    /// A person answers an open conflict.
    Answer {
        /// The node.
        node: usize,
        /// Which of the open ones.
        which: usize,
        /// How.
        resolution: Resolution,
    },
    /// A person gives up something that waits in the queue.
    Discard {
        /// The node.
        node: usize,
        /// Which.
        which: usize,
    },
    /// A person has everything in the queue tried again.
    Retry {
        /// The node.
        node: usize,
    },
    /// A machine is switched off and on.
    Restart {
        /// The node.
        node: usize,
    },
    /// The disk of the node that the setting names is copied, and the copy runs too.
    Copy,
    /// A backup of a node is taken, in the place of the one before.
    Backup {
        /// The node.
        node: usize,
    },
    /// A node goes back to its last backup, and begins a new epoch.
    Restore {
        /// The node.
        node: usize,
        /// Whether records that lie ahead of the clock get new stamps.
        restamp: bool,
    },
    /// A device that nobody follows is put back to its last backup, and nobody is told.
    PutBack {
        /// The node.
        node: usize,
    },
    /// Somebody at the upstream of a node has it get an audience from now on, or no longer.
    Subscribe {
        /// The node.
        node: usize,
        /// The audience: `area:area-1`.
        audience: String,
        /// Whether it begins.
        on: bool,
    },
    /// An administrator at its upstream revokes a node's device.
    Revoke {
        /// The node.
        node: usize,
    },
    /// A node's token is changed.
    Rotate {
        /// The node.
        node: usize,
        /// Whether it is told so now; otherwise when it is admitted.
        told: bool,
    },
    /// Somebody gives a node what opens its upstream's door again.
    Admit {
        /// The node.
        node: usize,
    },
    /// An administrator decides what waits in quarantine of a node.
    Judge {
        /// The node.
        node: usize,
        /// Whether it is taken; otherwise it is given up.
        take: bool,
    },
    /// A node forgets what no live device needs.
    Purge {
        /// The node.
        node: usize,
    },
    /// Something happens in the second space.
    Elsewhere {
        /// What.
        act: Box<Act>,
    },
}

/// One edit by a person or a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The collection.
    pub collection: String,
    /// The record.
    pub record: String,
    /// Create, patch or delete.
    pub op: Op,
    /// The values.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
}

/// What the network does to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    None,
    /// The request never arrives.
    LoseRequest,
    /// The upstream decides, its answer is lost.
    LoseAnswer,
    /// The request arrives twice.
    Twice,
    /// The upstream answers that it is going down.
    Unwell,
    /// Both ways take this many milliseconds.
    Slow(u64),
}

/// Something that happens while a request is on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meanwhile {
    /// At which request of the sync.
    pub request: usize,
    /// Before the upstream has it, or after the upstream has answered.
    pub answered: bool,
    /// What.
    pub acts: Vec<Act>,
}

/// A machine dies at one of its store's calls. What was committed is there when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Which machine.
    pub node: usize,
    /// At which of the calls that write, counted from the begin of the act.
    pub call: u64,
    /// After that call had its effect, or before.
    pub after: bool,
}

impl Act {
    /// Parts of it that can be left out one by one: shorter forms of the same act.
    pub(crate) fn shorter(&self) -> Vec<Self> {
        let mut out = Vec::new();
        match self {
            Self::Sync { node, faults, meanwhile, crash } => {
                let with = |faults: &[Fault], meanwhile: Option<Meanwhile>, crash| Self::Sync {
                    node: *node,
                    faults: faults.to_vec(),
                    meanwhile,
                    crash,
                };
                if !faults.is_empty() {
                    out.push(with(&[], meanwhile.clone(), *crash));
                    out.push(with(&faults[..faults.len() - 1], meanwhile.clone(), *crash));
                }
                if crash.is_some() {
                    out.push(with(faults, meanwhile.clone(), None));
                }
                if let Some(between) = meanwhile {
                    out.push(with(faults, None, *crash));
                    for at in 0..between.acts.len() {
                        let mut fewer = between.clone();
                        fewer.acts.remove(at);
                        out.push(with(faults, Some(fewer), *crash));
                    }
                }
            }
            Self::Write { node, person, edit, behind } => {
                let with =
                    |edit: Edit, behind| Self::Write { node: *node, person: person.clone(), edit, behind };
                out.extend(edit.fewer().into_iter().map(|edit| with(edit, *behind)));
                if behind.is_some() {
                    out.push(with(edit.clone(), None));
                }
            }
            Self::Push { node, client, edits, looks } => {
                for at in 0..edits.len() {
                    let with = |edits| Self::Push { node: *node, client: *client, edits, looks: *looks };
                    if edits.len() > 1 {
                        let mut fewer = edits.clone();
                        fewer.remove(at);
                        out.push(with(fewer));
                    }
                    for edit in edits[at].fewer() {
                        let mut smaller = edits.clone();
                        smaller[at] = edit;
                        out.push(with(smaller));
                    }
                }
            }
            Self::Elsewhere { act } => {
                out.extend(act.shorter().into_iter().map(|act| Self::Elsewhere { act: Box::new(act) }));
            }
            _ => {}
        }
        out
    }
}

impl Edit {
    fn fewer(&self) -> Vec<Self> {
        let without = |name: &String| {
            let mut fields = self.fields.clone();
            fields.remove(name);
            Self { fields, ..self.clone() }
        };
        self.fields.keys().map(without).collect()
    }
}
