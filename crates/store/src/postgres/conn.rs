//! Connections and transactions: every one begins and ends in this file, committed or rolled back, on a
//! task of the store's own, so that a caller that goes away leaves none open.

use super::{
    errors::{Done, is_again},
    lineage,
};
use crate::asking::fault;
use deadpool_postgres::{Object, Pool};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_postgres::{
    Error, Row,
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    types::{ToSql, Type},
};

/// How often a transaction is run again that met others.
const TRIES: u32 = 8;
/// The first pause before that; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(2);

/// What a statement binds.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Work inside a transaction, which may be run again from its beginning.
pub(super) type Work<'a, T> = Pin<Box<dyn Future<Output = Done<T>> + Send + 'a>>;

/// Where transactions come from.
#[derive(Clone)]
pub(super) struct Db {
    pub(super) pool: Pool,
    /// Whether this node has an upstream.
    pub(super) follows: bool,
    /// Of which data this process knows that it goes on with it; and what makes its new epochs its own.
    pub(super) data: Arc<Data>,
}

/// Which data is gone on with.
pub(super) struct Data {
    pub(super) known: Mutex<Option<String>>,
    pub(super) seed: String,
}

/// What a transaction may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Write.
    Write,
    /// Only read: everything that it reads is of one moment.
    Read,
    /// Run one statement, which is a transaction by itself.
    Once,
}

/// An open transaction.
pub(super) struct Tx {
    /// `None` once it ended well and the connection is the pool's again.
    client: Option<Object>,
    how: How,
    /// Whether the server was told that it begins.
    begun: AtomicBool,
    pub(super) follows: bool,
}

impl Db {
    /// Runs `work` in one write transaction on a task of its own: commits it, or rolls it back on an
    /// error. A transaction that met others, or whose connection broke, is run again.
    pub(super) async fn write<A: Send + 'static, T: Send + 'static>(
        &self,
        args: A,
        work: for<'a> fn(&'a Tx, &'a mut A) -> Work<'a, T>,
    ) -> Done<T> {
        self.apart(How::Write, args, work).await
    }

    /// Runs `work` in one read transaction: everything it reads is of one moment.
    pub(super) async fn read<A: Send + 'static, T: Send + 'static>(
        &self,
        args: A,
        work: for<'a> fn(&'a Tx, &'a mut A) -> Work<'a, T>,
    ) -> Done<T> {
        self.apart(How::Read, args, work).await
    }

    /// Runs `work`, which is one statement that reads or writes: one way to the server and back.
    pub(super) async fn once<A: Send + 'static, T: Send + 'static>(
        &self,
        args: A,
        work: for<'a> fn(&'a Tx, &'a mut A) -> Work<'a, T>,
    ) -> Done<T> {
        self.apart(How::Once, args, work).await
    }

    async fn apart<A: Send + 'static, T: Send + 'static>(
        &self,
        how: How,
        mut args: A,
        work: for<'a> fn(&'a Tx, &'a mut A) -> Work<'a, T>,
    ) -> Done<T> {
        let db = self.clone();
        let task = tokio::spawn(async move { db.run(how, &mut args, work).await });
        task.await.unwrap_or_else(|ended| Err(fault(format!("a transaction ended early: {ended}"))))
    }

    /// Begins a transaction. Whoever calls this ends it, on a task that nobody cancels.
    pub(super) async fn begin(&self, how: How) -> Done<Tx> {
        let mut tx = Tx::on(self.client().await?, how);
        tx.follows = self.follows;
        Ok(tx)
    }

    /// A connection to the data that this node goes on with: a new one may lead to a server that took the
    /// place of another.
    pub(super) async fn client(&self) -> Done<Object> {
        let client = self.pool.get().await?;
        match Object::metrics(&client).recycle_count {
            0 => self.heed(client).await,
            _ => Ok(client),
        }
    }

    /// Begins an epoch where the data is not what this node had.
    pub(super) async fn heed(&self, client: Object) -> Done<Object> {
        let Some(now_is) = lineage::look(&client).await else { return Ok(client) };
        if self.data.known.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&now_is) {
            return Ok(client);
        }
        let client = match lineage::is_same(&client, &now_is).await? {
            true => client,
            false => {
                lineage::begin(client, &now_is, &self.data.seed).await?;
                self.pool.get().await?
            }
        };
        *self.data.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(now_is);
        Ok(client)
    }

    /// Runs a transaction to its end, and again where it met others or its connection broke. Where the answer
    /// to COMMIT was lost with that, what was decided is found as a replay. Whoever calls this is on a task
    /// that nobody cancels.
    pub(super) async fn run<A: Send, T: Send>(
        &self,
        how: How,
        args: &mut A,
        work: for<'a> fn(&'a Tx, &'a mut A) -> Work<'a, T>,
    ) -> Done<T> {
        let (mut tries, mut pause) = (0, PAUSE);
        loop {
            let ended = async {
                let tx = self.begin(how).await?;
                let done = work(&tx, args).await;
                match how {
                    How::Write => tx.end(done).await,
                    How::Read | How::Once => {
                        tx.roll_back().await;
                        done
                    }
                }
            };
            match ended.await {
                Err(error) if is_again(&error) && tries < TRIES => tokio::time::sleep(pause).await,
                ended => return ended,
            }
            (tries, pause) = (tries + 1, pause * 2);
        }
    }
}

