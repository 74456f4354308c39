//! One crypto back end and one SQLite in everything that is linked, on every platform.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::problem::Problem;
use crate::run;

/// TLS and crypto that must not come in beside aws-lc-rs.
const OTHER_CRYPTO: [&str; 4] = ["ring", "openssl", "openssl-sys", "native-tls"];

/// What to type to see who brings a crate in.
const ASK: &str = "`cargo tree --workspace --target all -i";

/// Asks cargo what is linked, tests included, one `name vVERSION` a line. `cargo metadata` would name crates
/// too whose feature nobody turned on.
pub(crate) fn linked() -> Result<String> {
    run::output(&mut run::cargo(&[
        "tree",
        "--workspace",
        "--target",
        "all",
        "--locked",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))
}

/// A second crypto back end, or any number of SQLites but one.
pub(crate) fn check(linked: &str) -> Vec<Problem> {
    let crates: BTreeSet<(&str, &str)> = linked.lines().filter_map(name_and_version).collect();
    let mut problems = Vec::new();
    for (name, version) in crates.iter().filter(|(name, _)| OTHER_CRYPTO.contains(name)) {
        let what = format!("a second crypto back end: turn off the feature that brings it ({ASK} {name}`)");
        problems.push(Problem::at(format!("{name} {version}"), what));
    }
    let sqlite = crates.iter().filter(|(name, _)| *name == "libsqlite3-sys");
    let versions: Vec<_> = sqlite.map(|(_, version)| *version).collect();
    if versions.len() != 1 {
        let what = format!("exactly one must be linked, these are: [{}]", versions.join(", "));
        problems.push(Problem::at("libsqlite3-sys", what));
    }
    problems
}

fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "ropeway v0.1.0 (here/crates/cli)\naws-lc-rs v1.2.3\nlibsqlite3-sys v0.36.0\n\n\
        libsqlite3-sys v0.36.0 (*)\n";

    #[test]
    fn one_of_each_passes() {
        assert_eq!(check(GOOD), []);
    }

    #[test]
    fn a_second_crypto_back_end_is_a_problem() {
        for name in OTHER_CRYPTO {
            assert_eq!(check(&format!("{GOOD}{name} v0.17.14\n{name} v0.17.14 (*)\n")).len(), 1, "{name}");
        }
    }

    #[test]
    fn no_sqlite_or_two_are_a_problem() {
        assert_eq!(check("ropeway v0.1.0\n").len(), 1);
        assert_eq!(check(&format!("{GOOD}libsqlite3-sys v0.35.0\n")).len(), 1);
    }
}
