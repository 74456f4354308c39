//! `doctor`: looks at everything that usually goes wrong and says what to do about each.

use crate::{
    config::Mode,
    failure::Exit,
    look,
    open::{Opened, others_may_read},
    output::Output,
    show, upstream,
};
use anyhow::Result;
use ropeway_core::{
    digest::{Digest, contribution},
    outbox::EntryState,
    time::Time,
};
use ropeway_protocol::{Transport, TransportError};
use ropeway_server::Tls;
use ropeway_store::SyncOutcome;
use serde::Serialize;
use std::{fs, path::Path};

/// Below this much room on the disk a person should know; below a tenth of it the node is in danger.
const DISK_LOW: u64 = 1 << 30;
/// An entry that waits for longer than this while the upstream is in reach is stuck.
const STUCK: i64 = 3_600_000_000;
/// A clock this far from the upstream's makes times misleading.
const CLOCK_OFF: i64 = 5_000_000;
/// A certificate that runs out in fewer days than this should have been renewed.
const EXPIRES_SOON: i64 = 21;
/// Before this no Ropeway existed: the machine's clock was never set.
const NOT_BEFORE: &str = "2025-01-01T00:00:00Z";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    found: Found,
    text: String,
    /// What to do, where something is to be done.
    next: Option<String>,
}

impl Check {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, found: Found::Ok, text: text.into(), next: None }
    }
    fn warn(check: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, found: Found::Warn, text: text.into(), next: Some(next.into()) }
    }
    fn fail(check: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, found: Found::Fail, text: text.into(), next: Some(next.into()) }
    }
}

/// Runs every check and prints each. Exit 1 when one failed, 4 when only the upstream was not reached.
pub(crate) async fn run(opened: &Opened, output: Output) -> Result<Exit> {
    let (reached, offline) = upstream_check(opened).await;
    let mut checks = vec![configuration(opened), integrity(opened).await, digest(opened).await?];
    checks.extend(certificate(opened));
    checks.extend(permissions(opened));
    checks.push(disk(&opened.config.data_dir));
    checks.push(clock(opened).await?);
    checks.extend(reached);
    checks.extend(identity(opened).await?);
    checks.extend(compared(opened).await?);
    checks.push(outbox(opened, offline).await?);
    checks.push(conflicts(opened).await?);
    for check in &checks {
        let word = match check.found {
            Found::Ok => "ok  ",
            Found::Warn => "warn",
            Found::Fail => "FAIL",
        };
        output.either(check, || {
            let next =
                check.next.as_ref().map_or_else(String::new, |next| format!("\n                   → {next}"));
            format!("{word} {:13} {}{next}", check.check, check.text)
        })?;
    }
    Ok(match checks.iter().any(|check| check.found == Found::Fail) {
        true => Exit::Failed,
        false if offline => Exit::Offline,
        false => Exit::Done,
    })
}

fn configuration(opened: &Opened) -> Check {
    let config = &opened.config;
    let file = config.file.as_ref().map_or_else(|| "no file".into(), |file| file.display().to_string());
    let mode = if config.mode == Mode::Cloud { "cloud" } else { "offline_device" };
    let upstream = opened.upstream.as_deref().unwrap_or("no upstream");
    let text = format!("mode {mode}, {file}, {upstream}, profile {}", opened.node.profile().name);
    if opened.node.follows() && opened.upstream.is_none() {
        return Check::warn("configuration", text, "name the upstream: what is written here waits for one");
    }
    Check::ok("configuration", text)
}

async fn integrity(opened: &Opened) -> Check {
    match opened.node.store().check().await {
        Ok(()) => Check::ok("database", format!("{} is whole", opened.config.database)),
        Err(error) => {
            let next = "stop this node, copy the data directory, then restore a backup; do not write to it";
            Check::fail("database", error.to_string(), next)
        }
    }
}

/// Adds every record up again and compares with the digest that the store keeps as it goes.
async fn digest(opened: &Opened) -> Result<Check> {
    const LOOKS: usize = 5;
    for _ in 0..LOOKS {
        let before = opened.node.state(&opened.space).await?;
        if before.filling {
            let text = "the first pull is not complete: what it brought is in nobody's sight yet";
            return Ok(Check::warn("digest", text, "run `ropeway sync` until it is, then doctor again"));
        }
        let mut sum = Digest::default();
        for collection in opened.node.collections(&opened.space).await? {
            look::each(opened, &collection, |id, record| {
                sum = sum.moved(0, contribution(&collection, id, record));
                Ok(())
            })
            .await?;
        }
        if opened.node.state(&opened.space).await?.head != before.head {
            continue; // Somebody wrote meanwhile.
        }
        let shown = show::digest(before.digest);
        return Ok(match sum == before.digest {
            true => Check::ok("digest", format!("{shown} as recomputed over {} records", sum.count)),
            false => Check::fail(
                "digest",
                format!(
                    "stored {shown}, recomputed {}: the records are not what was written",
                    show::digest(sum)
                ),
                "stop this node, copy the data directory, and compare `ropeway dump --canonical` with the other side",
            ),
        });
    }
    Ok(Check::warn("digest", "the node is written to all the time", "run doctor again when it is quiet"))
}

