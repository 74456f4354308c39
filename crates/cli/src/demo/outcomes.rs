//! What should have come of every special case, compared with what is really in both nodes.

use super::{
    play::Player,
    show::{Line, Show, short},
    stage::Stage,
};
use anyhow::{Context, Result};
use ropeway_core::{
    conflict::{Conflict, Kind},
    id::{CONFLICT, Collection, Key, RecordId},
    receipt::Verdict,
    record::{Record, State},
};
use ropeway_race_logger::sample::{Actor, Pair, Phase, Seat, Specials};
use ropeway_replica::{Node, Trigger};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Reads something from both nodes and says it once where they agree.
async fn on_both(stage: &Stage, read: impl AsyncFn(&Node) -> Result<String>) -> Result<String> {
    let (cloud, pi) = (read(&stage.cloud.node).await?, read(&stage.pi.node).await?);
    Ok(if cloud == pi { format!("{cloud}, on both") } else { format!("cloud: {cloud}; Pi: {pi}") })
}

/// The latest verdict on what the Pi sent about a record.
async fn verdict(stage: &Stage, collection: &str, id: &RecordId) -> Result<&'static str> {
    let entries = stage.outbox(&stage.pi.node).await?;
    let of = entries.iter().filter(|e| e.change.record == *id && &*e.change.collection == collection);
    Ok(of.filter_map(|e| e.verdict).next_back().map_or("not answered", Verdict::as_str))
}

