//! `GET /sync_metrics`: what was synced, and how the rates stand against their targets (ISMF-147, ISMF-162 to
//! ISMF-164).

use super::{
    clash,
    door::{Asker, Refused},
    result::Entry,
    shapes,
};
use axum::{Json, extract::State};
use ropeway_core::{
    conflict::Kind,
    id::{Collection, SpaceId},
    time::Time,
};
use ropeway_replica::{ConflictView, Node, ReplicaError, SyncOutcome, SyncRun};
use ropeway_server::{Host, Rate};
use serde_json::{Map, Value, json};

/// Syncs that are shown, and that the success rate is counted over.
const LATEST: usize = 1_000;

/// Shows the latest syncs and the rates. For administrators: it speaks of every device.
#[utoipa::path(get, path = "/sync_metrics", operation_id = "sync_metrics",
    tag = "race logger", security(("token" = [])),
    responses(shapes::Door, (status = 200, body = Object)))]
pub(crate) async fn show(State(host): State<Host>, asker: Asker) -> Result<Json<Value>, Refused> {
    asker.caller.must_be_admin()?;
    let (node, space) = (host.node(), asker.caller.space());
    let runs = node.device_runs(space, LATEST).await?;
    let rates = rates(node.clone(), space.clone()).await?;
    let rates: Map<String, Value> =
        rates.into_iter().map(|rate| (rate.name.to_owned(), told(rate))).collect();
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
        "rates": rates,
    })))
}

/// How the documents measure (ISMF-162 to ISMF-164): over the latest syncs, and over the incidents that stand.
pub async fn rates(node: Node, space: SpaceId) -> Result<Vec<Rate>, ReplicaError> {
    let runs = node.device_runs(&space, LATEST).await?;
    let successes = runs.iter().filter(|run| run.outcome == SyncOutcome::Done).count();
    let incident = Collection::trusted("incident");
    let (mut incidents, mut reviewed, mut alike) = (0, 0, 0);
    node.each_record(&space, &incident, |_, record| incidents += usize::from(record.is_live())).await?;
    node.each_conflict(&space, |ConflictView { conflict: c, .. }| {
        if c.collection == incident {
            reviewed += usize::from(clash::is_listed(&c) && c.kind != Kind::Join);
            alike += usize::from(c.kind == Kind::Alike);
        }
    })
    .await?;
    Ok(vec![
        Rate { name: "sync_success", count: successes, of: runs.len(), target: 0.99 },
        Rate { name: "duplicates", count: alike, of: incidents, target: 0.0 },
        Rate { name: "conflicts", count: reviewed, of: incidents, target: 0.05 },
    ])
}

fn told(rate: Rate) -> Value {
    let word = match rate.name {
        "sync_success" => "at least",
        "duplicates" => "at most",
        _ => "less than",
    };
    let target = format!("{word} {}", rate.target);
    json!({ "count": rate.count, "of": rate.of, "rate": rate.share(), "target": target })
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