/// Whether the certificate that a `serve` shows, or would show, is good, and for how long.
fn certificate(opened: &Opened) -> Option<Check> {
    const NAME: &str = "certificate";
    let files = opened.config.tls.as_ref()?;
    let shown = files.cert.display();
    let validity = match Tls::load(&files.cert, &files.key) {
        Ok(tls) => tls.validity(),
        Err(error) => {
            let next = "put a certificate and its key there; a node that runs shows the old one on";
            return Some(Check::fail(NAME, error.to_string(), next));
        }
    };
    let (now, until) = (opened.node.clock().now(), validity.until);
    let days = until.since(now) / (24 * 3_600_000_000);
    let next = "renew it: followers refuse one that has run out; no restart is needed";
    Some(match () {
        () if until < now => Check::fail(NAME, format!("{shown} ran out at {until}"), next),
        () if now < validity.from => {
            let text = format!("{shown} holds only from {} on, and here it is {now}", validity.from);
            Check::fail(NAME, text, "set the clock of this machine, or wait")
        }
        () if days < EXPIRES_SOON => Check::warn(NAME, format!("{shown} runs out in {days} days"), next),
        () => Check::ok(NAME, format!("{shown} holds until {until}")),
    })
}

fn permissions(opened: &Opened) -> Vec<Check> {
    let database = opened.config.database.file();
    let mut paths = vec![opened.config.token_file()];
    paths.extend(database.map(Path::to_owned));
    paths.extend(opened.config.tls.as_ref().map(|files| files.key.clone()));
    let open: Vec<String> =
        paths.iter().filter(|p| others_may_read(p)).map(|p| p.display().to_string()).collect();
    let read_only =
        database.is_some_and(|file| fs::metadata(file).is_ok_and(|meta| meta.permissions().readonly()));
    let mut checks = Vec::new();
    if read_only {
        let text = format!("{} cannot be written", opened.config.database);
        checks.push(Check::fail(
            "permissions",
            text,
            "run the node as the owner of the file, or `chmod u+w` it",
        ));
    }
    for path in &open {
        let next = format!("chmod 600 {path}");
        checks.push(Check::warn("permissions", format!("other users may read {path}"), next));
    }
    if checks.is_empty() {
        checks.push(Check::ok("permissions", "database, token and private key are their owner's only"));
    }
    checks
}

#[cfg(unix)]
fn disk(dir: &Path) -> Check {
    let next = "free some space: without it nothing can be written; what is stored stays safe";
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{} free in {}", show::bytes(free), dir.display());
            match free {
                free if free < DISK_LOW / 10 => Check::fail("disk", text, next),
                free if free < DISK_LOW => Check::warn("disk", text, next),
                _ => Check::ok("disk", text),
            }
        }
        Err(error) => Check::warn("disk", format!("{}: {error}", dir.display()), "check the data directory"),
    }
}

#[cfg(not(unix))]
fn disk(_: &Path) -> Check {
    Check::warn("disk", "not looked at on this system", "check the free space yourself")
}

async fn clock(opened: &Opened) -> Result<Check> {
    let status = opened.node.status(&opened.space).await?;
    if let Some(alarm) = status.head_alarm {
        let next = "set the clock; where it is right: `ropeway backup FILE`, stop the node, `ropeway restore FILE --restamp`";
        return Ok(Check::fail("clock", alarm, next));
    }
    if Time::parse(NOT_BEFORE).is_some_and(|earliest| status.now < earliest) {
        let text = format!("the clock says {}: it was never set", status.now);
        return Ok(Check::warn("clock", text, "set the clock, or let it be set by the network"));
    }
    Ok(Check::ok("clock", format!("{}, the head is not ahead of it", status.now)))
}

