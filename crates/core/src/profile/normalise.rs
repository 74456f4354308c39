//! Room 3b, the values: one canonical spelling for each typed value, made where it enters (ADR 0007).

use super::{Field, Kind, Rule, Rules};
use crate::{
    doc::{Fields, write_value},
    id::{DeviceId, RecordId},
    limits,
    time::Time,
};
use serde_json::{Map, Number, Value};
use std::{borrow::Cow, fmt::Write};

/// Longest name of a field that the profile does not know, in bytes.
pub const UNKNOWN_NAME_MAX: usize = 128;
/// Most characters of a refused value that an error repeats.
const ECHO_MAX: usize = 60;
/// Below this every whole number is exact as a binary fraction: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Most significant digits of a decimal text that a binary fraction keeps.
const DIGITS_MAX: usize = 15;

impl Kind {
    /// The canonical spelling of `value` under this type (ADR 0007, TR-20): asked again, it answers the
    /// same, and what is spelled so already is borrowed. Null is the absence of a value and passes every type;
    /// whether a field may be null is a question to its record ([`admit`]).
    ///
    /// # Errors
    /// A sentence for people, which says what was expected and repeats at most 60 characters of the value.
    pub fn normalise<'v>(&self, value: &'v Value) -> Result<Cow<'v, Value>, String> {
        let as_it_is = Ok(Cow::Borrowed(value));
        match self {
            _ if value.is_null() => as_it_is,
            Self::Text { max } => text(value, *max).and(as_it_is),
            Self::Int { min, max } => int(value, *min, *max),
            Self::Number => number(value),
            Self::Bool if value.is_boolean() => as_it_is,
            Self::Bool => Err(expected("true or false", value)),
            Self::Date => date(value).and(as_it_is),
            Self::DateTime => instant(value),
            Self::Enum(words) => one_of(value, words).and(as_it_is),
            Self::Ref => reference(value),
            Self::Object if value.is_object() => plain(value),
            Self::Object => Err(expected("an object", value)),
            Self::Map if value.is_object() => plain(value),
            Self::Map => Err(expected("an object, read as a map,", value)),
            Self::List if value.is_array() => plain(value),
            Self::List => Err(expected("a list", value)),
            Self::Counter => counter(value),
            Self::Json => plain(value),
        }
    }
}

/// Normalises the fields that a change names: declared ones by their type, unknown ones by [`plain`]
/// (GP-04: they are kept). A list under the rule `union` is a set: sorted, each value once. Null is
/// allowed for a field that is not required.
///
/// Whether a new record has its required fields, whether its author may write, and the size of the
/// whole record are not asked here.
///
/// # Errors
/// The field and a sentence for people. The field is empty where the number of fields is the mistake.
pub fn admit(rules: &Rules, mut fields: Fields) -> Result<Fields, (String, String)> {
    if fields.len() > limits::FIELDS_MAX {
        let why = format!("at most {} fields are allowed, not {}", limits::FIELDS_MAX, fields.len());
        return Err((String::new(), why));
    }
    let mut respelled = Vec::new();
    for (name, value) in &fields {
        let normal = match rules.fields.get(name) {
            Some(field) => known(field, rules.group_of(name).rule, value),
            None => unknown_name(name).and_then(|()| plain(value)),
        };
        if let Cow::Owned(normal) = normal.map_err(|why| (short(name), why))? {
            respelled.push((name.clone(), normal));
        }
    }
    if !respelled.is_empty() {
        fields.extend(respelled);
    }
    Ok(fields)
}

fn known<'v>(field: &Field, rule: &Rule, value: &'v Value) -> Result<Cow<'v, Value>, String> {
    if value.is_null() && field.required {
        return Err("a value is required here, not null".into());
    }
    let normal = field.kind.normalise(value)?;
    match &*normal {
        Value::Array(items) if *rule == Rule::Union => Ok(spelled(value, Value::Array(set(items.clone())))),
        _ => Ok(normal),
    }
}

/// The items of a set in the one order that the rule `union` writes them, each once.
pub fn set(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_cached_key(|item| {
        let mut text = String::new();
        write_value(item, &mut text);
        text
    });
    items.dedup();
    items
}

