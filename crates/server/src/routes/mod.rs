//! The native API: its routes and its OpenAPI document, from one place, under the layers of every request.

mod conflicts;
mod devices;
mod health;
mod live;
mod pull;
mod push;
mod shapes;
mod subscriptions;

use crate::{Failure, Host, auth::Guest, edge};
use axum::{
    Router,
    extract::State,
    http::header,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        OpenApi,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Answers smaller than this go out as they are.
const COMPRESS_ABOVE: u64 = 256;
/// Level for gzip and zstd alike: a Pi serves too.
const COMPRESSION: i32 = 1;

/// All routes under all layers. The layer added last is the outermost.
pub(crate) fn app(host: &Host, apps: Vec<OpenApiRouter<Host>>) -> Router {
    let switch = from_fn_with_state(host.clone(), edge::sync_switch);
    let router = node().merge(syncing(apps).layer(switch));
    let (router, mut document) = router.split_for_parts();
    describe(&mut document, &host.inner.build);
    let text = serde_json::to_vec(&document).unwrap_or_default();
    let _ = host.inner.document.set(text.into());
    let compressed = SizeAbove::new(COMPRESS_ABOVE).and(NotForContentType::SSE).and(NotForContentType::GRPC);
    router
        .layer(
            CompressionLayer::new().quality(CompressionLevel::Precise(COMPRESSION)).compress_when(compressed),
        )
        .layer(CatchPanicLayer::custom(edge::panicked))
        .layer(from_fn_with_state(host.clone(), edge::edge))
        .with_state(host.clone())
}

/// The OpenAPI document of the native API and of these apps, as a host of this build serves it.
pub fn document(build: &str, apps: Vec<OpenApiRouter<Host>>) -> OpenApi {
    let (_, mut document) = node().merge(syncing(apps)).split_for_parts();
    describe(&mut document, build);
    document
}

/// What a node says of itself, and what people do on it.
fn node() -> OpenApiRouter<Host> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::version))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi))
        .routes(routes!(conflicts::list))
        .routes(routes!(conflicts::show))
        .routes(routes!(conflicts::resolve))
        .routes(routes!(devices::list, devices::enrol))
        .routes(routes!(devices::revoke))
}

/// What devices sync by.
fn syncing(apps: Vec<OpenApiRouter<Host>>) -> OpenApiRouter<Host> {
    let native = OpenApiRouter::new()
        .routes(routes!(push::push))
        .routes(routes!(pull::pull))
        .routes(routes!(live::live))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::subscribe, subscriptions::unsubscribe));
    apps.into_iter().fold(native, OpenApiRouter::merge)
}

fn describe(document: &mut OpenApi, build: &str) {
    document.info.title = "Ropeway".into();
    document.info.version = build.to_owned();
    document.info.description =
        Some("The native protocol of a Ropeway node. PROTOCOL.md is the normative text.".into());
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A device's token.")).build();
    let components = document.components.get_or_insert_default();
    // What only responses refer to is not gathered with the routes.
    components.schemas.insert(shapes::Problem::name().into(), shapes::Problem::schema());
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "node", responses((status = 200, body = Object)))]
async fn openapi(State(host): State<Host>, _: Guest) -> Response {
    let document: Bytes = host.inner.document.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// A JSON answer.
fn json(value: &impl serde::Serialize) -> Result<Response, Failure> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Failure::new(ropeway_protocol::ProblemCode::Internal, "the answer cannot be written")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
