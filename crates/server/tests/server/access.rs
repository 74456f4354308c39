//! Who may ask what: tokens, devices, roles, rates, and spaces that see nothing of each other.

use crate::rig::{Answer, Rig, enrol, incident, node, quick, space};
use reqwest::Method;
use ropeway_core::id::{DeviceId, Epoch};
use ropeway_protocol::ProblemCode as P;
use ropeway_server::{Server, ServerOptions};
use ropeway_store::{MemoryStore, Store};
use serde_json::{Value, json};
use std::sync::Arc;

/// Every documented route that needs a token, with an id in the place of `{id}`.
async fn guarded(rig: &Rig, id: &str) -> Vec<(Method, String)> {
    let document = rig.get("/openapi.json", "").await.ok();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation.get("security").is_some() {
                routes.push((method.to_uppercase().parse().unwrap(), path.replace("{id}", id)));
            }
        }
    }
    assert!(routes.len() >= 9, "{routes:?}");
    routes
}

async fn ask(rig: &Rig, method: &Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = rig.client.request(method.clone(), rig.url(path));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.body("{}").send().await.unwrap()).await
}

#[tokio::test]
async fn without_a_good_token_no_route_answers() {
    let rig = Rig::new().await;
    let half = &rig.referee[..32].to_owned();
    for (method, path) in guarded(&rig, "x").await {
        for bad in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic cm9wZXdheQ==", &format!("Bearer {half}")]
        {
            let answer = ask(&rig, &method, &path, &[("authorization", bad)]).await;
            answer.is(P::Unauthenticated);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        ask(&rig, &method, &path, &[]).await.is(P::Unauthenticated);
    }
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn a_revoked_device_can_do_nothing() {
    let rig = Rig::new().await;
    rig.push(&[incident(1)]).await.ok();
    rig.node.revoke(&space("main"), &DeviceId::parse("referee-main").unwrap()).await.unwrap();
    let bearer = format!("Bearer {}", rig.referee);
    for (method, path) in guarded(&rig, "x").await {
        ask(&rig, &method, &path, &[("authorization", &bearer)]).await.is(P::DeviceRevoked);
    }
    rig.push(&[incident(2)]).await.is(P::DeviceRevoked);
    assert_eq!(rig.records("main").await, 1);
}

/// What a revoked device sends is refused and kept aside, for a token that was somebody's only.
#[tokio::test]
async fn what_a_revoked_device_sends_waits_in_quarantine() {
    let rig = Rig::new().await;
    rig.node.revoke(&space("main"), &DeviceId::parse("referee-main").unwrap()).await.unwrap();
    let kept = async || {
        let all = rig.node.quarantined(&space("main")).await.unwrap();
        all.into_iter().map(|q| q.change.record.to_string()).collect::<Vec<_>>()
    };
    let refused = rig.push(&[incident(1), json!({"id": "broken", "op": "explode"}), incident(2)]).await;
    assert_eq!(refused.is(P::DeviceRevoked)["quarantined"], 2, "what cannot be read is not kept");
    assert_eq!(kept().await.len(), 2);
    let again = rig.push(&[incident(2), incident(3)]).await.is(P::DeviceRevoked);
    assert_eq!((again["quarantined"].as_u64(), kept().await.len()), (Some(2), 3), "once each");
    let text = again["detail"].as_str().unwrap();
    assert!(text.contains("2 of these changes are kept in quarantine"), "{text}");
    rig.push_as(&"f".repeat(64), &[incident(4)]).await.is(P::Unauthenticated);
    assert_eq!((kept().await.len(), rig.records("main").await), (3, 0));
}

#[tokio::test]
async fn a_token_with_another_devices_name_is_refused() {
    let rig = Rig::new().await;
    let bearer = format!("Bearer {}", rig.referee);
    for wrong in ["admin-main", "nobody", "", "a b", "referee-main2"] {
        let headers = [("authorization", bearer.as_str()), ("x-device-uuid", wrong)];
        for (method, path) in guarded(&rig, "x").await {
            ask(&rig, &method, &path, &headers).await.is(P::Unauthenticated);
        }
    }
    let headers = [("authorization", bearer.as_str()), ("x-device-uuid", "referee-main")];
    assert_eq!(ask(&rig, &Method::GET, "/v1/pull", &headers).await.status, 200);
}

#[tokio::test]
async fn roles_may_do_what_they_may() {
    let rig = Rig::new().await;
    for token in [&rig.referee, &rig.reader] {
        rig.get("/v1/devices", token).await.is(P::Forbidden);
        rig.post("/v1/devices", token, json!({ "name": "x", "role": "admin" }).to_string())
            .await
            .is(P::Forbidden);
        rig.post("/v1/devices/admin-main/revoke", token, "").await.is(P::Forbidden);
    }
    let devices = rig.get("/v1/devices", &rig.admin).await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 3);
    assert!(!devices.to_string().contains("token"));
}

/// A push made for another epoch is refused as a whole, also a revoked device's: what was lost goes first.
#[tokio::test]
async fn a_push_for_another_epoch_is_neither_decided_nor_kept() {
    let rig = Rig::new().await;
    let push = |epoch: &str, n| json!({ "epoch": epoch, "changes": [incident(n)] }).to_string();
    let at = async |token: &str, epoch: &str, n| rig.post("/v1/push", token, push(epoch, n)).await;
    at(&rig.referee, "another", 1).await.is(P::EpochChanged);
    assert!(
        at(&rig.referee, "no epoch!", 1).await.is(P::Malformed)["detail"].as_str().unwrap().contains("epoch")
    );
    assert_eq!(rig.records("main").await, 0);
    let epoch = rig.node.store().space(&space("main")).await.unwrap().epoch;
    assert_eq!(at(&rig.referee, &epoch, 1).await.ok()["epoch"], *epoch);
    let device = rig.node.authenticate(&rig.referee).await.unwrap();
    rig.node.revoke(&space("main"), &device.id).await.unwrap();
    at(&rig.referee, "another", 2).await.is(P::EpochChanged);
    assert_eq!(rig.node.quarantined(&space("main")).await.unwrap().len(), 0);
    at(&rig.referee, &epoch, 2).await.is(P::DeviceRevoked);
    assert_eq!(rig.node.quarantined(&space("main")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn devices_are_registered_listed_and_revoked() {
    let rig = Rig::new().await;
    let new = json!({ "name": "Start Line Pi", "role": "referee", "metadata": { "os": "linux" } });
    let answer = rig.post("/v1/devices", &rig.admin, new.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let enrolled = answer.json();
    let (token, id) = (enrolled["token"].as_str().unwrap(), enrolled["device"]["id"].as_str().unwrap());
    assert_eq!(rig.push_as(token, &[incident(1)]).await.ok()["receipts"][0]["verdict"], "created");
    let revoked = rig.post(&format!("/v1/devices/{id}/revoke"), &rig.admin, "").await.ok();
    assert_eq!(revoked["status"], "decommissioned");
    rig.push_as(token, &[incident(2)]).await.is(P::DeviceRevoked);
    for bad in [
        json!({ "name": "", "role": "referee" }),
        json!({ "name": "x", "role": "emperor" }),
        json!({ "name": "x", "role": "referee", "mode": "submarine" }),
        json!({ "name": "x", "role": "referee", "space": "other" }),
        json!({ "name": "x", "role": "referee", "id": "admin-main" }),
        json!({ "name": "x", "role": "referee", "metadata": 5 }),
    ] {
        rig.post("/v1/devices", &rig.admin, bad.to_string()).await.is(P::Malformed);
    }
    rig.post("/v1/devices/nobody/revoke", &rig.admin, "").await.is(P::NotFound);
    rig.post("/v1/devices/a%20b/revoke", &rig.admin, "").await.is(P::NotFound);
    assert_eq!(rig.get("/v1/devices", &rig.admin).await.ok()["devices"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_told_to_wait() {
    let mut limits = quick();
    (limits.device_rate, limits.address_rate) = (1, 2);
    let rig = Rig::with(limits, Vec::new()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(rig.get("/v1/conflicts", &rig.referee).await);
    }
    assert_eq!(statuses.iter().filter(|a| a.status == 200).count(), 2);
    let last = statuses.last().unwrap();
    assert_eq!(last.is(P::RateLimited)["retry_after"].to_string(), last.header("retry-after"));
    assert_eq!(
        rig.get("/v1/conflicts", &rig.admin).await.status,
        200,
        "another device has its own allowance"
    );
    // Guesses from one address run dry; a good token from there still passes.
    let mut guesses = Vec::new();
    for _ in 0..8 {
        guesses.push(rig.get("/v1/conflicts", "guess").await.status);
    }
    assert!(guesses.contains(&401) && guesses.ends_with(&[429]), "{guesses:?}");
    rig.get("/metrics", "").await.is(P::RateLimited);
    assert_eq!(rig.get("/v1/conflicts", &rig.reader).await.status, 200);
    assert_eq!(rig.get("/health/live", "").await.status, 200);
}

/// A device of the same id in another space has an allowance of its own: how often somebody asks there, and how
/// many live streams they hold, shows nowhere else (I11).
#[tokio::test]
async fn devices_of_one_name_in_two_spaces_take_nothing_from_each_other() {
    let mut limits = quick();
    (limits.device_rate, limits.live_streams_per_device) = (1, 1);
    let rig = Rig::with(limits, Vec::new()).await;
    let there = enrol(&rig.node, "other", "referee", "referee-main").await;
    let here = rig.request(Method::GET, "/v1/live", &rig.referee).send().await.unwrap();
    let other = rig.request(Method::GET, "/v1/live", &there).send().await.unwrap();
    assert_eq!((here.status().as_u16(), other.status().as_u16()), (200, 200));
    rig.get("/v1/live", &rig.referee).await.is(P::Unavailable);
    rig.get("/v1/conflicts", &rig.referee).await.is(P::RateLimited);
    assert_eq!(rig.get("/v1/conflicts", &there).await.status, 200);
}

/// A space with a record, an open conflict and devices of its own; then everything that the other space's
/// administrator can ask.
#[tokio::test]
async fn spaces_see_nothing_of_each_other() {
    let rig = Rig::new().await;
    rig.push(&[incident(1)]).await.ok();
    let conflict = conflict(&rig).await;
    let other = rig.other.clone();

    let page = rig.get("/v1/pull", &other).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.text.lines().count(), 1, "{}", page.text);
    assert!(!page.text.contains("referee") && page.text.contains("\"head\":0"), "{}", page.text);
    let cursor = end(&rig.get("/v1/pull", &rig.referee).await)["cursor"].as_str().unwrap().to_owned();
    rig.get(&format!("/v1/pull?after={cursor}"), &other).await.is(P::CursorInvalid);

    assert_eq!(rig.get("/v1/conflicts?state=all", &other).await.ok()["conflicts"], json!([]));
    let (there, nowhere) = (format!("/v1/conflicts/{conflict}"), "/v1/conflicts/nobody:knows");
    same_absence(rig.get(&there, &other).await, rig.get(nowhere, &other).await, &conflict, "nobody:knows");
    let answer = json!({ "resolution": "incoming" }).to_string();
    let resolved = rig.post(&format!("{there}/resolve"), &other, answer.clone()).await;
    let absent = rig.post(&format!("{nowhere}/resolve"), &other, answer).await;
    same_absence(resolved, absent, &conflict, "nobody:knows");

    let devices = rig.get("/v1/devices", &other).await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    assert_eq!(devices["devices"][0]["id"], "admin-other");
    let revoked = rig.post("/v1/devices/referee-main/revoke", &other, "").await;
    same_absence(revoked, rig.post("/v1/devices/nobody/revoke", &other, "").await, "referee-main", "nobody");
    rig.get("/v1/pull", &rig.referee).await;
    // Nor does a name that is taken there say so: here it is free.
    let same = json!({ "name": "x", "role": "referee", "id": "referee-main" }).to_string();
    assert_eq!(rig.post("/v1/devices", &other, same.clone()).await.status, 201);
    rig.post("/v1/devices", &other, same).await.is(P::Malformed);
    rig.push(&[incident(7)]).await.ok();

    // The same record id there is another record; the same change id another change.
    let pushed = rig.push_as(&other, &[incident(1)]).await.ok();
    assert_eq!(pushed["receipts"][0]["verdict"], "created");
    assert_eq!(rig.records("other").await, 1);
    let live = rig.request(Method::GET, "/v1/live", &other).send().await.unwrap();
    assert_eq!(live.status(), 200);
    assert_eq!(open_conflicts(&rig).await, 1, "nobody resolved it");
}

#[track_caller]
fn same_absence(one: Answer, two: Answer, first: &str, second: &str) {
    one.is(P::NotFound);
    assert_eq!(one.text.replace(first, "?"), two.text.replace(second, "?"));
}

fn end(page: &Answer) -> Value {
    serde_json::from_str::<Value>(page.text.lines().last().unwrap()).unwrap()["end"].clone()
}

async fn open_conflicts(rig: &Rig) -> usize {
    rig.get("/v1/conflicts", &rig.referee).await.ok()["conflicts"].as_array().unwrap().len()
}

/// Two authors change the same field of the same version: the second is parked.
pub(crate) async fn conflict(rig: &Rig) -> String {
    let patch = |n: usize, note: &str| {
        json!({
            "id": format!("p{n}"), "collection": "incident", "record": "i1", "op": "patch",
            "fields": { "note": note }, "seen": { "note": "missed a gate" },
            "base": { "epoch": "epoch-1", "version": 1 }, "author": { "device": format!("pi-{n}") },
        })
    };
    let answer = rig.push(&[patch(1, "skis off"), patch(2, "no transceiver")]).await.ok();
    assert_eq!(answer["receipts"][1]["verdict"], "parked", "{answer}");
    answer["receipts"][1]["detail"]["conflicts"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_conflict_is_listed_shown_and_resolved() {
    let rig = Rig::new().await;
    rig.push(&[incident(1)]).await.ok();
    let id = conflict(&rig).await;
    let listed = rig.get("/v1/conflicts?state=open", &rig.referee).await.ok();
    assert_eq!(listed["conflicts"][0]["id"], *id);
    let shown = rig.get(&format!("/v1/conflicts/{id}"), &rig.referee).await.ok();
    assert_eq!(shown["now"]["note"], "skis off");
    assert_eq!(shown["conflict"]["incoming"]["values"]["note"], "no transceiver");
    let path = format!("/v1/conflicts/{id}/resolve");
    let answer = |more: Value| {
        let mut answer = json!({ "resolution": "incoming", "version": shown["version"], "person": "Jury" });
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer.to_string()
    };
    rig.post(&path, &rig.referee, answer(json!({}))).await.is(P::Forbidden);
    rig.post(&path, &rig.admin, answer(json!({ "version": 99 }))).await.is(P::Moved);
    rig.post(&path, &rig.admin, answer(json!({ "resolution": "perhaps" }))).await.is(P::Malformed);
    rig.post(&path, &rig.admin, answer(json!({ "resolution": "merged" }))).await.is(P::Malformed);
    rig.post(&path, &rig.admin, answer(json!({ "extra": 1 }))).await.is(P::Malformed);
    rig.post(&path, &rig.admin, answer(json!({ "person": "x".repeat(300) }))).await.is(P::Malformed);
    rig.get("/v1/conflicts?state=moot", &rig.admin).await.is(P::Malformed);
    assert_eq!(open_conflicts(&rig).await, 1);
    let resolved = rig.post(&path, &rig.admin, answer(json!({}))).await.ok();
    assert_eq!(resolved["conflict"]["conflict"]["state"], "resolved");
    assert_eq!(resolved["conflict"]["now"]["note"], "no transceiver");
    assert_eq!(open_conflicts(&rig).await, 0);
    assert_eq!(
        rig.get("/v1/conflicts?state=all", &rig.referee).await.ok()["conflicts"].as_array().unwrap().len(),
        1
    );
}

/// A header that names no sync is refused; without one an older client works; a copy's request alone is
/// refused and nothing of it is taken in.
#[tokio::test]
async fn a_copy_of_a_device_is_refused_and_an_older_client_is_not() {
    let rig = Rig::new().await;
    let push = |n: usize, pair: &str| {
        let body = json!({ "changes": [incident(n)] }).to_string();
        let request = rig.request(Method::POST, "/v1/push", &rig.referee).body(body);
        let request = if pair.is_empty() { request } else { request.header("ropeway-sync", pair) };
        async { Answer::of(request.send().await.unwrap()).await }
    };
    for bad in ["-", "i - 2.a", "i 1.a 1.b", "i - 1.", &format!("i - 1.{}", "a".repeat(65))] {
        push(0, bad).await.is(P::Malformed);
    }
    assert_eq!(rig.records("main").await, 0);
    for (n, pair) in [(1, "i - 1.a"), (2, "i - 1.a"), (3, ""), (4, "i 1.a 2.a")] {
        push(n, pair).await.ok();
    }
    for late in ["i - 1.a", "i 1.a 2.b", "i - 1.z"] {
        let problem = push(5, late).await.is(P::DeviceCloned);
        assert!(problem["detail"].as_str().unwrap().contains("referee-main"), "{problem}");
    }
    assert_eq!(rig.records("main").await, 4);
    push(6, "i 2.a 3.a").await.ok();
    push(7, "j - 1.a").await.ok();
    push(8, "i 3.a 4.a").await.is(P::DeviceCloned);
    assert!(rig.get("/metrics", "").await.text.contains("ropeway_clones_refused_total 4"));
}

/// Whoever is let in is decided and fed in a space of their own: its records carry audiences before the node serves.
#[tokio::test]
async fn the_spaces_of_all_devices_are_open_before_it_serves() {
    const PROFILE: &str = r#"
name = "test"
version = 1
resolver = "upstream"
[roles.admin]
write = "*"
resolve = true
[roles.crew]
write = []
sees = "subscribed"
[collections.race]
audience = { key = "race:{id}" }
fields = { name = "text" }
"#;
    let store = Arc::new(MemoryStore::new(Epoch::parse("epoch-1").unwrap(), false));
    store.open_space(&space("far")).await.unwrap();
    let node = node(store.clone(), PROFILE).await;
    enrol(&node, "far", "crew", "crew-far").await;
    let options = ServerOptions::new("127.0.0.1:0".parse().unwrap(), node, space("main"));
    let _server = Server::bind(options).await.unwrap();
    assert_eq!(store.meta("audiences.far").await.unwrap().as_deref(), Some("1"));
}
