//! A profile as written: every key read, every value with its place, nothing compared with anything yet.

use super::{
    DeleteRule, Kind, OnDelete, Resolver, Sees, StaleReplace, Words,
    audience::{self, AudienceDraft},
    rule::{self, RuleDraft},
    source::{self, At, Mistakes, Span, Table, named},
};
use serde_json::Value;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

const PROFILE: &[&str] =
    &["name", "version", "resolver", "sync_every", "retry", "views", "words", "roles", "collections"];
const COLLECTION: &[&str] = &[
    "table",
    "fields",
    "references",
    "group",
    "merge",
    "merge_tie",
    "delete",
    "stale_replace",
    "same",
    "audience",
    "shared",
];
const FIELD: &[&str] =
    &["type", "required", "server_only", "default", "merge", "tie", "order", "min", "max", "values"];
/// The words of types.
const TYPES: &[&str] = &[
    "text", "int", "number", "bool", "date", "datetime", "enum", "ref", "object", "list", "map", "counter",
    "json",
];
/// What other languages call them.
const ALIASES: [(&str, &str); 11] = [
    ("string", "text"),
    ("varchar", "text"),
    ("integer", "int"),
    ("float", "number"),
    ("decimal", "number"),
    ("boolean", "bool"),
    ("timestamp", "datetime"),
    ("time", "datetime"),
    ("array", "list"),
    ("uuid", "ref"),
    ("reference", "ref"),
];
/// Characters of a text whose field names no `max`.
const TEXT_MAX: usize = 10_000;
/// Seconds of the widest window: a year.
const WINDOW_MAX: i64 = 366 * 86_400;

/// A whole profile.
pub(super) struct Draft {
    pub(super) name: Option<At<String>>,
    pub(super) version: u32,
    pub(super) resolver: Resolver,
    pub(super) sync_every: Duration,
    pub(super) retry: Vec<Duration>,
    pub(super) views: ViewsDraft,
    pub(super) words: Words,
    pub(super) roles: Vec<RoleDraft>,
    pub(super) collections: Vec<CollectionDraft>,
}

/// The names in views.
pub(super) struct ViewsDraft {
    pub(super) id: At<String>,
    pub(super) local_id: At<String>,
    pub(super) reference: At<String>,
    pub(super) numbered: Option<At<String>>,
    pub(super) mismatch: Option<At<String>>,
}

/// A role.
pub(super) struct RoleDraft {
    pub(super) name: At<String>,
    /// `None`: every collection.
    pub(super) write: Option<Vec<At<String>>>,
    pub(super) resolve: bool,
    pub(super) sees: Sees,
    pub(super) choose: Vec<At<String>>,
}

/// A collection.
pub(super) struct CollectionDraft {
    pub(super) name: At<String>,
    pub(super) table: Option<At<String>>,
    pub(super) fields: Vec<FieldDraft>,
    pub(super) references: Vec<ReferenceDraft>,
    pub(super) groups: Vec<GroupDraft>,
    pub(super) merge: Option<RuleDraft>,
    pub(super) delete: DeleteRule,
    pub(super) stale_replace: StaleReplace,
    pub(super) same: Option<SameDraft>,
    /// Whether it is shared, and where that is said.
    pub(super) shared: Option<Span>,
    pub(super) audience: Option<AudienceDraft>,
}

/// A field.
pub(super) struct FieldDraft {
    pub(super) name: At<String>,
    /// `None` where a mistake stands in its place.
    pub(super) kind: Option<Kind>,
    pub(super) required: bool,
    pub(super) server_only: bool,
    pub(super) default: Option<At<Value>>,
    pub(super) merge: Option<RuleDraft>,
}

/// A reference.
pub(super) struct ReferenceDraft {
    pub(super) name: At<String>,
    pub(super) to: At<String>,
    pub(super) optional: bool,
    pub(super) on_delete: Option<At<OnDelete>>,
}

/// A group.
pub(super) struct GroupDraft {
    pub(super) fields: At<Vec<At<String>>>,
    pub(super) rule: Option<RuleDraft>,
    pub(super) unset: Option<At<Value>>,
    pub(super) roles: Vec<At<String>>,
}

