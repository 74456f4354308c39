//! What the layout costs: ingest, staging with absorb, and the feed, against the database's own batched
//! upsert of the same rows into one lean, tuned table, batch by batch in turn so that both sides meet the
//! same weather. The same durability (`synchronous = FULL`) on both sides.
//!
//! `cargo bench -p ropeway-store [-- ROWS RUNS]`

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::unwrap_used, reason = "a bench that fails panics")]
#![allow(clippy::print_stdout, reason = "a bench prints")]

use ropeway_core::{
    doc::Doc,
    id::{ChangeId, Epoch, Key, RecordId},
    plan::{Decision, Fed, Keys, Plan, Row, Snapshot},
    receipt::Remembered,
    record::{Record, State, Upstream},
    time::Stamp,
};
use ropeway_store::{
    Absorb, Options, PullEnd, SqliteStore, Step, Store,
    conformance::hand::{NOW, author, blank, device, epoch, key, remembered, space},
};
use rusqlite::Connection;
use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const BATCH: usize = 500;
const PAGE: usize = 5_000;

/// An id as UUID version 7 has it: time first, then chance.
fn uuid(n: u64, salt: u64) -> String {
    let mix =
        (n ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let (a, b) = (n / 4 + 0x0198_4F10_0000, mix);
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        a >> 16,
        a & 0xFFFF,
        b & 0xFFF,
        (b >> 12) & 0xFFF,
        b >> 16
    )
}

/// About 250 bytes of JSON.
fn data(n: u64) -> Doc {
    Doc::stored(format!(
        r#"{{"bib_number":{},"created_at":"2026-02-14T10:41:29Z","decision":"no_action","description":"gate {} missed, seen from the second post of the start","official":false,"race":"{}","race_location":"{}","status":"unofficial"}}"#,
        n % 200,
        n % 60,
        &uuid(n % 7, 1)[..30],
        &uuid(n % 5, 2)[..30]
    ))
}

struct Sample {
    ids: Vec<String>,
    changes: Vec<String>,
    docs: Vec<Doc>,
    blobs: Vec<[u8; 16]>,
}

impl Sample {
    fn named(&self, range: Range<usize>) -> Vec<Key> {
        let collection = key("x").collection;
        let ids = self.ids[range].iter();
        ids.map(|id| Key::new(&collection, &RecordId::trusted(id.as_str()))).collect()
    }
}

fn sample(rows: usize) -> Sample {
    let numbers = 0..rows as u64;
    let ids: Vec<String> = numbers.clone().map(|n| uuid(n, 3)).collect();
    let blob = |id: &String| u128::from_str_radix(&id.replace('-', ""), 16).unwrap().to_be_bytes();
    Sample {
        blobs: ids.iter().map(blob).collect(),
        ids,
        changes: numbers.clone().map(|n| uuid(n, 4)).collect(),
        docs: numbers.map(data).collect(),
    }
}

/// The yardstick: sequence as rowid, the id as an indexed 16-byte blob, one table, tuned.
struct Bare {
    db: Connection,
    seq: i64,
}

impl Bare {
    fn open(dir: &Path, name: &str) -> Self {
        let db = Connection::open(dir.join(name)).unwrap();
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("temp_store", "MEMORY")] {
            db.pragma_update(None, name, value).unwrap();
        }
        db.pragma_update(None, "cache_size", -65_536).unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 10_000).unwrap();
        let table = "CREATE TABLE t (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, data TEXT NOT NULL)";
        db.execute_batch(table).unwrap();
        Self { db, seq: NOW.0 }
    }

    fn upsert(&mut self, ids: &[[u8; 16]], docs: &[Doc]) -> Duration {
        const UPSERT: &str = "INSERT INTO t (seq, id, data) VALUES (?1, ?2, ?3)
          ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, data = excluded.data";
        let begun = Instant::now();
        self.db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut stmt = self.db.prepare_cached(UPSERT).unwrap();
        for (id, doc) in ids.iter().zip(docs) {
            self.seq += 1;
            stmt.execute((self.seq, id, doc.text())).unwrap();
        }
        self.db.execute_batch("COMMIT").unwrap();
        begun.elapsed()
    }

    fn page(&self, after: i64, limit: usize) -> (i64, usize, Duration) {
        const PAGE: &str = "SELECT seq, id, data FROM t WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let begun = Instant::now();
        let mut stmt = self.db.prepare_cached(PAGE).unwrap();
        let read = |r: &rusqlite::Row<'_>| {
            Ok((r.get::<_, i64>(0)?, r.get::<_, [u8; 16]>(1)?, r.get::<_, String>(2)?))
        };
        let rows: Vec<_> = stmt.query_map((after, limit as i64), read).unwrap().map(Result::unwrap).collect();
        (rows.last().map_or(after, |r| r.0), rows.len(), begun.elapsed())
    }
}

