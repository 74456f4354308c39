//! Shortens a story that breaks an invariant until nothing more can be left out.

use crate::{
    disk::StoreKind,
    play::play_on,
    story::{Act, Story},
};

/// The shortest story found that breaks the same invariant, with at most `tries` plays.
pub fn shrink(kind: StoreKind, story: &Story, rule: &str, tries: usize) -> Story {
    let mut left = tries;
    let mut best = story.clone();
    let mut breaks = |story: &Story| {
        left = left.saturating_sub(1);
        left > 0 && play_on(kind, story, false).violation.is_some_and(|v| v.rule == rule)
    };
    loop {
        let before = best.clone();
        fewer_acts(&mut best, &mut breaks);
        shorter_acts(&mut best, &mut breaks);
        fewer_nodes(&mut best, &mut breaks);
        if best == before {
            return best;
        }
    }
}

/// Leaves out runs of acts, long runs first.
fn fewer_acts(best: &mut Story, breaks: &mut dyn FnMut(&Story) -> bool) {
    let mut run = best.acts.len().div_ceil(2);
    while run > 0 {
        // From the end: what happened last has the fewest consequences.
        let mut end = best.acts.len();
        while end > 0 {
            let begin = end.saturating_sub(run);
            let mut fewer = best.clone();
            fewer.acts.drain(begin..end);
            if breaks(&fewer) {
                *best = fewer;
            }
            end = begin;
        }
        run /= 2;
    }
}

fn shorter_acts(best: &mut Story, breaks: &mut dyn FnMut(&Story) -> bool) {
    for at in (0..best.acts.len()).rev() {
        while let Some(shorter) = best.acts[at].shorter().into_iter().find_map(|act| {
            let mut story = best.clone();
            story.acts[at] = act;
            breaks(&story).then_some(story)
        }) {
            *best = shorter;
        }
    }
}

/// Leaves the last node out where nothing needs it.
fn fewer_nodes(best: &mut Story, breaks: &mut dyn FnMut(&Story) -> bool) {
    while best.setting.parents.len() > 2 && best.setting.copied.is_none() {
        let last = best.setting.parents.len() - 1;
        let mut fewer = best.clone();
        fewer.setting.parents.pop();
        fewer.setting.scouts.retain(|node| *node != last);
        fewer.setting.second.retain(|node| *node != last);
        fewer.setting.shared.retain(|node| *node != last);
        fewer.acts.retain(|act| node_of(act) != Some(last));
        if !breaks(&fewer) {
            return;
        }
        *best = fewer;
    }
}

/// The node at which an act happens.
pub(crate) fn node_of(act: &Act) -> Option<usize> {
    match act {
        Act::Wait { .. } | Act::Copy => None,
        Act::Elsewhere { act } => node_of(act),
        Act::Clock { node, .. }
        | Act::Write { node, .. }
        | Act::Push { node, .. }
        | Act::PushAgain { node, .. }
        | Act::Sync { node, .. }
        | Act::Late { node, .. }
        | Act::Answer { node, .. }
        | Act::Discard { node, .. }
        | Act::Retry { node }
        | Act::Restart { node }
        | Act::Backup { node }
        | Act::Restore { node, .. }
        | Act::PutBack { node }
        | Act::Subscribe { node, .. }
        | Act::Revoke { node }
        | Act::Rotate { node, .. }
        | Act::Admit { node }
        | Act::Judge { node, .. }
        | Act::Purge { node } => Some(*node),
    }
}
