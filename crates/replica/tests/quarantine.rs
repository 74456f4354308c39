//! I9: what a revoked device made is handed in to quarantine, once, and waits there for an administrator.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod harness;

use harness::*;
use ropeway_core::{
    change::{Change, Op},
    id::ChangeId,
    limits,
    receipt::Verdict,
    retention::Keep,
};
use ropeway_protocol::ProblemCode;
use ropeway_replica::{Enrolment, ReplicaError};
use serde_json::json;
use std::time::Duration;

/// A race that both know, and work of the Pi when its device has been revoked: an incident, an edit of it that
/// is made after the first sync, and a report on it.
async fn revoked(venue: &Venue) {
    write(&venue.cloud, "var", Op::Create, "race", "r1", json!({"name": "Verbier"})).await;
    venue.sync().await;
    let incident = json!({"race": "r1", "bib_number": 7, "created_at": START, "description": "fell"});
    write(&venue.pi, "referee", Op::Create, "incident", "i1", incident).await;
    venue.cloud.revoke(&space(), &venue.device.device.id).await.unwrap();
    let report = venue.sync().await;
    assert_eq!(report.problem, Some(ProblemCode::DeviceRevoked));
    write(&venue.pi, "referee", Op::Patch, "incident", "i1", json!({"description": "fell hard"})).await;
    write(&venue.pi, "referee", Op::Create, "report", "p1", json!({"incident": "i1", "description": "seen"}))
        .await;
    venue.sync().await;
}

async fn register_anew(venue: &Venue) {
    let enrolment = Enrolment {
        id: None,
        name: "Start Line Pi, again".into(),
        space: space(),
        role: "device".into(),
        mode: "offline_device".into(),
        metadata: json!({}),
    };
    let again = venue.cloud.enrol(enrolment).await.unwrap();
    venue.cable.use_token(&again.token);
}

#[test]
fn the_work_of_a_revoked_device_is_kept_aside_once_and_stays_pending_on_it() {
    on_every_store(|venue| async move {
        revoked(&venue).await;
        let kept = venue.cloud.quarantined(&space()).await.unwrap();
        let names: Vec<String> = kept.iter().map(|q| q.change.key().to_string()).collect();
        assert_eq!(names, ["incident/i1", "incident/i1", "report/p1"], "in order, the later edit by itself");
        assert_eq!(data(&venue.cloud, "incident", "i1").await, json!(null), "nothing is in the records");
        let queue = venue.pi.queue(&space()).await.unwrap();
        assert_eq!(queue.len(), 3);
        for item in &queue {
            assert_eq!((item.state.as_str(), item.status), ("pending", "pending"));
            assert!(item.reason.as_ref().unwrap().text.contains("quarantine"), "it says why");
        }
        assert!(venue.pi.revoked_at(&space()).await.unwrap().is_some());
        let sent = venue.cable.sent.lock().unwrap().len();
        for _ in 0..3 {
            venue.sync().await;
        }
        assert_eq!(venue.cable.sent.lock().unwrap().len(), sent, "what is kept is not sent again");
        assert_eq!(venue.pi.queue_retry(&space(), &[]).await.unwrap(), 3);
        venue.sync().await;
        assert!(venue.cable.sent.lock().unwrap().len() > sent, "but at somebody's word");
        assert_eq!(venue.cloud.quarantined(&space()).await.unwrap().len(), 3, "and is kept once");
        assert!(venue.pi.queue(&space()).await.unwrap().iter().all(|item| item.reason.is_some()));
    });
}

#[test]
fn what_is_accepted_is_that_devices_work_and_nothing_comes_twice() {
    on_every_store(|venue| async move {
        revoked(&venue).await;
        let device = venue.device.device.id.clone();
        let dry = venue.cloud.accept_quarantined(&space(), &device, &[], None, true).await.unwrap();
        let verdicts =
            |of: &[ropeway_core::receipt::Receipt]| of.iter().map(|r| r.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&dry)[0], Verdict::Created);
        assert_eq!(data(&venue.cloud, "incident", "i1").await, json!(null), "a rehearsal writes nothing");
        let done = venue.cloud.accept_quarantined(&space(), &device, &[], Some("Ada"), false).await.unwrap();
        assert_eq!(verdicts(&done), verdicts(&dry));
        assert!(done.iter().all(|r| r.verdict.is_settled()));
        assert_eq!(data(&venue.cloud, "incident", "i1").await["description"], "fell hard");
        let record = venue.cloud.get(&space(), &key("incident", "i1")).await.unwrap().unwrap();
        assert_eq!(record.author.device, *venue.pi.device());
        let kept = venue.cloud.quarantined(&space()).await.unwrap();
        assert!(kept.iter().all(|q| q.ended.as_ref().is_some_and(|end| end.by.as_deref() == Some("Ada"))));
        let head = venue.cloud.store().space(&space()).await.unwrap().head;
        assert!(
            venue.cloud.accept_quarantined(&space(), &device, &[], None, false).await.unwrap().is_empty()
        );
        // Registered anew, the same changes go again and are answered from their receipts.
        register_anew(&venue).await;
        let report = venue.sync().await;
        assert_eq!((report.pushed, report.error), (3, None));
        assert_eq!(venue.cloud.store().space(&space()).await.unwrap().head, head, "nothing came twice");
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        assert_eq!(venue.pi.revoked_at(&space()).await.unwrap(), None);
        venue.assert_equal().await;
    });
}

