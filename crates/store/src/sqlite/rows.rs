//! Records between Rust and their columns.

use super::{
    errors::{Done, bad_json, corrupt},
    names::Names,
};
use crate::codes;
use ropeway_core::{
    change::Author,
    doc::Doc,
    id::{Collection, DeviceId, Epoch, Key, RecordId},
    plan::Fed,
    record::{Marks, Record, State, Upstream},
    time::{Stamp, Time},
};
use rusqlite::{Connection, Row, types::ValueRef};
use std::sync::Arc;

/// Columns of `rw_records` and `rw_history` in the order that [`record`] reads.
macro_rules! record_columns {
    () => {
        "id, local_id, version, stamp, state, joined_into, owner, author, person, modified_at, contested, \
         up_epoch, up_version, up_held, marks, data"
    };
}
/// Columns of `rw_records` and `rw_staging` in the order that [`fed`] reads.
macro_rules! fed_columns {
    () => {
        "collection, id, version, stamp, state, joined_into, owner, author, person, modified_at, data"
    };
}
pub(super) use {fed_columns, record_columns};

/// A record read from [`record_columns`].
pub(super) fn record(db: &Connection, names: &mut Names, row: &Row<'_>) -> Done<(RecordId, Record)> {
    let id = RecordId::trusted(text(row, 0)?);
    let upstream = match row.get::<_, Option<i64>>(11)? {
        None => None,
        Some(epoch) => Some(Upstream {
            epoch: Epoch::trusted(names.name(db, epoch)?),
            version: row.get::<_, i64>(12)?.cast_unsigned(),
            held: opt_json(row, 13, "what the upstream holds")?,
        }),
    };
    let record = Record {
        local_id: row.get(1)?,
        version: row.get::<_, i64>(2)?.cast_unsigned(),
        stamp: Stamp(row.get(3)?),
        state: state(row, 4)?,
        data: Doc::stored(text(row, 15)?),
        marks: opt_json::<Marks>(row, 14, "field marks")?.unwrap_or_default(),
        owner: DeviceId::trusted(names.name(db, row.get(6)?)?),
        author: author(db, names, row, 7)?,
        modified_at: Time(row.get(9)?),
        contested: row.get(10)?,
        upstream,
    };
    Ok((id, record))
}

/// A fed row read from [`fed_columns`].
pub(super) fn fed(db: &Connection, names: &mut Names, row: &Row<'_>) -> Done<Fed> {
    let collection = Collection::trusted(names.name(db, row.get(0)?)?);
    let left = row.get::<_, i64>(4)? == codes::LEFT;
    Ok(Fed {
        key: Key { collection, id: RecordId::trusted(text(row, 1)?) },
        version: row.get::<_, i64>(2)?.cast_unsigned(),
        stamp: Stamp(row.get(3)?),
        state: if left { State::Deleted } else { state(row, 4)? },
        data: Doc::stored(text(row, 10)?),
        owner: DeviceId::trusted(names.name(db, row.get(6)?)?),
        author: author(db, names, row, 7)?,
        modified_at: Time(row.get(9)?),
        left,
    })
}

/// A record's columns, ready to bind.
pub(super) struct Bound<'a> {
    pub(super) state: i64,
    pub(super) joined_into: Option<&'a str>,
    pub(super) owner: i64,
    pub(super) author: i64,
    pub(super) person: Option<i64>,
    pub(super) up_epoch: Option<i64>,
    pub(super) up_version: Option<i64>,
    pub(super) up_held: Option<String>,
    pub(super) marks: Option<String>,
}

/// Turns a record into columns, interning the names in it.
pub(super) fn bind<'a>(db: &Connection, names: &mut Names, record: &'a Record) -> Done<Bound<'a>> {
    let (state, joined_into) = of_state(&record.state);
    let (author, person) = of_author(db, names, &record.author)?;
    let upstream = record.upstream.as_ref();
    let held = upstream.and_then(|u| u.held.as_ref()).map(|h| to_json(h, "upstream data")).transpose()?;
    let marks = (!record.marks.is_empty()).then(|| to_json(&record.marks, "marks")).transpose()?;
    Ok(Bound {
        state,
        joined_into,
        owner: names.intern(db, &record.owner)?,
        author,
        person,
        up_epoch: upstream.map(|u| names.intern(db, &u.epoch)).transpose()?,
        up_version: upstream.map(|u| u.version.cast_signed()),
        up_held: held,
        marks,
    })
}

/// A state as its code and the survivor of a join.
pub(super) fn of_state(state: &State) -> (i64, Option<&str>) {
    match state {
        State::Live => (codes::LIVE, None),
        State::Deleted => (codes::DELETED, None),
        State::Joined(survivor) => (codes::JOINED, Some(survivor)),
    }
}

/// An author as two interned names.
pub(super) fn of_author(db: &Connection, names: &mut Names, author: &Author) -> Done<(i64, Option<i64>)> {
    let person = author.person.as_deref().map(|p| names.intern(db, p)).transpose()?;
    Ok((names.intern(db, &author.device)?, person))
}

/// A text column, copied once.
pub(super) fn text(row: &Row<'_>, at: usize) -> Done<Arc<str>> {
    match row.get_ref(at)? {
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(corrupt("a text is not UTF-8")),
        },
        other => Err(corrupt(format!("a text was expected and {} found", other.data_type()))),
    }
}

/// A JSON column that may be null.
pub(super) fn opt_json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    at: usize,
    what: &str,
) -> Done<Option<T>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => serde_json::from_slice(bytes).map(Some).map_err(|e| bad_json(what, e)),
        other => Err(corrupt(format!("{what}: {} found", other.data_type()))),
    }
}

/// JSON of a value of the engine.
pub(super) fn to_json<T: serde::Serialize>(value: &T, what: &str) -> Done<String> {
    serde_json::to_string(value).map_err(|e| crate::asking::fault(format!("{what} is no JSON: {e}")))
}

fn state(row: &Row<'_>, at: usize) -> Done<State> {
    match row.get::<_, i64>(at)? {
        codes::LIVE => Ok(State::Live),
        codes::DELETED => Ok(State::Deleted),
        codes::JOINED => Ok(State::Joined(RecordId::trusted(text(row, at + 1)?))),
        other => Err(corrupt(format!("record state {other} is unknown"))),
    }
}

fn author(db: &Connection, names: &mut Names, row: &Row<'_>, at: usize) -> Done<Author> {
    let device = DeviceId::trusted(names.name(db, row.get(at)?)?);
    let person: Option<i64> = row.get(at + 1)?;
    let person = person.map(|no| names.name(db, no)).transpose()?.map(|p| p.to_string());
    Ok(Author { device, person })
}
