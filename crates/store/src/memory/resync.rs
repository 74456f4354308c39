//! Pulling everything anew: after a restored backup of this device, or from beyond the horizon.

use super::space::Space;
use ropeway_core::{id::Key, plan::Fed, record::Record};
use std::ops::Bound::{Excluded, Unbounded};

impl Space {
    /// Forgets how far the upstream was read, and notes from now on what comes.
    pub(super) fn pull_anew(&mut self) {
        self.unstage();
        self.followed.token = None;
        self.followed.anew = self.followed.epoch.is_some() || self.filling;
        self.seen.clear();
    }

    /// Notes that these rows came, where everything is pulled anew.
    pub(super) fn see(&mut self, rows: &[Fed]) {
        if self.followed.anew {
            self.seen.extend(rows.iter().map(|row| row.key.clone()));
        }
    }

    /// Records that the upstream knew and that have not come.
    pub(super) fn unseen(&self, after: Option<&Key>, limit: usize) -> Vec<(Key, Record)> {
        if !self.followed.anew {
            return Vec::new();
        }
        let from = after.map_or(Unbounded, Excluded);
        let known = |r: &Record| r.upstream.as_ref().is_some_and(|u| u.version > 0);
        let missing = self.records.range::<Key, _>((from, Unbounded));
        let missing = missing.filter(|(key, record)| known(record) && !self.seen.contains(key));
        missing.take(limit).map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    /// Forgets what came.
    pub(super) fn pulled_anew(&mut self) {
        self.followed.anew = false;
        self.seen.clear();
    }
}
