//! The pages at the root are there, every path and link that a page names leads somewhere, and no two decisions
//! have one number.

use crate::problem::Problem;
use crate::tree::{File, Tree};
use std::collections::BTreeSet;

/// Pages that must exist and whose paths in backticks must exist.
const PAGES: [&str; 4] = ["README.md", "ARCHITECTURE.md", "GLOSSARY.md", "PROTOCOL.md"];

/// What a path of this repository begins with.
const ROOTS: [&str; 5] = ["crates/", "apps/", "docs/", "xtask/", ".ci/"];

/// Missing pages, dead paths and dead links.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for page in PAGES {
        match tree.file(page) {
            None => problems.push(Problem::at(page, "this page must exist")),
            Some(file) => problems.extend(dead_paths(file, tree)),
        }
    }
    let markdown = tree.files.iter().filter(|file| file.path.ends_with(".md"));
    problems.extend(markdown.flat_map(|file| dead_links(file, tree)));
    problems.extend(one_number(tree));
    problems
}

/// Decisions whose number an earlier one has.
fn one_number(tree: &Tree) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let number = |file: &File| Some(file.path.strip_prefix("docs/adr/")?.get(..4)?.to_owned());
    let again = tree.files.iter().filter(|file| number(file).is_some_and(|number| !seen.insert(number)));
    again.map(|file| Problem::at(&file.path, "another decision has this number")).collect()
}

fn dead_paths(file: &File, tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, code) in quoted(&file.text) {
        for word in code.split_whitespace().filter_map(repository_path) {
            if !exists(word, tree) {
                problems.push(Problem::on(&file.path, line, format!("`{word}` is not there")));
            }
        }
    }
    problems
}

/// The pieces of the page in backticks and the lines of its fenced blocks, with their line numbers.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            pieces.push((number + 1, line));
        } else {
            pieces.extend(line.split('`').skip(1).step_by(2).map(|piece| (number + 1, piece)));
        }
    }
    pieces
}

/// The path in a word such as `docs/adr/`, `crates/core/src/merge.rs:12` or `crates/core/tests/a.rs::b`.
fn repository_path(word: &str) -> Option<&str> {
    let word = word.trim_start_matches(['(', '"', '\'']).trim_start_matches("./");
    ROOTS.iter().any(|root| word.starts_with(root)).then_some(())?;
    let end = word.find([':', '#', ',', ';', ')', '"', '\'']).unwrap_or(word.len());
    Some(word[..end].trim_end_matches('.'))
}

/// Whether the path is there; of a pattern or a placeholder, the directory before it.
fn exists(path: &str, tree: &Tree) -> bool {
    let placeholder = path.find(['*', '<', '{', '…', '?', '$', '[']);
    let fixed =
        placeholder.map_or(path, |at| path[..at].rsplit_once('/').map_or("", |(directory, _)| directory));
    fixed.is_empty() || tree.has(fixed)
}

fn dead_links(file: &File, tree: &Tree) -> Vec<Problem> {
    let directory = file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains(':') || target.starts_with('/');
            if !elsewhere && !joined(directory, target).is_some_and(|path| tree.has(&path)) {
                problems.push(Problem::on(
                    &file.path,
                    number + 1,
                    format!("the link to {target} leads nowhere"),
                ));
            }
        }
    }
    problems
}

/// The target seen from the root; none if it leaves the repository.
fn joined(directory: &str, target: &str) -> Option<String> {
    let mut parts: Vec<_> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::lines;
    use crate::tree::tree;

    fn found(page: &str) -> Vec<String> {
        let others =
            ["ARCHITECTURE.md", "GLOSSARY.md", "PROTOCOL.md", "docs/adr/0001-a.md", "crates/core/src/a.rs"];
        let mut files = vec![("README.md", page)];
        files.extend(others.map(|path| (path, "")));
        lines(&check(&tree(&files)))
    }

    #[test]
    fn what_is_there_passes() {
        let page = "`docs/adr/`, `crates/core/src/a.rs:7`, `crates/core/src/a.rs::b`, `crates/*/src`, `docs/<page>`,\n\
            `a/b` and `cargo run -- check`; [a](docs/adr/0001-a.md#x) [b](https://example.org/x) [c](#here)\n\
            ```\ncargo test crates/core/src/a.rs\n```\n";
        assert_eq!(found(page), [""; 0]);
    }

    #[test]
    fn a_decisions_number_is_its_own() {
        let two = tree(&[("docs/adr/0001-a.md", ""), ("docs/adr/0001-b.md", ""), ("docs/adr/0002-c.md", "")]);
        assert_eq!(lines(&one_number(&two)), ["docs/adr/0001-b.md: another decision has this number"]);
    }

    #[test]
    fn a_dead_path_is_a_problem() {
        assert_eq!(
            found("a\n`crates/core/src/gone.rs:7`"),
            ["README.md:2: `crates/core/src/gone.rs` is not there"]
        );
        assert_eq!(found("```\nless docs/gone.md\n```"), ["README.md:2: `docs/gone.md` is not there"]);
        assert_eq!(found("`crates/gone/*.rs`").len(), 1);
        assert_eq!(found("`crates/cor`").len(), 1, "a part of a name is not the name");
    }

    #[test]
    fn a_dead_link_is_a_problem() {
        assert_eq!(found("[a](docs/gone.md)"), ["README.md:1: the link to docs/gone.md leads nowhere"]);
        let up = tree(&[("docs/a.md", "[a](../LICENSE) [b](../../b)"), ("LICENSE", "")]);
        assert_eq!(dead_links(&up.files[0], &up).len(), 1);
    }

    #[test]
    fn a_missing_page_is_a_problem() {
        assert_eq!(check(&tree(&[])).len(), PAGES.len());
    }
}
