//! Reads Rust just far enough to tell code from comments and literals.

use std::ops::Range;

/// What a byte of a Rust file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    Comment,
    Literal,
}

/// A Rust file, each byte with its kind.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    text: &'a str,
    kinds: Vec<Kind>,
}

impl<'a> Source<'a> {
    /// Tells the text apart.
    pub(crate) fn read(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut kinds = vec![Kind::Code; bytes.len()];
        let mut at = 0;
        while at < bytes.len() {
            let (kind, end) = token(text, at);
            kinds[at..end].fill(kind);
            at = end;
        }
        Self { text, kinds }
    }

    /// The text with everything that is not of these kinds blanked out, byte for byte, lines kept.
    pub(crate) fn only(&self, kept: &[Kind]) -> String {
        let mut shown = Vec::with_capacity(self.text.len());
        for (byte, kind) in self.text.bytes().zip(&self.kinds) {
            shown.push(if byte == b'\n' || kept.contains(kind) { byte } else { b' ' });
        }
        String::from_utf8(shown).unwrap_or_default()
    }

    /// Only the code.
    pub(crate) fn code(&self) -> String {
        self.only(&[Kind::Code])
    }
}

/// The kind and the end of what begins at `at`.
fn token(text: &str, at: usize) -> (Kind, usize) {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (Kind::Comment, line_end(bytes, at));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block_comment_end(bytes, at));
    }
    if rest[0] == b'"' {
        return (Kind::Literal, string_end(bytes, at));
    }
    if let Some(end) = raw_string_end(bytes, at) {
        return (Kind::Literal, end);
    }
    if let Some(end) = char_end(text, at) {
        return (Kind::Literal, end);
    }
    (Kind::Code, at + 1)
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, b"\n").unwrap_or(bytes.len())
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `r#"…"#`, also behind `b` or `c`, if one begins at this `r`.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'r' {
        return None;
    }
    let prefixed = at > 0 && matches!(bytes[at - 1], b'b' | b'c');
    let before = if prefixed { at.checked_sub(2) } else { at.checked_sub(1) };
    if before.is_some_and(|before| is_word(bytes[before])) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some(find(bytes, open + 1, &close).map_or(bytes.len(), |end| end + close.len()))
}

/// The end of a character literal; a lifetime is code.
fn char_end(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix('\'')?;
    let first = rest.chars().next()?;
    if first == '\\' {
        return find(text.as_bytes(), at + 3, b"'").map(|end| end + 1);
    }
    let behind = at + 1 + first.len_utf8();
    (text.as_bytes().get(behind) == Some(&b'\'')).then_some(behind + 1)
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|found| from + found)
}

/// Whether this byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The line, counted from 1, on which this byte stands.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// From `at` in code, the block that opens next at this level; none if a `;` comes first.
pub(crate) fn next_block(code: &str, at: usize) -> Option<Range<usize>> {
    let bytes = code.as_bytes();
    let mut depth = 0_usize;
    for (offset, byte) in bytes[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at + offset..block_end(bytes, at + offset)),
            _ => {}
        }
    }
    None
}

/// The end of the block that this brace opens.
fn block_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in bytes[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return open + offset + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::read(text).code().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(code("a // b {\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(code(r#"a "b \" {" c"#), "a c");
        assert_eq!(code(r###"a r#"b " {"# c b br"d" e"###), "a c b b e");
        assert_eq!(code("a '{' '\\'' '\\u{7b}' b"), "a b");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(code("fn a<'b>(c: &'b str, r#type: u8)"), "fn a<'b>(c: &'b str, r#type: u8)");
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        assert_eq!(code("a \"b"), "a");
        assert_eq!(code("a r#\"b\""), "a");
        assert_eq!(code("a /* b"), "a");
    }

    #[test]
    fn a_block_is_found_behind_brackets_and_not_behind_an_end() {
        let text = "fn a(b: [u8; 4]) -> C { { } } fn d();{}";
        assert_eq!(next_block(text, 0).map(|block| &text[block]), Some("{ { } }"));
        assert_eq!(next_block(text, 30), None);
    }
}
