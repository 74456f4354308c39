//! One sync: push, then pull, then absorb (DESIGN §7). Each part is resumable; each receipt settles by
//! itself; being offline is not a failure and uses up no retry.

use crate::{
    Node, ReplicaError,
    differing::{DIFFERS, went_back},
    restored::Restored,
};
use ropeway_core::{
    absorb::{self, Reached},
    digest::Digest,
    id::SpaceId,
    limits,
    outbox::EntryState,
    plan::Fed,
    planted::{self, Bug},
    receipt::Verdict,
    settle::BatchLimit,
    time::Time,
};
use ropeway_protocol::{Page, PageEnd, Problem, ProblemCode, Transport, TransportError};
use ropeway_store::{Absorb, Portion, PullEnd, Step, SyncOutcome, SyncRun};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Most rounds of push and pull in one sync: after what was lost was handed in, and after what waited for it.
const ROUNDS: usize = 4;

/// How a follower paces a sync.
#[derive(Debug, Clone, Copy)]
pub struct SyncOptions {
    /// Most changes in one batch.
    pub batch_changes: usize,
    /// Most bytes in one batch.
    pub batch_bytes: usize,
    /// Records asked for in one page.
    pub page: usize,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { batch_changes: 500, batch_bytes: limits::PUSH_BYTES_MAX / 2, page: limits::PAGE_DEFAULT }
    }
}

/// What a sync did.
#[derive(Debug, Clone, Default)]
pub struct SyncReport {
    /// Outcomes of the changes that were answered.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Changes answered and settled.
    pub pushed: u64,
    /// Records absorbed.
    pub pulled: u64,
    /// Changes that wait, were refused or parked.
    pub held: u64,
    /// The upstream's digest at the head that was reached, and ours after absorbing.
    pub digests: Option<(Digest, Digest)>,
    /// How it ended.
    pub outcome: Option<SyncOutcome>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// The problem that the upstream named.
    pub problem: Option<ProblemCode>,
    /// What answers is not shown to be the upstream: a person has to mend it, waiting does not.
    pub untrusted: bool,
}

/// What is going on, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many changes are answered.
    Pushed(u64),
    /// So many records are staged.
    Staged(u64),
    /// The pull is being taken in.
    Absorbing,
}

/// What stopped a part of a sync.
pub(crate) enum Stop {
    Transport(TransportError),
    /// The upstream's data is not what it was: for people.
    WentBack(String),
    Replica(ReplicaError),
    /// The upstream went back in time: first it is offered what it lost.
    Restored(Restored),
}

impl Stop {
    /// Whether the upstream decides nothing of ours before we have pulled everything anew (I10).
    fn asks_for_a_resync(&self) -> bool {
        matches!(self, Self::Transport(TransportError::Problem(p)) if p.code == ProblemCode::ResyncRequired)
    }

    /// Whether the upstream has revoked this device.
    fn is_revoked(&self) -> bool {
        matches!(self, Self::Transport(TransportError::Problem(p)) if p.code == ProblemCode::DeviceRevoked)
    }
}

impl From<TransportError> for Stop {
    fn from(e: TransportError) -> Self {
        Self::Transport(e)
    }
}

impl From<ReplicaError> for Stop {
    fn from(e: ReplicaError) -> Self {
        Self::Replica(e)
    }
}

impl From<ropeway_store::StoreError> for Stop {
    fn from(e: ropeway_store::StoreError) -> Self {
        Self::Replica(e.into())
    }
}

/// One sync's way: of which space, to whom, at what pace, and who watches.
#[derive(Clone, Copy)]
struct Way<'a> {
    space: &'a SpaceId,
    transport: &'a dyn Transport,
    options: &'a SyncOptions,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pushed(n) => write!(f, "{n} changes sent"),
            Self::Staged(n) => write!(f, "{n} records received"),
            Self::Absorbing => f.write_str("taking in"),
        }
    }
}

