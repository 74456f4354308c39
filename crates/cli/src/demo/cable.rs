//! The cable between the Pi and the cloud: a switch around a transport, which can also hold a push back
//! or lose an answer after the cloud has committed.

use async_trait::async_trait;
use bytes::Bytes;
use ropeway_core::{nonce::Pair, time::Stamp};
use ropeway_protocol::{Hello, Page, Pushed, Transport, TransportError};
use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{oneshot, watch};

/// A transport that can be cut.
#[derive(Debug)]
pub(super) struct Cable<T> {
    inner: T,
    joined: watch::Sender<bool>,
    fate: Mutex<Fate>,
    /// Pushes since an answer was to be lost, that one included: what was sent, and what was answered.
    sent: Mutex<Vec<(Bytes, Pushed)>>,
}

/// What becomes of the next push.
#[derive(Debug, Default)]
enum Fate {
    #[default]
    Arrives,
    /// It waits on its way until it is let go.
    Held { on_its_way: oneshot::Sender<()>, go: oneshot::Receiver<()> },
    /// It arrives and is decided, and the answer is lost; the push after it is held.
    Lost { tell: oneshot::Sender<()>, then: Box<Fate> },
}

impl Fate {
    fn held() -> (Self, Held) {
        let (tell, on_its_way) = oneshot::channel();
        let (go, wait) = oneshot::channel();
        (Self::Held { on_its_way: tell, go: wait }, Held { on_its_way, go })
    }
}

/// A push that is on its way.
#[derive(Debug)]
pub(super) struct Held {
    on_its_way: oneshot::Receiver<()>,
    go: oneshot::Sender<()>,
}

impl Held {
    /// Waits until a push is on its way. Its bytes are fixed from then on.
    pub(super) async fn on_its_way(&mut self) -> Result<(), oneshot::error::RecvError> {
        (&mut self.on_its_way).await
    }
    /// Lets it go on.
    pub(super) fn go(self) {
        let _ = self.go.send(());
    }
}

impl<T: Transport> Cable<T> {
    /// A joined cable.
    pub(super) fn new(inner: T) -> Self {
        Self { inner, joined: watch::channel(true).0, fate: Mutex::default(), sent: Mutex::default() }
    }

    /// Cuts it. Whatever is under way breaks off.
    pub(super) fn cut(&self) {
        self.joined.send_replace(false);
    }

    /// Joins it.
    pub(super) fn join(&self) {
        self.joined.send_replace(true);
    }

    /// Whether it is joined.
    pub(super) fn is_joined(&self) -> bool {
        *self.joined.borrow()
    }

    /// Holds the next push back.
    pub(super) fn hold_next_push(&self) -> Held {
        let (fate, held) = Fate::held();
        *lock(&self.fate) = fate;
        held
    }

    /// Loses the answer to the next push and tells when that has happened. The push after it is held.
    pub(super) fn lose_next_answer(&self) -> (oneshot::Receiver<()>, Held) {
        let (tell, lost) = oneshot::channel();
        let (then, held) = Fate::held();
        lock(&self.sent).clear();
        *lock(&self.fate) = Fate::Lost { tell, then: Box::new(then) };
        (lost, held)
    }

    /// The pushes that were decided since an answer was to be lost, that one first.
    pub(super) fn sent(&self) -> Vec<(Bytes, Pushed)> {
        lock(&self.sent).clone()
    }

    /// Does something over the cable, as long as it is joined.
    async fn over<R>(
        &self,
        what: impl Future<Output = Result<R, TransportError>>,
    ) -> Result<R, TransportError> {
        let mut joined = self.joined.subscribe();
        tokio::select! {
            biased;
            _ = joined.wait_for(|joined| !joined) => Err(TransportError::Offline("the cable is cut".into())),
            done = what => done,
        }
    }
}

#[async_trait]
impl<T: Transport> Transport for Cable<T> {
    fn present(&self, pair: &Pair) {
        self.inner.present(pair);
    }

    async fn hello(&self) -> Result<Hello, TransportError> {
        self.over(self.inner.hello()).await
    }

    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        let fate = match self.is_joined() {
            true => std::mem::take(&mut *lock(&self.fate)),
            false => Fate::Arrives,
        };
        let lost = match fate {
            Fate::Arrives => None,
            Fate::Held { on_its_way, go } => {
                let _ = on_its_way.send(());
                let _ = go.await;
                None
            }
            Fate::Lost { tell, then } => Some((tell, then)),
        };
        let pushed = self.over(self.inner.push(body.clone())).await?;
        let mut sent = lock(&self.sent);
        if lost.is_some() || (1..4).contains(&sent.len()) {
            sent.push((body, pushed.clone()));
        }
        drop(sent);
        match lost {
            None => Ok(pushed),
            Some((tell, then)) => {
                *lock(&self.fate) = *then;
                let _ = tell.send(());
                Err(TransportError::Offline("the answer was lost on its way".into()))
            }
        }
    }

    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.over(self.inner.pull(cursor, limit)).await
    }

    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.over(self.inner.live(on_head)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
