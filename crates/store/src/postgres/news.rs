//! News between the servers of one node: which space has got which head, told through the database. Hints
//! only: they may be lost, doubled and late, and whoever waits for them polls as well.

use super::{address::Address, conn::Db};
use crate::{News, StoreError};
use ropeway_core::{id::SpaceId, time::Stamp};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{Notify, broadcast};
use tokio_postgres::AsyncMessage;

/// What heads are told on.
const HEAR: &str = "LISTEN ropeway_heads";
const TELL: &str = "SELECT pg_notify('ropeway_heads', $1)";
/// Between two tellings of one process: they are taken together.
const TOGETHER: Duration = Duration::from_millis(5);
/// Between two attempts to hear.
const AGAIN: Duration = Duration::from_secs(2);
/// News that wait to be heard in this process.
const WAITING: usize = 256;

/// What is to be told and who hears.
pub(super) struct Bus {
    address: Address,
    db: Db,
    /// Heads that this process has moved and not told yet.
    moved: Mutex<BTreeMap<SpaceId, Stamp>>,
    wake: Notify,
    heard: Mutex<Option<broadcast::Sender<(SpaceId, Stamp)>>>,
    telling: Mutex<bool>,
}

impl Bus {
    /// Nobody hears or tells yet.
    pub(super) fn new(address: Address, db: Db) -> Arc<Self> {
        let (moved, wake, heard, telling) = Default::default();
        Arc::new(Self { address, db, moved, wake, heard, telling })
    }

    /// Tells heads as they move, those of a moment together, after their commit and never in it.
    async fn tell_on(bus: Weak<Self>) {
        loop {
            let Some(this) = bus.upgrade() else { return };
            let moved = std::mem::take(&mut *lock(&this.moved));
            if moved.is_empty() {
                let waiting = this.clone();
                drop(this);
                // Wakes up now and then to see whether the store is still there.
                let _ = tokio::time::timeout(AGAIN, waiting.wake.notified()).await;
                continue;
            }
            for (space, head) in moved {
                if let Err(error) = this.tell_one(&space, head).await {
                    tracing::debug!(%error, "news were not told; others will look by themselves");
                }
            }
            drop(this);
            tokio::time::sleep(TOGETHER).await;
        }
    }

    async fn tell_one(&self, space: &SpaceId, head: Stamp) -> Result<(), StoreError> {
        let client = self.db.client().await?;
        let statement = client.prepare_cached(TELL).await?;
        client.query(&statement, &[&format!("{} {space}", head.0)]).await?;
        Ok(())
    }

    /// Hears on a connection of its own, again and again.
    async fn hear_on(bus: Weak<Self>) {
        loop {
            let Some(this) = bus.upgrade() else { return };
            let (address, sender) = (this.address.clone(), lock(&this.heard).clone());
            drop(this);
            let Some(sender) = sender else { return };
            if let Err(error) = hear(&address, &sender, &bus).await {
                tracing::debug!(%error, "news cannot be heard; looking goes on");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl News for Bus {
    fn tell(self: Arc<Self>, space: &SpaceId, head: Stamp) {
        lock(&self.moved).insert(space.clone(), head);
        self.wake.notify_one();
        if !std::mem::replace(&mut *lock(&self.telling), true) {
            tokio::spawn(Self::tell_on(Arc::downgrade(&self)));
        }
    }

    fn hear(self: Arc<Self>) -> broadcast::Receiver<(SpaceId, Stamp)> {
        let mut heard = lock(&self.heard);
        if let Some(sender) = &*heard {
            return sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(WAITING);
        *heard = Some(sender);
        tokio::spawn(Self::hear_on(Arc::downgrade(&self)));
        receiver
    }
}

async fn hear(
    address: &Address,
    sender: &broadcast::Sender<(SpaceId, Stamp)>,
    bus: &Weak<Bus>,
) -> Result<(), StoreError> {
    let (client, mut connection) = address.config.connect(address.tls()?).await?;
    let listening = client.batch_execute(HEAR);
    let mut listening = std::pin::pin!(listening);
    let mut listens = false;
    loop {
        let message = tokio::select! {
            done = &mut listening, if !listens => { done?; listens = true; continue }
            message = poll_fn(|cx| connection.poll_message(cx)) => message,
            () = tokio::time::sleep(AGAIN) => match bus.strong_count() {
                0 => return Ok(()),
                _ => continue,
            },
        };
        match message {
            None => return Ok(()),
            Some(Ok(AsyncMessage::Notification(told))) => {
                if let Some((head, space)) = told.payload().split_once(' ')
                    && let Ok(head) = head.parse()
                {
                    let _ = sender.send((SpaceId::trusted(space), Stamp(head)));
                }
            }
            Some(message) => drop(message?),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
