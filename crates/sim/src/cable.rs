//! The way to the upstream, which loses, repeats, delays and cuts, and during which other things happen.

use crate::{host::locked, story::Fault, world::World};
use async_trait::async_trait;
use bytes::Bytes;
use ropeway_core::{change::Batch, nonce::Pair, time::Stamp};
use ropeway_protocol::{Hello, Page, PageEnd, Problem, ProblemCode, Push, Pushed, Transport, TransportError};
use ropeway_replica::{Device, FeedRequest, ReplicaError, Taken};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// A request that waits until something else has happened.
pub(crate) type Pause = oneshot::Sender<()>;

/// The way of one sync.
pub(crate) struct Cable {
    pub(crate) world: Arc<World>,
    /// Who sends.
    pub(crate) follower: usize,
    /// Who is asked.
    pub(crate) upstream: usize,
    /// What happens to the next requests.
    pub(crate) faults: Mutex<VecDeque<Fault>>,
    /// At which request, and whether behind its answer, the sync has to pause.
    pub(crate) pause: Option<(usize, bool)>,
    pub(crate) pauses: mpsc::Sender<Pause>,
    pub(crate) requests: Mutex<usize>,
    /// The pair of nonces with which this sync began.
    pub(crate) pair: Mutex<Option<Pair>>,
}

