//! F22: what a reader may see changes between two pages of its pull, wherever that is.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod harness;

use harness::{
    CutAfter, On, Venue, data, dump,
    pair::{at, holds},
    space,
};
use ropeway_core::change::Op::{Create, Delete, Patch};
use ropeway_replica::{SyncOptions, SyncOutcome};
use serde_json::json;

const PROFILE: &str = harness::parts!(
    r#"
[collections.competition]
audience = { key = "competition:{id}" }
fields = { name = "text" }
[collections.camera]
audience = { granted = true }
fields = { name = "text" }
[collections.race]
references = { competition = "competition", camera = "camera" }
audience = { from = ["competition"] }
merge = "latest"
fields = { name = "text" }
[collections.incident]
references = { race = "race" }
audience = { from = ["race"] }
merge = "latest"
delete = "latest"
fields = { bib = "int" }
"#
);

/// What happens at the cloud between two pages.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    /// The race of the one competition goes over to the other one.
    Leaves,
    /// And the other way round.
    Comes,
    /// The Pi gives its competition back, or chooses the other one too.
    Chooses(&'static str, bool),
    /// It leaves, and comes back before the Pi has looked.
    Returns,
}

async fn happens(venue: &Venue, what: Meanwhile) {
    let moves = async |race: &str, to: &str| {
        at(&venue.cloud, Patch, &format!("race/{race}"), json!({"competition": to})).await;
    };
    match what {
        Meanwhile::Leaves => moves("ra", "b").await,
        Meanwhile::Comes => moves("rb", "a").await,
        Meanwhile::Chooses(name, on) => choose(venue, name, on).await,
        Meanwhile::Returns => {
            moves("ra", "b").await;
            moves("ra", "a").await;
        }
    }
    at(&venue.cloud, Patch, "incident/ia1", json!({"bib": 99})).await;
}

async fn choose(venue: &Venue, name: &str, on: bool) {
    venue.cloud.subscribe(&venue.device.device, &format!("competition:{name}"), on).await.unwrap();
}

/// The pull is cut behind so many pages, it happens, and the pull goes on. Whether it was cut at all.
async fn cut_behind(venue: &Venue, pages: usize, what: Meanwhile) -> bool {
    *venue.cable.page.lock().unwrap() = 1;
    let cut = CutAfter { cable: venue.cable.clone(), pages: pages.into(), arrives: true };
    let report = venue.pi.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
    let was_cut = report.outcome == Some(SyncOutcome::Offline);
    happens(venue, what).await;
    let report = venue.sync().await;
    assert_eq!(report.outcome, Some(SyncOutcome::Done), "{report:?}");
    let (theirs, ours) = report.digests.unwrap();
    assert_eq!(theirs, ours, "{what:?} behind {pages} pages:\n{}", dump(&venue.pi).await);
    was_cut
}

#[tokio::test]
async fn audiences_that_change_between_two_pages_leave_the_reader_with_what_it_may_see() {
    let stories = [
        (Meanwhile::Leaves, "a"),
        (Meanwhile::Comes, "ca cb a ia1 ia2 ia3 ib1 ra rb"),
        (Meanwhile::Chooses("a", false), ""),
        (Meanwhile::Chooses("b", true), "ca cb a b ia1 ia2 ia3 ib1 ra rb"),
        (Meanwhile::Returns, "ca a ia1 ia2 ia3 ra"),
    ];
    for (what, expected) in stories {
        for is_first in [true, false] {
            for pages in 0..40 {
                let on = if pages % 2 == 0 { On::Memory } else { On::Sqlite };
                let venue = Venue::of(on, PROFILE, "venue").await;
                choose(&venue, "a", true).await;
                if !is_first {
                    venue.sync().await;
                }
                for c in ["a", "b"] {
                    at(&venue.cloud, Create, &format!("competition/{c}"), json!({"name": c})).await;
                    at(&venue.cloud, Create, &format!("camera/c{c}"), json!({"name": c})).await;
                    let race = json!({"competition": c, "camera": format!("c{c}"), "name": c});
                    at(&venue.cloud, Create, &format!("race/r{c}"), race).await;
                }
                for (id, race) in [("ia1", "ra"), ("ia2", "ra"), ("gone", "ra"), ("ia3", "ra"), ("ib1", "rb")]
                {
                    let incident = json!({"race": race, "bib": 1});
                    at(&venue.cloud, Create, &format!("incident/{id}"), incident).await;
                }
                at(&venue.cloud, Delete, "incident/gone", json!({})).await;
                if !cut_behind(&venue, pages, what).await {
                    assert!(pages > 4, "{what:?}: nothing was cut");
                    break;
                }
                assert_eq!(holds(&venue.pi).await, expected, "{what:?} behind {pages} pages, {is_first}");
                if expected.contains("ia1") {
                    assert_eq!(data(&venue.pi, "incident", "ia1").await["bib"], 99);
                }
                assert_eq!(venue.sync().await.pulled, 0, "nothing new, nothing moves");
            }
        }
    }
}
