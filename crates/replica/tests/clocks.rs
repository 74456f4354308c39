//! Wrong clocks: offsets measured early and late, in two boots, never, and through a node in the middle.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]
mod harness;
use harness::{pair::*, *};
use ropeway_core::{
    change::Op::{Create, Patch},
    conflict::Conflict,
    outbox::EntryState,
    time::Time,
};
use ropeway_protocol::{Push, Transport};
use ropeway_replica::{Clock, ManualClock, Node, SyncOptions};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const HOUR: i64 = 3_600_000_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// Nodes with clocks of their own, which all run on together.
struct Clocks {
    all: Vec<Arc<ManualClock>>,
}

impl Clocks {
    fn new() -> Self {
        Self { all: Vec::new() }
    }
    /// A clock that is wrong by so much.
    fn off(&mut self, micros: i64) -> Arc<ManualClock> {
        let clock = Arc::new(ManualClock::at(Time::parse(START).unwrap().plus(micros)));
        self.all.push(clock.clone());
        clock
    }
    fn pass(&self, seconds: u64) {
        self.all.iter().for_each(|clock| clock.advance(Duration::from_secs(seconds)));
    }
}

async fn sync(node: &Node, cable: &Cable) {
    node.sync(&space(), cable, &SyncOptions::default(), &|_| {}).await.unwrap();
}

async fn note(node: &Node, text: &str) {
    write(node, "somebody", Patch, "item", "i", json!({"note": text})).await;
}

async fn noted(node: &Node) -> String {
    data(node, "item", "i").await["note"].as_str().unwrap_or_default().to_owned()
}

/// The offsets that the last push carried.
fn sent(cable: &Cable) -> Vec<Option<i64>> {
    let body = cable.sent.lock().unwrap().last().cloned().unwrap();
    let push: Push = serde_json::from_slice(&body).unwrap();
    push.changes.iter().map(|c| c.at.unwrap().offset).collect()
}

/// A cloud and a Pi whose clock is wrong, both with the item `i`; they have not met since.
async fn venue(clocks: &mut Clocks, off: i64) -> (Node, Node, Arc<Cable>, Arc<ManualClock>) {
    let (right, wrong) = (clocks.off(0), clocks.off(off));
    let cloud = plain("cloud", false, ALIKE, &right).await;
    write(&cloud, "var", Create, "item", "i", json!({"text": "t"})).await;
    let pi = plain("pi", true, ALIKE, &wrong).await;
    let cable = plug(&cloud).await;
    sync(&pi, &cable).await;
    clocks.pass(10);
    (cloud, pi, cable, wrong)
}

/// `latest` goes by when somebody wrote, not by whose clock is ahead.
#[tokio::test]
async fn the_latest_is_who_wrote_last() {
    for off in [-YEAR, -HOUR, HOUR, YEAR] {
        let mut clocks = Clocks::new();
        let (cloud, pi, cable, _) = venue(&mut clocks, off).await;
        note(&pi, "pi, first").await;
        clocks.pass(10);
        note(&cloud, "cloud, second").await;
        clocks.pass(10);
        sync(&pi, &cable).await;
        assert_eq!(
            (noted(&cloud).await, noted(&pi).await),
            ("cloud, second".into(), "cloud, second".into()),
            "{off}"
        );
        note(&cloud, "cloud, third").await;
        clocks.pass(10);
        note(&pi, "pi, fourth").await;
        sync(&pi, &cable).await;
        assert_eq!(
            (noted(&cloud).await, noted(&pi).await),
            ("pi, fourth".into(), "pi, fourth".into()),
            "{off}"
        );
        let conflicts = cloud.conflicts(&space(), false).await.unwrap();
        assert!(conflicts.iter().all(|c| !c.conflict.unmeasured && !c.conflict.is_open()));
    }
}

