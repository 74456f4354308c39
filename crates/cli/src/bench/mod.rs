//! `ropeway bench`: how fast this machine's Ropeway is, as ratios against the database's own limit.
//!
//! Every pair is measured interleaved in one run; a ratio is the median of the rounds.

mod audiences;
mod ingest;
mod limit;
mod node;
mod postgres;
mod pull;
mod rows;
mod small;

use crate::output::Output;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// What to measure, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArgs {
    /// Rounds; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Changes pushed in one round
    #[arg(long, default_value_t = 10_000)]
    changes: usize,
    /// Records pulled in one round
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Only the measurements whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Measure a node on this PostgreSQL database instead, which must be empty and is filled
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measure {
    /// What was measured.
    pub(crate) name: &'static str,
    /// Ours.
    pub(crate) ours: f64,
    /// What it is compared with, in the same run: the database's own, or the same without audiences.
    pub(crate) limit: Option<f64>,
    /// The unit of both.
    pub(crate) unit: &'static str,
    /// Ours against the limit.
    pub(crate) ratio: Option<f64>,
    /// What it should be, and whether it is.
    pub(crate) target: String,
    /// Whether the target is met.
    pub(crate) met: bool,
}

/// A stop watch: the one place of the benchmark that reads a clock.
pub(crate) struct Watch(std::time::Instant);

impl Watch {
    #[allow(clippy::disallowed_methods)] // a benchmark measures real time
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Runs the measurements and prints them. Whether every target was met.
pub(crate) async fn run(args: BenchArgs, output: &Output) -> Result<bool> {
    if let Some(url) = &args.database {
        let measures = postgres::measure(url, args.rounds, args.changes, args.records).await?;
        print(&measures, output)?;
        return Ok(measures.iter().all(|m| m.met));
    }
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    let mut measures = Vec::new();
    if wanted("ingest") {
        measures.extend(ingest::measure(args.rounds, args.changes).await?);
    }
    if wanted("pull") {
        measures.extend(pull::measure(args.rounds.min(3), args.records).await?);
    }
    if wanted("audiences") {
        measures.extend(audiences::measure(args.rounds.min(3), args.changes).await?);
    }
    if wanted("write") || wanted("sync") {
        measures.extend(small::measure(args.rounds).await?);
    }
    let met = measures.iter().all(|m| m.met);
    print(&measures, output)?;
    Ok(met)
}

fn print(measures: &[Measure], output: &Output) -> Result<()> {
    let rows = measures.iter().map(|m| {
        vec![
            m.name.to_owned(),
            figure(m.ours, m.unit),
            m.limit.map_or_else(String::new, |limit| figure(limit, m.unit)),
            m.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            m.target.clone(),
            if m.met { "✓".into() } else { "✗".into() },
        ]
    });
    output.table(&["measure", "ours", "against", "ratio", "target", ""], rows.collect(), measures)
}

fn figure(value: f64, unit: &str) -> String {
    match value {
        v if v >= 1_000.0 => format!("{v:.0} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Rows a second.
pub(crate) fn rate(rows: usize, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}
