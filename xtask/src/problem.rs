//! One finding of a check: where it is and what is wrong.

use std::fmt;

/// Where something is wrong, and what; printed as `place: what`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    place: String,
    line: usize,
    what: String,
}

impl Problem {
    /// A finding about a whole file or crate.
    pub(crate) fn at(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), line: 0, what: what.into() }
    }

    /// A finding on one line of a file, counted from 1.
    pub(crate) fn on(place: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { place: place.into(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// The findings as lines, for assertions.
#[cfg(test)]
pub(crate) fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
