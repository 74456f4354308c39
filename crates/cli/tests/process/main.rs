//! The binary as it is used: real processes, real sockets, real kills. Every test compares data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alerts;
mod audiences;
mod backup;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod calls;
#[path = "../../../protocol/tests/certs/mod.rs"]
mod certs;
mod clones;
#[path = "../../../../xtask/src/cluster.rs"]
mod cluster;
mod commands;
mod crash;
mod described;
mod dialect;
mod dialect_far;
mod dialect_people;
mod disk;
mod documented;
mod faults;
mod horizon;
mod input;
mod library;
mod limits;
mod line;
mod network;
mod people;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod platter;
mod poor_lines;
mod postgres;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod power;
mod proxy;
mod race_day;
mod rig;
#[path = "../../../store/tests/server/mod.rs"]
mod server;
mod servers;
mod soak;
mod tls;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer;
mod valley;
