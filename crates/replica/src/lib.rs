//! # ropeway-replica: what a node does
//!
//! Every node is a full replica: it writes at its own desk, takes in what others push, serves its feed,
//! follows an upstream, settles conflicts, and keeps devices and people. The rooms that one change passes
//! are modules here; every decision in them is a pure function of `ropeway-core`.

mod audiences;
mod awaited;
mod backup;
mod clear;
mod clock;
mod conflicts;
mod cursor;
mod desk;
mod devices;
mod differing;
mod doubt;
mod dump;
mod error;
mod feed;
mod follow;
mod ids;
mod ingest;
mod lease;
mod listen;
mod measure;
mod members;
mod node;
mod nonce;
mod outbox;
mod presence;
mod purge;
mod quarantine;
mod queue;
mod restored;
mod resync;
mod revoked;
mod runs;
mod secret;
mod shared;
mod status;
mod sync;
#[cfg(feature = "testing")]
mod wrong_clock;

pub use backup::begin_epoch;
pub use clock::{Clock, ManualClock, SystemClock};
pub use conflicts::{CONFLICTS_AN_HOUR, ConflictView, Resolve};
pub use desk::{Desk, Edit};
pub use devices::{Enrolled, Enrolment};
pub use error::ReplicaError;
pub use feed::{FeedRequest, ServedPage};
pub use follow::{FollowOptions, Follower, Following, Trigger};
pub use ids::{Ids, RandomIds, SequentialIds};
pub use ingest::Taken;
pub use members::NewMember;
pub use node::{Node, NodeOptions};
pub use nonce::{Renewal, Seen};
pub use purge::{Held, Purge, Purger};
pub use queue::QueueItem;
pub use restored::AnsweredAll;
pub use ropeway_store::{
    Device, DeviceStatus, Member, QuarantineEnd, Quarantined, SpaceState, StoreError, SyncOutcome, SyncRun,
};
pub use status::Status;
pub use sync::{Progress, SyncOptions, SyncReport};
