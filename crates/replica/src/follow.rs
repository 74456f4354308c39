//! Room 6 in motion: the loop that keeps a node in step with its upstream, what sets it off, and what lets it
//! rest.

use crate::{
    Node, ReplicaError, SyncOptions, SyncReport,
    listen::Listener,
    presence::{Moment, Presence, long_asleep, resumed},
};
use ropeway_core::{id::SpaceId, settle, time::Stamp};
use ropeway_protocol::{ProblemCode, Transport, TransportError};
use ropeway_store::SyncOutcome;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How long a wait for a due change lasts before the clock is looked at again.
const STEP: Duration = Duration::from_secs(60);

/// How a follower follows.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// Pacing of each sync.
    pub sync: SyncOptions,
    /// How often it syncs on its own; the profile's word where `None`.
    pub every: Option<Duration>,
    /// The pause between two syncs that local writes set off: the first write after a quiet time goes at once,
    /// those that follow it closely go together.
    pub debounce: Duration,
    /// How often it looks for the upstream while that is out of reach, at most.
    pub probe: Duration,
    /// Whether it listens to the upstream's live stream.
    pub live: bool,
    /// A sync that ended longer ago than this is done again when the app comes to the foreground.
    pub fresh: Duration,
    /// How long a sync may go on after the app was put to sleep.
    pub grace: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            sync: SyncOptions::default(),
            every: None,
            debounce: Duration::from_millis(50),
            probe: Duration::from_secs(15),
            live: true,
            fresh: Duration::from_secs(10),
            grace: Duration::from_secs(3),
        }
    }
}

/// What set a sync off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The program started.
    Start,
    /// It was time.
    Interval,
    /// Somebody wrote here.
    Write,
    /// The upstream is back.
    Reconnected,
    /// The upstream says that something is new there.
    Live,
    /// A change that waited is due.
    Due,
    /// A person asked.
    Asked,
    /// The app came to the foreground (IRON-017, REP-063).
    Foreground,
    /// The machine was suspended, or its clock was set.
    Resumed,
}

/// What a follower last knew.
#[derive(Debug, Clone, Default)]
pub struct Following {
    /// Whether the upstream was reached last time.
    pub online: bool,
    /// What set the last sync off.
    pub trigger: Option<Trigger>,
    /// The last sync's report.
    pub last: Option<SyncReport>,
    /// What failed on this machine, where something did.
    pub fault: Option<String>,
    /// How many syncs have ended.
    pub syncs: u64,
    /// Whether it rests because the app is asleep.
    pub asleep: bool,
}

type Asked = oneshot::Sender<Result<SyncReport, String>>;

