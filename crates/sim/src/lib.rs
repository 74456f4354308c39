//! # ropeway-sim: many replicas, one seed
//!
//! A seed becomes a [`story::Story`]: the nodes, and everything that happens to them. A story is played
//! with the real [`ropeway_replica::Node`] on virtual time, over stores that crash and cables that lose,
//! repeat, hold back and cut. The invariants of ARCHITECTURE.md are checked after every step; then the
//! network heals and everything has to come to rest. A story that fails is shrunk and kept as a file.

mod act;
mod apart;
mod barred;
mod cable;
mod chance;
mod check;
mod client;
mod clock;
mod disk;
mod draw;
mod forget;
mod heal;
mod host;
mod ledger;
mod library;
mod machine;
mod parts;
mod past;
mod play;
mod shaky;
mod shrink;
mod stage;
pub mod story;
mod world;

pub use disk::StoreKind;
pub use draw::draw;
pub use play::{Outcome, play, play_on};
pub use shrink::shrink;
pub use world::Violation;
