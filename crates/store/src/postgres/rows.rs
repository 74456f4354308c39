//! Records between Rust and their columns.

use super::errors::{Done, bad_json, corrupt};
use crate::codes;
use ropeway_core::{
    change::Author,
    doc::Doc,
    id::{Collection, DeviceId, Epoch, Key, RecordId},
    plan::Fed,
    record::{Marks, Record, State, Upstream},
    time::{Stamp, Time},
};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;

/// Has the planner take what is given for few rows, so that it goes from each to its place by the index. Turned
/// round, it would read the whole space and look for each row among what is given.
macro_rules! few {
    () => {
        "LIMIT (SELECT 9223372036854775807)"
    };
}

/// A statement that deletes from a table what is given in these columns, each row by the index.
macro_rules! delete {
    ($table:literal, $given:literal, $named:literal, $same:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " r USING (SELECT $1::int AS space, k.* FROM unnest(",
            $given,
            ") AS k (",
            $named,
            ") ",
            rows::few!(),
            ") k WHERE r.space = k.space AND ",
            $same
        )
    };
}

/// Columns of `rw_records` and `rw_history` in the order that [`record`] reads.
macro_rules! record_columns {
    () => {
        "r.collection, r.id, r.state, r.joined_into, r.version, r.stamp, r.modified_at, r.owner, r.author, \
         r.person, r.data, r.local_id, r.contested, r.up_epoch, r.up_version, r.up_held, r.marks"
    };
}
/// Columns of `rw_records` and `rw_staging` in the order that [`fed`] reads.
macro_rules! fed_columns {
    () => {
        "r.collection, r.id, r.state, r.joined_into, r.version, r.stamp, r.modified_at, r.owner, r.author, \
         r.person, r.data"
    };
}
pub(super) use {delete, fed_columns, few, record_columns};

/// A record read from [`record_columns`].
pub(super) fn record(row: &Row) -> Done<(Key, Record)> {
    let fed = fed(row)?;
    let upstream = match row.try_get::<_, Option<&str>>(13)? {
        None => None,
        Some(epoch) => Some(Upstream {
            epoch: Epoch::trusted(epoch),
            version: row.try_get::<_, i64>(14)?.cast_unsigned(),
            held: opt_json(row, 15, "what the upstream holds")?,
        }),
    };
    let record = Record {
        local_id: row.try_get(11)?,
        version: fed.version,
        stamp: fed.stamp,
        state: fed.state,
        data: fed.data,
        marks: opt_json::<Marks>(row, 16, "field marks")?.unwrap_or_default(),
        owner: fed.owner,
        author: fed.author,
        modified_at: fed.modified_at,
        contested: row.try_get(12)?,
        upstream,
    };
    Ok((fed.key, record))
}

/// A fed row read from [`fed_columns`].
pub(super) fn fed(row: &Row) -> Done<Fed> {
    let text = |at: usize| row.try_get::<_, &str>(at);
    let code = i64::from(row.try_get::<_, i16>(2)?);
    let state = match code {
        codes::LIVE => State::Live,
        codes::DELETED | codes::LEFT => State::Deleted,
        codes::JOINED => State::Joined(RecordId::trusted(text(3)?)),
        other => return Err(corrupt(format!("record state {other} is unknown"))),
    };
    let person: Option<String> = row.try_get(9)?;
    Ok(Fed {
        key: Key { collection: Collection::trusted(text(0)?), id: RecordId::trusted(text(1)?) },
        version: row.try_get::<_, i64>(4)?.cast_unsigned(),
        stamp: Stamp(row.try_get(5)?),
        state,
        data: Doc::stored(text(10)?),
        owner: DeviceId::trusted(text(7)?),
        author: Author { device: DeviceId::trusted(text(8)?), person },
        modified_at: Time(row.try_get(6)?),
        left: code == codes::LEFT,
    })
}

/// A state as its code and the survivor of a join.
pub(super) fn of_state(state: &State) -> (i16, Option<&str>) {
    match state {
        State::Live => (codes::LIVE as i16, None),
        State::Deleted => (codes::DELETED as i16, None),
        State::Joined(survivor) => (codes::JOINED as i16, Some(survivor)),
    }
}

/// A JSON column that may be null.
pub(super) fn opt_json<T: DeserializeOwned>(row: &Row, at: usize, what: &str) -> Done<Option<T>> {
    let text = row.try_get::<_, Option<&str>>(at)?;
    text.map(|text| serde_json::from_str(text).map_err(|e| bad_json(what, e))).transpose()
}

/// JSON of a value of the engine.
pub(super) fn to_json<T: serde::Serialize>(value: &T, what: &str) -> Done<String> {
    serde_json::to_string(value).map_err(|e| crate::asking::fault(format!("{what} is no JSON: {e}")))
}
