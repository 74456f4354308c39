//! A node in memory, made of maps, that checks every plan before it believes it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness fails by panicking")]

mod checks;
pub mod follow;
pub mod node;
pub mod world;

pub use node::Node;
