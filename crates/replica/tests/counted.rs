//! How many conflicts are open and how many came within the hour: counted by the database, on either side.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{desk, on_every_store, space, write};
use ropeway_core::{change::Op, conflict::Resolution};
use ropeway_replica::{Node, Resolve};
use serde_json::json;
use std::time::Duration;

async fn counted(node: &Node) -> (u64, usize) {
    let open = node.status(&space()).await.unwrap().conflicts_open;
    assert_eq!(open, node.conflicts(&space(), true).await.unwrap().len() as u64);
    (open, node.conflicts_of_the_last_hour(&space()).await.unwrap())
}

#[test]
fn conflicts_are_counted_on_both_sides() {
    on_every_store(|venue| async move {
        for id in ["r1", "r2", "r3"] {
            write(&venue.cloud, "var", Op::Create, "race", id, json!({"name": "as made"})).await;
        }
        venue.sync().await;
        let contest = async |id: &str| {
            write(&venue.pi, "Ada", Op::Patch, "race", id, json!({"name": format!("Ada's {id}")})).await;
            write(&venue.cloud, "var", Op::Patch, "race", id, json!({"name": format!("the VAR's {id}")}))
                .await;
        };
        contest("r1").await;
        contest("r2").await;
        venue.sync().await;
        venue.advance(Duration::from_secs(600));
        for node in [&venue.cloud, &venue.pi] {
            assert_eq!(counted(node).await, (2, 2));
        }
        let first = venue.cloud.conflicts(&space(), true).await.unwrap().remove(0).id;
        let answer = |resolution| Resolve {
            conflict: first.clone(),
            version: None,
            resolution,
            data: None,
            notes: None,
            change: None,
        };
        for (resolution, open) in
            [(Resolution::Incoming, 1), (Resolution::Reopen, 2), (Resolution::Server, 1)]
        {
            venue.cloud.resolve(&space(), &desk("Jury", "admin"), answer(resolution)).await.unwrap();
            venue.sync().await;
            for node in [&venue.cloud, &venue.pi] {
                assert_eq!(counted(node).await, (open, 2), "{resolution:?}: settled ones were asked too");
            }
        }
        venue.advance(Duration::from_secs(3_000));
        contest("r3").await;
        venue.sync().await;
        for node in [&venue.cloud, &venue.pi] {
            assert_eq!(counted(node).await, (2, 1), "the hour is over for the others");
        }
    });
}

/// CT-17: what a node took along is not given back while anything waits or is open, and it says what.
#[test]
fn what_waits_and_what_is_open_hold_back_a_clear() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "var", Op::Create, "race", "r1", json!({"name": "as made"})).await;
        let report = venue.sync().await;
        let held = async || venue.pi.holds_back_clear(&space(), &report).await.unwrap();
        assert_eq!(held().await, Vec::<String>::new());
        write(&venue.pi, "Ada", Op::Patch, "race", "r1", json!({"name": "Ada's"})).await;
        assert_eq!(held().await, ["1 changes wait for the upstream"]);
        write(&venue.cloud, "var", Op::Patch, "race", "r1", json!({"name": "the VAR's"})).await;
        venue.sync().await;
        assert_eq!(held().await, ["1 conflicts are open"]);
    });
}
