//! Devices, people, syncs, settings.

use super::{On, hand::*};
use crate::{Device, DeviceStatus, Durability, Member, SyncOutcome, SyncRun};
use ropeway_core::{
    id::SpaceId,
    time::{Stamp, Time},
};

fn pi(name: &str) -> Device {
    Device {
        id: device(name),
        space: space(),
        name: format!("{name} Pi"),
        mode: "offline_device".into(),
        role: "timing".into(),
        status: DeviceStatus::Active,
        token_hash: format!("hash-of-{name}"),
        metadata: serde_json::json!({"hardware": "Pi 5", "os": "Debian 12"}),
        created_at: NOW,
        last_seen_at: None,
        pulled: None,
        pulled_shared: None,
    }
}

pub(super) async fn devices_round_trip(on: On) {
    let store = on.open().await;
    let (start, finish) = (pi("start"), Device { name: "A Pi".into(), ..pi("finish") });
    store.put_device(&start).await.unwrap();
    store.put_device(&finish).await.unwrap();
    assert_eq!(store.devices().await.unwrap(), [finish.clone(), start.clone()], "by name");
    assert_eq!(store.device(&space(), &device("start")).await.unwrap(), Some(start.clone()));
    assert_eq!(store.device(&space(), &device("none")).await.unwrap(), None);
    assert_eq!(store.device_by_token("hash-of-finish").await.unwrap(), Some(finish));
    assert_eq!(store.device_by_token("").await.unwrap(), None);
    let stolen = Device { token_hash: "hash-of-finish".into(), ..pi("third") };
    assert!(store.put_device(&stolen).await.is_err(), "a token is one device's");
    let revoked = Device { status: DeviceStatus::Decommissioned, ..start };
    store.put_device(&revoked).await.unwrap();
    store.touch_device(&space(), &device("start"), Time(50), Some(Stamp(7)), Some(Stamp(3))).await.unwrap();
    store.touch_device(&space(), &device("start"), Time(40), None, None).await.unwrap();
    store.touch_device(&space(), &device("none"), Time(40), None, None).await.unwrap();
    let seen = store.device(&space(), &device("start")).await.unwrap().unwrap();
    assert_eq!(seen.status, DeviceStatus::Decommissioned, "being seen makes nobody active");
    assert_eq!((seen.last_seen_at, seen.pulled), (Some(Time(50)), Some(Stamp(7))));
    assert_eq!(seen.pulled_shared, Some(Stamp(3)), "each source by itself");
    assert_eq!(store.devices().await.unwrap().len(), 2);
    // One id in two spaces is two devices (I11), and of several who add the same one at once one does.
    let elsewhere = Device { space: SpaceId::trusted("other"), token_hash: "another".into(), ..pi("start") };
    assert!(store.add_device(&elsewhere).await.unwrap());
    let again = Device { token_hash: "a third".into(), ..elsewhere.clone() };
    assert!(!store.add_device(&again).await.unwrap());
    assert_eq!(store.device(&elsewhere.space, &elsewhere.id).await.unwrap(), Some(elsewhere));
    let here = store.device(&space(), &device("start")).await.unwrap().unwrap();
    assert_eq!(here.status, DeviceStatus::Decommissioned, "nothing of it moved");
    assert_eq!(store.device_by_token("another").await.unwrap().unwrap().space, SpaceId::trusted("other"));
}

pub(super) async fn members_round_trip(on: On) {
    let store = on.open().await;
    let member = |email: &str| Member {
        email: email.into(),
        space: space(),
        role: "jury".into(),
        password_hash: "$argon2id$v=19$x".into(),
        disabled: false,
        created_at: NOW,
    };
    assert!(store.add_member(&member("b@x.org")).await.unwrap());
    store.put_member(&member("a@x.org")).await.unwrap();
    let other = Member { password_hash: "another".into(), ..member("b@x.org") };
    assert!(!store.add_member(&other).await.unwrap(), "an address is taken once");
    assert_eq!(store.members().await.unwrap(), [member("a@x.org"), member("b@x.org")]);
    let locked = Member { disabled: true, role: "none".into(), ..member("b@x.org") };
    store.put_member(&locked).await.unwrap();
    assert_eq!(store.members().await.unwrap(), [member("a@x.org"), locked]);
}

pub(super) async fn runs_are_newest_first(on: On) {
    let store = on.open().await;
    store.open_space(&space()).await.unwrap();
    let run = |n: i64, outcome| SyncRun {
        started_at: Time(n),
        duration_ms: n * 3,
        outcome,
        pushed: 1,
        pulled: 2,
        held: 3,
        error: (n == 2).then(|| "no route".into()),
        device: None,
    };
    let all = [run(1, SyncOutcome::Done), run(2, SyncOutcome::Offline), run(3, SyncOutcome::Differs)];
    for run in &all {
        store.put_run(&space(), run).await.unwrap();
    }
    let newest = store.runs(&space(), 2).await.unwrap();
    assert_eq!(newest, [all[2].clone(), all[1].clone()]);
    assert_eq!(store.runs(&space(), 99).await.unwrap().len(), 3);
    // Those of devices are apart.
    let of = |n| SyncRun { device: Some(device("pi")), ..run(n, SyncOutcome::Partly) };
    store.put_run(&space(), &of(4)).await.unwrap();
    store.put_run(&space(), &of(5)).await.unwrap();
    assert_eq!(store.device_runs(&space(), 9).await.unwrap(), [of(5), of(4)]);
    assert_eq!(store.runs(&space(), 1).await.unwrap(), [all[2].clone()]);
}

pub(super) async fn settings_swap_once(on: On) {
    let stores = [on.open().await, on.open().await];
    assert_eq!(stores[0].meta("lease").await.unwrap(), None);
    assert!(!stores[0].swap_meta("lease", Some("x"), "y", Durability::Full).await.unwrap());
    assert!(stores[0].swap_meta("lease", None, "free", Durability::Normal).await.unwrap());
    assert!(!stores[1].swap_meta("lease", None, "free", Durability::Full).await.unwrap());
    let mut tasks = Vec::new();
    for i in 0..20 {
        let store = stores[i % 2].clone();
        tasks.push(tokio::spawn(async move {
            store.swap_meta("lease", Some("free"), &format!("holder-{i}"), Durability::Normal).await.unwrap()
        }));
    }
    let mut winners = 0;
    for task in tasks {
        winners += usize::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
    let holder = stores[1].meta("lease").await.unwrap().unwrap();
    assert!(holder.starts_with("holder-"), "{holder}");
    stores[1].put_meta("lease", "").await.unwrap();
    assert_eq!(stores[0].meta("lease").await.unwrap().as_deref(), Some(""));
}

pub(super) async fn generation_moves_with_any_writer(on: On) {
    let (store, other) = (on.open().await, on.open().await);
    store.open_space(&space()).await.unwrap();
    let mut last = store.generation().await.unwrap();
    assert_eq!(store.generation().await.unwrap(), last, "nothing was written");
    for round in 0..4 {
        let writer = if round % 2 == 0 { &store } else { &other };
        put(writer, &format!("r{round}"), "{}").await;
        let now = store.generation().await.unwrap();
        assert_ne!(now, last, "a write of {} went unnoticed", ["its own", "another's"][round % 2]);
        last = now;
    }
    store.put_meta("a", "b").await.unwrap();
    assert_ne!(store.generation().await.unwrap(), last);
}
