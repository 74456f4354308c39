//! One record's document: its fields and their canonical JSON text, each made from the other at need.

mod fields;

pub use fields::Fields;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

/// A record's data. Cheap to clone; the text is canonical: keys sorted at every depth, no blanks, so
/// that equal data is equal bytes on every replica and a digest can be taken over the text.
#[derive(Clone)]
pub struct Doc {
    text: Arc<str>,
    fields: OnceLock<Fields>,
}

impl Doc {
    /// The document of `fields`, which the caller has normalised.
    pub fn of(fields: Fields) -> Self {
        Self { text: Arc::clone(fields.text()), fields: OnceLock::from(fields) }
    }

    /// Takes canonical text as the database or an upstream of this engine holds it; parsed only when a
    /// decision needs the fields. Errors when it is not a JSON object.
    pub fn read(text: impl Into<Arc<str>>) -> Result<Self, serde_json::Error> {
        let doc = Self::stored(text);
        doc.parsed()?;
        Ok(doc)
    }

    /// Takes text that is known to be a JSON object without parsing it again.
    pub fn stored(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), fields: OnceLock::new() }
    }

    /// The canonical JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fields. A text that is no JSON object reads as no fields; `read` refuses such a text.
    pub fn fields(&self) -> &Fields {
        static NONE: OnceLock<Fields> = OnceLock::new();
        self.parsed().unwrap_or_else(|_| NONE.get_or_init(Fields::new))
    }

    /// The value of one field, `None` when absent.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields().get(field)
    }

    /// The text of one field, when it holds a text.
    pub fn str(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(Value::as_str)
    }

    fn parsed(&self) -> Result<&Fields, serde_json::Error> {
        if self.fields.get().is_none() {
            let fields: Fields = serde_json::from_str(&self.text)?;
            let _ = self.fields.set(fields);
        }
        self.fields.get().ok_or_else(|| serde_json::Error::custom("no fields"))
    }
}

impl Default for Doc {
    fn default() -> Self {
        Self::of(Fields::new())
    }
}

impl PartialEq for Doc {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Doc {}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Doc {
    /// Reads a JSON object and makes it canonical.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::of(Fields::deserialize(d)?))
    }
}

/// Appends the canonical JSON of `value`: keys sorted at every depth, no blanks.
pub fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            // The map is sorted unless a dependency switched on serde_json's insertion order.
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            write_object(sorted.into_iter(), out);
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        scalar => {
            use fmt::Write;
            let _ = write!(out, "{scalar}");
        }
    }
}

fn write_object<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in entries.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write_value(value, out);
    }
    out.push('}');
}

fn write_text(text: &str, out: &mut String) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        use fmt::Write;
        let _ = write!(out, "{}", Value::String(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_canonical_at_every_depth() {
        let doc: Doc =
            serde_json::from_str(r#"{ "b": {"z":1,"a":[{"y":2,"x":"é\"\n"}]}, "a": null }"#).unwrap();
        assert_eq!(doc.text(), r#"{"a":null,"b":{"a":[{"x":"é\"\n","y":2}],"z":1}}"#);
        assert_eq!(Doc::read(doc.text()).unwrap().fields(), doc.fields());
    }

    #[test]
    fn what_is_no_object_is_no_document() {
        for bad in ["[]", "1", "{", "", "{\"a\":1}x"] {
            assert!(Doc::read(bad).is_err(), "{bad}");
        }
    }
}
