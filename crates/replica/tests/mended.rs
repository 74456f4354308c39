//! What a hostile review found, each as a story that failed before it was mended.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, unused_imports, reason = "tests fail loudly")]
mod harness;
use async_trait::async_trait;
use bytes::Bytes;
use harness::{pair::*, *};
use ropeway_core::{
    change::Op::{self, Create, Delete, Patch},
    conflict::Resolution,
    id::{Epoch, RecordId},
    outbox::EntryState,
    profile,
    receipt::{Receipt, Verdict},
    time::{Stamp, Time},
};
use ropeway_protocol::{Hello, Page, Problem, ProblemCode, Pushed, Transport, TransportError};
use ropeway_replica::*;
use ropeway_store::{MemoryStore, Stored};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// A child is moved out of a box, then the box is deleted: the delete must not overtake the move.
#[tokio::test]
async fn a_delete_waits_for_the_move_that_saves_the_child() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "box", "b2", json!({"name": "two"})).await;
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b1", "text": "precious"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "item", "i", json!({"note": "look"})).await;
    p.w(&p.pi, Patch, "item", "i", json!({"box": "b2"})).await;
    p.w(&p.pi, Delete, "box", "b1", json!({})).await;
    assert_eq!(data(&p.pi, "item", "i").await["box"], "b2");
    for _ in 0..3 {
        p.sync().await;
    }
    println!("cloud {}\npi {}", dump(&p.cloud).await, dump(&p.pi).await);
    assert!(p.pi.get(&space(), &key("item", "i")).await.unwrap().unwrap().is_live(), "the child was lost");
    p.equal().await;
}

#[tokio::test]
async fn a_delete_waits_for_the_move_to_another_shelf() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.w(&p.cloud, Create, "box", "b2", json!({"name": "two"})).await;
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b2", "shelf": "b1"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "item", "i", json!({"note": "look"})).await;
    p.w(&p.pi, Patch, "item", "i", json!({"shelf": "b2"})).await;
    p.w(&p.pi, Delete, "box", "b1", json!({})).await;
    for _ in 0..3 {
        p.sync().await;
    }
    assert_eq!(data(&p.cloud, "item", "i").await["shelf"], "b2");
    p.equal().await;
}

#[tokio::test]
async fn a_coalesced_edit_made_under_a_fast_clock_goes() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    let now = p.clock.now();
    p.clock.jump_to(now.plus(365 * 86_400_000_000));
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "two"})).await;
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "three"})).await;
    p.clock.jump_to(now);
    let report = p.sync().await;
    println!("{report:?} {:?}", p.pi.queue(&space()).await.unwrap());
    assert_eq!(data(&p.cloud, "box", "b1").await["name"], "three");
}

#[tokio::test]
async fn a_retry_scheduled_under_a_fast_clock_goes() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    let now = p.clock.now();
    *p.cable.refuse.lock().unwrap() = Some("two".into());
    p.clock.jump_to(now.plus(365 * 86_400_000_000));
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "two"})).await;
    p.sync().await;
    p.clock.jump_to(now);
    *p.cable.refuse.lock().unwrap() = None;
    p.clock.advance(Duration::from_secs(3600));
    p.sync().await;
    assert_eq!(data(&p.cloud, "box", "b1").await["name"], "two");
}

/// Passes through, with faults of an upstream that does not keep the protocol.
struct Odd {
    cable: Arc<Cable>,
    drop_receipts: bool,
    bad_cursor: bool,
    page: usize,
    calls: std::sync::atomic::AtomicU64,
}
#[async_trait]
impl Transport for Odd {
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.cable.hello().await
    }
    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::yield_now().await;
        let mut pushed = self.cable.push(body).await?;
        if self.drop_receipts {
            pushed.receipts.pop();
        }
        Ok(pushed)
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::yield_now().await;
        if cursor.is_some() && self.bad_cursor {
            return Err(TransportError::Problem(Problem::new(ProblemCode::CursorInvalid, "not mine")));
        }
        self.cable.pull(cursor, limit.min(self.page)).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.cable.live(on_head).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_receipt_ends_the_sync() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.pi, Create, "box", "b1", json!({"name": "one"})).await;
    let odd = Odd {
        cable: p.cable.clone(),
        drop_receipts: true,
        bad_cursor: false,
        page: 5000,
        calls: Default::default(),
    };
    let ended = tokio::time::timeout(
        Duration::from_secs(3),
        p.pi.sync(&space(), &odd, &SyncOptions::default(), &|_| {}),
    )
    .await;
    println!("{} requests", odd.calls.load(std::sync::atomic::Ordering::Relaxed));
    assert!(ended.is_ok(), "the sync goes round and round");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_cursor_in_the_middle_ends_the_sync() {
    let p = pair(&tree("latest", "upstream")).await;
    for n in 0..5 {
        p.w(&p.cloud, Create, "box", &format!("b{n}"), json!({"name": "one"})).await;
    }
    let odd = Odd {
        cable: p.cable.clone(),
        drop_receipts: false,
        bad_cursor: true,
        page: 2,
        calls: Default::default(),
    };
    let ended = tokio::time::timeout(
        Duration::from_secs(3),
        p.pi.sync(&space(), &odd, &SyncOptions::default(), &|_| {}),
    )
    .await;
    println!("{} requests", odd.calls.load(std::sync::atomic::Ordering::Relaxed));
    assert!(ended.is_ok(), "the sync goes round and round");
}

