//! Room 3d, what is compared: the fingerprint of a record and texts as a person reads them (DESIGN §6).

use super::{Kind, Rules, SameField, normalise};
use crate::{
    doc::{Fields, write_value},
    time::Time,
};
use serde_json::Value;
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

/// The text by which two texts are compared where a fingerprint asks: Unicode NFC, without case, each
/// run of spaces one space, none at the ends. Asked again, it answers the same.
pub fn same_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.nfc().collect::<String>().split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    // Through the capitals, so that `ß` is `ss` and every sigma is one.
    out.to_uppercase().to_lowercase().nfc().collect()
}

/// The fingerprint of a record's `data` under the collection's rule `same`, and the time in
/// microseconds that its window is laid around (0 where the rule has no window). Two records are
/// candidates when the texts are equal and the times are within the window (CT-01).
///
/// References are taken as they stand in `data`: a caller who follows joins puts the survivor's ids
/// there first.
///
/// `None` when there is no such rule, when a field that is not optional is absent, null or a blank
/// text (CT-03), or when the window's time is absent or no instant (TR-02).
pub fn print_of(rules: &Rules, data: &Fields) -> Option<(String, i64)> {
    let same = rules.same.as_ref()?;
    let parts: Option<Vec<Value>> = same.on.iter().map(|field| part(rules, field, data)).collect();
    let at = match &same.within {
        Some(within) => Time::parse(data.get(&within.field)?.as_str()?)?.0,
        None => 0,
    };
    let mut print = String::new();
    write_value(&Value::Array(parts?), &mut print);
    Some((print, at))
}

/// One field's part: null where an optional one is absent, `None` where that means no match at all.
fn part(rules: &Rules, field: &SameField, data: &Fields) -> Option<Value> {
    let kind = rules.fields.get(&field.name).map(|f| &f.kind);
    let read = match (data.get(&field.name), kind) {
        (None | Some(Value::Null), _) => None,
        (Some(Value::String(text)), Some(Kind::Text { .. })) => {
            Some(same_text(text)).filter(|t| !t.is_empty()).map(Value::String)
        }
        (Some(value), Some(kind)) => {
            kind.normalise(value).ok().map(Cow::into_owned).or_else(|| Some(value.clone()))
        }
        (Some(value), None) => {
            normalise::plain(value).ok().map(Cow::into_owned).or_else(|| Some(value.clone()))
        }
    };
    read.or_else(|| field.optional.then_some(Value::Null))
}
