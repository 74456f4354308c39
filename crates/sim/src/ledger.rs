//! The oracle of I3: every value that anybody entered and some node acknowledged, and where it must be
//! found for ever.

use ropeway_core::{doc::Fields, id::ChangeId, receipt::Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// A value that was never written before: `v17v`. Told by its number.
pub(crate) type Token = u64;

/// The tokens of the second space begin here.
pub(crate) const ELSEWHERE: Token = 1_000_000;

/// The tokens of what is shared among the spaces begin here.
pub(crate) const SHARED: Token = 2_000_000;

/// Whether a value may be seen in the space of this number: it was entered there, or in what is shared.
pub(crate) fn is_of(token: Token, number: usize) -> bool {
    token > SHARED || (token > ELSEWHERE) == (number > 0)
}

/// Writes a token.
pub(crate) fn token(number: Token) -> String {
    format!("v{number}v")
}

/// Every token in a text.
pub(crate) fn tokens(text: &str, found: &mut BTreeSet<Token>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(begin) = bytes[at..].iter().position(|b| *b == b'v').map(|p| at + p + 1) {
        let digits = bytes[begin..].iter().take_while(|b| b.is_ascii_digit()).count();
        at = begin + digits;
        if digits > 0 && bytes.get(at) == Some(&b'v') {
            found.extend(text[begin..at].parse::<Token>().ok());
            at += 1;
        }
    }
}

/// Tokens that a change carries.
pub(crate) fn tokens_of(fields: &Fields) -> BTreeSet<Token> {
    let mut found = BTreeSet::new();
    tokens(fields.text(), &mut found);
    found
}

/// What one node has acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Values entered.
    pub(crate) values: BTreeSet<Token>,
    /// The answers to changes by id: asked again they are the same (I1).
    pub(crate) answers: BTreeMap<ChangeId, (Verdict, u64)>,
}

impl Ledger {
    /// Notes an answer to a change; what is wrong with it, where something is.
    ///
    /// Whoever does not see the record gets no version (0), and may see it when asking again.
    pub(crate) fn note(
        &mut self,
        change: &ChangeId,
        fields: &Fields,
        answer: (Verdict, u64),
    ) -> Option<String> {
        if !answer.0.is_settled() {
            let before = self.answers.get(change)?;
            return Some(format!("{change} was {before:?} and now is {answer:?}"));
        }
        let known = self.answers.get(change).map_or(0, |(_, version)| *version);
        let shown = (answer.0, if answer.1 == 0 { known } else { answer.1 });
        match self.answers.insert(change.clone(), shown) {
            Some(before) if before.0 != answer.0 || before.1 * answer.1 != 0 && before.1 != answer.1 => {
                Some(format!("{change} was {before:?} and now is {answer:?}"))
            }
            Some(_) => None,
            None => {
                self.values.extend(tokens_of(fields));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_any_text() {
        let mut found = BTreeSet::new();
        tokens(r#"{"a":"v1v","b":["v22v","xv3vx"],"vv4v":"v5","n1v":"v6v6v"}"#, &mut found);
        assert_eq!(found, BTreeSet::from([1, 22, 3, 4, 6]));
    }
}
