//! A push to an upstream that was restored after its follower last heard of it: refused as a whole by the epoch for
//! which it was made, whenever the restore came, and what was lost is offered first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use async_trait::async_trait;
use bytes::Bytes;
use harness::{
    Cable, CutAfter, On, Trouble, dump,
    place::{Image, Place, assert_equal, clock, on_each},
    space,
};
use ropeway_core::{change::Batch, id::Epoch, nonce::Pair, receipt::Verdict, time::Stamp};
use ropeway_protocol::{Hello, Page, Problem, ProblemCode, Push, Pushed, Transport, TransportError};
use ropeway_replica::{ReplicaError, SyncOptions, SyncReport};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// A cloud and a Pi that agree, and an image of the cloud from then.
async fn venue(on: On) -> (Place, Place, String, Image) {
    let clock = clock();
    let (cloud, pi) =
        (Place::new(on, "cloud", false, &clock).await, Place::new(on, "pi", true, &clock).await);
    let token = cloud.device("Pi").await;
    cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
    pi.sync(&cloud.cable(&token)).await;
    let image = cloud.image().await;
    (cloud, pi, token, image)
}

fn code(refused: Result<Pushed, TransportError>) -> ProblemCode {
    match refused {
        Err(TransportError::Problem(Problem { code, .. })) => code,
        other => panic!("it was answered: {other:?}"),
    }
}

/// The way to an upstream that is restored while a sync is under way: after so many pushes.
struct Restored {
    was: Cable,
    now_is: Cable,
    left: AtomicUsize,
    /// What the restored one answered to pushes.
    said: Mutex<Vec<Option<ProblemCode>>>,
}

impl Restored {
    fn cable(&self) -> &Cable {
        if self.left.load(Relaxed) > 0 { &self.was } else { &self.now_is }
    }
}

#[async_trait]
impl Transport for Restored {
    fn present(&self, pair: &Pair) {
        self.was.present(pair);
        self.now_is.present(pair);
    }
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.cable().hello().await
    }
    async fn push(&self, body: Bytes) -> Result<Pushed, TransportError> {
        if self.left.load(Relaxed) > 0 {
            let pushed = self.was.push(body).await;
            self.left.fetch_sub(1, Relaxed);
            return pushed;
        }
        let pushed = self.now_is.push(body).await;
        self.said.lock().unwrap().push(match &pushed {
            Err(TransportError::Problem(problem)) => Some(problem.code),
            _ => None,
        });
        pushed
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.cable().pull(cursor, limit).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.cable().live(on_head).await
    }
}

/// Syncs with a cloud that is restored after so many pushes of one change each; the cloud as it is then.
async fn restored_after(
    pushes: usize,
    (mut cloud, pi, token, image): (Place, &Place, &str, &Image),
) -> (Place, Restored, SyncReport) {
    let was = cloud.cable(token);
    cloud.restore(image, "again").await;
    let way =
        Restored { was, now_is: cloud.cable(token), left: AtomicUsize::new(pushes), said: Mutex::default() };
    let options = SyncOptions { batch_changes: 1, ..SyncOptions::default() };
    let report = pi.node.sync(&space(), &way, &options, &|_| {}).await.unwrap();
    (cloud, way, report)
}

/// The upstream is restored between two batches of one sync. The second one refers to what went with the first:
/// decided at once it would wait for a parent that the restored upstream has lost.
#[test]
fn a_restore_between_two_batches_decides_nothing_of_the_second() {
    on_each(async |on| {
        let (cloud, pi, token, image) = venue(on).await;
        pi.put("Ada", "race", "race-2", json!({ "name": "Relay" })).await;
        pi.put("Ada", "incident", "i", json!({ "race": "race-2", "description": "skis" })).await;
        let (cloud, way, report) = restored_after(1, (cloud, &pi, &token, &image)).await;
        let said = way.said.into_inner().unwrap();
        assert_eq!(said.first(), Some(&Some(ProblemCode::EpochChanged)), "{said:?}");
        assert!(said[1..].iter().all(Option::is_none), "{said:?}");
        assert!(!report.verdicts.contains_key(&Verdict::Waiting), "{:?}", report.verdicts);
        assert_eq!(cloud.field("incident", "i", "description").await, "skis");
        assert_eq!(cloud.node.conflicts(&space(), false).await.unwrap().len(), 0);
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
    });
}

/// The upstream decides, its answer is lost, and it is restored to before that: sent again, the batch is refused,
/// and its change is decided once.
#[test]
fn a_batch_whose_answer_was_lost_is_refused_by_the_restored_upstream() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        pi.put("Ada", "incident", "i", json!({ "race": "race-1", "description": "skis" })).await;
        let cable = cloud.cable(&token);
        cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
        pi.sync(&cable).await;
        let whole = dump(&cloud.node).await;
        cloud.restore(&image, "again").await;
        let cable = cloud.cable(&token);
        let late = cable.push(pi.store().sealed(&space()).await.unwrap().unwrap().body.into()).await;
        assert_eq!(code(late), ProblemCode::EpochChanged);
        let report = pi.sync(&cable).await;
        assert_eq!(report.verdicts, BTreeMap::from([(Verdict::Created, 1)]), "{report:?}");
        assert_eq!(dump(&cloud.node).await, whole);
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
    });
}

