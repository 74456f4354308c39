//! Decisions and their plans. Those that wait for one space are written in one transaction, each caller
//! gets its own answer, and a caller that goes away harms nobody.

use super::{
    apply::apply,
    conn::{Db, How, Tx},
    errors::Done,
    load::load,
    space::Space,
};
use crate::{
    Decide, StoreError,
    asking::{Asked, Asking, fault},
};
use ropeway_core::{
    id::SpaceId,
    plan::{Keys, Plan},
    time::Time,
};
use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot::{self, Sender};

/// Most decisions that are written together.
const GROUP_MAX: usize = 64;
/// And about how many changes: no transaction may become large.
const CHANGES_MAX: usize = 1_000;

/// A decision that waits to be made and written.
struct Waiting {
    now: Time,
    keys: Keys,
    decide: Decide,
    tell: Sender<Done<Plan>>,
}

/// What waits, by space. A space that is being worked on has an entry, be it empty.
#[derive(Clone, Default)]
pub(super) struct Queues(Arc<Mutex<BTreeMap<SpaceId, Vec<Waiting>>>>);

impl Queues {
    /// Hands a decision in and waits for its plan to be durable.
    pub(super) async fn transact(
        &self,
        db: &Db,
        space: &SpaceId,
        now: Time,
        keys: Keys,
        decide: Decide,
    ) -> Done<Plan> {
        let (tell, told) = oneshot::channel();
        if self.add(space, Waiting { now, keys, decide, tell }) {
            tokio::spawn(self.clone().work(db.clone(), space.clone()));
        }
        told.await.unwrap_or_else(|_| Err(fault("a decision was dropped unanswered".into())))
    }

    /// Whether nobody works on the space yet.
    fn add(&self, space: &SpaceId, waiting: Waiting) -> bool {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get_mut(space) {
            Some(queue) => {
                queue.push(waiting);
                false
            }
            None => {
                queues.insert(space.clone(), vec![waiting]);
                true
            }
        }
    }

    /// Takes what waits and may share a transaction; ends the work on the space where nothing does.
    fn take(&self, space: &SpaceId) -> Vec<Waiting> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(space) else { return Vec::new() };
        if queue.is_empty() {
            queues.remove(space);
            return Vec::new();
        }
        let (mut count, mut changes) = (0, 0);
        for waiting in queue.iter().take(GROUP_MAX) {
            changes += waiting.keys.receipts.len().max(1);
            if count > 0 && changes > CHANGES_MAX {
                break;
            }
            count += 1;
        }
        let rest = queue.split_off(count);
        mem::replace(queue, rest)
    }

    async fn work(self, db: Db, space: SpaceId) {
        loop {
            let group = self.take(&space);
            if group.is_empty() {
                return;
            }
            commit(&db, &space, group).await;
        }
    }
}

async fn commit(db: &Db, space: &SpaceId, mut group: Vec<Waiting>) {
    if group.len() > 1 {
        match together(db, space, &mut group).await {
            Ok(plans) => {
                for (waiting, plan) in group.into_iter().zip(plans) {
                    let _ = waiting.tell.send(Ok(plan));
                }
                return;
            }
            Err(StoreError::Unavailable { what, .. }) => {
                for waiting in group {
                    let _ =
                        waiting.tell.send(Err(StoreError::Unavailable { what: what.clone(), source: None }));
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "writes committed together failed, now one by one"),
        }
    }
    for waiting in group {
        let mut alone = [waiting];
        let ended = together(db, space, &mut alone).await;
        let [waiting] = alone;
        let one = ended.and_then(|mut plans| plans.pop().ok_or_else(|| fault("no plan was made".into())));
        let _ = waiting.tell.send(one);
    }
}

/// One transaction for all.
async fn together(db: &Db, space: &SpaceId, group: &mut [Waiting]) -> Done<Vec<Plan>> {
    let mut all = (space, group);
    db.run(How::Write, &mut all, |tx, (space, group)| Box::pin(decide(tx, space, group))).await
}

async fn decide(tx: &Tx, space: &SpaceId, group: &mut [Waiting]) -> Done<Vec<Plan>> {
    let mut space = Space::lock(tx, space).await?;
    let mut plans = Vec::with_capacity(group.len());
    let mut wrote = false;
    for waiting in group {
        let mut asking = Asking::new(space.snapshot(tx.follows, waiting.now), waiting.keys.clone());
        let mut plan = loop {
            match asking.next(&mut *waiting.decide)? {
                Asked::Load(keys) => {
                    load(tx, space.no, &keys, &mut asking.snapshot).await?;
                    asking.loaded(keys);
                }
                Asked::Plan(plan) => break plan,
            }
        };
        wrote |= apply(tx, &mut space, &mut plan).await?;
        plans.push(*plan);
    }
    if wrote {
        space.save(tx).await?;
    }
    Ok(plans)
}
