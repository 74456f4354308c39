//! News for live streams: one watcher a space, however many streams wait for it.
//!
//! The node announces what this process commits; other processes commit too, so the watcher also looks
//! into the store every few seconds.

use ropeway_core::{id::SpaceId, time::Stamp};
use ropeway_replica::{Node, ReplicaError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Watched = HashMap<SpaceId, watch::Sender<Stamp>>;

/// The watchers of this host.
#[derive(Clone)]
pub(crate) struct Heads {
    node: Node,
    poll: Duration,
    drain: CancellationToken,
    watched: Arc<Mutex<Watched>>,
}

impl Heads {
    /// No watchers yet.
    pub(crate) fn new(node: Node, poll: Duration, drain: CancellationToken) -> Self {
        Self { node, poll: poll.max(Duration::from_millis(1)), drain, watched: Arc::default() }
    }

    /// The head of a space now, and every later one.
    pub(crate) async fn watch(&self, space: &SpaceId) -> Result<watch::Receiver<Stamp>, ReplicaError> {
        let head = self.node.state(space).await?.head;
        let mut watched = self.lock();
        if let Some(sender) = watched.get(space) {
            sender.send_if_modified(|seen| raise(seen, head));
            return Ok(sender.subscribe());
        }
        let (sender, receiver) = watch::channel(head);
        watched.insert(space.clone(), sender.clone());
        tokio::spawn(self.clone().follow(space.clone(), sender));
        Ok(receiver)
    }

    /// Raises the head until nobody waits for it any more.
    async fn follow(self, space: SpaceId, sender: watch::Sender<Stamp>) {
        let mut announced = self.node.watch(&space);
        let mut looked = None;
        let mut poll = tokio::time::interval(self.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.drain.cancelled() => return,
                () = sender.closed() => {
                    let mut watched = self.lock();
                    if sender.receiver_count() == 0 {
                        watched.remove(&space);
                        return;
                    }
                }
                _ = announced.changed() => {
                    let head = *announced.borrow_and_update();
                    sender.send_if_modified(|seen| raise(seen, head));
                }
                _ = poll.tick() => match self.node.newest(&space).await {
                    Ok(heads) => {
                        let (own, shared) = heads;
                        let head = shared.map_or(own, |shared| own.max(shared));
                        sender.send_if_modified(|seen| {
                            // The newer of the two may stand still while the other one moves.
                            let moved = looked.is_some_and(|(then, told)| then != heads && told == *seen);
                            let news = raise(seen, head.max(Stamp(seen.0 + i64::from(moved))));
                            looked = Some((heads, *seen));
                            news
                        });
                    }
                    Err(error) => tracing::debug!(%error, "a live stream cannot read the head"),
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(seen: &mut Stamp, head: Stamp) -> bool {
    let news = head > *seen;
    *seen = head.max(*seen);
    news
}
