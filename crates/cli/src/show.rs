//! The engine's values as JSON for programs and as short words for people.

use ropeway_core::{
    digest::Digest,
    id::{Collection, Key, RecordId},
    plan::Superseded,
    receipt::{Reason, Receipt, Verdict},
    record::{Record, State},
    time::Time,
};
use ropeway_replica::{
    ConflictView, Device, DeviceStatus, Member, QueueItem, SyncOutcome, SyncReport, SyncRun,
};
use serde_json::{Value, json};

use crate::failure::Exit;

/// A record with everything that is known about it.
pub(crate) fn record(key: &Key, record: &Record) -> Value {
    let joined_into = match &record.state {
        State::Joined(survivor) => Some(survivor),
        _ => None,
    };
    let upstream = record.upstream.as_ref();
    json!({
        "collection": key.collection,
        "id": key.id,
        "state": state(&record.state),
        "joined_into": joined_into,
        "data": record.data,
        "version": record.version,
        "stamp": record.stamp,
        "local_id": record.local_id,
        "author": record.author,
        "modified_at": record.modified_at,
        "owner": record.owner,
        "contested": record.contested,
        "upstream": upstream.map(|u| json!({ "epoch": u.epoch, "version": u.version, "pending": u.held.is_some() })),
    })
}

/// A version that was superseded.
pub(crate) fn superseded(version: &Superseded) -> Value {
    record(&version.key, &version.record)
}

/// The word for a record's state.
pub(crate) fn state(state: &State) -> &'static str {
    match state {
        State::Live => "live",
        State::Deleted => "deleted",
        State::Joined(_) => "joined",
    }
}

/// What a receipt says to a person.
pub(crate) fn receipt(receipt: &Receipt) -> String {
    let Key { collection, id } = &receipt.key;
    let mut text = format!("{} {collection}/{id} version {}", receipt.verdict.as_str(), receipt.version);
    if let Some(reason) = &receipt.reason {
        text += &format!(": {}", reason_text(reason));
    }
    if !receipt.detail.parked.is_empty() {
        text += &format!(" (waits for a person: {})", receipt.detail.parked.join(", "));
    }
    for conflict in &receipt.detail.conflicts {
        text += &format!("\n  conflict {conflict}");
    }
    text
}

/// Why a change was refused or waits, the field first where there is one.
pub(crate) fn reason_text(reason: &Reason) -> String {
    match &reason.field {
        Some(field) if !reason.text.contains(&format!("`{field}`")) => format!("`{field}`: {}", reason.text),
        _ => reason.text.clone(),
    }
}

/// The exit code of a local edit.
pub(crate) fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Rejected | Verdict::Waiting => Exit::Failed,
        Verdict::Parked => Exit::Partly,
        _ => Exit::Done,
    }
}

/// A line of the queue.
pub(crate) fn queue_item(item: &QueueItem) -> Value {
    json!({
        "seq": item.seq,
        "collection": item.collection,
        "record": item.record,
        "state": item.state,
        "status": item.status,
        "attempts": item.attempts,
        "due": item.due,
        "tried_at": item.tried_at,
        "verdict": item.verdict,
        "reason": item.reason,
        "accepted_at": item.accepted_at,
    })
}

/// A conflict and, where it was asked for, its record as it stands.
pub(crate) fn conflict(view: &ConflictView) -> Value {
    json!({ "id": view.id, "version": view.version, "conflict": view.conflict, "record_now": view.now })
}

/// A device, without anything secret.
pub(crate) fn device(device: &Device) -> Value {
    json!({
        "device_uuid": device.id,
        "name": device.name,
        "space": device.space,
        "system_mode": device.mode,
        "role": device.role,
        "status": device_status(device),
        "created_at": device.created_at,
        "last_seen_at": device.last_seen_at,
        "pulled": device.pulled,
        "metadata": device.metadata,
    })
}

/// The documents' word for a device's state.
pub(crate) fn device_status(device: &Device) -> &'static str {
    match device.status {
        DeviceStatus::Active => "active",
        DeviceStatus::Decommissioned => "decommissioned",
    }
}

/// A person, without the password's hash.
pub(crate) fn member(member: &Member) -> Value {
    json!({
        "email": member.email,
        "space": member.space,
        "role": member.role,
        "disabled": member.disabled,
        "created_at": member.created_at,
    })
}

/// The word for how a sync ended.
pub(crate) fn outcome(outcome: SyncOutcome) -> &'static str {
    match outcome {
        SyncOutcome::Done => "done",
        SyncOutcome::Partly => "partly",
        SyncOutcome::Offline => "offline",
        SyncOutcome::Failed => "failed",
        SyncOutcome::Differs => "differs",
    }
}

/// A sync that ended.
pub(crate) fn run(run: &SyncRun) -> Value {
    json!({
        "started_at": run.started_at,
        "duration_ms": run.duration_ms,
        "outcome": outcome(run.outcome),
        "pushed": run.pushed,
        "pulled": run.pulled,
        "held": run.held,
        "error": run.error,
    })
}

/// What a sync did.
pub(crate) fn report(report: &SyncReport, unsettled: usize) -> Value {
    let digests = report.digests.map(|(upstream, here)| {
        json!({ "upstream": digest(upstream), "here": digest(here), "equal": upstream == here })
    });
    json!({
        "outcome": report.outcome.map(outcome),
        "verdicts": report.verdicts.iter().map(|(v, n)| (v.as_str(), n)).collect::<std::collections::BTreeMap<_, _>>(),
        "pushed": report.pushed,
        "pulled": report.pulled,
        "held": report.held,
        "unsettled": unsettled,
        "digests": digests,
        "error": report.error,
        "problem": report.problem,
    })
}

/// A digest as one short text: the number of records and the sum of their hashes.
pub(crate) fn digest(digest: Digest) -> String {
    format!("{}:{:016x}", digest.count, digest.sum.cast_unsigned())
}

/// A time, or a dash.
pub(crate) fn time(time: Option<Time>) -> String {
    time.map_or_else(|| "-".into(), |t| t.to_string())
}

/// Bytes in a unit that people read.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1_000),
        10_000_000..=9_999_999_999 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Reads a record's name.
pub(crate) fn key(collection: &str, id: &str) -> anyhow::Result<Key> {
    let usage = |e: ropeway_core::id::BadId| crate::failure::Failure::usage(e.to_string());
    let collection = Collection::parse(collection).map_err(usage)?;
    Ok(Key { collection, id: RecordId::parse(id).map_err(usage)? })
}