/// What stands in a text field of a live record; of any other, its state.
fn says(record: Option<&Record>, field: &str) -> String {
    match record {
        None => "not there".into(),
        Some(Record { state: State::Deleted, .. }) => "deleted".into(),
        Some(Record { state: State::Joined(into), .. }) => format!("joined into {}", short(into)),
        Some(live) => match live.data.get(field) {
            None | Some(Value::Null) => "nothing".into(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        },
    }
}

/// Open conflicts about a record: `ours against theirs` in the leading field.
async fn open_about(stage: &Stage, node: &Node, id: &RecordId) -> Result<String> {
    let open = node.conflicts(&stage.space, true).await?;
    let about: Vec<String> =
        open.iter().filter(|c| c.conflict.record == *id).map(|c| contest(&c.conflict)).collect();
    Ok(if about.is_empty() { "no open conflict".into() } else { format!("open: {}", about.join("; ")) })
}

fn contest(conflict: &Conflict) -> String {
    let lead = conflict.fields.first().map(String::as_str).unwrap_or_default();
    let value = |values: &ropeway_core::doc::Fields| {
        values.get(lead).and_then(Value::as_str).unwrap_or("nothing").to_owned()
    };
    format!("“{}” against “{}”", value(&conflict.server.values), value(&conflict.incoming.values))
}

/// What the script says that somebody wrote into a field while the cable was cut.
fn scripted(stage: &Stage, id: &RecordId, seat: Seat, field: &str) -> String {
    let mine = |a: &&ropeway_race_logger::sample::Action| {
        a.phase == Phase::Cut
            && a.record.id == *id
            && a.actor.seat() == seat
            && a.record.fields.contains_key(field)
    };
    let found = stage.sample.day.iter().rfind(mine);
    match found.and_then(|a| a.record.fields.get(field)) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// The first download: the Pi has what the cloud has, collection by collection.
pub(super) async fn downloaded(stage: &Stage, show: &mut Show<'_>) -> Result<BTreeMap<String, usize>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in stage.sample.reference() {
        *counts.entry(record.collection.to_string()).or_default() += 1;
    }
    let words = |counts: &BTreeMap<String, usize>| {
        let total: usize = counts.values().sum();
        let each: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        format!("{total} records: {}", each.join(", "))
    };
    let mut there = BTreeMap::new();
    for name in counts.keys() {
        there.insert(name.clone(), stage.all(&stage.pi.node, name).await?.len());
    }
    show.outcome("first download", "cloud", words(&counts), words(&there))?;
    Ok(there)
}

/// Hours without a network: nothing failed, everything waits.
pub(super) async fn alone(stage: &Stage, minutes: i64, show: &mut Show<'_>) -> Result<()> {
    let waiting = stage.pi.node.queue(&stage.space).await?;
    let tried: u32 = waiting.iter().map(|item| item.attempts).sum();
    let failed = waiting.iter().filter(|item| item.status != "pending").count();
    let made = |a: &&ropeway_race_logger::sample::Action| a.phase == Phase::Cut && a.actor.seat() == Seat::Pi;
    let all: BTreeSet<&RecordId> = stage.sample.day.iter().filter(made).map(|a| &a.record.id).collect();
    let held: BTreeSet<&RecordId> = waiting.iter().map(|item| &item.record).collect();
    let known = held.intersection(&all).count();
    let seen = format!("{known} records wait, {tried} retries used, {failed} failed");
    let expected = format!("{} records wait, 0 retries used, 0 failed", all.len());
    let what = format!("{} h {} min without network", minutes / 60, minutes % 60);
    show.outcome(&what, "Pi", expected, seen)
}

/// What set the Pi's sync off once the cable was joined.
pub(super) fn set_off(first: Option<Trigger>, show: &mut Show<'_>) -> Result<()> {
    let seen = first.map_or_else(|| "nothing".into(), |t| format!("{t:?}").to_lowercase());
    show.outcome("what set the sync off", "Pi", "reconnected".into(), seen)
}

/// After both sides met, before the jury answers.
pub(super) async fn met(stage: &Stage, specials: &Specials, show: &mut Show<'_>) -> Result<()> {
    joined(stage, &specials.twins, "twins 21 s apart", show).await?;
    joined(stage, &specials.two_offences, "one bib, two offences", show).await?;
    both_official(stage, &specials.both_official, show).await?;
    for (id, field, what) in [
        (&specials.decision_mismatch, "decision", "two decisions on one incident"),
        (&specials.same_id_edit, "description", "the same field edited twice"),
    ] {
        let (cloud, pi) = (scripted(stage, id, Seat::Cloud, field), scripted(stage, id, Seat::Pi, field));
        let read = async |node: &Node| {
            let record = stage.get(node, "incident", id).await?;
            Ok(format!("{}, {}", says(record.as_ref(), field), open_about(stage, node, id).await?))
        };
        let seen = format!("{}: {}", verdict(stage, "incident", id).await?, on_both(stage, read).await?);
        let expected = format!("parked: {cloud}, open: “{cloud}” against “{pi}”, on both");
        show.outcome(what, "Pi and cloud", expected, seen)?;
    }
    other_field(stage, &specials.other_field_edit, show).await?;
    unknown_bib(stage, &specials.unknown_bib, show).await?;
    juniors(stage, &specials.duplicate_competition, show).await
}

async fn joined(stage: &Stage, pair: &Pair, what: &str, show: &mut Show<'_>) -> Result<()> {
    let read =
        async |node: &Node| Ok(says(stage.get(node, "incident", &pair.pi).await?.as_ref(), "description"));
    let seen = format!("{}: {}", verdict(stage, "incident", &pair.pi).await?, on_both(stage, read).await?);
    let expected = format!("joined: joined into {}, on both", short(&pair.cloud));
    show.outcome(what, "Pi and cloud", expected, seen)
}

async fn both_official(stage: &Stage, id: &RecordId, show: &mut Show<'_>) -> Result<()> {
    let read = async |node: &Node| {
        let record = stage.get(node, "incident", id).await?;
        let [status, at, by] =
            ["status", "officialized_at", "officialized_by"].map(|f| says(record.as_ref(), f));
        Ok(format!("{status} since {at} by {by}, {}", open_about(stage, node, id).await?))
    };
    let at = scripted(stage, id, Seat::Cloud, "officialized_at");
    let by = Actor::VarOperator.name();
    let expected = format!("overruled: official since {at} by {by}, no open conflict, on both");
    let seen = format!("{}: {}", verdict(stage, "incident", id).await?, on_both(stage, read).await?);
    show.outcome("both make it official", "Pi and cloud", expected, seen)
}

async fn other_field(stage: &Stage, id: &RecordId, show: &mut Show<'_>) -> Result<()> {
    let read = async |node: &Node| {
        let record = stage.get(node, "incident", id).await?;
        let (bib, words) = (says(record.as_ref(), "bib_number"), says(record.as_ref(), "description"));
        Ok(format!("bib {bib}, {words}, {}", open_about(stage, node, id).await?))
    };
    let (bib, words) =
        (scripted(stage, id, Seat::Pi, "bib_number"), scripted(stage, id, Seat::Cloud, "description"));
    let expected = format!("merged: bib {bib}, {words}, no open conflict, on both");
    let seen = format!("{}: {}", verdict(stage, "incident", id).await?, on_both(stage, read).await?);
    show.outcome("different fields edited", "Pi and cloud", expected, seen)
}

async fn unknown_bib(stage: &Stage, pair: &Pair, show: &mut Show<'_>) -> Result<()> {
    let read = async |node: &Node| {
        let mut bibs = Vec::new();
        for id in [&pair.pi, &pair.cloud] {
            bibs.push(says(stage.get(node, "incident", id).await?.as_ref(), "bib_number"));
        }
        Ok(format!("two cases with the bibs {}", bibs.join(" and ")))
    };
    let seen = format!("{}: {}", verdict(stage, "incident", &pair.pi).await?, on_both(stage, read).await?);
    let expected = "created: two cases with the bibs nothing and nothing, on both";
    show.outcome("unknown bib, 9 s apart", "Pi and cloud", expected.into(), seen)
}

async fn juniors(stage: &Stage, pair: &Pair, show: &mut Show<'_>) -> Result<()> {
    let read = async |node: &Node| {
        let races = stage.all(node, "race").await?;
        let mut words = Vec::new();
        for id in [&pair.pi, &pair.cloud] {
            let name = says(stage.get(node, "competition", id).await?.as_ref(), "name");
            let count =
                races.iter().filter(|(_, r)| r.is_live() && r.data.str("competition") == Some(id)).count();
            words.push(format!("“{name}” with {count} races"));
        }
        Ok(words.join(" and "))
    };
    let seen = format!("{}: {}", verdict(stage, "competition", &pair.pi).await?, on_both(stage, read).await?);
    let name = "“Verbier 2026 Juniors” with";
    let expected = format!("created: {name} 2 races and {name} 5 races, on both");
    show.outcome("competition made twice", "Pi and cloud", expected, seen)
}

/// A further edit by the author of what waits: it replaces those words, and its other field goes through.
pub(super) async fn insisted(
    stage: &Stage,
    id: &RecordId,
    words: &str,
    bib: u64,
    show: &mut Show<'_>,
) -> Result<()> {
    let cloud = scripted(stage, id, Seat::Cloud, "description");
    let read = async |node: &Node| {
        let record = stage.get(node, "incident", id).await?;
        let (bib, text) = (says(record.as_ref(), "bib_number"), says(record.as_ref(), "description"));
        Ok(format!("bib {bib}, {text}, {}", open_about(stage, node, id).await?))
    };
    let seen = format!("{}: {}", verdict(stage, "incident", id).await?, on_both(stage, read).await?);
    let expected = format!("parked: bib {bib}, {cloud}, open: “{cloud}” against “{words}”, on both");
    show.outcome("parked, and edited again", "Pi", expected, seen)
}

/// After the jury has answered: what each answer wrote, and that whatever anybody entered can be found.
/// `words` are those that waited at last and those that the jury wrote.
pub(super) async fn answered(
    stage: &Stage,
    specials: &Specials,
    words: [&str; 2],
    show: &mut Show<'_>,
) -> Result<()> {
    let decided = scripted(stage, &specials.decision_mismatch, Seat::Pi, "decision");
    for (id, field, pi, now) in [
        (&specials.decision_mismatch, "decision", decided.as_str(), decided.as_str()),
        (&specials.same_id_edit, "description", words[0], words[1]),
    ] {
        let cloud = scripted(stage, id, Seat::Cloud, field);
        let read = async |node: &Node| {
            let record = stage.get(node, "incident", id).await?;
            let about = node.conflicts(&stage.space, false).await?;
            let of = |c: &&ropeway_replica::ConflictView| {
                c.conflict.record == *id && c.conflict.kind == Kind::Fields
            };
            let kept = about.iter().filter(of).map(|c| contest(&c.conflict)).next_back().unwrap_or_default();
            let open = open_about(stage, node, id).await?;
            Ok(format!("{}, {open}, kept: {kept}", says(record.as_ref(), field)))
        };
        let expected = format!("{now}, no open conflict, kept: “{cloud}” against “{pi}”, on both");
        show.outcome("the jury's answer", "cloud", expected, on_both(stage, read).await?)?;
    }
    let id = &specials.same_id_edit;
    let [cloud, pi] = [Seat::Cloud, Seat::Pi].map(|seat| scripted(stage, id, seat, "description"));
    let entered = [cloud.as_str(), pi.as_str(), words[0], words[1]];
    let read = async |node: &Node| {
        let kept = everything(stage, node, id).await?;
        let lost: Vec<&str> = entered.into_iter().filter(|text| !kept.contains(text)).collect();
        Ok(if lost.is_empty() { "all found".into() } else { format!("lost: {}", lost.join("; ")) })
    };
    let made = "Pi and cloud";
    show.outcome(
        "all four texts ever entered there",
        made,
        "all found, on both".into(),
        on_both(stage, read).await?,
    )?;
    let pair = &specials.two_offences;
    let words = |id: &RecordId| {
        let record = stage.sample.records.iter().find(|r| r.id == *id);
        record
            .and_then(|r| r.fields.get("description"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let read = async |node: &Node| {
        let mut there = Vec::new();
        for id in [&pair.pi, &pair.cloud] {
            there.push(says(stage.get(node, "incident", id).await?.as_ref(), "description"));
        }
        Ok(there.join(" and "))
    };
    let expected = format!("{} and {}, on both", words(&pair.pi), words(&pair.cloud));
    show.outcome("the jury: they are two", "cloud", expected, on_both(stage, read).await?)
}

/// Everything that a node holds about an incident: the record, its conflicts, and what both were before.
async fn everything(stage: &Stage, node: &Node, id: &RecordId) -> Result<String> {
    let mut keys = vec![Key::new(&Collection::parse("incident")?, id)];
    for conflict in
        node.conflicts(&stage.space, false).await?.into_iter().filter(|c| c.conflict.record == *id)
    {
        keys.push(Key::new(&Collection::parse(CONFLICT)?, &conflict.id));
    }
    let mut text = String::new();
    for key in keys {
        text.extend(node.get(&stage.space, &key).await?.map(|r| r.data.text().to_owned()));
        text.extend(
            node.history(&stage.space, &key).await?.into_iter().map(|old| old.record.data.text().to_owned()),
        );
    }
    Ok(text)
}

/// What the last part of the day brought.
pub(super) async fn afterwards(stage: &Stage, specials: &Specials, show: &mut Show<'_>) -> Result<()> {
    let clip = async |node: &Node| {
        let report = stage.get(node, "report", &specials.failed_clip).await?;
        let clip = report.as_ref().and_then(|r| r.data.get("video_clip")).and_then(|c| c.get("status"));
        let words = !says(report.as_ref(), "description").is_empty();
        Ok(format!(
            "report {}, clip {}",
            if words { "there" } else { "empty" },
            clip.and_then(Value::as_str).unwrap_or("?")
        ))
    };
    show.outcome(
        "clip that never arrived",
        "Pi",
        "report there, clip pending, on both".into(),
        on_both(stage, clip).await?,
    )?;

    let late = async |node: &Node| {
        let report = stage
            .get(node, "report", &specials.late_report)
            .await?
            .context("the late report is not there")?;
        let parent = RecordId::parse(report.data.str("incident").unwrap_or_default())?;
        let found =
            node.resolve_record(&stage.space, &Key::new(&Collection::parse("incident")?, &parent)).await?;
        Ok(format!(
            "written to {}, shown at {}",
            short(&parent),
            found.map_or("nothing".into(), |(key, _)| short(&key.id).to_owned())
        ))
    };
    let seen = format!(
        "{}: {}",
        verdict(stage, "report", &specials.late_report).await?,
        on_both(stage, late).await?
    );
    let (from, to) = (short(&specials.twins.pi), short(&specials.twins.cloud));
    show.outcome(
        "late report to a joined case",
        "Pi",
        format!("created: written to {from}, shown at {to}, on both"),
        seen,
    )?;

    let id = &specials.edited_in_flight;
    let edited = stage.sample.day.iter().rfind(|a| a.record.id == *id && !a.creates());
    let words =
        edited.and_then(|a| a.record.fields.get("description")).and_then(Value::as_str).unwrap_or_default();
    let sent = verdicts_of(stage, id).await?;
    let read = async |node: &Node| Ok(says(stage.get(node, "incident", id).await?.as_ref(), "description"));
    let seen = format!("{sent}: {}", on_both(stage, read).await?);
    show.outcome(
        "that edit, with the second upload",
        "Pi",
        format!("created, applied: {words}, on both"),
        seen,
    )?;
    resent(stage, &specials.lost_response, show).await
}

async fn verdicts_of(stage: &Stage, id: &RecordId) -> Result<String> {
    let entries = stage.outbox(&stage.pi.node).await?;
    let of = entries.iter().filter(|e| e.change.record == *id);
    let words: Vec<&str> = of.map(|e| e.verdict.map_or("not answered", Verdict::as_str)).collect();
    Ok(words.join(", "))
}

/// The upload whose answer was lost was sent again, byte for byte, and got the answer that was lost.
async fn resent(stage: &Stage, id: &RecordId, show: &mut Show<'_>) -> Result<()> {
    let sent = stage.cable.sent();
    let again = match sent.as_slice() {
        [first, second, ..] if first.0 == second.0 && first.1.receipts == second.1.receipts => {
            "the same bytes and receipt"
        }
        [first, second, ..] if first.0 == second.0 => "the same bytes, another receipt",
        [_, _, ..] => "other bytes",
        _ => "not sent again",
    };
    let read = async |node: &Node| {
        let record = stage.get(node, "incident", id).await?;
        Ok(record.map_or("not there".into(), |r| format!("version {}", r.version)))
    };
    let seen = format!("{again}; {}: {}", verdicts_of(stage, id).await?, on_both(stage, read).await?);
    let expected = "the same bytes and receipt; created: version 1, on both";
    show.outcome("the same upload, sent again", "Pi", expected.into(), seen)
}

/// The whole day: nothing lost, nothing twice, nothing open, both alike.
pub(super) async fn whole(player: &Player<'_>, show: &mut Show<'_>) -> Result<()> {
    let stage = player.stage;
    show.outcome(
        "refusals that nobody expected",
        "everywhere",
        "none".into(),
        match player.refusals.as_slice() {
            [] => "none".into(),
            refusals => refusals.join("; "),
        },
    )?;
    for name in ["incident", "report"] {
        let made = stage.sample.day.iter().filter(|a| a.creates() && &*a.record.collection == name);
        let sent = made.filter(|a| a.actor.seat() != Seat::AscentPi).map(|a| a.record.id.clone());
        let expected: BTreeSet<RecordId> = sent.collect();
        let read = async |node: &Node| {
            let all = stage.all(node, name).await?;
            let known =
                all.iter().filter(|(id, r)| r.state != State::Deleted && expected.contains(id)).count();
            Ok(format!("{known} of {}, {} others", expected.len(), all.len() - known))
        };
        let all = expected.len();
        show.outcome(
            &format!("every {name}"),
            "everywhere",
            format!("{all} of {all}, 0 others, on both"),
            on_both(stage, read).await?,
        )?;
    }
    let read = async |node: &Node| Ok(node.conflicts(&stage.space, true).await?.len().to_string());
    show.outcome("open conflicts", "everywhere", "0, on both".into(), on_both(stage, read).await?)?;
    let waits = stage.pi.node.queue(&stage.space).await?.len();
    show.outcome("changes that still wait", "Pi", "0".into(), waits.to_string())
}

/// Every incident of the day: what was decided about it, and what it is now.
pub(super) async fn cases(player: &Player<'_>) -> Result<Vec<Line>> {
    let stage = player.stage;
    let mut verdicts = player.verdicts.clone();
    for entry in stage.outbox(&stage.pi.node).await? {
        verdicts.entry(entry.change.key()).or_default().extend(entry.receipt_stamp.zip(entry.verdict));
    }
    let mut reports: BTreeMap<RecordId, usize> = BTreeMap::new();
    for (_, report) in stage.all(&stage.cloud.node, "report").await? {
        let parent = RecordId::parse(report.data.str("incident").unwrap_or_default())?;
        let key = Key::new(&Collection::parse("incident")?, &parent);
        let found = stage.cloud.node.resolve_record(&stage.space, &key).await?;
        *reports.entry(found.map_or(parent, |(key, _)| key.id)).or_default() += 1;
    }
    for decided in verdicts.values_mut() {
        decided.sort();
    }
    let mut lines = Vec::new();
    for action in stage.sample.day.iter().filter(|a| a.creates() && &*a.record.collection == "incident") {
        let id = &action.record.id;
        let (cloud, pi) = (
            stage.get(&stage.cloud.node, "incident", id).await?,
            stage.get(&stage.pi.node, "incident", id).await?,
        );
        let face = |r: &Option<Record>| r.as_ref().map(|r| (r.state.clone(), r.data.clone()));
        let key = Key::new(&action.record.collection, id);
        let words: Vec<&str> = verdicts.get(&key).into_iter().flatten().map(|(_, v)| v.as_str()).collect();
        let field = |name: &str| {
            action.record.fields.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        };
        let bib = field("bib_number").unwrap_or_else(|| "unknown".into());
        lines.push(Line {
            record: id.to_string(),
            case: format!("bib {bib}: {}", field("description").unwrap_or_default()),
            made: action.actor.seat().name(),
            verdicts: if words.is_empty() { "never sent".into() } else { words.join(", ") },
            now: standing(cloud.as_ref()),
            reports: reports.get(id).copied().unwrap_or(0),
            alike: face(&cloud) == face(&pi),
        });
    }
    Ok(lines)
}

fn standing(record: Option<&Record>) -> String {
    match record {
        Some(Record { state: State::Live, .. }) => {
            format!("{}, {}", says(record, "status"), says(record, "decision"))
        }
        other => says(other, "status"),
    }
}

/// How often the cloud gave each verdict on what the Pi sent.
pub(super) async fn verdict_counts(stage: &Stage) -> Result<BTreeMap<&'static str, usize>> {
    let mut counts = BTreeMap::new();
    for entry in stage.outbox(&stage.pi.node).await? {
        if let Some(verdict) = entry.verdict.filter(|_| &*entry.change.collection != CONFLICT) {
            *counts.entry(verdict.as_str()).or_default() += 1;
        }
    }
    Ok(counts)
}