/// The wall clock is set in the middle of a boot: what was written before is corrected backwards by the
/// monotonic clock.
#[tokio::test]
async fn a_clock_set_in_the_middle_of_a_boot_reorders_nothing() {
    let mut clocks = Clocks::new();
    let (cloud, pi, cable, wrong) = venue(&mut clocks, 0).await;
    let right = wrong.now();
    wrong.jump_to(right.plus(YEAR));
    note(&pi, "pi, first").await;
    clocks.pass(10);
    wrong.jump_to(right.plus(10_000_000 - YEAR));
    write(&pi, "somebody", Create, "item", "j", json!({"text": "second"})).await;
    note(&cloud, "cloud, third").await;
    clocks.pass(10);
    sync(&pi, &cable).await;
    assert_eq!(sent(&cable), [Some(-YEAR), Some(YEAR)]);
    assert_eq!(noted(&pi).await, "cloud, third");
    let made = cloud.get(&space(), &key("item", "j")).await.unwrap().unwrap();
    assert_eq!(made.modified_at, right.plus(10_000_000), "the time at the top");
}

/// A boot that had its contact corrects its changes even after the next boot; one that had none cannot.
#[tokio::test]
async fn each_boot_is_corrected_by_its_own_contact() {
    let mut clocks = Clocks::new();
    let (cloud, pi, cable, wrong) = venue(&mut clocks, HOUR).await;
    cable.cut(true);
    write(&pi, "a", Create, "item", "first", json!({})).await;
    wrong.reboot();
    wrong.jump_to(Time(0));
    write(&pi, "a", Create, "item", "second", json!({})).await;
    note(&pi, "of 1970").await;
    wrong.reboot();
    clocks.pass(10);
    note(&cloud, "cloud").await;
    write(&pi, "a", Create, "item", "third", json!({})).await;
    cable.cut(false);
    sync(&pi, &cable).await;
    let body = sent(&cable);
    assert_eq!((body[0], body[1], body[2]), (Some(-HOUR), None, None), "the second boot had no contact");
    assert!(body[3].is_some(), "the third is measured now");
    let lost = cloud.conflicts(&space(), false).await.unwrap().pop().unwrap();
    assert!(lost.conflict.unmeasured, "a person sees that its time is the device's own");
    assert_eq!(noted(&pi).await, "cloud");
    let shown = pi.get(&space(), &key("conflict", &lost.id)).await.unwrap().unwrap();
    assert!(Conflict::read(&shown.data).unwrap().unmeasured, "at the device too");
}

/// What a Pi measured is durable: the next run of the program corrects what the last one wrote.
#[tokio::test]
async fn a_measurement_outlives_the_program() {
    let mut clocks = Clocks::new();
    let (_cloud, pi, _cable, wrong) = venue(&mut clocks, HOUR).await;
    assert_eq!(pi.offset_to_top(), Some(-HOUR));
    let again = ropeway_replica::NodeOptions {
        store: pi.store().clone(),
        profile: pi.profile().clone(),
        clock: wrong,
        ids: pi.ids().clone(),
        follows: true,
    };
    assert_eq!(Node::open(again).await.unwrap().offset_to_top(), Some(-HOUR));
}

/// A tablet follows a Pi, which follows the cloud: the tablet measures the cloud's time through the Pi, and
/// by a Pi that has not measured it, nobody measures. The Pi relays times as they came.
#[tokio::test]
async fn a_node_in_the_middle_passes_the_tops_time_on() {
    let mut clocks = Clocks::new();
    let (cloud, pi, up, _) = venue(&mut clocks, -YEAR).await;
    let fast = clocks.off(HOUR);
    let tablet = plain("tablet", true, ALIKE, &fast).await;
    let cable = plug(&pi).await;
    sync(&tablet, &cable).await;
    let by_the_top = tablet.clock().now().plus(tablet.offset_to_top().unwrap());
    assert_eq!(by_the_top, cloud.clock().now(), "not the Pi's year");
    note(&tablet, "tablet, first").await;
    clocks.pass(10);
    note(&cloud, "cloud, second").await;
    clocks.pass(10);
    sync(&tablet, &cable).await;
    let measured = sent(&cable);
    sync(&pi, &up).await;
    assert_eq!(sent(&up), measured, "relayed as it came");
    sync(&tablet, &cable).await;
    for node in [&cloud, &pi, &tablet] {
        assert_eq!(noted(node).await, "cloud, second");
    }
}

