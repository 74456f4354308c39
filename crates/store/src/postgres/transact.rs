//! Decisions and their plans. Those that wait for one space are written in one transaction, each caller
//! gets its own answer, and a caller that goes away harms nobody.

use super::{
    apply::{enter, write},
    conn::{Db, How, Tx, together},
    errors::Done,
    load::load,
    space::Space,
};
use crate::{
    Decide, StoreError,
    asking::{Asked, Asking, fault},
};
use futures_util::{StreamExt, stream::FuturesOrdered};
use ropeway_core::{
    id::{Key, SpaceId},
    plan::{Keys, Plan, Print, Probe},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot::{self, Sender};

/// Of how many changes a decision is best made: what it costs to make it and to write it is then much more than
/// what one more costs, and small enough that much of it goes on at the same time.
pub(super) const BATCH: NonZeroUsize = NonZeroUsize::new(250).unwrap();
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

    /// Whether anything waits for the space; ends the work on it where nothing does.
    fn goes_on(&self, space: &SpaceId) -> bool {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = queues.get(space).is_some_and(|queue| !queue.is_empty());
        if !waits {
            queues.remove(space);
        }
        waits
    }

    /// Takes what waits and may share a transaction.
    fn take(&self, space: &SpaceId) -> Vec<Waiting> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(space) else { return Vec::new() };
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
        while self.goes_on(&space) {
            match self.commit(&db, &space, Vec::new()).await {
                (group, Err(error))
                    if group.len() > 1 && !matches!(error, StoreError::Unavailable { .. }) =>
                {
                    tracing::warn!(%error, "writes committed together failed, now one by one");
                    for waiting in group {
                        let (alone, ended) = self.commit(&db, &space, vec![waiting]).await;
                        tell(alone, ended);
                    }
                }
                (group, ended) => tell(group, ended),
            }
        }
    }

    /// One transaction for all of `group`; where nobody is in it, for those who wait when its turn has come.
    async fn commit(&self, db: &Db, space: &SpaceId, group: Vec<Waiting>) -> (Vec<Waiting>, Done<Vec<Plan>>) {
        let mut turn = (space, self, group);
        let ended = db.run(How::Write, &mut turn, |tx, turn| Box::pin(decide(tx, turn))).await;
        let (.., mut group) = turn;
        if group.is_empty() {
            group = self.take(space);
        }
        (group, ended)
    }
}

/// Tells each what came of it.
fn tell(group: Vec<Waiting>, ended: Done<Vec<Plan>>) {
    let all = group.len();
    match ended {
        Ok(plans) => {
            for (waiting, plan) in group.into_iter().zip(plans) {
                let _ = waiting.tell.send(Ok(plan));
            }
        }
        Err(error) => {
            let what = match &error {
                StoreError::Unavailable { what, .. } => what.clone(),
                other => other.to_string(),
            };
            let mut whole = (all == 1).then_some(error);
            for waiting in group {
                let copy = || StoreError::Unavailable { what: what.clone(), source: None };
                let _ = waiting.tell.send(Err(whole.take().unwrap_or_else(copy)));
            }
        }
    }
}

