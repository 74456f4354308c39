//! Keeps the write-ahead log short without holding up the writer: another thread takes it into the file.

use super::{
    errors::Done,
    pool::{Errands, Task},
};
use rusqlite::Connection;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Pages in the log from which it is taken in beside the writer: 16 MiB.
const LONG: i32 = 4_000;
/// Pages from which the writer waits for it: whoever takes it in does not keep up.
const TOO_LONG: i32 = 40_000;

const TAKE_IN: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Has a long log of `writer` taken in by whoever runs `errands`, after the commit that made it long.
pub(super) fn keep_short(writer: &mut Connection, errands: Errands) -> Done<()> {
    let under_way = Arc::new(AtomicBool::new(false));
    writer.wal_hook(Some(move |log: &mut rusqlite::hooks::Wal, pages| {
        if pages >= TOO_LONG {
            return log.checkpoint();
        }
        if pages >= LONG && !under_way.swap(true, Ordering::AcqRel) {
            let ended = Arc::clone(&under_way);
            let run = Task::Alone(Box::new(move |conn| {
                // A log that stays long is asked about again at the next commit.
                if let Err(error) = conn.db.query_row(TAKE_IN, [], |_| Ok(())) {
                    tracing::warn!(%error, "the write-ahead log could not be taken in");
                }
                ended.store(false, Ordering::Release);
            }));
            if !errands.try_hand_in(run) {
                under_way.store(false, Ordering::Release);
            }
        }
        Ok(())
    }))?;
    Ok(())
}
