//! The healing: clocks are right, nothing is lost any more, nobody writes. Everything must come to rest.

use crate::{
    host::{Host, locked},
    world::{Copied, World},
};
use ropeway_core::id::{Collection, Key, RecordId};
use ropeway_replica::ReplicaError;
use ropeway_store::Store;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Rounds until the outboxes must be empty. Each is longer than any retry schedule.
const ROUNDS: usize = 12;
/// From this round on, people have everything tried again at once.
const RETRY_FROM: usize = 3;
/// From this round on, people give up what the upstream refuses for good.
const DISCARD_FROM: usize = 5;

impl World {
    /// Heals everything until it rests (I12). Whether anything moved.
    pub(crate) async fn heal(self: &Arc<Self>) -> Result<bool, ReplicaError> {
        for host in &self.hosts {
            host.clock.set_wrong(0);
            self.say(|| format!("heal {}", host.index));
        }
        for host in self.hosts.iter().filter(|host| host.is_there()) {
            self.admit(host).await?;
        }
        for round in 0..ROUNDS {
            tokio::time::advance(Duration::from_secs(7 * 3_600)).await;
            let mut moved = self.round(round).await?;
            // Copied while an answer was lost, both say the same once more.
            moved |= round < 2 && *locked(&self.copy) == Copied::Unnoticed;
            if self.violation().is_some() {
                return Ok(true);
            }
            if !moved {
                return Ok(round > 0);
            }
        }
        for host in &self.hosts {
            let queue = host.node().queue(&self.space).await?;
            self.say(|| format!("  node {} has {queue:?}", host.index));
        }
        self.violated("I12", format!("after {ROUNDS} rounds of healing something still moves"));
        Ok(true)
    }

    /// Who follows somebody, the deepest first.
    fn followers(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().rev().filter(|host| host.parent.is_some() && host.is_there())
    }

    /// Every follower syncs once, the deepest first; whether anything moved or is left.
    async fn round(self: &Arc<Self>, round: usize) -> Result<bool, ReplicaError> {
        let mut moved = false;
        for host in self.followers() {
            let node = host.node();
            let mut queue = node.queue(&self.space).await?;
            queue.retain(|item| item.state.is_unsent());
            let unsent: Vec<i64> = queue.iter().map(|item| item.seq).collect();
            if round >= DISCARD_FROM && !unsent.is_empty() {
                let named = queue.iter().map(|q| {
                    let why = q.reason.as_ref().map_or("", |reason| &reason.text);
                    format!("{} {}/{}: {why}", q.seq, q.collection, q.record)
                });
                let named: Vec<String> = named.collect();
                self.say(|| format!("  node {} gives up {named:?}", host.index));
                node.queue_discard(&self.space, &unsent).await?;
                // Whoever follows this node has to see it.
                moved = true;
            } else if round >= RETRY_FROM {
                node.queue_retry(&self.space, &unsent).await?;
            }
            let before = host.image().space(&self.space).await?;
            let Some(report) = self.sync_with(host, &[], None).await.transpose()? else { continue };
            self.synced(host, &report).await;
            self.say(|| {
                format!(
                    "  node {} {:?} {:?} pulled {}",
                    host.index, report.outcome, report.verdicts, report.pulled
                )
            });
            if let Some(parent) = host.parent.filter(|_| report.error.is_some()) {
                let (there, here) = (self.dump(&self.hosts[parent]).await?, self.dump(host).await?);
                self.say(|| format!("  {}", difference(&there, &here)));
            }
            // One whose upstream has yet to take in its own first download waits for it.
            if let Some(error) = report.error.as_ref().filter(|_| round > 2) {
                self.violated("I12", format!("node {} cannot sync on a whole network: {error}", host.index));
            }
            moved |= report.error.is_some()
                || report.pushed + report.pulled > 0
                // What it let go of is news for whoever follows it.
                || host.image().space(&self.space).await? != before
                || !node.queue(&self.space).await?.is_empty();
            self.examine(host).await;
        }
        Ok(moved)
    }

    /// All replicas are equal, and a further sync moves nothing (I4, I12).
    pub(crate) async fn at_rest(self: &Arc<Self>) -> Result<(), ReplicaError> {
        if *locked(&self.copy) == Copied::Unnoticed {
            self.violated("I3", "a machine and its copy sync side by side, and nobody is told".into());
        }
        self.came_back().await?;
        for host in self.hosts.iter().filter(|host| host.is_there()) {
            let sight = self.sight(host).await?;
            self.settled(host, &sight);
            for fault in host.image().audit().await?.faults {
                self.violated("audit", format!("node {}: {fault}", host.index));
            }
            let Some(parent) = host.parent else {
                self.distinct(host, &sight);
                self.dropped(host, &sight).await?;
                continue;
            };
            let mut truth = self.dump(&self.hosts[parent]).await?;
            let mut digest = self.state(&self.hosts[parent]).await?.digest;
            let part = self.part_of(host).await?;
            let rule = if part.is_some() { "I11" } else { "I4" };
            if let Some((seen, its)) = part {
                truth.retain(|line, ()| named(line).is_some_and(|key| seen.contains(&key)));
                digest = its;
            }
            let dump = self.dump(host).await?;
            let state = host.image().space(&self.space).await?;
            if dump != truth || state.digest != digest {
                let text = difference(&truth, &dump);
                self.violated(rule, format!("node {} differs from node {parent}: {text}", host.index));
            }
        }
        for host in self.followers() {
            let before = host.image().space(&self.space).await?;
            let Some(report) = self.sync_with(host, &[], None).await.transpose()? else { continue };
            let after = host.image().space(&self.space).await?;
            if report.pushed + report.pulled > 0 || before != after {
                let text = format!("node {} syncs again and moves {report:?}", host.index);
                self.violated("I12", text);
            }
        }
        Ok(())
    }

    async fn dump(&self, host: &Host) -> Result<BTreeMap<String, ()>, ReplicaError> {
        let mut lines = BTreeMap::new();
        let take = |line: &str| {
            lines.insert(line.to_owned(), ());
            Ok(())
        };
        host.node().dump_canonical(&self.space, take).await?;
        Ok(lines)
    }

    /// Whether everything that was ever written at followers has been handed on; for people who look at a
    /// trace.
    pub(crate) fn counts(&self) -> String {
        let values: Vec<usize> = self.hosts.iter().map(|host| locked(&host.ledger).values.len()).collect();
        format!("values acknowledged by each node: {values:?}")
    }
}

/// The record that a line of a dump is about.
fn named(line: &str) -> Option<Key> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let collection = Collection::parse(line["collection"].as_str()?).ok()?;
    Some(Key::new(&collection, &RecordId::parse(line["id"].as_str()?).ok()?))
}

fn difference(truth: &BTreeMap<String, ()>, dump: &BTreeMap<String, ()>) -> String {
    let only = |a: &BTreeMap<String, ()>, b: &BTreeMap<String, ()>| {
        a.keys().filter(|line| !b.contains_key(*line)).cloned().collect::<Vec<_>>().join("\n    ")
    };
    format!("\n  only there:\n    {}\n  only here:\n    {}", only(truth, dump), only(dump, truth))
}
