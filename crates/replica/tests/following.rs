//! A Pi follows a cloud: the way of a change there and back, with everything that a cable can do to it.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{CutAfter, Trouble, Venue, data, desk, dump, fields, key, on_every_store, space, write};
use ropeway_core::{
    change::Op::{Create, Delete, Patch},
    conflict::Resolution,
    outbox::EntryState,
    receipt::Verdict,
    record::State,
    time::Stamp,
};
use ropeway_protocol::{Hello, Page, Pushed, Transport, TransportError};
use ropeway_replica::{FeedRequest, ReplicaError, Resolve, SyncOutcome};
use serde_json::json;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

async fn race(venue: &Venue) {
    write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
    let report = venue.sync().await;
    assert_eq!(report.outcome, Some(SyncOutcome::Done));
}

async fn incident(venue: &Venue, id: &str, bib: i64) {
    let values = json!({"race": "r1", "bib_number": bib, "description": "ski not stowed"});
    let receipt = write(&venue.pi, "referee", Create, "incident", id, values).await;
    assert_eq!(receipt.verdict, Verdict::Created, "{receipt:?}");
}

/// ISMF-001, ISMF-106: what was written with no network is readable on both sides after one sync.
/// Every case runs on PostgreSQL where a server is; without one this is what fails.
#[test]
fn a_postgres_server_is_there() {
    harness::server::server();
}

#[test]
fn offline_work_arrives_and_both_sides_are_equal() {
    on_every_store(|venue| async move {
        race(&venue).await;
        venue.cable.cut(true);
        for n in 0..5 {
            incident(&venue, &format!("i{n}"), n + 1).await;
        }
        let report = venue.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Offline));
        write(&venue.cloud, "var", Create, "incident", "c1", json!({"race": "r1", "bib_number": 77})).await;
        venue.cable.cut(false);
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Created), Some(&5));
        assert!(report.digests.is_some_and(|(a, b)| a == b), "{report:?}");
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        assert_eq!(data(&venue.pi, "incident", "c1").await["bib_number"], 77);
        venue.assert_equal().await;
    });
}

/// I1, I7, ISMF-153: lost requests, lost answers, duplicates and failures change nothing of the result,
/// and a retry sends the same bytes.
#[test]
fn lost_answers_and_duplicates_change_nothing() {
    on_every_store(|venue| async move {
        race(&venue).await;
        for n in 0..10 {
            incident(&venue, &format!("i{n}"), n + 1).await;
        }
        let troubles = [Trouble::LoseRequest, Trouble::LoseAnswer, Trouble::Fail, Trouble::Duplicate];
        venue.cable.pushes.lock().unwrap().extend(troubles);
        venue.cable.sent.lock().unwrap().clear();
        for _ in 0..6 {
            venue.sync().await;
        }
        let sent = venue.cable.sent.lock().unwrap().clone();
        assert!(sent.windows(2).all(|w| w[0] == w[1]), "a retry sends the same bytes");
        assert_eq!(dump(&venue.cloud).await.lines().count(), 11);
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        // What is new at its first arrival: the second gets the receipt that the first got.
        incident(&venue, "i10", 11).await;
        venue.cable.pushes.lock().unwrap().push_back(Trouble::Duplicate);
        for _ in 0..2 {
            venue.sync().await;
        }
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        venue.assert_equal().await;
    });
}

/// I7, TR-06: an edit made while its upload is in flight stays pending and arrives.
#[test]
fn an_edit_during_the_upload_stays_pending() {
    on_every_store(|venue| async move {
        race(&venue).await;
        incident(&venue, "i1", 1).await;
        let pi = venue.pi.clone();
        let handle = tokio::runtime::Handle::current();
        *venue.cable.during_push.lock().unwrap() = Some(Box::new(move || {
            let pi = pi.clone();
            let handle = handle.clone();
            std::thread::spawn(move || {
                handle.block_on(write(
                    &pi,
                    "referee",
                    Patch,
                    "incident",
                    "i1",
                    json!({"description": "typed on"}),
                ))
            })
            .join()
            .unwrap();
        }));
        venue.sync().await;
        assert_eq!(
            data(&venue.pi, "incident", "i1").await["description"],
            "typed on",
            "never lost from sight"
        );
        venue.sync().await;
        assert_eq!(data(&venue.cloud, "incident", "i1").await["description"], "typed on");
        venue.assert_equal().await;
    });
}

