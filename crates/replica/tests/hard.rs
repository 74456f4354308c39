//! Two hard things at once: restored while it is read anew, forgotten while an answer was lost, and a profile
//! that learns of audiences when the records are there already.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{
    Cable, CutAfter, On, PROFILE, Trouble, data, dump, key, on_every_store_with,
    pair::plain,
    place::{Place, assert_equal, clock, on_each},
    space, write,
};
use ropeway_core::{change::Op, profile, receipt::Verdict, retention::Keep};
use ropeway_replica::{Node, NodeOptions, SequentialIds, SyncOptions, SyncReport};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn keep() -> Keep {
    let soon = Duration::from_secs(1);
    Keep { tombstones: soon, receipts: soon, ..Keep::default() }
}

/// A device from beyond the horizon is in the middle of pulling everything anew when its upstream is restored:
/// what did not come again was lost there, not deleted, and nothing is let go.
#[test]
fn an_upstream_restored_while_it_is_pulled_anew_lets_nothing_go() {
    on_each(async |on| {
        let clock = clock();
        let mut cloud = Place::new(on, "cloud", false, &clock).await;
        let pi = Place::new(on, "pi", true, &clock).await;
        let token = cloud.device("Pi").await;
        cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
        pi.sync(&cloud.cable(&token)).await;
        let image = cloud.image().await;
        for n in 0..4 {
            let incident = json!({ "race": "race-1", "description": format!("seen {n}") });
            cloud.put("VAR", "incident", &format!("i{n}"), incident).await;
        }
        pi.put("Ada", "incident", "mine", json!({ "race": "race-1", "description": "mine" })).await;
        pi.sync(&cloud.cable(&token)).await;
        cloud.delete("VAR", "incident", "i3").await;
        clock.advance(YEAR);
        cloud.node.purge(&space(), &keep(), false).await.unwrap();
        // Refused as too old, it begins anew and is cut after a page.
        let cable = cloud.cable(&token);
        *cable.page.lock().unwrap() = 2;
        let cut = CutAfter { cable: Arc::new(cable), pages: 2.into(), arrives: false };
        pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap();
        assert!(pi.store_followed().await.anew, "it pulls anew");
        cloud.restore(&image, "again").await;
        for _ in 0..3 {
            pi.sync(&cloud.cable(&token)).await;
        }
        assert_eq!(pi.unsettled().await, 0);
        assert_equal(&cloud, &pi).await;
        let lost = cloud.lost().await;
        for id in ["i0", "i1", "i2", "i3", "mine"] {
            let asked = lost.iter().any(|(named, _)| named == id);
            let there = cloud.field("incident", id, "description").await != Value::Null;
            assert!(asked || there, "{id} is neither there nor asked about: {lost:?}");
        }
    });
}

/// A Pi whose batch was decided and never answered, and the cloud that decided it.
struct Unanswered {
    cloud: Place,
    pi: Place,
    token: String,
}

impl Unanswered {
    /// The Pi has a race from the cloud; the answer to the incidents that it made since was lost.
    async fn of(on: On, incidents: &[&str]) -> Self {
        let this = Self::before(on, incidents).await;
        this.lose_the_answer().await;
        this
    }

    async fn before(on: On, incidents: &[&str]) -> Self {
        let clock = clock();
        let cloud = Place::new(on, "cloud", false, &clock).await;
        let pi = Place::new(on, "pi", true, &clock).await;
        let token = cloud.device("Pi").await;
        cloud.put("VAR", "race", "race-1", json!({ "name": "Sprint" })).await;
        let this = Self { cloud, pi, token };
        this.sync().await;
        for id in incidents {
            this.made(id).await;
        }
        this
    }

    async fn made(&self, id: &str) {
        self.pi.put("Ada", "incident", id, json!({ "race": "race-1", "description": id })).await;
    }

    async fn lose_the_answer(&self) {
        let cable = self.cable();
        cable.pushes.lock().unwrap().push_back(Trouble::LoseAnswer);
        self.pi.sync(&cable).await;
    }

