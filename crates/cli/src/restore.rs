//! `restore`: a backup in the place of a node's data, be that a file or a database on a server.

use crate::{
    backup::{bar, blocking, holding, holdings, opening, progress},
    config::Config,
    database::Database,
    failure::Exit,
    open::make_directory,
    output::Output,
};
use anyhow::Result;
use ropeway_core::{
    id::{Epoch, SpaceId},
    limits,
};
use ropeway_replica::{Clock, RandomIds, SystemClock, begin_epoch};
use ropeway_store::{BackupError, Manifest, PostgresStore, Present, SqliteStore, Unpacked};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway restore nightly.ropeway --dry-run      say what would be replaced
  ropeway restore nightly.ropeway
  ropeway restore nightly.ropeway --restamp      and bring a head that is ahead of the clock back to it

Stop `ropeway serve` first. What is replaced is kept: a file beside the new one, a database on a server as a
backup in the data directory, and that one only with --force. Nodes that follow this one notice
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
    /// Replace a node that is in the database on a server already
    #[arg(long)]
    force: bool,
}

/// Puts a backup in the place of the node's data.
pub(crate) async fn restore(args: RestoreArgs, config: Config, output: Output) -> Result<Exit> {
    let clock = SystemClock::new();
    let server = match &config.database {
        Database::File(_) => None,
        Database::Server(url) => config.database.connect(url, opening(clock.now(), !args.dry_run)?).await?,
    };
    if args.dry_run {
        return foresee(args, &config, server, output).await;
    }
    make_directory(&config.data_dir)?;
    let asked = Asked { file: args.file.clone(), restamp: args.restamp, force: args.force };
    let done = match (&config.database, server) {
        (Database::File(database), _) => into_file(asked, database.clone(), &clock, output).await?,
        (_, Some(server)) => into_server(asked, &config, server, &clock, output).await?,
        (_, None) => return Err(config.database.nothing().into()),
    };
    let Restored { manifest, replaces, epoch, kept } = done;
    let json = json!({ "restored": args.file, "database": config.database.to_string(), "epoch": epoch, "kept": kept,
        "backup": manifest, "replaces": replaces });
    output.either(&json, || {
        let kept = kept.as_ref().map_or_else(String::new, |kept| format!("\nkept      {}", kept.display()));
        format!("restored  {} in epoch {epoch}{kept}", config.database)
    })?;
    warn_of_heads(&manifest, args.restamp, &clock, output);
    Ok(Exit::Done)
}

/// What is to be restored, and how.
struct Asked {
    file: PathBuf,
    restamp: bool,
    force: bool,
}

/// What was restored.
struct Restored {
    manifest: Manifest,
    replaces: Value,
    epoch: Epoch,
    kept: Option<PathBuf>,
}

async fn foresee(
    args: RestoreArgs,
    config: &Config,
    server: Option<PostgresStore>,
    output: Output,
) -> Result<Exit> {
    let file = args.file;
    let (manifest, there) = match (&config.database, server) {
        (Database::File(database), _) => {
            let database = database.clone();
            blocking(move || Unpacked::foresee(&file, &database)).await?
        }
        (Database::Server(_), server) => {
            let manifest = blocking(move || SqliteStore::verify(&file)).await?;
            let there = match server {
                None => Present::Nothing,
                Some(server) => server.present(&manifest).await?,
            };
            (manifest, there)
        }
    };
    let json = json!({ "dry_run": true, "backup": manifest, "replaces": present(&there) });
    output.either(&json, || format!("{}\n{}", holdings(&manifest), replaced(&there)))?;
    Ok(Exit::Done)
}

/// Puts a backup in the place of a file, which stays beside it.
async fn into_file(asked: Asked, database: PathBuf, clock: &dyn Clock, output: Output) -> Result<Restored> {
    database.parent().map_or(Ok(()), make_directory)?;
    let unpacked = blocking(move || Unpacked::new(&asked.file, &database)).await?;
    let (manifest, replaces) = (unpacked.manifest().clone(), present(unpacked.present()));
    if !output.is_json() {
        output.note(&replaced(unpacked.present()));
    }
    let (store, epoch) = begin(&unpacked, asked.restamp, clock).await?;
    let now = clock.now();
    let kept = blocking(move || unpacked.put_in_place(store, now)).await?;
    Ok(Restored { manifest, replaces, epoch, kept })
}

/// Takes a backup into a database on a server, by way of the data directory. A node that is there already
/// becomes a backup in the data directory first.
async fn into_server(
    asked: Asked,
    config: &Config,
    server: PostgresStore,
    clock: &dyn Clock,
    output: Output,
) -> Result<Restored> {
    let fresh = config.data_dir.join("ropeway.restoring");
    let unpacked = blocking(move || Unpacked::aside(&asked.file, &fresh)).await?;
    let manifest = unpacked.manifest().clone();
    let alone = server.alone().await?;
    let there = server.present(&manifest).await?;
    if !output.is_json() {
        output.note(&replaced(&there));
    }
    let kept = match (&there, asked.force) {
        (Present::Nothing, _) => None,
        (_, false) => return Err(BackupError::Occupied(config.database.to_string()).into()),
        (_, true) => {
            let when: String =
                clock.now().to_string().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            let file = config.data_dir.join(format!("before-restore-{when}.ropeway"));
            server.backup(file.clone(), false, clock.now(), Arc::new(|_, _| {})).await?;
            Some(file)
        }
    };
    let (store, epoch) = begin(&unpacked, asked.restamp, clock).await?;
    let bar = bar();
    let taken = server.restore(unpacked, store, alone, asked.force, progress(&bar)).await;
    bar.finish_and_clear();
    taken?;
    Ok(Restored { manifest, replaces: present(&there), epoch, kept })
}

/// Begins the epoch of the restored node, before anybody has it.
async fn begin(unpacked: &Unpacked, restamp: bool, clock: &dyn Clock) -> Result<(SqliteStore, Epoch)> {
    let store = unpacked.open(clock.now())?;
    let spaces: Vec<SpaceId> =
        unpacked.manifest().spaces.iter().map(|holding| holding.space.clone()).collect();
    let epoch = begin_epoch(&store, clock, &RandomIds, &spaces, restamp).await?;
    Ok((store, epoch))
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
            format!("replaces  a database that is not whole ({why})")
        }
        Present::Database(audit, newer) => {
            let mut lines = vec![format!("replaces  a database in epoch {}; it is kept", audit.epoch)];
            lines.extend(audit.spaces.iter().map(holding));
            lines.extend(newer.iter().filter(|(_, count)| *count > 0).map(|(space, count)| {
                format!("loses     {count} records of the space {space} are newer than the backup")
            }));
            lines.join("\n")
        }
    }
}