/// ISMF-166, TR-19: twelve hours without a network use up no retry.
#[test]
fn twelve_hours_offline_use_up_no_retry() {
    on_every_store(|venue| async move {
        race(&venue).await;
        venue.cable.cut(true);
        incident(&venue, "i1", 1).await;
        for _ in 0..(12 * 12) {
            venue.advance(Duration::from_secs(300));
            assert_eq!(venue.sync().await.outcome, Some(SyncOutcome::Offline));
        }
        let queue = venue.pi.queue(&space()).await.unwrap();
        assert_eq!((queue.len(), queue[0].attempts, queue[0].status), (1, 0, "pending"));
        venue.cable.cut(false);
        assert_eq!(venue.sync().await.outcome, Some(SyncOutcome::Done));
        venue.assert_equal().await;
    });
}

/// ISMF-119, ISMF-122, ISMF-123: what the upstream does not take is tried again on the profile's schedule and
/// then waits for a person, who may arm it again.
#[test]
fn a_refused_change_is_retried_on_schedule_and_then_failed() {
    on_every_store(|venue| async move {
        race(&venue).await;
        // The Pi deletes what the cloud still refers to: refused each time.
        write(&venue.cloud, "var", Create, "incident", "c1", json!({"race": "r1", "bib_number": 5})).await;
        let deleted = write(&venue.pi, "referee", Delete, "race", "r1", json!({})).await;
        assert_eq!(deleted.verdict, Verdict::Applied);
        let mut attempts = Vec::new();
        let mut waited = 0u64;
        for minute in 0..=(8 * 60) {
            venue.sync().await;
            let queue = venue.pi.queue(&space()).await.unwrap();
            if attempts.last() != Some(&queue[0].attempts) {
                attempts.push(queue[0].attempts);
                if minute > 0 {
                    waited = minute;
                }
            }
            venue.advance(Duration::from_secs(60));
        }
        assert_eq!(attempts, [1, 2, 3, 4, 5, 6], "one attempt and five retries");
        assert_eq!(waited, 1 + 5 + 15 + 60 + 360);
        let queue = venue.pi.queue(&space()).await.unwrap();
        assert_eq!((queue[0].status, queue[0].state), ("failed", EntryState::Rejected));
        assert!(queue[0].reason.as_ref().unwrap().text.contains("c1"), "{queue:?}");
        assert_eq!(venue.pi.queue_retry(&space(), &[]).await.unwrap(), 1);
        venue.sync().await;
        assert_eq!(venue.pi.queue(&space()).await.unwrap()[0].attempts, 1);
        // A person gives it up: the race is back, and both sides are equal.
        let seq = venue.pi.queue(&space()).await.unwrap()[0].seq;
        assert_eq!(venue.pi.queue_discard(&space(), &[seq]).await.unwrap(), 1);
        venue.sync().await;
        venue.assert_equal().await;
        assert_eq!(data(&venue.pi, "race", "r1").await["name"], "Sprint");
    });
}

/// Issue 2: a rejected record holds back only itself and its children, and goes through once corrected.
#[test]
fn a_rejected_record_holds_back_only_its_children() {
    on_every_store(|venue| async move {
        race(&venue).await;
        *venue.cable.refuse.lock().unwrap() = Some("refused".into());
        let bad = json!({"race": "r1", "bib_number": 1, "description": "refused"});
        write(&venue.pi, "referee", Create, "incident", "bad", bad).await;
        write(&venue.pi, "referee", Create, "report", "child", json!({"incident": "bad"})).await;
        incident(&venue, "good", 2).await;
        write(&venue.pi, "referee", Create, "report", "other", json!({"incident": "good"})).await;
        // One change a batch, so that the child is asked about after its parent was refused.
        *venue.cable.limit.lock().unwrap() = 1;
        let report = venue.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Partly));
        assert_eq!(report.verdicts.get(&Verdict::Rejected), Some(&1));
        assert_eq!(report.verdicts.get(&Verdict::Created), Some(&2), "good and its report went: {report:?}");
        let queue = venue.pi.queue(&space()).await.unwrap();
        let waits: Vec<_> = queue.iter().map(|q| (q.record.as_str(), q.state, q.attempts)).collect();
        assert_eq!(waits, [("bad", EntryState::Rejected, 1), ("child", EntryState::Pending, 0)]);
        assert_eq!(
            data(&venue.pi, "incident", "bad").await["description"],
            "refused",
            "its author still sees it"
        );
        // Corrected by a person, it goes at once, and its child with it.
        write(&venue.pi, "referee", Patch, "incident", "bad", json!({"description": "better"})).await;
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Created), Some(&2), "{report:?}");
        assert_eq!(data(&venue.cloud, "incident", "bad").await["description"], "better");
        venue.assert_equal().await;
    });
}

