//! The ISMF race logger on Ropeway: its profile, its documented API and its sample data.

mod dialect;
pub mod sample;

pub use dialect::{rates, routes};

/// The race logger's profile, in the profile language.
pub const PROFILE: &str = include_str!("../profile.toml");