/// A running follower. Dropping it stops it; everything it left half done is resumed by the next.
#[derive(Debug)]
pub struct Follower {
    asked: mpsc::Sender<Asked>,
    state: watch::Receiver<Following>,
    presence: watch::Sender<Presence>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Follower {
    /// Begins to follow.
    pub fn spawn(node: Node, space: SpaceId, transport: Arc<dyn Transport>, options: FollowOptions) -> Self {
        let (asked, asks) = mpsc::channel(8);
        let (publish, state) = watch::channel(Following::default());
        let (heads, live) = watch::channel(Stamp(i64::MIN));
        let presence = watch::Sender::new(Presence::default());
        let mut tasks = Vec::new();
        let listening = watch::Sender::new(false);
        if options.live {
            let listener = Listener {
                transport: Arc::clone(&transport),
                heads: heads.clone(),
                state: state.clone(),
                presence: presence.subscribe(),
                listening: listening.clone(),
            };
            tasks.push(tokio::spawn(listener.run()));
        }
        let run = Run {
            node,
            space,
            transport,
            options,
            publish,
            presence: presence.clone(),
            listening,
            _heads: heads,
        };
        tasks.push(tokio::spawn(run.run(asks, live)));
        Self { asked, state, presence, tasks }
    }

    /// The app came to the foreground: what stood still goes on, and unless the last sync is fresh
    /// ([`FollowOptions::fresh`]) one begins now, if the upstream answers (IRON-017, REP-054).
    pub fn foreground(&self) {
        self.presence.send_modify(Presence::wake);
    }

    /// The app is put to sleep: no timer and no live stream goes on. A sync that runs may end within
    /// [`FollowOptions::grace`] and is cut after that, which loses nothing; one that a person asked for goes to
    /// its end. Returns when nothing moves any more. Local writes are kept as always, and [`Follower::sync_now`] still syncs (IRON-016).
    pub async fn asleep(&self) {
        self.presence.send_modify(|presence| presence.asleep = true);
        let (mut state, mut presence) = (self.state.clone(), self.presence.subscribe());
        tokio::select! {
            _ = state.wait_for(|state| state.asleep) => {}
            // Somebody woke it meanwhile.
            _ = presence.wait_for(|presence| !presence.asleep) => {}
        }
    }

    /// Syncs now and waits for the end. Errors name what failed on this machine.
    pub async fn sync_now(&self) -> Result<SyncReport, ReplicaError> {
        let (answer, answered) = oneshot::channel();
        let gone = || ReplicaError::Invalid("the follower has stopped".into());
        self.asked.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(ReplicaError::Invalid)
    }

    /// What it last knew, to be watched.
    pub fn state(&self) -> watch::Receiver<Following> {
        self.state.clone()
    }
}

struct Run {
    node: Node,
    space: SpaceId,
    transport: Arc<dyn Transport>,
    options: FollowOptions,
    publish: watch::Sender<Following>,
    presence: watch::Sender<Presence>,
    listening: watch::Sender<bool>,
    /// Kept so that the channel of news stays open, and simply silent, where nobody listens to a stream.
    _heads: watch::Sender<Stamp>,
}

/// Why the next sync begins, and who waits for it.
type Reason = (Trigger, Option<Asked>);

/// How a sync ended, as far as the next one is concerned.
struct Ended {
    online: bool,
    began: Moment,
    /// When the last one began that a local write set off.
    wrote: Option<Moment>,
    /// When it ended; `None`: it was cut.
    at: Option<Moment>,
    failures: u32,
    /// The store's generation before it.
    generation: i64,
    /// How often the app had been woken before it.
    woken: u64,
}

impl Run {
    async fn run(self, mut asks: mpsc::Receiver<Asked>, mut live: watch::Receiver<Stamp>) {
        let mut presence = self.presence.subscribe();
        let mut trigger = Trigger::Start;
        let mut asked: Option<Asked> = None;
        let mut failures: u32 = 0;
        let mut wrote = None;
        loop {
            let generation = self.node.store().generation().await.unwrap_or(0);
            let (began, woken) = (self.moment(), presence.borrow_and_update().woken);
            if trigger == Trigger::Write {
                wrote = Some(began);
            }
            let (online, at) = self.sync(trigger, asked.take()).await;
            failures = if online { 0 } else { failures.saturating_add(1) };
            let ended = Ended { online, began, wrote, at, failures, generation, woken };
            (trigger, asked) = self.next(&mut asks, &mut live, &mut presence, &ended).await;
            if trigger == Trigger::Asked && asked.is_none() {
                return;
            }
        }
    }

    /// Waits for the next reason to sync, and rests while the app is asleep.
    async fn next(
        &self,
        asks: &mut mpsc::Receiver<Asked>,
        live: &mut watch::Receiver<Stamp>,
        presence: &mut watch::Receiver<Presence>,
        ended: &Ended,
    ) -> Reason {
        loop {
            let now = *presence.borrow_and_update();
            if now.asleep {
                match self.rest(asks, presence).await {
                    Some(asked) => return asked,
                    None => continue,
                }
            }
            let at_once = now.woken != ended.woken;
            let stale = ended.at.is_none_or(|at| at.ago(&**self.node.clock()) > self.options.fresh);
            if at_once && stale && ended.online {
                return (Trigger::Foreground, None);
            }
            let waiting = async {
                match ended.online {
                    true => self.wait_online(asks, live, ended).await,
                    false => self.wait_offline(asks, ended.failures, at_once).await,
                }
            };
            tokio::select! {
                reason = waiting => {
                    if reason.0 == Trigger::Resumed {
                        // The listener's stream is of before.
                        self.presence.send_modify(|presence| presence.woken += 1);
                    }
                    return reason;
                }
                _ = presence.changed() => {}
            }
        }
    }

