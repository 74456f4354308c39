//! `GET /sync_metrics`: what was synced, and how the rates stand against their targets (ISMF-147, ISMF-162 to
//! ISMF-164).

use super::{
    clash,
    competitions::all,
    door::{Asker, Refused},
    result::Entry,
    shapes,
};
use axum::{Json, extract::State};
use ropeway_core::{
    conflict::{Conflict, Kind},
    time::Time,
};
use ropeway_replica::{SyncOutcome, SyncRun};
use ropeway_server::Host;
use serde_json::{Value, json};

/// Syncs that are shown, and that the success rate is counted over.
const LATEST: usize = 1_000;

/// Shows the latest syncs and the rates. For administrators: it speaks of every device.
#[utoipa::path(get, path = "/sync_metrics", operation_id = "sync_metrics", tag = "race logger", security(("token" = [])), responses((status = 200, body = Object), shapes::Door))]
pub(crate) async fn show(State(host): State<Host>, asker: Asker) -> Result<Json<Value>, Refused> {
    asker.caller.must_be_admin()?;
    let (node, space) = (host.node(), asker.caller.space());
    let runs = node.device_runs(space, LATEST).await?;
    let incidents = all(node, space, "incident").await?.len();
    let conflicts = node.conflicts(space, false).await?;
    let about = conflicts.iter().map(|view| &view.conflict).filter(|c| &*c.collection == "incident");
    let about: Vec<&Conflict> = about.collect();
    let reviewed = about.iter().filter(|c| clash::is_listed(c) && c.kind != Kind::Join).count();
    let alike = about.iter().filter(|c| c.kind == Kind::Alike).count();
    let successes = runs.iter().filter(|run| run.outcome == SyncOutcome::Done).count();
    let shown = runs.iter().map(|run| {
        json!({
            "device_uuid": run.device,
            "records_synced": run.pushed,
            "duration_ms": run.duration_ms,
            "success": run.outcome == SyncOutcome::Done,
            "not_synced": run.held,
            "error_message": run.error,
            "created_at": run.started_at,
        })
    });
    Ok(Json(json!({
        "sync_metrics": shown.collect::<Vec<_>>(),
        "rates": {
            "sync_success": rate(successes, runs.len(), "at least", 0.99),
            "duplicates": rate(alike, incidents, "at most", 0.0),
            "conflicts": rate(reviewed, incidents, "less than", 0.05),
        },
    })))
}

/// A share of a whole; of nothing there is none.
fn rate(part: usize, whole: usize, word: &str, target: f64) -> Value {
    let share = (whole > 0).then(|| part as f64 / whole as f64);
    json!({ "count": part, "of": whole, "rate": share, "target": format!("{word} {target}") })
}

/// Notes one upload: a sync as far as this node sees it. Conflicts are no errors; a record that was not taken in
/// is one.
pub(crate) async fn note(
    host: &Host,
    asker: &Asker,
    began: (Time, i64),
    entries: &Result<Vec<Entry>, Refused>,
) {
    let clock = host.node().clock();
    let (taken, held, error) = match entries {
        Ok(entries) => {
            let held = entries.iter().filter(|entry| entry.json["status"] == "error").count();
            (entries.len() - held, held, None)
        }
        Err(refused) => (0, 0, Some(refused.message())),
    };
    let run = SyncRun {
        started_at: began.0,
        duration_ms: (clock.mono() - began.1) / 1_000,
        outcome: match (&error, held) {
            (Some(_), _) => SyncOutcome::Failed,
            (None, 0) => SyncOutcome::Done,
            _ => SyncOutcome::Partly,
        },
        pushed: taken as u64,
        pulled: 0,
        held: held as u64,
        error,
        device: Some(asker.caller.device.id.clone()),
    };
    if let Err(error) = host.node().note_device_run(asker.caller.space(), &run).await {
        tracing::warn!(%error, "a device's sync could not be noted");
    }
}
