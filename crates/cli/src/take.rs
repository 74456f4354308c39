//! `download` and `clear`: what a node takes along, and how it gives that back.

use crate::{failure::Exit, failure::Failure, open::Opened, output::Output, show, sync, upstream};
use anyhow::Result;
use ropeway_core::audience;
use ropeway_protocol::Transport;
use ropeway_replica::{SyncOutcome, SyncReport};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway download 0198c001-0000-7000-8000-000000000001
  ropeway download competition:verbier-2026 --upstream https://cloud.example

Exit codes: 0 it is here, 1 failed, 3 it is here but changes were refused, wait or were parked, 4 the upstream
was not reached: what had come already is kept and the next sync goes on from there.")]
pub(crate) struct DownloadArgs {
    /// What to take along: an audience such as `competition:ID`, or its id where the profile has one kind to choose
    #[arg(value_name = "AUDIENCE")]
    audience: String,
    /// Whom to follow [default: as configured, or the one followed before]
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway clear --dry-run                  only says whether it could be done
  ropeway clear

Nothing is deleted: the upstream has it all. It is refused while changes wait here or in a device that follows
this node, while a conflict is open, and while both sides do not hold the same.
Exit codes: 0 done, 1 failed, 3 refused, and why, 4 the upstream was not reached.")]
pub(crate) struct ClearArgs {
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// Subscribes and syncs until all of it is here.
pub(crate) async fn download(args: DownloadArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let key = key_of(&args.audience, opened)?;
    let transport = upstream::transport(opened)?;
    transport.subscribe(&key, true).await?;
    let report = sync::once(opened, &transport).await?;
    let unsettled = opened.node.queue(&opened.space).await?.len();
    let exit = upstream::exit_of(&report);
    let taken = opened.node.taken_along(&opened.space).await?;
    let is_here = taken.is_some_and(|keys| keys.contains(&key))
        && matches!(report.outcome, Some(SyncOutcome::Done | SyncOutcome::Partly));
    let document = json!({
        "audience": key, "ready": is_here, "sync": show::report(&report, unsettled),
    });
    output.either(&document, || {
        let came = format!("{key}: {} records came", report.pulled);
        // The app's words (ISMF-063), only where all of it is here.
        if is_here { format!("{came}\n{}", opened.node.profile().words.ready) } else { came }
    })?;
    told(&report, opened, output);
    Ok(if is_here || exit != Exit::Done { exit } else { Exit::Failed })
}

/// Unsubscribes from everything and evicts it.
pub(crate) async fn clear(args: ClearArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let transport = upstream::transport(opened)?;
    let report = sync::once(opened, &transport).await?;
    if !matches!(report.outcome, Some(SyncOutcome::Done | SyncOutcome::Partly)) {
        told(&report, opened, output);
        return Ok(upstream::exit_of(&report));
    }
    let keys = opened.node.taken_along(&opened.space).await?.unwrap_or_default();
    let reasons = opened.node.holds_back_clear(&opened.space, &report).await?;
    let receipt = receipt(&report, opened);
    if args.dry_run || !reasons.is_empty() {
        let document = json!({ "audiences": keys, "cleared": false, "reasons": reasons, "receipt": receipt });
        output.either(&document, || match reasons.is_empty() {
            true => format!("nothing holds it back: {} would go; {}", listed(&keys), signed(&receipt)),
            false => format!("not cleared: {}", reasons.join("; ")),
        })?;
        return Ok(if reasons.is_empty() { Exit::Done } else { Exit::Partly });
    }
    for key in &keys {
        transport.subscribe(key, false).await?;
    }
    let report = sync::once(opened, &transport).await?;
    let left = opened.node.taken_along(&opened.space).await?.unwrap_or_default();
    let done = matches!(report.outcome, Some(SyncOutcome::Done | SyncOutcome::Partly));
    let cleared = done && left.is_empty();
    let document = json!({
        "audiences": keys, "cleared": cleared, "kept": left, "reasons": [], "receipt": receipt,
    });
    output.either(&document, || match left.is_empty() {
        // The last words are the app's (ISMF-071).
        true if cleared => format!(
            "cleared: {}; nothing was deleted; {}\n{}",
            listed(&keys),
            signed(&receipt),
            opened.node.profile().words.cleared
        ),
        true => format!("cleared: {}; nothing was deleted", listed(&keys)),
        false => format!("cleared, but membership keeps {}; nothing was deleted", listed(&left)),
    })?;
    told(&report, opened, output);
    Ok(upstream::exit_of(&report))
}

/// What both sides held before anything went: the upstream signs with its digest for what it has.
fn receipt(report: &SyncReport, opened: &Opened) -> Option<Value> {
    let (upstream, here) = report.digests?;
    (upstream == here).then(|| {
        json!({
            "digest": show::digest(upstream), "records": upstream.count, "at": opened.node.clock().now(),
        })
    })
}

fn signed(receipt: &Option<Value>) -> String {
    match receipt {
        Some(receipt) => {
            format!("the upstream has all {} records, digest {}", receipt["records"], receipt["digest"])
        }
        None => "the upstream was not compared".into(),
    }
}

/// The audience that a person named: in full, or by its value where the profile has one kind to choose.
fn key_of(named: &str, opened: &Opened) -> Result<String> {
    let profile = opened.node.profile();
    let kinds: BTreeSet<&str> = profile.roles.values().flat_map(|r| &r.choose).map(String::as_str).collect();
    if kinds.iter().any(|kind| named.split(':').next() == Some(kind)) && audience::is_key(named) {
        return Ok(named.to_owned());
    }
    let mut kinds = kinds.into_iter();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) if audience::is_key(&format!("{kind}:{named}")) => Ok(format!("{kind}:{named}")),
        (None, _) => Err(Failure::usage("the profile has no role that may choose what it takes along")
            .next("run `ropeway sync`: everything comes")
            .into()),
        _ => Err(Failure::usage(format!("`{named}` names no audience"))
            .next("name the record's id, or the audience as `name:value`")
            .into()),
    }
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
}

fn told(report: &SyncReport, opened: &Opened, output: Output) {
    if let Some(error) = &report.error {
        output.note(&format!("error: {error}"));
        output.note(&format!("next:  {}", upstream::advice(report, &opened.config)));
    }
}