fn unknown_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of a field may not be empty".into());
    }
    if name.len() > UNKNOWN_NAME_MAX {
        return Err(format!(
            "the name of a field may have at most {UNKNOWN_NAME_MAX} bytes, not {}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("the name of a field may not hold control characters".into());
    }
    Ok(())
}

/// The canonical spelling of a value whose type nobody here knows: numbers by value, at every depth
/// (`1.0` is `1`).
///
/// # Errors
/// The value is nested deeper than [`limits::JSON_DEPTH_MAX`], or a text in it holds the character NUL,
/// which no database keeps.
pub fn plain(value: &Value) -> Result<Cow<'_, Value>, String> {
    if is_plain(value, 0)? {
        return Ok(Cow::Borrowed(value));
    }
    let mut plain = value.clone();
    make_plain(&mut plain);
    Ok(Cow::Owned(plain))
}

fn is_plain(value: &Value, depth: usize) -> Result<bool, String> {
    if depth >= limits::JSON_DEPTH_MAX && matches!(value, Value::Array(_) | Value::Object(_)) {
        return Err(format!("lists and objects may be nested {} deep at most", limits::JSON_DEPTH_MAX));
    }
    match value {
        Value::Number(n) => Ok(plain_number(n) == *n),
        Value::String(text) => no_nul(text).map(|()| true),
        Value::Array(items) => items.iter().try_fold(true, |all, item| Ok(is_plain(item, depth + 1)? && all)),
        Value::Object(map) => map.iter().try_fold(true, |all, (key, item)| {
            no_nul(key)?;
            Ok(is_plain(item, depth + 1)? && all)
        }),
        Value::Null | Value::Bool(_) => Ok(true),
    }
}

fn make_plain(value: &mut Value) {
    match value {
        Value::Number(n) => *n = plain_number(n),
        Value::Array(items) => items.iter_mut().for_each(make_plain),
        Value::Object(map) => map.values_mut().for_each(make_plain),
        Value::String(_) | Value::Null | Value::Bool(_) => {}
    }
}

/// `given` itself, where it is spelled as `normal` already.
fn spelled(given: &Value, normal: Value) -> Cow<'_, Value> {
    if *given == normal { Cow::Borrowed(given) } else { Cow::Owned(normal) }
}

fn plain_number(n: &Number) -> Number {
    if let Some(whole) = n.as_f64().filter(|_| n.is_f64()).and_then(whole) {
        return whole.into();
    }
    // A whole number beyond an i64 has one spelling too, that of a fraction.
    let beyond = n.as_i64().is_none() && n.is_u64();
    n.as_f64().filter(|_| beyond).and_then(Number::from_f64).unwrap_or_else(|| n.clone())
}

/// A fraction that is a whole number, as long as it is exact.
fn whole(x: f64) -> Option<i64> {
    // The cast is exact below 2^53.
    (x.fract() == 0.0 && x.abs() < EXACT).then_some(x as i64)
}

fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("a text may not hold the character NUL".into());
    }
    Ok(())
}

fn text(value: &Value, max: usize) -> Result<(), String> {
    let Value::String(text) = value else {
        return Err(expected("a text", value));
    };
    no_nul(text)?;
    // Bytes are an upper bound that needs no counting.
    if text.len() > max {
        let long = text.chars().count();
        if long > max {
            return Err(format!("a text of at most {max} characters is expected, not of {long}"));
        }
    }
    Ok(())
}

fn int(value: &Value, min: i64, max: i64) -> Result<Cow<'_, Value>, String> {
    let number = match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(text) => digits(text).then(|| text.parse().ok()).flatten(),
        _ => None,
    };
    match number {
        Some(n) if (min..=max).contains(&n) => Ok(spelled(value, n.into())),
        _ => {
            let bounds = match (min, max) {
                (i64::MIN, i64::MAX) => String::new(),
                (min, i64::MAX) => format!(" of at least {min}"),
                (i64::MIN, max) => format!(" of at most {max}"),
                (min, max) => format!(" from {min} to {max}"),
            };
            Err(expected(&format!("a whole number{bounds}"), value))
        }
    }
}

