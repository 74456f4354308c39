//! What audiences cost: the same rows in and out of a node whose profile has none, and of one where each row
//! carries a key.

use super::{Measure, Watch, ingest, median, node, rate, rows};
use anyhow::Result;
use ropeway_replica::{Node, SyncOptions};
use std::path::Path;

/// Measures it.
pub(super) async fn measure(rounds: usize, count: usize) -> Result<Vec<Measure>> {
    let dir = tempfile::Builder::new().prefix("ropeway-bench").tempdir()?;
    let with = rows::profile_with_audiences();
    let mut figures = [const { Vec::new() }; 6];
    for round in 0..rounds {
        // Each begins on new files, so that neither works on the larger one.
        let (plain, keyed) = (open(&dir, rows::PROFILE, round).await?, open(&dir, &with, round).await?);
        figures[0].push(ingest::direct(&plain, round as u64, count).await?);
        figures[1].push(ingest::direct(&keyed, round as u64, count).await?);
        let (whole, limited) = ("admin", "referee");
        figures[2].push(pulled(&plain, rows::PROFILE, dir.path(), &format!("a{round}"), whole, count).await?);
        figures[3].push(pulled(&keyed, &with, dir.path(), &format!("b{round}"), whole, count).await?);
        figures[4].push(figures[2][round]);
        figures[5].push(pulled(&keyed, &with, dir.path(), &format!("c{round}"), limited, count).await?);
    }
    let names = [
        "ingest in process with audiences, against without",
        "first pull with audiences by who sees all, against without",
        "first pull with audiences by who is subscribed to all, against without",
    ];
    let measured = names.into_iter().zip(figures.chunks(2)).map(|(name, pair)| {
        let ratio = median(pair[1].iter().zip(&pair[0]).map(|(with, without)| with / without).collect());
        Measure {
            name,
            ours: median(pair[1].clone()),
            limit: Some(median(pair[0].clone())),
            unit: "records/s",
            ratio: Some(ratio),
            target: "—".into(),
            met: true,
        }
    });
    Ok(measured.collect())
}

async fn open(dir: &tempfile::TempDir, profile: &str, round: usize) -> Result<Node> {
    let name = if profile == rows::PROFILE { "plain" } else { "keyed" };
    node::open_with(profile, dir.path(), &format!("{name}{round}.db"), false).await
}

/// Records a second of a first pull by a device of this role.
async fn pulled(
    cloud: &Node,
    profile: &str,
    dir: &Path,
    name: &str,
    role: &str,
    count: usize,
) -> Result<f64> {
    let served = node::Served::start_for(cloud, role).await?;
    if role == "referee" {
        for author in rows::authors() {
            cloud.subscribe(&served.device, &format!("by:{author}"), true).await?;
        }
    }
    let pi = node::open_with(profile, dir, &format!("{name}.db"), true).await?;
    let watch = Watch::start();
    let report = pi.sync(&node::space(), &served.transport, &SyncOptions::default(), &|_| {}).await?;
    let took = watch.elapsed();
    anyhow::ensure!(report.pulled == count as u64, "{report:?}");
    anyhow::ensure!(report.digests.is_some_and(|(a, b)| a == b), "digests differ: {report:?}");
    served.stop().await;
    Ok(rate(count, took))
}
