//! `ropeway-sim`: plays many seeds, and shows and shortens those that break an invariant.
#![allow(clippy::print_stdout, reason = "a command line program prints")]

use anyhow::{Context, Result};
use clap::Parser;
use ropeway_sim::{Outcome, StoreKind, draw, play_on, shrink, story::Story};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Plays stories of many replicas, drawn from seeds.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// How many seeds to play
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Play this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Play this file alone
    #[arg(long, conflicts_with_all = ["seeds", "from", "seed"])]
    file: Option<PathBuf>,
    /// Print all that happens
    #[arg(long)]
    trace: bool,
    /// How many stories to play at a time
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// On what the nodes keep their data
    #[arg(long, value_enum, default_value_t)]
    store: StoreKind,
    /// Play every story twice and compare what happened
    #[arg(long)]
    twice: bool,
    /// Stop after so many failing seeds
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Where shortened stories are written
    #[arg(long, default_value = "crates/sim/regressions")]
    regressions: PathBuf,
    /// How often a failing story is played to shorten it; 0 does not
    #[arg(long, default_value_t = 3_000)]
    shrink: usize,
    /// After the seeds, plant each known bug in turn and play until it is found (needs the feature
    /// `planted`)
    #[arg(long)]
    planted: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(story) = alone(&arguments)? {
        let outcome = play_on(arguments.store, &story, true);
        if arguments.trace {
            println!("{}", serde_json::to_string(&story.setting)?);
            outcome.trace.iter().for_each(|line| println!("{line}"));
        }
        report(&arguments, &story, &outcome)?;
        return Ok(code(outcome.violation.is_none()));
    }
    let (played, failed, took) = play_all(&arguments);
    let missed = if arguments.planted && failed.is_empty() { hunt(&arguments)? } else { Vec::new() };
    for (story, outcome) in failed.values() {
        report(&arguments, story, outcome)?;
    }
    let rate = played as f64 / took.as_secs_f64().max(0.001);
    if arguments.json {
        let seeds: Vec<u64> = failed.keys().copied().collect();
        let seconds = took.as_secs_f64();
        let summary = serde_json::json!({
            "played": played, "failed": seeds, "seconds": seconds, "planted_missed": missed,
        });
        println!("{summary}");
    } else {
        println!("sim: {played} seeds, {} failed, {rate:.0} seeds/s", failed.len());
    }
    Ok(code(failed.is_empty() && missed.is_empty()))
}

/// Plants each bug in turn; those that no seed found.
#[cfg(feature = "planted")]
fn hunt(arguments: &Arguments) -> Result<Vec<String>> {
    use ropeway_core::planted::{Bug, plant};
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        let (played, failed, _) = play_all(arguments);
        match failed.values().next() {
            Some((story, Outcome { violation: Some(found), .. })) => {
                let text = found.text.lines().next().unwrap_or_default();
                println!("sim: planted {bug:?}: seed {} breaks {}: {text}", story.seed, found.rule);
            }
            _ => {
                println!("sim: planted {bug:?}: NOT FOUND in {played} seeds");
                missed.push(format!("{bug:?}"));
            }
        }
    }
    plant(None);
    Ok(missed)
}

#[cfg(not(feature = "planted"))]
fn hunt(_: &Arguments) -> Result<Vec<String>> {
    anyhow::bail!("this program was built without the feature `planted`: it has no bugs to plant")
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn alone(arguments: &Arguments) -> Result<Option<Story>> {
    if let Some(file) = &arguments.file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let story = serde_json::from_str(&text).with_context(|| format!("{} is no story", file.display()))?;
        return Ok(Some(story));
    }
    Ok(arguments.seed.map(draw))
}

type Failed = BTreeMap<u64, (Story, Outcome)>;

/// Plays all seeds on as many threads as were asked for; how many were played, which failed, how long it took.
#[allow(clippy::disallowed_methods, reason = "how fast this machine plays is measured, and only to print it")]
fn play_all(arguments: &Arguments) -> (u64, Failed, Duration) {
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Failed::new()));
    let full = || failed.lock().unwrap_or_else(PoisonError::into_inner).len() >= arguments.failures;
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !full() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        next.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    let story = draw(arguments.from + number);
                    let outcome = played(arguments, &story);
                    if outcome.violation.is_some() {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.insert(story.seed, (story, outcome));
                    }
                    if number % 500 == 499 && !arguments.json {
                        println!("sim: {} seeds", number + 1);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    (next.into_inner(), failed, begun.elapsed())
}

fn played(arguments: &Arguments, story: &Story) -> Outcome {
    let mut outcome = play_on(arguments.store, story, false);
    if arguments.twice && outcome.hash != play_on(arguments.store, story, false).hash {
        let text = "played twice, the story went differently".into();
        outcome.violation = Some(ropeway_sim::Violation { rule: "determinism", text });
    }
    if arguments.store != StoreKind::Memory && outcome.violation.is_none() {
        let in_memory = play_on(StoreKind::Memory, story, false);
        if outcome.seen != in_memory.seen {
            let text = "the story went differently in memory".into();
            outcome.violation = Some(ropeway_sim::Violation { rule: "stores", text });
        }
    }
    outcome
}

/// Prints what broke, and writes the shortened story.
fn report(arguments: &Arguments, story: &Story, outcome: &Outcome) -> Result<()> {
    let Some(violation) = &outcome.violation else { return Ok(()) };
    eprintln!("sim: seed {} breaks {}: {}", story.seed, violation.rule, violation.text);
    if arguments.shrink == 0 || arguments.file.is_some() {
        return Ok(());
    }
    let short = shrink(arguments.store, story, violation.rule, arguments.shrink);
    let file = arguments.regressions.join(format!("{}-{}.json", violation.rule.to_lowercase(), story.seed));
    std::fs::create_dir_all(&arguments.regressions)?;
    std::fs::write(&file, serde_json::to_string_pretty(&short)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    let told = play_on(arguments.store, &short, true);
    told.trace.iter().for_each(|line| eprintln!("  {line}"));
    if let Some(violation) = &told.violation {
        eprintln!("sim: shortened to {} acts: {}: {}", short.acts.len(), violation.rule, violation.text);
    }
    eprintln!(
        "sim: kept as {}; play it with `ropeway-sim --file {} --trace`",
        file.display(),
        file.display()
    );
    Ok(())
}