/// A fingerprint: names, each with whether absent equals absent.
pub(super) struct SameDraft {
    pub(super) on: Vec<(At<String>, bool)>,
    pub(super) within: Option<(At<String>, i64)>,
}

/// Reads the document.
pub(super) fn read(document: &At<DeTable<'_>>, mistakes: &mut Mistakes) -> Draft {
    let table = Table::of("the profile", 0..0, document.get_ref(), PROFILE, mistakes);
    let resolvers =
        [("upstream", Resolver::Upstream), ("author", Resolver::Author), ("anyone", Resolver::Anyone)];
    let name = table.must("name", mistakes).and_then(|_| table.text("name", mistakes));
    let roles = section(&table, "roles", "at least one role: without one nobody may write", mistakes);
    let collections = section(&table, "collections", "at least one collection", mistakes);
    Draft {
        name,
        version: version(&table, mistakes),
        resolver: chosen(table.choice("resolver", &resolvers, mistakes), Resolver::Upstream),
        sync_every: match table.text("sync_every", mistakes) {
            Some(text) => duration(&text, mistakes),
            None => Duration::from_secs(300),
        },
        retry: retry(&table, mistakes),
        views: views(&table, mistakes),
        words: words(&table, mistakes),
        roles: roles.into_iter().filter_map(|(name, value)| role(name, value, mistakes)).collect(),
        collections: collections
            .into_iter()
            .filter_map(|(n, value)| collection(n, value, mistakes))
            .collect(),
    }
}

/// The entries of a table that a profile cannot do without.
fn section<'t>(
    table: &Table<'t>,
    key: &str,
    needs: &str,
    mistakes: &mut Mistakes,
) -> Vec<(At<String>, &'t At<DeValue<'t>>)> {
    let value = table.get(key);
    if value.is_none_or(|v| v.get_ref().as_table().is_some_and(DeTable::is_empty)) {
        mistakes.at(&value.map_or(0..0, At::span), format!("a profile needs {needs}"));
    }
    value.map(|v| named(&format!("`{key}`"), v, mistakes)).unwrap_or_default()
}

fn chosen<T>(word: Option<At<T>>, or: T) -> T {
    word.map_or(or, At::into_inner)
}

fn version(table: &Table<'_>, mistakes: &mut Mistakes) -> u32 {
    let Some(version) = table.whole("version", mistakes) else { return 1 };
    match u32::try_from(*version.get_ref()) {
        Ok(n) if n > 0 => n,
        _ => {
            mistakes.at(&version.span(), "`version` counts from 1");
            1
        }
    }
}

fn retry(table: &Table<'_>, mistakes: &mut Mistakes) -> Vec<Duration> {
    let Some(delays) = table.texts("retry", mistakes) else {
        return [60, 300, 900, 3_600, 21_600].map(Duration::from_secs).to_vec();
    };
    let written = table.get("retry").and_then(|v| v.get_ref().as_array());
    if written.is_some_and(|delays| delays.is_empty()) {
        mistakes.at(&delays.span(), "`retry` needs at least one delay");
    }
    delays.get_ref().iter().map(|delay| duration(delay, mistakes)).collect()
}

/// `30s`, `5m`, `12h`, `2d`.
fn duration(text: &At<String>, mistakes: &mut Mistakes) -> Duration {
    let unit = |c| match c {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        _ => None,
    };
    let read = |text: &str| -> Option<u64> {
        let unit = unit(text.chars().next_back()?)?;
        let count = &text[..text.len() - 1];
        let digits = count.bytes().all(|b| b.is_ascii_digit());
        // A thousand years are enough for anybody, and fit an i64 of microseconds.
        let seconds = digits.then(|| count.parse::<u64>().ok())??.checked_mul(unit)?;
        (1..=31_557_600_000).contains(&seconds).then_some(seconds)
    };
    match read(text.get_ref()) {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let why = format!("`{}` is no duration; write 30s, 5m, 12h or 2d", text.get_ref());
            mistakes.at(&text.span(), why);
            Duration::from_secs(1)
        }
    }
}