    /// The cloud's people delete an incident that arrived, and after a year nobody there knows of it.
    async fn forgotten(&self, id: &str) {
        assert_eq!(self.there(id).await, id);
        self.cloud.delete("VAR", "incident", id).await;
        self.cloud.clock.advance(YEAR);
        self.cloud.node.purge(&space(), &keep(), false).await.unwrap();
    }

    fn cable(&self) -> Cable {
        self.cloud.cable(&self.token)
    }

    async fn sync(&self) -> SyncReport {
        self.pi.sync(&self.cable()).await
    }

    /// A sync that is cut after so many pages of two records; `arrives`: the next request still does.
    async fn sync_cut(&self, pages: usize, arrives: bool) -> SyncReport {
        let cable = self.cable();
        *cable.page.lock().unwrap() = 2;
        let cut = CutAfter { cable: Arc::new(cable), pages: pages.into(), arrives };
        self.pi.node.sync(&space(), &cut, &SyncOptions::default(), &|_| {}).await.unwrap()
    }

    async fn there(&self, id: &str) -> Value {
        self.cloud.field("incident", id, "description").await
    }

    /// None of these came back to life: each waits until a person says what is to become of it.
    async fn asks_about(&self, ids: &[&str], why: &str) {
        for id in ids {
            assert_eq!(self.there(id).await, Value::Null, "{id} was deleted; {why}");
        }
        let waits = self.pi.node.queue(&space()).await.unwrap();
        let waits: Vec<_> = waits.iter().map(|q| (&*q.record, q.status)).collect();
        assert_eq!(waits, ids.iter().map(|id| (*id, "failed")).collect::<Vec<_>>(), "{why}");
    }
}

/// The answer to a creation was lost, and what came of it was deleted and forgotten before the device came
/// back from beyond the horizon: it comes back to life where a person says so, and not else. What the same batch
/// changed besides goes on.
#[test]
fn a_creation_whose_answer_was_lost_is_not_brought_back_to_life_unasked() {
    on_each(async |on| {
        for again in [false, true] {
            let of = Unanswered::before(on, &["mine", "stays"]).await;
            of.pi.put("Ada", "race", "race-1", json!({ "name": "Sprint women" })).await;
            of.lose_the_answer().await;
            of.forgotten("mine").await;
            // The first pull anew is cut.
            of.sync_cut(0, false).await;
            of.sync().await;
            of.asks_about(&["mine"], "").await;
            let waits = of.pi.node.queue(&space()).await.unwrap();
            assert!(waits[0].reason.as_ref().unwrap().text.contains("give it up"));
            of.cloud.clock.advance(YEAR);
            of.sync().await;
            of.asks_about(&["mine"], "no schedule sends it").await;
            let moved = match again {
                true => {
                    of.pi.node.queue_retry(&space(), &[waits[0].seq]).await.unwrap();
                    let again = of.pi.node.queue(&space()).await.unwrap();
                    again.iter().filter(|q| q.reason == waits[0].reason).count()
                }
                false => of.pi.node.queue_discard(&space(), &[waits[0].seq]).await.unwrap(),
            };
            assert_eq!(moved, 1);
            of.sync().await;
            assert_eq!(of.pi.unsettled().await, 0);
            assert_equal(&of.cloud, &of.pi).await;
            assert_eq!(of.there("mine").await == "mine", again);
            assert_eq!(of.there("stays").await, "stays");
            assert_eq!(of.cloud.field("race", "race-1", "name").await, "Sprint women");
        }
    });
}

/// The same, where the pull that comes first is cut after any of its pages, or the answer to the next one is lost: the
/// upstream may have noted by then that this device has read far enough.
#[test]
fn a_cut_anywhere_in_the_pull_brings_no_such_creation_back() {
    on_each(async |on| {
        for arrives in [false, true] {
            let mut whole = false;
            for pages in 0.. {
                let of = Unanswered::of(on, &["mine", "stays"]).await;
                of.forgotten("mine").await;
                for n in 0..5 {
                    of.cloud
                        .put("VAR", "race", &format!("new-{n}"), json!({ "name": "written since" }))
                        .await;
                }
                whole = of.sync_cut(pages, arrives).await.error.is_none();
                of.sync().await;
                let why = format!("cut after {pages} pages, the next request arrives: {arrives}");
                of.asks_about(&["mine"], &why).await;
                assert_eq!(of.there("stays").await, "stays", "{why}");
                if whole {
                    assert!(pages > 5, "there was something to cut");
                    break;
                }
            }
            assert!(whole);
        }
    });
}