fn open(dir: &Path, name: &str, follows: bool) -> SqliteStore {
    SqliteStore::open(dir.join(name), Options::new(Epoch::trusted("one"), NOW).following(follows)).unwrap()
}

fn plan(snapshot: &Snapshot, rows: &mut Vec<Row>, receipts: &mut Vec<Remembered>) -> Decision {
    let mut plan = Plan { head: snapshot.head, rows: std::mem::take(rows), ..Plan::default() };
    plan.receipts = std::mem::take(receipts);
    for row in &mut plan.rows {
        plan.head = plan.head.next(snapshot.now);
        row.record.stamp = plan.head;
    }
    Decision::Plan(Box::new(plan))
}

/// Ingest of new rows with their receipts and the feed of them all, each batch and page in turn with the
/// yardstick's. Times: upsert, ingest, scan, feed; and bytes on disk a row.
async fn ingest(dir: &Path, sample: &Sample) -> ([Duration; 4], usize) {
    let (mut bare, store) = (Bare::open(dir, "bare.db"), open(dir, "ingest.db", false));
    store.open_space(&space()).await.unwrap();
    let mut spent = [Duration::ZERO; 4];
    for at in (0..sample.ids.len()).step_by(BATCH) {
        let batch = at..(at + BATCH).min(sample.ids.len());
        spent[0] += bare.upsert(&sample.blobs[batch.clone()], &sample.docs[batch.clone()]);
        let named = sample.named(batch.clone());
        let mut receipts: Vec<Remembered> = sample.changes[batch.clone()]
            .iter()
            .zip(&named)
            .map(|(c, k)| remembered(c, k, Stamp(NOW.0)))
            .collect();
        let row = |(key, doc): (&Key, &Doc)| {
            let record = Record { version: 1, data: doc.clone(), ..blank(NOW) };
            Row { key: key.clone(), record, is_new: true, contribution: (0, 1) }
        };
        let mut rows: Vec<Row> = named.iter().zip(&sample.docs[batch.clone()]).map(row).collect();
        let asked = Keys {
            records: named.into_iter().collect(),
            receipts: sample.changes[batch].iter().map(|c| ChangeId::trusted(c.as_str())).collect(),
            ..Keys::default()
        };
        let decide = Box::new(move |s: &Snapshot| plan(s, &mut rows, &mut receipts));
        let begun = Instant::now();
        store.transact(&space(), NOW, asked, decide).await.unwrap();
        spent[1] += begun.elapsed();
    }
    let (mut cursor, mut seq, mut count) = (Stamp(0), 0, 0);
    loop {
        let (last, _, took) = bare.page(seq, PAGE);
        seq = last;
        spent[2] += took;
        let begun = Instant::now();
        let page = store.feed(&space(), cursor, PAGE, &[]).await.unwrap();
        spent[3] += begun.elapsed();
        count += page.rows.len();
        cursor = page.rows.last().map_or(cursor, |r| r.stamp);
        if page.complete {
            break;
        }
    }
    assert_eq!(count, sample.ids.len());
    drop(store);
    (spent, std::fs::metadata(dir.join("ingest.db")).unwrap().len() as usize / count)
}

