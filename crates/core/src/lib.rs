//! # ropeway-core: values and decisions
//!
//! The heart of Ropeway is pure: total, deterministic functions over plain values. No IO, no `async`, no
//! clock, no randomness. The store loads a [`plan::Snapshot`], calls a decision inside its transaction
//! and writes the [`plan::Plan`] that comes back: state → plan → apply.

pub mod absorb;
pub mod aside;
pub mod audience;
#[cfg(feature = "cases")]
pub mod cases;
pub mod change;
pub mod conflict;
pub mod digest;
pub mod doc;
pub mod doubt;
pub mod epoch;
pub mod id;
pub mod ingest;
pub mod limits;
pub mod measured;
pub mod merge;
pub mod nonce;
pub mod outbox;
pub mod plan;
#[doc(hidden)]
pub mod planted;
pub mod profile;
pub mod receipt;
pub mod record;
pub mod restored;
pub mod retention;
pub mod settle;
pub mod time;