impl Cable {
    /// Counts a request, and does what the network does to it on its way there.
    async fn out(&self) -> Result<(usize, Fault), TransportError> {
        let number = {
            let mut requests = locked(&self.requests);
            *requests += 1;
            *requests - 1
        };
        let fault = locked(&self.faults).pop_front().unwrap_or(Fault::None);
        self.wait_at(number, false).await;
        match fault {
            Fault::LoseRequest => return Err(TransportError::Offline("the request was lost".into())),
            Fault::Unwell => {
                return Err(TransportError::Problem(Problem::new(ProblemCode::Unavailable, "going down")));
            }
            Fault::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        Ok((number, fault))
    }

    /// What the network does to an answer on its way back.
    async fn back<T>(&self, number: usize, fault: Fault, answer: T) -> Result<T, TransportError> {
        self.wait_at(number, true).await;
        match fault {
            Fault::LoseAnswer => Err(TransportError::Offline("the answer was lost".into())),
            Fault::Slow(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    async fn wait_at(&self, number: usize, answered: bool) {
        if self.pause == Some((number, answered)) {
            let (resume, resumed) = oneshot::channel();
            if self.pauses.send(resume).await.is_ok() {
                let _ = resumed.await;
            }
        }
    }

    async fn decide(&self, body: &Bytes) -> Result<Pushed, TransportError> {
        let pair = locked(&self.pair).clone();
        self.world.serve(self.upstream, self.world.decide(self.follower, body, pair.as_ref())).await
    }

    async fn page(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        let host = &self.world.hosts[self.upstream];
        let node = host.node();
        let pair = locked(&self.pair).clone();
        let device = self.world.door(self.follower, pair.as_ref()).await?;
        let request =
            FeedRequest { cursor: cursor.map(str::to_owned), limit: Some(limit), collections: vec![] };
        let page = node.feed_to(&device, &[], &request).await.map_err(|e| self.world.problem(e))?;
        self.world.fed(host, &device, &page.rows).await;
        // As the server does: what a device sends back as its cursor it has, and no more.
        node.note_read(&device, cursor).await.map_err(|e| self.world.problem(e))?;
        let end = PageEnd {
            cursor: page.cursor,
            epoch: page.epoch,
            head: page.head,
            count: page.rows.len() as u64,
            digest: page.digest,
            complete: page.complete,
            now: node.clock().now(),
            audiences: page.audiences,
        };
        Ok(Page { rows: page.rows, end })
    }
}

impl World {
    /// Who asks the upstream of `follower`, and is it a copy?
    async fn door(&self, follower: usize, pair: Option<&Pair>) -> Result<Device, TransportError> {
        let host = &self.hosts[follower];
        let node = self.hosts[host.parent.unwrap_or(0)].node();
        let token = locked(&host.token).clone();
        let device = node.authenticate(&token).await.map_err(|e| self.problem(e))?;
        if *locked(&host.barred) {
            self.violated("I9", format!("node {follower} was revoked, and its upstream lets it in"));
        }
        if device.space != self.space {
            self.violated("I11", format!("the token of node {follower} opens the space `{}`", device.space));
        }
        *locked(&host.heard) = Some(Instant::now());
        if let Some(pair) = pair {
            node.meet(&device, pair).await.map_err(|e| self.problem(e))?;
        }
        Ok(device)
    }

    /// Decides a batch of `follower` at its upstream, in whatever life that is.
    pub(crate) async fn decide(
        &self,
        follower: usize,
        body: &Bytes,
        pair: Option<&Pair>,
    ) -> Result<Pushed, TransportError> {
        let upstream = self.hosts[follower].parent.unwrap_or(0);
        let node = self.hosts[upstream].node();
        let met = self.door(follower, pair).await;
        let push: Push = match serde_json::from_slice(body) {
            Ok(push) => push,
            Err(e) => {
                let text = format!("a batch cannot be read: {e}");
                self.fault(&text);
                return Err(TransportError::Problem(Problem::new(ProblemCode::Malformed, text)));
            }
        };
        let device = match met {
            Err(TransportError::Problem(p)) if p.code == ProblemCode::DeviceRevoked => {
                let (host, at) = (&self.hosts[follower], &self.hosts[upstream]);
                node.must_be_of(&self.space, push.epoch.as_ref()).await.map_err(|e| self.problem(e))?;
                let aside = self.put_aside(host, at, push.changes).await;
                return Err(aside.unwrap_or_else(|e| self.problem(e)));
            }
            met => met?,
        };
        node.may_push(&device, push.epoch.as_ref()).await.map_err(|e| self.problem(e))?;
        let grant = node.grant_of(&device);
        let changes = push.changes.clone();
        let batch = Batch { last: push.last, epoch: push.epoch, ..Batch::new(grant, push.changes) };
        let decided = node.take(&device.space, batch).await;
        let Taken { receipts, epoch, .. } = decided.map_err(|e| self.problem(e))?;
        self.note(upstream, &changes, &receipts);
        self.answered(&self.hosts[upstream], &device, &receipts).await;
        Ok(Pushed { epoch, now: node.clock().now(), receipts })
    }

    /// Does something at a node that may die in it.
    pub(crate) async fn serve<T>(
        &self,
        at: usize,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let life = self.hosts[at].life();
        tokio::select! {
            biased;
            () = life.over() => Err(TransportError::Offline("the upstream is switched off".into())),
            answer = work => answer,
        }
    }

    /// What a failed verb is on the wire. A store that failed is a fault of the engine: ours never does.
    pub(crate) fn problem(&self, error: ReplicaError) -> TransportError {
        let code = match &error {
            ReplicaError::Busy(_) => ProblemCode::Unavailable,
            ReplicaError::Unauthenticated => ProblemCode::Unauthenticated,
            ReplicaError::Cloned(_) => ProblemCode::DeviceCloned,
            ReplicaError::Revoked(_) => ProblemCode::DeviceRevoked,
            ReplicaError::CursorInvalid => ProblemCode::CursorInvalid,
            ReplicaError::EpochChanged => ProblemCode::EpochChanged,
            ReplicaError::ResyncRequired(_) => ProblemCode::ResyncRequired,
            ReplicaError::TooLarge(_) => ProblemCode::TooLarge,
            other => {
                self.fault(&format!("a request failed: {other}"));
                ProblemCode::Internal
            }
        };
        TransportError::Problem(Problem::new(code, error.to_string()))
    }
}

#[async_trait]
impl Transport for Cable {
    fn present(&self, pair: &Pair) {
        *locked(&self.pair) = Some(pair.clone());
    }

    async fn hello(&self) -> Result<Hello, TransportError> {
        let (number, fault) = self.out().await?;
        let node = self.world.hosts[self.upstream].node();
        let asked =
            async { node.store().space(&self.world.space).await.map_err(|e| self.world.problem(e.into())) };
        let state = self.world.serve(self.upstream, asked).await?;
        let hello = Hello {
            service: "ropeway".into(),
            build: "sim".into(),
            schema: 1,
            epoch: state.epoch,
            profile: format!("{} {}", node.profile().name, node.profile().version),
            now: node.clock().now(),
            offset: node.offset_to_top(),
        };
        self.back(number, fault, hello).await
    }

    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        let pair = locked(&self.pair).clone();
        locked(&self.world.hosts[self.follower].sent).push((body.clone(), pair));
        let (number, fault) = self.out().await?;
        let pushed = self.decide(&body).await?;
        if fault == Fault::Twice {
            self.decide(&body).await?;
        }
        self.back(number, fault, pushed).await
    }

    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        let (number, fault) = self.out().await?;
        let page = self.world.serve(self.upstream, self.page(cursor, limit)).await?;
        self.back(number, fault, page).await
    }

    async fn live(&self, _on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        Err(TransportError::Offline("a story has no live streams".into()))
    }
}
