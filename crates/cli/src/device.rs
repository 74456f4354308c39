//! `device`: who may sync with this node.

use crate::{
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    quarantine, show,
};
use anyhow::Result;
use ropeway_core::{id::DeviceId, profile::Writes};
use ropeway_replica::{Enrolled, Enrolment, Renewal, Seen};
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeviceCommand {
    /// Register a device; its token is shown once
    #[command(after_help = "Example:\n  ropeway device add 'Start Line Pi'")]
    Add(AddArgs),
    /// All devices
    #[command(after_help = "Example:\n  ropeway device ls --json")]
    Ls,
    /// Give a device a new token, shown once; the old one is good for nothing from now on
    #[command(after_help = "Example:\n  ropeway device rotate 01984f10-0000-7000-8000-000000000127

What the device has not sent yet stays on it, and goes with the new token.")]
    Rotate {
        /// Its uuid, as `device ls` shows it
        id: String,
    },
    /// Take a device's right to sync away, for good; its own unsent work stays on it, and what it sends waits
    /// in quarantine
    #[command(after_help = "Example:\n  ropeway device revoke 01984f10-0000-7000-8000-000000000127 --yes")]
    Revoke {
        /// Its uuid, as `device ls` shows it
        id: String,
        /// Do it: this cannot be undone
        #[arg(long)]
        yes: bool,
    },
    /// What revoked devices handed in: it waits for an administrator
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// On a copy that the upstream refuses: let it sync as an installation of its own, outbox and all
    #[command(after_help = "Examples:
  ropeway device renew --copy --yes        another copy lives on: put a new token here first
  ropeway device renew --restored --yes    this is the only one, restored from its own backup

Everything is pulled anew and nothing written here is lost. What was sent already is not taken twice.")]
    Renew {
        /// Another copy lives on: this one writes under a new device id from now on
        #[arg(long, conflicts_with = "restored", required_unless_present = "restored")]
        copy: bool,
        /// There is no other: this device was restored from a backup of itself
        #[arg(long)]
        restored: bool,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Its name for people
    name: String,
    /// The most that its people may do [default: the role `device`, or the one that may write everything]
    #[arg(long)]
    role: Option<String>,
    /// Its uuid, where it has one: `ropeway status` on the device shows it
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// `offline_device`, or `cloud` for a server
    #[arg(long, default_value = "offline_device")]
    mode: String,
    /// Hardware, operating system, app version: a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    metadata: String,
}

/// Runs a command about devices.
pub(crate) async fn run(command: DeviceCommand, opened: &Opened, output: Output) -> Result<Exit> {
    match command {
        DeviceCommand::Add(args) => add(args, opened, output).await,
        DeviceCommand::Ls => list(opened, output).await,
        DeviceCommand::Rotate { id } => rotate(&id, opened, output).await,
        DeviceCommand::Revoke { id, yes } => revoke(&id, yes, opened, output).await,
        DeviceCommand::Quarantine(command) => quarantine::run(command, opened, output).await,
        DeviceCommand::Renew { restored, yes, .. } => renew(restored, yes, opened, output).await,
    }
}

async fn add(args: AddArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let id = args.id.map(|id| DeviceId::parse(&id)).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let metadata: Value = serde_json::from_str(&args.metadata)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Failure::usage("--metadata must be a JSON object"))?;
    let role = args.role.map_or_else(|| default_role(opened), Ok)?;
    let (space, mode) = (opened.space.clone(), args.mode);
    let enrolled = opened.node.enrol(Enrolment { id, name: args.name, space, role, mode, metadata }).await?;
    show_token(&enrolled, opened, output)
}

async fn rotate(id: &str, opened: &Opened, output: Output) -> Result<Exit> {
    let id = DeviceId::parse(id).map_err(|e| Failure::usage(e.to_string()))?;
    let enrolled = opened.node.rotate(&opened.space, &id).await?;
    show_token(&enrolled, opened, output)
}

