//! What a story's spaces have in common: where a machine keeps it, who may write it, and what may never get there.

use crate::{
    check::Sight,
    host::{Host, locked},
    ledger::{Token, tokens},
    story::Edit,
    world::{Roles, World},
};
use ropeway_core::{
    conflict::Conflict,
    id::{CONFLICT, Key, SpaceId},
    plan::Superseded,
    record::Record,
};
use ropeway_store::{SpaceState, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// The spaces in which a machine keeps what this world's readers see.
    pub(crate) fn homes(&self, host: &Host) -> Vec<SpaceId> {
        let beside = (host.parent.is_none() && self.profile.has_shared()).then(SpaceId::shared);
        std::iter::once(self.space.clone()).chain(beside).collect()
    }

    /// What a machine says of this space with what is shared.
    pub(crate) async fn state(&self, host: &Host) -> Result<SpaceState, StoreError> {
        let mut state = host.image().space(&self.space).await?;
        for home in &self.homes(host)[1..] {
            let shared = host.image().space(home).await?;
            state.head = state.head.max(shared.head);
            state.digest = state.digest.plus(shared.digest);
        }
        Ok(state)
    }

    /// Earlier versions of a record.
    pub(crate) async fn history(&self, host: &Host, key: &Key) -> Result<Vec<Superseded>, StoreError> {
        let mut found = Vec::new();
        for home in self.homes(host) {
            let is_here = home == self.space || self.is_of_app(key) || &*key.collection == CONFLICT;
            if is_here {
                found.extend(host.image().history(&home, key).await?);
            }
        }
        Ok(found)
    }

    /// Whether a record is one of those that are shared.
    pub(crate) fn is_of_app(&self, key: &Key) -> bool {
        self.profile.is_shared(&key.collection)
    }

    /// Whether a machine keeps a record beside the space.
    pub(crate) fn is_beside(&self, host: &Host, key: &Key) -> bool {
        host.parent.is_none() && self.is_of_app(key)
    }

    /// The same, where it may be a question about one.
    pub(crate) fn is_about_app(&self, key: &Key, record: &Record) -> bool {
        let about = || Conflict::read(&record.data).map(|conflict| conflict.about());
        match &*key.collection == CONFLICT {
            true => about().is_some_and(|about| self.is_of_app(&about)),
            false => self.is_of_app(key),
        }
    }

    /// The node of the setting that a machine is, or is a copy of.
    pub(crate) fn stands_for(&self, index: usize) -> Option<usize> {
        if index < self.setting.parents.len() { Some(index) } else { self.setting.copied }
    }

    /// Whether a machine has a role that may write what is shared.
    pub(crate) fn machine_shares(&self, index: usize) -> bool {
        self.stands_for(index).is_some_and(|node| self.setting.shared.contains(&node))
    }

    /// Whether a person has: all but bob, where anything is shared.
    pub(crate) fn person_shares(&self, person: &str) -> bool {
        self.profile.has_shared() && person != "bob"
    }

    /// Whether a node's device without a replica has: the first one, where anything is shared.
    pub(crate) fn client_shares(&self, client: usize) -> bool {
        self.profile.has_shared() && client == 0
    }

    /// The roles of those who may write what is shared, or of the others.
    pub(crate) fn roles_of(&self, shares: bool) -> &Roles {
        if shares { &self.keepers } else { &self.roles }
    }

    /// Notes values that may never be shared: who entered them may not, or a machine on their way up.
    pub(crate) fn enters(&self, host: &Host, edit: &Edit, may: bool) {
        if !self.profile.is_shared(&edit.collection) {
            return;
        }
        let mut on_its_way =
            std::iter::once(host).chain(self.above(host)).filter(|host| host.parent.is_some());
        if !may || !on_its_way.all(|host| self.machine_shares(host.index)) {
            tokens(edit.fields.text(), &mut locked(&self.stage.unwelcome));
        }
    }

    /// I9: what is shared was written by those who may.
    pub(crate) async fn welcome(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        if host.parent.is_some() || !self.profile.has_shared() {
            return Ok(());
        }
        let mut found: BTreeSet<Token> = BTreeSet::new();
        for (key, record) in sight.records.iter().filter(|(key, record)| self.is_about_app(key, record)) {
            tokens(record.data.text(), &mut found);
            for was in self.history(host, key).await? {
                tokens(was.record.data.text(), &mut found);
            }
        }
        if let Some(token) = found.intersection(&locked(&self.stage.unwelcome)).next() {
            self.violated("I9", format!("`v{token}v` is shared, and whoever entered it may not write there"));
        }
        Ok(())
    }

    /// I2: no two records of one space have one stamp, and none is newer than its head.
    pub(crate) async fn ordered(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        let mut stamps = BTreeMap::new();
        for (key, record) in &sight.records {
            let beside = host.parent.is_none() && self.is_about_app(key, record);
            if let Some(other) = stamps.insert((beside, record.stamp), key) {
                let text = format!("node {}: {other} and {key} have the stamp {}", host.index, record.stamp);
                self.violated("I2", text);
            }
        }
        for (number, home) in self.homes(host).iter().enumerate() {
            let head = host.image().space(home).await?.head;
            let newest = stamps.keys().rfind(|(beside, _)| usize::from(*beside) == number);
            if let Some((_, newest)) = newest.filter(|(_, newest)| *newest > head) {
                self.violated("I2", format!("node {}: {newest} is behind the head {head}", host.index));
            }
        }
        Ok(())
    }
}
