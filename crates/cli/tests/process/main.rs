//! The binary as it is used: real processes, real sockets, real kills. Every test compares data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backup;
#[path = "../../../protocol/tests/certs/mod.rs"]
mod certs;
mod clones;
mod commands;
mod crash;
mod disk;
mod input;
mod network;
mod people;
mod proxy;
mod rig;
mod tls;
