//! The way to the upstream: its address, the token for it, and what to say when one is missing.

use crate::{
    config::Config,
    failure::{Exit, Failure},
    open::Opened,
};
use anyhow::Result;
use ropeway_protocol::{HttpTransport, HttpTransportOptions, ProblemCode};
use ropeway_replica::{SyncOutcome, SyncReport};
use std::fs;

/// The client for the upstream; an error says what is missing and how to get it.
pub(crate) fn transport(opened: &Opened) -> Result<HttpTransport> {
    let Some(url) = &opened.upstream else {
        return Err(Failure::usage("this node follows nobody")
            .next(
                "name the node to follow with --upstream, ROPEWAY_UPSTREAM_URL or `upstream` in ropeway.toml",
            )
            .into());
    };
    let Some(token) = opened.config.token()? else { return Err(no_token(&opened.config, url).into()) };
    let reach = opened.config.limits.reach;
    let authorities = opened.config.upstream_ca.as_ref().map(|path| {
        let unread = |e| Failure::usage(format!("the upstream's certificates in {}: {e}", path.display()));
        fs::read(path).map_err(|e| unread(e).next("name a good file with --upstream-ca"))
    });
    let options = HttpTransportOptions {
        authorities: authorities.transpose()?,
        trusted_hosts: opened.config.trusted_hosts.clone(),
        connect_timeout: reach.connect,
        idle_timeout: reach.idle,
        hello_timeout: reach.hello,
        answer_bytes_max: reach.answer_bytes,
        ..HttpTransportOptions::new(url, token)
    };
    HttpTransport::new(options).map_err(|e| Failure::usage(e.to_string()).into())
}

/// How to get a token.
pub(crate) fn no_token(config: &Config, url: &str) -> Failure {
    let next = format!(
        "run `ropeway device add NAME` on {url}, then put the token in {} (mode 0600) or in \
         ROPEWAY_UPSTREAM_TOKEN; what is written here is kept and waits",
        config.token_file().display()
    );
    Failure::new(format!("there is no token for the upstream {url}")).next(next)
}

/// The exit code of a sync that ended.
pub(crate) fn exit_of(report: &SyncReport) -> Exit {
    match report.outcome {
        Some(SyncOutcome::Offline) => Exit::Offline,
        Some(SyncOutcome::Failed | SyncOutcome::Differs) | None => Exit::Failed,
        Some(SyncOutcome::Partly) => Exit::Partly,
        Some(SyncOutcome::Done) if report.held > 0 => Exit::Partly,
        Some(SyncOutcome::Done) => Exit::Done,
    }
}

/// What a person does about a copy that is refused.
pub(crate) fn cloned() -> &'static str {
    "the outbox is kept; where the other copy lives on, put a token of its own here (`ropeway device add NAME` on the \
     upstream) and run `ropeway device renew --copy --yes`; where this one was restored from its own backup and \
     there is no other, run `ropeway device renew --restored --yes`"
}

/// What a person does about a device that was revoked.
pub(crate) fn revoked() -> &'static str {
    "the outbox is kept; the upstream's administrator can accept what it holds of this device (`ropeway device \
     quarantine ls` there) or register this device anew"
}

/// What a person does about a failed sync.
pub(crate) fn advice(report: &SyncReport, config: &Config) -> String {
    let token = config.token_file();
    let token = token.display();
    match (report.outcome, report.problem) {
        (Some(SyncOutcome::Offline), _) => {
            "everything is kept here and goes when the upstream is back".into()
        }
        (Some(SyncOutcome::Differs), _) => "run `ropeway doctor` here and on the upstream".into(),
        (_, Some(ProblemCode::Unauthenticated)) => format!(
            "the outbox is kept; put the right token in {token} or ROPEWAY_UPSTREAM_TOKEN, or get a new one on the \
             upstream with `ropeway device rotate UUID` or `ropeway device add NAME`"
        ),
        (_, Some(ProblemCode::DeviceRevoked)) => revoked().into(),
        (_, Some(ProblemCode::DeviceCloned)) => cloned().into(),
        (_, Some(code)) => format!("the outbox is kept; {}", code.next()),
        (_, None) if report.untrusted => {
            "mend that, then `ropeway sync`; `ropeway doctor` tells when it is mended".into()
        }
        (_, None) => "the outbox is kept; check that the address is a Ropeway's".into(),
    }
}