/// A push that was under way while its node was restored arrives late: nothing of it is decided, not even what the
/// backup knows or an empty batch. One that names no epoch is decided as ever, and garbage in its place is not an
/// epoch.
#[test]
fn a_push_for_another_epoch_decides_nothing() {
    on_each(async |on| {
        let (mut cloud, pi, token, image) = venue(on).await;
        pi.put("Ada", "incident", "i", json!({ "race": "race-1", "description": "skis" })).await;
        let cable = cloud.cable(&token);
        pi.sync(&cable).await;
        let sent = cable.sent.lock().unwrap().pop().unwrap();
        cloud.restore(&image, "again").await;
        let before = dump(&cloud.node).await;
        let cable = cloud.cable(&token);
        assert_eq!(code(cable.push(sent.clone()).await), ProblemCode::EpochChanged);
        let push: Push = serde_json::from_slice(&sent).unwrap();
        assert_eq!(push.epoch, Some(Epoch::trusted("epoch-cloud")));
        let as_bytes = |push: &Push| Bytes::from(serde_json::to_vec(push).unwrap());
        let empty = Push { changes: Vec::new(), ..push.clone() };
        assert_eq!(code(cable.push(as_bytes(&empty)).await), ProblemCode::EpochChanged);
        // Restored after the door had looked: the decision looks again, under the space's lock.
        let device = cloud.node.authenticate(&token).await.unwrap();
        let batch = Batch::new(cloud.node.grant_of(&device), push.changes.clone());
        let batch = Batch { epoch: push.epoch.clone(), ..batch };
        let refused = cloud.node.take(&space(), batch).await;
        assert!(matches!(refused, Err(ReplicaError::EpochChanged)), "{refused:?}");
        assert_eq!(dump(&cloud.node).await, before);
        let silent = Push { epoch: None, ..push };
        let pushed = cable.push(as_bytes(&silent)).await.unwrap();
        assert_eq!(pushed.receipts[0].verdict, Verdict::Created);
        let now_is = cloud.store().space(&space()).await.unwrap().epoch;
        assert_eq!(pushed.epoch, now_is);
        let named = Push { epoch: Some(now_is), ..silent };
        assert_eq!(
            cable.push(as_bytes(&named)).await.unwrap().receipts[0].verdict,
            Verdict::Created,
            "a replay"
        );
    });
}

/// Also a revoked device's: what it is to hand in includes what was lost, and that goes first.
#[test]
fn a_revoked_device_offers_what_was_lost_before_it_hands_in() {
    on_each(async |on| {
        let (mut cloud, pi, token, _) = venue(on).await;
        let device = cloud.node.authenticate(&token).await.unwrap();
        cloud.node.revoke(&space(), &device.id).await.unwrap();
        let revoked = cloud.image().await;
        cloud.store().put_device(&device).await.unwrap();
        pi.put("Ada", "incident", "lost", json!({ "race": "race-1", "description": "lost" })).await;
        pi.sync(&cloud.cable(&token)).await;
        assert_eq!(pi.unsettled().await, 0);
        cloud.restore(&revoked, "again").await;
        pi.put("Ada", "incident", "new", json!({ "race": "race-1", "description": "new" })).await;
        pi.sync(&cloud.cable(&token)).await;
        let kept = cloud.node.quarantined(&space()).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|q| q.change.record.to_string()).collect();
        assert_eq!(kept, ["lost", "new"], "in their order");
    });
}

/// A device that has never read to the end does not know the epoch either. What its upstream took in and lost again
/// since is offered again all the same, and is not taken for a deletion.
#[test]
fn what_was_lost_before_the_first_pull_ended_is_offered_again() {
    on_each(async |on| {
        for cut_after in [0, 1] {
            let clock = clock();
            let (mut cloud, pi) =
                (Place::new(on, "cloud", false, &clock).await, Place::new(on, "pi", true, &clock).await);
            let token = cloud.device("Pi").await;
            cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
            cloud.put("VAR", "race", "race-2", json!({ "name": "Relay" })).await;
            let image = cloud.image().await;
            pi.put("Ada", "race", "mine", json!({ "name": "Slalom" })).await;
            pi.put("Ada", "incident", "i", json!({ "race": "mine", "description": "skis" })).await;
            let cable = cloud.cable(&token);
            let cut = CutAfter { cable: cable.into(), pages: cut_after.into(), arrives: false };
            let options = SyncOptions { page: 1, ..SyncOptions::default() };
            let report = pi.node.sync(&space(), &cut, &options, &|_| {}).await.unwrap();
            assert_eq!(report.pushed, 2, "{report:?}");
            cloud.restore(&image, "again").await;
            cloud.put("VAR", "race", "race-3", json!({ "name": "Later" })).await;
            let cable = cloud.cable(&token);
            pi.sync(&cable).await;
            pi.sync(&cable).await;
            assert_eq!(pi.field("incident", "i", "description").await, "skis", "{cut_after}");
            assert_eq!(cloud.field("incident", "i", "description").await, "skis", "{cut_after}");
            assert_eq!(pi.unsettled().await, 0);
            assert_equal(&cloud, &pi).await;
        }
    });
}
