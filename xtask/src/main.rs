//! Ropeway's chores: `cargo xtask ci | test | sim | pg | tidy | ledger | soak | power`.

#![allow(clippy::print_stdout, reason = "a chore's output is its result")]

mod arrows;
mod ci;
mod cluster;
mod docs;
mod files;
mod forbidden;
mod functions;
mod ledger;
mod metadata;
mod pg;
mod problem;
mod proofs;
mod run;
mod sim;
mod source;
mod stack;
mod test;
mod tidy;
mod tree;
mod trials;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a contributor may ask for.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Ropeway's own chores")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Everything that must hold before a change is taken in: format, lints, docs, tidy, tests, simulation
    Ci,
    /// Every test of the workspace: unit, integration, process and documentation tests
    Test(test::Options),
    /// A throw-away PostgreSQL cluster, there until Enter is pressed
    Pg,
    /// The simulator: 2,000 seeds as CI plays them, or what is typed behind `--`
    Sim {
        /// Arguments for `ropeway-sim`, such as --seed 7 --trace
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The rules of the house that the compiler does not know
    Tidy,
    /// Random work and random faults on seven real nodes, then quiet: nothing may be lost
    Soak(trials::Soak),
    /// Power cuts of real nodes: nothing that was acknowledged may be lost
    Power(trials::Power),
    /// How many requirements of each app are proved by a test
    Ledger {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Ci => ci::run(),
        Chore::Test(options) => test::run(&options),
        Chore::Pg => pg::run(),
        Chore::Sim { arguments } => sim::run(&arguments),
        Chore::Tidy => tidy::run(),
        Chore::Soak(options) => trials::soak(&options),
        Chore::Power(options) => trials::power(&options),
        Chore::Ledger { json } => ledger::run(json),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
