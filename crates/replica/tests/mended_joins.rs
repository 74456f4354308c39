//! Further findings of hostile reviews: edits over what this node only decided provisionally, answers that
//! only a follower could give, joins among conflicts. Each failed before it was mended.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly")]
mod harness;
use harness::{pair::*, *};
use ropeway_core::{
    change::Op::{Create, Delete, Patch},
    conflict::Resolution,
    receipt::Verdict,
};
use ropeway_replica::{ReplicaError, Resolve};
use serde_json::json;
use std::time::Duration;

const AT: &str = "2026-02-14T09:00:00Z";

fn answer(conflict: &ropeway_replica::ConflictView, resolution: Resolution) -> Resolve {
    Resolve { conflict: conflict.id.clone(), version: None, resolution, data: None, notes: None, change: None }
}

#[tokio::test]
async fn an_edit_over_a_provisional_join_contests_nobody() {
    let p = pair(PROFILE).await;
    p.w(&p.cloud, Create, "race", "r1", json!({"name": "Sprint"})).await;
    p.w(&p.cloud, Create, "incident", "s", json!({"race": "r1", "bib_number": 7, "created_at": AT})).await;
    p.sync().await;
    let twin = json!({"race": "r1", "bib_number": 7, "created_at": AT, "description": "x"});
    assert_eq!(p.w(&p.pi, Create, "incident", "b", twin).await.verdict, Verdict::Joined);
    p.w(&p.pi, Patch, "incident", "s", json!({"description": "x, corrected"})).await;
    let report = p.sync().await;
    println!("{:?}\n{}", report.verdicts, dump(&p.cloud).await);
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "incident", "s").await["description"], "x, corrected");
    assert!(p.cloud.conflicts(&space(), true).await.unwrap().is_empty(), "nobody else wrote");
}

#[tokio::test]
async fn an_edit_over_a_provisional_release_contests_nobody() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "box", "b2", json!({"name": "two"})).await;
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b2", "shelf": "b1"})).await;
    p.sync().await;
    p.w(&p.pi, Delete, "box", "b1", json!({})).await;
    p.w(&p.pi, Patch, "item", "i", json!({"shelf": "b2"})).await;
    for _ in 0..3 {
        p.sync().await;
    }
    assert_eq!(data(&p.cloud, "item", "i").await["shelf"], "b2");
    p.equal().await;
}

#[tokio::test]
async fn an_author_answers_at_the_follower_and_types_on() {
    let p = pair(&tree("latest", "author")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "pi"})).await;
    p.w(&p.cloud, Patch, "box", "b1", json!({"name": "cloud"})).await;
    p.sync().await;
    p.sync().await;
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    p.pi.resolve(&space(), &desk("referee", "device"), answer(&open[0], Resolution::Incoming)).await.unwrap();
    assert_eq!(data(&p.pi, "box", "b1").await["name"], "pi");
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "pi, corrected"})).await;
    for _ in 0..3 {
        p.sync().await;
    }
    println!("{:?}\n{}", p.pi.queue(&space()).await.unwrap(), dump(&p.cloud).await);
    p.equal().await;
    assert_eq!(data(&p.cloud, "box", "b1").await["name"], "pi, corrected");
}

#[tokio::test]
async fn a_conflict_that_only_the_follower_knows_is_answered_after_a_sync() {
    let p = pair(&tree("latest", "anyone")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one", "mine": "cloud's"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"mine": "pi's"})).await;
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    assert_eq!(open.len(), 1);
    let early = p.pi.resolve(&space(), &desk("referee", "admin"), answer(&open[0], Resolution::Incoming)).await;
    assert!(matches!(early, Err(ReplicaError::Moved(_))), "{early:?}");
    for _ in 0..2 {
        p.sync().await;
        p.clock.advance(Duration::from_secs(3600));
    }
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    p.pi.resolve(&space(), &desk("referee", "admin"), answer(&open[0], Resolution::Incoming)).await.unwrap();
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "box", "b1").await["mine"], "pi's");
    assert!(p.pi.queue(&space()).await.unwrap().is_empty());
}

/// A change that parks a field and joins two records, both of which are in conflicts already.
#[tokio::test]
async fn a_late_join_among_conflicts_is_decided() {
    let p = pair(ALIKE).await;
    p.w(&p.cloud, Create, "item", "i1", json!({"text": "a", "note": "a"})).await;
    p.w(&p.cloud, Create, "item", "i2", json!({"bib": 1, "text": "a"})).await;
    p.sync().await;
    p.w(&p.cloud, Patch, "item", "i1", json!({"note": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i1", json!({"note": "pi"})).await;
    p.w(&p.cloud, Patch, "item", "i2", json!({"text": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i2", json!({"text": "pi"})).await;
    p.sync().await;
    p.sync().await;
    p.w(&p.cloud, Patch, "item", "i1", json!({"text": "cloud"})).await;
    p.w(&p.pi, Patch, "item", "i1", json!({"text": "pi", "bib": 1})).await;
    let report = p.sync().await;
    println!("{report:?} {:?}", p.pi.queue(&space()).await.unwrap());
    assert!(!report.verdicts.contains_key(&Verdict::Rejected));
    p.sync().await;
    p.equal().await;
}
