//! Names and values inside SQL text: only views need them, everything else binds its values.

use ropeway_core::profile::Views;

/// A name in SQL. Profiles have validated it; it is quoted all the same.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `race_participation` as the documents write a record type: `RaceParticipation` (ISMF-055).
pub(crate) fn camel(collection: &str) -> String {
    let words = collection.split('_').filter(|w| !w.is_empty());
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    };
    words.map(capital).collect()
}

/// The branch of a `CASE` that tells a contest led by the profile's own field apart from others (ISMF-058).
pub(crate) fn mismatch(views: &Views) -> String {
    let field = views.mismatch.as_deref();
    // A `CASE` without a branch is none: nothing is led by no field.
    let word = field.map_or_else(|| "mismatch".to_owned(), |field| format!("{field}_mismatch"));
    format!("WHEN {} THEN {}", literal(field.unwrap_or_default()), literal(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_quotes() {
        assert_eq!(ident(r#"a"b"; DROP TABLE x"#), r#""a""b""; DROP TABLE x""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(camel("race_participation"), "RaceParticipation");
    }
}
