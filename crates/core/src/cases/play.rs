//! Plays a case on a bench and compares.

use super::{Case, Given, Place, Sent, Wanted, WantedConflict, time};
use crate::{
    change::{Batch, Change},
    conflict::Conflict,
    doc::Doc,
    id::{CONFLICT, Collection, DeviceId, Epoch, Key, RecordId},
    receipt::Receipt,
    record::State,
    time::Time,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A node on which cases are played: the core alone, a store, or a server behind a socket.
pub trait Bench {
    /// The node's epoch.
    fn epoch(&self) -> Epoch;
    /// The device of the node's own desk.
    fn device(&self) -> DeviceId;
    /// Decides a batch at this time and answers one receipt a change.
    fn take(&mut self, batch: Batch, now: Time) -> Vec<Receipt>;
    /// A record as the node holds it.
    fn record(&self, key: &Key) -> Option<(State, u64, Doc)>;
    /// Every live record of a collection.
    fn live(&self, collection: &Collection) -> Vec<(RecordId, Doc)>;
}

/// Plays a case. The error says, a line each, what came out otherwise.
///
/// # Errors
/// What is wrong with the case, or what the node did that the case does not say.
pub fn play(case: &Case, bench: &mut dyn Bench) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut sent: Vec<(Change, crate::change::Grant)> = Vec::new();
    let mut now = time("12:00:00")?;
    let mut at = 0;
    while at < case.change.len() {
        let batch = next_batch(case, at, now, &mut sent, bench)?;
        now = batch.now.plus(1_000_000);
        at = batch.places.last().map_or(at, |last| last + 1);
        let receipts = bench.take(batch.batch, batch.now);
        if receipts.len() != batch.places.len() {
            return Err(format!("{} receipts for {} changes", receipts.len(), batch.places.len()));
        }
        for (place, receipt) in batch.places.iter().zip(&receipts) {
            answered(&case.change[*place], place + 1, receipt, &mut wrong);
        }
    }
    for wanted in &case.record {
        held(wanted, bench, &mut wrong)?;
    }
    conflicts(&case.conflict, bench, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn next_batch(
    case: &Case,
    from: usize,
    now: Time,
    sent: &mut Vec<(Change, crate::change::Grant)>,
    bench: &dyn Bench,
) -> Result<Sent, String> {
    let rest = &case.change[from..];
    let count = 1 + rest.iter().skip(1).take_while(|given| given.and).count();
    let now = rest[0].now.as_deref().map_or(Ok(now), time)?;
    let (epoch, device) = (bench.epoch(), bench.device());
    let held = |collection: &str, id: &str| {
        let key = Key::new(&Collection::trusted(collection), &RecordId::trusted(id));
        bench.record(&key).map(|(_, version, _)| version)
    };
    let first = sent.len();
    for (i, given) in rest.iter().take(count).enumerate() {
        let made = match given.again {
            Some(number) => {
                sent.get(number.wrapping_sub(1)).cloned().ok_or("`again` names no earlier change")?
            }
            None => {
                let place = Place { epoch: &epoch, number: from + i + 1, device: &device, held: &held };
                (given.change(&place)?, given.grant(&device)?)
            }
        };
        sent.push(made);
    }
    let grant = sent[first].1.clone();
    let changes = sent[first..].iter().map(|(change, _)| change.clone()).collect();
    let given = case.change[from..from + count].iter().zip(&sent[first..]);
    let last = given.filter(|(given, _)| given.last).map(|(_, (change, _))| change.id.clone()).collect();
    Ok(Sent {
        batch: Batch { last, ..Batch::new(grant, changes) },
        now,
        places: (from..from + count).collect(),
    })
}

fn answered(given: &Given, number: usize, receipt: &Receipt, wrong: &mut Vec<String>) {
    let mut differ = |what: &str, is: String, wanted: String| {
        if is != wanted {
            wrong.push(format!("change {number}: {what} is {is}, not {wanted} ({:?})", receipt.reason));
        }
    };
    match given.is {
        Some(verdict) => differ("the verdict", receipt.verdict.as_str().into(), verdict.as_str().into()),
        // Nothing said: it is taken in.
        None if receipt.verdict.is_settled() => {}
        None => differ("the verdict", receipt.verdict.as_str().into(), "one that settles it".into()),
    }
    if let Some(why) = given.why {
        differ(
            "the reason",
            format!("{:?}", receipt.reason.as_ref().map(|r| r.code)),
            format!("{:?}", Some(why)),
        );
    }
    if let Some(words) = &given.text {
        let text = receipt.reason.as_ref().map_or("", |r| &r.text);
        if !text.contains(words.as_str()) {
            differ("the text", text.into(), words.clone());
        }
    }
    if let Some(parked) = &given.parked {
        let is: BTreeSet<&String> = receipt.detail.parked.iter().collect();
        differ("what waits", format!("{is:?}"), format!("{:?}", parked.iter().collect::<BTreeSet<_>>()));
    }
    if let Some(version) = given.version {
        differ("the version", receipt.version.to_string(), version.to_string());
    }
    if let Some(shown) = given.shown {
        differ("whether it is shown", receipt.record.is_some().to_string(), shown.to_string());
    }
    if let Some(id) = &given.shows {
        let is = receipt.record.as_ref().map_or("nothing", |shown| shown.id.as_str());
        differ("the record shown", is.into(), id.clone());
    }
}

fn held(wanted: &Wanted, bench: &dyn Bench, wrong: &mut Vec<String>) -> Result<(), String> {
    let name = &wanted.key;
    let (collection, id) = name.split_once('/').ok_or_else(|| format!("`{name}` is no collection/id"))?;
    let key = Key::new(&Collection::trusted(collection), &RecordId::trusted(id));
    let Some((state, version, data)) = bench.record(&key) else {
        if wanted.is != "absent" {
            wrong.push(format!("{name} is not there"));
        }
        return Ok(());
    };
    let is = match &state {
        State::Live => "live".to_owned(),
        State::Deleted => "deleted".to_owned(),
        State::Joined(survivor) => format!("joined:{survivor}"),
    };
    if is != wanted.is {
        wrong.push(format!("{name} is {is}, not {}", wanted.is));
    }
    if let Some(wanted) = wanted.version.filter(|v| *v != version) {
        wrong.push(format!("{name} has version {version}, not {wanted}"));
    }
    for (field, value) in &wanted.has {
        if data.get(field) != Some(value) {
            wrong.push(format!("{name}: {field} is {:?}, not {value}", data.get(field)));
        }
    }
    for field in wanted.null.iter().filter(|f| data.get(f) != Some(&Value::Null)) {
        wrong.push(format!("{name}: {field} is {:?}, not null", data.get(field)));
    }
    for field in wanted.lacks.iter().filter(|f| data.get(f).is_some()) {
        wrong.push(format!("{name}: {field} is {:?}, not absent", data.get(field)));
    }
    Ok(())
}

fn conflicts(wanted: &[WantedConflict], bench: &dyn Bench, wrong: &mut Vec<String>) {
    let live = bench.live(&Collection::trusted(CONFLICT));
    let mut found: BTreeMap<RecordId, Conflict> = BTreeMap::new();
    for (id, data) in live {
        match Conflict::read(&data) {
            Some(conflict) => drop(found.insert(id, conflict)),
            None => wrong.push(format!("the conflict {id} cannot be read: {}", data.text())),
        }
    }
    for wanted in wanted {
        match found.remove(wanted.id.as_str()) {
            None => wrong.push(format!("there is no conflict {}", wanted.id)),
            Some(conflict) => one_conflict(wanted, &conflict, wrong),
        }
    }
    for (id, conflict) in found {
        wrong.push(format!("there is a conflict {id} that nobody asked for: {}", conflict.write().text()));
    }
}

fn one_conflict(wanted: &WantedConflict, conflict: &Conflict, wrong: &mut Vec<String>) {
    let mut differ = |what: &str, is: String, should: String| {
        if is != should {
            wrong.push(format!("conflict {}: {what} is {is}, not {should}", wanted.id));
        }
    };
    differ("its kind", format!("{:?}", conflict.kind), format!("{:?}", wanted.kind));
    differ("its state", format!("{:?}", conflict.state), format!("{:?}", wanted.state));
    if let Some(about) = &wanted.about {
        differ("its record", conflict.about().to_string(), about.clone());
    }
    if let Some(other) = &wanted.other {
        let is = conflict.other.as_ref().map_or("none", |id| id.as_str());
        differ("the other record", is.into(), other.clone());
    }
    if wanted.resolution.is_some() {
        differ("its end", format!("{:?}", conflict.resolution), format!("{:?}", wanted.resolution));
    }
    if let Some(by) = &wanted.by {
        differ("the other side's device", conflict.incoming.by.device.to_string(), by.clone());
    }
    let sides =
        [("server", &wanted.server, &conflict.server), ("incoming", &wanted.incoming, &conflict.incoming)];
    for (side, values, is) in sides {
        for (field, value) in values.iter().flatten() {
            let there = is.values.get(field).cloned().unwrap_or(Value::Null);
            differ(&format!("{side} {field}"), there.to_string(), value.to_string());
        }
    }
}