/// What came in the pull that was cut is deleted and forgotten too, before the device comes back once more.
#[test]
fn what_came_once_and_is_gone_since_is_not_brought_back_either() {
    on_each(async |on| {
        let of = Unanswered::of(on, &["first", "second"]).await;
        for (id, pages) in [("first", 3), ("second", 0)] {
            of.forgotten(id).await;
            of.sync_cut(pages, false).await;
        }
        let there = of.pi.node.get(&space(), &key("incident", "second")).await.unwrap().unwrap();
        assert!(there.upstream.is_some(), "it came");
        of.sync().await;
        of.asks_about(&["first", "second"], "").await;
    });
}

/// The upstream is restored while a batch is in doubt: a batch of the lost epoch goes anew behind what is offered
/// again, and is in doubt as before.
#[test]
fn a_batch_in_doubt_stays_so_where_the_upstream_is_restored() {
    on_each(async |on| {
        for cut in [false, true] {
            let mut of = Unanswered::of(on, &["mine", "stays"]).await;
            of.forgotten("mine").await;
            if cut {
                of.sync_cut(0, false).await;
            }
            let image = of.cloud.image().await;
            of.cloud.restore(&image, "again").await;
            of.sync().await;
            of.asks_about(&["mine"], &format!("cut: {cut}")).await;
            assert_eq!(of.there("stays").await, "stays");
        }
    });
}

/// The upstream takes smaller batches by now: halves of a batch in doubt are in doubt too.
#[test]
fn halves_of_a_batch_in_doubt_are_in_doubt() {
    on_each(async |on| {
        for limit in [1, 2] {
            let of = Unanswered::of(on, &["mine", "stays", "third"]).await;
            of.forgotten("mine").await;
            let cable = of.cable();
            *cable.limit.lock().unwrap() = limit;
            of.pi.sync(&cable).await;
            of.pi.sync(&cable).await;
            of.asks_about(&["mine"], &format!("at most {limit} at once")).await;
            assert_eq!((of.there("stays").await, of.there("third").await), (json!("stays"), json!("third")));
        }
    });
}

/// Its device was revoked and registered anew, and what it made before is in doubt as before, whichever way it
/// learns that it has to read everything anew.
#[test]
fn what_was_in_doubt_is_so_when_the_device_is_registered_anew() {
    on_each(async |on| {
        let ways = [(false, false, false), (true, false, false), (false, true, false), (false, true, true)];
        for (opened, revoked, cut) in ways {
            let mut of = Unanswered::of(on, &["mine", "stays"]).await;
            if opened {
                // Refused as a whole, one by one, so that nothing is sealed any more.
                let cable = of.cable();
                *cable.limit.lock().unwrap() = 0;
                of.pi.sync(&cable).await;
            }
            of.forgotten("mine").await;
            if cut {
                of.sync_cut(0, false).await;
            }
            if revoked {
                let device = of.cloud.node.authenticate(&of.token).await.unwrap();
                of.cloud.node.revoke(&space(), &device.id).await.unwrap();
                of.sync().await;
                assert_eq!(of.cloud.node.quarantined(&space()).await.unwrap().len(), 2);
            }
            of.token = of.cloud.device("Pi, again").await;
            of.sync().await;
            of.asks_about(&["mine"], &format!("opened: {opened}, revoked: {revoked}, cut: {cut}")).await;
            assert_eq!(of.there("stays").await, "stays");
        }
    });
}

