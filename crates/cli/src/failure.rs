//! How a command ends: the five exit codes, and errors that say what happened and what to do next.

use ropeway_protocol::TransportError;
use ropeway_replica::{ReplicaError, StoreError};
use serde_json::{Value, json};
use std::{fmt, io};

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed; the error says what holds.
    Failed = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// It was done, but conflicts or refused changes remain.
    Partly = 3,
    /// The upstream was not reached; everything is kept.
    Offline = 4,
}

/// An error with the exit code that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    next: Option<String>,
}

impl Failure {
    /// Something failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into(), next: None }
    }
    /// The command line or the configuration is wrong.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into(), next: None }
    }
    /// Says what to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// What is shown of an error, and the exit code.
pub(crate) struct Told {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) next: Option<String>,
}

impl Told {
    /// Reads an error of any kind.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let whole = format!("{error:#}");
        if let Some(Failure { exit, next, .. }) = error.downcast_ref::<Failure>() {
            return Self { exit: *exit, what: whole, next: next.clone() };
        }
        let exit = match error.downcast_ref::<TransportError>() {
            Some(TransportError::Offline(_)) => Exit::Offline,
            _ => Exit::Failed,
        };
        let next = advice(error).map(str::to_owned);
        // The sentences of the engine's own errors are whole; their causes are for the log.
        let replica = error.downcast_ref::<ReplicaError>().map(ToString::to_string);
        let own = replica.or_else(|| error.downcast_ref::<StoreError>().map(ToString::to_string));
        let what = match (own, error.to_string()) {
            (Some(own), top) if own == top => own,
            (Some(own), top) => format!("{top}: {own}"),
            (None, _) => whole,
        };
        Self { exit, what, next }
    }

    /// The error as one JSON document.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": { "exit": self.exit as u8, "what": self.what, "next": self.next } })
    }
}

/// Whether an error only says that nobody reads our output any more, as behind `| head`.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let broken = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

fn advice(error: &anyhow::Error) -> Option<&'static str> {
    let store = match error.downcast_ref::<ReplicaError>() {
        Some(ReplicaError::Store(store)) => Some(store),
        Some(ReplicaError::Busy(_)) => return Some("nothing was changed: wait for it to end, or ask again"),
        Some(ReplicaError::Moved(_)) => {
            return Some("nothing was changed: look at it again, then answer again");
        }
        Some(ReplicaError::NotFound(_)) => return Some("nothing was changed: check the name and `--space`"),
        Some(_) => return Some("nothing was changed"),
        None => error.downcast_ref::<StoreError>(),
    }?;
    match store {
        StoreError::NoSpace(_) => Some("check `--space` and `--data-dir`"),
        StoreError::Corrupt { .. } => Some("stop this node, copy the data directory, then restore a backup"),
        StoreError::Unavailable { .. } => {
            Some("what is stored is safe; check the database server, or the disk and the file's permissions")
        }
        _ => None,
    }
}
