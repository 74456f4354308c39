//! The host over real sockets: what it answers, what it refuses, and that it stays up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod api;
mod bodies;
#[path = "../../../protocol/tests/certs/mod.rs"]
mod certs;
#[path = "../../../store/tests/server/mod.rs"]
mod database;
mod drain;
mod floods;
mod live;
mod metrics;
mod pages;
mod postgres;
mod rig;
mod sockets;
mod tls;
