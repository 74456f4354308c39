//! What is said again is answered as before (TR-09), unless its device has said otherwise in between: then it is said
//! anew, and what it wants back is decided like any other edit (ISMF-074).

use super::{door::Refused, item};
use ropeway_core::{
    change::Change,
    id::{DeviceId, Key, SpaceId},
    merge::same,
    profile::{Rules, admit},
    receipt::{Receipt, Verdict},
    record::{Record, State},
};
use ropeway_replica::{ConflictView, Node};
use std::collections::BTreeMap;

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
    let mut conflicts = None;
    for (place, change, receipt) in heard {
        let Some(record) = records.get(&change.key()) else { continue };
        let is_open =
            change.base.is_none() && receipt.verdict != Verdict::Joined && record.state == State::Live;
        if !is_open || (!record.contested && holds(record, &change, rules)) {
            continue;
        }
        // Rarely needed, and then once an upload.
        let conflicts = match &mut conflicts {
            Some(conflicts) => conflicts,
            none => none.insert(node.conflicts(space, false).await?),
        };
        if let Some(last) = said_since(node, space, conflicts, &change, record, receipt).await? {
            let id = item::id_after(&change.id, &last);
            anew.push((place, Change { id, ..change }));
        }
    }
    Ok(anew)
}

/// Whether a record has what a change wants.
fn holds(record: &Record, change: &Change, rules: &Rules) -> bool {
    let Ok(wanted) = admit(rules, change.fields.clone()) else { return true };
    wanted.iter().all(|(name, value)| match record.data.get(name) {
        Some(there) => same(there, value),
        None => value.is_null(),
    })
}

/// The name of the last thing that the change's device said of the record since the receipt.
async fn said_since(
    node: &Node,
    space: &SpaceId,
    conflicts: &[ConflictView],
    change: &Change,
    record: &Record,
    receipt: &Receipt,
) -> Result<Option<String>, Refused> {
    let (about, device): (Key, &DeviceId) = (change.key(), &change.author.device);
    let heard_at = receipt.stamp.time();
    let of_it = conflicts.iter().map(|view| &view.conflict).filter(|c| c.about() == about);
    let parked = of_it
        .filter(|c| c.incoming.by.device == *device && c.change != change.id && c.opened_at >= heard_at)
        .map(|c| (c.opened_at, c.change.to_string()));
    let mut said: Vec<_> = parked.collect();
    if record.version > receipt.version {
        let old = node.history(space, &about).await?.into_iter().map(|old| old.record);
        let own = old.chain([record.clone()]).filter(|r| r.version > receipt.version);
        let own = own.filter(|r| r.author.device == *device);
        said.extend(own.map(|r| (r.stamp.time(), format!("version {}", r.version))));
    }
    Ok(said.into_iter().max().map(|(_, name)| name))
}
