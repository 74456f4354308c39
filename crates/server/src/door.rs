//! Room 2, the door: a push is decoded change by change, so that a broken one does not spoil its
//! neighbours. Beyond here nobody knows which wire a change came from.

use crate::{
    Failure,
    body::{malformed, too_large},
};
use ropeway_core::{
    change::Change,
    id::{ChangeId, Collection, Epoch, Key, RecordId},
    limits,
    receipt::{Code, Detail, Reason, Receipt, Verdict},
    time::Stamp,
};
use ropeway_protocol::ProblemCode;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{collections::BTreeSet, fmt};

/// Longest batch id.
const BATCH_ID_MAX: usize = 128;
/// What stands in a receipt for a name that could not be read.
const UNKNOWN: &str = "unknown";
/// Longest sentence about a change that cannot be read: it may quote what was sent.
const SENTENCE_MAX: usize = 300;

/// A push as it came in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default)]
    batch: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(borrow)]
    changes: Capped<'a>,
    #[serde(default, borrow)]
    last: Vec<&'a RawValue>,
}

/// The changes, each still as text: no more of them than may ever be decided together, and how many
/// there were.
struct Capped<'a> {
    raw: Vec<&'a RawValue>,
    sent: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Capped<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Capped<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of changes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut raw = Vec::new();
                while raw.len() < limits::PUSH_CHANGES_MAX {
                    match seq.next_element()? {
                        Some(change) => raw.push(change),
                        None => break,
                    }
                }
                let mut sent = raw.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    sent += 1;
                }
                Ok(Capped { raw, sent })
            }
        }
        d.deserialize_seq(Read)
    }
}

/// A decoded push.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The batch's id, for the log.
    pub(crate) batch: Option<String>,
    /// The epoch for which it was made.
    pub(crate) epoch: Option<Epoch>,
    /// The changes that could be read, in order.
    pub(crate) changes: Vec<Change>,
    /// Those that are tried for the last time.
    pub(crate) last: BTreeSet<ChangeId>,
    /// Receipts for those that could not, with their places.
    refused: Vec<(usize, Receipt)>,
}

/// Decodes a push of at most `most` changes. Errors only where nothing of it can be answered: the body
/// is no push, has too many changes, or has one that cannot even be named.
pub(crate) fn open(body: &[u8], most: usize) -> Result<Opened, Failure> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|e| malformed(format!("the body is no push: {e}")))?;
    let Envelope { batch, epoch, changes: Capped { raw, sent }, last } = envelope;
    let epoch = epoch.map(|epoch| Epoch::parse(&epoch)).transpose();
    let epoch = epoch.map_err(|bad| malformed(format!("the push is for no epoch: {bad}")))?;
    // What is no id names no change.
    let last = last.into_iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let most = most.min(limits::PUSH_CHANGES_MAX);
    if sent > most {
        return Err(too_large(format!("a push may carry {most} changes, this one carries {sent}")));
    }
    if batch.as_ref().is_some_and(|batch| batch.len() > BATCH_ID_MAX) {
        return Err(malformed(format!("a batch's id has at most {BATCH_ID_MAX} bytes")));
    }
    let (mut changes, mut refused) = (Vec::with_capacity(raw.len()), Vec::new());
    for (place, raw) in raw.into_iter().enumerate() {
        match read(raw.get()) {
            Ok(change) => {
                // Spelled here, where nobody waits for the space's lock.
                change.fields.text();
                changes.push(change);
            }
            Err(why) => match refusal(raw.get(), &why) {
                Some(receipt) => refused.push((place, receipt)),
                None => {
                    return Err(malformed(format!(
                        "change number {place} cannot be read and has no id: {why}"
                    )));
                }
            },
        }
    }
    Ok(Opened { batch, epoch, changes, last, refused })
}

impl Opened {
    /// Takes the push apart: what is to be decided, and what is already refused.
    pub(crate) fn split(self) -> (Vec<Change>, Refused) {
        let decided = self.changes.len();
        (self.changes, Refused { decided, receipts: self.refused })
    }
}