/// A batch over the upstream's limit is halved until it goes.
#[test]
fn a_batch_over_the_limit_is_halved() {
    on_every_store(|venue| async move {
        race(&venue).await;
        for n in 0..40 {
            incident(&venue, &format!("i{n}"), n + 1).await;
        }
        *venue.cable.limit.lock().unwrap() = 7;
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Created), Some(&40));
        venue.assert_equal().await;
    });
}

/// I6: a pull that is cut is invisible until it is complete, and goes on where it stopped.
#[test]
fn a_cut_pull_is_invisible_and_resumes() {
    on_every_store(|venue| async move {
        race(&venue).await;
        for n in 0..20 {
            let values = json!({"race": "r1", "bib_number": n + 1});
            write(&venue.cloud, "var", Create, "incident", &format!("c{n:02}"), values).await;
        }
        *venue.cable.page.lock().unwrap() = 3;
        venue.cable.pulls.lock().unwrap().clear();
        // Two pages arrive, then the cable goes.
        let before = dump(&venue.pi).await;
        let cut = CutAfter { cable: venue.cable.clone(), pages: 2.into(), arrives: false };
        let report = venue.pi.sync(&space(), &cut, &Default::default(), &|_| {}).await.unwrap();
        assert_eq!(report.outcome, Some(SyncOutcome::Offline));
        assert_eq!(dump(&venue.pi).await, before, "half a pull is not seen");
        let report = venue.sync().await;
        assert_eq!(report.pulled, 20, "the staged rows count too");
        venue.assert_equal().await;
    });
}

/// The first pull is taken in by portions: nobody sees a part of it, neither here nor below.
#[test]
fn a_first_pull_is_taken_in_by_portions() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "race", "r1", json!({"name": "Sprint"})).await;
        for n in 0..20 {
            let values = json!({"race": "r1", "bib_number": n + 1});
            write(&venue.cloud, "var", Create, "incident", &format!("c{n:02}"), values).await;
        }
        *venue.cable.page.lock().unwrap() = 3;
        let cut = CutAfter { cable: venue.cable.clone(), pages: 2.into(), arrives: false };
        let report = venue.pi.sync(&space(), &cut, &Default::default(), &|_| {}).await.unwrap();
        assert_eq!((report.outcome, report.pulled), (Some(SyncOutcome::Offline), 6));
        assert_eq!(dump(&venue.pi).await, "", "a part of it is not seen");
        let below = venue.pi.feed(&space(), &FeedRequest::default()).await;
        assert!(matches!(below, Err(ReplicaError::Busy(_))), "nor handed on: {below:?}");
        // The desk is open meanwhile, and what it writes shows.
        write(&venue.pi, "referee", Create, "race", "r2", json!({"name": "Relay"})).await;
        assert_eq!(dump(&venue.pi).await.lines().count(), 1);
        let report = venue.sync().await;
        assert_eq!(
            (report.outcome, report.pulled),
            (Some(SyncOutcome::Done), 16),
            "it went on where it was cut"
        );
        venue.assert_equal().await;
        assert_eq!(dump(&venue.pi).await.lines().count(), 22);
        assert!(venue.pi.feed(&space(), &FeedRequest::default()).await.is_ok());
    });
}

