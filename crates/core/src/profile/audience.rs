//! What a profile says about audiences: where the keys of a collection's records come from.

use super::{
    Kind,
    draft::CollectionDraft,
    rule::type_word,
    source::{At, Mistakes, Table, unknown},
};
use crate::id::is_name;
use std::collections::BTreeSet;
use toml::de::DeValue;

/// Where the keys of a collection's records come from. A collection without one is for every reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// A key of the record's own.
    pub key: Option<KeyOf>,
    /// References from whose parents the keys are inherited.
    pub from: Vec<String>,
    /// References whose parents get this record's keys: required ones always do.
    pub grants: Vec<String>,
    /// Whether records without any key are for nobody but those who see everything.
    pub granted: bool,
    /// The field that names a reader whom this record subscribes to its keys.
    pub subscribes: Option<String>,
}

/// A key made of one of the record's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOf {
    /// What stands before the colon.
    pub name: String,
    /// The field; `None`: the record's own id.
    pub field: Option<String>,
}

/// An audience as written.
pub(super) struct AudienceDraft {
    pub(super) key: Option<At<KeyOf>>,
    pub(super) from: Vec<At<String>>,
    pub(super) grants: Vec<At<String>>,
    pub(super) granted: bool,
    pub(super) subscribes: Option<At<String>>,
}

/// Reads a collection's `audience`.
pub(super) fn read(value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<AudienceDraft> {
    let keys = ["key", "from", "grants", "granted", "subscribes"];
    let table = Table::read("`audience`", value, &keys, mistakes)?;
    let mut names = |key| table.texts(key, mistakes).map(At::into_inner).unwrap_or_default();
    let (from, grants) = (names("from"), names("grants"));
    let written = table.text("key", mistakes);
    let key = written.as_ref().and_then(|text| key_of(text, mistakes));
    let granted = table.flag("granted", mistakes);
    if written.is_none() && from.is_empty() && !granted {
        let why = "an audience needs a `key` of its own, a reference to inherit `from`, or `granted = true`";
        mistakes.at(&value.span(), why);
    }
    Some(AudienceDraft { key, from, grants, granted, subscribes: table.text("subscribes", mistakes) })
}

/// `competition:{id}`, `user:{owner}`.
fn key_of(text: &At<String>, mistakes: &mut Mistakes) -> Option<At<KeyOf>> {
    let read = || {
        let (name, rest) = text.get_ref().split_once(':')?;
        let field = rest.strip_prefix('{')?.strip_suffix('}')?;
        let field = (field != "id").then(|| field.to_owned());
        is_name(name).then(|| KeyOf { name: name.to_owned(), field })
    };
    let key = read();
    if key.is_none() {
        let why = format!("`{}` is no key; write `name:{{id}}` or `name:{{field}}`", text.get_ref());
        mistakes.at(&text.span(), why);
    }
    Some(At::new(text.span(), key?))
}

/// Compiles one collection's audience among all collections.
pub(super) fn compile(
    collection: &CollectionDraft,
    all: &[CollectionDraft],
    mistakes: &mut Mistakes,
) -> Option<Audience> {
    let draft = collection.audience.as_ref()?;
    let fields: Vec<&str> = collection.fields.iter().map(|f| f.name.get_ref().as_str()).collect();
    let references: Vec<&str> = collection.references.iter().map(|r| r.name.get_ref().as_str()).collect();
    let valued: Vec<&str> = fields.iter().chain(&references).copied().collect();
    let mut value = |name: &str, at: &std::ops::Range<usize>, fits: fn(&Kind) -> bool, what: &str| {
        if !valued.contains(&name) {
            mistakes.at(at, unknown("field here", name, &valued));
        }
        let kind = collection.fields.iter().find(|f| f.name.get_ref() == name).and_then(|f| f.kind.as_ref());
        if let Some(kind) = kind.filter(|kind| !fits(kind)) {
            mistakes.at(at, format!("{what}; `{name}` is of type {}", type_word(kind)));
        }
    };
    if let Some(key) = &draft.key
        && let Some(field) = &key.get_ref().field
    {
        let fits = |k: &Kind| matches!(k, Kind::Text { .. } | Kind::Ref | Kind::Enum(_));
        value(field, &key.span(), fits, "a key is made of a text, an enum or a reference");
    }
    if let Some(field) = &draft.subscribes {
        let fits = |k: &Kind| matches!(k, Kind::Text { .. } | Kind::Ref);
        value(field.get_ref(), &field.span(), fits, "a reader is named by a text or a reference");
    }
    for name in draft.from.iter().chain(&draft.grants) {
        let found = collection.references.iter().find(|r| r.name.get_ref() == name.get_ref());
        let Some(reference) = found else {
            mistakes.at(&name.span(), unknown("reference here", name.get_ref(), &references));
            continue;
        };
        let parent = all.iter().find(|c| c.name.get_ref() == reference.to.get_ref());
        if parent.is_some_and(|p| p.audience.is_none()) {
            let why = format!(
                "`{}` refers to `{}`, whose records have no audience: they are for everybody",
                name.get_ref(),
                reference.to.get_ref()
            );
            mistakes.at(&name.span(), why);
        }
    }
    let names = |list: &[At<String>]| list.iter().map(|n| n.get_ref().clone()).collect();
    Some(Audience {
        key: draft.key.as_ref().map(|k| k.get_ref().clone()),
        from: names(&draft.from),
        grants: names(&draft.grants),
        granted: draft.granted,
        subscribes: draft.subscribes.as_ref().map(|s| s.get_ref().clone()),
    })
}

/// Keys flow one way: circles of inheriting, or of granting, are mistakes.
pub(super) fn circles(all: &[CollectionDraft], mistakes: &mut Mistakes) {
    let inherits = |c: &CollectionDraft, reference: &str, _: bool| {
        c.audience.as_ref().is_some_and(|a| a.from.iter().any(|f| f.get_ref() == reference))
    };
    let lifts = |c: &CollectionDraft, reference: &str, optional: bool| {
        let granted = |a: &AudienceDraft| a.grants.iter().any(|f| f.get_ref() == reference);
        c.audience.as_ref().is_some_and(|a| !optional || granted(a))
    };
    one_way(all, inherits, "inherit their keys from each other", mistakes);
    one_way(all, lifts, "grant each other their keys", mistakes);
}

fn one_way(
    all: &[CollectionDraft],
    flows: impl Fn(&CollectionDraft, &str, bool) -> bool,
    what: &str,
    mistakes: &mut Mistakes,
) {
    // Whatever leads only to collections that are done is done itself; what is left lies on a circle.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let open = |c: &CollectionDraft, done: &BTreeSet<&str>| {
        let edge = |r: &&super::draft::ReferenceDraft| {
            flows(c, r.name.get_ref(), r.optional) && !done.contains(r.to.get_ref().as_str())
        };
        c.references.iter().find(edge).map(|r| r.name.span())
    };
    let known = |name: &str| all.iter().any(|c| c.name.get_ref() == name);
    done.extend(
        all.iter().flat_map(|c| &c.references).map(|r| r.to.get_ref().as_str()).filter(|n| !known(n)),
    );
    loop {
        let before = done.len();
        for c in all {
            if open(c, &done).is_none() {
                done.insert(c.name.get_ref());
            }
        }
        if done.len() == before {
            break;
        }
    }
    for c in all.iter().filter(|c| !done.contains(c.name.get_ref().as_str())) {
        if let Some(at) = open(c, &done) {
            mistakes.at(&at, format!("the records of `{}` would {what} in a circle", c.name.get_ref()));
        }
    }
}
