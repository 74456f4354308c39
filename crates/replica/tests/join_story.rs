//! A competition that was made twice is joined; a device that knew only the joined one uploads late; the join is
//! undone: both competitions are whole.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{pair::plug, *};
use ropeway_core::{
    change::Op::{self, Create, Patch},
    conflict::Resolution,
    id::{CONFLICT, ChangeId},
    receipt::Verdict,
    record::State,
};
use ropeway_replica::{Edit, Node, Resolve, SyncOptions, SyncOutcome};
use serde_json::{Value, json};

const PROFILE: &str = r#"
name = "twice"
version = 1
resolver = "upstream"
retry = ["1m"]
[roles.admin]
write = "*"
resolve = true
[roles.device]
write = "*"
[collections.competition]
merge = "park"
delete = "latest"
[collections.competition.fields]
name = "text"
place = "text"
notes = "text"
starts = { type = "counter", merge = "counter" }
[collections.race]
references = { competition = "competition" }
merge = "latest"
[collections.race.fields]
name = "text"
[collections.incident]
references = { race = "race" }
merge = "park"
[collections.incident.fields]
text = "text"
"#;

async fn at(node: &Node, op: Op, name: &str, values: Value) {
    let (collection, id) = name.split_once('/').unwrap();
    let receipt = write(node, "somebody", op, collection, id, values).await;
    assert!(receipt.verdict.is_settled(), "{name}: {receipt:?}");
}

async fn answer(cloud: &Node, conflict: &str, resolution: Resolution) {
    let conflict = key(CONFLICT, conflict).id;
    let answer = Resolve { conflict, version: None, resolution, data: None, notes: None, change: None };
    let (receipt, _) = cloud.resolve(&space(), &desk("President", "admin"), answer).await.unwrap();
    assert!(receipt.verdict.is_settled(), "{receipt:?}");
}

/// A person says that the second competition is the first one.
async fn join(cloud: &Node) {
    let edit = Edit {
        change: Some(ChangeId::trusted("ask")),
        collection: key(CONFLICT, "x").collection,
        record: Some(key(CONFLICT, "ask:twins").id),
        op: Create,
        fields: fields(json!({"collection": "competition", "record": "c2", "other": "c1"})),
        version: None,
    };
    let asked = cloud.write(&space(), &desk("President", "admin"), edit).await.unwrap();
    assert_eq!(asked.verdict, Verdict::Parked, "{asked:?}");
    answer(cloud, "ask:twins", Resolution::Server).await;
}

async fn whole(node: &Node, who: &str) {
    let competition = async |id: &str| data(node, "competition", id).await;
    let c1 = json!({"name": "Verbier", "place": "Verbier", "starts": {"cloud-1": 1}});
    assert_eq!(competition("c1").await, c1, "{who}: what was there before, and nothing of the other");
    let c2 = competition("c2").await;
    assert_eq!((&c2["name"], &c2["notes"]), (&json!("Verbier 2026"), &json!("bring skins")), "{who}: {c2}");
    let record = node.get(&space(), &key("competition", "c2")).await.unwrap().unwrap();
    assert_eq!(record.state, State::Live, "{who}");
    for (race, of) in [("r1", "c1"), ("r2", "c2"), ("r3", "c2")] {
        assert_eq!(data(node, "race", race).await["competition"], of, "{who}: {race}");
    }
    for (incident, of) in [("i1", "r1"), ("i2", "r2"), ("late", "r2"), ("later", "r3")] {
        assert_eq!(data(node, "incident", incident).await["race"], of, "{who}: {incident}");
    }
}

#[test]
fn a_competition_joined_then_a_late_upload_then_the_undo_leaves_both_whole() {
    on_every_store_with(PROFILE, |venue| async move {
        let (cloud, pi) = (&venue.cloud, &venue.pi);
        let other_pi = node(On::Memory, &venue.ground, PROFILE, "other", true, &venue.clock).await;
        let other_cable = plug(cloud).await;
        let other = async || {
            let sync = other_pi.sync(&space(), &*other_cable, &SyncOptions::default(), &|_| {}).await;
            let report = sync.unwrap();
            assert!(matches!(report.outcome, Some(SyncOutcome::Done | SyncOutcome::Partly)), "{report:?}");
            let (theirs, ours) = report.digests.unwrap();
            assert_eq!(theirs, ours, "{}\n\n{}", dump(cloud).await, dump(&other_pi).await);
        };
        at(cloud, Create, "competition/c1", json!({"name": "Verbier", "place": "Verbier", "starts": 1}))
            .await;
        at(cloud, Create, "race/r1", json!({"competition": "c1", "name": "Sprint"})).await;
        at(cloud, Create, "incident/i1", json!({"race": "r1", "text": "of the first"})).await;
        // The same competition, made at the venue without a network.
        at(
            pi,
            Create,
            "competition/c2",
            json!({"name": "Verbier 2026", "notes": "bring skins", "starts": 2}),
        )
        .await;
        at(pi, Create, "race/r2", json!({"competition": "c2", "name": "Sprint"})).await;
        at(pi, Create, "incident/i2", json!({"race": "r2", "text": "of the second"})).await;
        venue.sync().await;
        other().await;
        join(cloud).await;
        other().await;
        let joined = data(cloud, "competition", "c1").await;
        assert_eq!(
            (&joined["name"], &joined["notes"]),
            (&json!("Verbier"), &json!("bring skins")),
            "{joined}"
        );
        assert_eq!(joined["starts"].as_object().unwrap().len(), 2, "{joined}");
        // The venue has heard nothing of it and goes on.
        at(pi, Create, "incident/late", json!({"race": "r2", "text": "uploaded late"})).await;
        at(pi, Create, "race/r3", json!({"competition": "c2", "name": "Vertical"})).await;
        at(pi, Create, "incident/later", json!({"race": "r3", "text": "in a new race"})).await;
        venue.sync().await;
        venue.assert_equal().await;
        other().await;
        assert!(pi.queue(&space()).await.unwrap().is_empty());
        // Whoever knows the joined one only may write to it: the survivor has it.
        assert_eq!(data(pi, "race", "r3").await["competition"], "c2", "no child is touched");
        let all = cloud.conflicts(&space(), false).await.unwrap();
        let undo = all.iter().find(|c| c.id.ends_with(":join")).unwrap().id.to_string();
        answer(cloud, &undo, Resolution::Apart).await;
        venue.sync().await;
        other().await;
        venue.assert_equal().await;
        for (node, who) in [(cloud, "cloud"), (pi, "venue"), (&other_pi, "another device")] {
            whole(node, who).await;
        }
        // And it stays so: both are edited, and nobody joins them again.
        at(pi, Patch, "competition/c2", json!({"place": "Le Châble"})).await;
        venue.sync().await;
        assert_eq!(data(cloud, "competition", "c1").await["place"], "Verbier");
        assert_eq!(data(cloud, "competition", "c2").await["place"], "Le Châble");
        venue.assert_equal().await;
    });
}