/// Sends statements of one transaction together and waits for all their answers: where one fails, which one
/// is told first is chance, and the others say only that something failed.
macro_rules! together {
    ($($step:ident: $work:expr),+ $(,)?) => {{
        let ($($step),+,) = tokio::join!($($work),+);
        let mut errors = Vec::new();
        $(let $step = $step.map_err(|error| errors.push(error)).ok();)+
        match ($($step),+,) {
            ($(Some($step)),+,) => Ok(($($step),+,)),
            _ => Err($crate::postgres::errors::cause(errors)),
        }
    }};
}
pub(super) use together;

impl How {
    /// What the server is told.
    fn begins(self) -> &'static str {
        match self {
            Self::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Write | Self::Once => "BEGIN",
        }
    }
}

impl Tx {
    /// A transaction on a connection. The server is told with the first statement.
    pub(super) fn on(client: Object, how: How) -> Self {
        Self { client: Some(client), how, begun: AtomicBool::new(how == How::Once), follows: false }
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn query(&self, sql: &'static str, params: Params<'_>) -> Done<Vec<Row>> {
        self.send(async |client: &Object| {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        })
        .await
    }

    /// Runs a statement that returns at most one row.
    pub(super) async fn one(&self, sql: &'static str, params: Params<'_>) -> Done<Option<Row>> {
        self.send(async |client: &Object| {
            let statement = client.prepare_cached(sql).await?;
            client.query_opt(&statement, params).await
        })
        .await
    }

    /// The same for two statements of the same parameters, sent together: the second one sees whatever was
    /// committed while the first one waited.
    pub(super) async fn one_then(
        &self,
        first: &'static str,
        then: &'static str,
        params: Params<'_>,
    ) -> Done<(Option<Row>, Option<Row>)> {
        self.send(async |client: &Object| {
            // Both before either goes: one that had to be prepared would be overtaken.
            let (first, then) = (client.prepare_cached(first).await?, client.prepare_cached(then).await?);
            let both =
                tokio::join!(biased; client.query_opt(&first, params), client.query_opt(&then, params));
            Ok((both.0?, both.1?))
        })
        .await
    }

    /// Runs a statement. How many rows it wrote.
    pub(super) async fn execute(&self, sql: &'static str, params: Params<'_>) -> Done<u64> {
        self.send(async |client: &Object| {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, params).await
        })
        .await
    }

    /// Runs text that the engine made itself: views, whose names come from a profile.
    pub(super) async fn run(&self, sql: &str) -> Done<()> {
        self.send(async |client: &Object| client.batch_execute(sql).await).await
    }

    /// The one row of a statement that the engine made itself.
    pub(super) async fn made(&self, sql: &str) -> Done<Row> {
        self.send(async |client: &Object| client.query_one(sql, &[]).await).await
    }

    /// Sends a statement. The first one travels with the word that a transaction begins, before which nothing
    /// of it counts.
    async fn send<T>(&self, statement: impl AsyncFnOnce(&Object) -> Result<T, Error>) -> Done<T> {
        let client = self.client()?;
        if self.begun.swap(true, Ordering::Relaxed) {
            return Ok(statement(client).await?);
        }
        let (began, done) = tokio::join!(biased; client.batch_execute(self.how.begins()), statement(client));
        began?;
        Ok(done?)
    }

    /// Streams what a statement finds, as fast as it is taken.
    pub(super) async fn copy_out(&self, sql: &str, types: &[Type]) -> Done<BinaryCopyOutStream> {
        let sql = format!("COPY ({sql}) TO STDOUT (FORMAT binary)");
        let stream = self.send(async |client: &Object| client.copy_out(&sql).await).await?;
        Ok(BinaryCopyOutStream::new(stream, types))
    }

    /// Streams rows into a table.
    pub(super) async fn copy_in(
        &self,
        table: &str,
        columns: &[&str],
        types: &[Type],
    ) -> Done<BinaryCopyInWriter> {
        let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "));
        let sink = self.send(async |client: &Object| client.copy_in(&sql).await).await?;
        Ok(BinaryCopyInWriter::new(sink, types))
    }

    /// Commits what was done, or undoes everything.
    pub(super) async fn end<T>(self, done: Done<T>) -> Done<T> {
        match done {
            Ok(done) => self.commit().await.map(|()| done),
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// Makes everything durable.
    pub(super) async fn commit(self) -> Done<()> {
        self.over("COMMIT").await
    }

    /// Undoes everything.
    pub(super) async fn roll_back(self) {
        let _ = self.over("ROLLBACK").await;
    }

    async fn over(mut self, word: &str) -> Done<()> {
        if *self.begun.get_mut() && self.how != How::Once {
            self.client()?.batch_execute(word).await?;
        }
        self.client = None;
        Ok(())
    }

    fn client(&self) -> Done<&Object> {
        self.client.as_ref().ok_or_else(|| fault("a transaction was used after its end".into()))
    }
}

impl Drop for Tx {
    /// What did not end well is closed: no connection goes back to the pool inside a transaction.
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}
