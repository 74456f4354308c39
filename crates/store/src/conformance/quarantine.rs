//! Quarantine: the work of revoked devices, in order, bounded, once.

use super::{On, hand::*};
use crate::{QuarantineEnd, Quarantined, Room};
use ropeway_core::{change::Change, receipt::Verdict, time::Time};

const ROOM: Room = Room { changes: 3, bytes: 10_000 };

fn changes<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<Change> {
    ids.into_iter().map(|id| change(id, &key(id))).collect()
}

fn ids(kept: &[Quarantined]) -> Vec<&str> {
    kept.iter().map(|q| q.change.id.as_str()).collect()
}

pub(super) async fn work_is_kept_once_and_in_order_while_there_is_room(on: On) {
    let (store, other) = (on.open().await, on.open().await);
    store.open_space(&space()).await.unwrap();
    let (lost, second) = (device("lost"), device("second"));
    let kept = store.quarantine(&space(), &lost, NOW, changes(["b", "a"]), ROOM).await.unwrap();
    assert_eq!(kept, 2);
    let again = other.quarantine(&space(), &lost, Time(9), changes(["a", "c", "d", "e"]), ROOM).await;
    assert_eq!(again.unwrap(), 2, "one was there, one found room, and none after the first that did not");
    let theirs = store.quarantine(&space(), &second, NOW, changes(["a"]), ROOM).await.unwrap();
    assert_eq!(theirs, 1, "each device has room of its own, and ids of its own");
    let all = store.quarantined(&space(), i64::MIN, 9).await.unwrap();
    assert_eq!(ids(&all), ["b", "a", "c", "a"]);
    assert_eq!(all[0].change, change("b", &key("b")));
    assert_eq!((&all[0].device, all[0].received_at, all[0].ended.clone()), (&lost, NOW, None));
    assert_eq!((&all[3].device, all[2].received_at), (&second, Time(9)));
    assert_eq!(ids(&store.quarantined(&space(), all[1].no, 1).await.unwrap()), ["c"], "in pages");
    let bytes = serde_json::to_vec(&all[0].change).unwrap().len() as u64;
    let tight = Room { changes: 9, bytes: bytes * 4 - 1 };
    assert_eq!(store.quarantine(&space(), &lost, NOW, changes(["f"]), tight).await.unwrap(), 0);
    let fits = Room { changes: 9, bytes: bytes * 4 };
    assert_eq!(store.quarantine(&space(), &lost, NOW, changes(["f"]), fits).await.unwrap(), 1);
}

pub(super) async fn what_ends_is_noted_once_makes_room_and_goes_by_its_time(on: On) {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    let lost = device("lost");
    store.quarantine(&space(), &lost, NOW, changes(["a", "b", "c"]), ROOM).await.unwrap();
    let all = store.quarantined(&space(), 0, 9).await.unwrap();
    let end = |at, verdict| QuarantineEnd { at: Time(at), by: Some("Ada".into()), verdict };
    let (accepted, discarded) = (end(50, Some(Verdict::Merged)), end(60, None));
    let ended = vec![(all[0].no, accepted.clone()), (all[1].no, discarded.clone()), (999, end(1, None))];
    assert_eq!(store.end_quarantine(&space(), ended.clone()).await.unwrap(), 2);
    assert_eq!(store.end_quarantine(&space(), ended).await.unwrap(), 0, "they had ended");
    let kept = store.quarantine(&space(), &lost, NOW, changes(["a", "b", "d", "e"]), ROOM).await.unwrap();
    assert_eq!(kept, 4, "what ended is known and takes no room");
    let all = store.quarantined(&space(), 0, 9).await.unwrap();
    assert_eq!(ids(&all), ["a", "b", "c", "d", "e"]);
    assert_eq!((all[0].ended.clone(), all[1].ended.clone()), (Some(accepted), Some(discarded)));
    assert!(all[2].ended.is_none());
    assert_eq!(store.purge_quarantine(&space(), Time(60)).await.unwrap(), 1);
    assert_eq!(ids(&store.quarantined(&space(), 0, 9).await.unwrap()), ["b", "c", "d", "e"]);
}
