//! What the spaces of a story share: the machines, the trace, and what went wrong. Each space is a world of its
//! own on them, and no world may notice another one (I11).

use crate::{
    clock::SimClock,
    disk::StoreKind,
    host::locked,
    ledger::Token,
    machine::Machine,
    play::Outcome,
    story::Story,
    world::{Violation, World, profile_of},
};
use ropeway_core::id::SpaceId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, Weak, atomic::Ordering},
};
use tokio::time::Instant;

/// What the spaces of a story share.
pub(crate) struct Stage {
    pub(crate) machines: Vec<Arc<Machine>>,
    worlds: OnceLock<Vec<Weak<World>>>,
    found: Mutex<Vec<Violation>>,
    /// What the author of a value saw in its place.
    pub(crate) saw: Mutex<BTreeMap<Token, Option<Token>>>,
    /// Values that a person chose by answering a conflict, and what stood in their place then.
    pub(crate) chosen: Mutex<BTreeSet<(Token, Token)>>,
    /// Values of deleted records that the top has forgotten: whoever writes there anew replaces nothing.
    pub(crate) forgotten: Mutex<BTreeSet<Token>>,
    /// Values that somebody saw in a record when they deleted it.
    pub(crate) deleted: Mutex<BTreeSet<Token>>,
    /// Values that may never be shared.
    pub(crate) unwelcome: Mutex<BTreeSet<Token>>,
    trace: Mutex<Trace>,
}

struct Trace {
    hasher: blake3::Hasher,
    /// The same without stamps that a follower gives for itself.
    seen: blake3::Hasher,
    lines: Option<Vec<String>>,
}

/// Builds the stage of a story, and one world for each of its spaces. The error says what the story got wrong.
pub(crate) async fn build(kind: StoreKind, story: &Story, traced: bool) -> Result<Vec<Arc<World>>, String> {
    let setting = &story.setting;
    let profile = Arc::new(profile_of(setting)?);
    let mut spaces = vec![SpaceId::trusted("main")];
    spaces.extend((!setting.second.is_empty()).then(|| SpaceId::trusted("other")));
    let mut parents = setting.parents.clone();
    parents.extend(setting.copied.map(|copied| *setting.parents.get(copied).unwrap_or(&None)));
    let (started, mut machines) = (Instant::now(), Vec::new());
    for (index, parent) in parents.into_iter().enumerate() {
        if parent.is_some_and(|parent| parent >= index) || parent.is_none() != (index == 0) {
            return Err("a node's upstream stands before it, and node 0 alone has none".into());
        }
        let machine = Machine::new((index, parent), kind, &spaces, &profile, SimClock::new(started)).await;
        let machine = machine.map_err(|e| e.to_string())?;
        machine.asleep.store(index >= setting.parents.len(), Ordering::Relaxed);
        machines.push(Arc::new(machine));
    }
    let trace =
        Trace { hasher: blake3::Hasher::new(), seen: blake3::Hasher::new(), lines: traced.then(Vec::new) };
    let stage = Arc::new(Stage {
        machines,
        worlds: OnceLock::new(),
        found: Mutex::default(),
        saw: Mutex::default(),
        chosen: Mutex::default(),
        forgotten: Mutex::default(),
        deleted: Mutex::default(),
        unwelcome: Mutex::default(),
        trace: Mutex::new(trace),
    });
    let mut worlds = Vec::new();
    for (number, space) in spaces.into_iter().enumerate() {
        let world = World::build(setting, &profile, &stage, number, space);
        worlds.push(world.await.map_err(|e| e.to_string())?);
    }
    stage.worlds.get_or_init(|| worlds.iter().map(Arc::downgrade).collect());
    Ok(worlds)
}

impl Stage {
    /// The worlds, one for each space.
    pub(crate) fn worlds(&self) -> Vec<Arc<World>> {
        self.worlds.get().into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Notes a broken invariant.
    pub(crate) fn violated(&self, rule: &'static str, text: String) {
        locked(&self.found).push(Violation { rule, text });
    }

    /// The first broken invariant.
    pub(crate) fn violation(&self) -> Option<Violation> {
        locked(&self.found).first().cloned()
    }

    /// Writes a line of the trace.
    pub(crate) fn say(&self, line: &str) {
        self.say_of(line, line);
    }

    /// Writes a line of the trace, of which `seen` counts where two kinds of store are compared.
    pub(crate) fn say_of(&self, line: &str, seen: &str) {
        let mut trace = locked(&self.trace);
        trace.hasher.update(line.as_bytes());
        trace.seen.update(seen.as_bytes());
        if let Some(lines) = &mut trace.lines {
            lines.push(line.to_owned());
        }
    }

    /// What came of it.
    pub(crate) fn outcome(&self) -> Outcome {
        let mut trace = locked(&self.trace);
        let (hash, seen) = (trace.hasher.finalize(), trace.seen.finalize());
        Outcome {
            violation: self.violation(),
            hash: hash.to_hex().to_string(),
            seen: seen.to_hex().to_string(),
            trace: trace.lines.take().unwrap_or_default(),
        }
    }
}
