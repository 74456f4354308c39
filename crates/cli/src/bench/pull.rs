//! The first pull of a large space into another node's file, and what memory it takes on both sides.

use super::{
    Measure, Watch,
    limit::{Bare, PLANNED, against_planned},
    median, node, rate, rows, small,
};
use anyhow::Result;
use ropeway_core::change::{Door, Grant};
use ropeway_replica::{Node, SyncOptions};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Measures it.
pub(super) async fn measure(rounds: usize, count: usize) -> Result<Vec<Measure>> {
    let dir = tempfile::Builder::new().prefix("ropeway-bench").tempdir()?;
    let cloud = node::open(dir.path(), "cloud.db", false).await?;
    fill(&cloud, count).await?;
    let served = node::Served::start(&cloud).await?;
    let (mut ours, mut limits, mut ratios, mut grown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let bare_rows = Bare::rows(round as u64, count);
        let limit = {
            let mut bare = Bare::open(&dir.path().join(format!("bare{round}.db")))?;
            rate(count, bare.upsert(&bare_rows, 500)?)
        };
        drop(bare_rows);
        let pi = node::open(dir.path(), &format!("pi{round}.db"), true).await?;
        let memory = Memory::watch();
        let watch = Watch::start();
        let report = pi.sync(&node::space(), &served.transport, &SyncOptions::default(), &|_| {}).await?;
        let rate_ours = rate(count, watch.elapsed());
        grown.push(memory.grown_mb());
        anyhow::ensure!(report.pulled == count as u64, "{report:?}");
        anyhow::ensure!(report.digests.is_some_and(|(a, b)| a == b), "digests differ: {report:?}");
        ours.push(rate_ours);
        limits.push(limit);
        ratios.push(rate_ours / limit);
    }
    let pi = node::open(dir.path(), "desk.db", true).await?;
    let slowest = desk_meanwhile(&pi, &served).await?;
    served.stop().await;
    let (ours, ratio) = (median(ours), median(ratios));
    let grown = grown.into_iter().fold(0.0, f64::max);
    Ok(vec![
        Measure {
            name: "first pull into another node",
            ours,
            limit: Some(median(limits)),
            unit: "records/s",
            ratio: Some(ratio),
            target: "≥ 0.50".into(),
            met: ratio >= 0.5,
        },
        against_planned(PLANNED, ours, "records/s", 0.5),
        Measure {
            name: "memory grown during that pull, both nodes in this process",
            ours: grown,
            limit: None,
            unit: "MB",
            ratio: None,
            target: "< 64 MB".into(),
            met: grown < 64.0,
        },
        Measure {
            name: "slowest local write during such a pull",
            ours: slowest,
            limit: None,
            unit: "ms",
            ratio: None,
            target: "< 100 ms".into(),
            met: slowest < 100.0,
        },
    ])
}

/// The slowest of the writes that somebody makes at the desk while a first pull comes in, in milliseconds.
async fn desk_meanwhile(pi: &Node, served: &node::Served) -> Result<f64> {
    let is_over = AtomicBool::new(false);
    let pull = async {
        let report = pi.sync(&node::space(), &served.transport, &SyncOptions::default(), &|_| {}).await;
        is_over.store(true, Ordering::Relaxed);
        report
    };
    let desk = async {
        let (mut slowest, mut n) = (0.0_f64, 0);
        while !is_over.load(Ordering::Relaxed) {
            slowest = slowest.max(small::write(pi, 77, n).await?);
            n += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        anyhow::Ok(slowest / 1e3)
    };
    let (report, slowest) = tokio::join!(pull, desk);
    report?;
    slowest
}

pub(super) async fn fill(node: &Node, count: usize) -> Result<()> {
    let grant = Grant { door: Door::Push, device: node.device().clone(), role: "admin".into() };
    for start in (0..count).step_by(1_000) {
        let changes = (start..(start + 1_000).min(count)).map(|n| rows::change(9, n)).collect();
        node.ingest(&node::space(), grant.clone(), changes).await?;
    }
    Ok(())
}

/// Watches the resident memory of this process.
struct Memory {
    before: u64,
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Memory {
    fn watch() -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&most), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                seen.fetch_max(resident("self"), Ordering::Relaxed);
                #[allow(clippy::disallowed_methods)] // a sampler samples
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        Self { before: resident("self"), most, stop }
    }

    fn grown_mb(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let most = self.most.load(Ordering::Relaxed).max(resident("self"));
        most.saturating_sub(self.before) as f64 / (1 << 20) as f64
    }
}

/// Resident bytes of a process; 0 where the system does not say.
pub(super) fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