/// What was refused at the door.
#[derive(Debug)]
pub(crate) struct Refused {
    decided: usize,
    receipts: Vec<(usize, Receipt)>,
}

impl Refused {
    /// Puts the receipts of the decided changes and of the refused ones in the order of the push.
    pub(crate) fn among(self, decided: Vec<Receipt>, head: Stamp) -> Result<Vec<Receipt>, Failure> {
        if decided.len() != self.decided {
            tracing::error!(decided = self.decided, answered = decided.len(), "a receipt is missing");
            return Err(Failure::new(
                ProblemCode::Internal,
                "the node lost a receipt; what it decided is kept",
            ));
        }
        let mut receipts = decided;
        // By growing place: each lands where it was in the push.
        for (place, mut receipt) in self.receipts {
            receipt.stamp = head;
            receipts.insert(place, receipt);
        }
        Ok(receipts)
    }

    /// Whether nothing was refused.
    pub(crate) fn is_empty(&self) -> bool {
        self.receipts.is_empty()
    }
}

fn read(text: &str) -> Result<Change, String> {
    // The change is an object, and its fields are an object of values.
    let (deep, most) = (depth(text), limits::JSON_DEPTH_MAX + 2);
    if deep > most {
        return Err(format!("it is nested {deep} deep, more than {most}"));
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// A receipt for a change that cannot be read, where it carries at least an id.
fn refusal(text: &str, why: &str) -> Option<Receipt> {
    #[derive(Deserialize)]
    struct Outline<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow, default)]
        collection: Option<&'a RawValue>,
        #[serde(borrow, default)]
        record: Option<&'a RawValue>,
    }
    fn named<T: for<'de> Deserialize<'de>>(raw: Option<&RawValue>) -> Option<T> {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }
    let outline: Outline<'_> = serde_json::from_str(text).ok()?;
    let change: ChangeId = named(Some(outline.id))?;
    let key = Key {
        collection: named(outline.collection).unwrap_or_else(|| Collection::trusted(UNKNOWN)),
        id: named(outline.record).unwrap_or_else(|| RecordId::trusted(UNKNOWN)),
    };
    let why: String = why.chars().take(SENTENCE_MAX).collect();
    Some(Receipt {
        change,
        verdict: Verdict::Rejected,
        key,
        version: 0,
        stamp: Stamp(0),
        record: None,
        detail: Detail::default(),
        reason: Some(Reason {
            code: Code::Invalid,
            field: None,
            text: format!("this change cannot be read: {why}; correct it and send it again"),
        }),
    })
}

