//! `cargo xtask sim`: the simulator, built fast enough to play thousands of seeds.

use anyhow::Result;

use crate::run;

/// What CI plays: as many seeds as DESIGN asks for, on the two cores of the smallest machine. Then each planted bug
/// has to be found, and some seeds are played on files.
const IN_CI: [&[&str]; 2] = [
    &["--seeds", "2000", "--jobs", "2", "--planted"],
    &["--seeds", "200", "--jobs", "2", "--store", "sqlite"],
];

/// Builds the simulator and plays; `arguments` are for it, and none are those of CI.
///
/// Only our own crates are optimised, and checks for overflow stay on: everything else is there already
/// from the tests.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    if !arguments.is_empty() {
        return play(arguments);
    }
    for typed in IN_CI {
        let typed: Vec<String> = typed.iter().copied().map(String::from).collect();
        if !play(&typed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn play(arguments: &[String]) -> Result<bool> {
    let mut command = run::cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "ropeway-sim",
        "--features",
        "planted",
        "--config",
        "profile.dev.opt-level=2",
        "--",
    ]);
    command.args(arguments);
    run::succeeds(&mut command)
}
