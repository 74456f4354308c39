//! Audience rows and subscriptions of one space in memory.

use super::{Done, space::Space};
use crate::{SpaceState, reading::Shelf};
use ropeway_core::{
    audience::{AudienceRow, Subscription},
    digest::Digest,
    id::{Collection, DeviceId, Key},
    plan::{Fed, Plan},
    time::Stamp,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the tables of the other stores hold.
#[derive(Clone, Default)]
pub(super) struct Audiences {
    rows: BTreeMap<Key, Vec<AudienceRow>>,
    subscriptions: BTreeMap<DeviceId, Vec<Subscription>>,
    sights: BTreeMap<String, Digest>,
}

impl Audiences {
    /// Writes what a plan moves.
    pub(super) fn apply(&mut self, plan: &Plan) {
        for row in &plan.audiences_moved {
            let rows = self.rows.entry(row.record.clone()).or_default();
            rows.retain(|r| r.audience != row.audience || r.via != row.via);
            rows.push(row.clone());
        }
        for row in &plan.audiences {
            self.rows.entry(row.record.clone()).or_default().push(row.clone());
        }
        if plan.sights_anew {
            self.sights.clear();
        }
        for (sight, moved) in &plan.sights {
            let digest = self.sights.entry(sight.clone()).or_default();
            digest.count += moved.count;
            digest.sum = digest.sum.wrapping_add(moved.sum);
        }
        for one in &plan.subscriptions {
            let of_reader = self.subscriptions.entry(one.reader.clone()).or_default();
            of_reader.retain(|s| s.audience != one.audience || s.via != one.via);
            of_reader.push(one.clone());
        }
    }

    /// Shows every stamp at which something entered or left.
    pub(super) fn each_stamp(&mut self, mut visit: impl FnMut(&mut Stamp)) {
        for row in self.rows.values_mut().flatten() {
            visit(&mut row.entered);
            row.left.iter_mut().for_each(&mut visit);
        }
        for one in self.subscriptions.values_mut().flatten() {
            visit(&mut one.entered);
            one.left.iter_mut().for_each(&mut visit);
        }
    }

    /// A record's rows, those that left included.
    pub(super) fn rows_of(&self, record: &Key) -> Vec<AudienceRow> {
        self.rows.get(record).cloned().unwrap_or_default()
    }

    /// A reader's subscriptions, ended ones included.
    pub(super) fn subscriptions(&self, reader: &DeviceId) -> Vec<Subscription> {
        let mut found = self.subscriptions.get(reader).cloned().unwrap_or_default();
        found.sort_by_key(|s| s.entered);
        found
    }

    /// What ended up to a stamp: how many rows and subscriptions, and when the newest of them did.
    pub(super) fn ended(&self, line: Stamp) -> (u64, Option<Stamp>) {
        let rows = self.rows.values().flatten().filter_map(|r| r.left);
        let all = rows.chain(self.subscriptions.values().flatten().filter_map(|s| s.left));
        let ended: Vec<Stamp> = all.filter(|left| *left <= line).collect();
        (ended.len() as u64, ended.into_iter().max())
    }

    /// Forgets what ended up to a stamp.
    pub(super) fn purge(&mut self, line: Stamp) {
        let stays = |left: Option<Stamp>| left.is_none_or(|left| left > line);
        self.rows.values_mut().for_each(|rows| rows.retain(|r| stays(r.left)));
        self.subscriptions.values_mut().for_each(|of_reader| of_reader.retain(|s| stays(s.left)));
    }

    /// Forgets all rows of a record.
    pub(super) fn bury(&mut self, key: &Key) {
        self.rows.remove(key);
    }

    fn rows(&self, keys: Option<&BTreeSet<String>>) -> impl Iterator<Item = &AudienceRow> {
        self.rows.values().flatten().filter(move |row| keys.is_none_or(|keys| keys.contains(&row.audience)))
    }
}

/// A space as a reader's page is put together from it.
pub(super) struct Open<'s> {
    pub(super) space: &'s Space,
    pub(super) state: SpaceState,
}

impl Shelf for Open<'_> {
    fn state(&self) -> SpaceState {
        self.state.clone()
    }

    async fn subscriptions(&mut self, reader: &DeviceId) -> Done<Vec<Subscription>> {
        Ok(self.space.audiences.subscriptions(reader))
    }

    async fn newer(
        &mut self,
        after: Stamp,
        open: Option<&[Collection]>,
        keys: &BTreeSet<String>,
        limit: usize,
    ) -> Done<Vec<Fed>> {
        let audiences = &self.space.audiences;
        let carries = |key: &Key| {
            let rows = audiences.rows.get(key).map_or(&[][..], Vec::as_slice);
            rows.iter().any(|row| row.left.is_none() && keys.contains(&row.audience))
        };
        let sees = |key: &Key| open.is_none_or(|open| open.contains(&key.collection) || carries(key));
        Ok(self
            .space
            .newer(after)
            .filter(|(key, _)| sees(key))
            .take(limit)
            .map(|(k, r)| super::space::as_fed(k, r))
            .collect())
    }

    async fn entered(
        &mut self,
        keys: &BTreeSet<String>,
        after: Stamp,
        upto: Stamp,
        limit: usize,
    ) -> Done<Vec<AudienceRow>> {
        let rows = self.space.audiences.rows(Some(keys));
        let mut found: Vec<AudienceRow> =
            rows.filter(|row| row.entered > after && row.entered <= upto).cloned().collect();
        found.sort_by_key(|row| row.entered);
        found.truncate(limit);
        Ok(found)
    }

    async fn left(
        &mut self,
        keys: Option<&BTreeSet<String>>,
        after: Stamp,
        limit: usize,
    ) -> Done<Vec<AudienceRow>> {
        let rows = self.space.audiences.rows(keys);
        let mut found: Vec<AudienceRow> =
            rows.filter(|row| row.left.is_some_and(|left| left > after)).cloned().collect();
        found.sort_by_key(|row| row.left);
        found.truncate(limit);
        Ok(found)
    }

    async fn rows_of(&mut self, record: &Key) -> Done<Vec<AudienceRow>> {
        Ok(self.space.audiences.rows_of(record))
    }

    async fn record(&mut self, key: &Key) -> Done<Option<Fed>> {
        Ok(self.space.records.get(key).map(|record| super::space::as_fed(key, record)))
    }

    async fn sights(&mut self) -> Done<Vec<(String, Digest)>> {
        Ok(self.space.audiences.sights.iter().map(|(sight, digest)| (sight.clone(), *digest)).collect())
    }
}
