//! The nodes stay up, and somebody at the keyboard cuts and joins the cable and goes on working.

use super::{
    show::{Show, digest_word},
    stage::{PATIENCE, Stage},
};
use anyhow::Result;
use ropeway_core::{
    change::Op,
    doc::Fields,
    id::{Collection, RecordId},
};
use ropeway_race_logger::sample::Actor;
use ropeway_replica::{Clock, Ids, RandomIds};
use serde_json::json;
use std::io::BufRead;
use tokio::{sync::mpsc, time::timeout};

const KEYS: &str = "keys, each with Enter: c cuts the cable, j joins it, p a referee at the Pi opens a case, \
                    v VAR opens one at the cloud, s status, q quits";

/// Keeps the nodes up until `q`, SIGINT or SIGTERM. Without anybody at the keyboard only signals end it.
pub(super) async fn hold(stage: &Stage, show: &mut Show<'_>) -> Result<()> {
    let (cloud, pi) = (&stage.cloud.url, &stage.pi.url);
    show.say(&format!("\ncloud {cloud}\nPi    {pi}"), &json!({ "event": "up", "cloud": cloud, "pi": pi }))?;
    for station in [&stage.cloud, &stage.pi] {
        let (url, token) = (&station.url, stage.viewer(station).await?);
        let text = format!("look: curl -H 'Authorization: Bearer {token}' {url}/v1/pull");
        show.say(&text, &json!({ "event": "viewer", "url": url, "token": token }))?;
    }
    show.say(KEYS, &json!({ "event": "keys", "keys": ["c", "j", "p", "v", "s", "q"] }))?;
    let mut lines = lines();
    let mut open = true;
    let mut ended = std::pin::pin!(signalled());
    loop {
        let line = tokio::select! {
            () = &mut ended => return Ok(()),
            line = lines.recv(), if open => line,
        };
        match line.as_deref().map(str::trim) {
            None => open = false,
            Some("q") => return Ok(()),
            Some(key) => press(key, stage, show).await?,
        }
    }
}

async fn press(key: &str, stage: &Stage, show: &mut Show<'_>) -> Result<()> {
    match key {
        "c" => {
            stage.cable.cut();
            show.step(stage.clock.now(), "the cable is cut")
        }
        "j" => {
            stage.cable.join();
            show.step(stage.clock.now(), "the cable is joined")?;
            match timeout(PATIENCE, stage.caught_up()).await {
                Ok(Ok(_)) => status(stage, show).await,
                Ok(Err(error)) => show.step(stage.clock.now(), &error.to_string()),
                Err(_) => show.step(stage.clock.now(), "the Pi has not caught up yet"),
            }
        }
        "p" => open_case(Actor::FinishReferee, stage, show).await,
        "v" => open_case(Actor::VarOperator, stage, show).await,
        "s" => status(stage, show).await,
        "" => Ok(()),
        _ => show.say(KEYS, &json!({ "event": "keys", "keys": ["c", "j", "p", "v", "s", "q"] })),
    }
}

/// Somebody opens a case in the last race that has any.
async fn open_case(actor: Actor, stage: &Stage, show: &mut Show<'_>) -> Result<()> {
    let incident = stage.sample.records.iter().rfind(|r| &*r.collection == "incident");
    let Some(race) = incident.and_then(|r| r.fields.get("race")) else { return Ok(()) };
    let made = Fields::from([
        ("race".to_owned(), race.clone()),
        ("description".to_owned(), json!("C.6 instruction of an official ignored")),
        ("created_at".to_owned(), json!(stage.clock.now().to_string())),
    ]);
    let (collection, id) = (Collection::parse("incident")?, RecordId::parse(&RandomIds.id())?);
    let receipt = stage.write_as(actor, Op::Create, collection, id, made).await?;
    let text = format!("{} at the {}: case {}", actor.name(), actor.seat().name(), receipt.verdict.as_str());
    show.step(stage.clock.now(), &text)
}

async fn status(stage: &Stage, show: &mut Show<'_>) -> Result<()> {
    for (name, station) in [("cloud", &stage.cloud), ("Pi", &stage.pi)] {
        let status = station.node.status(&stage.space).await?;
        let waits: u64 = status.outbox.iter().filter(|(state, _)| state.is_unsettled()).map(|(_, n)| n).sum();
        let incidents =
            stage.all(&station.node, "incident").await?.iter().filter(|(_, r)| r.is_live()).count();
        let (open, digest) = (status.conflicts_open, digest_word(status.digest));
        let text = format!(
            "{name:5} {incidents} cases, {waits} changes wait, {open} open conflicts, digest {digest}"
        );
        show.say(&text, &json!({
            "event": "status", "node": name, "incidents": incidents, "waiting": waits, "conflicts": open, "digest": digest,
        }))?;
    }
    let joined = stage.cable.is_joined();
    let text = if joined { "the cable is joined" } else { "the cable is cut" };
    show.say(text, &json!({ "event": "cable", "joined": joined }))
}

/// Lines from standard input. A thread of its own reads them: nobody can be woken from that wait.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn signalled() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
