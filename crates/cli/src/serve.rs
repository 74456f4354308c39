//! `serve`: runs a node until it is told to stop. Others push to it and pull from it; where it has an
//! upstream it follows that too.

use crate::{
    alert, apps,
    config::{Mode, Overrides},
    failure::{Exit, Failure},
    open::{Opened, others_may_read},
    output::Output,
    stop, upstream,
};
use anyhow::Result;
use ropeway_core::profile::Writes;
use ropeway_protocol::Transport;
use ropeway_replica::{Follower, NewMember, Purger};
use ropeway_server::{Server, ServerOptions, Tls};
use serde_json::json;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::lookup_host, task::JoinHandle};

/// How often a node that has no token yet looks whether one was put there.
const TOKEN_LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  ropeway serve                                          a cloud node on 127.0.0.1:8080
  ropeway serve --data-dir pi --listen 127.0.0.1:8081 --upstream http://127.0.0.1:8080

  ropeway serve --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem

The first line on standard output is `listening on http://ADDRESS` (https with a certificate); with port 0 a
free port is taken. A renewed certificate is taken up by itself, or at once on SIGHUP; nobody is cut off.
SIGTERM and Ctrl-C let requests in flight finish and exit 0. Every setting can also stand in the
environment or in ropeway.toml; README.md lists them.")]
pub(crate) struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// The node to follow: what is written here goes there, what is new there comes here
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Serve TLS with this certificate and what it needs of its chain, in the PEM format
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in the PEM format
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl ServeArgs {
    /// What these flags say before environment and file.
    pub(crate) fn overrides(&self) -> Overrides {
        let Self { listen, upstream, tls_cert, tls_key } = self.clone();
        Overrides { listen, upstream, tls_cert, tls_key }
    }
}

