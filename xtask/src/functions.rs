//! Finds the functions of a Rust file, how long they are and which of them are tests.

use std::ops::Range;

use crate::problem::Problem;
use crate::source::{Source, is_word, line_of, next_block};
use crate::tree::{File, Tree};

/// The most lines that a function may have, from `fn` to its closing brace.
const LINES: usize = 70;

/// One function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of its `fn`, counted from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Whether it is a test, or stands among tests.
    pub(crate) test: bool,
}

/// Functions that nobody can read in one go.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust() {
        for function in functions(file) {
            if !function.test && function.lines > LINES {
                let what = format!(
                    "fn {} has {} lines, the limit is {LINES}: split it",
                    function.name, function.lines
                );
                problems.push(Problem::on(&file.path, function.line, what));
            }
        }
    }
    problems
}

/// Every function of the file that has a body.
pub(crate) fn functions(file: &File) -> Vec<Function> {
    let code = Source::read(&file.text).code();
    let tests = test_regions(&code);
    let all_tests = is_test_file(&file.path);
    let mut found = Vec::new();
    for at in words(&code, "fn") {
        let Some(name) = name_behind(&code, at + 2) else { continue };
        let Some(block) = next_block(&code, at) else { continue };
        let test =
            all_tests || tests.iter().any(|region| region.contains(&at)) || has_test_attribute(&code, at);
        let (line, last) = (line_of(&code, at), line_of(&code, block.end - 1));
        found.push(Function { name: name.into(), line, lines: last - line + 1, test });
    }
    found
}

/// Whether every function in a file at this path stands among tests.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

/// Where `#[cfg(test)]` items are.
fn test_regions(code: &str) -> Vec<Range<usize>> {
    let attributes = ["#[cfg(test)]", "#[cfg(all(test,"];
    let starts = attributes.iter().flat_map(|attribute| code.match_indices(attribute));
    starts.filter_map(|(at, attribute)| Some(at..next_block(code, at + attribute.len())?.end)).collect()
}

/// Whether `#[test]`, `#[tokio::test]` or the like stands before this `fn`.
fn has_test_attribute(code: &str, at: usize) -> bool {
    let before = &code[..at];
    let item = before.rfind(['{', '}', ';']).map_or(before, |end| &before[end..]);
    item.split("#[").skip(1).any(|attribute| {
        let path = attribute.split([']', '(']).next().unwrap_or_default();
        path.trim().rsplit("::").next() == Some("test")
    })
}

/// Where this word stands in the code.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let behind = bytes.get(at + word.len()).copied();
        !before.is_some_and(|byte| is_word(byte) || byte == b'#') && !behind.is_some_and(is_word)
    })
}

fn name_behind(code: &str, at: usize) -> Option<&str> {
    let rest = code[at..].trim_start();
    let end = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::lines;
    use crate::tree::tree;

    fn long(name: &str) -> String {
        format!("fn {name}() {{\n{}}}\n", "    // } a brace in a comment\n".repeat(LINES))
    }

    #[test]
    fn a_long_function_is_a_problem() {
        let text = format!("//! A.\n{}", long("much"));
        let problems = check(&tree(&[("crates/core/src/a.rs", &text)]));
        assert_eq!(
            lines(&problems),
            ["crates/core/src/a.rs:2: fn much has 72 lines, the limit is 70: split it"]
        );
    }

    #[test]
    fn a_long_test_is_not() {
        let module = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", long("much"));
        let single = format!("#[test]\n#[allow(x)]\n{}", long("much"));
        let files =
            [("a/src/a.rs", module.as_str()), ("a/src/b.rs", single.as_str()), ("a/tests/c.rs", &long("c"))];
        assert_eq!(check(&tree(&files)), []);
    }

    #[test]
    fn code_behind_a_test_module_is_measured_again() {
        let text = format!("#[cfg(test)]\nmod tests {{}}\n{}", long("much"));
        assert_eq!(check(&tree(&[("a.rs", &text)])).len(), 1);
    }

    #[test]
    fn declarations_and_function_types_are_no_functions() {
        let text = "trait A { fn a(&self) -> [u8; 4]; }\ntype B = fn(u8);\nfn c<const N: usize>(f: fn()) {}";
        let names: Vec<_> =
            functions(&tree(&[("a.rs", text)]).files[0]).into_iter().map(|function| function.name).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn tests_are_told_from_other_functions() {
        let text = "#[tokio::test(flavor = \"x\")]\nasync fn a() {}\nfn b() {}\n#[cfg(test)]\nfn c() {}";
        let found = functions(&tree(&[("a.rs", text)]).files[0])
            .into_iter()
            .map(|function| (function.name, function.test))
            .collect::<Vec<_>>();
        assert_eq!(found, [("a".into(), true), ("b".into(), false), ("c".into(), true)]);
    }
}
