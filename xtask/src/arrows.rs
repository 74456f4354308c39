//! The arrows between our crates: what each may use, and what it may never reach.

use std::collections::BTreeMap;

use crate::metadata::{Metadata, Package};
use crate::problem::Problem;

/// A room of the house, the rooms it may use, and the foreign crates that it may not reach by any chain.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

/// `cli → apps → server → replica → {store, protocol} → core`. `app` stands for every crate under `apps/`.
const HOUSE: [Room; 9] = [
    Room {
        name: "core",
        may_use: &[],
        never: &["tokio", "rusqlite", "tokio-postgres", "reqwest", "hyper", "axum", "rand"],
    },
    Room { name: "store", may_use: &["core"], never: &["reqwest", "hyper", "axum"] },
    Room {
        name: "protocol",
        may_use: &["core"],
        never: &["rusqlite", "libsqlite3-sys", "tokio-postgres", "axum"],
    },
    Room { name: "replica", may_use: &["store", "protocol", "core"], never: &["axum"] },
    Room { name: "server", may_use: &["replica", "store", "protocol", "core"], never: &[] },
    Room { name: "app", may_use: &["server", "replica", "protocol", "core"], never: &[] },
    Room { name: "cli", may_use: &["app", "server", "replica", "store", "protocol", "core"], never: &[] },
    Room {
        name: "sim",
        may_use: &["app", "server", "replica", "store", "protocol", "core", "cli"],
        never: &[],
    },
    Room { name: "xtask", may_use: &[], never: &[] },
];

/// Database drivers: an app reaches them through the replica's verbs only.
const DRIVERS: [&str; 4] = ["rusqlite", "libsqlite3-sys", "tokio-postgres", "deadpool-postgres"];

/// Arrows that point the wrong way, crates outside the house, and forbidden foreign crates.
pub(crate) fn check(metadata: &Metadata) -> Vec<Problem> {
    let rooms: BTreeMap<_, _> = metadata
        .members()
        .map(|(package, directory)| (package.name.as_str(), room_name(directory)))
        .collect();
    let mut problems = Vec::new();
    for (package, directory) in metadata.members() {
        match HOUSE.iter().find(|room| room.name == room_name(directory)) {
            None => {
                problems.push(Problem::at(directory, "no room of the house: add it to xtask/src/arrows.rs"))
            }
            Some(room) => {
                problems.extend(own(room, package, directory, &rooms));
                problems.extend(foreign(room, package, directory, metadata));
            }
        }
    }
    problems
}

/// `crates/core` is the room `core`; every crate under `apps/` is in the room `app`.
fn room_name(directory: &str) -> &str {
    match directory.split_once('/') {
        Some(("crates", name)) => name,
        Some(("apps", _)) => "app",
        _ => directory,
    }
}

/// Declared uses of our own crates. Tests may use what they like, but for core's.
fn own(room: &Room, package: &Package, directory: &str, rooms: &BTreeMap<&str, &str>) -> Vec<Problem> {
    // A crate that names itself only switches a feature of its own on for its tests.
    let others = package.dependencies.iter().filter(|used| used.name != package.name);
    let counts = others.filter(|used| room.name == "core" || !used.is_dev());
    let wrong = counts.filter_map(|used| {
        let other = rooms.get(used.name.as_str()).filter(|other| !room.may_use.contains(other))?;
        let allowed =
            if room.may_use.is_empty() { "none of our crates".into() } else { room.may_use.join(", ") };
        Some(Problem::at(
            directory,
            format!("{} may not use {other} ({}), only {allowed}", room.name, used.name),
        ))
    });
    wrong.collect()
}

/// Foreign crates that this room may not reach, or an app not declare.
fn foreign(room: &Room, package: &Package, directory: &str, metadata: &Metadata) -> Vec<Problem> {
    let reach = metadata.reach(package);
    let reached = room.never.iter().filter_map(|name| Some((*name, reach.get(name)?.join(" → "))));
    let mut wrong: BTreeMap<&str, String> = reached.collect();
    for used in &package.dependencies {
        let name = used.name.as_str();
        let by_core = room.name == "core" && room.never.contains(&name);
        let by_app = room.name == "app" && !used.is_dev() && DRIVERS.contains(&name);
        if by_core || by_app {
            wrong.entry(name).or_insert_with(|| name.into());
        }
    }
    let problem =
        |(name, chain)| Problem::at(directory, format!("{} may not reach {name} ({chain})", room.name));
    wrong.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::workspace;
    use crate::problem::lines;

    fn found(crates: &[(&str, &[&str])]) -> Vec<String> {
        lines(&check(&workspace(crates)))
    }

    #[test]
    fn the_house_as_drawn_passes() {
        let house: &[(&str, &[&str])] = &[
            ("crates/core", &["serde"]),
            ("crates/store", &["core", "rusqlite"]),
            ("crates/protocol", &["core", "reqwest", "dev:axum", "dev:store"]),
            ("crates/replica", &["store", "protocol", "core"]),
            ("crates/server", &["replica", "axum"]),
            ("apps/insight", &["server", "replica", "dev:rusqlite"]),
            ("crates/cli", &["insight", "server", "store"]),
            ("crates/sim", &["cli", "insight", "core"]),
            ("xtask", &["serde"]),
            ("*rusqlite", &[]),
            ("*reqwest", &[]),
            ("*axum", &[]),
            ("*serde", &["build:rand"]),
            ("*rand", &[]),
        ];
        assert_eq!(found(house), [""; 0]);
    }

    #[test]
    fn a_wrong_arrow_is_a_problem() {
        assert_eq!(
            found(&[("crates/store", &["protocol"]), ("crates/protocol", &[])]),
            ["crates/store: store may not use protocol (protocol), only core"]
        );
        for (from, to) in [
            ("crates/protocol", "crates/store"),
            ("crates/replica", "crates/server"),
            ("crates/server", "apps/insight"),
            ("apps/insight", "crates/store"),
            ("apps/insight", "apps/ironflow"),
            ("crates/cli", "crates/sim"),
            ("xtask", "crates/core"),
        ] {
            let name = to.rsplit('/').next().unwrap();
            assert_eq!(found(&[(from, &[name]), (to, &[])]).len(), 1, "{from} → {to}");
        }
    }

    #[test]
    fn only_core_answers_for_its_tests_too() {
        assert_eq!(found(&[("crates/core", &["dev:store"]), ("crates/store", &[])]).len(), 1);
        assert_eq!(found(&[("crates/core", &["dev:tokio"]), ("*tokio", &[])]).len(), 1);
        assert_eq!(found(&[("crates/protocol", &["dev:store"]), ("crates/store", &[])]), [""; 0]);
    }

    #[test]
    fn a_forbidden_crate_is_found_at_the_end_of_a_chain() {
        assert_eq!(
            found(&[("crates/core", &["uuid"]), ("*uuid", &["rand"]), ("*rand", &[])]),
            ["crates/core: core may not reach rand (uuid → rand)"]
        );
        assert_eq!(found(&[("crates/protocol", &["rusqlite"]), ("*rusqlite", &[])]).len(), 1);
        assert_eq!(found(&[("apps/insight", &["rusqlite"]), ("*rusqlite", &[])]).len(), 1);
    }

    #[test]
    fn a_crate_outside_the_house_is_a_problem() {
        assert_eq!(found(&[("crates/misc", &[])]).len(), 1);
    }
}
