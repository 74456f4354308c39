//! What is said again is answered as before (TR-09), unless its device has said otherwise in between: then it is said
//! anew, and what it wants back is decided like any other edit (ISMF-074).

use super::{door::Refused, item};
use ropeway_core::{
    change::Change,
    doc::Fields,
    id::{DeviceId, Key, SpaceId},
    merge::same,
    profile::{Rules, admit},
    receipt::{Receipt, Verdict},
    record::{Record, State},
    time::Time,
};
use ropeway_replica::{ConflictView, Node};
use std::collections::{BTreeMap, BTreeSet};

/// Of changes that were answered from an earlier receipt, with their places: those to be decided anew, under ids that
/// follow from what was said last, so that they too may be sent again.
pub(crate) async fn said_anew(
    node: &Node,
    space: &SpaceId,
    rules: &Rules,
    heard: Vec<(usize, Change, &Receipt)>,
) -> Result<Vec<(usize, Change)>, Refused> {
    let keys: Vec<Key> = heard.iter().map(|(_, change, _)| change.key()).collect();
    let records = if keys.is_empty() { BTreeMap::new() } else { node.get_all(space, &keys).await? };
    let mut anew = Vec::new();
    let about: BTreeSet<Key> = keys.into_iter().collect();
    let mut conflicts = None;
    for (place, change, receipt) in heard {
        let Some(record) = records.get(&change.key()) else { continue };
        let is_open =
            change.base.is_none() && receipt.verdict != Verdict::Joined && record.state == State::Live;
        let Ok(wanted) = admit(rules, change.fields.clone()) else { continue };
        if !is_open || (!record.contested && holds(record, &wanted)) {
            continue;
        }
        // Rarely needed, and then once an upload.
        let conflicts = match &mut conflicts {
            Some(conflicts) => conflicts,
            none => {
                let mut found = Vec::new();
                node.each_conflict(space, |view| {
                    if about.contains(&view.conflict.about()) {
                        found.push(view);
                    }
                })
                .await?;
                none.insert(found)
            }
        };
        let device = &change.author.device;
        let of_it = conflicts.iter().filter(|view| {
            let c = &view.conflict;
            c.about() == change.key() && c.other.is_none() && c.incoming.by.device == *device
        });
        let mut said: Vec<Said> = of_it.filter_map(|view| said_in(view, &wanted, device, receipt)).collect();
        if record.version > receipt.version {
            said.extend(written_since(node, space, &change, record, receipt).await?);
        }
        if let Some(last) = said.into_iter().max() {
            let id = item::id_after(&change.id, &last.name);
            anew.push((place, Change { id, ..change }));
        }
    }
    Ok(anew)
}

/// Whether a record has what a change wants.
fn holds(record: &Record, wanted: &Fields) -> bool {
    wanted.iter().all(|(name, value)| match record.data.get(name) {
        Some(there) => same(there, value),
        None => value.is_null(),
    })
}

/// Something that a device said of a record. The last of several is the greatest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    /// Whether it waits for a person: then nothing was said after it.
    waits: bool,
    /// When this node first heard of it.
    at: Time,
    /// The same for as long as nothing else was said.
    name: String,
}

/// What a device said in a conflict of its own since a receipt, where that has to be answered. The conflict's `change`
/// and `opened_at` tell of the first that was parked in it; its incoming side and its version tell of the last.
fn said_in(view: &ConflictView, wanted: &Fields, device: &DeviceId, receipt: &Receipt) -> Option<Said> {
    let c = &view.conflict;
    let was_in_it = receipt.detail.conflicts.contains(&view.id);
    if !was_in_it && c.opened_at < receipt.stamp.time() {
        return None;
    }
    let is_the_same =
        c.incoming.values.iter().all(|(name, value)| wanted.get(name).is_none_or(|w| same(w, value)));
    let took_back = c.resolved_by.as_ref().is_some_and(|by| by.device == *device);
    let name = match (c.is_open(), is_the_same) {
        (true, true) if was_in_it => return None,
        // It waits already; the receipt only does not know.
        (true, true) => view.id.to_string(),
        (true, false) => format!("{} {}", view.id, view.version),
        (false, true) if took_back => format!("{} {}", view.id, view.version),
        (false, true) => return None,
        // As it stood open: what took it back may itself be said again.
        (false, false) => format!("{} {}", view.id, view.version.saturating_sub(1)),
    };
    Some(Said { waits: c.is_open() && !is_the_same, at: c.opened_at, name })
}

/// The versions that the change's device has written since the receipt.
async fn written_since(
    node: &Node,
    space: &SpaceId,
    change: &Change,
    record: &Record,
    receipt: &Receipt,
) -> Result<Vec<Said>, Refused> {
    let old = node.history(space, &change.key()).await?.into_iter().map(|old| old.record);
    let own = old.chain([record.clone()]).filter(|r| r.version > receipt.version);
    let own = own.filter(|r| r.author.device == change.author.device);
    let said = own.map(|r| Said { waits: false, at: r.stamp.time(), name: format!("version {}", r.version) });
    Ok(said.collect())
}
