//! The line format of a pull: `application/x-ndjson`, lean enough to be little more than the records' own
//! JSON, and streaming both ways. PROTOCOL.md is the normative text.
//!
//! Three kinds of lines: a dictionary line declares a number for a collection or an author, a row is a
//! JSON array that refers to those numbers, and the last line is the end. A body without an end line was
//! cut, and nothing of it counts.

use crate::TransportError;
use ropeway_core::{
    change::Author,
    digest::Digest,
    doc::Doc,
    id::{Collection, DeviceId, Epoch, Key, RecordId},
    limits,
    plan::Fed,
    record::State,
    time::{Stamp, Time},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::{HashMap, hash_map},
    fmt,
};

/// Longest line that a reader takes. A record's data is at most [`limits::RECORD_BYTES_MAX`]; a conflict
/// record carries a base, two sides and a merged answer, each of them of that size at the worst.
pub const LINE_BYTES_MAX: usize = 5 * limits::RECORD_BYTES_MAX;

/// How a page ended: its last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEnd {
    /// What to send as `after` with the next pull. Opaque.
    pub cursor: String,
    /// The epoch of the node that served the page.
    pub epoch: Epoch,
    /// The head of the space when the page was read.
    pub head: Stamp,
    /// How many rows the page has.
    pub count: u64,
    /// The digest of the space at that head.
    #[serde(with = "wire_digest")]
    pub digest: Digest,
    /// Whether the page reached the head: only then is what was read consistent.
    pub complete: bool,
    /// The node's clock when it answered.
    pub now: Time,
    /// The audiences that the reader is subscribed to; absent where it sees everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<String>>,
}

/// The sum travels as a text: it needs all 64 bits, and many JSON readers keep only 53 of a number.
mod wire_digest {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Wire<'a> {
        count: i64,
        sum: Cow<'a, str>,
    }

    pub(super) fn serialize<S: Serializer>(digest: &Digest, s: S) -> Result<S::Ok, S::Error> {
        Wire { count: digest.count, sum: digest.sum.to_string().into() }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let wire = Wire::deserialize(d)?;
        let sum = wire.sum.parse().map_err(|_| serde::de::Error::custom("`sum` is no 64-bit integer"))?;
        Ok(Digest { count: wire.count, sum })
    }
}

/// Writes a page, line by line, into buffers of the caller's.
#[derive(Debug, Default)]
pub struct PageWriter {
    collections: HashMap<Collection, usize>,
    authors: HashMap<Author, usize>,
    /// The first number under which a device was declared, for owners.
    devices: HashMap<DeviceId, usize>,
    stamp: i64,
    count: u64,
}

impl PageWriter {
    /// A page without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one record, preceded by the declarations that it is the first to need.
    pub fn row(&mut self, row: &Fed, out: &mut Vec<u8>) {
        let collection = self.collection(&row.key.collection, out);
        if row.left {
            let author = self.author(&row.author, out);
            let stamp = row.stamp.0.wrapping_sub(self.stamp);
            self.stamp = row.stamp.0;
            let (left, collection) = (Some(row.key.id.clone()), Some(collection));
            return line(
                &Declared {
                    left,
                    of: collection,
                    stamp: Some(stamp),
                    by: Some(author),
                    ..Declared::default()
                },
                out,
            );
        }
        let author = self.author(&row.author, out);
        let owner = if row.owner == row.author.device { None } else { Some(self.device(&row.owner, out)) };
        out.reserve(row.data.text().len() + row.key.id.len() + 96);
        // An id has no character that JSON escapes.
        out.extend_from_slice(b"[\"");
        out.extend_from_slice(row.key.id.as_bytes());
        out.push(b'"');
        for number in [
            Number::Unsigned(collection as u64),
            Number::Unsigned(row.version),
            Number::Signed(row.stamp.0.wrapping_sub(self.stamp)),
            Number::Unsigned(author as u64),
            Number::Signed(row.modified_at.0.wrapping_sub(row.stamp.0)),
        ] {
            out.push(b',');
            match number {
                Number::Unsigned(n) => json(&n, out),
                Number::Signed(n) => json(&n, out),
            }
        }
        out.push(b',');
        out.extend_from_slice(row.data.text().as_bytes());
        let extra = Extra::of(&row.state, owner);
        if extra != Extra::default() {
            out.push(b',');
            json(&extra, out);
        }
        out.extend_from_slice(b"]\n");
        self.stamp = row.stamp.0;
        self.count += 1;
    }

