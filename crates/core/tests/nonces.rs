//! A copy of a device is told from the device: pairs of numbered nonces between devices and a node.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use proptest::prelude::*;
use ropeway_core::{
    id::DeviceId,
    nonce::{Chain, Fork, Meeting, Own, Pair},
    time::Time,
};

const NOW: Time = Time(1_771_065_689_000_000);

/// A node that remembers, and counts the words that devices draw.
#[derive(Default, Clone)]
struct World {
    chain: Chain,
    drawn: u64,
}

impl World {
    fn begin(&mut self, own: &mut Own) -> Pair {
        let drawn = &mut self.drawn;
        own.begin(|| {
            *drawn += 1;
            format!("w{drawn}")
        })
    }
    /// A request arrives.
    fn arrives(&mut self, pair: &Pair) -> Meeting {
        let meeting = self.chain.meet(pair, NOW);
        if let Meeting::Taken(chain) | Meeting::Behind(chain) = &meeting {
            self.chain = chain.clone();
        }
        meeting
    }
    /// A sync whose answer arrives too.
    fn sync(&mut self, own: &mut Own) -> Meeting {
        let pair = self.begin(own);
        let meeting = self.arrives(&pair);
        if !matches!(meeting, Meeting::Fork(_)) {
            own.taken(&pair);
        }
        meeting
    }
}

fn device(name: &str) -> Own {
    Own::new(DeviceId::trusted(name))
}

fn is_taken(meeting: &Meeting) -> bool {
    matches!(meeting, Meeting::Taken(_))
}

#[test]
fn of_two_copies_the_second_is_refused_whoever_comes_second() {
    let (mut world, mut one) = (World::default(), device("i1"));
    for _ in 0..3 {
        assert!(is_taken(&world.sync(&mut one)));
    }
    let mut two = one.clone();
    assert!(is_taken(&world.sync(&mut two)));
    assert_eq!(world.sync(&mut one), Meeting::Fork(Fork::Passed));
    assert_eq!(world.sync(&mut one), Meeting::Fork(Fork::Passed), "asked again, the same answer");
    assert!(is_taken(&world.sync(&mut two)), "the first goes on");
}

/// A device whose database lost its last syncs begins anew once for each promotion, and is refused for none.
#[test]
fn a_device_whose_database_was_promoted_is_a_new_installation_once() {
    let (mut world, mut own) = (World::default(), device("i1"));
    own.heed(None, || panic!("nothing was promoted"));
    world.sync(&mut own);
    let mut replica = own.clone();
    for _ in 0..3 {
        assert!(is_taken(&world.sync(&mut own)));
    }
    assert_eq!(
        world.clone().sync(&mut replica.clone()),
        Meeting::Fork(Fork::Passed),
        "as it stands it is a copy"
    );
    for (promotion, name) in [("first", "i2"), ("second", "i3")] {
        replica.heed(Some(promotion), || DeviceId::trusted(name));
        for _ in 0..2 {
            replica.heed(Some(promotion), || panic!("it is known"));
            assert!(is_taken(&world.sync(&mut replica)));
        }
        assert_eq!(&*replica.installation, name);
    }
}

#[test]
fn copies_taken_in_the_middle_of_a_sync_show_at_the_next() {
    let (mut world, mut one) = (World::default(), device("i1"));
    world.begin(&mut one);
    let mut two = one.clone();
    assert!(is_taken(&world.sync(&mut one)));
    assert_eq!(world.sync(&mut two), Meeting::Repeat);
    assert!(is_taken(&world.sync(&mut two)));
    assert_eq!(world.sync(&mut one), Meeting::Fork(Fork::Passed));
}

#[test]
fn a_lost_answer_is_a_repeat_and_a_late_duplicate_does_no_harm() {
    let (mut world, mut own) = (World::default(), device("i1"));
    let first = world.begin(&mut own);
    assert!(is_taken(&world.arrives(&first)));
    assert_eq!(world.begin(&mut own), first, "nobody knows whether it arrived");
    assert_eq!(world.sync(&mut own), Meeting::Repeat);
    for _ in 0..2 {
        assert!(is_taken(&world.sync(&mut own)));
        let before = world.chain.clone();
        assert_eq!(world.arrives(&first), Meeting::Fork(Fork::Passed));
        assert_eq!(world.chain, before, "a refused request changes nothing");
    }
}

#[test]
fn an_old_backup_of_a_device_is_a_fork_and_a_new_installation_of_it_is_not() {
    let (mut world, mut own) = (World::default(), device("i1"));
    let empty = own.clone();
    assert!(is_taken(&world.sync(&mut own)));
    let mut backup = own.clone();
    assert!(is_taken(&world.sync(&mut own)));
    assert!(is_taken(&world.sync(&mut own)));
    for mut old in [backup.clone(), empty] {
        assert_eq!(world.sync(&mut old), Meeting::Fork(Fork::Passed));
    }
    backup = device("i2");
    assert!(is_taken(&world.sync(&mut backup)));
    assert!(is_taken(&world.sync(&mut backup)));
    assert_eq!(world.sync(&mut own), Meeting::Fork(Fork::Replaced), "one registration, one installation");
}

