//! `conflicts`: what waits for a person, and their answer.

use crate::{
    edit,
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show,
};
use anyhow::Result;
use clap::ValueEnum;
use ropeway_core::{
    conflict::{Conflict, Resolution, Side, Standing},
    doc::Fields,
    id::{Epoch, RecordId},
};
use ropeway_replica::{ConflictView, Desk, Resolve};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Conflicts that wait for a person, oldest first
    #[command(after_help = "Example:\n  ropeway conflicts ls --all")]
    Ls {
        /// Those that a rule or a person settled too
        #[arg(long)]
        all: bool,
    },
    /// One conflict with both sides and the record as it stands
    #[command(after_help = "Example:\n  ropeway conflicts show 0198…:decision")]
    Show {
        /// Its id
        id: String,
    },
    /// Answer a conflict; the answer travels like any other change
    #[command(after_help = "Examples:
  ropeway conflicts resolve 0198…:decision --keep incoming --person 'Jury president' --role jury_president
  ropeway conflicts resolve 0198…:decision --merged '{\"decision\":\"no_action\"}' --person 'Jury president'
  ropeway conflicts resolve --all-of 01984f10-… --keep incoming --person Admin    all that was lost with an epoch")]
    Resolve(ResolveArgs),
}

/// An answer without new values.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Keep {
    /// What the record holds stays
    Server,
    /// The other value replaces it
    Incoming,
    /// They are two records
    Apart,
    /// The question is asked again
    Reopen,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResolveArgs {
    /// Its id
    #[arg(required_unless_present = "all_of", conflicts_with = "all_of")]
    id: Option<String>,
    /// Everything that this node lost with this epoch when it was restored, and that followers handed in
    #[arg(long, value_name = "EPOCH", conflicts_with_all = ["merged", "version"])]
    all_of: Option<String>,
    /// Which side stands
    #[arg(long, required_unless_present = "merged", conflicts_with = "merged")]
    keep: Option<Keep>,
    /// The values to write instead of both, as a JSON object
    #[arg(long, value_name = "JSON")]
    merged: Option<String>,
    /// The version of the conflict that the person saw [default: the one stored now]
    #[arg(long)]
    version: Option<u64>,
    /// Why
    #[arg(long)]
    notes: Option<String>,
    /// Who answers
    #[arg(long)]
    person: String,
    /// Their role in the profile [default: the one that may write everything]
    #[arg(long)]
    role: Option<String>,
}

/// Runs a command about conflicts.
pub(crate) async fn run(command: ConflictsCommand, opened: &Opened, output: Output) -> Result<Exit> {
    match command {
        ConflictsCommand::Ls { all } => list(&opened.node.conflicts(&opened.space, !all).await?, output),
        ConflictsCommand::Show { id } => {
            let view = opened.node.conflict(&opened.space, &parse(&id)?).await?;
            output.either(&show::conflict(&view), || text(&view))?;
            Ok(Exit::Done)
        }
        ConflictsCommand::Resolve(ResolveArgs { all_of: Some(epoch), keep, notes, person, role, .. }) => {
            let desk = opened.desk(Some(person), role, None)?;
            resolve_all(&epoch, keep, notes, &desk, opened, output).await
        }
        ConflictsCommand::Resolve(args) => resolve(args, opened, output).await,
    }
}

fn parse(id: &str) -> Result<RecordId> {
    RecordId::parse(id).map_err(|e| Failure::usage(e.to_string()).into())
}

fn list(views: &[ConflictView], output: Output) -> Result<Exit> {
    let row = |view: &ConflictView| {
        let c = &view.conflict;
        vec![
            view.id.to_string(),
            format!("{}/{}", c.collection, c.record),
            c.fields.join(", "),
            values(&c.server.values),
            values(&c.incoming.values),
            standing(c).into(),
            c.opened_at.to_string(),
        ]
    };
    let header = ["conflict", "record", "about", "here", "incoming", "state", "since"];
    let json: Vec<Value> = views.iter().map(show::conflict).collect();
    output.table(&header, views.iter().map(row).collect(), &json)?;
    note_lost(views, output);
    Ok(Exit::Done)
}

