//! From one device's desk to another device's sight, over a server: what somebody waits for.

use super::server::Served;
use crate::bench::{Watch, node, small};
use anyhow::{Result, anyhow};
use ropeway_core::id::{Collection, Key, RecordId};
use ropeway_replica::{FollowOptions, Follower, Node};
use std::{path::Path, sync::Arc, time::Duration};

use super::super::rows;

const RUN: u64 = 7_000;
/// Nothing moves any more where no sync has ended for so long.
const QUIET: Duration = Duration::from_millis(150);

/// The milliseconds that each of `changes` took from `dir`'s first device to its second.
pub(super) async fn measure(cloud: &Node, served: &Served, dir: &Path, changes: usize) -> Result<Vec<f64>> {
    let mut devices = Vec::new();
    for name in ["a.db", "b.db"] {
        let device = node::open(dir, name, true).await?;
        let transport = Arc::new(served.device(cloud).await?);
        let follower = Follower::spawn(device.clone(), node::space(), transport, FollowOptions::default());
        follower.sync_now().await?;
        devices.push((device, follower));
    }
    let [(a, writer), (b, follower)] = devices.as_slice() else { return Err(anyhow!("two devices")) };
    // The live stream is open from the moment on when a change comes without being asked for.
    let mut took = Vec::with_capacity(changes);
    for n in 0..changes {
        let key = Key::new(&Collection::trusted("note"), &RecordId::trusted(rows::id(RUN, n)));
        // Each one alone: nothing of the last one is under way that would take this one along.
        let (mut theirs, mut ours) = (writer.state(), follower.state());
        let mut moves = async || tokio::select! { _ = theirs.changed() => {}, _ = ours.changed() => {} };
        while tokio::time::timeout(QUIET, moves()).await.is_ok() {}
        let (mut news, mut following) = (b.watch(&node::space()), follower.state());
        let watch = Watch::start();
        small::write(a, RUN, n).await?;
        while b.get(&node::space(), &key).await?.is_none() {
            tokio::select! {
                changed = news.changed() => changed?,
                changed = following.changed() => changed?,
            }
        }
        took.push(watch.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}