/// Whether `text` is an optional minus and digits only.
fn digits(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn number(value: &Value) -> Result<Cow<'_, Value>, String> {
    match value {
        Value::Number(n) => Ok(spelled(value, Value::Number(plain_number(n)))),
        Value::String(text) => match decimal(text) {
            Some(n) => Ok(Cow::Owned(Value::Number(n))),
            None => Err(expected(&format!("a number of at most {DIGITS_MAX} digits"), value)),
        },
        _ => Err(expected("a number", value)),
    }
}

/// A decimal written as a text (`"18.50"`), unless a binary fraction would alter it.
fn decimal(text: &str) -> Option<Number> {
    if digits(text) {
        return text.parse::<i64>().ok().map(Number::from);
    }
    let (whole, fraction) = text.split_once('.')?;
    let plain = digits(whole) && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    let kept = text.trim_end_matches('0').bytes().filter(u8::is_ascii_digit).count();
    if !plain || kept > DIGITS_MAX {
        return None;
    }
    text.parse().ok().and_then(Number::from_f64).map(|n| plain_number(&n))
}

fn date(value: &Value) -> Result<(), String> {
    let shown = value.as_str().filter(|t| t.len() == 10).and_then(|t| t.parse::<jiff::civil::Date>().ok());
    // Neither database reads a year 0.
    match shown.filter(|d| d.year() >= 1) {
        Some(date) if value.as_str() == Some(&date.to_string()) => Ok(()),
        _ => Err(expected("a date, written YYYY-MM-DD,", value)),
    }
}

fn instant(value: &Value) -> Result<Cow<'_, Value>, String> {
    /// 0001-01-02T00:00:00Z: the day after the first, so that no zone reads it in the year 0.
    const FIRST: Time = Time(-62_135_510_400_000_000);
    match value.as_str().and_then(Time::parse).filter(|t| *t >= FIRST) {
        Some(time) => Ok(spelled(value, Value::String(time.to_string()))),
        None => Err(expected("an instant with its offset, such as 2026-02-14T10:41:29Z,", value)),
    }
}

fn one_of(value: &Value, words: &[String]) -> Result<(), String> {
    match value.as_str() {
        Some(text) if words.iter().any(|w| w == text) => Ok(()),
        _ => Err(expected(&format!("one of {}", words.join(", ")), value)),
    }
}

fn reference(value: &Value) -> Result<Cow<'_, Value>, String> {
    let Some(text) = value.as_str() else {
        return Err(expected("a record's id", value));
    };
    match RecordId::parse(text) {
        Ok(id) if id.as_str() == text => Ok(Cow::Borrowed(value)),
        Ok(id) => Ok(Cow::Owned(Value::String(id.as_str().to_owned()))),
        Err(why) => Err(format!("a record's id is expected, but the {why}")),
    }
}

fn counter(value: &Value) -> Result<Cow<'_, Value>, String> {
    let Value::Object(totals) = value else {
        return Err(expected("an object of totals by device", value));
    };
    let mut normal = Map::new();
    for (device, total) in totals {
        let device = DeviceId::parse(device).map_err(|why| format!("in a counter, the {why}"))?;
        let Value::Number(total) = total else {
            return Err(expected("a number as each device's total", total));
        };
        normal.insert(device.as_str().to_owned(), Value::Number(plain_number(total)));
    }
    Ok(spelled(value, Value::Object(normal)))
}

/// `WHAT is expected, not VALUE`, with the value cut short.
fn expected(what: &str, value: &Value) -> String {
    let mut out = format!("{what} is expected, not ");
    match value {
        Value::String(text) => {
            let _ = write!(out, "{:?}", short(text));
        }
        Value::Array(_) => out.push_str("a list"),
        Value::Object(_) => out.push_str("an object"),
        scalar => out.push_str(&short(&scalar.to_string())),
    }
    out
}

/// At most [`ECHO_MAX`] characters of `text`.
fn short(text: &str) -> String {
    match text.char_indices().nth(ECHO_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(ECHO_MAX - 1).chain(['…']).collect(),
    }
}
