//! A profile's text: positions in it, the mistakes found in it, and its tables read key by key.

use std::{fmt, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A piece of the text, in bytes.
pub(super) type Span = Range<usize>;
/// A value with the place where it is written.
pub(super) type At<T> = Spanned<T>;

/// One mistake in a profile. Prints as `file:line:column: text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what is expected.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

impl std::error::Error for Mistake {}

/// The mistakes found so far, in whatever order.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<(usize, String)>,
}

impl Mistakes {
    /// Notes a mistake at the beginning of `span`.
    pub(super) fn at(&mut self, span: &Span, text: impl Into<String>) {
        self.found.push((span.start, text.into()));
    }

    /// All mistakes in the order of the text, each once; empty when there are none.
    pub(super) fn report(mut self, source: &str, file: &str) -> Vec<Mistake> {
        self.found.sort();
        self.found.dedup();
        let place = |(offset, text)| {
            let (line, column) = position(source, offset);
            Mistake { file: file.to_owned(), line, column, text }
        };
        self.found.into_iter().map(place).collect()
    }
}

fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A table whose keys are fixed by the language.
pub(super) struct Table<'t> {
    what: &'static str,
    /// Where the table is.
    pub(super) span: Span,
    entries: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    /// Reads `value` as a table; notes every key that is not one of `keys`.
    pub(super) fn read(
        what: &'static str,
        value: &'t At<DeValue<'t>>,
        keys: &[&str],
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let Some(entries) = value.get_ref().as_table() else {
            mistakes.at(&value.span(), format!("{what} must be a table"));
            return None;
        };
        Some(Self::of(what, value.span(), entries, keys, mistakes))
    }

    /// The table `entries`; notes every key that is not one of `keys`.
    pub(super) fn of(
        what: &'static str,
        span: Span,
        entries: &'t DeTable<'t>,
        keys: &[&str],
        mistakes: &mut Mistakes,
    ) -> Self {
        for key in entries.keys() {
            if !keys.contains(&&**key.get_ref()) {
                mistakes.at(&key.span(), unknown(&format!("key of {what}"), key.get_ref(), keys));
            }
        }
        Self { what, span, entries }
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&'t At<DeValue<'t>>> {
        self.entries.iter().find(|(k, _)| **k.get_ref() == *key).map(|(_, v)| v)
    }

    /// The value of a key that must be there.
    pub(super) fn must(&self, key: &str, mistakes: &mut Mistakes) -> Option<&'t At<DeValue<'t>>> {
        let found = self.get(key);
        if found.is_none() {
            mistakes.at(&self.span, format!("{} needs the key `{key}`", self.what));
        }
        found
    }

    /// The text at `key`, when there is one.
    pub(super) fn text(&self, key: &str, mistakes: &mut Mistakes) -> Option<At<String>> {
        text(&format!("`{key}`"), self.get(key)?, mistakes)
    }

    /// The flag at `key`, false when it is absent.
    pub(super) fn flag(&self, key: &str, mistakes: &mut Mistakes) -> bool {
        let Some(value) = self.get(key) else { return false };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            mistakes.at(&value.span(), format!("`{key}` must be true or false"));
        }
        flag.unwrap_or(false)
    }

    /// The whole number at `key`, when there is one.
    pub(super) fn whole(&self, key: &str, mistakes: &mut Mistakes) -> Option<At<i64>> {
        let value = self.get(key)?;
        let whole = integer(value.get_ref());
        if whole.is_none() {
            mistakes.at(&value.span(), format!("`{key}` must be a whole number"));
        }
        Some(At::new(value.span(), whole?))
    }

    /// The list of texts at `key`, when there is one.
    pub(super) fn texts(&self, key: &str, mistakes: &mut Mistakes) -> Option<At<Vec<At<String>>>> {
        let value = self.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            mistakes.at(&value.span(), format!("`{key}` must be a list of texts"));
            return None;
        };
        let texts = items.iter().filter_map(|item| text(&format!("each of `{key}`"), item, mistakes));
        Some(At::new(value.span(), texts.collect()))
    }

    /// One of some words at `key`, when there is one.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        mistakes: &mut Mistakes,
    ) -> Option<At<T>> {
        let word = self.text(key, mistakes)?;
        let chosen = words.iter().find(|(w, _)| w == word.get_ref()).map(|(_, t)| *t);
        if chosen.is_none() {
            let valid: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            mistakes.at(&word.span(), unknown(&format!("value of `{key}`"), word.get_ref(), &valid));
        }
        Some(At::new(word.span(), chosen?))
    }
}

/// The entries of a table whose keys are names, in the order of the text.
pub(super) fn named<'t>(
    what: &str,
    value: &'t At<DeValue<'t>>,
    mistakes: &mut Mistakes,
) -> Vec<(At<String>, &'t At<DeValue<'t>>)> {
    let Some(entries) = value.get_ref().as_table() else {
        mistakes.at(&value.span(), format!("{what} must be a table"));
        return Vec::new();
    };
    let name = |key: &At<std::borrow::Cow<'_, str>>| At::new(key.span(), key.get_ref().to_string());
    let mut named: Vec<_> = entries.iter().map(|(key, value)| (name(key), value)).collect();
    named.sort_by_key(|(key, _)| key.span().start);
    named
}

/// `value` as a text.
pub(super) fn text(what: &str, value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<At<String>> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        mistakes.at(&value.span(), format!("{what} must be a text"));
    }
    Some(At::new(value.span(), text?.to_owned()))
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok())
}

/// `value` as JSON: a TOML date or time becomes a text. `None` for a number that JSON has not got.
pub(super) fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value {
        DeValue::String(text) => Json::String(text.to_string()),
        DeValue::Integer(_) => integer(value)?.into(),
        DeValue::Float(f) => Json::Number(f.as_str().parse().ok().and_then(serde_json::Number::from_f64)?),
        DeValue::Boolean(b) => Json::Bool(*b),
        DeValue::Datetime(t) => Json::String(t.to_string()),
        DeValue::Array(items) => Json::Array(items.iter().map(|i| json(i.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(entries) => {
            let entry = |(k, v): (&At<std::borrow::Cow<'_, str>>, &At<DeValue<'_>>)| {
                Some((k.get_ref().to_string(), json(v.get_ref())?))
            };
            Json::Object(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

/// The sentence for a word that is not one of `valid`: it names the nearest, or all of them.
pub(super) fn unknown(what: &str, word: &str, valid: &[&str]) -> String {
    match nearest(word, valid) {
        Some(near) => format!("`{word}` is no {what}; did you mean `{near}`?"),
        None if valid.is_empty() => format!("`{word}` is no {what}; there is none"),
        None => format!("`{word}` is no {what}; there is {}", listed(valid)),
    }
}

/// `a`, `b` and `c`.
fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The word of `valid` that somebody who wrote `word` most likely meant.
fn nearest<'v>(word: &str, valid: &[&'v str]) -> Option<&'v str> {
    let limit = 1 + word.chars().count() / 4;
    let near = valid.iter().map(|v| (distance(word, v), *v)).min();
    near.filter(|(d, _)| *d <= limit).map(|(_, v)| v)
}

/// Letters to insert, drop, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
