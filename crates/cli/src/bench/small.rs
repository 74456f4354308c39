//! The small things that are done all day: one local write, and a sync that finds nothing to do.

use super::{Measure, Watch, limit::Bare, median, node, rows};
use anyhow::Result;
use ropeway_core::{
    change::Op,
    id::{Collection, RecordId},
};
use ropeway_replica::{Desk, Edit, Node, SyncOptions};

const WRITES: usize = 400;
const SYNCS: usize = 200;

/// Measures them.
pub(super) async fn measure(rounds: usize) -> Result<Vec<Measure>> {
    let dir = tempfile::Builder::new().prefix("ropeway-bench").tempdir()?;
    let cloud = node::open(dir.path(), "cloud.db", false).await?;
    let pi = node::open(dir.path(), "pi.db", true).await?;
    let served = node::Served::start(&cloud).await?;
    let mut bare = Bare::open(&dir.path().join("bare.db"))?;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // In turn: how long a disk takes to answer changes from one second to the next.
        for (n, row) in Bare::rows(round as u64 + 50, WRITES).chunks(1).enumerate() {
            limits.push(bare.upsert(row, 1)?.as_secs_f64() * 1e6);
            ours.push(write(&pi, round as u64 + 50, n).await?);
        }
    }
    let (ours, limit) = (median(ours), median(limits));
    let ratio = ours / limit;
    let idle = idle(&pi, &served).await?;
    served.stop().await;
    Ok(vec![
        Measure {
            name: "one local write with its outbox entry, median",
            ours,
            limit: Some(limit),
            unit: "µs",
            ratio: Some(ratio),
            target: "≤ 1.50".into(),
            met: ratio <= 1.5,
        },
        Measure {
            name: "sync with nothing to do, median",
            ours: idle,
            limit: None,
            unit: "ms",
            ratio: None,
            target: "< 3 ms".into(),
            met: idle < 3.0,
        },
    ])
}

/// One local write. How long it took, in microseconds.
pub(super) async fn write(pi: &Node, run: u64, n: usize) -> Result<f64> {
    let desk = Desk { person: Some("bench".into()), role: "admin".into() };
    let edit = Edit {
        change: None,
        collection: Collection::trusted("note"),
        record: Some(RecordId::trusted(rows::id(run, n))),
        op: Op::Create,
        fields: rows::fields(run, n),
        version: None,
    };
    let watch = Watch::start();
    pi.write(&node::space(), &desk, edit).await?;
    Ok(watch.elapsed().as_secs_f64() * 1e6)
}

async fn idle(pi: &Node, served: &node::Served) -> Result<f64> {
    let options = SyncOptions::default();
    for _ in 0..3 {
        pi.sync(&node::space(), &served.transport, &options, &|_| {}).await?;
    }
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        let watch = Watch::start();
        let report = pi.sync(&node::space(), &served.transport, &options, &|_| {}).await?;
        took.push(watch.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(report.pushed + report.pulled == 0, "something moved: {report:?}");
    }
    Ok(median(took))
}
