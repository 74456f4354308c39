//! A first pull that was cut: what has come of it is on the disk, and nobody has seen it.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{CutAfter, Venue, data, fields, key, on_every_store_with, pair::tree, space, write};
use ropeway_core::{
    change::{
        Author, Change, Door, Grant,
        Op::{Create, Patch},
    },
    id::ChangeId,
    receipt::{Receipt, Verdict},
};
use serde_json::{Value, json};

/// Two boxes came with the first pages, and the third did not.
async fn cut(venue: &Venue) {
    for n in 1..=3 {
        let values = json!({"name": format!("the cloud's {n}")});
        write(&venue.cloud, "var", Create, "box", &format!("b{n}"), values).await;
    }
    *venue.cable.page.lock().unwrap() = 1;
    let cable = CutAfter { cable: venue.cable.clone(), pages: 2.into(), arrives: false };
    let report = venue.pi.sync(&space(), &cable, &Default::default(), &|_| {}).await.unwrap();
    assert_eq!(report.pulled, 2, "{report:?}");
    assert_eq!(data(&venue.pi, "box", "b1").await, Value::Null, "it is not seen");
}

async fn push(venue: &Venue, id: &str, values: Value) -> Receipt {
    let author = Author { device: venue.device.device.id.clone(), person: Some("ann".into()) };
    let change = Change {
        id: ChangeId::trusted(format!("tablet-{id}")),
        collection: key("box", id).collection,
        record: key("box", id).id,
        op: Patch,
        fields: fields(values),
        seen: None,
        base: None,
        lost: None,
        author,
        at: None,
    };
    let grant = Grant { door: Door::Push, device: venue.device.device.id.clone(), role: "device".into() };
    venue.pi.ingest(&space(), grant, vec![change]).await.unwrap().remove(0)
}

/// I3: whoever writes over what they cannot see has not seen it. The upstream asks.
#[test]
fn an_edit_over_what_is_not_in_sight_yet_replaces_nothing_unseen() {
    on_every_store_with(&tree("latest", "upstream"), |venue| async move {
        cut(&venue).await;
        write(&venue.pi, "referee", Patch, "box", "b1", json!({"name": "the referee's"})).await;
        let report = venue.sync().await;
        assert_eq!(report.verdicts.get(&Verdict::Parked), Some(&1), "{report:?}");
        assert_eq!(data(&venue.cloud, "box", "b1").await["name"], "the cloud's 1");
        let open = venue.cloud.conflicts(&space(), true).await.unwrap();
        assert_eq!(open[0].conflict.incoming.values["name"], "the referee's");
        venue.sync().await;
        venue.assert_equal().await;
    });
}

/// I6: a receipt shows nothing of half a pull either. What shows because somebody here wrote on it is shown.
#[test]
fn a_receipt_shows_nothing_of_half_a_pull() {
    on_every_store_with(&tree("latest", "upstream"), |venue| async move {
        cut(&venue).await;
        let same = push(&venue, "b1", json!({"name": "the cloud's 1"})).await;
        assert_eq!((same.verdict, same.version, &same.record), (Verdict::Unchanged, 0, &None), "{same:?}");
        let other = push(&venue, "b2", json!({"n": 1})).await;
        assert!(other.version > 0 && other.record.is_some(), "{other:?}");
        venue.sync().await;
        let again = push(&venue, "b1", json!({"name": "the cloud's 1"})).await;
        assert!(again.version > 0 && again.record.is_some(), "{again:?}");
        venue.sync().await;
        venue.assert_equal().await;
    });
}
