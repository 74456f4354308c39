//! Who sees a record only because a child brings it along sees what became of their work on it.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    Cable, On, Venue, data, desk, dump, enrolled, key,
    pair::{at, holds},
    space,
};
use ropeway_core::{
    change::Op::{Create, Delete, Patch},
    conflict::{Resolution, Standing},
};
use ropeway_protocol::Transport;
use ropeway_replica::{ConflictView, Node, Resolve, SyncOptions};
use serde_json::json;

/// A camera has no audience but that of what was taken with it.
const PROFILE: &str = harness::parts!(
    r#"
[collections.competition]
audience = { key = "competition:{id}" }
fields = { name = "text" }
[collections.camera]
audience = { granted = true }
merge = "park"
fields = { name = "text", lens = { type = "text", merge = "server" } }
[collections.tape]
references = { competition = "competition", camera = "camera" }
audience = { from = ["competition"] }
merge = "latest"
delete = "latest"
fields = { name = { type = "text", merge = "park" } }
"#
);

async fn on_every_store<F, Fut>(case: F)
where
    F: Fn(Venue) -> Fut,
    Fut: Future<Output = ()>,
{
    let postgres = harness::server::found().map(|_| (On::Postgres, 2));
    for (on, page) in [(On::Memory, 5_000), (On::Sqlite, 2), (On::Memory, 1)].into_iter().chain(postgres) {
        eprintln!("on {on:?} by pages of {page}");
        case(begun(on, page, PROFILE).await).await;
    }
}

/// A Pi with one of two competitions and the camera that a tape of it needs.
async fn begun(on: On, page: usize, profile: &str) -> Venue {
    let venue = Venue::of(on, profile, "venue").await;
    *venue.cable.page.lock().unwrap() = page;
    for c in ["a", "b"] {
        at(&venue.cloud, Create, &format!("competition/{c}"), json!({"name": c})).await;
    }
    at(&venue.cloud, Create, "camera/c", json!({"name": "finish", "lens": "wide"})).await;
    at(&venue.cloud, Create, "tape/t", json!({"competition": "a", "camera": "c"})).await;
    venue.cloud.subscribe(&venue.device.device, "competition:a", true).await.unwrap();
    synced(&venue).await;
    assert_eq!(holds(&venue.pi).await, "c a t");
    venue
}

/// The other value, please.
fn answer(open: &ConflictView) -> Resolve {
    Resolve {
        conflict: open.id.clone(),
        version: None,
        resolution: Resolution::Incoming,
        data: None,
        notes: None,
        change: None,
    }
}

/// Syncs; both sides agree on what the Pi sees.
async fn synced(venue: &Venue) {
    let (theirs, ours) = venue.sync().await.digests.unwrap();
    assert_eq!(theirs, ours, "{}", dump(&venue.pi).await);
}

/// The Pi writes to the camera what the cloud has written otherwise meanwhile: one value is put to a person,
/// the other one was settled by a rule.
async fn contest(venue: &Venue) {
    at(&venue.pi, Patch, "camera/c", json!({"name": "from the Pi", "lens": "tele"})).await;
    at(&venue.cloud, Patch, "camera/c", json!({"name": "from the cloud", "lens": "zoom"})).await;
    synced(venue).await;
}

/// What the conflicts of a node say of each other's values, and where they stand.
async fn told(node: &Node) -> Vec<(String, Standing)> {
    let say = |view: ConflictView| {
        let field = &view.conflict.fields[0];
        (view.conflict.incoming.values[field].as_str().unwrap().to_owned(), view.conflict.state)
    };
    let mut told: Vec<_> = node.conflicts(&space(), false).await.unwrap().into_iter().map(say).collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    told
}

fn both() -> Vec<(String, Standing)> {
    vec![("from the Pi".to_owned(), Standing::Open), ("tele".to_owned(), Standing::Automatic)]
}

/// DESIGN §1, §3: authors learn later verdicts through the feed, and a conflict goes to those who see its record.
#[tokio::test]
async fn whoever_sees_a_record_by_a_child_learns_how_its_contest_ends() {
    on_every_store(|venue| async move {
        contest(&venue).await;
        assert_eq!(told(&venue.cloud).await, both());
        assert_eq!(told(&venue.pi).await, both(), "the device that lost is told");
        assert_eq!(venue.cloud.conflicts_for(&venue.device.device, false).await.unwrap().len(), 2);
        let open = venue.cloud.conflicts(&space(), true).await.unwrap().remove(0);
        venue.cloud.resolve(&space(), &desk("jury", "admin"), answer(&open)).await.unwrap();
        synced(&venue).await;
        assert_eq!(told(&venue.pi).await[0].1, Standing::Resolved);
        assert_eq!(data(&venue.pi, "camera", "c").await["name"], "from the Pi");
    })
    .await;
}

/// Conflicts come and go with the sight of their record: with the last child that brings it, and with the first.
#[tokio::test]
async fn conflicts_come_and_go_with_what_brings_their_record() {
    on_every_store(|venue| async move {
        contest(&venue).await;
        at(&venue.cloud, Patch, "tape/t", json!({"competition": "b"})).await;
        synced(&venue).await;
        assert_eq!((holds(&venue.pi).await.as_str(), told(&venue.pi).await), ("a", vec![]));
        assert!(venue.cloud.conflicts_for(&venue.device.device, false).await.unwrap().is_empty());
        at(&venue.cloud, Create, "tape/u", json!({"competition": "a", "camera": "c"})).await;
        at(&venue.cloud, Create, "tape/v", json!({"competition": "a", "camera": "c"})).await;
        synced(&venue).await;
        assert_eq!((holds(&venue.pi).await.as_str(), told(&venue.pi).await), ("c a u v", both()));
        at(&venue.cloud, Delete, "tape/u", json!({})).await;
        synced(&venue).await;
        assert_eq!(told(&venue.pi).await, both(), "another child brings it still");
        at(&venue.cloud, Delete, "tape/v", json!({})).await;
        synced(&venue).await;
        assert_eq!((holds(&venue.pi).await.as_str(), told(&venue.pi).await), ("a", vec![]));
        venue.cloud.subscribe(&venue.device.device, "competition:b", true).await.unwrap();
        synced(&venue).await;
        assert_eq!((holds(&venue.pi).await.as_str(), told(&venue.pi).await), ("c a b t", both()));
        let report = venue.sync().await;
        assert_eq!((report.pulled, report.pushed), (0, 0), "nothing new, nothing moves");
    })
    .await;
}

