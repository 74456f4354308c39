//! How a request fails: one mapping from the replica's errors to problems, and one way to answer them.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ropeway_protocol::{PROBLEM_TYPE, Problem, ProblemCode};
use ropeway_replica::{ReplicaError, StoreError};

/// A request that failed: answers itself as `application/problem+json`.
#[derive(Debug)]
pub struct Failure(pub Problem);

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        Self(problem_of(&error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What a failed verb of the replica is to a caller. The one place where this is decided.
pub fn problem_of(error: &ReplicaError) -> Problem {
    use ProblemCode as P;
    let code = match error {
        ReplicaError::Store(error) => return problem_of_store(error),
        ReplicaError::Invalid(_) => P::Malformed,
        ReplicaError::TooLarge(_) => P::TooLarge,
        ReplicaError::NotFound(_) => P::NotFound,
        ReplicaError::Output(_) => P::Internal,
        ReplicaError::Moved(_) => P::Moved,
        ReplicaError::Forbidden(_) => P::Forbidden,
        ReplicaError::Busy(_) => return Problem::new(P::Unavailable, error.to_string()).after(1),
        ReplicaError::Unauthenticated => P::Unauthenticated,
        ReplicaError::Revoked(_) => P::DeviceRevoked,
        ReplicaError::Cloned(_) => P::DeviceCloned,
        ReplicaError::ResyncRequired(_) => P::ResyncRequired,
        ReplicaError::CursorInvalid => P::CursorInvalid,
        ReplicaError::EpochChanged => P::EpochChanged,
    };
    Problem::new(code, error.to_string())
}

/// The database's own words go to the log; a caller learns whether anything was written and what to do.
fn problem_of_store(error: &StoreError) -> Problem {
    use ProblemCode as P;
    match error {
        StoreError::Unavailable { .. } => {
            tracing::warn!(error = %chain(error), "the database cannot be reached");
            Problem::new(P::Unavailable, "the database cannot be reached now; nothing was written").after(2)
        }
        StoreError::Full | StoreError::Corrupt { .. } | StoreError::TooNew { .. } => {
            tracing::error!(error = %chain(error), "the database cannot be used");
            Problem::new(P::Unavailable, error.to_string()).after(60)
        }
        StoreError::NoSpace(_) => Problem::new(P::NotFound, error.to_string()),
        StoreError::Fault { .. } => {
            tracing::error!(error = %chain(error), "internal fault");
            Problem::new(P::Internal, "the node is at fault; nothing was written").after(30)
        }
    }
}

/// An error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_own_words_stay_here() {
        let unavailable = StoreError::Unavailable { what: "SELECT secret /var/db".into(), source: None };
        let problem = problem_of(&unavailable.into());
        assert_eq!((problem.status, problem.retry_after), (503, Some(2)));
        assert!(!problem.detail.contains("secret"));
        let fault = StoreError::Fault { what: "INSERT secret".into(), source: None };
        let problem = problem_of(&fault.into());
        assert_eq!(problem.code, ProblemCode::Internal);
        assert!(!problem.detail.contains("secret"));
        assert!(problem_of(&StoreError::Full.into()).detail.contains("disk is full"));
    }
}
