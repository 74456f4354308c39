//! The line format of a pull: laws over random pages, and the refusals by example.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use ropeway_core::{
    change::Author,
    digest::Digest,
    doc::{Doc, Fields},
    id::{Collection, DeviceId, Epoch, Key, RecordId},
    limits,
    plan::Fed,
    record::State,
    time::{Stamp, Time},
};
use ropeway_protocol::{PageEnd, PageReader, PageWriter, TransportError};
use serde_json::Value;

fn end(count: u64) -> PageEnd {
    PageEnd {
        cursor: "42.e1.00ff".into(),
        epoch: Epoch::trusted("e1"),
        head: Stamp(1_770_000_000_000_000),
        count,
        digest: Digest { count: 3, sum: i64::MIN + 7 },
        complete: true,
        now: Time(1_770_000_000_123_456),
        audiences: None,
    }
}

fn write(rows: &[Fed]) -> Vec<u8> {
    let (mut writer, mut out) = (PageWriter::new(), Vec::new());
    for row in rows {
        writer.row(row, &mut out);
    }
    writer.end(end(999), &mut out);
    out
}

fn read(pieces: &[&[u8]]) -> Result<(Vec<Fed>, PageEnd), TransportError> {
    let (mut reader, mut rows) = (PageReader::new(), Vec::new());
    for piece in pieces {
        reader.feed(piece, &mut rows)?;
    }
    Ok((rows, reader.finish()?))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn fed() -> impl Strategy<Value = Fed> {
    let device = prop::sample::select(vec!["pi-1", "pi-2", "cloud"]).prop_map(DeviceId::trusted);
    let person = prop::option::of(prop::sample::select(vec!["Anna", "Jörg \"J\"\n", ""]));
    let state = prop_oneof![
        4 => Just(State::Live),
        1 => Just(State::Deleted),
        1 => "[A-Za-z0-9._:-]{1,40}".prop_map(|id| State::Joined(RecordId::trusted(id))),
    ];
    let id = ("[A-Za-z0-9._:-]{1,128}", prop::sample::select(vec!["incident", "race", "a"]));
    let data = prop::collection::btree_map(".{0,8}", value(), 0..5);
    let numbers = (any::<u64>(), any::<i64>(), any::<i64>());
    (id, numbers, state, data, device.clone(), device, person).prop_map(
        |((id, collection), (version, stamp, modified), state, data, owner, device, person)| Fed {
            key: Key::new(&Collection::trusted(collection), &RecordId::parse(&id).unwrap()),
            version,
            stamp: Stamp(stamp),
            state,
            data: Doc::of(data.into_iter().collect::<Fields>()),
            owner,
            author: Author { device, person: person.map(str::to_owned) },
            modified_at: Time(modified),
            left: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_however_it_arrives(
        rows in prop::collection::vec(fed(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = write(&rows);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([body.len()]) {
            pieces.push(&body[from..cut]);
            from = cut;
        }
        let (read, last) = read(&pieces).unwrap();
        prop_assert_eq!(&read, &rows);
        prop_assert_eq!(last, end(rows.len() as u64));
    }

    #[test]
    fn a_body_cut_anywhere_has_no_end(rows in prop::collection::vec(fed(), 0..3)) {
        let body = write(&rows);
        for upto in 0..body.len() {
            prop_assert!(matches!(read(&[&body[..upto]]), Err(TransportError::Garbled(_))), "cut at {}", upto);
        }
    }

    #[test]
    fn a_body_with_a_changed_byte_never_panics(
        rows in prop::collection::vec(fed(), 0..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = write(&rows);
        let at = at.index(body.len());
        body[at] = byte;
        let _ = read(&[&body]);
    }

    #[test]
    fn noise_is_garbled(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(read(&[&noise]), Err(TransportError::Garbled(_))));
    }
}

const DICTIONARY: &str = "{\"collection\":0,\"name\":\"incident\"}\n{\"author\":0,\"device\":\"pi\"}\n";

fn ended(lines: &str, count: u64) -> String {
    let mut last = Vec::new();
    PageWriter::new().end(end(0), &mut last);
    let last = String::from_utf8(last).unwrap().replace("\"count\":0", &format!("\"count\":{count}"));
    format!("{DICTIONARY}{lines}{last}")
}

fn refused(lines: &str, count: u64) -> String {
    match read(&[ended(lines, count).as_bytes()]) {
        Err(TransportError::Garbled(why)) => why,
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn the_documented_lines_are_what_is_written() {
    let row = |id: &str, stamp: i64, state: State, owner: &str| Fed {
        key: Key::new(&Collection::trusted("incident"), &RecordId::trusted(id)),
        version: 3,
        stamp: Stamp(stamp),
        state,
        data: Doc::read("{\"bib\":127}").unwrap(),
        owner: DeviceId::trusted(owner),
        author: Author { device: DeviceId::trusted("pi-start"), person: Some("Anna".into()) },
        modified_at: Time(stamp - 900),
        left: false,
    };
    let rows = [
        row("i1", 1_000_000, State::Live, "pi-start"),
        row("i2", 1_000_001, State::Deleted, "cloud"),
        row("i3", 1_000_005, State::Joined(RecordId::trusted("i1")), "pi-start"),
    ];
    let text = String::from_utf8(write(&rows)).unwrap();
    let expected = r#"{"collection":0,"name":"incident"}
{"author":0,"device":"pi-start","person":"Anna"}
["i1",0,3,1000000,0,-900,{"bib":127}]
{"author":1,"device":"cloud"}
["i2",0,3,1,0,-900,{"bib":127},{"state":"deleted","owner":1}]
["i3",0,3,4,0,-900,{"bib":127},{"joined":"i1"}]
{"end":{"cursor":"42.e1.00ff","epoch":"e1","head":1770000000000000,"count":3,"digest":{"count":3,"sum":"-9223372036854775801"},"complete":true,"now":"2026-02-02T02:40:00.123456Z"}}
"#;
    assert_eq!(text, expected);
}

#[test]
fn an_older_reader_survives_a_newer_node() {
    let lines = "{\"audience\":0,\"key\":\"x\"}\n\
        {\"author\":1,\"device\":\"b\",\"account\":{\"a\":[1]}}\n\
        [\"i1\",0,1,5,1,0,{},{\"flag\":true},\"more\",[1,2]]\n";
    let (rows, last) = read(&[ended(lines, 1).as_bytes()]).unwrap();
    assert_eq!((rows.len(), last.count, &*rows[0].author.device), (1, 1, "b"));
    let newer = ended("", 0).replace("\"complete\"", "\"sources\":[{\"a\":1}],\"complete\"");
    assert!(read(&[newer.as_bytes()]).is_ok());
}

#[test]
fn what_cannot_be_a_page_is_refused_by_name() {
    for (lines, count, word) in [
        ("[\"i\",0,1,1,0,0,[]]\n", 1, "no JSON object"),
        ("[\"i\",0,1,1,0,0,\"{}\"]\n", 1, "no JSON object"),
        ("[\"i\",0,1,1,0,0]\n", 1, "at least 7"),
        ("[\"i\",0,1,1,0,0,{]\n", 1, "no row"),
        ("[\"i\",0,1,1,0,0,{}] x\n", 1, "no row"),
        ("[\"i\",1,1,1,0,0,{}]\n", 1, "collection number 1"),
        ("[\"i\",0,1,1,7,0,{}]\n", 1, "author number 7"),
        ("[\"i\",0,1,1,0,0,{},{\"owner\":9}]\n", 1, "author number 9"),
        ("[\"i\",0,1,1,0,0,{},{\"state\":\"frozen\"}]\n", 1, "frozen"),
        ("[\"i\",0,-1,1,0,0,{}]\n", 1, "no row"),
        ("[\"a b\",0,1,1,0,0,{}]\n", 1, "record id"),
        ("[\"i\",0,1,1,0,0,{\"a\":\"\\ud800\"}]\n", 1, "cannot be read"),
        ("{\"collection\":5,\"name\":\"race\"}\n", 0, "where 1 was next"),
        ("{\"collection\":0,\"name\":\"race\"}\n", 0, "where 1 was next"),
        ("{\"collection\":1,\"name\":\"Robert'); --\"}\n", 0, "collection"),
        ("{\"author\":1}\n", 0, "without a device"),
        ("\n", 0, "neither"),
        ("<html>\n", 0, "neither"),
        ("[\"i\",0,1,1,0,0,{}]\n", 2, "speaks of 2 rows, 1 arrived"),
        ("", 1, "speaks of 1 rows, 0 arrived"),
    ] {
        let why = refused(lines, count);
        assert!(why.contains(word), "{lines}: {why}");
    }
    let after = format!("{}{{", ended("", 0));
    assert!(
        matches!(read(&[after.as_bytes()]), Err(TransportError::Garbled(_))),
        "half a line after the end"
    );
    let after = format!("{}{{}}\n", ended("", 0));
    assert!(matches!(read(&[after.as_bytes()]), Err(TransportError::Garbled(_))));
}

#[test]
fn deep_data_is_refused_and_never_overflows() {
    for depth in [200, 1_000, 100_000, 1_000_000] {
        let data = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let (mut reader, mut rows) = (PageReader::new(), Vec::new());
        let body = ended(&format!("[\"i\",0,1,1,0,0,{data}]\n"), 1);
        assert!(reader.feed(body.as_bytes(), &mut rows).is_err(), "{depth}");
    }
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_the_memory() {
    let (mut reader, mut rows) = (PageReader::new(), Vec::new());
    let piece = vec![b'['; 1 << 20];
    let taken = (0..100).take_while(|_| reader.feed(&piece, &mut rows).is_ok()).count();
    assert!(taken <= 5, "{taken} MiB were taken in");
    assert!(reader.feed(b"\n", &mut rows).is_err(), "a broken reader stays broken");
}

#[test]
fn a_conflict_about_the_largest_values_still_travels() {
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(4 * limits::RECORD_BYTES_MAX));
    let body = ended(&format!("[\"i\",0,1,1,0,0,{text}]\n"), 1);
    assert_eq!(read(&[body.as_bytes()]).unwrap().0[0].data.text().len(), text.len());
}

/// The aim of the layout: hardly more than the records' own JSON.
#[test]
fn the_wire_is_little_more_than_the_records() {
    let rows: Vec<Fed> = (0..5_000).map(sample).collect();
    let own: usize = rows.iter().map(|r| r.key.id.len() + r.data.text().len()).sum();
    let wire = write(&rows).len();
    let ratio = wire as f64 / own as f64;
    assert!(ratio <= 1.1, "{wire} bytes for {own}: {ratio:.3}");
}

fn sample(n: i64) -> Fed {
    let stamp = 1_770_000_000_000_000 + n * 7;
    let data = format!(
        "{{\"bib_number\":{n},\"created_at\":\"2026-02-14T10:41:29Z\",\"description\":\"missed a gate, skis off too \
         early and no avalanche transceiver\",\"race\":\"01984f10-0000-7000-8000-00000000000a\",\"race_location\":\
         \"01984f10-0000-7000-8000-00000000000b\",\"status\":\"unofficial\"}}"
    );
    Fed {
        key: Key::new(
            &Collection::trusted("incident"),
            &RecordId::trusted(format!("01984f10-0000-7000-8000-{n:012}")),
        ),
        version: 1,
        stamp: Stamp(stamp),
        state: State::Live,
        data: Doc::stored(data),
        owner: DeviceId::trusted("01984f10-0000-7000-8000-0000000000ff"),
        author: Author { device: DeviceId::trusted("01984f10-0000-7000-8000-0000000000ff"), person: None },
        modified_at: Time(stamp - 61_234_567),
        left: false,
    }
}