/// Somebody writes on while the sync sends: it ends all the same, and the next one sends the rest.
#[test]
fn a_desk_that_never_rests_does_not_keep_a_sync_from_its_end() {
    on_every_store(|venue| async move {
        race(&venue).await;
        incident(&venue, "i0", 1).await;
        let busy = Busy { pi: venue.pi.clone(), cable: venue.cable.clone(), pushes: 0.into() };
        let report = venue.pi.sync(&space(), &busy, &Default::default(), &|_| {}).await.unwrap();
        assert_eq!((report.pushed, busy.pushes.load(Relaxed)), (1, 1));
        let report = venue.sync().await;
        assert_eq!((report.outcome, report.pushed), (Some(SyncOutcome::Done), 1));
        venue.assert_equal().await;
    });
}

/// A cable during whose every push somebody writes.
struct Busy {
    pi: ropeway_replica::Node,
    cable: std::sync::Arc<harness::Cable>,
    pushes: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl Transport for Busy {
    async fn hello(&self) -> Result<Hello, TransportError> {
        self.cable.hello().await
    }
    async fn push(&self, body: bytes::Bytes) -> Result<Pushed, TransportError> {
        let n = self.pushes.fetch_add(1, Relaxed);
        if n < 9 {
            let values = json!({"race": "r1", "bib_number": n + 10});
            write(&self.pi, "referee", Create, "incident", &format!("busy{n}"), values).await;
        }
        self.cable.push(body).await
    }
    async fn pull(&self, cursor: Option<&str>, limit: usize) -> Result<Page, TransportError> {
        self.cable.pull(cursor, limit).await
    }
    async fn live(&self, on_head: Box<dyn FnMut(Stamp) + Send>) -> Result<(), TransportError> {
        self.cable.live(on_head).await
    }
}

/// Issue 2, ISMF-155: the Pi is parked, edits again, edits other fields; the jury resolves on the cloud; both
/// sides show the same and every value that anybody entered can be found.
#[test]
fn parked_edited_again_and_resolved() {
    on_every_store(|venue| async move {
        race(&venue).await;
        incident(&venue, "i1", 42).await;
        venue.sync().await;
        venue.cable.cut(true);
        let jury = json!({"decision": "no_action", "decided_by": "User A"});
        write(&venue.cloud, "User A", Patch, "incident", "i1", jury).await;
        let referee = json!({"decision": "penalty_applied", "decided_by": "User B"});
        write(&venue.pi, "User B", Patch, "incident", "i1", referee).await;
        venue.cable.cut(false);
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Parked), Some(&1), "{report:?}");
        assert_eq!(
            data(&venue.pi, "incident", "i1").await["decision"],
            "no_action",
            "the server's value shows"
        );
        assert_eq!(
            venue.pi.conflicts(&space(), true).await.unwrap().len(),
            1,
            "the Pi sees the conflict too"
        );
        venue.assert_equal().await;
        // Again, and another field.
        let again =
            write(&venue.pi, "User B", Patch, "incident", "i1", json!({"decided_by": "User B, sure"})).await;
        assert_eq!(again.verdict, Verdict::Parked);
        write(&venue.pi, "User B", Patch, "incident", "i1", json!({"note": "seen on video"})).await;
        venue.sync().await;
        venue.assert_equal().await;
        let open = venue.cloud.conflicts(&space(), true).await.unwrap();
        assert_eq!(open.len(), 1, "the same conflict, its parked side replaced");
        assert_eq!(open[0].conflict.incoming.values["decided_by"], "User B, sure");
        assert_eq!(data(&venue.cloud, "incident", "i1").await["note"], "seen on video");
        // At the top's own desk the open group is refused, naming the conflict.
        let refused =
            write(&venue.cloud, "User A", Patch, "incident", "i1", json!({"decision": "pending"})).await;
        assert!(refused.reason.unwrap().text.contains(open[0].id.as_str()));
        let answer = Resolve {
            conflict: open[0].id.clone(),
            version: Some(open[0].version),
            resolution: Resolution::Incoming,
            data: None,
            notes: Some("the video shows it".into()),
            change: None,
        };
        let jury = desk("President", "admin");
        let stale = Resolve { version: Some(1), ..answer.clone() };
        assert!(venue.cloud.resolve(&space(), &jury, stale).await.is_err(), "it moved since version 1");
        venue.cloud.resolve(&space(), &jury, answer).await.unwrap();
        venue.sync().await;
        venue.assert_equal().await;
        for node in [&venue.cloud, &venue.pi] {
            let now = data(node, "incident", "i1").await;
            assert_eq!(
                (now["decision"].as_str(), now["decided_by"].as_str()),
                (Some("penalty_applied"), Some("User B, sure"))
            );
            assert!(node.conflicts(&space(), true).await.unwrap().is_empty());
        }
        let everything = everything(&venue).await;
        for value in ["User A", "User B", "User B, sure", "no_action", "penalty_applied", "seen on video"] {
            assert!(everything.contains(&format!("\"{value}\"")), "{value} can be found");
        }
    });
}

