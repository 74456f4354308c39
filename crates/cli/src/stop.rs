//! SIGTERM and Ctrl-C: the ways in which a running node is asked to end.

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
