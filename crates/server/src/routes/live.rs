//! `GET /v1/live`: the heads of a space as server-sent events, until the device is revoked or the host
//! stops. News is a hint; the pull is the truth.

use super::shapes;
use crate::{Caller, Failure, Host, slots::Slot};
use axum::{
    extract::State,
    http::HeaderValue,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::StreamExt;
use ropeway_core::{
    id::{DeviceId, SpaceId},
    time::Stamp,
};
use ropeway_protocol::{Problem, ProblemCode};
use ropeway_replica::DeviceStatus;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

/// The head of the caller's space, at once and whenever it has grown: `event: head`, `id: <stamp>`,
/// `data: {"head":<stamp>}`.
#[utoipa::path(get, path = "/v1/live", operation_id = "live_stream", tag = "sync", security(("token" = [])),
    responses((status = 200, body = String, content_type = "text/event-stream"), shapes::Refused, shapes::Unwell))]
pub(super) async fn live(State(host): State<Host>, caller: Caller) -> Result<Response, Failure> {
    let busy = |why: &str| Failure(Problem::new(ProblemCode::Unavailable, why).after(5));
    if host.is_draining() {
        return Err(busy("the node is stopping"));
    }
    let slot = host.inner.live.take(&(caller.device.space.clone(), caller.device.id.clone()));
    let slot = slot.ok_or_else(|| busy("there are as many live streams as there may be"))?;
    let heads = host.inner.heads.watch(caller.space()).await?;
    let mut look = interval(host.limits().live_poll.max(Duration::from_millis(1)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let revoked = host.inner.revoked.subscribe();
    let keep_alive = KeepAlive::new().interval(host.limits().live_keep_alive);
    let told = Telling {
        host,
        space: caller.device.space,
        device: caller.device.id,
        token_hash: caller.device.token_hash,
        heads,
        revoked,
        look,
        told: None,
        _slot: slot,
    };
    let stream = futures_util::stream::unfold(told, Telling::next).fuse();
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    // Proxies that gather answers would hold the news back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Telling {
    host: Host,
    space: SpaceId,
    device: DeviceId,
    /// The token with which it was opened, hashed.
    token_hash: String,
    heads: watch::Receiver<Stamp>,
    revoked: watch::Receiver<()>,
    /// When to look whether another process revoked the device or gave it another token.
    look: Interval,
    told: Option<Stamp>,
    _slot: Slot<(SpaceId, DeviceId)>,
}

impl Telling {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            let head = *self.heads.borrow_and_update();
            if self.told != Some(head) {
                self.told = Some(head);
                let event =
                    Event::default().event("head").id(head.to_string()).data(format!("{{\"head\":{head}}}"));
                return Some((Ok(event), self));
            }
            tokio::select! {
                biased;
                () = self.host.inner.drain.cancelled() => return None,
                changed = self.revoked.changed() => {
                    changed.ok()?;
                    self.may_go_on().await.then_some(())?;
                }
                _ = self.look.tick() => self.may_go_on().await.then_some(())?,
                changed = self.heads.changed() => changed.ok()?,
            }
        }
    }

    /// Whether the device is still active and has no newer token. While the database cannot be asked, it is taken to be.
    async fn may_go_on(&self) -> bool {
        match self.host.node().store().device(&self.space, &self.device).await {
            Ok(found) => found.is_some_and(|device| {
                device.status == DeviceStatus::Active && device.token_hash == self.token_hash
            }),
            Err(_) => true,
        }
    }
}