async fn resolve(args: ResolveArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let desk = opened.desk(Some(args.person), args.role, None)?;
    let data: Option<Fields> = args.merged.as_deref().map(edit::fields).transpose()?;
    let resolution = resolution(args.keep);
    let conflict = parse(&args.id.unwrap_or_default())?;
    let answer =
        Resolve { conflict, version: args.version, resolution, data, notes: args.notes, change: None };
    let (receipt, view) = opened.node.resolve(&opened.space, &desk, answer).await?;
    let json = json!({ "receipt": receipt, "id": view.id, "version": view.version, "conflict": view.conflict,
        "record_now": view.now });
    output.either(&json, || format!("{}\n{}", show::receipt(&receipt), text(&view)))?;
    Ok(show::exit_of(receipt.verdict))
}

/// Answers a whole list. What could not be answered stays open and is told with its reason.
async fn resolve_all(
    epoch: &str,
    keep: Option<Keep>,
    notes: Option<String>,
    desk: &Desk,
    opened: &Opened,
    output: Output,
) -> Result<Exit> {
    let lost = Epoch::parse(epoch).map_err(|e| Failure::usage(e.to_string()))?;
    if !matches!(keep, Some(Keep::Server | Keep::Incoming)) {
        let what =
            "a list is answered with --keep incoming (it shall be so again) or --keep server (let it go)";
        return Err(Failure::usage(what).into());
    }
    let told = opened.node.resolve_lost(&opened.space, desk, &lost, resolution(keep), notes).await?;
    let left: Vec<Value> =
        told.left.iter().map(|(id, reason)| json!({ "conflict": id, "reason": reason })).collect();
    let json = json!({ "epoch": lost, "answered": told.answered, "left": left });
    output.either(&json, || {
        let mut lines = vec![format!("{} answered, {} left", told.answered, told.left.len())];
        lines.extend(told.left.iter().map(|(id, reason)| {
            format!("left      {id}: {}", reason.as_ref().map_or("refused", |r| r.text.as_str()))
        }));
        lines.join("\n")
    })?;
    Ok(if told.left.is_empty() { Exit::Done } else { Exit::Partly })
}

/// Says how what was lost is answered at once.
fn note_lost(views: &[ConflictView], output: Output) {
    let mut lists: BTreeMap<&str, usize> = BTreeMap::new();
    for conflict in views.iter().map(|v| &v.conflict).filter(|c| c.is_open()) {
        if let Some(lost) = &conflict.lost {
            *lists.entry(lost.epoch.as_str()).or_default() += 1;
        }
    }
    for (epoch, count) in lists.iter().filter(|_| !output.is_json()) {
        output.note(&format!(
            "note: {count} of them were lost with epoch {epoch} when this node or its upstream was restored"
        ));
        output.note(&format!(
            "next:  at the node that was restored: ropeway conflicts resolve --all-of {epoch} --keep incoming --person NAME"
        ));
    }
}

fn resolution(keep: Option<Keep>) -> Resolution {
    match keep {
        None => Resolution::Merged,
        Some(Keep::Server) => Resolution::Server,
        Some(Keep::Incoming) => Resolution::Incoming,
        Some(Keep::Apart) => Resolution::Apart,
        Some(Keep::Reopen) => Resolution::Reopen,
    }
}

fn standing(conflict: &Conflict) -> &'static str {
    match conflict.state {
        Standing::Open => "open",
        Standing::Automatic => "settled by rule",
        Standing::Resolved => "resolved",
    }
}

fn values(fields: &Fields) -> String {
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn side(name: &str, side: &Side) -> String {
    let who = side.by.person.as_deref().unwrap_or("-");
    let what = if side.deleted { "deleted the record".into() } else { values(&side.values) };
    format!("{name:9} {what}  (by {who} on {}, {})", side.by.device, side.at)
}

fn text(view: &ConflictView) -> String {
    let c = &view.conflict;
    let mut lines = vec![
        format!("conflict  {} version {}, {}", view.id, view.version, standing(c)),
        format!("record    {}/{} in {}, rule {}", c.collection, c.record, c.fields.join(", "), c.rule),
    ];
    if let Some(other) = &c.other {
        lines.push(format!("other     {}/{other}", c.collection));
    }
    if let Some(base) = &c.base {
        lines.push(format!("{:9} {}", "both saw", values(base)));
    }
    lines.push(side("here", &c.server));
    lines.push(side("incoming", &c.incoming));
    if let Some(now) = &view.now {
        lines.push(format!("{:9} {}", "now", now.text()));
    }
    if let Some(by) = &c.resolved_by {
        let who = by.person.as_deref().unwrap_or("-");
        let answer = c.resolution.map_or_else(String::new, |r| format!("{r:?}").to_lowercase());
        lines.push(format!("answered  {answer} by {who}: {}", c.notes.as_deref().unwrap_or("no notes")));
    }
    lines.join("\n")
}
