//! `backup`, `verify`, `restore`: a copy of a node beside its running `serve`, the proof that it is whole,
//! and putting it back.

use crate::{
    config::Config,
    failure::{Exit, Failure},
    open::make_directory,
    output::Output,
    show,
};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ropeway_core::{id::SpaceId, limits};
use ropeway_replica::{Clock, RandomIds, SystemClock, begin_epoch};
use ropeway_store::{BackupError, Holding, Manifest, Present, SqliteStore, Unpacked};
use serde_json::{Value, json};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
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

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway restore nightly.ropeway --dry-run      say what would be replaced
  ropeway restore nightly.ropeway
  ropeway restore nightly.ropeway --restamp      and bring a head that is ahead of the clock back to it

Stop `ropeway serve` first. What is replaced is kept beside the database. Nodes that follow this one notice
by themselves and hand in what it lost: `ropeway conflicts ls` lists what a person has to accept.")]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give records whose stamps lie ahead of the clock new ones, in their order
    #[arg(long)]
    restamp: bool,
}

/// Takes a backup.
pub(crate) async fn backup(args: BackupArgs, config: Config, output: Output) -> Result<Exit> {
    let database = file_of(&config)?;
    if !database.exists() {
        return Err(Failure::new(format!(
            "there is no database at {}; nothing was made",
            database.display()
        ))
        .next("name the data directory with --data-dir")
        .into());
    }
    let (bar, file, now) = (bar(), args.file.clone(), SystemClock::new().now());
    let seen = bar.clone();
    let progress = move |done, all| {
        seen.set_length(all);
        seen.set_position(done);
    };
    let made = blocking(move || SqliteStore::backup(&database, &file, args.force, now, &progress)).await;
    bar.finish_and_clear();
    told(&made?, &args.file, "backup", output)
}

/// Proves that a backup is whole.
pub(crate) async fn verify(args: VerifyArgs, output: Output) -> Result<Exit> {
    let file = args.file.clone();
    let manifest = blocking(move || SqliteStore::verify(&file)).await?;
    told(&manifest, &args.file, "whole", output)
}

/// Puts a backup in the place of the node's data.
pub(crate) async fn restore(args: RestoreArgs, config: Config, output: Output) -> Result<Exit> {
    let (file, database) = (args.file.clone(), file_of(&config)?);
    if args.dry_run {
        let (manifest, there) = blocking(move || Unpacked::foresee(&file, &database)).await?;
        let json = json!({ "dry_run": true, "backup": manifest, "replaces": present(&there) });
        output.either(&json, || format!("{}\n{}", holdings(&manifest), replaced(&there)))?;
        return Ok(Exit::Done);
    }
    make_directory(&config.data_dir)?;
    database.parent().map_or(Ok(()), make_directory)?;
    let unpacked = blocking(move || Unpacked::new(&file, &database)).await?;
    let replaces = present(unpacked.present());
    let manifest = unpacked.manifest().clone();
    if !output.is_json() {
        output.note(&replaced(unpacked.present()));
    }
    let clock = SystemClock::new();
    let store = unpacked.open(clock.now())?;
    let spaces: Vec<SpaceId> = manifest.spaces.iter().map(|holding| holding.space.clone()).collect();
    let epoch = begin_epoch(&store, &clock, &RandomIds, &spaces, args.restamp).await?;
    let now = clock.now();
    let kept = blocking(move || unpacked.put_in_place(store, now)).await?;
    let json = json!({ "restored": args.file, "database": config.database.to_string(), "epoch": epoch, "kept": kept,
        "backup": manifest, "replaces": replaces });
    output.either(&json, || {
        let kept = kept.as_ref().map_or_else(String::new, |kept| format!("\nkept      {}", kept.display()));
        format!("restored  {} in epoch {epoch}{kept}", config.database)
    })?;
    warn_of_heads(&manifest, args.restamp, &clock, output);
    Ok(Exit::Done)
}

/// The database file; one on a server is not copied by this program yet.
fn file_of(config: &Config) -> Result<PathBuf> {
    let next = "use the server's own tools, such as pg_dump and pg_basebackup; nothing was done";
    let none = || Failure::new(format!("{} is no file", config.database)).next(next);
    Ok(config.database.file().ok_or_else(none)?.to_owned())
}

fn warn_of_heads(manifest: &Manifest, restamped: bool, clock: &dyn Clock, output: Output) {
    let alarm = i64::try_from(limits::HEAD_AHEAD_ALARM.as_micros()).unwrap_or(i64::MAX);
    for holding in &manifest.spaces {
        let ahead = holding.head.time().since(clock.now());
        if ahead > alarm && !restamped {
            output.note(&format!(
                "note: the head of the space `{}` is {} s ahead of this machine's clock",
                holding.space,
                ahead / 1_000_000
            ));
            output.note("next:  check the clock; if it is right, restore the same file with --restamp");
        }
    }
}

fn told(manifest: &Manifest, file: &Path, word: &str, output: Output) -> Result<Exit> {
    let json = json!({ "file": file, "manifest": manifest });
    output.either(&json, || format!("{word:9} {}\n{}", file.display(), holdings(manifest)))?;
    Ok(Exit::Done)
}

fn holdings(manifest: &Manifest) -> String {
    let mut lines = vec![format!("taken     {} in epoch {}", manifest.taken_at, manifest.epoch)];
    lines.extend(manifest.spaces.iter().map(holding));
    lines.join("\n")
}

fn holding(h: &Holding) -> String {
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

fn present(present: &Present) -> Value {
    match present {
        Present::Nothing => Value::Null,
        Present::Unreadable(why) => json!({ "unreadable": why }),
        Present::Database(audit, newer) => {
            let newer: serde_json::Map<String, Value> =
                newer.iter().map(|(space, count)| (space.to_string(), (*count).into())).collect();
            json!({ "epoch": audit.epoch, "spaces": audit.spaces, "newer_than_backup": newer })
        }
    }
}

fn replaced(present: &Present) -> String {
    match present {
        Present::Nothing => "nothing is there yet".into(),
        Present::Unreadable(why) => {
            format!("replaces  a database that is not whole ({why}); it is kept beside the new one")
        }
        Present::Database(audit, newer) => {
            let mut lines = vec![format!("replaces  a database in epoch {}; it is kept beside", audit.epoch)];
            lines.extend(audit.spaces.iter().map(holding));
            lines.extend(newer.iter().filter(|(_, count)| *count > 0).map(|(space, count)| {
                format!("loses     {count} records of the space {space} are newer than the backup")
            }));
            lines.join("\n")
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// A bar on a terminal, nothing anywhere else.
fn bar() -> ProgressBar {
    match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0).with_style(ProgressStyle::default_bar()),
        false => ProgressBar::hidden(),
    }
}
