//! Where a node's records are kept: a SQLite file, or a database on a PostgreSQL server.

use crate::{failure::Failure, open::make_directory};
use anyhow::{Context, Result};
use ropeway_core::{id::Epoch, time::Time};
use ropeway_store::{Options, PostgresOptions, PostgresStore, SqliteStore, Stored};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A node's database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// A SQLite file.
    File(PathBuf),
    /// A database on a PostgreSQL server, by its whole address.
    Server(String),
}

/// What a database is told when it is opened.
pub(crate) struct Opening {
    /// The epoch of a database that has none yet.
    pub(crate) epoch: Epoch,
    /// The clock.
    pub(crate) now: Time,
    /// Whether the node follows an upstream.
    pub(crate) follows: bool,
    /// Whether a database in which no node was ever begun is given one.
    pub(crate) begin: bool,
}

impl Database {
    /// Reads an address.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let path = match url.split_once(':') {
            Some(("postgres" | "postgresql", _)) => {
                PostgresStore::check_url(url).map_err(|e| {
                    Failure::usage(e.to_string()).next(
                        "give a URL like postgresql://user:password@host:5432/database?sslmode=verify-full",
                    )
                })?;
                return Ok(Self::Server(url.to_owned()));
            }
            Some(("sqlite" | "sqlite3", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some((scheme, _)) if url.contains("://") => {
                return Err(Failure::usage(format!("`{scheme}` is no database that Ropeway knows")).next(
                    "give a URL like sqlite:/var/lib/ropeway/ropeway.db or postgresql://user@host/database",
                ));
            }
            _ => url,
        };
        match path {
            "" => Err(Failure::usage("the database URL names no file")),
            path => Ok(Self::File(path.into())),
        }
    }

    /// The file, where it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Server(_) => None,
        }
    }

    /// Opens it; where no node was ever begun in it, begins one or refuses. With the store: whether one
    /// was begun.
    pub(crate) async fn open(&self, opening: Opening) -> Result<(Stored, bool)> {
        match self {
            Self::File(path) => {
                let Opening { epoch, now, follows, begin } = opening;
                let is_new = !path.exists();
                if is_new && !begin {
                    return Err(self.nothing().into());
                }
                path.parent().map_or(Ok(()), make_directory)?;
                let options = Options::new(epoch, now).following(follows);
                let store =
                    SqliteStore::open(path, options).with_context(|| format!("the database {self}"))?;
                Ok((Arc::new(store), is_new))
            }
            Self::Server(url) => {
                let Some(store) = self.connect(url, opening).await? else {
                    return Err(self.nothing().into());
                };
                let is_new = store.is_new();
                Ok((Arc::new(store), is_new))
            }
        }
    }

    /// Opens the one at an address on a server; `None` where no node was begun in it and none may be.
    pub(crate) async fn connect(&self, url: &str, opening: Opening) -> Result<Option<PostgresStore>> {
        let Opening { epoch, now, follows, begin } = opening;
        let options = PostgresOptions::new(url, epoch, now).following(follows);
        let opened = match begin {
            true => PostgresStore::open(options).await.map(Some),
            false => PostgresStore::find(options).await,
        };
        opened.with_context(|| format!("the database {self}"))
    }

    /// That no node is there.
    pub(crate) fn nothing(&self) -> Failure {
        let (what, next) = match self {
            Self::File(path) => (
                format!("there is no database at {}; nothing was made", path.display()),
                "name the data directory with --data-dir, or begin a node there with `ropeway serve`",
            ),
            Self::Server(_) => (
                format!("there is no node in the database {self}; nothing was made"),
                "name the database with --database, or begin a node there with `ropeway serve`",
            ),
        };
        Failure::new(what).next(next)
    }
}

impl fmt::Debug for Database {
    /// Without the password too: no log may have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl fmt::Display for Database {
    /// As people may see it: without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self {
            Self::File(path) => return write!(f, "{}", path.display()),
            Self::Server(url) => url,
        };
        let Some((scheme, rest)) = url.split_once("://") else { return f.write_str("postgresql://…") };
        // A password may hold a question mark, and what stands behind the place may be a password too.
        let bare = |place: &'_ str| {
            let place = place.split('?').next().unwrap_or_default();
            place.rsplit('@').next().unwrap_or_default().to_owned()
        };
        match rest.split_once('@') {
            None => write!(f, "{scheme}://{}", bare(rest)),
            Some((who, place)) => {
                let user = who.split_once(':').map_or(who, |(user, _)| user);
                write!(f, "{scheme}://{user}@{}", bare(place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_servers_are_told_apart() {
        for file in ["x.db", "sqlite:x.db", "sqlite://x.db", "sqlite3:x.db"] {
            assert_eq!(Database::parse(file).unwrap(), Database::File("x.db".into()));
        }
        let url = "postgresql://me:secret@h:1/d?sslmode=disable&password=secret";
        let server = Database::parse(url).unwrap();
        assert_eq!((server.to_string().as_str(), server.file()), ("postgresql://me@h:1/d", None));
        assert!(!format!("{server:?}").contains("secret"));
        for hidden in
            ["postgresql://u:what?secret@db.example/d?x=@secret", "postgresql://u:a@secret@db.example/d"]
        {
            let shown = Database::Server(hidden.into()).to_string();
            assert!(shown.starts_with("postgresql://u@") && !shown.contains("secret"), "{shown}");
        }
        assert_eq!(Database::parse("postgres://h/d").unwrap().to_string(), "postgres://h/d");
        for bad in
            ["mysql://x/y", "sqlite:", "", "postgresql://me:secret@h:port/x", "postgres://h/d?sslmode=no"]
        {
            let why = Database::parse(bad).unwrap_err().to_string();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
