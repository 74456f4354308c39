//! Every Rust file has a purpose, a name that says it, and a length that can be read.

use crate::problem::Problem;
use crate::tree::{File, Tree};

/// The most lines that a file may have.
const LINES: usize = 600;

/// Names that say nothing: a module is named after what it does.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "common", "types", "manager", "managers"];

/// Files without a purpose line, too long, or with an empty name.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    tree.rust().flat_map(|file| [purpose(file), length(file), name(file)]).flatten().collect()
}

fn purpose(file: &File) -> Option<Problem> {
    let first = file.text.lines().next().unwrap_or_default();
    let said = first.strip_prefix("//!").is_some_and(|purpose| !purpose.trim().is_empty());
    (!said).then(|| Problem::on(&file.path, 1, "the first line must be `//!` and the file's purpose"))
}

fn length(file: &File) -> Option<Problem> {
    let lines = file.text.lines().count();
    (lines > LINES).then(|| Problem::at(&file.path, format!("{lines} lines, the limit is {LINES}: split it")))
}

fn name(file: &File) -> Option<Problem> {
    let empty = file.path.trim_end_matches(".rs").split('/').find(|part| EMPTY_NAMES.contains(part))?;
    Some(Problem::at(&file.path, format!("`{empty}` says nothing: name it after what it does")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::lines;
    use crate::tree::tree;

    #[test]
    fn a_good_file_passes() {
        let text = format!("//! Purpose.\n{}", "\n".repeat(LINES - 1));
        assert_eq!(check(&tree(&[("crates/core/src/merge.rs", &text), ("README.md", "")])), []);
    }

    #[test]
    fn a_file_without_a_purpose_is_a_problem() {
        for text in ["", "use std::fmt;\n", "//!\n", "// not this\n//! Purpose.\n"] {
            let problems = check(&tree(&[("a.rs", text)]));
            assert_eq!(lines(&problems), ["a.rs:1: the first line must be `//!` and the file's purpose"]);
        }
    }

    #[test]
    fn a_long_file_is_a_problem() {
        let text = format!("//! Purpose.\n{}", "\n".repeat(LINES));
        assert_eq!(lines(&check(&tree(&[("a.rs", &text)]))), ["a.rs: 601 lines, the limit is 600: split it"]);
    }

    #[test]
    fn an_empty_name_is_a_problem() {
        for path in ["crates/core/src/utils.rs", "crates/cli/tests/common/mod.rs", "a/src/types.rs"] {
            assert_eq!(check(&tree(&[(path, "//! Purpose.\n")])).len(), 1, "{path}");
        }
    }
}
