//! The values of a record or a change by field, shared until somebody alters them.

use super::write_object;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock},
};

/// Field name → value. An absent field is not a null one (TR-20).
///
/// A change is decided, remembered, stored and relayed with the same values: a copy of them costs nothing, and
/// whoever alters a copy has one of their own from then on.
#[derive(Clone, Default)]
pub struct Fields(Arc<Shared>);

#[derive(Clone, Default)]
struct Shared {
    values: BTreeMap<String, Value>,
    /// Their canonical text, once somebody asked for it: a change is hashed and stored by it.
    text: OnceLock<Arc<str>>,
}

impl Fields {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.values.is_empty()
    }

    /// Their canonical JSON text: keys sorted at every depth, no blanks.
    pub fn text(&self) -> &Arc<str> {
        self.0.text.get_or_init(|| {
            let mut text = String::with_capacity(self.len() * 24 + 2);
            write_object(self.iter(), &mut text);
            text.into()
        })
    }

    fn altered(&mut self) -> &mut BTreeMap<String, Value> {
        let shared = Arc::make_mut(&mut self.0);
        shared.text = OnceLock::new();
        &mut shared.values
    }
}

impl Deref for Fields {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0.values
    }
}

impl DerefMut for Fields {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.altered()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.values == other.0.values
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.values.fmt(f)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.values.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(d).map(Self::from)
    }
}

impl From<BTreeMap<String, Value>> for Fields {
    fn from(values: BTreeMap<String, Value>) -> Self {
        Self(Arc::new(Shared { values, text: OnceLock::new() }))
    }
}

impl FromIterator<(String, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        BTreeMap::from_iter(entries).into()
    }
}

impl<const N: usize> From<[(String, Value); N]> for Fields {
    fn from(entries: [(String, Value); N]) -> Self {
        BTreeMap::from(entries).into()
    }
}

impl IntoIterator for Fields {
    type Item = (String, Value);
    type IntoIter = btree_map::IntoIter<String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).values.into_iter()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a String, &'a Value);
    type IntoIter = btree_map::Iter<'a, String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.values.iter()
    }
}

impl<'a> IntoIterator for &'a mut Fields {
    type Item = (&'a String, &'a mut Value);
    type IntoIter = btree_map::IterMut<'a, String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.altered().iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_copy_has_its_own_values_and_text() {
        let first = Fields::from([("b".to_owned(), Value::from(1)), ("a".to_owned(), Value::Null)]);
        assert_eq!(&**first.text(), r#"{"a":null,"b":1}"#);
        let mut copy = first.clone();
        copy.insert("b".to_owned(), Value::from(2));
        assert_eq!((&**copy.text(), &**first.text()), (r#"{"a":null,"b":2}"#, r#"{"a":null,"b":1}"#));
        for value in (&mut copy).into_iter().map(|(_, value)| value) {
            *value = Value::from(3);
        }
        assert_eq!(&**copy.text(), r#"{"a":3,"b":3}"#);
        assert_ne!(copy, first);
    }
}