#[test]
fn a_node_that_went_back_in_time_goes_on_and_says_so() {
    let (mut world, mut own) = (World::default(), device("i1"));
    assert!(is_taken(&world.sync(&mut own)));
    let backup = world.chain.clone();
    assert!(is_taken(&world.sync(&mut own)));
    assert!(is_taken(&world.sync(&mut own)));
    world.chain = backup.clone();
    assert!(matches!(world.sync(&mut own), Meeting::Behind(_)));
    assert_eq!(world.chain.behind_at, Some(NOW));
    assert!(is_taken(&world.sync(&mut own)));
    // Restored to the very sync before: nothing shows, and nothing is wrong.
    world.chain = backup;
    let mut one_ahead = device("i1");
    one_ahead.last = world.chain.installations[0].next.clone().into();
    assert!(is_taken(&world.sync(&mut one_ahead)));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut world = World::default();
    for n in 0..100 {
        assert!(is_taken(&world.sync(&mut device(&format!("i{n}")))));
    }
    assert_eq!(world.chain.installations.len(), 32);
    assert_eq!(&*world.chain.installations[31].id, "i99");
}

#[test]
fn a_pair_is_read_as_it_was_written_and_nothing_else_is() {
    let mut own = device("01984f10-0000-7000-8000-000000000127");
    for expected in
        ["01984f10-0000-7000-8000-000000000127 - 1.w1", "01984f10-0000-7000-8000-000000000127 1.w1 2.w2"]
    {
        let pair = own.begin(|| if own_is_new(expected) { "w1".into() } else { "w2".into() });
        assert_eq!(pair.to_string(), expected);
        assert_eq!(expected.parse::<Pair>().unwrap(), pair);
        own.taken(&pair);
    }
    for bad in [
        "",
        "i",
        "i -",
        "i - 1",
        "i - 1.",
        "i - 0.a",
        "i - 2.a",
        "i 1.a 1.b",
        "i 1.a 3.b",
        "i 2.a 1.b",
        "i  - 1.a",
        "i - 1.a ",
        "i - 1.a b",
        "i - +1.a",
        "i - 1.a.b",
        "i - 1.é",
        "- - -",
        "i\t-\t1.a",
        "é - 1.a",
        "i 18446744073709551615.a 18446744073709551616.b",
        "i 18446744073709551615.a 0.b",
    ] {
        assert!(bad.parse::<Pair>().is_err(), "{bad:?}");
    }
    assert!(format!("i - 1.{}", "x".repeat(65)).parse::<Pair>().is_err());
}

fn own_is_new(expected: &str) -> bool {
    expected.contains(" - ")
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A device syncs, and its answer arrives or is lost.
    Sync { device: usize, answered: bool },
    /// One of the requests ever sent arrives again.
    Duplicate(usize),
    /// A device's data directory is copied over another's.
    Copy { from: usize, to: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0usize..3, any::<bool>()).prop_map(|(device, answered)| Event::Sync { device, answered }),
        1 => any::<prop::sample::Index>().prop_map(|i| Event::Duplicate(i.index(1 << 20))),
        1 => (0usize..3, 0usize..3).prop_map(|(from, to)| Event::Copy { from, to }),
    ]
}

proptest! {
    /// Whatever is copied, lost and repeated: each nonce is followed by one other at most, and whoever
    /// holds the newest pair always gets through.
    #[test]
    fn nobody_is_followed_twice_and_somebody_always_goes_on(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::default();
        let mut devices = [device("i1"), device("i1"), device("i1")];
        let mut sent: Vec<Pair> = Vec::new();
        let mut followed = std::collections::BTreeMap::new();
        for event in events {
            let pair = match event {
                Event::Sync { device, .. } => world.begin(&mut devices[device]),
                Event::Duplicate(i) if !sent.is_empty() => sent[i % sent.len()].clone(),
                Event::Duplicate(_) => continue,
                Event::Copy { from, to } => {
                    devices[to] = devices[from].clone();
                    continue;
                }
            };
            sent.push(pair.clone());
            let before = world.chain.clone();
            let meeting = world.arrives(&pair);
            prop_assert!(!matches!(meeting, Meeting::Behind(_)), "the node never went back");
            if is_taken(&meeting) {
                let last = pair.last.as_ref().map(ToString::to_string);
                prop_assert!(followed.insert(last, pair.next.to_string()).is_none(), "{pair} is a second one");
            } else {
                prop_assert_eq!(&world.chain, &before);
            }
            if let (Event::Sync { device, answered: true }, false) = (event, matches!(meeting, Meeting::Fork(_))) {
                devices[device].taken(&pair);
            }
        }
        if let Some(newest) = world.chain.installations.last() {
            let tip = Pair { installation: newest.id.clone(), last: newest.last.clone(), next: newest.next.clone() };
            prop_assert_eq!(world.arrives(&tip), Meeting::Repeat);
        }
    }
}
