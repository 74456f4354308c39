//! A node on PostgreSQL, as ratios against what the server itself does with the same rows in the same run.

mod bare;
mod live;
mod server;

use super::{Measure, Watch, ingest, limit, median, node, pull, rate};
use anyhow::Result;
use bare::Bare;
use ropeway_protocol::{HttpTransport, PageWriter, Transport};
use ropeway_replica::Node;
use server::Served;

/// Rows of one page of the feed.
const PAGE: usize = 10_000;
const LIVE_CHANGES: usize = 100;
/// Rows a second of the server's own batched upsert on one connection, as it was measured when the targets were set.
const PLANNED: f64 = 80_000.0;

/// Measures it on an empty database.
pub(super) async fn measure(
    url: &str,
    rounds: usize,
    changes: usize,
    records: usize,
) -> Result<Vec<Measure>> {
    let mut bare = Bare::open(url).await?;
    let cloud = node::open_server(url).await?;
    let dir = tempfile::Builder::new().prefix("ropeway-bench").tempdir()?;
    let served = Served::start(url, dir.path()).await?;
    let mut measures = pushed(&mut bare, &cloud, &served, rounds, changes).await?;
    let (record, receipt) = bare.bytes_per_record().await?;
    measures.push(at_most("bytes on disk for a record", record, "bytes", 600.0));
    let until_purged =
        at_most("bytes on disk for its receipt, until it is purged", receipt, "bytes", f64::MAX);
    measures.push(Measure { target: "—".into(), ..until_purged });
    let there = rounds * changes * 2;
    pull::fill(&cloud, records.saturating_sub(there)).await?;
    let device = served.device(&cloud).await?;
    measures.push(streamed(&bare, &device, rounds, records.max(there)).await?);
    measures.push(on_the_wire(&device).await?);
    let took = live::measure(&cloud, &served, dir.path(), LIVE_CHANGES).await?;
    measures.push(at_most("from a device's desk to another's sight, median", median(took), "ms", 10.0));
    measures.push(at_most("memory of the server after all that", served.resident_mb(), "MB", 150.0));
    served.stop().await?;
    bare.close().await?;
    Ok(measures)
}

/// Ingest over HTTP by one client and by several into one space.
async fn pushed(
    bare: &mut Bare,
    cloud: &Node,
    served: &Served,
    rounds: usize,
    count: usize,
) -> Result<Vec<Measure>> {
    let clients = ingest::clients(&served.url, cloud).await?;
    let alone = served.device(cloud).await?;
    let (mut limits, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds as u64 {
        limits.push(bare.upsert(&limit::Bare::rows(round, count), ingest::BATCH).await?);
        let bodies = ingest::bodies(round, count)?;
        let watch = Watch::start();
        ingest::push(&alone, bodies).await?;
        one.push(rate(count, watch.elapsed()));
        many.push(ingest::at_once(&clients, round, count).await?);
    }
    Ok(ingested(&limits, [&one, &many]))
}

/// What one client and several reach, each against what was measured in the same run and against the plan.
fn ingested(limits: &[f64], ours: [&[f64]; 2]) -> Vec<Measure> {
    let names = ["ingest over HTTP, one client", "ingest over HTTP, eight clients into one space"];
    let both = names.into_iter().zip(ours).map(|(name, ours)| {
        let measured = against(name, "changes/s", ours, limits, 0.4);
        let planned = limit::against_planned(PLANNED, measured.ours, "changes/s", 0.4);
        [measured, planned]
    });
    both.flatten().collect()
}

/// The feed over HTTP, read to its end.
async fn streamed(bare: &Bare, device: &HttpTransport, rounds: usize, count: usize) -> Result<Measure> {
    let (mut limits, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        limits.push(bare.stream().await?);
        let watch = Watch::start();
        let (mut cursor, mut rows) = (None, 0);
        loop {
            let page = device.pull(cursor.as_deref(), PAGE).await?;
            rows += page.rows.len();
            if page.end.complete {
                break;
            }
            cursor = Some(page.end.cursor);
        }
        ours.push(rate(rows, watch.elapsed()));
        anyhow::ensure!(rows >= count, "the feed has {rows} records of {count}");
    }
    Ok(against("the feed over HTTP, against COPY in its order", "records/s", &ours, &limits, 0.3))
}

/// Bytes of a page before compression, against those of its records' ids and values alone.
async fn on_the_wire(device: &HttpTransport) -> Result<Measure> {
    let page = device.pull(None, PAGE).await?;
    let (mut writer, mut out, mut plain) = (PageWriter::new(), Vec::new(), 0);
    for row in &page.rows {
        writer.row(row, &mut out);
        // `{"id":"…",` before the values.
        plain += row.key.id.len() + r#"{"id":"","#.len() + row.data.text().len() - 1;
    }
    writer.end(page.end, &mut out);
    let ratio = out.len() as f64 / plain as f64;
    Ok(Measure {
        name: "bytes on the wire for a record, before compression, against its JSON",
        ours: out.len() as f64 / page.rows.len() as f64,
        limit: Some(plain as f64 / page.rows.len() as f64),
        unit: "bytes",
        ratio: Some(ratio),
        target: "≤ 1.10".into(),
        met: ratio <= 1.1,
    })
}

fn against(name: &'static str, unit: &'static str, ours: &[f64], limits: &[f64], at_least: f64) -> Measure {
    let ratio = median(ours.iter().zip(limits).map(|(ours, limit)| ours / limit).collect());
    Measure {
        name,
        ours: median(ours.to_vec()),
        limit: Some(median(limits.to_vec())),
        unit,
        ratio: Some(ratio),
        target: format!("≥ {at_least:.2}"),
        met: ratio >= at_least,
    }
}

fn at_most(name: &'static str, ours: f64, unit: &'static str, most: f64) -> Measure {
    Measure {
        name,
        ours,
        limit: None,
        unit,
        ratio: None,
        target: format!("≤ {most:.0} {unit}"),
        met: ours <= most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingest_is_told_against_what_was_measured_and_against_the_plan() {
        let lines = ingested(&[160_000.0; 3], [&[32_000.0; 3], &[48_000.0; 3]]);
        let told = lines.iter().map(|line| (line.limit, line.ratio, line.met)).collect::<Vec<_>>();
        let wanted = [
            (Some(160_000.0), Some(0.2), false),
            (Some(80_000.0), Some(0.4), true),
            (Some(160_000.0), Some(0.3), false),
            (Some(80_000.0), Some(0.6), true),
        ];
        assert_eq!(told, wanted);
    }
}
