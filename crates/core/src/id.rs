//! Names and identities: validated once at the door, cheap to clone ever after.

use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// Why a string is not an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId {
    what: &'static str,
    why: String,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.why)
    }
}

impl std::error::Error for BadId {}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and normalises `text`. Errors name the rule that was broken.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                let check: fn(&str) -> Result<Arc<str>, String> = $check;
                check(text).map(Self).map_err(|why| BadId { what: $what, why })
            }
            /// Takes a string that this program itself stored or generated, unchecked.
            pub fn trusted(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }
            /// The identity as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

identity!(
    /// Unit of isolation, ordering and authorisation: a tenant; for IronFlow, one user.
    SpaceId, "space", |text| if text == SHARED { Ok(text.into()) } else { name(text) }
);

/// The space of what an app shares among all its spaces. No tenant can have this name.
const SHARED: &str = "@shared";

impl SpaceId {
    /// The space of what an app shares among all its spaces: nobody is registered in it.
    pub fn shared() -> Self {
        Self::trusted(SHARED)
    }
}

identity!(
    /// An entity type of the profile, or the built-in `conflict`.
    Collection, "collection", |text| name(text)
);
identity!(
    /// A record's id: an opaque string of 1–128 `[A-Za-z0-9._:-]`. Valid UUIDs are lower-cased, because
    /// they compare without case (CT-08).
    RecordId, "record id", |text| opaque(text, limits::RECORD_ID_MAX)
);
identity!(
    /// The idempotency key of one change, chosen by its author.
    ChangeId, "change id", |text| opaque(text, limits::CHANGE_ID_MAX)
);
identity!(
    /// The device that made a change. A cloud node is a device too: its own desk writes under its id.
    DeviceId, "device", |text| opaque(text, limits::RECORD_ID_MAX)
);
identity!(
    /// Generation of a node's data.
    Epoch, "epoch", |text| opaque(text, limits::RECORD_ID_MAX)
);

/// The built-in collection that holds conflicts.
pub const CONFLICT: &str = "conflict";

/// A record's full name within its space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The collection.
    pub collection: Collection,
    /// The record's id within it.
    pub id: RecordId,
}

impl Key {
    /// Pairs a collection with an id.
    pub fn new(collection: &Collection, id: &RecordId) -> Self {
        Self { collection: collection.clone(), id: id.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

/// Whether `text` may name a collection, a field, a role or a space: it may end up quoted in SQL.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= limits::NAME_MAX
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn name(text: &str) -> Result<Arc<str>, String> {
    if is_name(text) {
        Ok(text.into())
    } else {
        Err(format!("must be 1–{} characters of a–z, 0–9 and _, beginning with a letter", limits::NAME_MAX))
    }
}

fn opaque(text: &str, max: usize) -> Result<Arc<str>, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if text.is_empty() || text.len() > max || !text.bytes().all(allowed) {
        return Err(format!("must be 1–{max} characters of A–Z, a–z, 0–9 . _ : -"));
    }
    let may_fold = text.len() == 36 && text.bytes().any(|b| b.is_ascii_uppercase());
    if may_fold && uuid::Uuid::try_parse(text).is_ok() {
        return Ok(text.to_ascii_lowercase().into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_documented_samples_and_fold_uuid_case() {
        for sample in ["incident-123", "device-pi-start-line", "comp-uuid-123", "a", "A.b_c:d-e"] {
            assert_eq!(RecordId::parse(sample).unwrap().as_str(), sample);
        }
        let upper = "01984F10-0000-7000-8000-000000000127";
        assert_eq!(RecordId::parse(upper).unwrap().as_str(), upper.to_ascii_lowercase());
    }

    #[test]
    fn ids_refuse_what_could_hurt() {
        for bad in ["", " ", "a b", "a/b", "a\n", "é", "\"", &"x".repeat(129)] {
            assert!(RecordId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ChangeId::parse(&"x".repeat(65)).is_err());
        for bad in ["", "1a", "Race", "a-b", "a\"b", &"x".repeat(64)] {
            assert!(Collection::parse(bad).is_err(), "{bad:?}");
        }
    }
}
