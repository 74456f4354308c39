//! `backup` and `verify`: a copy of a node beside its running `serve`, and the proof that it is whole: the same
//! file whichever database the node has.

use crate::{
    config::Config,
    database::{Database, Opening},
    failure::Exit,
    output::Output,
    show,
};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ropeway_core::{id::Epoch, time::Time};
use ropeway_replica::{Clock, Ids, RandomIds, SystemClock};
use ropeway_store::{BackupError, Holding, Manifest, Progress, SqliteStore};
use serde_json::json;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway backup /mnt/stick/monday.ropeway
  ropeway backup nightly.ropeway --force

A running `serve` goes on, and so does everybody who writes. The file appears when it is whole, and is
verified before. It holds hashes of passwords and tokens: keep it as you keep the node.")]
pub(crate) struct BackupArgs {
    /// Where to put it
    file: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ropeway verify nightly.ropeway\nNeeds no node and changes nothing.")]
pub(crate) struct VerifyArgs {
    /// The backup
    file: PathBuf,
}

/// Takes a backup.
pub(crate) async fn backup(args: BackupArgs, config: Config, output: Output) -> Result<Exit> {
    let (bar, now) = (bar(), SystemClock::new().now());
    let (file, force, progress) = (args.file.clone(), args.force, progress(&bar));
    let made = match &config.database {
        Database::File(database) => {
            if !database.exists() {
                return Err(config.database.nothing().into());
            }
            let database = database.clone();
            blocking(move || SqliteStore::backup(&database, &file, force, now, &*progress)).await
        }
        Database::Server(url) => match config.database.connect(url, opening(now, false)?).await? {
            None => return Err(config.database.nothing().into()),
            Some(store) => Ok(store.backup(file, force, now, progress).await?),
        },
    };
    bar.finish_and_clear();
    told(&made?, &args.file, "backup", output)
}

/// Proves that a backup is whole.
pub(crate) async fn verify(args: VerifyArgs, output: Output) -> Result<Exit> {
    let file = args.file.clone();
    let manifest = blocking(move || SqliteStore::verify(&file)).await?;
    told(&manifest, &args.file, "whole", output)
}

/// What a database on a server is told when it is opened for a backup.
pub(crate) fn opening(now: Time, begin: bool) -> Result<Opening> {
    Ok(Opening { epoch: Epoch::parse(&RandomIds.id())?, now, follows: false, begin })
}

fn told(manifest: &Manifest, file: &Path, word: &str, output: Output) -> Result<Exit> {
    let json = json!({ "file": file, "manifest": manifest });
    output.either(&json, || format!("{word:9} {}\n{}", file.display(), holdings(manifest)))?;
    Ok(Exit::Done)
}

/// What a backup holds, for people.
pub(crate) fn holdings(manifest: &Manifest) -> String {
    let mut lines = vec![format!("taken     {} in epoch {}", manifest.taken_at, manifest.epoch)];
    lines.extend(manifest.spaces.iter().map(holding));
    lines.join("\n")
}

/// What one space holds, for people.
pub(crate) fn holding(h: &Holding) -> String {
    format!(
        "space     {}: head {}, {} records, {} older versions, {} receipts, {} changes on their way, digest {}",
        h.space,
        h.head.time(),
        h.records,
        h.history,
        h.receipts,
        h.unsettled,
        show::digest(h.digest)
    )
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// Shows how far it is.
pub(crate) fn progress(bar: &ProgressBar) -> Progress {
    let bar = bar.clone();
    Arc::new(move |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
}

/// A bar on a terminal, nothing anywhere else.
pub(crate) fn bar() -> ProgressBar {
    match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0).with_style(ProgressStyle::default_bar()),
        false => ProgressBar::hidden(),
    }
}
