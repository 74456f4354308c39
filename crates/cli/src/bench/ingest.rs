//! Ingest over HTTP from one client, against the database's own batched upsert.

use super::{
    Measure, Watch,
    limit::{Bare, PLANNED, against_planned},
    median, node, rate, rows,
};
use anyhow::Result;
use bytes::Bytes;
use ropeway_core::receipt::Verdict;
use ropeway_protocol::{HttpTransport, Push, Transport};
use ropeway_replica::Node;
use std::collections::BTreeSet;

/// Changes a push: what a follower sends.
pub(super) const BATCH: usize = 500;
/// How many clients push at the same time.
const CLIENTS: usize = 8;

/// Measures it.
pub(super) async fn measure(rounds: usize, count: usize) -> Result<Vec<Measure>> {
    let dir = tempdir()?;
    let node = node::open(dir.path(), "cloud.db", false).await?;
    let served = node::Served::start(&node).await?;
    let mut bare = Bare::open(&dir.path().join("bare.db"))?;
    let clients = clients(&served.url, &node).await?;
    let (mut ours, mut many, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    let (mut limits, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..rounds as u64 {
        let bare_rows = Bare::rows(round, count);
        let limit = rate(count, bare.upsert(&bare_rows, BATCH)?);
        let bodies = bodies(round, count)?;
        let watch = Watch::start();
        push(&served.transport, bodies).await?;
        let rate_ours = rate(count, watch.elapsed());
        many.push(at_once(&clients, round, count).await?);
        direct.push(self::direct(&node, round + 1_000, count).await? / limit);
        ours.push(rate_ours);
        limits.push(limit);
        ratios.push(rate_ours / limit);
    }
    served.stop().await;
    let ratio = median(ratios);
    let (ours, limit) = (median(ours), median(limits));
    let (many, direct) = (median(many), median(direct));
    Ok(vec![
        Measure {
            name: "ingest over HTTP, one client",
            ours,
            limit: Some(limit),
            unit: "changes/s",
            ratio: Some(ratio),
            target: "≥ 0.40".into(),
            met: ratio >= 0.4,
        },
        against_planned(PLANNED, ours, "changes/s", 0.4),
        Measure {
            name: "ingest over HTTP, eight clients into one space",
            ours: many,
            limit: Some(limit),
            unit: "changes/s",
            ratio: Some(many / limit),
            target: "≥ 0.40".into(),
            met: many / limit >= 0.4,
        },
        against_planned(PLANNED, many, "changes/s", 0.4),
        Measure {
            name: "ingest in process",
            ours: direct * limit,
            limit: Some(limit),
            unit: "changes/s",
            ratio: Some(direct),
            target: "—".into(),
            met: true,
        },
    ])
}

/// The same without a network: what decisions and writes cost by themselves.
pub(super) async fn direct(node: &Node, run: u64, count: usize) -> Result<f64> {
    let grant = ropeway_core::change::Grant {
        door: ropeway_core::change::Door::Push,
        device: node.device().clone(),
        role: "admin".into(),
    };
    let batches: Vec<Vec<_>> = (0..count.div_ceil(BATCH))
        .map(|b| (b * BATCH..((b + 1) * BATCH).min(count)).map(|n| rows::change(run, n)).collect())
        .collect();
    let watch = Watch::start();
    for changes in batches {
        node.ingest(&node::space(), grant.clone(), changes).await?;
    }
    Ok(rate(count, watch.elapsed()))
}

/// Clients of a node that is served there, each a device of its own.
pub(super) async fn clients(url: &str, node: &Node) -> Result<Vec<HttpTransport>> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(node::enrolled(node, url, "admin").await?.1);
    }
    Ok(clients)
}

/// Pushes `count` new rows from all of them at once. How many a second.
pub(super) async fn at_once(clients: &[HttpTransport], round: u64, count: usize) -> Result<f64> {
    let share = count / clients.len();
    let shares: Vec<_> = (0..clients.len() as u64)
        .map(|client| bodies(10_000 + round * 10 + client, share))
        .collect::<Result<_>>()?;
    let watch = Watch::start();
    let pushes = clients.iter().zip(shares).map(|(client, bodies)| push(client, bodies));
    futures_util::future::try_join_all(pushes).await?;
    Ok(rate(share * clients.len(), watch.elapsed()))
}

/// Pushes what one client has, one body after the other.
pub(super) async fn push(transport: &HttpTransport, bodies: Vec<Bytes>) -> Result<()> {
    for body in bodies {
        let pushed = transport.push(body).await?;
        anyhow::ensure!(
            pushed.receipts.iter().all(|r| r.verdict == Verdict::Created),
            "not all were created"
        );
    }
    Ok(())
}

/// The bodies of the pushes that bring `count` new rows.
pub(super) fn bodies(run: u64, count: usize) -> Result<Vec<Bytes>> {
    let numbers: Vec<usize> = (0..count).collect();
    let body = |chunk: &[usize]| -> Result<Bytes> {
        let changes = chunk.iter().map(|n| rows::change(run, *n)).collect();
        Ok(Bytes::from(serde_json::to_vec(&Push {
            batch: None,
            epoch: None,
            changes,
            last: BTreeSet::new(),
        })?))
    };
    numbers.chunks(BATCH).map(body).collect()
}

fn tempdir() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("ropeway-bench").tempdir()?)
}
