//! Alerts: what somebody has to hear of without looking. More than ten conflicts in an hour (ISMF-146), and
//! changes that the upstream did not take after the last retry (ISMF-122).

mod channel;

use crate::{config::Config, open::Opened};
use channel::Channels;
use ropeway_core::{
    id::SpaceId,
    time::{Stamp, Time},
};
use ropeway_replica::{CONFLICTS_AN_HOUR, Node, ReplicaError};
use ropeway_store::Durability;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::sleep};

/// A spike is looked at again after so long even where nothing moved: it may be over.
const MINUTE: i64 = 60_000_000;
/// Whether the present spike was told of: kept with the node, so that a restart and a second server of it do
/// not tell it again.
const SPIKE: &str = "alert.conflicts";
/// The newest queue entry whose failure was told of.
const FAILED: &str = "alert.failed";
const TOLD: &str = "told";
const QUIET: &str = "quiet";
/// Records that an alert names; it counts the others.
const NAMED: usize = 10;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    /// Its name for programs.
    name: &'static str,
    /// One line for people.
    subject: String,
    /// What happened and what to do.
    text: String,
    /// The same for programs.
    details: Value,
}

/// Watches in the background, where the configuration names somebody to tell.
pub(crate) fn spawn(opened: &Arc<Opened>) -> Option<JoinHandle<()>> {
    let channels = match Channels::of(&opened.config) {
        Ok(Some(channels)) => channels,
        Ok(None) => return None,
        Err(error) => {
            tracing::error!("{error:#}: nobody is told of alerts");
            return None;
        }
    };
    let opened = Arc::clone(opened);
    Some(tokio::spawn(async move {
        let mut seen = None;
        loop {
            if let Err(error) = look(&opened.node, &opened.space, &channels, &mut seen).await {
                tracing::warn!(%error, "alerts could not be looked for; they are looked for again");
            }
            sleep(opened.config.limits.alert_every).await;
        }
    }))
}

/// Whether anybody is to be told at all, for whoever starts a node.
pub(crate) fn note(config: &Config) -> Option<&'static str> {
    let unreachable = config.conflict_email.is_some() && config.alerts.smtp.is_none();
    unreachable.then_some(
        "note: SYNC_CONFLICT_EMAIL is set and ROPEWAY_SMTP_URL is not: no mail can be sent, alerts are logged only",
    )
}

/// What the last look saw: as long as nothing moved and nothing ran out, there is nothing to count.
struct Seen {
    head: Stamp,
    at: Time,
}

async fn look(
    node: &Node,
    space: &SpaceId,
    channels: &Channels,
    seen: &mut Option<Seen>,
) -> Result<(), ReplicaError> {
    let (now, head) = (node.clock().now(), node.state(space).await?.head);
    let due = seen.as_ref().is_none_or(|seen| seen.head != head || now.since(seen.at) > MINUTE);
    if due {
        let count = node.conflicts_of_the_last_hour(space).await?;
        spike(node, channels, count).await?;
        *seen = Some(Seen { head, at: now });
    }
    if node.follows() {
        failures(node, space, channels).await?;
    }
    Ok(())
}

fn is_spike(count: usize) -> bool {
    count > CONFLICTS_AN_HOUR
}

async fn spike(node: &Node, channels: &Channels, count: usize) -> Result<(), ReplicaError> {
    let said = node.store().meta(SPIKE).await?;
    let (is_spike, was_told) = (is_spike(count), said.as_deref() == Some(TOLD));
    if is_spike == was_told {
        return Ok(());
    }
    let word = if is_spike { TOLD } else { QUIET };
    // Whoever writes the word tells: of several servers on one database, one does.
    let mine = node.store().swap_meta(SPIKE, said.as_deref(), word, Durability::Full).await?;
    if mine && is_spike {
        let event = Event {
            name: "conflict_spike",
            subject: format!("Ropeway: {count} conflicts in the last hour"),
            text: format!(
                "{count} conflicts that a person has to settle came in the last hour, more than {CONFLICTS_AN_HOUR}. \
                 Nothing is lost: each keeps both sides. Look at them with `ropeway conflicts ls`."
            ),
            details: json!({ "conflicts": count, "most": CONFLICTS_AN_HOUR, "seconds": 3_600 }),
        };
        if !channels.tell(&event).await {
            node.store()
                .swap_meta(SPIKE, Some(TOLD), said.as_deref().unwrap_or(QUIET), Durability::Full)
                .await?;
        }
    }
    Ok(())
}

/// Entries of the queue that have failed since the last look.
async fn failures(node: &Node, space: &SpaceId, channels: &Channels) -> Result<(), ReplicaError> {
    let said = node.store().meta(FAILED).await?;
    let upto: i64 = said.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut failed = node.queue(space).await?;
    failed.retain(|item| item.status == "failed" && item.seq > upto);
    let Some(newest) = failed.iter().map(|item| item.seq).max() else { return Ok(()) };
    let named: Vec<Value> = failed
        .iter()
        .take(NAMED)
        .map(|item| {
            let why = item.reason.as_ref().map(|reason| reason.text.as_str());
            json!({ "record_type": item.collection, "client_uuid": item.record, "error": why })
        })
        .collect();
    let records: Vec<String> =
        failed.iter().take(NAMED).map(|item| format!("{}/{}", item.collection, item.record)).collect();
    let event = Event {
        name: "sync_failed",
        subject: format!("Ropeway: {} changes were not taken by the upstream", failed.len()),
        text: format!(
            "The upstream did not take {} changes after the last retry: {}. They are kept here. Look at them with \
             `ropeway queue ls`, and send them again with `ropeway queue retry` once the reason is mended.",
            failed.len(),
            records.join(", ")
        ),
        details: json!({ "failed": failed.len(), "records": named }),
    };
    if node.store().swap_meta(FAILED, said.as_deref(), &newest.to_string(), Durability::Full).await?
        && !channels.tell(&event).await
    {
        node.store()
            .swap_meta(FAILED, Some(&newest.to_string()), &upto.to_string(), Durability::Full)
            .await?;
    }
    Ok(())
}

/// How alerts are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The mail server, `smtp://host:port` or `smtps://user:password@host`.
    pub(crate) smtp: Option<String>,
    /// Who the mail is from.
    pub(crate) from: Option<String>,
    /// An address that gets each alert as JSON.
    pub(crate) webhook: Option<String>,
}

impl Settings {
    /// How long one delivery may take.
    const PATIENCE: Duration = Duration::from_secs(20);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_the_last_hour_are_no_spike_and_eleven_are() {
        assert_eq!([0, 10, 11].map(is_spike), [false, false, true]);
    }
}