/// Whether the upstream answers, runs the same app, agrees about the time and takes our token.
async fn upstream_check(opened: &Opened) -> (Vec<Check>, bool) {
    const NAME: &str = "upstream";
    let Some(url) = &opened.upstream else { return (Vec::new(), false) };
    let transport = match upstream::transport(opened) {
        Ok(transport) => transport,
        Err(error) => {
            let told = crate::failure::Told::of(&error);
            return (vec![Check::fail(NAME, told.what, told.next.unwrap_or_default())], false);
        }
    };
    let hello = match transport.hello().await {
        Ok(hello) => hello,
        Err(error @ TransportError::Untrusted(_)) => {
            return (vec![Check::fail(NAME, format!("{url}: {error}"), "then run doctor again")], false);
        }
        Err(error) => {
            let text = format!("{url}: {error}");
            return (vec![Check::warn(NAME, text, "nothing is lost; everything goes when it is back")], true);
        }
    };
    let mut checks = Vec::new();
    let app = hello.profile.split([' ', '@', '/']).next().unwrap_or_default().to_owned();
    let ours = &opened.node.profile().name;
    match app == *ours {
        true => checks.push(Check::ok(
            NAME,
            format!("{url} runs {} {} in epoch {}", hello.profile, hello.build, hello.epoch),
        )),
        false => checks.push(Check::fail(
            NAME,
            format!("{url} runs {app}, this node {ours}"),
            "follow a node of the same app",
        )),
    }
    let off = hello.now.since(opened.node.clock().now());
    if off.abs() > CLOCK_OFF {
        let text = format!("the upstream's clock differs by {} s", off / 1_000_000);
        checks.push(Check::warn("clock", text, "set the clock that is wrong"));
    }
    let cursor = opened.node.store().followed(&opened.space).await.ok().and_then(|followed| followed.token);
    match transport.pull(cursor.as_deref(), 1).await {
        Ok(_) => checks.push(Check::ok("token", "the upstream takes it")),
        Err(TransportError::Problem(problem)) => {
            checks.push(Check::fail(
                "token",
                problem.detail,
                format!("{}; the outbox is kept", problem.next),
            ));
        }
        Err(error) => checks.push(Check::warn("token", error.to_string(), "run doctor again")),
    }
    (checks, false)
}

/// Whether the upstream refuses this node as a copy of another, and whether copies were refused here.
async fn identity(opened: &Opened) -> Result<Vec<Check>> {
    const NAME: &str = "identity";
    let mut checks = Vec::new();
    if let Some(at) = opened.node.status(&opened.space).await?.cloned_at {
        let text = format!("the upstream has refused this node as a copy of another since {at}");
        checks.push(Check::fail(NAME, text, upstream::cloned()));
    }
    for device in opened.node.devices().await? {
        if let Some(at) = opened.node.seen_of(&device).await?.cloned_at {
            let text = format!("a copy of the device `{}` was refused at {at}", device.name);
            let next = "find the copy: `ropeway status` there says what to do";
            checks.push(Check::warn(NAME, text, next));
        }
    }
    Ok(checks)
}

/// Whether the last sync found that the two replicas are not equal.
async fn compared(opened: &Opened) -> Result<Option<Check>> {
    let last = opened.node.status(&opened.space).await?.last_sync;
    let differing = last.filter(|run| run.outcome == SyncOutcome::Differs);
    Ok(differing.map(|run| {
        let text = run.error.unwrap_or_else(|| "this replica and its upstream differ".into());
        Check::fail("replicas", text, "compare `ropeway dump --canonical` on both sides; nothing was lost")
    }))
}

async fn outbox(opened: &Opened, offline: bool) -> Result<Check> {
    let items = opened.node.queue(&opened.space).await?;
    let now = opened.node.clock().now();
    let refused =
        items.iter().filter(|item| matches!(item.state, EntryState::Rejected | EntryState::Waiting)).count();
    let failed = items.iter().filter(|item| item.status == "failed").count();
    let old = |item: &&ropeway_replica::QueueItem| {
        now.since(item.accepted_at) > STUCK && item.state == EntryState::Pending
    };
    let stuck = items.iter().filter(old).count();
    Ok(match () {
        () if failed > 0 => Check::fail(
            "outbox",
            format!("{failed} of {} entries are tried no more", items.len()),
            "`ropeway queue ls` says why: correct the record, or `ropeway queue retry`",
        ),
        () if refused > 0 => Check::warn(
            "outbox",
            format!("{refused} of {} entries were refused or wait", items.len()),
            "`ropeway queue ls` says why",
        ),
        () if stuck > 0 && !offline => Check::warn(
            "outbox",
            format!("{stuck} entries wait for more than an hour although the upstream is in reach"),
            "is `ropeway serve` running? `ropeway sync` sends them now",
        ),
        () => Check::ok("outbox", format!("{} entries wait", items.len())),
    })
}

async fn conflicts(opened: &Opened) -> Result<Check> {
    Ok(match opened.node.conflicts_open(&opened.space).await? {
        0 => Check::ok("conflicts", "none open"),
        open => Check::warn("conflicts", format!("{open} wait for a person"), "`ropeway conflicts ls`"),
    })
}
