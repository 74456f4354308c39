//! The documented fingerprint (ISMF-080, ISMF-081): shown beside an incident for people who compare. What
//! decides is the sliding window of the profile (CT-01); buckets play no part in it.

use aws_lc_rs::digest::{SHA256, digest};
use ropeway_core::{doc::Fields, time::Time};
use serde_json::{Value, json};
use std::fmt::Write;

/// Width of a bucket, in microseconds.
const BUCKET: i64 = 30_000_000;

/// Race, place, bib and bucket, joined with `|`, and their SHA-256. What is absent is an empty text, as in the
/// documents.
pub(crate) fn of(incident: &Fields) -> Value {
    let text = |name: &str| match incident.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let at = incident.get("created_at").and_then(Value::as_str).and_then(Time::parse);
    let bucket = at.map(|at| Time(at.0.div_euclid(BUCKET) * BUCKET).to_string());
    let parts = [text("race"), text("race_location"), text("bib_number"), bucket.clone().unwrap_or_default()];
    json!({ "sha256": sha256(parts.join("|").as_bytes()), "bucket": bucket })
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(created_at: &str) -> Value {
        let incident = json!({
            "race": "race-1", "race_location": "loc-1", "bib_number": 42, "created_at": created_at,
        });
        of(&serde_json::from_value(incident).unwrap_or_default())
    }

    /// ISMF-080, ISMF-081: the digest can be computed elsewhere
    /// (`printf 'race-1|loc-1|42|2026-02-15T10:32:00Z' | sha256sum`), and its buckets are those of the documents.
    #[test]
    fn the_documented_digest_and_its_bucket() {
        let first = at("2026-02-15T10:32:15Z");
        assert_eq!(first["bucket"], "2026-02-15T10:32:00Z");
        assert_eq!(first["sha256"], "f291976899612f80845009aa87b6b2a8651c82c4c7f322b958635122f434ad1e");
        assert_eq!(first, at("2026-02-15T11:32:29.9+01:00"));
        assert_ne!(first["sha256"], at("2026-02-15T10:32:30Z")["sha256"]);
        assert_eq!(of(&Fields::new())["bucket"], Value::Null);
    }
}
