//! The ISMF race logger on Ropeway: its profile and its sample data.

pub mod sample;

/// The race logger's profile, in the profile language.
pub const PROFILE: &str = include_str!("../profile.toml");