/// All text that the cloud keeps about the incident and its conflicts: records and history.
async fn everything(venue: &Venue) -> String {
    let mut out = String::new();
    let mut keys = vec![key("incident", "i1")];
    keys.extend(
        venue.cloud.conflicts(&space(), false).await.unwrap().into_iter().map(|c| key("conflict", &c.id)),
    );
    for key in keys {
        out.push_str(venue.cloud.get(&space(), &key).await.unwrap().unwrap().data.text());
        for old in venue.cloud.history(&space(), &key).await.unwrap() {
            out.push_str(old.record.data.text());
        }
    }
    out
}

/// ISMF-076, TR-01, TR-03: twins are joined, their reports follow, nothing of the joined one is lost, and the
/// jury can undo it.
#[test]
fn twins_join_and_part_again() {
    on_every_store(|venue| async move {
        race(&venue).await;
        venue.cable.cut(true);
        let cloud = json!({"race": "r1", "bib_number": 42, "location": "T1", "description": "seen by VAR", "created_at": "2026-02-14T10:32:10Z"});
        write(&venue.cloud, "var", Create, "incident", "cloud-1", cloud).await;
        let pi = json!({"race": "r1", "bib_number": 42, "location": "T1", "description": "seen at T1", "note": "left ski", "created_at": "2026-02-14T10:32:31Z"});
        write(&venue.pi, "referee", Create, "incident", "pi-1", pi).await;
        write(
            &venue.pi,
            "referee",
            Create,
            "report",
            "rep-1",
            json!({"incident": "pi-1", "description": "x"}),
        )
        .await;
        venue.cable.cut(false);
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Joined), Some(&1), "{report:?}");
        venue.assert_equal().await;
        for node in [&venue.cloud, &venue.pi] {
            let joined = node.get(&space(), &key("incident", "pi-1")).await.unwrap().unwrap();
            assert!(matches!(&joined.state, State::Joined(s) if s.as_str() == "cloud-1"));
            assert_eq!(joined.data.str("description"), Some("seen at T1"), "its own data is kept");
            assert_eq!(
                data(node, "incident", "cloud-1").await["note"],
                "left ski",
                "what was missing is brought"
            );
            assert_eq!(
                data(node, "incident", "cloud-1").await["description"],
                "seen by VAR",
                "the earlier one stays"
            );
            assert_eq!(data(node, "report", "rep-1").await["incident"], "pi-1", "no child is touched");
        }
        // A later edit of the joined id lands on the survivor.
        let late =
            write(&venue.pi, "referee", Patch, "incident", "pi-1", json!({"note": "left ski, twice"})).await;
        assert!(late.verdict.is_settled());
        venue.sync().await;
        venue.assert_equal().await;
        assert_eq!(data(&venue.cloud, "incident", "cloud-1").await["note"], "left ski, twice");
        let all = venue.cloud.conflicts(&space(), false).await.unwrap();
        let join = all.iter().find(|c| c.id.ends_with(":join")).unwrap();
        let answer = Resolve {
            conflict: join.id.clone(),
            version: None,
            resolution: Resolution::Apart,
            data: None,
            notes: None,
            change: None,
        };
        venue.cloud.resolve(&space(), &desk("President", "admin"), answer).await.unwrap();
        venue.sync().await;
        venue.assert_equal().await;
        for node in [&venue.cloud, &venue.pi] {
            assert!(node.get(&space(), &key("incident", "pi-1")).await.unwrap().unwrap().is_live());
            assert_eq!(
                data(node, "incident", "cloud-1").await["note"],
                "left ski, twice",
                "changed since: stays"
            );
        }
    });
}

