//! The server that is measured: `ropeway serve` as a process of its own, whose memory is nobody else's.

use crate::bench::{node, pull, rows};
use anyhow::{Context, Result, ensure};
use ropeway_protocol::HttpTransport;
use ropeway_replica::Node;
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// What the first line on its standard output begins with.
const LISTENING: &str = "listening on ";

/// A running server. Dropping it ends it.
pub(super) struct Served {
    child: Child,
    pub(super) url: String,
}

impl Served {
    /// Serves the node of a database; its data directory is made in `dir`.
    pub(super) async fn start(database: &str, dir: &Path) -> Result<Self> {
        let profile = dir.join("bench.toml");
        std::fs::write(&profile, rows::PROFILE)?;
        let mut serve = Command::new(std::env::current_exe()?);
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--database", database])
            .arg("--profile")
            .arg(profile);
        serve.arg("--data-dir").arg(dir.join("server")).env("SYSTEM_MODE", "cloud");
        // Nobody reads what it says of each request.
        serve.stderr(Stdio::null());
        let mut child = serve.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let told = child.stdout.take().context("a server has a standard output")?;
        let line = BufReader::new(told).lines().next_line().await?.unwrap_or_default();
        ensure!(line.starts_with(LISTENING), "the server did not start: {line}");
        Ok(Self { child, url: line[LISTENING.len()..].trim().to_owned() })
    }

    /// A new device's way to it.
    pub(super) async fn device(&self, cloud: &Node) -> Result<HttpTransport> {
        Ok(node::enrolled(cloud, &self.url, "admin").await?.1)
    }

    /// Megabytes that it holds in memory.
    pub(super) fn resident_mb(&self) -> f64 {
        let of = self.child.id().map_or_else(String::new, |id| id.to_string());
        pull::resident(&of) as f64 / f64::from(1 << 20)
    }

    /// Ends it.
    pub(super) async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