#[tokio::test]
async fn nobody_measures_by_a_clock_that_nobody_measured() {
    let mut clocks = Clocks::new();
    let (never, fast) = (clocks.off(-YEAR), clocks.off(0));
    let pi = plain("pi", true, ALIKE, &never).await;
    let tablet = plain("tablet", true, ALIKE, &fast).await;
    let cable = plug(&pi).await;
    assert_eq!(cable.hello().await.unwrap().offset, None);
    sync(&tablet, &cable).await;
    assert_eq!(tablet.offset_to_top(), None);
    write(&tablet, "a", Create, "item", "x", json!({})).await;
    sync(&tablet, &cable).await;
    assert_eq!(sent(&cable), [None]);
}

/// A year ahead or back, on either side: nothing is lost, stamps go up, and what waits goes.
#[tokio::test]
async fn clocks_that_jump_lose_nothing() {
    let mut clocks = Clocks::new();
    let (cloud, pi, cable, wrong) = venue(&mut clocks, 0).await;
    let right = clocks.all[0].clone();
    let mut last = cloud.store().space(&space()).await.unwrap().head;
    for (n, (ours, theirs)) in
        [(YEAR, 0), (-YEAR, 0), (0, YEAR), (0, -YEAR), (-YEAR, YEAR), (0, 0)].into_iter().enumerate()
    {
        let now = Time::parse(START).unwrap();
        wrong.jump_to(now.plus(ours));
        right.jump_to(now.plus(theirs));
        write(&pi, "a", Create, "item", &format!("p{n}"), json!({"text": "pi"})).await;
        write(&cloud, "b", Create, "item", &format!("c{n}"), json!({"text": "cloud"})).await;
        sync(&pi, &cable).await;
        let head = cloud.store().space(&space()).await.unwrap().head;
        assert!(head > last);
        last = head;
        let waits = pi.store().outbox_counts(&space()).await.unwrap();
        assert!(waits.iter().all(|(state, _)| *state == EntryState::Settled), "{waits:?}");
        assert_eq!(dump(&cloud).await, dump(&pi).await);
        let made = cloud.get(&space(), &key("item", &format!("p{n}"))).await.unwrap().unwrap();
        assert!(made.modified_at <= right.now(), "the top clamps what is still ahead");
    }
}

/// A lease holds by the monotonic clock: a jump of the wall clock neither frees nor keeps it.
#[tokio::test]
async fn a_lease_holds_whatever_the_wall_clock_does() {
    let mut clocks = Clocks::new();
    let (_cloud, pi, cable, wrong) = venue(&mut clocks, 0).await;
    let value = format!("other {} {} {}", wrong.boot(), wrong.mono() + 2_000_000, wrong.now().0 + 2_000_000);
    pi.store().put_meta("lease.main", &value).await.unwrap();
    wrong.jump_to(wrong.now().plus(HOUR));
    let soon = tokio::time::timeout(Duration::from_millis(300), sync(&pi, &cable)).await;
    assert!(soon.is_err(), "somebody holds it");
    wrong.jump_to(wrong.now().plus(-2 * HOUR));
    clocks.pass(3);
    sync(&pi, &cable).await;
}

/// A head that a fast clock left behind is told until the clock has reached it.
#[tokio::test]
async fn a_head_far_ahead_of_the_clock_is_an_alarm() {
    let mut clocks = Clocks::new();
    let (cloud, _pi, _cable, _) = venue(&mut clocks, 0).await;
    assert_eq!(cloud.status(&space()).await.unwrap().head_alarm, None);
    let right = clocks.all[0].clone();
    let now = right.now();
    right.jump_to(now.plus(HOUR));
    note(&cloud, "from the future").await;
    right.jump_to(now);
    let alarm = cloud.status(&space()).await.unwrap().head_alarm.unwrap();
    assert!(alarm.contains("--restamp"), "names the cure: {alarm}");
    note(&cloud, "and goes on").await;
    assert_eq!(noted(&cloud).await, "and goes on");
    right.jump_to(now.plus(HOUR));
    assert_eq!(cloud.status(&space()).await.unwrap().head_alarm, None);
}