#[test]
fn registered_anew_a_device_sends_everything_in_its_order_also_what_was_discarded() {
    on_every_store(|venue| async move {
        revoked(&venue).await;
        let device = venue.device.device.id.clone();
        let kept = venue.cloud.quarantined(&space()).await.unwrap();
        let (first, rest) = (kept[0].change.id.clone(), kept[1].change.id.clone());
        let nobody_s = [ChangeId::trusted("nobody-s")];
        let unknown = venue.cloud.discard_quarantined(&space(), &device, &nobody_s, None).await;
        assert!(matches!(unknown, Err(ReplicaError::NotFound(_))));
        let gone = venue.cloud.discard_quarantined(&space(), &device, &[first], Some("Ada")).await.unwrap();
        assert_eq!(gone, 1);
        // What rests on it can only wait, and stays.
        let waits = venue.cloud.accept_quarantined(&space(), &device, &[rest], None, false).await.unwrap();
        assert_eq!(waits[0].verdict, Verdict::Waiting);
        assert_eq!(venue.cloud.waiting_in_quarantine(&space(), &device, &[]).await.unwrap().len(), 2);
        register_anew(&venue).await;
        write(&venue.pi, "referee", Op::Patch, "incident", "i1", json!({"description": "broke a leg"})).await;
        venue.sync().await;
        venue.sync().await;
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        assert!(venue.cloud.conflicts(&space(), true).await.unwrap().is_empty());
        assert_eq!(data(&venue.cloud, "incident", "i1").await["description"], "broke a leg");
        venue.assert_equal().await;
    });
}

#[test]
fn a_full_quarantine_takes_no_more_and_the_device_keeps_the_rest_sealed() {
    on_every_store(|venue| async move {
        revoked(&venue).await;
        let some = venue.cloud.quarantined(&space()).await.unwrap()[2].change.clone();
        let size = usize::try_from(limits::QUARANTINE_BYTES_MAX).unwrap() - 1_500;
        let fields = fields(json!({"description": "x".repeat(size)}));
        let filling = Change { id: ChangeId::trusted("filling"), fields, ..some };
        let kept = venue.cloud.quarantine(&venue.device.device, vec![filling]).await.unwrap();
        assert_eq!(kept, 1);
        write(&venue.pi, "referee", Op::Patch, "incident", "i1", json!({"note": "more ".repeat(100)})).await;
        let report = venue.sync().await;
        assert_eq!(report.problem, Some(ProblemCode::DeviceRevoked));
        let queue = venue.pi.queue(&space()).await.unwrap();
        assert_eq!(queue.last().unwrap().state.as_str(), "sealed");
        register_anew(&venue).await;
        venue.sync().await;
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty(), "all of it went at last");
        venue.assert_equal().await;
    });
}

/// It comes back after so long that its cursor is of no use any more: it reads anew and hands everything over, what
/// it made when a person says so. Somebody may have accepted that meanwhile, and deleted it.
#[test]
fn registered_anew_from_beyond_the_horizon_a_device_asks_and_loses_nothing() {
    on_every_store(|venue| async move {
        revoked(&venue).await;
        write(&venue.cloud, "var", Op::Create, "race", "r2", json!({"name": "Relay"})).await;
        write(&venue.cloud, "var", Op::Delete, "race", "r2", json!({})).await;
        venue.advance(Duration::from_secs(365 * 86_400));
        let keep = Keep { tombstones: Duration::from_secs(1), ..Keep::default() };
        venue.cloud.purge(&space(), &keep, false).await.unwrap();
        register_anew(&venue).await;
        for _ in 0..2 {
            venue.sync().await;
        }
        let queue = venue.pi.queue(&space()).await.unwrap();
        assert_eq!(queue.iter().map(|q| q.status).collect::<Vec<_>>(), ["failed", "pending", "failed"]);
        assert_eq!(data(&venue.cloud, "incident", "i1").await, json!(null));
        venue.pi.queue_retry(&space(), &[queue[0].seq, queue[2].seq]).await.unwrap();
        for _ in 0..2 {
            venue.sync().await;
        }
        assert!(venue.pi.queue(&space()).await.unwrap().is_empty());
        assert_eq!(data(&venue.cloud, "incident", "i1").await["description"], "fell hard");
        venue.assert_equal().await;
    });
}
