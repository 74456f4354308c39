//! Plays a story: each act, the invariants after it, then the healing.

use crate::{
    act::shown,
    host::{locked, space},
    story::Story,
    world::{Violation, World},
};
use ropeway_store::Store;
use std::sync::Arc;

/// What came of a story.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// Hash of all that happened: the same story gives the same hash.
    pub hash: String,
    /// All that happened, line by line, where it was asked for.
    pub trace: Vec<String>,
}

/// Plays a story from its first act to rest.
pub fn play(story: &Story, traced: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cannot(error.to_string()),
    };
    runtime.block_on(async {
        let world = match World::build(story, traced).await {
            Ok(world) => world,
            Err(error) => return cannot(error),
        };
        tell(&world, story).await;
        let violation = world.violation();
        let (hash, trace) = world.told();
        Outcome { violation, hash, trace }
    })
}

async fn tell(world: &Arc<World>, story: &Story) {
    for (number, act) in story.acts.iter().enumerate() {
        world.say(|| format!("{number} {}", shown(act)));
        world.act(act).await;
        if let Err(error) = world.after().await {
            world.fault(&error);
        }
        if world.violation().is_some() {
            return;
        }
    }
    if let Err(error) = world.heal().await {
        world.fault(&format!("the healing failed: {error}"));
    }
    world.say(|| world.counts());
}

impl World {
    /// After an act: machines that died start again, and every machine that changed is examined.
    async fn after(&self) -> Result<(), String> {
        for host in self.hosts.iter().filter(|host| host.is_there()) {
            if host.life().is_over() {
                host.restart().await.map_err(|e| format!("node {} does not start: {e}", host.index))?;
                self.say(|| format!("  node {} starts again", host.index));
            }
            let state = host.image().space(&space()).await.map_err(|e| e.to_string())?;
            let generation = host.image().generation().await.map_err(|e| e.to_string())?;
            if std::mem::replace(&mut *locked(&host.examined), generation) == generation {
                continue;
            }
            self.say(|| format!("  node {}: {} {:?}", host.index, state.head, state.digest));
            self.examine(host).await;
        }
        Ok(())
    }
}

fn cannot(error: String) -> Outcome {
    let violation = Some(Violation { rule: "story", text: error });
    Outcome { violation, hash: String::new(), trace: Vec::new() }
}
