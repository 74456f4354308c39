//! What SQLite's error codes mean to the engine.

use crate::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

/// The room's own result.
pub(super) type Done<T> = Result<T, StoreError>;

/// The disk is full where the shared-memory file could not grow.
const SHM_FULL: i32 = ffi::SQLITE_IOERR_SHMSIZE;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        use ErrorCode::*;
        let Error::SqliteFailure(code, _) = &error else {
            return of_rows(error);
        };
        match code.code {
            DiskFull => Self::Full,
            SystemIoFailure if code.extended_code == SHM_FULL => Self::Full,
            DatabaseCorrupt => Self::Corrupt { what: format!("SQLite says: {error}") },
            NotADatabase => Self::Corrupt { what: "the file is not a SQLite database".into() },
            DatabaseBusy | DatabaseLocked => away("another program holds the database", error),
            ReadOnly => away("the database file cannot be written, only read", error),
            PermissionDenied | AuthorizationForStatementDenied => {
                away("the database file may not be used by this user", error)
            }
            CannotOpen => away("the database file cannot be opened", error),
            SystemIoFailure => away("the disk answered with an error", error),
            OutOfMemory => away("out of memory", error),
            FileLockingProtocolFailed => away("the file system's locks do not work", error),
            OperationInterrupted | OperationAborted => away("the statement was interrupted", error),
            _ => Self::Fault { what: format!("SQL failed: {error}"), source: Some(error.into()) },
        }
    }
}

fn of_rows(error: Error) -> StoreError {
    match &error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => StoreError::Corrupt { what: format!("a row cannot be read: {error}") },
        _ => StoreError::Fault { what: format!("SQL failed: {error}"), source: Some(error.into()) },
    }
}

fn away(what: &str, error: Error) -> StoreError {
    StoreError::Unavailable { what: format!("{what}: {error}"), source: Some(error.into()) }
}

/// A value in the database that this program cannot have written.
pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

/// JSON that this program cannot have written.
pub(super) fn bad_json(what: &str, error: serde_json::Error) -> StoreError {
    StoreError::Corrupt { what: format!("{what} is not the JSON it should be: {error}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    /// F8: what can only be read is no fault of the program.
    #[test]
    fn a_file_that_can_only_be_read_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (n)").unwrap();
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(&file, flags).unwrap();
        let error = StoreError::from(db.execute("INSERT INTO t VALUES (1)", []).unwrap_err());
        let StoreError::Unavailable { what, .. } = &error else { panic!("{error:?}") };
        assert!(what.starts_with("the database file cannot be written, only read"), "{what}");
    }
}
