//! `GET /v1/pull`: one page of the feed, written while it is sent.

use super::shapes;
use crate::{Caller, Failure, Host, body::malformed};
use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use ropeway_core::{
    id::{CONFLICT, Collection},
    plan::Fed,
};
use ropeway_protocol::{PAGE_TYPE, PageEnd, PageWriter};
use ropeway_replica::{FeedRequest, ServedPage};
use serde::Deserialize;
use std::{convert::Infallible, vec::IntoIter};
use tokio::time::Instant;
use utoipa::IntoParams;

/// About how many bytes of a page are handed over at once.
const PIECE: usize = 64 << 10;

/// What to read. A parameter of another name is refused: it would change what the answer means.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// The cursor of the last page, as it was given. Absent or empty: from the beginning.
    #[serde(default)]
    after: Option<String>,
    /// Most records in the page. The node may give fewer.
    #[serde(default)]
    limit: Option<usize>,
    /// Only these collections, separated by commas. Absent or empty: all.
    #[serde(default)]
    collections: Option<String>,
    /// Only what carries one of these audiences, separated by commas, and what is for everybody. Absent or
    /// empty: everything that the device sees.
    #[serde(default)]
    audience: Option<String>,
}

/// One page of the feed, in stamp order, as lines of JSON; the last line is the end.
#[utoipa::path(get, path = "/v1/pull", tag = "sync", security(("token" = [])), params(Ask),
    responses((status = 200, body = String, content_type = "application/x-ndjson"),
        shapes::Refused, shapes::Elsewhen, shapes::Unwell))]
pub(super) async fn pull(
    State(host): State<Host>,
    caller: Caller,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(ask) = ask.map_err(|e| malformed(e.body_text()))?;
    let started = Instant::now();
    let request = FeedRequest {
        cursor: ask.after.filter(|cursor| !cursor.is_empty()),
        limit: Some(limit(ask.limit, host.limits().page_rows)?),
        collections: collections(&host, ask.collections.as_deref().unwrap_or_default())?,
    };
    let audience = ask.audience.unwrap_or_default();
    let audience: Vec<String> =
        audience.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
    let page = host.node().feed_to(&caller.device, &audience, &request).await?;
    host.saw(&page.epoch);
    host.note_read(&caller, request.cursor.as_deref()).await;
    host.inner.metrics.pulled(started.elapsed(), page.rows.len());
    let now = host.node().clock().now();
    let ServedPage { rows, cursor, epoch, head, digest, complete, audiences } = page;
    let end = PageEnd { cursor, epoch, head, count: 0, digest, complete, now, audiences };
    let pieces = Pieces { rows: rows.into_iter(), page: Some((PageWriter::new(), end)) };
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    Ok(([(header::CONTENT_TYPE, PAGE_TYPE)], body).into_response())
}

fn limit(asked: Option<usize>, most: usize) -> Result<usize, Failure> {
    match asked {
        Some(0) => Err(malformed("a page has at least 1 record: `limit` must not be 0")),
        asked => Ok(asked.unwrap_or(ropeway_core::limits::PAGE_DEFAULT).min(most.max(1))),
    }
}

fn collections(host: &Host, names: &str) -> Result<Vec<Collection>, Failure> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = |name: &str| name == CONFLICT || host.node().profile().rules(name).is_some();
    names
        .map(|name| match Collection::parse(name) {
            Ok(collection) if known(name) => Ok(collection),
            _ => Err(malformed("`collections` names one that the profile does not have")),
        })
        .collect()
}

/// A page that is being written: a piece at a time, as the connection takes them.
struct Pieces {
    rows: IntoIter<Fed>,
    /// `None` once the end is written.
    page: Option<(PageWriter, PageEnd)>,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut writer, end) = self.page.take()?;
        let mut out = Vec::with_capacity(PIECE + (PIECE >> 2));
        while out.len() < PIECE {
            match self.rows.next() {
                Some(row) => writer.row(&row, &mut out),
                None => {
                    writer.end(end, &mut out);
                    return Some(Ok(out.into()));
                }
            }
        }
        self.page = Some((writer, end));
        Some(Ok(out.into()))
    }
}
