//! `purge`: forgets what no live device can need any more, and shows who holds back how much.

use crate::{failure::Exit, open::Opened, output::Output};
use anyhow::Result;
use ropeway_replica::Purge;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway purge --dry-run                  what would go, and which device holds back how much
  ropeway purge

`ropeway serve` does this by itself, once an hour. A tombstone goes when every device seen within the last 180
days has pulled past it; a device that returns later pulls everything anew and loses nothing of its own.
`ropeway check --limits` shows the times under `keep_`.")]
pub(crate) struct PurgeArgs {
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
}

/// Purges, or shows what a purge would do.
pub(crate) async fn run(args: PurgeArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let purge = opened.node.purge(&opened.space, &opened.config.limits.keep, args.dry_run).await?;
    output.either(&shown(&purge, args.dry_run), || text(&purge, args.dry_run))?;
    Ok(Exit::Done)
}

fn shown(purge: &Purge, dry_run: bool) -> Value {
    let held: Vec<Value> = purge
        .held
        .iter()
        .map(|held| {
            json!({
                "device": held.id, "name": held.name, "last_seen_at": held.seen, "read_up_to": held.read.time(),
                "until": held.until, "rows": held.rows,
            })
        })
        .collect();
    json!({ "dry_run": dry_run, "rows": purge.rows, "held": held })
}

fn text(purge: &Purge, dry_run: bool) -> String {
    let verb = if dry_run { "would go" } else { "went" };
    let rows: Vec<String> = purge.rows.iter().map(|(what, n)| format!("{n} {what}")).collect();
    let mut lines = vec![match rows.is_empty() {
        true => format!("nothing {verb}"),
        false => format!("{verb}: {}", rows.join(", ")),
    }];
    for held in &purge.held {
        lines.push(format!(
            "`{}` ({}) holds back {} rows: it has read up to {} and was last seen {}; without it from {}",
            held.name,
            held.id,
            held.rows,
            held.read.time(),
            held.seen,
            held.until
        ));
    }
    lines.join("\n")
}