/// I9: a revoked device can do neither and keeps its outbox; a wrong token too.
#[test]
fn a_revoked_device_keeps_its_outbox() {
    on_every_store(|venue| async move {
        race(&venue).await;
        incident(&venue, "i1", 1).await;
        venue.cloud.revoke(&space(), &venue.device.device.id).await.unwrap();
        let report = venue.sync().await;
        assert_eq!(report.outcome, Some(SyncOutcome::Failed));
        assert_eq!(report.problem, Some(ropeway_protocol::ProblemCode::DeviceRevoked));
        assert_eq!(venue.pi.queue(&space()).await.unwrap().len(), 1);
    });
}

/// I12: a sync with nothing to do moves nothing.
#[test]
fn a_sync_with_nothing_to_do_moves_nothing() {
    on_every_store(|venue| async move {
        race(&venue).await;
        incident(&venue, "i1", 1).await;
        venue.sync().await;
        let before = venue.pi.store().space(&space()).await.unwrap();
        let cloud = venue.cloud.store().space(&space()).await.unwrap();
        for _ in 0..2 {
            let report = venue.sync().await;
            assert_eq!((report.pushed, report.pulled), (0, 0));
        }
        assert_eq!(venue.pi.store().space(&space()).await.unwrap(), before);
        assert_eq!(venue.cloud.store().space(&space()).await.unwrap(), cloud);
        assert!(fields(json!({})).is_empty());
    });
}

/// ISMF-009, CT-25: what the cloud created, the Pi does not change silently: its edit waits there and here as
/// the same open conflict, and both sides go on showing the cloud's value.
#[test]
fn an_edit_of_the_other_sides_record_waits_on_both_sides() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "course", "c1", json!({"name": "Verbier"})).await;
        venue.sync().await;
        let receipt = write(&venue.pi, "referee", Patch, "course", "c1", json!({"name": "Bagnes"})).await;
        assert_eq!(receipt.verdict, Verdict::Parked);
        assert_eq!(venue.pi.queue(&space()).await.unwrap().len(), 1, "it is relayed all the same");
        assert_eq!(data(&venue.pi, "course", "c1").await["name"], "Verbier");
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Parked), Some(&1), "{report:?}");
        venue.assert_equal().await;
        for node in [&venue.cloud, &venue.pi] {
            let open = node.conflicts(&space(), true).await.unwrap();
            assert_eq!(open.len(), 1);
            assert_eq!(open[0].conflict.incoming.values["name"], "Bagnes");
        }
    });
}

/// What the Pi deletes and the cloud refuses comes back with everything that fell with it, once it is given up.
#[test]
fn a_cascade_that_the_upstream_refuses_is_undone() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "admin", Create, "course", "c1", json!({"name": "Verbier"})).await;
        write(&venue.cloud, "admin", Create, "gate", "g1", json!({"course": "c1", "name": "Gate 1"})).await;
        venue.sync().await;
        // Meanwhile something that refuses the deletion hangs on it in the cloud.
        write(&venue.cloud, "admin", Create, "camera", "k1", json!({"course": "c1"})).await;
        let deleted = write(&venue.pi, "referee", Delete, "course", "c1", json!({})).await;
        assert_eq!(deleted.verdict, Verdict::Applied);
        assert!(
            !venue.pi.get(&space(), &key("gate", "g1")).await.unwrap().unwrap().is_live(),
            "it fell here"
        );
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Rejected), Some(&1), "{report:?}");
        let seq = venue.pi.queue(&space()).await.unwrap()[0].seq;
        venue.pi.queue_discard(&space(), &[seq]).await.unwrap();
        venue.sync().await;
        venue.assert_equal().await;
        assert_eq!(data(&venue.pi, "gate", "g1").await["name"], "Gate 1");
        assert!(venue.pi.get(&space(), &key("gate", "g1")).await.unwrap().unwrap().is_live(), "and is back");
    });
}