/// Decides one after the other. What all of them ask first is on its way before anything is written: while this
/// process makes a decision, the server reads for the next one and writes the one before.
async fn decide(tx: &Tx, turn: &mut (&SpaceId, &Queues, Vec<Waiting>)) -> Done<Vec<Plan>> {
    let (id, queues, group) = turn;
    let mut space = Space::lock(tx, id).await?;
    if group.is_empty() {
        *group = queues.take(id);
    }
    let was = space.clone();
    let asked: Vec<(Time, &Keys)> = group.iter().map(|waiting| (waiting.now, &waiting.keys)).collect();
    let mut ahead: FuturesOrdered<_> =
        asked.into_iter().map(|(now, keys)| first(tx, &was, now, keys.clone())).collect();
    let mut plans: Vec<Plan> = Vec::with_capacity(group.len());
    // Where the space was before the last plan, as long as that is not written.
    let (mut before, mut wrote) = (None, false);
    for waiting in group {
        let Some(asking) = ahead.next().await else { break };
        let mut asking = asking?;
        if plans.iter().any(|plan| touches(plan, &asking.snapshot.keys)) {
            written(tx, before.take(), plans.last()).await?;
            asking = first(tx, &space, waiting.now, waiting.keys.clone()).await?;
        }
        space.bring(&mut asking.snapshot);
        let is_writing = before.is_some();
        let deciding = async {
            if is_writing {
                // Lets what is to be written go on its way first.
                tokio::task::yield_now().await;
            }
            asking.next(&mut *waiting.decide)
        };
        let (_, mut asked) = together!(written: written(tx, before.take(), plans.last()), asked: deciding)?;
        let mut plan = loop {
            match asked {
                Asked::Load(keys) => {
                    load(tx, space.no, &keys, &mut asking.snapshot).await?;
                    asking.loaded(*keys);
                    asked = asking.next(&mut *waiting.decide)?;
                }
                Asked::Plan(plan) => break *plan,
            }
        };
        before = enter(&mut space, &mut plan);
        wrote |= before.is_some();
        plans.push(plan);
    }
    if wrote {
        together!(written: written(tx, before, plans.last()), saved: space.save(tx))?;
    }
    Ok(plans)
}

/// A decision with what it asks first.
async fn first(tx: &Tx, space: &Space, now: Time, keys: Keys) -> Done<Asking> {
    let mut asking = Asking::new(space.snapshot(tx.follows, now), keys);
    if let Some(keys) = asking.first() {
        load(tx, space.no, &keys, &mut asking.snapshot).await?;
        asking.loaded(keys);
    }
    Ok(asking)
}

async fn written(tx: &Tx, before: Option<Space>, plan: Option<&Plan>) -> Done<()> {
    match (before, plan) {
        (Some(before), Some(plan)) => write(tx, &before, plan).await,
        _ => Ok(()),
    }
}

/// Whether a plan writes something that was read for one of these keys.
fn touches(plan: &Plan, keys: &Keys) -> bool {
    let has = |found: &BTreeSet<Key>, key: &Key| found.contains(key);
    let mut links = plan.links.iter().chain(&plan.links_gone);
    let mut audiences = plan.audiences.iter().chain(&plan.audiences_moved);
    plan.rows.iter().any(|row| has(&keys.records, &row.key))
        || plan.forget.iter().any(|key| has(&keys.records, key))
        || plan.receipts.iter().any(|receipt| keys.receipts.contains(&receipt.change))
        || (!keys.twins.is_empty() && !plan.prints_gone.is_empty())
        || keys.twins.iter().any(|probe| plan.prints.iter().any(|print| is_twin(probe, print)))
        || links.any(|link| has(&keys.links, &link.parent))
        || plan.outbox.iter().any(|e| has(&keys.outbox, &e.over) || keys.entries.contains(&e.seq))
        || audiences.any(|row| has(&keys.audiences, &row.record))
        || plan.subscriptions.iter().any(|one| keys.readers.contains(&one.reader))
}

