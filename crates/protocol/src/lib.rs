//! # ropeway-protocol: the native wire contract
//!
//! The types that travel, the closed list of problem codes, the line format of a pull, and the HTTP
//! client that a follower uses. PROTOCOL.md is the normative text; this crate never sees SQL.

mod certificate;
mod http;
mod page;
mod problem;

pub use certificate::Validity;
pub use http::{
    BadUpstream, DEVICE_HEADER, HttpTransport, HttpTransportOptions, NODE_HEADER, PAGE_TYPE, PROBLEM_TYPE,
    SYNC_HEADER,
};
pub use page::{LINE_BYTES_MAX, PageEnd, PageReader, PageWriter};
pub use problem::{Problem, ProblemCode};

use async_trait::async_trait;
use ropeway_core::{
    change::Change,
    id::{ChangeId, Epoch},
    nonce::Pair,
    plan::Fed,
    receipt::Receipt,
    time::{Stamp, Time},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of the native protocol; the first path segment.
pub const VERSION: &str = "v1";

/// What `GET /version` answers: how a follower knows that it speaks to a Ropeway and not to a captive
/// portal (TR-18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Always `ropeway`.
    pub service: String,
    /// The program's version.
    pub build: String,
    /// The database schema's version.
    pub schema: u32,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The profile it runs, with its version.
    pub profile: String,
    /// The node's clock when it answered.
    pub now: Time,
    /// Microseconds to add to `now` to get the time of the node at the top: 0 there, measured at a node that
    /// follows. Absent where this node has not measured it since it started: nobody measures by it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// The body of `POST /v1/push`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The batch's id, chosen and kept by the sender; for logs only, a change is known by its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// The epoch of the node for which the batch was made; a node of another epoch decides nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The changes, parents before children.
    pub changes: Vec<Change>,
    /// Those among them that the sender tries for the last time (CT-23).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub last: BTreeSet<ChangeId>,
}

/// The answer to a push: one receipt a change, in order. Only a receipt acknowledges a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    /// The epoch of the node that decided.
    pub epoch: Epoch,
    /// The node's clock when it answered.
    pub now: Time,
    /// The receipts.
    pub receipts: Vec<Receipt>,
}

/// One page of a pull.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records, in the upstream's stamp order.
    pub rows: Vec<Fed>,
    /// How the page ended.
    pub end: PageEnd,
}

/// Why an exchange with the upstream gave no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The upstream was not reached, or what answered is no Ropeway. Being offline is not a failure.
    #[error("the upstream is not reachable: {0}")]
    Offline(String),
    /// What answers is not shown to be the upstream, or the way to it is open to everybody: nothing was
    /// sent. Waiting does not help; the sentence says what a person has to mend (IRON-073, REP-089).
    #[error("the upstream is not trusted: {0}")]
    Untrusted(String),
    /// The upstream answered with a problem.
    #[error("{0}")]
    Problem(Problem),
    /// The upstream answered something that this program does not understand.
    #[error("the upstream's answer is not understood: {0}")]
    Garbled(String),
}

/// How a follower speaks with its upstream. One method a phase; retries and pacing are the caller's.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Says with which pair of nonces every further push and pull begins. A transport within one program
    /// need not carry it.
    fn present(&self, _pair: &Pair) {}
    /// Asks who is there, quickly: a few seconds at most.
    async fn hello(&self) -> Result<Hello, TransportError>;
    /// Sends a sealed batch: the bytes of a [`Push`], unchanged at every retry.
    async fn push(&self, body: bytes::Bytes) -> Result<Pushed, TransportError>;
    /// Reads one page after `cursor` (`None`: from the beginning) of at most `limit` records.
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError>;
    /// Subscribes this device to an audience (`true`) or ends that. Asked again, it is so already.
    async fn subscribe(&self, audience: &str, on: bool) -> Result<(), TransportError> {
        let text = format!("this upstream knows no audiences: `{audience}` stays as it is ({on})");
        Err(TransportError::Problem(Problem::new(ProblemCode::NotFound, text)))
    }
    /// Waits until the upstream says that something is new, or the stream ends. `Ok(stamp)`: its head.
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError>;
}
