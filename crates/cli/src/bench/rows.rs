//! The rows that every measurement uses: about 250 bytes of JSON, ids and text that do not repeat.

use ropeway_core::{
    change::{Author, Change, Op},
    doc::Fields,
    id::{ChangeId, Collection, DeviceId, RecordId},
    time::{AuthorTime, Time},
};
use serde_json::json;

/// How many people write.
const AUTHORS: usize = 40;

/// The profile of the measurements: one collection without references.
pub(super) const PROFILE: &str = r#"
name = "bench"
version = 1
[roles.admin]
write = "*"
resolve = true
[collections.note]
merge = "latest"
[collections.note.fields]
title = "text"
body = "text"
author = "text"
count = "int"
done = "bool"
created_at = "datetime"
"#;

/// The same with an audience for each author, and a role that sees what it is subscribed to.
pub(super) fn profile_with_audiences() -> String {
    let role = "[roles.referee]\nwrite = \"*\"\nsees = \"subscribed\"\nchoose = [\"by\"]\n[collections.note]\n\
        audience = { key = \"by:{author}\" }";
    PROFILE.replace("[collections.note]", role)
}

/// Everybody for whom there is an audience.
pub(super) fn authors() -> impl Iterator<Item = String> {
    (0..AUTHORS).map(|n| format!("referee-{n}"))
}

/// The `n`-th moment of a run, in 48 bits: later than all of the runs before it.
pub(super) fn moment(run: u64, n: usize) -> u64 {
    (run << 24) + n as u64
}

/// The `n`-th id: a UUID in the order of time like a UUIDv7, different in every run.
pub(super) fn id(run: u64, n: usize) -> String {
    let hash = blake3::hash(format!("{run}/{n}").as_bytes()).to_hex();
    let at = moment(run, n);
    format!("{:08x}-{:04x}-7{}-8{}-{}", at >> 16, at & 0xffff, &hash[..3], &hash[3..6], &hash[6..18])
}

/// The `n`-th row's fields.
pub(super) fn fields(run: u64, n: usize) -> Fields {
    let noise = blake3::hash(format!("row {run} {n}").as_bytes()).to_hex();
    let value = json!({
        "title": format!("Transition {n} checked"),
        "body": format!("skins stowed, poles flat, {} {}", &noise[..32], &noise[32..]),
        "author": format!("referee-{}", n % AUTHORS),
        "count": n % 1000,
        "done": n.is_multiple_of(3),
        "created_at": "2026-02-14T10:41:29Z",
    });
    value.as_object().cloned().unwrap_or_default().into_iter().collect()
}

/// The `n`-th row as a change that creates it.
pub(super) fn change(run: u64, n: usize) -> Change {
    Change {
        id: ChangeId::trusted(format!("c-{}", id(run, n))),
        collection: Collection::trusted("note"),
        record: RecordId::trusted(id(run, n)),
        op: Op::Create,
        fields: fields(run, n),
        seen: None,
        base: None,
        lost: None,
        author: Author { device: DeviceId::trusted("bench-device"), person: None },
        at: Some(AuthorTime::wall(Time(1_771_065_689_000_000 + n as i64))),
    }
}
