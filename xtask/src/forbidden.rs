//! Words that must not be committed: postponed work, silenced tests, paths of one machine.

use crate::problem::Problem;
use crate::source::{Kind, Source, is_word};
use crate::tree::{File, Tree};

/// A word, where in a Rust file it counts, and why it is forbidden. The words are spelled in two parts, so
/// that this file passes its own check.
struct Word {
    word: &'static str,
    counts_in: &'static [Kind],
    why: &'static str,
}

const WORDS: [Word; 6] = [
    Word { word: concat!("#[ig", "nore"), counts_in: &[Kind::Code], why: "a test runs or is deleted" },
    Word { word: concat!(", ig", "nore)]"), counts_in: &[Kind::Code], why: "a test runs or is deleted" },
    Word {
        word: concat!("```ig", "nore"),
        counts_in: &[Kind::Comment],
        why: "an example compiles, or is `text`",
    },
    Word { word: concat!("to", "do!"), counts_in: &[Kind::Code], why: "write it or leave it out" },
    Word { word: concat!("unimpl", "emented!"), counts_in: &[Kind::Code], why: "write it or leave it out" },
    Word {
        word: concat!("FIX", "ME"),
        counts_in: &[Kind::Code, Kind::Comment],
        why: "mend it or file an issue",
    },
];

/// The directory in which some machines keep their clones.
const MACHINE_PATH: &str = concat!("/wo", "rk/");

/// Forbidden words in Rust files, and machine paths in any file.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems: Vec<_> = tree.rust().flat_map(words).collect();
    problems.extend(tree.files.iter().flat_map(machine_paths));
    problems
}

fn words(file: &File) -> Vec<Problem> {
    let source = Source::read(&file.text);
    let mut problems = Vec::new();
    for Word { word, counts_in, why } in &WORDS {
        for (number, line) in source.only(counts_in).lines().enumerate() {
            if occurs(line, word) {
                problems.push(Problem::on(&file.path, number + 1, format!("`{word}`: {why}")));
            }
        }
    }
    problems
}

fn machine_paths(file: &File) -> Vec<Problem> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| occurs(line, MACHINE_PATH));
    let problem = |(number, _)| {
        let what = format!("`{MACHINE_PATH}…` is a path of one machine: say it relative to the repository");
        Problem::on(&file.path, number + 1, what)
    };
    lines.map(problem).collect()
}

/// Whether the text stands in the line and is not the end of a longer word.
fn occurs(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let starts_word = text.as_bytes().first().is_some_and(|byte| is_word(*byte) || *byte == b'/');
        let inside = at.checked_sub(1).is_some_and(|before| is_word(line.as_bytes()[before]));
        !(starts_word && inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    #[test]
    fn every_word_is_found_where_it_counts() {
        for Word { word, counts_in, .. } in &WORDS {
            let text = if counts_in.contains(&Kind::Code) { (*word).into() } else { format!("/// {word}") };
            assert_eq!(check(&tree(&[("a.rs", &text)])).len(), 1, "{word}");
            assert_eq!(check(&tree(&[("a.rs", &format!("\"{word}\""))])), [], "{word} in a string");
        }
    }

    #[test]
    fn a_longer_word_is_another_word() {
        assert_eq!(check(&tree(&[("a.rs", concat!("undo_to", "do!() // my_FIX", "ME"))])), []);
    }

    #[test]
    fn a_machine_path_is_found_in_any_file() {
        let text = format!("fine\ncd {MACHINE_PATH}clone");
        assert_eq!(check(&tree(&[("docs/a.md", &text)])).len(), 1);
        let address = format!("https://example.org{MACHINE_PATH}x and crates{MACHINE_PATH}");
        assert_eq!(check(&tree(&[("docs/a.md", &address)])), []);
    }
}
