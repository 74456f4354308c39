//! Plays a story: each act, the invariants after it, then the healing.

use crate::{
    act::shown,
    apart::only_in,
    disk::StoreKind,
    host::locked,
    stage,
    story::{Act, Story},
    world::{Violation, World},
};
use ropeway_replica::ReplicaError;
use ropeway_store::{SpaceState, StoreError};
use std::sync::Arc;

/// Times that the spaces of a story are healed until nothing that they share moves.
const PASSES: usize = 4;

/// What came of a story.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// Hash of all that happened: the same story gives the same hash.
    pub hash: String,
    /// The same without the stamps that nodes give: the same story gives the same on every kind of store, though
    /// one may take in by one statement what another takes in row by row.
    pub seen: String,
    /// All that happened, line by line, where it was asked for.
    pub trace: Vec<String>,
}

/// Plays a story from its first act to rest, on stores in memory.
pub fn play(story: &Story, traced: bool) -> Outcome {
    play_on(StoreKind::Memory, story, traced)
}

/// Plays a story from its first act to rest.
pub fn play_on(kind: StoreKind, story: &Story, traced: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cannot(error.to_string()),
    };
    runtime.block_on(async {
        let worlds = match stage::build(kind, story, traced).await {
            Ok(worlds) => worlds,
            Err(error) => return cannot(error),
        };
        let stage = worlds[0].stage.clone();
        if let Err(error) = tell(&worlds, story).await {
            worlds[0].fault(&format!("the story broke off: {error}"));
        }
        stage.outcome()
    })
}

async fn tell(worlds: &[Arc<World>], story: &Story) -> Result<(), ReplicaError> {
    for (number, act) in story.acts.iter().enumerate() {
        worlds[0].say(|| format!("{number} {}", shown(act)));
        let before = others(worlds, only_in(act)).await?;
        worlds[0].act(act).await;
        moved_nothing(worlds, &before, act).await?;
        for world in worlds {
            world.after().await?;
        }
        if worlds[0].violation().is_some() {
            return Ok(());
        }
    }
    heal(worlds).await?;
    worlds.iter().for_each(|world| world.say(|| world.counts()));
    Ok(())
}

/// Heals the spaces one after the other, and where they share something until none has news for another one.
/// Then asks what must hold at rest.
async fn heal(worlds: &[Arc<World>]) -> Result<(), ReplicaError> {
    let shares = worlds.len() > 1 && worlds[0].profile.has_shared();
    for pass in 0..PASSES {
        let mut moved = false;
        for (number, world) in worlds.iter().enumerate() {
            let before = others(worlds, Some(number)).await?;
            moved |= world.heal().await?;
            moved_nothing(worlds, &before, &Act::Wait { ms: 0 }).await?;
            if world.violation().is_some() {
                return Ok(());
            }
        }
        if !moved || !shares {
            break;
        }
        if pass + 1 == PASSES {
            worlds[0].violated("I12", format!("healed {PASSES} times, the spaces still move one another"));
        }
    }
    for (number, world) in worlds.iter().enumerate() {
        let before = others(worlds, Some(number)).await?;
        world.at_rest().await?;
        moved_nothing(worlds, &before, &Act::Wait { ms: 0 }).await?;
    }
    Ok(())
}

/// What is true of the spaces that have nothing to do with what happens in one of them.
async fn others(
    worlds: &[Arc<World>],
    only: Option<usize>,
) -> Result<Vec<(usize, Vec<SpaceState>)>, StoreError> {
    let mut states = Vec::new();
    for (number, world) in worlds.iter().enumerate().filter(|(number, _)| only.is_some_and(|n| n != *number))
    {
        states.push((number, world.states().await?));
    }
    Ok(states)
}

/// I11: what happens in one space moves nothing in another one.
async fn moved_nothing(
    worlds: &[Arc<World>],
    before: &[(usize, Vec<SpaceState>)],
    act: &Act,
) -> Result<(), StoreError> {
    for (number, before) in before {
        if worlds[*number].states().await? != *before {
            let text = format!("something moved here, and it happened elsewhere: {}", shown(act));
            worlds[*number].violated("I11", text);
        }
    }
    Ok(())
}

impl World {
    /// After an act: machines that died start again, and every machine that changed is examined.
    async fn after(&self) -> Result<(), ReplicaError> {
        for host in self.hosts.iter().filter(|host| host.is_there()) {
            if host.life().is_over() {
                host.restart().await?;
                self.say(|| format!("  node {} starts again", host.index));
            }
            let state = self.state(host).await?;
            let generation = host.generation().await?;
            if std::mem::replace(&mut *locked(&host.examined), generation) == generation {
                continue;
            }
            let now = (state.head, state.digest);
            if std::mem::replace(&mut *locked(&host.told), now) != now {
                let (node, head, digest) = (host.index, state.head, state.digest);
                self.stage
                    .say_of(&format!("  node {node}: {head} {digest:?}"), &format!("{node} {digest:?}"));
            }
            self.examine(host).await;
        }
        Ok(())
    }
}

fn cannot(error: String) -> Outcome {
    let violation = Some(Violation { rule: "story", text: error });
    Outcome { violation, hash: String::new(), seen: String::new(), trace: Vec::new() }
}