/// How deep the brackets of a JSON text are nested, without recursion.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_protocol::Problem;

    const GOOD: &str = r#"{"id":"c1","collection":"incident","record":"i1","op":"create","fields":{"bib":1},"author":{"device":"pi"}}"#;

    fn opened(changes: &str) -> Opened {
        open(format!("{{\"batch\":\"b\",\"changes\":[{changes}]}}").as_bytes(), 10).unwrap()
    }

    fn refused(body: &str) -> Problem {
        open(body.as_bytes(), 2).unwrap_err().0
    }

    #[test]
    fn a_broken_change_is_answered_in_its_place() {
        let broken =
            r#"{"id":"c2","collection":"incident","record":"i2","op":"explode","author":{"device":"pi"}}"#;
        let nameless = r#"{"id":"c3","collection":7,"record":"a b"}"#;
        let (changes, refused) = opened(&[broken, GOOD, nameless].join(",")).split();
        assert_eq!(changes.len(), 1);
        let decided = Receipt { stamp: Stamp(9), ..refusal(GOOD, "").unwrap() };
        let all = refused.among(vec![decided], Stamp(9)).unwrap();
        let ids: Vec<&str> = all.iter().map(|r| r.change.as_str()).collect();
        assert_eq!(ids, ["c2", "c1", "c3"]);
        assert!(all.iter().all(|r| r.verdict == Verdict::Rejected && r.stamp == Stamp(9)));
        assert_eq!(all[0].key.to_string(), "incident/i2");
        assert_eq!(all[2].key.to_string(), "unknown/unknown");
        let reason = all[0].reason.as_ref().unwrap();
        assert!(reason.code == Code::Invalid && reason.text.contains("explode"), "{}", reason.text);
    }

    #[test]
    fn what_is_no_id_is_nobodys_last_try() {
        let body = format!(r#"{{"changes":[{GOOD}],"last":["c1","",7,null,{{"id":"c1"}},"no id"]}}"#);
        let opened = open(body.as_bytes(), 10).unwrap();
        assert_eq!((opened.changes.len(), opened.last.len()), (1, 1));
        assert!(opened.last.contains(&opened.changes[0].id));
    }

    #[test]
    fn deep_json_is_refused_without_recursion() {
        for levels in [40, 200, 100_000, 1_000_000] {
            let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let change = GOOD.replace("\"bib\":1", &format!("\"bib\":{deep}"));
            let opened = opened(&change);
            assert!(opened.changes.is_empty() && opened.refused.len() == 1, "{levels}");
            let change = format!("{{\"id\":{deep}}}");
            assert!(open(format!("{{\"changes\":[{change}]}}").as_bytes(), 10).is_err());
        }
        let most = limits::JSON_DEPTH_MAX;
        let deep = format!("{}1{}", "[".repeat(most), "]".repeat(most));
        assert_eq!(opened(&GOOD.replace("\"bib\":1", &format!("\"bib\":{deep}"))).changes.len(), 1);
        assert_eq!(depth(r#"{"a[[[":"\"[[[","b":[]}"#), 2);
    }

    #[test]
    fn what_is_no_push_is_refused_as_a_whole() {
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            "{\"changes\":1}",
            "{\"changes\":[],\"more\":1}",
            "\u{feff}{\"changes\":[]}",
        ] {
            assert_eq!(refused(bad).code, ProblemCode::Malformed, "{bad}");
        }
        let problem = refused(&format!("{{\"changes\":[{GOOD},{{\"record\":\"x\"}}]}}"));
        assert!(problem.detail.contains("number 1"), "{}", problem.detail);
        let over_long = GOOD.replace("c1", &"c".repeat(65));
        assert_eq!(refused(&format!("{{\"changes\":[{over_long}]}}")).code, ProblemCode::Malformed);
        let problem = refused(&format!("{{\"batch\":\"{}\",\"changes\":[]}}", "b".repeat(200)));
        assert_eq!(problem.code, ProblemCode::Malformed);
    }

    #[test]
    fn a_batch_over_the_limit_is_counted_and_refused() {
        let problem = refused(&format!("{{\"changes\":[{GOOD},{GOOD},{GOOD}]}}"));
        assert_eq!(problem.code, ProblemCode::TooLarge);
        assert!(problem.detail.contains("carries 3"), "{}", problem.detail);
        let many = vec!["1"; 500_000].join(",");
        assert!(refused(&format!("{{\"changes\":[{many}]}}")).detail.contains("500000"));
    }

    #[test]
    fn hostile_values_are_refused_one_by_one() {
        for bad in ["1e999999", "\"\\ud800\"", "{\"a\":"] {
            let text =
                format!("{{\"changes\":[{},{GOOD}]}}", GOOD.replace("\"bib\":1", &format!("\"bib\":{bad}")));
            match open(text.as_bytes(), 10) {
                Ok(opened) => assert_eq!((opened.changes.len(), opened.refused.len()), (1, 1), "{bad}"),
                Err(failure) => assert_eq!(failure.0.code, ProblemCode::Malformed, "{bad}"),
            }
        }
        let twice = GOOD.replace("\"op\"", "\"record\":\"i9\",\"op\"");
        assert_eq!(
            open(format!("{{\"changes\":[{twice}]}}").as_bytes(), 10).unwrap_err().0.code,
            ProblemCode::Malformed
        );
    }
}
