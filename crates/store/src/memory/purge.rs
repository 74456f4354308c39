//! Forgetting what no live reader can ask about any more, a bounded step at a time.

use super::space::Space;
use crate::purge::{Purged, RUNS_KEPT, Walk};
use ropeway_core::{
    id::{ChangeId, Key},
    plan::{JOINED, Link},
    record::{Record, State},
    retention::Lines,
    time::{Stamp, Time},
};
use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

impl Space {
    /// One step of at most `rows` rows.
    pub(super) fn purge(&mut self, lines: &Lines, at: Walk, rows: usize, dry: bool) -> Purged {
        let (gone, last) = match &at {
            Walk::Tombstones(after) => self.purge_tombstones(*after, lines.tombstones, rows, dry),
            Walk::Audiences => (self.purge_audiences(lines.tombstones, dry), None),
            Walk::Receipts(after) => self.purge_receipts(after, lines.receipts, rows, dry),
            Walk::History(_) => (self.purge_history(lines.history, dry), None),
            Walk::Outbox(after) => self.purge_outbox(*after, lines.settled, rows, dry),
            Walk::Runs => (self.purge_runs(lines.settled, dry), None),
        };
        Purged { rows: gone, next: last.or_else(|| at.then()) }
    }

    fn purge_tombstones(&mut self, after: Stamp, line: Stamp, rows: usize, dry: bool) -> (u64, Option<Walk>) {
        if after >= line {
            return (0, None);
        }
        let newer =
            self.by_stamp.range((Excluded(after), Unbounded)).take_while(|(stamp, _)| **stamp <= line);
        let dead = newer.filter(|(_, key)| self.records.get(key).is_some_and(|r| r.state == State::Deleted));
        let found: Vec<(Stamp, Key)> = dead.take(rows).map(|(stamp, key)| (*stamp, key.clone())).collect();
        let mut gone = 0;
        for (stamp, key) in &found {
            let is_laid = self.outbox.values().any(|e| e.state.is_unsettled() && e.over == *key);
            let holds = |r: &Record| r.contested || r.upstream.as_ref().is_some_and(|u| u.held.is_some());
            let joined = |links: &BTreeSet<Link>| links.iter().any(|link| &*link.field == JOINED);
            let is_named =
                self.records.get(key).is_some_and(holds) || self.links.get(key).is_some_and(joined);
            if is_laid || is_named {
                continue;
            }
            gone += 1;
            if !dry {
                let version = self.records.remove(key).map_or(0, |record| record.version);
                self.buried = self.buried.max(version);
                self.by_stamp.remove(stamp);
                self.put_prints(std::slice::from_ref(key), &[]);
                self.audiences.bury(key);
                self.purged = self.purged.max(*stamp);
            }
        }
        let last = found.last().filter(|_| found.len() == rows);
        (gone, last.map(|(stamp, _)| Walk::Tombstones(*stamp)))
    }

    /// What goes is as good as a deletion to a reader who had not read so far: it is noted with those.
    fn purge_audiences(&mut self, line: Stamp, dry: bool) -> u64 {
        let (gone, newest) = self.audiences.ended(line);
        if let Some(newest) = newest.filter(|_| !dry) {
            self.audiences.purge(line);
            self.purged = self.purged.max(newest);
        }
        gone
    }

    fn purge_receipts(&mut self, after: &str, line: Stamp, rows: usize, dry: bool) -> (u64, Option<Walk>) {
        let first = Excluded(ChangeId::trusted(after));
        let newer = self.receipts.range((first, Unbounded)).take(rows);
        let found: Vec<(ChangeId, Stamp)> = newer.map(|(id, r)| (id.clone(), r.stamp)).collect();
        let old: Vec<&ChangeId> = found.iter().filter(|(_, s)| *s <= line).map(|(id, _)| id).collect();
        if !dry {
            old.iter().for_each(|id| drop(self.receipts.remove(*id)));
        }
        let last = found.last().filter(|_| found.len() == rows);
        (old.len() as u64, last.map(|(id, _)| Walk::Receipts(id.to_string())))
    }

    /// A version counts from when it was superseded, not from when it was written.
    fn purge_history(&mut self, line: Stamp, dry: bool) -> u64 {
        let mut gone = 0;
        for (key, versions) in &mut self.history {
            let mut by = self.records.get(key).map(|r| r.stamp);
            let mut kept = Vec::new();
            for version in versions.iter().rev() {
                match version.stamp <= line && by.is_none_or(|by| by <= line) {
                    true => gone += 1,
                    false => kept.push(version.clone()),
                }
                by = Some(version.stamp);
            }
            if !dry {
                kept.reverse();
                *versions = kept;
            }
        }
        self.history.retain(|_, versions| !versions.is_empty());
        gone
    }

    fn purge_outbox(&mut self, after: i64, before: Time, rows: usize, dry: bool) -> (u64, Option<Walk>) {
        let found: Vec<i64> =
            self.outbox.range((Excluded(after), Unbounded)).take(rows).map(|(n, _)| *n).collect();
        let is_old = |seq: &&i64| {
            let entry = self.outbox.get(seq).filter(|e| !e.state.is_unsettled());
            entry.is_some_and(|e| e.tried_at.unwrap_or(e.accepted_at) < before)
        };
        let old: Vec<i64> = found.iter().filter(is_old).copied().collect();
        if !dry {
            old.iter().for_each(|seq| drop(self.outbox.remove(seq)));
        }
        let last = found.last().filter(|_| found.len() == rows);
        (old.len() as u64, last.map(|seq| Walk::Outbox(*seq)))
    }

    fn purge_runs(&mut self, before: Time, dry: bool) -> u64 {
        let oldest = self.runs.len().saturating_sub(RUNS_KEPT);
        let mut at = 0;
        let is_old = |n: usize, started: Time| n < oldest && started < before;
        let gone = self.runs.iter().enumerate().filter(|(n, run)| is_old(*n, run.started_at)).count();
        if !dry {
            self.runs.retain(|run| {
                at += 1;
                !is_old(at - 1, run.started_at)
            });
        }
        gone as u64
    }
}