    /// Appends the end. The number of rows is filled in here.
    pub fn end(self, end: PageEnd, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"end\":");
        json(&PageEnd { count: self.count, ..end }, out);
        out.extend_from_slice(b"}\n");
    }

    fn collection(&mut self, name: &Collection, out: &mut Vec<u8>) -> usize {
        if let Some(number) = self.collections.get(name) {
            return *number;
        }
        let number = self.collections.len();
        self.collections.insert(name.clone(), number);
        line(&Declared { collection: Some(number), name: Some(name.clone()), ..Declared::default() }, out);
        number
    }

    fn author(&mut self, author: &Author, out: &mut Vec<u8>) -> usize {
        if let Some(number) = self.authors.get(author) {
            return *number;
        }
        let number = self.authors.len();
        self.authors.insert(author.clone(), number);
        if let hash_map::Entry::Vacant(first) = self.devices.entry(author.device.clone()) {
            first.insert(number);
        }
        let (device, person) = (Some(author.device.clone()), author.person.clone());
        line(&Declared { author: Some(number), device, person, ..Declared::default() }, out);
        number
    }

    fn device(&mut self, device: &DeviceId, out: &mut Vec<u8>) -> usize {
        match self.devices.get(device) {
            Some(number) => *number,
            None => self.author(&Author { device: device.clone(), person: None }, out),
        }
    }
}

enum Number {
    Unsigned(u64),
    Signed(i64),
}

/// Appends a value. Writing plain values to memory cannot fail.
fn json(value: &impl Serialize, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, value);
}

fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    json(value, out);
    out.push(b'\n');
}

/// A line that is an object: a declaration or the end. Unknown keys are ignored, and so is a line
/// without a known one, so that an older reader survives a newer node.
#[derive(Default, Serialize, Deserialize)]
struct Declared {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collection: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Collection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<RecordId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<PageEnd>,
}

/// What only few rows need to say.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Extra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<RecordId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<usize>,
}

impl Extra {
    fn of(state: &State, owner: Option<usize>) -> Self {
        match state {
            State::Live => Self { owner, ..Self::default() },
            State::Deleted => Self { state: Some("deleted".into()), joined: None, owner },
            State::Joined(survivor) => Self { state: None, joined: Some(survivor.clone()), owner },
        }
    }

    fn read(self) -> Result<(State, Option<usize>), String> {
        let state = match (self.state.as_deref(), self.joined) {
            (None | Some("live"), None) => State::Live,
            (Some("deleted"), None) => State::Deleted,
            (None | Some("joined"), Some(survivor)) => State::Joined(survivor),
            (Some(word), _) => return Err(format!("`{word}` is no state that this program knows")),
        };
        Ok((state, self.owner))
    }
}

/// A row as it stands in its line.
struct RowLine<'a> {
    id: &'a str,
    collection: usize,
    version: u64,
    stamp: i64,
    author: usize,
    modified: i64,
    data: &'a RawValue,
    extra: Option<Extra>,
}

impl<'de> Deserialize<'de> for RowLine<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = RowLine<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row: an array of at least 7 elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RowLine<'de>, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A, at: usize) -> Result<T, A::Error> {
            seq.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(at, &RowVisitor))
        }
        let row = RowLine {
            id: next(&mut seq, 0)?,
            collection: next(&mut seq, 1)?,
            version: next(&mut seq, 2)?,
            stamp: next(&mut seq, 3)?,
            author: next(&mut seq, 4)?,
            modified: next(&mut seq, 5)?,
            data: next(&mut seq, 6)?,
            extra: seq.next_element()?,
        };
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(row)
    }
}

/// Reads a page as it arrives.
#[derive(Debug, Default)]
pub struct PageReader {
    /// The beginning of a line whose end has not arrived.
    tail: Vec<u8>,
    collections: Vec<Collection>,
    authors: Vec<Author>,
    stamp: i64,
    count: u64,
    line: u64,
    end: Option<PageEnd>,
    broken: bool,
}

impl PageReader {
    /// A reader at the beginning of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes that arrived, however they were cut, and appends the rows that are complete.
    ///
    /// Errors with [`TransportError::Garbled`], naming the line; the rows read so far count for nothing
    /// then, and the reader takes no more.
    pub fn feed(&mut self, bytes: &[u8], rows: &mut Vec<Fed>) -> Result<(), TransportError> {
        if self.broken {
            return Err(self.garbled("an earlier line could not be read"));
        }
        let read = self.lines(bytes, rows);
        self.broken = read.is_err();
        read.map_err(|why| self.garbled(&why))
    }

    /// The end of the body. Errors when there was no end line: the body was cut, and nothing of it counts.
    pub fn finish(mut self) -> Result<PageEnd, TransportError> {
        match self.end.take() {
            Some(end) if !self.broken && self.tail.is_empty() => Ok(end),
            _ => Err(self.garbled("the page was cut: it has no end line, and nothing of it counts")),
        }
    }

