//! `ropeway`: the one binary. Each command is a room of its own; this file only shows the way.

mod alert;
mod apps;
mod backup;
mod bench;
mod check;
mod config;
mod conflicts;
mod database;
mod demo;
mod device;
mod doctor;
mod edit;
mod environment;
mod failure;
mod limits;
mod look;
mod open;
mod openapi;
mod output;
mod purge;
mod quarantine;
mod queue;
mod restore;
mod serve;
mod show;
mod stop;
mod sync;
mod take;
mod upstream;
mod user;

use anyhow::Result;
use clap::{Parser, Subcommand};
use config::{Config, NodeArgs, Overrides};
use environment::Environment;
use failure::{Exit, Told};
use open::{Absent, Opened};
use output::Output;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Many small objects, made on one thread and dropped on another: what it is good at.
/// Without huge pages: to clear them took more than a tenth of the processor's time in a profile of the ingest, and a
/// board has no memory to spare for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Offline-first synchronisation: every node is a full replica that keeps working without a network.
#[derive(Debug, Parser)]
#[command(name = "ropeway", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done but conflicts or
refused changes remain, 4 the upstream was not reached. Commands that touch a node work on its data
directory whether or not a `serve` runs on it."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: others sync with it, and it follows an upstream where it has one
    Serve(serve::ServeArgs),
    /// Check a profile or a configuration file
    Check(check::CheckArgs),
    /// People of this node
    #[command(subcommand)]
    User(user::UserCommand),
    /// Devices that may sync with this node
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Make a local edit: exit 0 means durable
    Write(edit::WriteArgs),
    /// Show a record, its history, or a collection
    Get(look::GetArgs),
    /// Delete a record
    Delete(edit::DeleteArgs),
    /// Print everything, one JSON document a line
    Dump(look::DumpArgs),
    /// Show the state of a node
    #[command(after_help = "Example:\n  ropeway status --json")]
    Status,
    /// Sync with the upstream now
    Sync(sync::SyncArgs),
    /// Take a competition along: what belongs to it, and nothing of any other
    Download(take::DownloadArgs),
    /// Give back what this node took along; nothing is deleted
    Clear(take::ClearArgs),
    /// What waits for the upstream
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Forget what no live device can need any more, or show what is held back by whom
    Purge(purge::PurgeArgs),
    /// What waits for a person
    #[command(subcommand)]
    Conflicts(conflicts::ConflictsCommand),
    /// Check the database, the disk, the clock and the upstream, and say what to do
    #[command(after_help = "Example:\n  ropeway doctor --data-dir pi")]
    Doctor,
    /// Copy the node into one file, beside a running `serve`
    Backup(backup::BackupArgs),
    /// Prove that a backup is whole
    Verify(backup::VerifyArgs),
    /// Put a backup in the place of the node's data
    Restore(restore::RestoreArgs),
    /// Play a race day: a cloud node, a Pi node, and a cable that is cut and joined
    #[command(after_help = "Examples:\n  ropeway demo\n  ropeway demo --once")]
    Demo(demo::DemoOptions),
    /// Measure this machine: ratios against the database's own limit, in one run
    #[command(after_help = "Example:\n  ropeway bench --rounds 3\nExits 1 when a target is missed.")]
    Bench(bench::BenchArgs),
    /// Print the OpenAPI document of the native protocol and of the app's own API
    #[command(after_help = "Example:\n  ropeway openapi > openapi.json")]
    Openapi,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { Exit::Done as u8 });
        }
    };
    let output = Output::new(cli.node.json);
    let environment = Environment::of_process();
    let ended = start(&cli.node, &environment, &cli.command)
        .and_then(|runtime| runtime.block_on(run(cli.command, &cli.node, &environment, output)));
    let exit = match ended {
        Ok(exit) => exit,
        Err(error) if failure::is_unread(&error) => Exit::Done,
        Err(error) => {
            let told = Told::of(&error);
            output.failure(&told);
            told.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// Sets the log up and makes the runtime.
fn start(args: &NodeArgs, environment: &Environment, command: &Command) -> Result<tokio::runtime::Runtime> {
    let usual = if matches!(command, Command::Serve(_)) { "info,hyper=warn,h2=warn" } else { "warn" };
    let filter = args.log.as_deref().or_else(|| environment.get("RUST_LOG")).unwrap_or(usual);
    let unreadable = |e| failure::Failure::usage(format!("the log filter `{filter}`: {e}"));
    let filter = EnvFilter::try_new(filter).map_err(unreadable)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn run(command: Command, args: &NodeArgs, environment: &Environment, output: Output) -> Result<Exit> {
    let over = match &command {
        Command::Serve(serve) => serve.overrides(),
        Command::Sync(sync) => Overrides { upstream: sync.upstream.clone(), ..Overrides::default() },
        Command::Write(write) => Overrides { upstream: write.upstream.clone(), ..Overrides::default() },
        Command::Download(args) => Overrides { upstream: args.upstream.clone(), ..Overrides::default() },
        _ => Overrides::default(),
    };
    match command {
        Command::Check(check) => return check::run(&check, output),
        Command::Demo(options) => {
            let (data_dir, database) = (args.data_dir.clone(), args.database.clone());
            let options = demo::DemoOptions { json: args.json, data_dir, database, ..options };
            return Ok(if demo::run(options).await? { Exit::Done } else { Exit::Failed });
        }
        Command::Bench(args) => {
            return Ok(if bench::run(args.clone(), &output).await? { Exit::Done } else { Exit::Failed });
        }
        Command::Openapi => return openapi::run(args.profile.as_deref(), output),
        Command::Verify(args) => return backup::verify(args, output).await,
        _ => {}
    }
    let config = Config::load(args, over, environment)?;
    let command = match command {
        Command::Backup(args) => return backup::backup(args, config, output).await,
        Command::Restore(args) => return restore::restore(args, config, output).await,
        command => command,
    };
    let absent = match &command {
        Command::Serve(_) | Command::Write(_) | Command::User(_) | Command::Device(_) => Absent::Make,
        Command::Sync(_) | Command::Download(_) if config.upstream.is_some() => Absent::Make,
        _ => Absent::Refuse,
    };
    let opened = open::open(config, absent, output).await?;
    with_node(command, opened, output).await
}

async fn with_node(command: Command, opened: Opened, output: Output) -> Result<Exit> {
    match command {
        Command::Serve(_) => serve::run(opened, output).await,
        Command::User(command) => user::run(command, &opened, output).await,
        Command::Device(command) => device::run(command, &opened, output).await,
        Command::Write(args) => edit::write(args, &opened, output).await,
        Command::Get(args) => look::get(args, &opened, output).await,
        Command::Delete(args) => edit::delete(args, &opened, output).await,
        Command::Dump(args) => look::dump(args, &opened).await,
        Command::Status => look::status(&opened, output).await,
        Command::Sync(args) => sync::run(args, &opened, output).await,
        Command::Download(args) => take::download(args, &opened, output).await,
        Command::Clear(args) => take::clear(args, &opened, output).await,
        Command::Queue(command) => queue::run(command, &opened, output).await,
        Command::Purge(args) => purge::run(args, &opened, output).await,
        Command::Conflicts(command) => conflicts::run(command, &opened, output).await,
        Command::Doctor => doctor::run(&opened, output).await,
        Command::Check(_)
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::Openapi
        | Command::Backup(_)
        | Command::Verify(_)
        | Command::Restore(_) => Ok(Exit::Done),
    }
}
