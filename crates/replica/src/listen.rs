//! The live stream of an upstream: what is heard there sets a sync off.

use crate::{Following, presence::Presence};
use ropeway_core::time::Stamp;
use ropeway_protocol::Transport;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};

/// Listens to the upstream's live stream and listens again when it ends, while the app is awake.
pub(crate) struct Listener {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) heads: watch::Sender<Stamp>,
    pub(crate) state: watch::Receiver<Following>,
    pub(crate) presence: watch::Receiver<Presence>,
    /// Whether a stream is open.
    pub(crate) listening: watch::Sender<bool>,
}

impl Listener {
    pub(crate) async fn run(mut self) {
        loop {
            if self.state.wait_for(|s| s.online && !s.asleep).await.is_err() {
                return;
            }
            let woken = match self.presence.wait_for(|p| !p.asleep).await {
                Ok(presence) => presence.woken,
                Err(_) => return,
            };
            let heads = self.heads.clone();
            let tell = Box::new(move |head| {
                // Each stream begins with the head as it is: only another one is news, or a stream that is cut
                // again and again would set off one sync after the other.
                heads.send_if_modified(|seen| std::mem::replace(seen, head) != head);
            });
            self.listening.send_replace(true);
            tokio::select! {
                _ = self.transport.live(tell) => {}
                // After a time in which nothing was heard a stream may be dead without a word.
                _ = self.presence.wait_for(|p| p.asleep || p.woken != woken) => {}
            }
            self.listening.send_replace(false);
            // Listens again when the sync loop says something, or after a while.
            tokio::select! {
                () = sleep(Duration::from_secs(2)) => {}
                _ = self.state.changed() => {}
            }
        }
    }
}
