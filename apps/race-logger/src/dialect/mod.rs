//! The race logger's documented API under `/api/v1/sync`: a thin translation onto the engine's verbs.
//!
//! Every write goes through ingest. What the documents call three layers are the profile's rules; here are
//! the words, the numbers and the shapes.

mod again;
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
mod shapes;
mod upload;
mod view;

pub use measures::rates;

use axum::Extension;
use ropeway_server::Host;
use std::path::PathBuf;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes, to be mounted beside the native ones. Clips that come inside reports are kept under `clips`.
pub fn routes(clips: PathBuf) -> OpenApiRouter<Host> {
    let api = OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(download::download))
        .routes(routes!(download::changes))
        .routes(routes!(competitions::list, upload::competitions))
        .routes(routes!(merge::merge))
        .routes(routes!(conflicts::list))
        .routes(routes!(conflicts::show))
        .routes(routes!(conflicts::resolve))
        .routes(routes!(conflicts::reopen))
        .routes(routes!(devices::list, devices::register))
        .routes(routes!(devices::rotate))
        .routes(routes!(devices::decommission))
        .routes(routes!(measures::show))
        .routes(routes!(upload::upload))
        .routes(routes!(clip::show))
        .routes(routes!(record::show))
        .routes(routes!(merge::unmerge))
        .fallback(health::nothing_here)
        .layer(Extension(clip::Shelf::new(clips)));
    OpenApiRouter::new().nest("/api/v1/sync", api)
}
