//! Keeps the write-ahead log short without holding up the writer: another thread takes it into the file.

use super::{
    errors::Done,
    pool::{Errands, Task},
};
use rusqlite::Connection;
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Pages in the log from which it is taken in beside the writer: 16 MiB.
const LONG: i32 = 4_000;
/// Pages from which the writer takes it in itself: whoever does it beside the writer does not keep up. 64 MiB.
const TOO_LONG: i32 = 16_000;
/// How long the writer waits for whoever takes the log in beside it.
const PATIENCE: Duration = Duration::from_secs(2);

const TAKE_IN: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Has a long log of `writer` taken in by whoever runs `errands`, after the commit that made it long.
///
/// Nothing here ever fails: the commit has happened, and an error of this hook would be told as its own.
pub(super) fn keep_short(writer: &mut Connection, errands: Errands) -> Done<()> {
    let under_way = Arc::new(UnderWay::default());
    writer.wal_hook(Some(move |log: &mut rusqlite::hooks::Wal, pages| {
        if pages >= TOO_LONG {
            // Of two who take it in at once the second is refused, and a log that is not taken in to its last
            // page is never begun anew. Somebody who reads on and on holds it back all the same.
            under_way.wait();
            if let Err(error) = log.checkpoint() {
                tracing::debug!(%error, "the write-ahead log is taken in by another process");
            }
        } else if pages >= LONG && under_way.begin() {
            let ended = Arc::clone(&under_way);
            let run = Task::Alone(Box::new(move |conn| {
                // A log that stays long is asked about again at the next commit.
                if let Err(error) = conn.db.query_row(TAKE_IN, [], |_| Ok(())) {
                    tracing::warn!(%error, "the write-ahead log could not be taken in");
                }
                ended.end();
            }));
            if !errands.try_hand_in(run) {
                under_way.end();
            }
        }
        Ok(())
    }))?;
    Ok(())
}

/// Whether the log is being taken in.
#[derive(Default)]
struct UnderWay {
    is: Mutex<bool>,
    ended: Condvar,
}

impl UnderWay {
    /// Whether it was not, and is from now on.
    fn begin(&self) -> bool {
        !std::mem::replace(&mut *self.is.lock().unwrap_or_else(PoisonError::into_inner), true)
    }

    fn end(&self) {
        *self.is.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.ended.notify_all();
    }

    /// Waits until it is not, within reason.
    fn wait(&self) {
        let is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.ended.wait_timeout_while(is, PATIENCE, |is| *is));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::{super::pool::Pool, *};

    /// F20: whoever takes the log in beside the writer may be busy for ever.
    #[test]
    fn the_writer_takes_in_a_log_that_nobody_takes_in_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.db");
        let mut writer = Connection::open(&file).unwrap();
        writer
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (b)")
            .unwrap();
        let nobody = Pool::start("nobody", Vec::new()).unwrap().errands().unwrap();
        keep_short(&mut writer, nobody).unwrap();
        for _ in 0..96 {
            writer.execute("INSERT INTO t VALUES (zeroblob(1 << 20))", []).unwrap();
        }
        let log = std::fs::metadata(dir.path().join("node.db-wal")).unwrap().len();
        assert!(log < 72 << 20, "the log is begun anew: {log} bytes");
    }
}