/// An administrator accepted the work of a revoked device, and it was deleted and forgotten since: the device,
/// registered anew, has never heard of either.
#[test]
fn what_was_accepted_and_deleted_since_is_not_brought_back() {
    on_each(async |on| {
        for by_hand in [false, true] {
            let mut of = Unanswered::before(on, &["mine"]).await;
            let device = of.cloud.node.authenticate(&of.token).await.unwrap();
            of.cloud.node.revoke(&space(), &device.id).await.unwrap();
            of.sync().await;
            of.cloud.node.accept_quarantined(&space(), &device.id, &[], None, false).await.unwrap();
            of.forgotten("mine").await;
            of.token = of.cloud.device("Pi, again").await;
            if by_hand {
                assert_eq!(of.pi.node.queue_retry(&space(), &[]).await.unwrap(), 1);
            }
            of.sync().await;
            of.asks_about(&["mine"], &format!("armed by hand: {by_hand}")).await;
        }
    });
}

/// A device that had never read anything when its first answer was lost, wherever its first pull is cut.
#[test]
fn a_device_that_never_read_anything_brings_nothing_back() {
    on_each(async |on| {
        for (pages, arrives) in (0..6).flat_map(|pages| [(pages, false), (pages, true)]) {
            let clock = clock();
            let cloud = Place::new(on, "cloud", false, &clock).await;
            let pi = Place::new(on, "pi", true, &clock).await;
            let token = cloud.device("Pi").await;
            let of = Unanswered { cloud, pi, token };
            of.pi.put("Ada", "race", "race-1", json!({ "name": "Sprint" })).await;
            of.made("mine").await;
            of.lose_the_answer().await;
            of.forgotten("mine").await;
            for n in 0..5 {
                of.cloud.put("VAR", "race", &format!("new-{n}"), json!({ "name": "written since" })).await;
            }
            of.sync_cut(pages, arrives).await;
            of.sync().await;
            of.asks_about(
                &["mine"],
                &format!("cut after {pages} pages, the next request arrives: {arrives}"),
            )
            .await;
            assert_eq!(of.cloud.field("race", "race-1", "name").await, "Sprint");
        }
    });
}

/// What is in doubt keeps its id, under which alone the upstream knows it: a later edit goes by itself.
#[test]
fn an_edit_of_what_is_in_doubt_goes_by_itself() {
    on_each(async |on| {
        let of = Unanswered::of(on, &["mine"]).await;
        // Refused as a whole, so that nothing is sealed when the edit is made.
        let cable = of.cable();
        *cable.limit.lock().unwrap() = 0;
        of.pi.sync(&cable).await;
        of.pi.put("Ada", "incident", "mine", json!({ "description": "seen again" })).await;
        assert_eq!(of.pi.unsettled().await, 2);
        of.cloud.clock.advance(YEAR);
        of.sync().await;
        of.sync().await;
        assert_eq!(of.pi.unsettled().await, 0);
        assert_eq!(of.there("mine").await, "seen again");
        let version = of.cloud.node.get(&space(), &key("incident", "mine")).await.unwrap().unwrap().version;
        assert_eq!(version, 2, "created once");
        assert_eq!(of.cloud.node.conflicts(&space(), false).await.unwrap().len(), 0);
        assert_equal(&of.cloud, &of.pi).await;
    });
}

/// Revoked while it had to pull first: what it made is handed in to quarantine all the same.
#[test]
fn revoked_before_it_had_pulled_it_still_hands_its_work_in() {
    on_each(async |on| {
        let of = Unanswered::of(on, &["mine"]).await;
        of.forgotten("mine").await;
        of.sync_cut(0, false).await;
        let device = of.cloud.node.authenticate(&of.token).await.unwrap();
        of.cloud.node.revoke(&space(), &device.id).await.unwrap();
        of.sync().await;
        assert_eq!(of.there("mine").await, Value::Null);
        assert_eq!(of.cloud.node.quarantined(&space()).await.unwrap().len(), 1);
    });
}

