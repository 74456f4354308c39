//! What PostgreSQL's error codes mean to the engine.

use super::address;
use crate::StoreError;
use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::SqlState};

/// The room's own result.
pub(super) type Done<T> = Result<T, StoreError>;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Some(code) = error.code() else { return of_connection(error) };
        match code {
            &SqlState::DISK_FULL => Self::Full,
            &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => {
                Self::Corrupt { what: format!("PostgreSQL says: {}", words(&error)) }
            }
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
                away("others were writing at the same moment", error)
            }
            &SqlState::IN_FAILED_SQL_TRANSACTION => away("the transaction had failed before", error),
            &SqlState::LOCK_NOT_AVAILABLE => away("others hold the space for too long", error),
            &SqlState::QUERY_CANCELED => away("the statement took too long", error),
            &SqlState::READ_ONLY_SQL_TRANSACTION => away("the database can only be read", error),
            &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                away("the user or password is not accepted", error)
            }
            &SqlState::INVALID_CATALOG_NAME => away("there is no such database", error),
            &SqlState::INSUFFICIENT_PRIVILEGE => away("the user may not do this in the database", error),
            // Classes 08 (connection), 53 (resources), 57 (operator), 58 (system).
            code if ["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class)) => {
                away("the database is not ready", error)
            }
            _ => {
                let what = format!("SQL failed: {}", words(&error));
                Self::Fault { what, source: Some(error.into()) }
            }
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            error => Self::Unavailable {
                what: format!("no connection is free: {error}"),
                source: Some(error.into()),
            },
        }
    }
}

/// Without a code the trouble is between here and the server, or in reading an answer.
fn of_connection(error: Error) -> StoreError {
    if let Some(what) = address::refusal(&error) {
        return StoreError::Unavailable { what, source: Some(error.into()) };
    }
    if error.is_closed() || std::error::Error::source(&error).is_some_and(|e| e.is::<std::io::Error>()) {
        return away("the connection to the database broke", error);
    }
    let text = words(&error);
    if text.contains("deserializing") {
        return StoreError::Corrupt { what: format!("a row cannot be read: {text}") };
    }
    if text.contains("serializing") {
        return StoreError::Fault { what: format!("SQL failed: {text}"), source: Some(error.into()) };
    }
    away("the database cannot be reached", error)
}

/// Whether the same transaction may be run again at once: it met others, or its connection broke. Where
/// the answer to COMMIT was lost with it, what was decided is a replay.
pub(super) fn is_again(error: &StoreError) -> bool {
    let StoreError::Unavailable { source: Some(source), .. } = error else { return false };
    let Some(error) = source.downcast_ref::<Error>() else { return false };
    match error.code() {
        Some(code) => [
            &SqlState::T_R_SERIALIZATION_FAILURE,
            &SqlState::T_R_DEADLOCK_DETECTED,
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
            &SqlState::CANNOT_CONNECT_NOW,
        ]
        .contains(&code),
        None => error.is_closed(),
    }
}

/// Of what several statements of one transaction said that were on their way together, the one that the
/// transaction failed of: the others only echo it.
pub(super) fn cause(errors: Vec<StoreError>) -> StoreError {
    let is_echo = |error: &StoreError| {
        let StoreError::Unavailable { source: Some(source), .. } = error else { return false };
        let error = source.downcast_ref::<Error>();
        error.is_some_and(|error| error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION))
    };
    let (echoes, causes): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_echo);
    let first = causes.into_iter().chain(echoes).next();
    first.unwrap_or_else(|| corrupt("a statement ended without an answer"))
}

fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn away(what: &str, error: Error) -> StoreError {
    StoreError::Unavailable { what: format!("{what}: {}", words(&error)), source: Some(error.into()) }
}

/// A value in the database that this program cannot have written.
pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

/// JSON that this program cannot have written.
pub(super) fn bad_json(what: &str, error: serde_json::Error) -> StoreError {
    corrupt(format!("{what} is not the JSON it should be: {error}"))
}
