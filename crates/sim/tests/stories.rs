//! What a seed promises: the same story, told the same way; and stories that once failed, told again.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use ropeway_sim::{StoreKind, draw, play, play_on, story::Story};
use std::{fs, path::Path};

#[test]
fn fifty_seeds_played_twice_go_the_same_way() {
    for seed in 1..=50 {
        let (first, again) = (play(&draw(seed), true), play(&draw(seed), true));
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert!(first.violation.is_none(), "seed {seed}: {:?}", first.violation);
    }
}

#[test]
fn on_files_stories_go_the_same_way_as_in_memory() {
    for seed in 1..=10 {
        let (there, here) = (play(&draw(seed), true), play_on(StoreKind::Sqlite, &draw(seed), true));
        assert_eq!(there.seen, here.seen, "seed {seed}: {:#?} and {:#?}", there.trace, here.trace);
        assert!(here.violation.is_none(), "seed {seed}: {:?}", here.violation);
    }
}

#[test]
fn two_seeds_tell_two_stories() {
    assert_ne!(play(&draw(1), false).hash, play(&draw(2), false).hash);
}

#[test]
fn a_story_is_read_as_it_was_written() {
    for seed in 1..=200 {
        let story = draw(seed);
        let read: Story = serde_json::from_str(&serde_json::to_string(&story).unwrap()).unwrap();
        assert_eq!(read, story, "seed {seed}");
    }
}

#[test]
fn every_kept_story_ends_well() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut count = 0;
    for entry in fs::read_dir(kept).unwrap() {
        let file = entry.unwrap().path();
        let story: Story = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let outcome = play(&story, false);
        assert!(outcome.violation.is_none(), "{}: {:?}", file.display(), outcome.violation);
        count += 1;
    }
    assert!(count > 0, "the kept stories are not where they were");
}
