//! `cargo xtask soak` and `cargo xtask power`: two of the process tests, for longer than CI gives them.

use anyhow::Result;
use clap::Args;

use crate::run;

/// How long seven nodes are worked on and hurt.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long the faults last
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Chooses what happens; the moments at which it happens are the machine's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seconds everything may take to come to rest afterwards
    #[arg(long, default_value_t = 10)]
    rest: u64,
}

/// How often the power is cut.
#[derive(Debug, Args)]
pub(crate) struct Power {
    /// Images of the disk on each side
    #[arg(long, default_value_t = 5_000)]
    images: u64,
    /// Chooses the moments and what survives
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// True if all came to rest and nothing was lost.
pub(crate) fn soak(Soak { minutes, seed, rest }: &Soak) -> Result<bool> {
    let settings =
        [("ROPEWAY_SOAK_SECONDS", minutes * 60), ("ROPEWAY_SEED", *seed), ("ROPEWAY_SOAK_REST", *rest)];
    trial("soak::", &settings)
}

/// True if every image held what had been acknowledged.
pub(crate) fn power(Power { images, seed }: &Power) -> Result<bool> {
    trial("power::", &[("ROPEWAY_IMAGES", *images), ("ROPEWAY_SEED", *seed)])
}

/// Built with optimisations: what it asks for in seconds is asked of what people run.
fn trial(name: &str, settings: &[(&str, u64)]) -> Result<bool> {
    let test = ["test", "-p", "ropeway", "--test", "process", "--profile", "trial", "--locked", "--", name];
    let mut command = run::cargo(&test);
    command.arg("--nocapture");
    command.envs(settings.iter().map(|(name, value)| (name, value.to_string())));
    run::succeeds(&mut command)
}
