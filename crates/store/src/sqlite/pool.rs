//! The store's own threads: one that writes, a few that read. A caller that goes away leaves its job
//! behind, and the job runs to its end.

use super::{conn::Conn, errors::Done};
use crate::StoreError;
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait for a thread before callers have to wait to hand theirs in.
const QUEUE: usize = 64;
/// Most writes that are committed together.
const GROUP_MAX: usize = 64;

/// What runs on a thread with its connection.
pub(super) type Job = Box<dyn FnOnce(&mut Conn) + Send>;

/// A write that can share its transaction with others, and so be run a second time.
pub(super) trait Shared: Send {
    /// Does the work in the open transaction.
    fn run(&mut self, conn: &mut Conn) -> Done<()>;
    /// Tells the caller how it ended, after the commit.
    fn tell(self: Box<Self>, ended: Done<()>);
}

/// Something to do on one of a pool's threads.
pub(super) enum Task {
    /// By itself.
    Alone(Job),
    /// Perhaps in one transaction with others.
    Shared(Box<dyn Shared>),
}

/// Hands tasks to a pool from elsewhere, without keeping it alive.
pub(super) struct Errands(mpsc::WeakSender<Task>);

impl Errands {
    /// Whether the pool is there and has room for it.
    pub(super) fn try_hand_in(&self, task: Task) -> bool {
        self.0.upgrade().is_some_and(|queue| queue.try_send(task).is_ok())
    }
}

/// Threads behind one queue; they end, and their connections close, when it is dropped.
pub(super) struct Pool {
    queue: Option<mpsc::Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts a thread for each connection.
    pub(super) fn start(name: &str, conns: Vec<Conn>) -> Done<Self> {
        let (queue, tasks) = mpsc::channel(QUEUE);
        let tasks = Arc::new(Mutex::new(tasks));
        let mut threads = Vec::with_capacity(conns.len());
        for conn in conns {
            let tasks = tasks.clone();
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || serve(conn, &tasks));
            threads.push(thread.map_err(|e| StoreError::Unavailable {
                what: "no thread could be started".into(),
                source: Some(e.into()),
            })?);
        }
        Ok(Self { queue: Some(queue), threads })
    }

    /// A way to hand in tasks from a thread that cannot wait.
    pub(super) fn errands(&self) -> Done<Errands> {
        Ok(Errands(self.queue.as_ref().ok_or_else(gone)?.downgrade()))
    }

    /// Runs a job on one of the threads and waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(move |conn: &mut Conn| {
            let _ = tell.send(work(conn));
        });
        self.hand_in(Task::Alone(job)).await?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Hands in a write that may be committed together with others.
    pub(super) async fn share(&self, work: Box<dyn Shared>) -> Done<()> {
        self.hand_in(Task::Shared(work)).await
    }

    async fn hand_in(&self, task: Task) -> Done<()> {
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(task).await.map_err(|_| gone())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// The store is closing or one of its threads died.
pub(super) fn gone() -> StoreError {
    StoreError::Unavailable { what: "the store is closing".into(), source: None }
}

fn serve(mut conn: Conn, tasks: &Mutex<mpsc::Receiver<Task>>) {
    let mut next = None;
    loop {
        let task = match next.take() {
            Some(task) => task,
            None => match tasks.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv() {
                Some(task) => task,
                None => return,
            },
        };
        match task {
            Task::Alone(job) => job(&mut conn),
            Task::Shared(first) => {
                let (group, rest) = gather(first, tasks);
                next = rest;
                commit(&mut conn, group);
            }
        }
    }
}

/// Takes what waits right behind `first` and may share its transaction.
fn gather(
    first: Box<dyn Shared>,
    tasks: &Mutex<mpsc::Receiver<Task>>,
) -> (Vec<Box<dyn Shared>>, Option<Task>) {
    let mut group = vec![first];
    let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
    while group.len() < GROUP_MAX {
        match tasks.try_recv() {
            Ok(Task::Shared(work)) => group.push(work),
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

fn commit(conn: &mut Conn, mut group: Vec<Box<dyn Shared>>) {
    if group.len() > 1 {
        match together(conn, &mut group) {
            Ok(ended) => return group.into_iter().zip(ended).for_each(|(work, ended)| work.tell(ended)),
            Err(StoreError::Unavailable { what, .. }) => {
                let again = |what: &String| Err(StoreError::Unavailable { what: what.clone(), source: None });
                return group.into_iter().for_each(|work| work.tell(again(&what)));
            }
            Err(error) => tracing::warn!(%error, "writes committed together failed, now one by one"),
        }
    }
    for mut work in group {
        let ended = conn.write(|conn| work.run(conn));
        work.tell(ended);
    }
}

/// One transaction for all. An error of one undoes only that one; an error that ends the transaction is
/// an error of all, and nothing was written.
fn together(conn: &mut Conn, group: &mut [Box<dyn Shared>]) -> Done<Vec<Done<()>>> {
    conn.write(|conn| {
        let mut ended = Vec::with_capacity(group.len());
        for work in group {
            let done = conn.part(|conn| work.run(conn));
            match done {
                Err(error) if !conn.is_open() => return Err(error),
                done => ended.push(done),
            }
        }
        Ok(ended)
    })
}
