//! One answer as it comes in: who gave it, whether it is a problem, and its body within bounds.

use super::{NODE_HEADER, PROBLEM_TYPE, SMALL_ANSWER_MAX};
use crate::{Problem, ProblemCode, TransportError};
use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use std::{error::Error, time::Duration};

/// The content type of plain answers.
pub(super) const JSON_TYPE: &str = "application/json";
/// What is said of an answer beyond its bound.
pub(super) const TOO_LARGE: &str = "the answer is too large";

/// A good answer of a Ropeway whose body is still to come.
pub(super) struct Answer {
    response: Response,
    kind: String,
    idle: Duration,
}

impl Answer {
    /// Looks at the head of an answer: only a good one of a Ropeway becomes an `Answer`.
    pub(super) async fn of(response: Response, idle: Duration) -> Result<Self, TransportError> {
        let status = response.status();
        let kind = kind(response.headers());
        if !response.headers().contains_key(NODE_HEADER) {
            return Err(stranger(status, &kind));
        }
        let retry_after = retry_after(response.headers());
        let mut answer = Self { response, kind, idle };
        if status.is_success() {
            return Ok(answer);
        }
        answer.must_be(PROBLEM_TYPE)?;
        let body = answer.body(SMALL_ANSWER_MAX).await?;
        Err(TransportError::Problem(problem(status, retry_after, &body)?))
    }

    /// Refuses a body of another kind.
    pub(super) fn must_be(&self, kind: &str) -> Result<(), TransportError> {
        if self.kind == kind {
            return Ok(());
        }
        let status = self.response.status();
        Err(TransportError::Garbled(format!("status {status} came with `{}` instead of `{kind}`", self.kind)))
    }

    /// The next piece of the body, decompressed. `None`: the body is at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, TransportError> {
        match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            // A cut shows as a broken compression as well: what was damaged on the way is not told apart.
            Ok(Err(e)) => {
                Err(TransportError::Offline(format!("the answer was cut on its way: {}", chain(e))))
            }
            Err(_) => {
                let seconds = self.idle.as_secs();
                Err(TransportError::Offline(format!("the answer stood still for {seconds} seconds")))
            }
        }
    }

    /// The whole body of a JSON answer, at most `most` bytes of it.
    pub(super) async fn json(mut self, most: usize) -> Result<Vec<u8>, TransportError> {
        self.must_be(JSON_TYPE)?;
        self.body(most).await
    }

    async fn body(&mut self, most: usize) -> Result<Vec<u8>, TransportError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            if body.len() + piece.len() > most {
                return Err(TransportError::Garbled(TOO_LARGE.into()));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// What to make of an answer that no Ropeway gave: a captive portal, a proxy that speaks for a node
/// that it does not reach, or another program. All of it is being offline, but for a proxy that finds a
/// body too large: halving the batch helps there, and waiting never would.
fn stranger(status: StatusCode, kind: &str) -> TransportError {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let why = "something on the way to the upstream refuses a body of this size";
        return TransportError::Problem(Problem::new(ProblemCode::TooLarge, why));
    }
    let what = if kind.is_empty() { "no content" } else { kind };
    TransportError::Offline(format!("what answered with status {status} and {what} is no Ropeway"))
}

/// Reads a problem. A newer node may name a code that this program does not know: then its status says
/// what kind it is.
fn problem(status: StatusCode, retry_after: Option<u64>, body: &[u8]) -> Result<Problem, TransportError> {
    #[derive(Deserialize)]
    struct Loose {
        code: String,
        detail: Option<String>,
        retry_after: Option<u64>,
    }
    if let Ok(mut problem) = serde_json::from_slice::<Problem>(body) {
        problem.retry_after = problem.retry_after.or(retry_after);
        return Ok(problem);
    }
    let loose: Loose = serde_json::from_slice(body)
        .map_err(|e| TransportError::Garbled(format!("status {status} came with a broken problem: {e}")))?;
    let code = match status.as_u16() {
        401 => ProblemCode::Unauthenticated,
        403 => ProblemCode::Forbidden,
        413 => ProblemCode::TooLarge,
        429 => ProblemCode::RateLimited,
        500.. => ProblemCode::Unavailable,
        _ => ProblemCode::UpgradeRequired,
    };
    let detail = format!("{}: {}", loose.code, loose.detail.unwrap_or_default());
    let mut problem = Problem::new(code, detail);
    problem.retry_after = loose.retry_after.or(retry_after);
    Ok(problem)
}

fn kind(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// An error with its causes and without the address, which the caller knows.
pub(super) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