/// Three levels: a node in the middle shows a tablet the conflicts that it was given itself.
#[tokio::test]
async fn a_node_in_the_middle_passes_them_on() {
    on_every_store(|venue| async move {
        let tablet = harness::node(On::Memory, &venue.ground, PROFILE, "tablet", true, &venue.clock).await;
        let cable = Cable::new(venue.pi.clone(), enrolled(&venue.pi, "Tablet", "venue").await.token);
        cable.subscribe("competition:a", true).await.unwrap();
        let sync = async || {
            let report = tablet.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
            let (theirs, ours) = report.digests.unwrap();
            assert_eq!(theirs, ours, "{}", dump(&tablet).await);
        };
        sync().await;
        at(&tablet, Patch, "camera/c", json!({"name": "from the Pi", "lens": "tele"})).await;
        at(&venue.cloud, Patch, "camera/c", json!({"name": "from the cloud", "lens": "zoom"})).await;
        sync().await;
        synced(&venue).await;
        sync().await;
        assert_eq!(told(&tablet).await, both());
        assert_eq!(data(&tablet, "camera", "c").await["name"], "from the cloud");
        assert!(tablet.get(&space(), &key("camera", "c")).await.unwrap().unwrap().contested);
        at(&venue.cloud, Delete, "tape/t", json!({})).await;
        synced(&venue).await;
        sync().await;
        assert_eq!((holds(&tablet).await.as_str(), told(&tablet).await), ("a", vec![]));
    })
    .await;
}

/// A conflict stays for the sake of an answer that is not settled, while its record leaves and comes back.
#[tokio::test]
async fn a_conflict_that_stayed_is_shown_again_with_its_record() {
    let profile = PROFILE.replace("resolver = \"upstream\"", "resolver = \"anyone\"");
    for on in [On::Memory, On::Sqlite] {
        let venue = begun(on, 5_000, &profile).await;
        at(&venue.pi, Patch, "tape/t", json!({"name": "from the Pi"})).await;
        at(&venue.cloud, Patch, "tape/t", json!({"name": "from the cloud"})).await;
        synced(&venue).await;
        let tablet = enrolled(&venue.pi, "Tablet", "venue").await;
        venue.pi.subscribe(&tablet.device, "competition:a", true).await.unwrap();
        let shown = async || venue.pi.conflicts_for(&tablet.device, true).await.unwrap().len();
        assert_eq!(shown().await, 1);
        *venue.cable.refuse.lock().unwrap() = Some("not yet".into());
        let open = venue.pi.conflicts(&space(), true).await.unwrap().remove(0);
        let answer = Resolve { notes: Some("not yet".into()), ..answer(&open) };
        venue.pi.resolve(&space(), &desk("referee", "venue"), answer).await.unwrap();
        at(&venue.cloud, Patch, "tape/t", json!({"competition": "b"})).await;
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "a");
        at(&venue.cloud, Patch, "tape/t", json!({"competition": "a"})).await;
        venue.sync().await;
        assert_eq!(holds(&venue.pi).await, "c a t");
        let waiting: Vec<i64> = venue.pi.queue(&space()).await.unwrap().iter().map(|q| q.seq).collect();
        assert_eq!(venue.pi.queue_discard(&space(), &waiting).await.unwrap(), 1);
        assert_eq!(told(&venue.pi).await, [("from the Pi".to_owned(), Standing::Open)]);
        assert_eq!(shown().await, 1, "on {on:?}");
    }
}

/// I4, I12: what leaves a node in the middle without ever having been for anybody there is told to who follows it.
#[tokio::test]
async fn what_nobody_was_to_see_leaves_a_node_in_the_middle_for_its_followers_too() {
    on_every_store(|venue| async move {
        let tablet = harness::node(On::Memory, &venue.ground, PROFILE, "tablet", true, &venue.clock).await;
        let cable = Cable::new(venue.pi.clone(), enrolled(&venue.pi, "Tablet", "admin").await.token);
        let sync = async || tablet.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
        sync().await;
        at(&venue.cloud, Create, "camera/x", json!({"name": "of no tape"})).await;
        at(&tablet, Create, "tape/u", json!({"competition": "a", "camera": "c"})).await;
        at(&venue.cloud, Create, "tape/u", json!({"competition": "a", "camera": "x"})).await;
        at(&tablet, Create, "camera/x", json!({"name": "of no tape"})).await;
        sync().await;
        assert_eq!(holds(&venue.pi).await, "c x a t u");
        synced(&venue).await;
        assert_eq!(data(&venue.cloud, "tape", "u").await["camera"], "c");
        assert_eq!(holds(&venue.pi).await, "c a t u");
        let (theirs, ours) = sync().await.digests.unwrap();
        assert_eq!(theirs, ours);
        assert_eq!(holds(&tablet).await, "c a t u");
    })
    .await;
}