#[tokio::test]
async fn a_correction_carries_no_outdated_base() {
    let p = pair(PROFILE).await;
    p.w(&p.cloud, Create, "race", "r1", json!({"name": "Sprint"})).await;
    p.w(
        &p.cloud,
        Create,
        "incident",
        "i",
        json!({"race": "r1", "bib_number": 7, "description": "d", "location": "l0"}),
    )
    .await;
    p.sync().await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.pi, Patch, "incident", "i", json!({"description": "bad"})).await;
    p.w(&p.cloud, Patch, "incident", "i", json!({"location": "l1"})).await;
    p.sync().await;
    assert_eq!(data(&p.pi, "incident", "i").await["location"], "l1", "the person sees l1");
    p.w(&p.pi, Patch, "incident", "i", json!({"description": "good", "location": "l2"})).await;
    let report = p.sync().await;
    println!("{:?}\n{}", report.verdicts, dump(&p.cloud).await);
    p.sync().await;
    assert_eq!(data(&p.cloud, "incident", "i").await["location"], "l2", "nobody contested it");
}

#[tokio::test]
async fn a_tablet_may_not_answer_at_the_pi_what_only_the_upstream_may() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "pi"})).await;
    p.w(&p.cloud, Patch, "box", "b1", json!({"name": "cloud"})).await;
    p.sync().await;
    p.sync().await;
    let open = p.pi.conflicts(&space(), true).await.unwrap();
    assert_eq!(open.len(), 1);
    let tablet =
        p.pi.enrol(Enrolment {
            id: None,
            name: "t".into(),
            space: space(),
            role: "admin".into(),
            mode: "offline_device".into(),
            metadata: json!({}),
        })
        .await
        .unwrap();
    let answer = Resolve {
        conflict: open[0].id.clone(),
        version: None,
        resolution: Resolution::Incoming,
        data: None,
        notes: None,
        change: None,
    };
    let r = p.pi.resolve_for(&tablet.device, None, answer).await;
    println!("{r:?}");
    for _ in 0..10 {
        p.sync().await;
        p.clock.advance(Duration::from_secs(3600));
    }
    println!("{:?}", p.pi.queue(&space()).await.unwrap());
    p.equal().await;
}

#[tokio::test]
async fn a_change_too_large_is_told() {
    let p = pair(&tree("latest", "upstream")).await;
    p.w(&p.pi, Create, "box", "b1", json!({"name": "one"})).await;
    *p.cable.limit.lock().unwrap() = 0;
    let report = p.sync().await;
    println!("{report:?}");
    assert_eq!(report.outcome, Some(SyncOutcome::Partly));
}

#[tokio::test]
async fn a_discard_leaves_an_edit_that_came_between() {
    let p = pair(&tree("latest", "upstream")).await;
    *p.cable.refuse.lock().unwrap() = Some("bad".into());
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "bad"})).await;
    p.sync().await;
    let chosen = p.pi.store().outbox(&space(), &[EntryState::Rejected], i64::MIN, 10).await.unwrap();
    p.w(&p.pi, Patch, "box", "b1", json!({"name": "good"})).await;
    let keys = ropeway_core::plan::Keys {
        outbox: chosen.iter().map(|e| e.over.clone()).collect(),
        ..Default::default()
    };
    let profile = p.pi.profile().clone();
    let decide: ropeway_store::Decide =
        Box::new(move |snapshot| ropeway_core::absorb::discard(snapshot, &chosen, &profile));
    p.pi.store().transact(&space(), p.clock.now(), keys, decide).await.unwrap();
    p.sync().await;
    assert_eq!(
        data(&p.cloud, "box", "b1").await["name"],
        "good",
        "acknowledged after the discard was asked for"
    );
}

#[tokio::test]
async fn a_record_made_by_a_patch_and_joined_here_leaves() {
    let p = pair(ALIKE).await;
    p.w(&p.cloud, Create, "item", "s", json!({"bib": 1})).await;
    p.sync().await;
    let r = p.w(&p.pi, Patch, "item", "b", json!({"bib": 1, "text": "x"})).await;
    assert_eq!(r.verdict, Verdict::Joined);
    for _ in 0..3 {
        p.sync().await;
    }
    println!("{:?}", p.pi.queue(&space()).await.unwrap());
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "s").await["text"], "x");
}

#[tokio::test]
async fn a_record_written_again_after_a_discard_leaves() {
    let p = pair(ALIKE).await;
    p.w(&p.pi, Create, "item", "b", json!({"bib": 1, "text": "x"})).await;
    let q = p.pi.queue(&space()).await.unwrap();
    p.pi.queue_discard(&space(), &[q[0].seq]).await.unwrap();
    let r = p.w(&p.pi, Patch, "item", "b", json!({"bib": 1, "text": "y"})).await;
    println!("{r:?}");
    for _ in 0..3 {
        p.sync().await;
    }
    println!("{:?}", p.pi.queue(&space()).await.unwrap());
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "b").await["text"], "y");
}

/// A create is given up, and what it held is written again after the upstream made the record itself: what
/// only this node ever saw is no base, or a set takes it for taken away.
#[tokio::test]
async fn what_a_given_up_create_held_is_new_when_it_is_written_again() {
    let text = tree("latest", "upstream")
        .replace("note = {", "tags = { type = \"list\", merge = \"union\" }\nnote = {");
    let p = pair(&text).await;
    p.w(&p.cloud, Create, "box", "b1", json!({"name": "one"})).await;
    p.sync().await;
    p.w(&p.pi, Create, "item", "i", json!({"box": "b1", "tags": ["red"]})).await;
    let seq = p.pi.queue(&space()).await.unwrap()[0].seq;
    p.pi.queue_discard(&space(), &[seq]).await.unwrap();
    p.w(&p.cloud, Create, "item", "i", json!({"box": "b1"})).await;
    p.w(&p.pi, Patch, "item", "i", json!({"tags": ["red"]})).await;
    p.sync().await;
    p.equal().await;
    assert_eq!(data(&p.cloud, "item", "i").await["tags"], json!(["red"]));
}
