//! `POST /v1/push`: changes come in, receipts go out. Only a receipt acknowledges a change.

use super::{json, shapes};
use crate::{Failure, Host, auth::Pusher, body::read_body, door, intake::Decided};
use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use ropeway_core::change::Batch;
use ropeway_protocol::{ProblemCode, Pushed};

/// Bodies larger than this are decoded beside the workers that serve connections.
const DECODE_APART: usize = 64 << 10;

/// Decides a batch of changes and answers one receipt a change, in order.
#[utoipa::path(post, path = "/v1/push", tag = "sync", security(("token" = [])),
    request_body = shapes::Push,
    responses((status = 200, body = shapes::Pushed), shapes::Refused, shapes::TooLarge, shapes::Unwell))]
pub(super) async fn push(
    State(host): State<Host>,
    pusher: Pusher,
    request: Request,
) -> Result<Response, Failure> {
    let body = read_body(&host, request).await;
    let _turn = host.turn().await?;
    let opened = match body {
        Ok(body) => decode(body, host.limits().push_changes).await,
        Err(failure) => Err(failure),
    };
    let caller = match pusher {
        Pusher::Active(caller) => caller,
        Pusher::Revoked(device) => {
            let epoch = opened.as_ref().ok().and_then(|opened| opened.epoch.as_ref());
            host.node().must_be_of(&device.space, epoch).await?;
            let changes = opened.map_or_else(|_| Vec::new(), |opened| opened.split().0);
            return Err(host.quarantine(&device, changes).await?);
        }
    };
    let opened = opened?;
    let (name, last, epoch) = (opened.batch.clone(), opened.last.clone(), opened.epoch.clone());
    let (changes, refused) = opened.split();
    let batch = Batch { last, epoch, ..host.batch(&caller, changes) };
    let Decided { receipts, epoch, head, .. } = host.decide(&caller, batch).await?;
    let receipts = if refused.is_empty() { receipts } else { refused.among(receipts, head)? };
    tracing::debug!(batch = name, changes = receipts.len(), "push decided");
    json(&Pushed { epoch, now: host.node().clock().now(), receipts })
}

async fn decode(body: Bytes, most: usize) -> Result<door::Opened, Failure> {
    if body.len() <= DECODE_APART {
        return door::open(&body, most);
    }
    let decoded = tokio::task::spawn_blocking(move || door::open(&body, most)).await;
    decoded.unwrap_or_else(|_| Err(Failure::new(ProblemCode::Internal, "the push could not be decoded")))
}
