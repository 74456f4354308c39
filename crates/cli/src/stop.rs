//! SIGTERM and Ctrl-C: the ways in which a running node is asked to end; SIGHUP: to look at its files.

use anyhow::Result;
use std::future::Future;

/// Listens from now on; the future ends when the process is asked to stop. Begun before anybody can know
/// that the process is there, so that no signal meets it unprepared.
#[cfg(unix)]
pub(crate) fn listen() -> Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Listens from now on; the future ends when the process is asked to stop.
#[cfg(not(unix))]
pub(crate) fn listen() -> Result<impl Future<Output = ()> + Send> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// Calls `look` at every SIGHUP from now on.
#[cfg(unix)]
pub(crate) fn on_hangup(look: impl Fn() + Send + 'static) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            look();
        }
    });
    Ok(())
}

/// This system has no such signal.
#[cfg(not(unix))]
pub(crate) fn on_hangup(_: impl Fn() + Send + 'static) -> Result<()> {
    Ok(())
}