/// Runs the node.
pub(crate) async fn run(opened: Opened, output: Output) -> Result<Exit> {
    first_admin(&opened, output).await?;
    if opened.node.follows() && opened.upstream.is_none() {
        output.note("note: no upstream is named yet; what is written here is kept and waits");
    }
    if !opened.config.sync_enabled {
        output
            .note("note: SYNC_ENABLED is off: devices that sync with this node are told to come back later");
    }
    if let Some(note) = alert::note(&opened.config) {
        output.note(note);
    }
    let stopped = stop::listen()?;
    let tls = certificate(&opened, output)?;
    if let Some(tls) = tls.clone() {
        stop::on_hangup(move || tls.look())?;
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = bind(&opened, tls).await?;
    let address = server.local_addr();
    // Contract: the first line, whoever reads it.
    output.either(&json!({ "listening": format!("{scheme}://{address}") }), || {
        format!("listening on {scheme}://{address}")
    })?;
    let mode = if opened.config.mode == Mode::Cloud { "cloud" } else { "offline_device" };
    tracing::info!(%address, mode, space = %opened.space, profile = opened.node.profile().name, "serving");
    let opened = Arc::new(opened);
    let following = follow(&opened, output);
    let (node, space) = (opened.node.clone(), opened.space.clone());
    let _purging = Purger::spawn(node, space, opened.config.limits.keep, opened.config.limits.purge_every);
    let telling = alert::spawn(&opened);
    let drained = server.serve(stopped).await;
    for task in [following, telling].into_iter().flatten() {
        task.abort();
        let _ = task.await;
    }
    if drained.cut > 0 {
        tracing::warn!(cut = drained.cut, "requests were cut off; their senders will send them again");
    }
    Ok(Exit::Done)
}

/// The certificate to show, where there is one.
fn certificate(opened: &Opened, output: Output) -> Result<Option<Tls>> {
    let Some(files) = &opened.config.tls else { return Ok(None) };
    let tls = Tls::load(&files.cert, &files.key).map_err(|e| {
        Failure::usage(format!("TLS cannot be served: {e}"))
            .next("name good files with --tls-cert and --tls-key; nothing was started or changed")
    })?;
    if others_may_read(&files.key) {
        let key = files.key.display();
        output.note(&format!("warning: other users of this machine may read the private key {key}"));
        output.note(&format!("next:    chmod 600 {key}"));
    }
    let (now, validity) = (opened.node.clock().now(), tls.validity());
    if validity.until < now || now < validity.from {
        let (from, until) = (validity.from, validity.until);
        output
            .note(&format!("warning: the certificate holds from {from} until {until}, and here it is {now}"));
        output.note("next:    renew it, or set the clock: followers will refuse it");
    }
    Ok(Some(tls))
}

async fn bind(opened: &Opened, tls: Option<Tls>) -> Result<Server> {
    let listen = &opened.config.listen;
    let unusable =
        |e| Failure::usage(format!("cannot listen on `{listen}`: {e}")).next("give --listen HOST:PORT");
    let address: Option<SocketAddr> = lookup_host(listen).await.map_err(unusable)?.next();
    let address = address.ok_or_else(|| Failure::usage(format!("`{listen}` is no address")))?;
    let mut options = ServerOptions::new(address, opened.node.clone(), opened.space.clone());
    options.limits = opened.config.limits.server.clone();
    (options.tls, options.syncs) = (tls, opened.config.sync_enabled);
    // One profile a node: its app's documented API is mounted, and no other.
    if let Some(app) = apps::of(&opened.node.profile().name) {
        options.apps.push((app.routes)(&opened.config.data_dir));
        options.rates = Some(app.rates);
    }
    let taken = |e: ropeway_server::ServeError| {
        Failure::new(e.to_string())
            .next("is another node running there? Choose another --listen; nothing was changed")
    };
    Ok(Server::bind(options).await.map_err(taken)?)
}

/// Adds the administrator of the configuration where the node has nobody yet.
async fn first_admin(opened: &Opened, output: Output) -> Result<()> {
    let Some(admin) = &opened.config.admin else { return Ok(()) };
    if !opened.node.members().await?.is_empty() {
        return Ok(());
    }
    let roles = &opened.node.profile().roles;
    let all = roles.iter().find(|(_, role)| role.write == Writes::All && role.resolve);
    let (role, _) = all.ok_or_else(|| Failure::usage("the profile has no role that may do everything"))?;
    let (email, role, space) = (admin.email.clone(), role.clone(), opened.space.clone());
    let new = NewMember { email, space, role, password: Some(admin.password.clone()) };
    let (member, _) = opened.node.add_member(new).await?;
    output.note(&format!("note: {} is the first administrator", member.email));
    Ok(())
}

/// Follows the upstream in the background. A missing token does not stop the node: people go on working,
/// and it begins to follow when the token is there.
fn follow(opened: &Arc<Opened>, output: Output) -> Option<JoinHandle<()>> {
    let url = opened.upstream.clone()?;
    if !opened.config.sync_enabled {
        output.note(&format!("note: what is written here waits, nothing is sent to {url}"));
        return None;
    }
    let opened = Arc::clone(opened);
    Some(tokio::spawn(async move {
        let Some(transport) = reach(&opened, &url, output).await else { return };
        let (node, space) = (opened.node.clone(), opened.space.clone());
        let follower = Follower::spawn(node, space, transport, opened.config.limits.follow.clone());
        tell_changes(&follower, &url).await;
    }))
}

/// The client for the upstream, as soon as there is a token.
async fn reach(opened: &Opened, url: &str, output: Output) -> Option<Arc<dyn Transport>> {
    let mut told = false;
    loop {
        match opened.config.token() {
            Ok(None) if !told => {
                told = true;
                let failure = upstream::no_token(&opened.config, url);
                output.note(&format!("warning: {failure}; this node works on and looks for the token"));
                let next = crate::failure::Told::of(&failure.into()).next;
                output.note(&format!("next:    {}", next.unwrap_or_default()));
            }
            Ok(None) => {}
            _ => break,
        }
        tokio::time::sleep(TOKEN_LOOK).await;
    }
    match upstream::transport(opened) {
        Ok(transport) => Some(Arc::new(transport)),
        Err(error) => {
            tracing::error!("{error:#}: this node follows nobody until it is started again");
            None
        }
    }
}

/// Logs when the upstream comes and goes, and not each sync.
async fn tell_changes(follower: &Follower, url: &str) {
    let mut state = follower.state();
    let mut online = None;
    while state.changed().await.is_ok() {
        let (now, distrust) = {
            let state = state.borrow_and_update();
            let distrust = state.last.as_ref().filter(|report| report.untrusted);
            (state.online, distrust.and_then(|report| report.error.clone()))
        };
        if online == Some((now, distrust.clone())) {
            continue;
        }
        match &distrust {
            Some(why) => tracing::error!(url, "{why}"),
            None if now => tracing::info!(url, "the upstream is in reach"),
            None => tracing::warn!(url, "the upstream is out of reach; what is written here is kept"),
        }
        online = Some((now, distrust));
    }
}