fn views(table: &Table<'_>, mistakes: &mut Mistakes) -> ViewsDraft {
    let inner = table.get("views");
    let keys = &["id", "local_id", "reference", "numbered", "mismatch"];
    let inner = inner.and_then(|v| Table::read("`views`", v, keys, mistakes));
    let mut name = |key: &str, or: &str| {
        let written = inner.as_ref().and_then(|t| t.text(key, mistakes));
        written.unwrap_or_else(|| At::new(0..0, or.to_owned()))
    };
    let (id, local_id, reference) = (name("id", "id"), name("local_id", "local_id"), name("reference", "{}"));
    let mut named = |key: &str| inner.as_ref().and_then(|t| t.text(key, mistakes));
    ViewsDraft { id, local_id, reference, numbered: named("numbered"), mismatch: named("mismatch") }
}

fn words(table: &Table<'_>, mistakes: &mut Mistakes) -> Words {
    let inner = table.get("words").and_then(|v| Table::read("`words`", v, &["ready", "cleared"], mistakes));
    let mut say = |key: &str, or: &str| {
        let written = inner.as_ref().and_then(|t| t.text(key, mistakes));
        written.map_or_else(|| or.to_owned(), At::into_inner)
    };
    Words {
        ready: say("ready", "ready to work offline"),
        cleared: say("cleared", "ready for what comes next"),
    }
}