/// The only sight of a token.
fn show_token(enrolled: &Enrolled, opened: &Opened, output: Output) -> Result<Exit> {
    let mut json = show::device(&enrolled.device);
    json["api_token"] = enrolled.token.clone().into();
    let listen = &opened.config.listen;
    output.either(&json, || {
        format!(
            "Device UUID: {}\nAPI Token: {}\n\n\
             The token is shown this once. On the device:\n  \
             put it in the file upstream.token of its data directory, readable by its owner only (mode 0600),\n  \
             then run: ropeway serve --upstream URL\n  \
             with URL = the address of this node as the device reaches it (it listens on {listen})",
            enrolled.device.id, enrolled.token
        )
    })?;
    Ok(Exit::Done)
}

fn default_role(opened: &Opened) -> Result<String> {
    let roles = &opened.node.profile().roles;
    let all = || roles.iter().find(|(_, r)| r.write == Writes::All).map(|(name, _)| name.clone());
    let role = roles.contains_key("device").then(|| "device".to_owned()).or_else(all);
    role.ok_or_else(|| Failure::usage("the profile has no role `device`").next("name one with --role").into())
}

async fn list(opened: &Opened, output: Output) -> Result<Exit> {
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for device in opened.node.devices().await? {
        let seen = opened.node.seen_of(&device).await?;
        rows.push(vec![
            device.id.to_string(),
            device.name.clone(),
            device.space.to_string(),
            device.role.clone(),
            show::device_status(&device).into(),
            show::time(device.last_seen_at),
            show::time(seen.cloned_at),
        ]);
        json.push(with_seen(show::device(&device), &seen));
    }
    output.table(&["uuid", "name", "space", "role", "status", "last seen", "copy refused"], rows, &json)?;
    Ok(Exit::Done)
}

/// What is known of the device's syncs: its installations, copies of it, and whether this node went back.
fn with_seen(mut device: Value, seen: &Seen) -> Value {
    device["installations"] = seen.installations.len().into();
    device["cloned_at"] = json!(seen.cloned_at);
    device["behind_at"] = json!(seen.behind_at);
    device
}

async fn renew(restored: bool, yes: bool, opened: &Opened, output: Output) -> Result<Exit> {
    if !opened.node.follows() {
        return Err(Failure::usage("this node follows nobody: there is nobody to refuse it").into());
    }
    if !yes {
        let what = "this copy would begin a new installation and pull everything anew; nothing was changed";
        return Err(Failure::usage(what).next("say --yes to renew it").into());
    }
    let renewal = if restored { Renewal::Restored } else { Renewal::Copy };
    let device = opened.node.renew(&opened.space, renewal).await?;
    let waits = opened.node.queue(&opened.space).await?.len();
    output.either(&json!({ "device_uuid": device, "unsettled": waits }), || {
        format!(
            "this copy is an installation of its own, the device {device}; {waits} changes wait in its outbox\n\
             start `ropeway serve` again where it runs here, then `ropeway sync`"
        )
    })?;
    Ok(Exit::Done)
}

async fn revoke(id: &str, yes: bool, opened: &Opened, output: Output) -> Result<Exit> {
    let id = DeviceId::parse(id).map_err(|e| Failure::usage(e.to_string()))?;
    if !yes {
        let devices = opened.node.devices().await?;
        let found = devices.iter().find(|device| device.id == id);
        let device =
            found.ok_or_else(|| Failure::new(format!("there is no device {id}; nothing was changed")))?;
        let seen = show::time(device.last_seen_at);
        let what =
            format!("`{}`, last seen {seen}, would be shut out for good; nothing was changed", device.name);
        return Err(Failure::usage(what).next("say --yes to revoke it").into());
    }
    let device = opened.node.revoke(&opened.space, &id).await?;
    output.either(&show::device(&device), || {
        format!("`{}` is revoked: it can neither push nor pull; its unsent work stays on it, and what it hands in waits in \
             `ropeway device quarantine`", device.name)
    })?;
    Ok(Exit::Done)
}
