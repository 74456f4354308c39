//! `queue`: what waits for the upstream, why, and what a person can do about it.

use crate::{
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show,
};
use anyhow::Result;
use ropeway_replica::QueueItem;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum QueueCommand {
    /// What waits, oldest first
    #[command(after_help = "Example:\n  ropeway queue ls")]
    Ls,
    /// Try entries again at the next sync, whatever their schedule says; without numbers all of them
    #[command(after_help = "Example:\n  ropeway queue retry 17 && ropeway sync")]
    Retry {
        /// Numbers as `queue ls` shows them
        seq: Vec<i64>,
    },
    /// Give entries up for good: their records show the upstream's values again. A create goes only with
    /// what rests on it
    #[command(
        after_help = "Example:\n  ropeway queue discard 17 --dry-run\n  ropeway queue discard 17 --yes"
    )]
    Discard {
        /// Numbers as `queue ls` shows them
        #[arg(required = true)]
        seq: Vec<i64>,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// Only show what would be given up
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
    },
}

/// Runs a command about the queue.
pub(crate) async fn run(command: QueueCommand, opened: &Opened, output: Output) -> Result<Exit> {
    match command {
        QueueCommand::Ls => list(&opened.node.queue(&opened.space).await?, output),
        QueueCommand::Retry { seq } => {
            let armed = opened.node.queue_retry(&opened.space, &seq).await?;
            output.either(&json!({ "armed": armed }), || format!("{armed} entries go at the next sync"))?;
            Ok(Exit::Done)
        }
        QueueCommand::Discard { seq, yes, dry_run } => discard(&seq, yes, dry_run, opened, output).await,
    }
}

fn list(items: &[QueueItem], output: Output) -> Result<Exit> {
    let row = |item: &QueueItem| {
        vec![
            item.seq.to_string(),
            format!("{}/{}", item.collection, item.record),
            item.state.as_str().into(),
            item.status.into(),
            item.attempts.to_string(),
            show::time(item.due),
            item.reason.as_ref().map_or_else(String::new, show::reason_text),
        ]
    };
    let header = ["seq", "record", "state", "status", "attempts", "next", "reason"];
    let json: Vec<Value> = items.iter().map(show::queue_item).collect();
    output.table(&header, items.iter().map(row).collect(), &json)?;
    Ok(Exit::Done)
}

async fn discard(seq: &[i64], yes: bool, dry_run: bool, opened: &Opened, output: Output) -> Result<Exit> {
    let items = opened.node.queue(&opened.space).await?;
    if let Some(missing) = seq.iter().find(|seq| items.iter().all(|item| item.seq != **seq)) {
        let what = format!("there is no queue entry {missing}; nothing was given up");
        return Err(Failure::new(what).next("`ropeway queue ls` shows the entries").into());
    }
    let mut seq = seq.to_vec();
    if !yes {
        // What rests on a create goes with it: shown before it is agreed to.
        seq.extend(opened.node.queue_resting_on(&opened.space, &seq).await?);
        let chosen: Vec<QueueItem> = items.into_iter().filter(|item| seq.contains(&item.seq)).collect();
        if !output.is_json() || dry_run {
            list(&chosen, output)?;
        }
        if dry_run {
            return Ok(Exit::Done);
        }
        if !confirmed(chosen.len(), output) {
            return Err(Failure::usage("nothing was given up")
                .next("say --yes to give these entries up for good")
                .into());
        }
    }
    let gone = opened.node.queue_discard(&opened.space, &seq).await?;
    output.either(&json!({ "discarded": gone }), || {
        format!("{gone} entries given up; their values stay in history")
    })?;
    Ok(Exit::Done)
}

/// Asks on a terminal; anywhere else the answer is no.
fn confirmed(count: usize, output: Output) -> bool {
    if !io::stdin().is_terminal() || output.is_json() {
        return false;
    }
    output.note(&format!("give up these {count} entries for good? Type yes:"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