/// A first pull: pages to the staging table, then all of it taken in. Times: stage, stage and absorb.
async fn pull(dir: &Path, sample: &Sample) -> [Duration; 3] {
    let (mut bare, store) = (Bare::open(dir, "bare-pull.db"), open(dir, "pull.db", true));
    store.open_space(&space()).await.unwrap();
    let mut upsert = Duration::ZERO;
    for at in (0..sample.ids.len()).step_by(PAGE) {
        let page = at..(at + PAGE).min(sample.ids.len());
        upsert += bare.upsert(&sample.blobs[page.clone()], &sample.docs[page]);
    }
    let named = sample.named(0..sample.ids.len());
    let feds = named.into_iter().zip(&sample.docs).zip(1..).map(|((key, doc), n)| Fed {
        key,
        version: 1,
        stamp: Stamp(n),
        state: State::Live,
        data: doc.clone(),
        owner: device("cloud"),
        author: author(),
        modified_at: NOW,
        left: false,
    });
    let feds: Vec<Fed> = feds.collect();
    let pages: Vec<Vec<Fed>> = feds.chunks(PAGE).map(<[Fed]>::to_vec).collect();
    let begun = Instant::now();
    for page in pages {
        store.stage(&space(), &epoch("cloud"), page, "t").await.unwrap();
    }
    let staged = begun.elapsed();
    let absorb: Absorb = Box::new(|snapshot, step| {
        let Step::Rows(feds) = step else { unreachable!() };
        if snapshot.keys.records.is_empty() {
            let records = feds.iter().map(|f| f.key.clone()).collect();
            return Decision::from(Keys { records, ..Keys::default() });
        }
        let upstream = |f: &Fed| Some(Upstream { epoch: epoch("cloud"), version: f.version, held: None });
        let row = |f: &Fed| {
            let record = Record { version: 1, data: f.data.clone(), upstream: upstream(f), ..blank(NOW) };
            Row { key: f.key.clone(), record, is_new: true, contribution: (0, 1) }
        };
        plan(snapshot, &mut feds.iter().map(row).collect(), &mut Vec::new())
    });
    let end = PullEnd {
        page: None,
        epoch: epoch("cloud"),
        cursor: Stamp(feds.len() as i64),
        token: "t".into(),
        audiences: None,
    };
    store.absorb(&space(), NOW, end, absorb).await.unwrap();
    [upsert, staged, begun.elapsed()]
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(100_000);
    let runs = numbers.get(1).copied().unwrap_or(5);
    let sample = sample(rows);
    let bytes = sample.docs.iter().map(|d| d.text().len()).sum::<usize>() / rows;
    println!("{rows} rows of {bytes} bytes, {BATCH} a transaction, synchronous=FULL, {runs} runs");
    println!("rates are of the best run, shares of the median one");
    let mut measured: [Vec<Duration>; 7] = Default::default();
    let mut size = 0;
    for _ in 0..runs {
        let dir = TempDir::new().unwrap();
        let (one, bytes) = ingest(dir.path(), &sample).await;
        let two = pull(dir.path(), &sample).await;
        size = bytes;
        measured.iter_mut().zip(one.into_iter().chain(two)).for_each(|(all, now)| all.push(now));
    }
    let [upsert, ingest, scan, feed, bulk, stage, pull] = measured;
    show("bare upsert", rows, &upsert, None);
    show("ingest with receipts", rows, &ingest, Some(&upsert));
    show("bare scan", rows, &scan, None);
    show("feed", rows, &feed, Some(&scan));
    show("bare upsert, 5000 each", rows, &bulk, None);
    show("stage", rows, &stage, Some(&bulk));
    show("stage and absorb", rows, &pull, Some(&bulk));
    println!("on disk: {size} bytes a row with its receipt");
}

fn show(what: &str, rows: usize, took: &[Duration], against: Option<&[Duration]>) {
    let best = took.iter().min().map_or(0.0, |t| rows as f64 / t.as_secs_f64());
    print!("{what:<24} {best:>9.0} rows/s");
    if let Some(against) = against {
        let mut shares: Vec<f64> =
            took.iter().zip(against).map(|(t, a)| 100.0 * a.as_secs_f64() / t.as_secs_f64()).collect();
        shares.sort_by(f64::total_cmp);
        let (least, most) = (shares[0], shares[shares.len() - 1]);
        print!("  {:>4.0} % of it ({least:.0} to {most:.0})", shares[shares.len() / 2]);
    }
    println!();
}
