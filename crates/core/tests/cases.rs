//! Cases as data: every file of `tests/cases`, played on the pure core.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::Node;
use ropeway_core::{cases, profile};
use std::{fs, path::Path, sync::Arc};

/// Plays every case of one file; all that fail are told at once.
fn file(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let text = fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    let file = cases::read(&text).unwrap_or_else(|why| panic!("{name}.toml: {why}"));
    let source = fs::read_to_string(folder.join(format!("profiles/{}.toml", file.profile))).unwrap();
    let profile = Arc::new(profile::parse(&source, &file.profile).unwrap_or_else(|m| panic!("{m:#?}")));
    let mut failed = String::new();
    for case in &file.case {
        let played = std::panic::catch_unwind(|| {
            let mut node = Node::new("node", profile.clone(), case.follows);
            cases::play(case, &mut node)
        });
        let why = match played {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                text.unwrap_or_else(|| "it panicked".into())
            }
        };
        failed.push_str(&format!("\nCASE {} {:?}\n{why}\n", case.name, case.proves));
    }
    assert!(failed.is_empty(), "{name}.toml{failed}");
}

macro_rules! files {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            file(stringify!($name));
        }
    )+
    #[test]
    fn every_file_is_played() {
        let played = [$(stringify!($name)),+];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                assert!(played.contains(&name.as_str()), "{name}.toml is not played");
            }
        }
    }};
}

files!(rules, values, parents, deletions, twins, questions, conflicts, replays, relaying, shared);