    /// Does nothing until the app is awake again (`None`) or a person asks.
    async fn rest(
        &self,
        asks: &mut mpsc::Receiver<Asked>,
        presence: &mut watch::Receiver<Presence>,
    ) -> Option<Reason> {
        let _ = self.listening.subscribe().wait_for(|listening| !listening).await;
        self.publish.send_modify(|state| state.asleep = true);
        let reason = tokio::select! {
            ask = asks.recv() => Some((Trigger::Asked, ask)),
            _ = presence.wait_for(|presence| !presence.asleep) => None,
        };
        self.publish.send_modify(|state| state.asleep = false);
        reason
    }

    fn moment(&self) -> Moment {
        Moment::now(&**self.node.clock())
    }

    /// One sync, published: whether the upstream was reached, and when it ended, unless it was cut.
    async fn sync(&self, trigger: Trigger, asked: Option<Asked>) -> (bool, Option<Moment>) {
        // A person who asks while the app is asleep wants the whole of it.
        let grace = if asked.is_some() { Duration::MAX } else { self.options.grace };
        let cut = long_asleep(self.presence.subscribe(), grace);
        let (transport, options) = (&*self.transport, &self.options.sync);
        let result = self.node.sync_unless(&self.space, transport, options, &|_| {}, cut).await;
        let result = match result {
            Ok(Some(report)) => Ok(report),
            Ok(None) => {
                tracing::debug!(?trigger, "the sync was cut: the app is asleep");
                return (self.publish.borrow().online, None);
            }
            Err(error) => Err(error),
        };
        let ended = self.moment();
        let online = match &result {
            Ok(report) => report.outcome != Some(SyncOutcome::Offline) && !report.untrusted,
            Err(_) => self.publish.borrow().online,
        };
        match &result {
            Ok(report) if report.outcome == Some(SyncOutcome::Failed) => {
                tracing::warn!(?trigger, error = report.error, "the sync failed");
            }
            Ok(report) => tracing::debug!(?trigger, pushed = report.pushed, pulled = report.pulled, "synced"),
            Err(error) => tracing::error!(?trigger, %error, "the sync failed on this machine"),
        }
        self.publish.send_modify(|state| {
            state.online = online;
            state.trigger = Some(trigger);
            state.syncs += 1;
            match &result {
                Ok(report) => (state.last, state.fault) = (Some(report.clone()), None),
                Err(error) => state.fault = Some(error.to_string()),
            }
        });
        if let Some(asked) = asked {
            let _ = asked.send(result.map_err(|e| e.to_string()));
        }
        (online, Some(ended))
    }

    /// Waits for the next reason to sync while the upstream is in reach.
    async fn wait_online(
        &self,
        asks: &mut mpsc::Receiver<Asked>,
        live: &mut watch::Receiver<Stamp>,
        ended: &Ended,
    ) -> Reason {
        let every = self.options.every.unwrap_or(self.node.profile().sync_every);
        let failed = {
            let state = self.publish.borrow();
            state.fault.is_some()
                || state.last.as_ref().is_some_and(|r| r.outcome == Some(SyncOutcome::Failed))
        };
        let soon = if failed && !self.is_revoked() { self.options.probe } else { every };
        let interval = sleep(soon);
        let due = self.due();
        tokio::pin!(interval, due);
        let since = ended.wrote.map_or(Duration::MAX, |at| at.ago(&**self.node.clock()));
        let pause = sleep(self.options.debounce.saturating_sub(since));
        let written = async {
            // What failed is tried again at its time: what still waits is no new reason.
            if failed {
                std::future::pending::<()>().await;
            }
            self.written(ended.generation, pause).await;
        };
        tokio::pin!(written);
        tokio::select! {
            ask = asks.recv() => (Trigger::Asked, ask),
            () = &mut interval => (Trigger::Interval, None),
            () = &mut due => (Trigger::Due, None),
            () = &mut written => (Trigger::Write, None),
            _ = live.changed() => (Trigger::Live, None),
            () = resumed(&**self.node.clock(), ended.began) => (Trigger::Resumed, None),
        }
    }

