//! `cargo xtask ci`: every step in order, each with its duration; it stops at the first that fails.

use std::time::Duration;

use anyhow::Result;

use crate::run::{cargo, succeeds, timed};
use crate::{sim, test, tidy};

/// One step: its name, what it does, and what to do when it fails.
struct Step {
    name: &'static str,
    run: fn() -> Result<bool>,
    mend: &'static str,
}

const STEPS: [Step; 6] = [
    Step { name: "format", run: format, mend: "run `cargo fmt --all`" },
    Step {
        name: "lints",
        run: lints,
        mend: "mend what clippy says; an exception needs `#[allow(…, reason = …)]`",
    },
    Step { name: "docs", run: docs, mend: "mend the links and examples that rustdoc names" },
    Step {
        name: "tidy",
        run: tidy::run,
        mend: "mend the lines above; the rules are in xtask/src, one file each",
    },
    Step { name: "test", run: tests, mend: "run one again with `cargo xtask test -- NAME --nocapture`" },
    Step { name: "sim", run: simulation, mend: "the story was shortened and kept: see crates/sim/README.md" },
];

/// True if every step passed.
pub(crate) fn run() -> Result<bool> {
    let mut done = Vec::new();
    let mut failed = None;
    for step in &STEPS {
        println!("── {} ──", step.name);
        let (outcome, duration) = timed(step.run);
        let passed = outcome?;
        println!("── {} {} in {} ──\n", step.name, word(passed), seconds(duration));
        done.push((step.name, passed, duration));
        if !passed {
            failed = Some(step);
            break;
        }
    }
    print!("{}", table(&done));
    match failed {
        None => println!("ci: everything passed"),
        Some(step) => println!("ci: {} failed: {}", step.name, step.mend),
    }
    Ok(failed.is_none())
}

fn format() -> Result<bool> {
    succeeds(&mut cargo(&["fmt", "--all", "--", "--check"]))
}

fn lints() -> Result<bool> {
    succeeds(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn docs() -> Result<bool> {
    succeeds(cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<bool> {
    test::run(&test::Options::default())
}

fn simulation() -> Result<bool> {
    sim::run(&[])
}

fn table(done: &[(&str, bool, Duration)]) -> String {
    let mut text = String::new();
    for step in &STEPS {
        let row = match done.iter().find(|(name, ..)| *name == step.name) {
            Some((_, passed, duration)) => (word(*passed), seconds(*duration)),
            None => ("not run", String::new()),
        };
        text += format!("{:8} {:8} {:>9}", step.name, row.0, row.1).trim_end();
        text.push('\n');
    }
    text
}

fn word(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_step_and_what_was_not_run() {
        let done = [("format", true, Duration::from_millis(1540)), ("lints", false, Duration::from_secs(61))];
        assert_eq!(
            table(&done),
            "format   passed       1.5 s\nlints    FAILED      61.0 s\ndocs     not run\ntidy     not run\ntest     not run\nsim      not run\n"
        );
    }
}
