//! The apps that are built in: the only place of the program that knows one by name.

use ropeway_server::{Host, OpenApiRouter, Rates};
use std::path::Path;

/// One app.
pub(crate) struct App {
    /// Its name, which is that of its profile.
    pub(crate) name: &'static str,
    /// The text of its profile.
    pub(crate) profile: &'static str,
    /// Its own API beside the native one, for a node with this data directory.
    pub(crate) routes: fn(&Path) -> OpenApiRouter<Host>,
    /// By what it is measured.
    pub(crate) rates: Rates,
}

/// All of them; a node that names none gets the first.
pub(crate) const APPS: [App; 1] = [App {
    name: "race-logger",
    profile: ropeway_race_logger::PROFILE,
    routes: |data_dir| ropeway_race_logger::routes(data_dir.join("clips")),
    rates: |node, space| Box::pin(ropeway_race_logger::rates(node, space)),
}];

/// The app of this name.
pub(crate) fn of(name: &str) -> Option<&'static App> {
    const { &APPS }.iter().find(|app| app.name == name)
}