/// Refused as too old before anything was decided, and cut in the pull that was asked for first: what was never
/// sent before waits for nobody.
#[test]
fn what_was_never_sent_before_waits_for_nobody() {
    on_each(async |on| {
        let of = Unanswered::before(on, &["theirs"]).await;
        of.sync().await;
        of.forgotten("theirs").await;
        of.made("mine").await;
        of.sync_cut(0, false).await;
        assert_eq!(of.there("mine").await, Value::Null);
        of.sync().await;
        assert_eq!(of.there("mine").await, "mine");
        assert_eq!(of.pi.unsettled().await, 0);
        assert_equal(&of.cloud, &of.pi).await;
        // Then pushes go first again.
        of.made("more").await;
        of.sync_cut(0, false).await;
        assert_eq!(of.there("more").await, "more");
    });
}

/// Records that are older than the audiences of their profile are seen by those who may see them, and by nobody
/// else; also by a follower whose membership was written down before it meant anything.
#[test]
fn a_profile_that_gains_audiences_finds_the_records_that_are_there() {
    const CREW: &str = r#"
        [collections.crew]
        references = { race = "race" }
        AUDIENCE
        fields = { device = "text" }
    "#;
    let before = format!("{PROFILE}{}", CREW.replace("AUDIENCE", ""));
    let crew = "audience = { from = [\"race\"], subscribes = \"device\" }";
    let gained = format!("{PROFILE}{}", CREW.replace("AUDIENCE", crew))
        .replace("[roles.device]\n", "[roles.device]\nsees = \"subscribed\"\n")
        .replace("[collections.race]\n", "[collections.race]\naudience = { key = \"race:{id}\" }\n")
        .replace("[collections.incident]\n", "[collections.incident]\naudience = { from = [\"race\"] }\n");
    on_every_store_with(&before, move |venue| {
        let gained = gained.clone();
        async move {
            let early = async |collection: &str, id: &str, values: Value| {
                let receipt = write(&venue.cloud, "VAR", Op::Create, collection, id, values).await;
                assert_eq!(receipt.verdict, Verdict::Created);
            };
            for race in ["a", "b"] {
                early("race", race, json!({ "name": race })).await;
                early("incident", &format!("in-{race}"), json!({ "race": race, "description": race })).await;
            }
            early("crew", "c1", json!({ "race": "a", "device": venue.device.device.id.as_str() })).await;
            early("course", "open", json!({ "name": "for everybody" })).await;
            let options = NodeOptions {
                store: venue.cloud.store().clone(),
                profile: Arc::new(profile::parse(&gained, "race.toml").unwrap()),
                clock: venue.clock.clone(),
                ids: Arc::new(SequentialIds::new("again")),
                follows: false,
            };
            let cloud = Node::open(options).await.unwrap();
            // Written before anybody opened the space again: one of another process, say, or of a device of a space
            // that is not the node's own.
            for (op, id, text) in [(Op::Create, "in-new", "new"), (Op::Patch, "in-a", "a again")] {
                let values = json!({ "race": "a", "description": text });
                assert!(write(&cloud, "VAR", op, "incident", id, values).await.verdict.is_settled());
            }
            let course = json!({ "name": "still for everybody" });
            write(&cloud, "VAR", Op::Patch, "course", "open", course).await;
            for _ in 0..2 {
                cloud.open_named_spaces().await.unwrap();
                let pi = plain("other", true, &gained, &venue.clock).await;
                let cable = Cable::new(cloud.clone(), venue.device.token.clone());
                let report = pi.sync(&space(), &cable, &SyncOptions::default(), &|_| {}).await.unwrap();
                let (theirs, ours) = report.digests.unwrap();
                assert_eq!((report.pulled, theirs), (5, ours), "{}", dump(&pi).await);
                assert_eq!(data(&pi, "incident", "in-a").await["description"], "a again");
                assert_eq!(data(&pi, "incident", "in-new").await["description"], "new");
                assert_eq!(data(&pi, "incident", "in-b").await, Value::Null);
                // Killed before it was noted that it is done.
                cloud.store().put_meta("audiences.main", "").await.unwrap();
            }
            assert_eq!(cloud.store().audit().await.unwrap().faults, Vec::<String>::new());
        }
    });
}
