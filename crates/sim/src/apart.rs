//! The oracle of I11 between spaces: nothing that was entered in one is ever seen in another, and what happens in
//! one moves nothing in another.

use crate::{
    check::Sight,
    host::Host,
    ledger::{Token, is_of, tokens_of},
    story::Act,
    world::World,
};
use ropeway_core::{doc::Fields, outbox::EntryState};
use ropeway_store::{Quarantine, SpaceState, Store, StoreError};
use std::collections::BTreeSet;

impl World {
    /// Whether there is another space on the same machines.
    pub(crate) fn has_neighbour(&self) -> bool {
        !self.setting.second.is_empty()
    }

    /// Nothing of another space is on a machine in this one: in records, beneath and behind them, in the outbox or
    /// in quarantine.
    pub(crate) async fn apart(&self, host: &Host, sight: &Sight) -> Result<(), StoreError> {
        if !self.has_neighbour() {
            return Ok(());
        }
        let mut found = BTreeSet::new();
        self.held_in(host, sight, &mut found).await?;
        for entry in host.image().outbox(&self.space, &[EntryState::Settled], i64::MIN, usize::MAX).await? {
            found.append(&mut tokens_of(&entry.change.fields));
        }
        for kept in host.image().quarantined(&self.space, i64::MIN, usize::MAX).await? {
            found.append(&mut tokens_of(&kept.change.fields));
        }
        self.all_ours(&found, &format!("node {} holds", host.index));
        Ok(())
    }

    /// What is shown to somebody is of this space.
    pub(crate) fn shown_here(&self, fields: &Fields, by: usize) {
        if self.has_neighbour() {
            self.all_ours(&tokens_of(fields), &format!("node {by} shows"));
        }
    }

    fn all_ours(&self, found: &BTreeSet<Token>, who: &str) {
        if let Some(foreign) = found.iter().find(|token| !is_of(**token, self.number)) {
            self.violated("I11", format!("{who} `v{foreign}v`, which was entered in another space"));
        }
    }

    /// What every machine says of this space.
    pub(crate) async fn states(&self) -> Result<Vec<SpaceState>, StoreError> {
        let mut states = Vec::new();
        for host in &self.hosts {
            states.push(host.image().space(&self.space).await?);
        }
        Ok(states)
    }
}

/// The number of the only space in which an act happens; `None`: on whole machines, or in several spaces.
pub(crate) fn only_in(act: &Act) -> Option<usize> {
    match act {
        Act::Elsewhere { act } => only_in(act).map(|_| 1),
        Act::Clock { .. } | Act::Restart { .. } | Act::Copy | Act::Restore { .. } | Act::PutBack { .. } => {
            None
        }
        Act::Sync { meanwhile: Some(between), .. } => {
            between.acts.iter().all(|act| only_in(act) == Some(0)).then_some(0)
        }
        _ => Some(0),
    }
}
