//! `cargo xtask test`: the whole test command, and an honest count of what it ran.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{cluster::Cluster, pg, run};

/// What can be typed behind `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Leave out the tests whose names contain NAME; can be repeated, and is reported
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Arguments for every test binary, such as a part of a test's name or --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What the test binaries said of themselves, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    filtered: usize,
}

/// Builds the binary that process tests start, runs every test, and says what was not run.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut build = run::cargo(&["build", "--workspace", "--exclude", "xtask", "--bins", "--locked"]);
    if !run::succeeds(&mut build)? {
        println!("test: {} failed, nothing was tested", run::shown(&build));
        return Ok(false);
    }
    let cluster = match options.skip.iter().any(|name| name == "postgres") {
        true => None,
        false => Some(Cluster::start().context("`--skip postgres` leaves out what needs a cluster")?),
    };
    let mut command = command(options);
    command.envs(cluster.as_ref().map(|cluster| (pg::VARIABLE, &cluster.url)));
    let (success, tally) = run_tests(&mut command)?;
    for line in summary(&tally, options) {
        println!("test: {line}");
    }
    if !success && tally.failed == 0 {
        println!("test: cargo test failed outside of a counted test (did not build, or died): look above");
    }
    Ok(success && tally.failed == 0 && tally.ignored == 0 && tally.passed > 0)
}

fn command(options: &Options) -> Command {
    let mut command = run::cargo(&["test", "--workspace", "--locked", "--no-fail-fast", "--"]);
    for name in &options.skip {
        command.args(["--skip", name]);
    }
    command.args(&options.arguments);
    command
}

/// Runs the tests, passing on their output line by line; whether cargo was content, and the tally.
fn run_tests(command: &mut Command) -> Result<(bool, Tally)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut tally = Tally::default();
    let mut screen = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        screen.write_all(&line)?;
        screen.write_all(b"\n")?;
        screen.flush()?;
        tally.add(&String::from_utf8_lossy(&line));
    }
    drop(screen);
    Ok((child.wait()?.success(), tally))
}

impl Tally {
    /// Adds the closing line of one test binary: `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                Some("filtered") => self.filtered += number,
                _ => {}
            }
        }
    }
}

fn summary(tally: &Tally, options: &Options) -> Vec<String> {
    let Tally { passed, failed, ignored, filtered } = tally;
    let mut lines = Vec::new();
    if *ignored > 0 {
        lines.push(format!(
            "{ignored} tests are marked as ignored, and that is a failure: a test runs or is deleted"
        ));
    }
    if options.skip.is_empty() && options.arguments.is_empty() {
        lines.push("nothing was skipped".into());
    }
    for name in &options.skip {
        lines.push(format!("SKIPPED: tests named *{name}*, because `--skip {name}` was typed"));
    }
    if !options.arguments.is_empty() {
        lines.push(format!("NARROWED: `{}` was typed", options.arguments.join(" ")));
    }
    if *passed + *failed == 0 {
        lines.push("no test ran, and that is a failure".into());
    }
    lines.push(format!("{passed} passed, {failed} failed, {filtered} left out as typed"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        );
        tally.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.1s");
        tally.add("test a::b ... ok");
        assert_eq!(tally, Tally { passed: 4, failed: 2, ignored: 1, filtered: 2 });
    }

    #[test]
    fn what_was_skipped_is_said() {
        let options = Options { skip: vec!["postgres".into()], arguments: vec!["feed".into()] };
        let tally = Tally { passed: 1, filtered: 7, ..Tally::default() };
        assert_eq!(
            summary(&tally, &options),
            [
                "SKIPPED: tests named *postgres*, because `--skip postgres` was typed",
                "NARROWED: `feed` was typed",
                "1 passed, 0 failed, 7 left out as typed"
            ]
        );
        assert_eq!(
            run::shown(&command(&options)),
            "cargo test --workspace --locked --no-fail-fast -- --skip postgres feed"
        );
    }

    #[test]
    fn a_full_run_says_that_nothing_was_skipped() {
        let tally = Tally { passed: 1, ..Tally::default() };
        assert_eq!(
            summary(&tally, &Options::default()),
            ["nothing was skipped", "1 passed, 0 failed, 0 left out as typed"]
        );
    }

    #[test]
    fn no_tests_and_ignored_tests_are_told() {
        let tally = Tally { ignored: 1, ..Tally::default() };
        let lines = summary(&tally, &Options::default()).join("\n");
        assert!(lines.contains("marked as ignored") && lines.contains("no test ran"), "{lines}");
    }
}
