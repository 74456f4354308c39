//! Names and values inside SQL text: only views need them, everything else binds its values.

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
