//! Where an alert goes: a mail, a webhook, and the log in any case.

use super::{Event, Settings};
use crate::config::Config;
use anyhow::{Context, Result};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use serde_json::json;

/// Who a mail is from where nobody says.
const FROM: &str = "Ropeway <ropeway@localhost>";

/// The ways to somebody.
pub(super) struct Channels {
    mail: Option<Mail>,
    webhook: Option<(reqwest::Client, reqwest::Url)>,
}

struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Mailbox,
}

impl Channels {
    /// What the configuration names; `None` where it names nobody.
    pub(super) fn of(config: &Config) -> Result<Option<Self>> {
        let Settings { smtp, from, webhook } = &config.alerts;
        let mail = match (smtp, &config.conflict_email) {
            (Some(url), Some(to)) => Some(Mail {
                transport: AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
                    .context("ROPEWAY_SMTP_URL is no address of a mail server")?
                    .timeout(Some(Settings::PATIENCE))
                    .build(),
                from: from
                    .as_deref()
                    .unwrap_or(FROM)
                    .parse()
                    .context("ROPEWAY_ALERT_FROM is no mail address")?,
                to: to.parse().context("SYNC_CONFLICT_EMAIL is no mail address")?,
            }),
            _ => None,
        };
        let client = || reqwest::Client::builder().timeout(Settings::PATIENCE).build();
        let webhook = match webhook {
            Some(url) => Some((client()?, url.parse().context("ROPEWAY_ALERT_WEBHOOK is no URL")?)),
            None => None,
        };
        Ok((mail.is_some() || webhook.is_some()).then_some(Self { mail, webhook }))
    }

    /// Tells everybody. Whether anybody heard it.
    pub(super) async fn tell(&self, event: &Event) -> bool {
        tracing::warn!(event = event.name, "{}", event.text);
        let mut heard = false;
        if let Some(mail) = &self.mail {
            heard |= told("mail", mail.send(event).await);
        }
        if let Some((client, url)) = &self.webhook {
            heard |= told("webhook", post(client, url, event).await);
        }
        heard
    }
}

fn told(way: &str, sent: Result<()>) -> bool {
    if let Err(error) = &sent {
        tracing::error!("an alert could not be sent by {way}: {error:#}; it is sent again");
    }
    sent.is_ok()
}

impl Mail {
    async fn send(&self, event: &Event) -> Result<()> {
        let message = Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .subject(event.subject.as_str())
            .header(ContentType::TEXT_PLAIN)
            .body(event.text.clone())?;
        self.transport.send(message).await?;
        Ok(())
    }
}

async fn post(client: &reqwest::Client, url: &reqwest::Url, event: &Event) -> Result<()> {
    let Event { name, subject, text, details } = event;
    let body = json!({ "event": name, "subject": subject, "text": text, "details": details });
    client.post(url.clone()).json(&body).send().await?.error_for_status()?;
    Ok(())
}