impl Node {
    /// Syncs a space once. Errors mean that this machine failed; whatever the network or the upstream did
    /// stands in the report. Two syncs of one space in one store never run at the same time: the second
    /// is told so ([`ReplicaError::Busy`]).
    pub async fn sync(
        &self,
        space: &SpaceId,
        transport: &dyn Transport,
        options: &SyncOptions,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<SyncReport, ReplicaError> {
        let never = std::future::pending();
        Ok(self.sync_unless(space, transport, options, progress, never).await?.unwrap_or_default())
    }

    /// The same, unless `cut` ends first: then it stops where it is, as after a power cut, and the next sync
    /// goes on there. `None`: it was cut.
    pub(crate) async fn sync_unless(
        &self,
        space: &SpaceId,
        transport: &dyn Transport,
        options: &SyncOptions,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cut: impl Future<Output = ()> + Send,
    ) -> Result<Option<SyncReport>, ReplicaError> {
        let lease = self.take_lease(space).await?;
        let way = Way { space, transport, options, progress };
        let result = tokio::select! {
            result = self.sync_leased(&way) => result.map(Some),
            () = cut => Ok(None),
        };
        self.drop_lease(space, &lease).await?;
        result
    }

    async fn sync_leased(&self, way: &Way<'_>) -> Result<SyncReport, ReplicaError> {
        let space = way.space;
        let started = (self.inner.clock.now(), self.inner.clock.mono());
        let mut report = SyncReport::default();
        let presenting = self.presenting(space, way.transport).await?;
        let ended = self.phases(&Way { transport: &presenting, ..*way }, &mut report).await;
        report.outcome = Some(match ended {
            Ok(()) if self.differs(space, &report).await? => {
                report.error = Some(DIFFERS.to_owned());
                SyncOutcome::Differs
            }
            Ok(()) if report.held > 0 => SyncOutcome::Partly,
            Ok(()) => SyncOutcome::Done,
            Err(Stop::Replica(error)) => return Err(error),
            Err(Stop::WentBack(text)) => {
                report.error = Some(text);
                SyncOutcome::Differs
            }
            // Restored again and again while it was asked: the next sync goes on.
            Err(Stop::Restored(_)) => SyncOutcome::Partly,
            Err(Stop::Transport(error)) => {
                report.error = Some(error.to_string());
                if let TransportError::Problem(problem) = &error {
                    report.problem = Some(problem.code);
                }
                report.untrusted = matches!(error, TransportError::Untrusted(_));
                match error {
                    TransportError::Offline(_) => SyncOutcome::Offline,
                    _ => SyncOutcome::Failed,
                }
            }
        });
        self.note_run(space, started, &report).await?;
        Ok(report)
    }

    async fn phases(&self, way: &Way<'_>, report: &mut SyncReport) -> Result<(), Stop> {
        let Way { space, transport, .. } = *way;
        self.measure(transport).await??;
        let unanswered = self.note_unanswered(space).await?;
        self.knock(space, transport, unanswered).await?;
        for left in (0..ROUNDS).rev() {
            let round = async {
                self.push(way, report).await?;
                let awaited = self.awaited(space).await?;
                self.pull(way, report, false).await?;
                Ok(awaited)
            };
            let awaited = match round.await {
                Err(Stop::Restored(to)) if left > 0 => {
                    self.offer_again(space, &to).await?;
                    continue;
                }
                ended => ended?,
            };
            let handed_in = self.hand_in_unfed(space).await?;
            let armed = self.arm(space, awaited).await? > 0;
            if !handed_in && !armed {
                break;
            }
        }
        if self.differs(space, report).await? && self.may_reread(space).await? {
            tracing::warn!(
                "the replicas differ with nothing under way: the upstream is read from the beginning"
            );
            // What it lacks stays here: an upstream that lost it would else take the last copy along.
            self.pull_all(way, report, true).await?;
        }
        let waiting = [EntryState::Waiting, EntryState::Rejected];
        let counts = self.inner.store.outbox_counts(space).await?;
        let waits: u64 = counts.iter().filter(|(state, _)| waiting.contains(state)).map(|(_, n)| n).sum();
        report.held = waits + report.verdicts.get(&Verdict::Parked).copied().unwrap_or(0);
        Ok(())
    }

    /// Pushes. An upstream that decides nothing of ours before we have pulled everything anew is pulled first.
    async fn push(&self, way: &Way<'_>, report: &mut SyncReport) -> Result<(), Stop> {
        let space = way.space;
        if !self.in_doubt(space).await? {
            match self.push_all(way, report).await {
                Err(stop) if stop.asks_for_a_resync() => {}
                pushed => return pushed,
            }
            // The upstream notes what is pulled, and may take it in again before the pull has ended here: so this
            // outlives whatever cuts the pull.
            self.begin_doubt(space).await?;
        }
        if let Some((batch, ..)) = self.sealed(space).await? {
            self.unseal(space, &batch, None).await?;
        }
        // The first brings everything anew; with the second the upstream knows that it arrived.
        for _ in 0..2 {
            match self.pull(way, report, false).await {
                // It decides nothing of ours, and keeps it for a person.
                Err(stop) if stop.is_revoked() => {
                    return self.push_all(way, report).await;
                }
                pulled => pulled?,
            }
        }
        self.doubt(space).await?;
        self.push_all(way, report).await
    }

    /// Pulls, and lets go of what a pull from the beginning did not bring.
    async fn pull(&self, way: &Way<'_>, report: &mut SyncReport, anew: bool) -> Result<(), Stop> {
        let space = way.space;
        self.pull_all(way, report, anew).await?;
        if self.let_go(space).await?
            && let Some((_, ours)) = &mut report.digests
        {
            *ours = self.inner.store.space(space).await?.digest;
        }
        Ok(())
    }

    /// Sends batch after batch until nothing may go of what was there when it began. A batch left sealed by
    /// a crash goes first, unchanged.
    async fn push_all(&self, way: &Way<'_>, report: &mut SyncReport) -> Result<(), Stop> {
        let Way { space, transport, options, progress } = *way;
        let mut limit = BatchLimit { changes: options.batch_changes.max(1), bytes: options.batch_bytes };
        let mut newest = None;
        loop {
            let (batch, body, count) = match self.sealed(space).await? {
                Some(sealed) => sealed,
                None if self.seal_next(space, limit, &mut newest).await? => continue,
                None => return Ok(()),
            };
            match transport.push(body).await {
                Ok(pushed) if pushed.receipts.len() != count => {
                    let text = format!("{} receipts for {count} changes", pushed.receipts.len());
                    return Err(TransportError::Problem(Problem::new(ProblemCode::Internal, text)).into());
                }
                Ok(pushed) => {
                    for receipt in &pushed.receipts {
                        *report.verdicts.entry(receipt.verdict).or_default() += 1;
                        report.pushed += u64::from(receipt.verdict.is_settled());
                    }
                    self.note_answered(space, &pushed.epoch).await?;
                    self.receive(space, &batch, pushed).await?;
                    progress(Progress::Pushed(report.pushed));
                }
                // Refused as a whole and so not decided: half of it, down to a single change.
                Err(TransportError::Problem(problem)) if problem.code == ProblemCode::TooLarge => {
                    let alone = count <= 1;
                    self.unseal(space, &batch, alone.then(|| problem.to_string())).await?;
                    limit.changes = (count / 2).max(1);
                    limit.bytes = (limit.bytes / 2).max(1);
                }
                // Nothing of it was decided: what was lost goes first.
                Err(TransportError::Problem(problem)) if problem.code == ProblemCode::EpochChanged => {
                    return Err(self.refused_as_restored(transport).await);
                }
                Err(TransportError::Problem(problem)) if is_about_the_batch(&problem) => {
                    let why = problem.to_string();
                    self.unseal(space, &batch, Some(why)).await?;
                    return Err(TransportError::Problem(problem).into());
                }
                Err(TransportError::Problem(problem))
                    if problem.code == ProblemCode::DeviceRevoked
                        && self.put_aside(space, &batch, count, &problem).await? => {}
                // Anything else leaves the batch sealed: it may have been decided, and the same bytes ask.
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads pages until one reaches the head; then all of them are in sight at once. `anew`: from the
    /// beginning, and what comes counts even where it is not newer.
    async fn pull_all(&self, way: &Way<'_>, report: &mut SyncReport, anew: bool) -> Result<(), Stop> {
        let Way { space, transport, options, progress } = *way;
        let followed = self.inner.store.followed(space).await?;
        let mut cursor = followed.staged.clone().or(followed.token.clone()).filter(|_| !anew);
        let is_first = followed.epoch.is_none();
        let mut limit = options.page.max(1);
        let (mut staged, mut again) = (0, false);
        let mut fetched = transport.pull(cursor.as_deref(), limit).await;
        loop {
            let Page { rows, end } = match fetched {
                Ok(page) => page,
                Err(TransportError::Problem(p)) if p.code == ProblemCode::TooLarge && limit > 1 => {
                    limit = (limit / 2).max(1);
                    fetched = transport.pull(cursor.as_deref(), limit).await;
                    continue;
                }
                Err(TransportError::Problem(p)) if starts_over(&p) && cursor.is_some() && !again => {
                    again = true;
                    self.inner.store.pull_anew(space).await?;
                    (cursor, staged) = (None, 0);
                    fetched = transport.pull(None, limit).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if self.must_offer(space, &followed, &end).await? {
                return Err(Stop::Restored(Restored::of(&end)));
            }
            staged += rows.len() as u64;
            if let Some(text) = went_back(&followed, &end) {
                return Err(Stop::WentBack(text));
            }
            let nothing_new = staged == 0 && end.complete && followed.staged.is_none() && !anew;
            if nothing_new
                && followed.epoch.as_ref() == Some(&end.epoch)
                && !self.has_reached(space, &followed, &end).await?
            {
                report.digests = Some((end.digest, self.inner.store.space(space).await?.digest));
                return Ok(());
            }
            cursor = Some(end.cursor.clone());
            if end.complete {
                let mut last = Some(rows);
                if is_first && let Some(rows) = last.take() {
                    report.pulled += self.keep_page(space, rows, &end, is_first, anew).await?;
                }
                progress(Progress::Staged(staged));
                progress(Progress::Absorbing);
                report.pulled += self.take_in(space, last, &end, anew).await?;
                if again && is_first {
                    self.expect_unfed(space, &end.epoch).await?;
                }
                report.digests = Some((end.digest, self.inner.store.space(space).await?.digest));
                return Ok(());
            }
            // The next page travels while this one is written.
            let kept = self.keep_page(space, rows, &end, is_first, anew);
            let (kept, next) = tokio::join!(kept, transport.pull(Some(&end.cursor), limit));
            report.pulled += kept?;
            if planted::has(Bug::PagewiseAbsorb) {
                report.pulled += self.take_in(space, None, &end, false).await?;
            }
            fetched = next;
            progress(Progress::Staged(staged));
        }
    }

    /// Keeps a page: a first pull is taken in by portions, which nobody sees before the last one; of any other all
    /// but the last page is staged, and all is taken in at once. How many records are taken in already.
    async fn keep_page(
        &self,
        space: &SpaceId,
        rows: Vec<Fed>,
        end: &PageEnd,
        is_first: bool,
        anew: bool,
    ) -> Result<u64, ReplicaError> {
        let store = &self.inner.store;
        if !is_first {
            store.stage(space, &end.epoch, rows, &end.cursor).await?;
            return Ok(0);
        }
        let portion = Portion { epoch: end.epoch.clone(), rows, upto: end.cursor.clone() };
        Ok(store.portion(space, self.inner.clock.now(), portion, self.absorbing(end, anew)).await?)
    }

    /// Whether the head moved, or receipts wait to be settled by this head: then the absorb must run.
    async fn has_reached(
        &self,
        space: &SpaceId,
        followed: &ropeway_store::Followed,
        end: &PageEnd,
    ) -> Result<bool, ReplicaError> {
        if followed.cursor != end.head || followed.token.is_none() {
            return Ok(true);
        }
        let counts = self.inner.store.outbox_counts(space).await?;
        Ok(counts.iter().any(|(state, n)| *state == EntryState::Receipted && *n > 0))
    }

    /// The decision that takes pulled records in, as far as a page says that the upstream's head was.
    fn absorbing(&self, end: &PageEnd, anew: bool) -> Absorb {
        let reached = Reached { epoch: end.epoch.clone(), cursor: end.head, anew };
        let profile = Arc::clone(&self.inner.profile);
        Box::new(move |snapshot, step| match step {
            Step::Rows(rows) => absorb::rows(snapshot, rows, &reached, &profile),
            Step::Settle(entries) => absorb::settle(snapshot, entries, &profile),
        })
    }

    async fn take_in(
        &self,
        space: &SpaceId,
        page: Option<Vec<Fed>>,
        end: &PageEnd,
        anew: bool,
    ) -> Result<u64, ReplicaError> {
        let decide = self.absorbing(end, anew);
        let pull = PullEnd {
            page,
            epoch: end.epoch.clone(),
            cursor: end.head,
            token: end.cursor.clone(),
            audiences: end.audiences.clone(),
        };
        let taken = self.inner.store.absorb(space, self.inner.clock.now(), pull, decide).await?;
        self.announce(space, self.inner.store.space(space).await?.head);
        Ok(taken)
    }

    async fn note_run(
        &self,
        space: &SpaceId,
        started: (Time, i64),
        report: &SyncReport,
    ) -> Result<(), ReplicaError> {
        let moved = report.pushed + report.pulled + report.held > 0;
        let outcome = report.outcome.unwrap_or(SyncOutcome::Failed);
        if !moved && outcome == SyncOutcome::Done {
            // A sync with nothing to do leaves nothing behind (I12).
            return Ok(());
        }
        let run = SyncRun {
            started_at: started.0,
            duration_ms: (self.inner.clock.mono() - started.1) / 1_000,
            outcome,
            pushed: report.pushed,
            pulled: report.pulled,
            held: report.held,
            error: report.error.clone(),
            device: None,
        };
        Ok(self.inner.store.put_run(space, &run).await?)
    }
}

/// A refusal that says that the bytes themselves cannot be read: the same bytes would never do.
fn is_about_the_batch(problem: &Problem) -> bool {
    matches!(problem.code, ProblemCode::Malformed)
}

/// A cursor that is of no use: the pull begins anew. What is pending here stays.
pub(crate) fn starts_over(problem: &Problem) -> bool {
    matches!(
        problem.code,
        ProblemCode::CursorInvalid | ProblemCode::EpochChanged | ProblemCode::ResyncRequired
    )
}
