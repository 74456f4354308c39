//! Replicas agree once everything has come to rest (I4), whatever was lost, cut short or decided
//! meanwhile; nothing acknowledged is lost (I3), nothing is there twice (I5).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::world::{Deed, World, deed};
use proptest::prelude::*;

fn converges(deeds: &[Deed]) {
    let mut world = World::new();
    for deed in deeds {
        world.play(deed);
    }
    world.rest();
    world.agree();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn replicas_agree_when_all_is_quiet(deeds in prop::collection::vec(deed(), 1..120)) {
        converges(&deeds);
    }
}
