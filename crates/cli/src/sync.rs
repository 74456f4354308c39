//! `sync`: once with a progress bar and a report, or again and again with a line for each.

use crate::{failure::Exit, open::Opened, output::Output, show, stop, upstream};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ropeway_core::outbox::EntryState;
use ropeway_protocol::Transport;
use ropeway_replica::{Follower, Following, Progress, SyncOutcome, SyncReport};
use std::{io::IsTerminal, sync::Arc, time::Duration};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway sync
  ropeway sync --watch                     until it is stopped with Ctrl-C

Exit codes: 0 all went and both sides are equal, 1 failed, 3 changes were refused, wait or were parked,
4 the upstream was not reached. In every case nothing written here is lost.")]
pub(crate) struct SyncArgs {
    /// Whom to follow [default: as configured, or the one followed before]
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Follow until stopped, a line for each sync
    #[arg(long)]
    watch: bool,
}

/// Syncs once or follows.
pub(crate) async fn run(args: SyncArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let transport = upstream::transport(opened)?;
    if args.watch {
        return watch(opened, Arc::new(transport), output).await;
    }
    let report = once(opened, &transport).await?;
    let unsettled = unsettled(opened).await?;
    tell(&report, unsettled, opened, output)?;
    Ok(upstream::exit_of(&report))
}

/// One sync with a progress bar.
pub(crate) async fn once(opened: &Opened, transport: &dyn Transport) -> Result<SyncReport> {
    let bar = bar();
    let seen = bar.clone();
    let progress = move |progress: Progress| {
        seen.set_message(progress.to_string());
        seen.tick();
    };
    let report = opened.node.sync(&opened.space, transport, opened.config.limits.sync(), &progress).await;
    bar.finish_and_clear();
    Ok(report?)
}

/// A bar on a terminal, nothing anywhere else.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    bar.set_message("reaching the upstream");
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

async fn unsettled(opened: &Opened) -> Result<usize> {
    Ok(opened.node.queue(&opened.space).await?.len())
}

fn tell(report: &SyncReport, unsettled: usize, opened: &Opened, output: Output) -> Result<()> {
    output.either(&show::report(report, unsettled), || text(report, unsettled))?;
    if output.is_json() {
        return Ok(());
    }
    if let Some(error) = &report.error {
        output.note(&format!("error: {error}"));
        output.note(&format!("next:  {}", upstream::advice(report, &opened.config)));
    } else if report.held > 0 {
        output.note(
            "next:  `ropeway queue ls` shows what waits and why, `ropeway conflicts ls` what was parked",
        );
    }
    Ok(())
}

fn text(report: &SyncReport, unsettled: usize) -> String {
    let outcome = report.outcome.map_or("failed", show::outcome);
    let mut text = format!("{outcome}: {} changes went, {} records came", report.pushed, report.pulled);
    let verdicts = report.verdicts.iter().map(|(v, n)| format!("{n} {}", v.as_str())).collect::<Vec<_>>();
    if !verdicts.is_empty() {
        text += &format!(" ({})", verdicts.join(", "));
    }
    if unsettled > 0 {
        text += &format!("; {unsettled} wait in the outbox");
    }
    match report.digests {
        Some((theirs, ours)) if theirs == ours => text += &format!("\ndigests equal: {}", show::digest(ours)),
        Some((theirs, ours)) => {
            text +=
                &format!("\ndigests differ: here {}, upstream {}", show::digest(ours), show::digest(theirs));
        }
        None => {}
    }
    text
}

/// Follows until it is told to stop.
async fn watch(opened: &Opened, transport: Arc<dyn Transport>, output: Output) -> Result<Exit> {
    let stopped = stop::listen()?;
    let options = opened.config.limits.follow.clone();
    let follower = Follower::spawn(opened.node.clone(), opened.space.clone(), transport, options);
    let mut state = follower.state();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return Ok(Exit::Done),
            changed = state.changed() => if changed.is_err() { return Ok(Exit::Failed) },
        }
        let Following { last, fault, trigger, syncs, .. } = state.borrow_and_update().clone();
        if let Some(fault) = fault {
            output.note(&format!("error: {fault}"));
        } else if let Some(report) = last {
            let counts = opened.node.status(&opened.space).await?.outbox;
            let waits = |(state, _): &&(EntryState, u64)| state.is_unsettled();
            let unsettled = counts.iter().filter(waits).map(|(_, n)| *n).sum::<u64>() as usize;
            let mut json = show::report(&report, unsettled);
            json["sync"] = syncs.into();
            json["trigger"] = trigger.map(|trigger| format!("{trigger:?}").to_lowercase()).into();
            output.either(&json, || line(&report, unsettled))?;
        }
    }
}

fn line(report: &SyncReport, unsettled: usize) -> String {
    let error = match (&report.error, report.outcome) {
        (Some(error), Some(SyncOutcome::Offline | SyncOutcome::Failed | SyncOutcome::Differs)) => {
            format!(": {error}")
        }
        _ => String::new(),
    };
    text(report, unsettled).replace('\n', "; ") + &error
}
