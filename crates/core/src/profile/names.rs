//! Names: what may be one, and that no two of them meet in an SQL view.

use super::{
    draft::{CollectionDraft, Draft},
    source::{At, Mistakes},
};
use crate::{
    id::{CONFLICT, is_name},
    limits::NAME_MAX,
};
use std::collections::BTreeMap;

/// Prefixes of names that a database or the engine keeps for itself.
const KEPT: [&str; 3] = ["sqlite_", "pg_", "rw_"];
/// Words that PostgreSQL or SQLite read as something else where a table's name is expected.
const SQL: &[&str] = &[
    "all",
    "alter",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "autoincrement",
    "between",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "commit",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "delete",
    "desc",
    "distinct",
    "do",
    "drop",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "index",
    "initially",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "nothing",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "set",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "transaction",
    "true",
    "union",
    "unique",
    "update",
    "user",
    "using",
    "values",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// Notes every name that is none, that SQL reads otherwise, or that meets another.
pub(super) fn check(draft: &Draft, mistakes: &mut Mistakes) {
    if let Some(name) = draft.name.as_ref().filter(|n| !is_profile_name(n.get_ref())) {
        let why = format!("`{}` is no name of a profile: {}", name.get_ref(), rule("a–z, 0–9 and -"));
        mistakes.at(&name.span(), why);
    }
    for role in &draft.roles {
        plain("role", &role.name, mistakes);
    }
    plain("view's column", &draft.views.id, mistakes);
    plain("view's column", &draft.views.local_id, mistakes);
    reference(&draft.views.reference, mistakes);
    for name in [&draft.views.numbered, &draft.views.mismatch].into_iter().flatten() {
        plain("view's column", name, mistakes);
    }
    let mut views: BTreeMap<&str, &str> = BTreeMap::new();
    for collection in &draft.collections {
        relation("collection", &collection.name, mistakes);
        views.insert(collection.name.get_ref(), collection.name.get_ref());
    }
    for collection in &draft.collections {
        if let Some(table) = &collection.table {
            relation("view", table, mistakes);
            if let Some(other) = views.insert(table.get_ref(), collection.name.get_ref()) {
                let why = format!(
                    "a view `{}` is there already, that of the collection `{other}`",
                    table.get_ref()
                );
                mistakes.at(&table.span(), why);
            }
        }
        columns(draft, collection, mistakes);
    }
}

fn is_profile_name(name: &str) -> bool {
    is_name(&name.replace('-', "_"))
}

fn rule(letters: &str) -> String {
    format!("1–{NAME_MAX} characters of {letters}, beginning with a letter")
}

/// A name that need only be one.
fn plain(what: &str, name: &At<String>, mistakes: &mut Mistakes) -> bool {
    let fine = is_name(name.get_ref());
    if !fine {
        let why = format!("`{}` is no name of a {what}: {}", name.get_ref(), rule("a–z, 0–9 and _"));
        mistakes.at(&name.span(), why);
    }
    fine
}

/// A name under which people will `SELECT`.
fn relation(what: &str, name: &At<String>, mistakes: &mut Mistakes) {
    let text = name.get_ref().as_str();
    if !plain(what, name, mistakes) {
        return;
    }
    if let Some(prefix) = KEPT.iter().find(|p| text.starts_with(**p)) {
        mistakes
            .at(&name.span(), format!("`{text}`: names with `{prefix}` in front are kept for the database"));
    } else if text == CONFLICT {
        mistakes.at(&name.span(), format!("`{CONFLICT}` is the engine's own collection"));
    } else if SQL.binary_search(&text).is_ok() {
        mistakes.at(&name.span(), format!("`{text}` means something else in SQL; a view needs another name"));
    }
}

fn reference(pattern: &At<String>, mistakes: &mut Mistakes) {
    let text = pattern.get_ref();
    if text.matches("{}").count() != 1 || !is_name(&text.replace("{}", "x")) {
        let why = "`reference` must be a column's name with one `{}` in it, which stands for the field";
        mistakes.at(&pattern.span(), why);
    }
}

/// The columns of a collection's view, each of which must have a name of its own.
fn columns(draft: &Draft, collection: &CollectionDraft, mistakes: &mut Mistakes) {
    let (id, local) = (draft.views.id.get_ref(), draft.views.local_id.get_ref());
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    taken.insert(id.clone(), "the record's id");
    if taken.insert(local.clone(), "the local id").is_some() {
        mistakes.at(&draft.views.local_id.span(), "`id` and `local_id` must be two columns");
    }
    let mut take = |column: String, field: &At<String>, mistakes: &mut Mistakes| {
        if let Some(other) = taken.insert(column.clone(), "a field") {
            let name = field.get_ref();
            let why = format!("`{name}` would be the view's column `{column}`, which is that of {other}");
            mistakes.at(&field.span(), why);
        }
    };
    for field in &collection.fields {
        let declared_twice = collection.references.iter().any(|r| r.name.get_ref() == field.name.get_ref());
        if plain("field", &field.name, mistakes) && !declared_twice {
            take(field.name.get_ref().clone(), &field.name, mistakes);
        }
    }
    for reference in &collection.references {
        if !plain("field", &reference.name, mistakes) {
            continue;
        }
        let column = draft.views.reference.get_ref().replace("{}", reference.name.get_ref());
        if column.len() > NAME_MAX {
            let why = format!("`{column}` is too long for a view's column: at most {NAME_MAX} characters");
            mistakes.at(&reference.name.span(), why);
        }
        take(column, &reference.name, mistakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_sql_are_sorted() {
        assert!(SQL.is_sorted());
    }
}
