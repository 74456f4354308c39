//! `get`, `dump` and `status`: what is there. They change nothing.

use crate::{
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show, upstream,
};
use anyhow::Result;
use ropeway_core::{
    id::{CONFLICT, Collection, Key, RecordId},
    record::Record,
};
use ropeway_replica::Status;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};

const PAGE: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway get incident                     all live incidents
  ropeway get incident incident-7 --history")]
pub(crate) struct GetArgs {
    /// Its collection
    collection: String,
    /// Its id; without it all live records of the collection
    id: Option<String>,
    /// Earlier versions too, newest first
    #[arg(long, requires = "id")]
    history: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway dump > everything.ndjson
  ropeway dump --canonical | sha256sum     equal on replicas that agree")]
pub(crate) struct DumpArgs {
    /// Only what replicas compare: live records, joined rows and open conflicts, by id and data
    #[arg(long)]
    canonical: bool,
}

/// Shows one record or a collection.
pub(crate) async fn get(args: GetArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let Some(id) = args.id else { return get_all(&args.collection, opened, output).await };
    let key = show::key(&args.collection, &id)?;
    let Some(record) = opened.node.get(&opened.space, &key).await? else {
        return Err(Failure::new(format!("{key} is not here"))
            .next("check the id, `--space` and `--data-dir`")
            .into());
    };
    let mut shown = show::record(&key, &record);
    if args.history {
        let history = opened.node.history(&opened.space, &key).await?;
        shown["history"] = history.iter().map(show::superseded).collect();
    }
    output.either(&shown, || serde_json::to_string_pretty(&shown).unwrap_or_default())?;
    Ok(Exit::Done)
}

async fn get_all(collection: &str, opened: &Opened, output: Output) -> Result<Exit> {
    let collection = Collection::parse(collection).map_err(|e| Failure::usage(e.to_string()))?;
    let profile = opened.node.profile();
    if profile.rules(&collection).is_none() && &*collection != CONFLICT {
        let known = profile.order.join(", ");
        return Err(
            Failure::usage(format!("the profile has no collection `{collection}`; it has {known}")).into()
        );
    }
    let mut rows = Vec::new();
    each(opened, &collection, |id, record| {
        if !record.is_live() {
            return Ok(());
        }
        if output.is_json() {
            return output.document(&show::record(&Key::new(&collection, id), record));
        }
        rows.push(vec![id.to_string(), record.version.to_string(), record.data.text().to_owned()]);
        Ok(())
    })
    .await?;
    if !output.is_json() {
        output.table(&["id", "version", "data"], rows, &Value::Null)?;
    }
    Ok(Exit::Done)
}

/// Prints everything, one JSON document a line.
pub(crate) async fn dump(args: DumpArgs, opened: &Opened) -> Result<Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.canonical {
        opened.node.dump_canonical(&opened.space, |line| writeln!(out, "{line}")).await?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    // Parents first, conflicts last; between them what a newer profile brought and this one does not know.
    let order = &opened.node.profile().order;
    let rank = |name: &Collection| match name.as_str() {
        CONFLICT => order.len() + 1,
        name => order.iter().position(|known| known == name).unwrap_or(order.len()),
    };
    let mut collections = opened.node.collections(&opened.space).await?;
    collections.sort_by_key(rank);
    for collection in collections {
        each(opened, &collection, |id, record| {
            serde_json::to_writer(&mut out, &show::record(&Key::new(&collection, id), record))?;
            Ok(writeln!(out)?)
        })
        .await?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Walks a collection page by page.
pub(crate) async fn each(
    opened: &Opened,
    collection: &Collection,
    mut work: impl FnMut(&RecordId, &Record) -> Result<()>,
) -> Result<()> {
    let mut after: Option<RecordId> = None;
    loop {
        let page = opened.node.list(&opened.space, collection, after.as_ref(), PAGE).await?;
        for (id, record) in &page {
            work(id, record)?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.last().map(|(id, _)| id.clone());
    }
}

/// Prints the node's state.
pub(crate) async fn status(opened: &Opened, output: Output) -> Result<Exit> {
    let status = opened.node.status(&opened.space).await?;
    output.either(&status_json(&status, opened), || status_text(&status, opened))?;
    Ok(Exit::Done)
}

fn status_json(status: &Status, opened: &Opened) -> Value {
    json!({
        "device": status.device,
        "space": status.space,
        "profile": status.profile,
        "mode": opened.config.mode,
        "data_dir": opened.config.data_dir,
        "store": status.store,
        "bytes": status.bytes,
        "epoch": status.epoch,
        "head": status.head,
        "head_ahead_us": status.head_ahead,
        "head_alarm": status.head_alarm,
        "offset_to_top_us": status.offset_to_top,
        "digest": show::digest(status.digest),
        "records": status.digest.count,
        "follows": status.follows,
        "upstream": opened.upstream,
        "absorbed": status.upstream.as_ref().map(|(epoch, head)| json!({ "epoch": epoch, "head": head })),
        "outbox": status.outbox.iter().map(|(s, n)| (s.as_str(), n)).collect::<std::collections::BTreeMap<_, _>>(),
        "unsettled": unsettled(status),
        "conflicts_open": status.conflicts_open,
        "cloned_at": status.cloned_at,
        "revoked_at": status.revoked_at,
        "last_sync": status.last_sync.as_ref().map(show::run),
        "now": status.now,
    })
}

fn unsettled(status: &Status) -> u64 {
    status.outbox.iter().filter(|(state, _)| state.is_unsettled()).map(|(_, n)| n).sum()
}

fn status_text(status: &Status, opened: &Opened) -> String {
    let upstream = match (&opened.upstream, status.follows) {
        (Some(url), _) => url.clone(),
        (None, true) => "not named yet: edits wait in the outbox".into(),
        (None, false) => "none: this node is at the top".into(),
    };
    let waiting = |(state, n): &(ropeway_core::outbox::EntryState, u64)| {
        state.is_unsettled().then(|| format!("{n} {}", state.as_str()))
    };
    let waiting =
        status.outbox.iter().filter(|(_, n)| *n > 0).filter_map(waiting).collect::<Vec<_>>().join(", ");
    let last = status.last_sync.as_ref().map_or_else(
        || "never".into(),
        |run| {
            let error = run.error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
            format!(
                "{} {} ({} pushed, {} pulled){error}",
                run.started_at,
                show::outcome(run.outcome),
                run.pushed,
                run.pulled
            )
        },
    );
    let off = status.offset_to_top.map(|micros| micros / 1_000_000).filter(|seconds| seconds.abs() > 10);
    let clock = match (&status.head_alarm, off, status.offset_to_top) {
        (Some(alarm), ..) => alarm.clone(),
        (_, Some(seconds), _) => format!("{} s off the top's, corrected", -seconds),
        (_, None, None) => "not compared with the top's since this machine started".into(),
        (_, None, Some(_)) => "in order".into(),
    };
    let rows = [
        ("node", format!("{} ({}, {})", status.device, status.profile, status.store)),
        ("data", format!("{} ({})", opened.config.data_dir.display(), show::bytes(status.bytes))),
        ("space", format!("{} at {}, clock {clock}", status.space, status.head.time())),
        ("records", format!("{}, digest {}", status.digest.count, show::digest(status.digest))),
        ("upstream", upstream),
        ("outbox", if waiting.is_empty() { "empty".into() } else { waiting }),
        ("conflicts", format!("{} open", status.conflicts_open)),
        ("last sync", last),
    ]
    .into_iter()
    .chain(status.cloned_at.map(|at| ("copy", format!("refused since {at}: {}", upstream::cloned()))))
    .chain(status.revoked_at.map(|at| ("revoked", format!("since {at}: {}", upstream::revoked()))));
    rows.map(|(name, value)| format!("{name:10} {value}")).collect::<Vec<_>>().join("\n")
}
