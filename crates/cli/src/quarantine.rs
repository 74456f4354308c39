//! `device quarantine`: what revoked devices handed in, and what an administrator makes of it.

use crate::{
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show,
};
use anyhow::Result;
use ropeway_core::id::ChangeId;
use ropeway_replica::{Device, Quarantined};
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Revoked devices whose work waits here
    #[command(after_help = "Example:\n  ropeway device quarantine ls --json")]
    Ls,
    /// What a device handed in, what was decided included
    #[command(after_help = "Example:\n  ropeway device quarantine show 01984f10-0000-7000-8000-000000000127")]
    Show {
        /// Its uuid, as `device quarantine ls` shows it
        id: String,
    },
    /// Take what waits in, as that device's changes; what is refused or lacks a parent stays
    #[command(after_help = "Examples:
  ropeway device quarantine accept 01984f10-0000-7000-8000-000000000127 --dry-run
  ropeway device quarantine accept 01984f10-0000-7000-8000-000000000127 --person admin@example.org --yes")]
    Accept(Decision),
    /// Give what waits up; it stays to be read for as long as receipts are kept
    #[command(after_help = "Example:
  ropeway device quarantine discard 01984f10-0000-7000-8000-000000000127 --person admin@example.org --yes")]
    Discard(Decision),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// The device's uuid, as `device quarantine ls` shows it
    id: String,
    /// Only these changes, as `device quarantine show` names them
    #[arg(long, value_name = "ID")]
    change: Vec<String>,
    /// Who decides; it is kept beside the change
    #[arg(long)]
    person: Option<String>,
    /// Only show what would come of it
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Runs a command about the quarantine.
pub(crate) async fn run(command: QuarantineCommand, opened: &Opened, output: Output) -> Result<Exit> {
    match command {
        QuarantineCommand::Ls => list(opened, output).await,
        QuarantineCommand::Show { id } => show(&id, opened, output).await,
        QuarantineCommand::Accept(decision) => accept(decision, opened, output).await,
        QuarantineCommand::Discard(decision) => discard(decision, opened, output).await,
    }
}

async fn list(opened: &Opened, output: Output) -> Result<Exit> {
    let all = opened.node.quarantined(&opened.space).await?;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for device in opened.node.devices().await?.into_iter().filter(|d| d.space == opened.space) {
        let theirs: Vec<&Quarantined> = all.iter().filter(|q| q.device == device.id).collect();
        let Some(last) = theirs.last() else { continue };
        let waiting = theirs.iter().filter(|q| q.ended.is_none()).count();
        rows.push(vec![
            device.id.to_string(),
            device.name.clone(),
            waiting.to_string(),
            (theirs.len() - waiting).to_string(),
            last.received_at.to_string(),
        ]);
        json.push(json!({
            "device_uuid": device.id, "name": device.name, "waiting": waiting,
            "decided": theirs.len() - waiting, "last_received_at": last.received_at,
        }));
    }
    output.table(&["uuid", "name", "waiting", "decided", "last received"], rows, &json)?;
    Ok(Exit::Done)
}

async fn show(id: &str, opened: &Opened, output: Output) -> Result<Exit> {
    let device = device(id, opened).await?;
    let mut all = opened.node.quarantined(&opened.space).await?;
    all.retain(|q| q.device == device.id);
    let row = |q: &Quarantined| {
        let fields = serde_json::to_string(&q.change.fields).unwrap_or_default();
        let by = q.change.author.person.clone().unwrap_or_default();
        vec![q.change.id.to_string(), q.change.key().to_string(), by, fields, fate(q)]
    };
    let json: Vec<Value> = all.iter().map(shown).collect();
    output.table(&["change", "record", "author", "fields", "state"], all.iter().map(row).collect(), &json)?;
    Ok(Exit::Done)
}

fn shown(q: &Quarantined) -> Value {
    let ended = q.ended.as_ref();
    json!({
        "change": q.change,
        "received_at": q.received_at,
        "state": match ended {
            None => "waiting",
            Some(end) if end.verdict.is_some() => "accepted",
            Some(_) => "discarded",
        },
        "verdict": ended.and_then(|end| end.verdict),
        "decided_at": ended.map(|end| end.at),
        "decided_by": ended.and_then(|end| end.by.as_deref()),
    })
}

fn fate(q: &Quarantined) -> String {
    let Some(end) = &q.ended else { return "waiting".into() };
    let what =
        end.verdict.map_or("discarded".to_owned(), |verdict| format!("accepted: {}", verdict.as_str()));
    let by = end.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    format!("{what}{by}, {}", end.at)
}

async fn accept(decision: Decision, opened: &Opened, output: Output) -> Result<Exit> {
    let (device, only) = named(&decision, opened).await?;
    let (by, space) = (decision.person.as_deref(), &opened.space);
    let receipts = opened.node.accept_quarantined(space, &device.id, &only, by, decision.dry_run).await?;
    let left = receipts.iter().filter(|r| !r.verdict.is_settled()).count();
    output.either(&json!({ "dry_run": decision.dry_run, "left": left, "receipts": receipts }), || {
        let mut lines: Vec<String> = receipts.iter().map(show::receipt).collect();
        let verb = if decision.dry_run { "would be taken in" } else { "were taken in" };
        let taken = receipts.len() - left;
        lines.push(format!("{taken} changes of `{}` {verb}, {left} stay in quarantine", device.name));
        lines.join("\n")
    })?;
    Ok(if left > 0 { Exit::Partly } else { Exit::Done })
}

async fn discard(decision: Decision, opened: &Opened, output: Output) -> Result<Exit> {
    let (device, only) = named(&decision, opened).await?;
    let by = decision.person.as_deref();
    let count = match decision.dry_run {
        true => opened.node.waiting_in_quarantine(&opened.space, &device.id, &only).await?.len() as u64,
        false => opened.node.discard_quarantined(&opened.space, &device.id, &only, by).await?,
    };
    output.either(&json!({ "dry_run": decision.dry_run, "discarded": count }), || {
        let verb = if decision.dry_run { "would be given up" } else { "were given up" };
        format!("{count} changes of `{}` {verb}", device.name)
    })?;
    Ok(Exit::Done)
}

/// The device and the changes that a decision names. Nothing is decided by accident.
async fn named(decision: &Decision, opened: &Opened) -> Result<(Device, Vec<ChangeId>)> {
    let device = device(&decision.id, opened).await?;
    let only = decision.change.iter().map(|id| ChangeId::parse(id)).collect::<Result<Vec<_>, _>>();
    let only = only.map_err(|e| Failure::usage(e.to_string()))?;
    if !decision.yes && !decision.dry_run {
        let waits = opened.node.waiting_in_quarantine(&opened.space, &device.id, &only).await?.len();
        let what = format!("{waits} changes of `{}` wait; nothing was decided", device.name);
        return Err(Failure::usage(what)
            .next("say --dry-run to see what would come of it, --yes to do it")
            .into());
    }
    Ok((device, only))
}

async fn device(id: &str, opened: &Opened) -> Result<Device> {
    let devices = opened.node.devices().await?;
    let found = devices.into_iter().find(|d| d.id.as_str() == id && d.space == opened.space);
    Ok(found.ok_or_else(|| Failure::new(format!("there is no device {id}; nothing was changed")))?)
}