fn is_twin(probe: &Probe, print: &Print) -> bool {
    probe.collection == print.key.collection
        && probe.print == print.print
        && (probe.from..=probe.to).contains(&print.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::hand::{blank, change, key, remembered};
    use ropeway_core::{
        audience::{AudienceRow, Subscription},
        id::{ChangeId, Collection, DeviceId},
        outbox::Entry,
        plan::{Link, Row},
        time::Stamp,
    };

    fn probe(print: &str, from: i64, to: i64) -> Probe {
        Probe { collection: Collection::trusted("incident"), print: print.into(), from, to }
    }

    /// A plan for each kind of thing that it may write.
    fn plans() -> [(&'static str, Plan); 9] {
        let (plan, reader) = (Plan::default, DeviceId::trusted("pi"));
        let record = blank(Time(1));
        let row = Row { key: key("a"), record, is_new: true, contribution: (0, 1) };
        let remembered = remembered("c", &key("x"), Stamp(1));
        let link = Link { parent: key("a"), child: key("x"), field: "race".into() };
        let (via, entered, left) = (None, Stamp(1), None);
        let worn = AudienceRow { record: key("a"), audience: "k".into(), via: None, entered, left };
        let chosen = Subscription { reader, audience: "k".into(), via, entered, left };
        let entry = Entry::pending(7, change("c", &key("mine")), key("over"), Time(1));
        let print = Print { key: key("a"), print: "p".into(), at: 5 };
        [
            ("a row", Plan { rows: vec![row], ..plan() }),
            ("a record that goes", Plan { forget: vec![key("a")], ..plan() }),
            ("a receipt", Plan { receipts: vec![remembered], ..plan() }),
            ("a print", Plan { prints: vec![print], ..plan() }),
            ("a print that goes", Plan { prints_gone: vec![key("a")], ..plan() }),
            ("a link", Plan { links: vec![link], ..plan() }),
            ("an entry", Plan { outbox: vec![entry], ..plan() }),
            ("an audience", Plan { audiences: vec![worn], ..plan() }),
            ("a subscription", Plan { subscriptions: vec![chosen], ..plan() }),
        ]
    }

    /// Of each kind: what was asked that it changes, and what it has nothing to do with.
    fn asked(what: &str) -> (Vec<Keys>, Vec<Keys>) {
        let none = Keys::default;
        let records = |id| Keys { records: [key(id)].into(), ..none() };
        let receipts = |id| Keys { receipts: [ChangeId::trusted(id)].into(), ..none() };
        let twins = |print, from, to| Keys { twins: [probe(print, from, to)].into(), ..none() };
        let links = |id| Keys { links: [key(id)].into(), ..none() };
        let outbox = |id| Keys { outbox: [key(id)].into(), ..none() };
        let entries = |seq| Keys { entries: [seq].into(), ..none() };
        let audiences = |id| Keys { audiences: [key(id)].into(), ..none() };
        let readers = |id| Keys { readers: [DeviceId::trusted(id)].into(), ..none() };
        match what {
            "a row" | "a record that goes" => (vec![records("a")], vec![records("b"), outbox("a")]),
            "a receipt" => (vec![receipts("c")], vec![receipts("d")]),
            "a print" => (vec![twins("p", 5, 5), twins("p", 0, 9)], vec![twins("p", 6, 9), twins("q", 0, 9)]),
            "a print that goes" => (vec![twins("q", 0, 0)], vec![records("a")]),
            "a link" => (vec![links("a")], vec![links("x")]),
            "an entry" => (vec![outbox("over"), entries(7)], vec![outbox("mine"), entries(8)]),
            "an audience" => (vec![audiences("a")], vec![audiences("b")]),
            _ => (vec![readers("pi")], vec![readers("other")]),
        }
    }

    #[test]
    fn what_was_read_before_a_plan_that_writes_it_is_read_again() {
        let mut both_ways = plans().to_vec();
        for (what, plan) in plans() {
            let Plan { links, audiences, .. } = plan;
            let moved = Plan { links_gone: links, audiences_moved: audiences, ..Plan::default() };
            if !moved.links_gone.is_empty() || !moved.audiences_moved.is_empty() {
                both_ways.push((what, moved));
            }
        }
        for (what, plan) in both_ways {
            let (asked, others) = asked(what);
            assert!(asked.iter().all(|keys| touches(&plan, keys)), "{what}");
            assert!(!others.iter().any(|keys| touches(&plan, keys)), "{what} of another");
            assert!(!touches(&plan, &Keys::default()) && !touches(&Plan::default(), &asked[0]), "{what}");
        }
    }
}