    fn garbled(&self, why: &str) -> TransportError {
        TransportError::Garbled(format!("line {} of the page: {why}", self.line + 1))
    }

    fn lines(&mut self, mut bytes: &[u8], rows: &mut Vec<Fed>) -> Result<(), String> {
        let too_long = || format!("the line is longer than {LINE_BYTES_MAX} bytes");
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (head, rest) = bytes.split_at(at);
            if self.tail.len() + head.len() > LINE_BYTES_MAX {
                return Err(too_long());
            }
            if self.tail.is_empty() {
                self.take(head, rows)?;
            } else {
                let mut whole = std::mem::take(&mut self.tail);
                whole.extend_from_slice(head);
                self.take(&whole, rows)?;
                // Keeps the allocation for the next line that arrives in pieces.
                whole.clear();
                self.tail = whole;
            }
            self.line += 1;
            bytes = &rest[1..];
        }
        if self.tail.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(too_long());
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    fn take(&mut self, line: &[u8], rows: &mut Vec<Fed>) -> Result<(), String> {
        if self.end.is_some() {
            return Err("there is something after the end line".into());
        }
        match line.first() {
            Some(b'[') => {
                let row = serde_json::from_slice(line).map_err(|e| format!("no row: {e}"))?;
                rows.push(self.row(row)?);
                Ok(())
            }
            Some(b'{') => self.declare(serde_json::from_slice(line).map_err(|e| e.to_string())?, rows),
            _ => Err("neither a row nor a declaration".into()),
        }
    }

    fn declare(&mut self, line: Declared, rows: &mut Vec<Fed>) -> Result<(), String> {
        if let Some(number) = line.collection {
            let name = line.name.ok_or("a collection without a name")?;
            in_order(number, self.collections.len())?;
            self.collections.push(name);
        } else if let Some(number) = line.author {
            let device = line.device.ok_or("an author without a device")?;
            in_order(number, self.authors.len())?;
            self.authors.push(Author { device, person: line.person });
        } else if let Some(id) = line.left {
            let collection = line.of.and_then(|number| self.collections.get(number));
            let collection = collection.ok_or("what left has no declared collection")?;
            let by = line.by.and_then(|number| self.authors.get(number));
            let by = by.ok_or("what left has no declared author")?;
            self.stamp = self.stamp.wrapping_add(line.stamp.ok_or("what left has no stamp")?);
            rows.push(Fed::leaving(Key::new(collection, &id), Stamp(self.stamp), by.device.clone()));
        } else if let Some(end) = line.end {
            if end.count != self.count {
                return Err(format!("the end speaks of {} rows, {} arrived", end.count, self.count));
            }
            self.end = Some(end);
        }
        Ok(())
    }

    fn row(&mut self, row: RowLine<'_>) -> Result<Fed, String> {
        let author = |number: usize| {
            self.authors.get(number).ok_or_else(|| format!("author number {number} was not declared"))
        };
        let collection = self.collections.get(row.collection);
        let collection = collection
            .ok_or_else(|| format!("collection number {} was not declared", row.collection))?
            .clone();
        let (state, owner) = row.extra.unwrap_or_default().read()?;
        let by = author(row.author)?.clone();
        let owner = match owner {
            Some(number) => author(number)?.device.clone(),
            None => by.device.clone(),
        };
        let id = RecordId::parse(row.id).map_err(|e| e.to_string())?;
        let stamp = self.stamp.wrapping_add(row.stamp);
        self.stamp = stamp;
        self.count += 1;
        Ok(Fed {
            key: Key { collection, id },
            version: row.version,
            stamp: Stamp(stamp),
            state,
            data: data(row.data.get())?,
            owner,
            author: by,
            modified_at: Time(row.modified.wrapping_add(stamp)),
            left: false,
        })
    }
}

fn in_order(number: usize, next: usize) -> Result<(), String> {
    if number == next { Ok(()) } else { Err(format!("number {number} is declared where {next} was next")) }
}

/// Takes a record's data without parsing it, unless it has something in it that the scan for its end
/// lets pass and a parser may refuse: escaped surrogates, or brackets enough to be nested too deep.
fn data(text: &str) -> Result<Doc, String> {
    if !text.starts_with('{') {
        return Err("a record's data is no JSON object".into());
    }
    let open = text.bytes().filter(|b| matches!(b, b'{' | b'[')).count();
    if open > limits::JSON_DEPTH_MAX || text.contains("\\u") {
        return Doc::read(text).map_err(|e| format!("a record's data cannot be read: {e}"));
    }
    Ok(Doc::stored(text))
}
