//! Reads a profile's TOML into its compiled form, or into every mistake that is in it.

use super::{
    Profile, check, draft,
    source::{Mistake, Mistakes},
};
use toml::de::DeTable;

/// Compiles the profile in `source`; `file` is its name in mistakes.
///
/// # Errors
/// All mistakes at once, in the order of the text: of syntax alone where there are any, since nothing
/// else can be told then; else of keys, types, names and meaning together.
pub fn parse(source: &str, file: &str) -> Result<Profile, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let (document, broken) = DeTable::parse_recoverable(source);
    if !broken.is_empty() {
        for error in broken {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            mistakes.at(&error.span().unwrap_or(0..0), message);
        }
        return Err(mistakes.report(source, file));
    }
    let draft = draft::read(&document, &mut mistakes);
    let profile = check::compile(draft, &mut mistakes);
    let found = mistakes.report(source, file);
    if found.is_empty() { Ok(profile) } else { Err(found) }
}