fn role(name: At<String>, value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<RoleDraft> {
    let table = Table::read("a role", value, &["write", "resolve", "sees", "choose"], mistakes)?;
    let sees = [("all", Sees::All), ("subscribed", Sees::Subscribed)];
    let sees = chosen(table.choice("sees", &sees, mistakes), Sees::All);
    let choose = table.texts("choose", mistakes);
    if let Some(names) = choose.as_ref().filter(|_| sees == Sees::All) {
        let why = "a role that sees everything has nothing to choose; add `sees = \"subscribed\"`";
        mistakes.at(&names.span(), why);
    }
    let choose = choose.map(At::into_inner).unwrap_or_default();
    let resolve = table.flag("resolve", mistakes);
    let write = match table.get("write") {
        None => Some(Vec::new()),
        Some(all) if all.get_ref().as_str() == Some("*") => None,
        Some(list) if list.get_ref().is_array() => {
            Some(table.texts("write", mistakes).map(At::into_inner).unwrap_or_default())
        }
        Some(other) => {
            mistakes.at(&other.span(), "`write` must be \"*\" or a list of collections");
            Some(Vec::new())
        }
    };
    Some(RoleDraft { name, write, resolve, sees, choose })
}

fn collection(name: At<String>, value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<CollectionDraft> {
    let table = Table::read("a collection", value, COLLECTION, mistakes)?;
    let deletes = [
        ("latest", DeleteRule::Latest),
        ("delete", DeleteRule::Delete),
        ("edit", DeleteRule::Edit),
        ("park", DeleteRule::Park),
    ];
    let stale = [("diff", StaleReplace::Diff), ("whole", StaleReplace::Whole)];
    let fields = table.get("fields").map(|v| named("`fields`", v, mistakes)).unwrap_or_default();
    let references = table.get("references").map(|v| named("`references`", v, mistakes)).unwrap_or_default();
    Some(CollectionDraft {
        table: table.text("table", mistakes),
        fields: fields.into_iter().map(|(name, value)| field(name, value, mistakes)).collect(),
        references: references.into_iter().filter_map(|(n, v)| reference(n, v, mistakes)).collect(),
        groups: groups(&table, mistakes),
        merge: rule::read(&table, "merge", "merge_tie", mistakes),
        delete: chosen(table.choice("delete", &deletes, mistakes), DeleteRule::Park),
        stale_replace: chosen(table.choice("stale_replace", &stale, mistakes), StaleReplace::Diff),
        same: table.get("same").and_then(|v| same(v, mistakes)),
        shared: table.get("shared").map(At::span).filter(|_| table.flag("shared", mistakes)),
        audience: table.get("audience").and_then(|v| audience::read(v, mistakes)),
        name,
    })
}

fn field(name: At<String>, value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> FieldDraft {
    let mut field =
        FieldDraft { name, kind: None, required: false, server_only: false, default: None, merge: None };
    if let Some(word) = value.get_ref().as_str() {
        let (word, required) = marked(word, '!');
        field.required = required;
        field.kind = kind(&At::new(value.span(), word), None, mistakes);
        return field;
    }
    if !value.get_ref().is_table() {
        mistakes.at(&value.span(), "a field must be a type such as \"text!\" or a table with the key `type`");
        return field;
    }
    let Some(table) = Table::read("a field", value, FIELD, mistakes) else { return field };
    field.required = table.flag("required", mistakes);
    field.server_only = table.flag("server_only", mistakes);
    field.default = table.get("default").and_then(|v| json(v, mistakes));
    field.merge = rule::read(&table, "merge", "tie", mistakes);
    if let Some(word) = table.must("type", mistakes).and_then(|_| table.text("type", mistakes)) {
        let (bare, required) = marked(word.get_ref(), '!');
        field.required |= required;
        field.kind = kind(&At::new(word.span(), bare), Some(&table), mistakes);
    }
    field
}

/// A word without its mark, and whether it had it.
fn marked(word: &str, mark: char) -> (String, bool) {
    match word.strip_suffix(mark) {
        Some(bare) => (bare.to_owned(), true),
        None => (word.to_owned(), false),
    }
}

fn json(value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<At<Value>> {
    let json = source::json(value.get_ref());
    if json.is_none() {
        mistakes.at(&value.span(), "this number has no form in JSON");
    }
    Some(At::new(value.span(), json?))
}

/// The type `word` with the bounds beside it in `table`.
fn kind(word: &At<String>, table: Option<&Table<'_>>, mistakes: &mut Mistakes) -> Option<Kind> {
    let takes: &[&str] = match word.get_ref().as_str() {
        "text" => &["max"],
        "int" => &["min", "max"],
        "enum" => &["values"],
        _ => &[],
    };
    for key in ["min", "max", "values"] {
        if let Some(value) = table.and_then(|t| t.get(key)).filter(|_| !takes.contains(&key)) {
            mistakes.at(&value.span(), format!("`{key}` does not go with the type `{}`", word.get_ref()));
        }
    }
    Some(match word.get_ref().as_str() {
        "text" => Kind::Text { max: text_max(table, mistakes) },
        "int" => int(table, mistakes),
        "enum" => Kind::Enum(values(word.span(), table, mistakes)?),
        "number" => Kind::Number,
        "bool" => Kind::Bool,
        "date" => Kind::Date,
        "datetime" => Kind::DateTime,
        "ref" => Kind::Ref,
        "object" => Kind::Object,
        "list" => Kind::List,
        "map" => Kind::Map,
        "counter" => Kind::Counter,
        "json" => Kind::Json,
        other => {
            let meant = ALIASES.iter().find(|(alias, _)| *alias == other).map(|(_, meant)| *meant);
            let why = match meant {
                Some(meant) => format!("`{other}` is no type; did you mean `{meant}`?"),
                None => source::unknown("type", other, TYPES),
            };
            mistakes.at(&word.span(), why);
            return None;
        }
    })
}

fn text_max(table: Option<&Table<'_>>, mistakes: &mut Mistakes) -> usize {
    let Some(max) = table.and_then(|t| t.whole("max", mistakes)) else { return TEXT_MAX };
    let bound = crate::limits::RECORD_BYTES_MAX;
    match usize::try_from(*max.get_ref()) {
        Ok(n) if (1..=bound).contains(&n) => n,
        _ => {
            mistakes.at(&max.span(), format!("`max` of a text must be from 1 to {bound} characters"));
            TEXT_MAX
        }
    }
}

fn int(table: Option<&Table<'_>>, mistakes: &mut Mistakes) -> Kind {
    let mut bound = |key| table.and_then(|t| t.whole(key, mistakes));
    let (min, max) = (bound("min"), bound("max"));
    let (least, most) =
        (min.as_ref().map_or(i64::MIN, |m| *m.get_ref()), max.as_ref().map_or(i64::MAX, |m| *m.get_ref()));
    if let Some(max) = max.filter(|_| least > most) {
        mistakes.at(&max.span(), format!("`max` is {most}, which is less than `min`, {least}"));
    }
    Kind::Int { min: least, max: most }
}

fn values(at: Span, table: Option<&Table<'_>>, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let Some(table) = table.filter(|t| t.get("values").is_some()) else {
        mistakes.at(&at, "an enum names its values: `{ type = \"enum\", values = [\"a\", \"b\"] }`");
        return None;
    };
    let values = table.texts("values", mistakes)?;
    if values.get_ref().is_empty() {
        mistakes.at(&values.span(), "an enum needs at least one value");
    }
    let mut words: Vec<String> = Vec::new();
    for value in values.get_ref() {
        if words.contains(value.get_ref()) {
            mistakes.at(&value.span(), format!("the value `{}` is there already", value.get_ref()));
        }
        words.push(value.get_ref().clone());
    }
    Some(words)
}

fn reference(name: At<String>, value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<ReferenceDraft> {
    if let Some(word) = value.get_ref().as_str() {
        let (to, optional) = marked(word, '?');
        return Some(ReferenceDraft { name, to: At::new(value.span(), to), optional, on_delete: None });
    }
    if !value.get_ref().is_table() {
        mistakes.at(
            &value.span(),
            "a reference must be a collection such as \"race?\" or a table with the key `to`",
        );
        return None;
    }
    let table = Table::read("a reference", value, &["to", "optional", "on_delete"], mistakes)?;
    let words =
        [("refuse", OnDelete::Refuse), ("cascade", OnDelete::Cascade), ("release", OnDelete::Release)];
    let on_delete = table.choice("on_delete", &words, mistakes);
    let flagged = table.flag("optional", mistakes);
    table.must("to", mistakes)?;
    let word = table.text("to", mistakes)?;
    let (to, optional) = marked(word.get_ref(), '?');
    Some(ReferenceDraft { name, to: At::new(word.span(), to), optional: optional || flagged, on_delete })
}

fn groups(table: &Table<'_>, mistakes: &mut Mistakes) -> Vec<GroupDraft> {
    let Some(value) = table.get("group") else { return Vec::new() };
    let Some(items) = value.get_ref().as_array() else {
        mistakes.at(&value.span(), "a group is written `[[collections.NAME.group]]`, with two brackets");
        return Vec::new();
    };
    items.iter().filter_map(|item| group(item, mistakes)).collect()
}

fn group(value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<GroupDraft> {
    let table =
        Table::read("a group", value, &["fields", "rule", "tie", "order", "unset", "roles"], mistakes)?;
    table.must("rule", mistakes);
    let rule = rule::read(&table, "rule", "tie", mistakes);
    let unset = table.get("unset").and_then(|v| json(v, mistakes));
    table.must("fields", mistakes)?;
    let fields = table.texts("fields", mistakes)?;
    if fields.get_ref().is_empty() {
        mistakes.at(&fields.span(), "a group needs at least one field");
        return None;
    }
    let roles = table.texts("roles", mistakes).map(At::into_inner).unwrap_or_default();
    Some(GroupDraft { fields, rule, unset, roles })
}

fn same(value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<SameDraft> {
    let table = Table::read("`same`", value, &["on", "within"], mistakes)?;
    let within = table.get("within").and_then(|v| within(v, mistakes));
    table.must("on", mistakes)?;
    let on = table.texts("on", mistakes)?;
    if on.get_ref().is_empty() {
        mistakes.at(&on.span(), "`same` needs at least one field to compare");
    }
    let field = |field: &At<String>| {
        let (name, optional) = marked(field.get_ref(), '?');
        (At::new(field.span(), name), optional)
    };
    Some(SameDraft { on: on.get_ref().iter().map(field).collect(), within })
}

fn within(value: &At<DeValue<'_>>, mistakes: &mut Mistakes) -> Option<(At<String>, i64)> {
    let table = Table::read("`within`", value, &["field", "seconds"], mistakes)?;
    table.must("field", mistakes);
    table.must("seconds", mistakes);
    let (field, seconds) = (table.text("field", mistakes), table.whole("seconds", mistakes));
    let (field, seconds) = (field?, seconds?);
    if !(1..=WINDOW_MAX).contains(seconds.get_ref()) {
        mistakes.at(&seconds.span(), format!("`seconds` must be from 1 to {WINDOW_MAX}"));
        return None;
    }
    Some((field, *seconds.get_ref() * 1_000_000))
}