    /// Probes the upstream until it answers; somebody's asking counts as a probe.
    async fn wait_offline(&self, asks: &mut mpsc::Receiver<Asked>, failures: u32, at_once: bool) -> Reason {
        let mut wait =
            Duration::from_millis(500).saturating_mul(1 << failures.min(6)).min(self.options.probe);
        let mut first = at_once;
        loop {
            tokio::select! {
                ask = asks.recv() => return (Trigger::Asked, ask),
                () = sleep(wait), if !first => {}
                () = std::future::ready(()), if first => {}
            }
            first = false;
            match self.transport.hello().await {
                Ok(_) => return (Trigger::Reconnected, None),
                // Somebody is back, and it is for a person to see that it is not the upstream.
                Err(TransportError::Untrusted(_)) if !self.knows_of_distrust() => {
                    return (Trigger::Reconnected, None);
                }
                Err(_) => {}
            }
            wait = wait.saturating_mul(2).min(self.options.probe);
        }
    }

    /// Whether the upstream said that it has revoked this device: a person has to mend that, so it is asked at
    /// the usual pace and not at the probe's (REP-073).
    fn is_revoked(&self) -> bool {
        let state = self.publish.borrow();
        state.last.as_ref().is_some_and(|report| report.problem == Some(ProblemCode::DeviceRevoked))
    }

    fn knows_of_distrust(&self) -> bool {
        self.publish.borrow().last.as_ref().is_some_and(|report| report.untrusted)
    }

    /// Ends when something unsent stands in the outbox that was not there before: written by this
    /// process, or by another one on the same store. Not before `pause` ends.
    async fn written(&self, generation: i64, pause: Sleep) {
        let mut head = self.node.watch(&self.space);
        let mut seen = generation;
        loop {
            // Looks before it waits: something may have been written while the last sync was running.
            let now = self.node.store().generation().await.unwrap_or(seen);
            if now != seen {
                seen = now;
                if self.sendable().await {
                    return pause.await;
                }
            }
            let poll = sleep(Duration::from_millis(500));
            tokio::select! {
                changed = head.changed() => if changed.is_err() { sleep(Duration::from_secs(1)).await },
                () = poll => {}
            }
        }
    }

    async fn sendable(&self) -> bool {
        let Ok(entries) = self.node.unsettled(&self.space).await else { return false };
        let limit = settle::BatchLimit { changes: 1, bytes: usize::MAX };
        !settle::sendable(&entries, self.node.clock().now(), limit, self.node.profile()).is_empty()
    }

    /// Ends when a change that waits for its time is due.
    async fn due(&self) {
        loop {
            let Ok(entries) = self.node.unsettled(&self.space).await else {
                sleep(Duration::from_secs(60)).await;
                continue;
            };
            let now = self.node.clock().now();
            let Some(due) = settle::next_due(&entries, now) else {
                sleep(Duration::from_secs(60)).await;
                continue;
            };
            let wait = Duration::from_micros(u64::try_from(due.since(now)).unwrap_or(0));
            // In steps: the wall clock by which it is due may be set meanwhile.
            #[allow(clippy::disallowed_methods)] // the runtime's own clock, only to wait by
            sleep_until(Instant::now() + wait.min(STEP)).await;
            if wait <= STEP {
                return;
            }
        }
    }
}
