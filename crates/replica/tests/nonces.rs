//! Copies of a device before a node that serves: two servers agree, a lost answer is no fork, a late
//! request changes nothing.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::*;
use ropeway_core::{change::Op, nonce::Pair};
use ropeway_protocol::{ProblemCode, Transport};
use ropeway_replica::{Renewal, ReplicaError, SyncOutcome};
use serde_json::json;

fn pair(last: Option<&str>, next: &str) -> Pair {
    format!("pi {} {next}", last.unwrap_or("-")).parse().unwrap()
}

/// Twenty requests at once, of two copies: one pair is taken by all, the other by none.
#[test]
fn of_two_pairs_at_once_one_is_taken() {
    on_every_store(|venue| async move {
        let device = venue.device.device.clone();
        venue.cloud.meet(&device, &pair(None, "1.a")).await.unwrap();
        let mut asked = Vec::new();
        for n in 0..20 {
            let (cloud, device) = (venue.cloud.clone(), device.clone());
            let next = ["2.a", "2.b"][n % 2];
            asked.push(tokio::spawn(async move {
                let met = cloud.meet(&device, &pair(Some("1.a"), next)).await;
                assert!(matches!(met, Ok(()) | Err(ReplicaError::Cloned(_))), "{met:?}");
                (next, met.is_ok())
            }));
        }
        let mut taken = std::collections::BTreeMap::new();
        for one in asked {
            let (next, is_taken) = one.await.unwrap();
            taken.entry(next).or_insert_with(Vec::new).push(is_taken);
        }
        let all = |next: &str, expected: bool| taken[next].iter().all(|is| *is == expected);
        assert!(all("2.a", true) && all("2.b", false) || all("2.a", false) && all("2.b", true), "{taken:?}");
    });
}

/// Answers that are lost at every point of a sync make no copy of the device.
#[test]
fn lost_answers_make_no_copy() {
    on_every_store(|venue| async move {
        for n in 0..8 {
            write(&venue.pi, "Anna", Op::Create, "race", &format!("i{n}"), json!({ "name": "Sprint" })).await;
            let troubles = [Trouble::LoseRequest, Trouble::LoseAnswer, Trouble::Duplicate];
            venue.cable.pushes.lock().unwrap().extend(&troubles[..n % 4]);
            if n % 3 == 1 {
                venue.cable.pulls.lock().unwrap().push_back(Trouble::LoseAnswer);
            }
            while venue.sync().await.outcome != Some(SyncOutcome::Done) {}
        }
        venue.assert_equal().await;
        assert_eq!(venue.cloud.store().space(&space()).await.unwrap().digest.count, 8);
        assert_eq!(venue.pi.status(&space()).await.unwrap().cloned_at, None);
        assert_eq!(venue.cloud.seen_of(&venue.device.device).await.unwrap().cloned_at, None);
    });
}

/// A push of an earlier sync that arrives late is refused alone; nothing of it is decided.
#[test]
fn a_late_request_is_refused_alone() {
    on_every_store(|venue| async move {
        venue.sync().await;
        let late = venue.cable.pair.lock().unwrap().clone().unwrap();
        write(&venue.pi, "Anna", Op::Create, "race", "i1", json!({ "name": "Sprint" })).await;
        assert_eq!(venue.sync().await.outcome, Some(SyncOutcome::Done));
        let now = venue.cable.pair.lock().unwrap().replace(late).unwrap();
        let body = venue.cable.sent.lock().unwrap()[0].clone();
        let refused = venue.cable.push(body).await.unwrap_err();
        assert!(refused.to_string().contains(ProblemCode::DeviceCloned.as_str()), "{refused}");
        venue.cable.present(&now);
        assert_eq!(venue.sync().await.outcome, Some(SyncOutcome::Done));
        venue.assert_equal().await;
    });
}

/// A renewed installation pulls from the beginning and goes on with its outbox.
#[test]
fn a_renewed_installation_goes_on_with_its_outbox() {
    on_every_store(|venue| async move {
        write(&venue.cloud, "Jury", Op::Create, "race", "there", json!({ "name": "Sprint" })).await;
        venue.sync().await;
        write(&venue.pi, "Anna", Op::Create, "race", "here", json!({ "name": "Sprint" })).await;
        let before = venue.pi.device().clone();
        assert_eq!(venue.pi.renew(&space(), Renewal::Restored).await.unwrap(), before);
        assert_ne!(venue.pi.renew(&space(), Renewal::Copy).await.unwrap(), before);
        let report = venue.sync().await;
        assert_eq!((report.pushed, report.outcome), (1, Some(SyncOutcome::Done)), "{report:?}");
        venue.assert_equal().await;
        let seen = venue.cloud.seen_of(&venue.device.device).await.unwrap();
        assert_eq!(seen.installations.len(), 2, "what nobody presented was never seen");
    });
}
