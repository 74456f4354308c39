//! The race logger's documented API under `/api/v1/sync`: a thin translation onto the engine's verbs.
//!
//! Every write goes through ingest. What the documents call three layers are the profile's rules; here are
//! the words, the numbers and the shapes.

mod clash;
mod clip;
mod competitions;
mod conflicts;
mod devices;
mod door;
mod download;
mod fingerprint;
mod health;
mod item;
mod late;
mod measures;
mod merge;
mod record;
mod record_types;
mod result;
mod upload;
mod view;

use axum::{
    Extension,
    routing::{get, post},
};
use ropeway_server::Host;
use std::path::PathBuf;
use utoipa_axum::router::OpenApiRouter;

/// The routes, to be mounted beside the native ones. Clips that come inside reports are kept under `clips`.
pub fn routes(clips: PathBuf) -> OpenApiRouter<Host> {
    let api = OpenApiRouter::new()
        .route("/health", get(health::health))
        .route("/download", get(download::download))
        .route("/changes", get(download::changes))
        .route("/competitions", get(competitions::list).post(upload::competitions))
        .route("/competitions/merge", post(merge::merge))
        .route("/conflicts", get(conflicts::list))
        .route("/conflicts/{id}", get(conflicts::show))
        .route("/conflicts/{id}/resolve", post(conflicts::resolve))
        .route("/conflicts/{id}/reopen", post(conflicts::reopen))
        .route("/devices", get(devices::list).post(devices::register))
        .route("/devices/{device_uuid}/rotate", post(devices::rotate))
        .route("/devices/{device_uuid}/decommission", post(devices::decommission))
        .route("/sync_metrics", get(measures::show))
        .route("/{record_type}", post(upload::upload))
        .route("/reports/{id}/video", get(clip::show))
        .route("/{record_type}/{id}", get(record::show))
        .route("/{record_type}/{id}/unmerge", post(merge::unmerge))
        .fallback(health::nothing_here)
        .layer(Extension(clip::Shelf::new(clips)));
    OpenApiRouter::new().nest("/api/v1/sync", api)
}
