//! The late match (CT-03): an incident without a bib gets that of its first report, and may so be found to
//! be one with another.

use super::{
    door::Refused,
    item,
    result::{Entry, deduplication},
    upload::{survivor, survivors},
};
use ropeway_core::{
    change::{Change, Op},
    doc::Fields,
    id::{ChangeId, Collection, Key, RecordId, SpaceId},
    receipt::{Receipt, Verdict},
    record::Record,
};
use ropeway_replica::Node;
use std::collections::{BTreeMap, BTreeSet};

const BIB: &str = "bib_number";

/// For reports that name an incident which has no bib yet: a change that gives it theirs, with the report's
/// place. One an incident: the first report speaks.
pub(crate) async fn fills(
    node: &Node,
    space: &SpaceId,
    changes: &[Change],
) -> Result<Vec<(usize, Change)>, Refused> {
    let named: Vec<(usize, &Change, Key)> = changes
        .iter()
        .enumerate()
        .filter(|(_, c)| &*c.collection == "report" && c.fields.get(BIB).is_some_and(|bib| !bib.is_null()))
        .filter_map(|(place, c)| Some((place, c, incident(c)?)))
        .collect();
    let keys: Vec<Key> = named.iter().map(|(_, _, key)| key.clone()).collect();
    let mut records = if keys.is_empty() { BTreeMap::new() } else { node.get_all(space, &keys).await? };
    survivors(node, space, &mut records).await?;
    let mut spoken = BTreeSet::new();
    let mut fills = Vec::new();
    for (place, report, key) in named {
        let Some((key, record)) = survivor(&records, &key) else { continue };
        let has_none = record.data.get(BIB).is_none_or(serde_json::Value::is_null);
        if record.is_live() && has_none && spoken.insert(key.clone()) {
            fills.push((place, fill(report, key)));
        }
    }
    Ok(fills)
}

fn incident(report: &Change) -> Option<Key> {
    let id = RecordId::parse(report.fields.get("incident")?.as_str()?).ok()?;
    Some(Key { collection: Collection::trusted("incident"), id })
}

fn fill(report: &Change, incident: Key) -> Change {
    let fields: Fields =
        report.fields.get_key_value(BIB).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
    let mut fill = Change {
        id: ChangeId::trusted("-"),
        collection: incident.collection,
        record: incident.id,
        op: Op::Patch,
        fields,
        // Its author saw an incident without a bib.
        seen: Some(Fields::new()),
        ..report.clone()
    };
    fill.base = None;
    fill.id = item::id_of(&fill);
    fill
}

/// Tells the report's sender that its incident was found to be one with another.
pub(crate) fn told(entry: &mut Entry, fill: &Receipt, survivor: Option<&Record>) {
    if fill.verdict == Verdict::Joined && entry.status < 300 {
        entry.json["deduplication"] = deduplication(survivor);
    }
}
