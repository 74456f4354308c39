//! The ledger: one row for each requirement in `docs/requirements.md`, and how many are proved.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::problem::Problem;
use crate::tree::{File, Tree};

/// Where the ledger is.
pub(crate) const LEDGER: &str = "docs/requirements.md";

/// One requirement and what proves it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    requirement: String,
    pub(crate) line: usize,
    pub(crate) standing: Standing,
}

/// What the third column says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// These tests prove all of it.
    Proved(Vec<String>),
    /// Some of it is not proved yet: the tests so far.
    Open(Vec<String>),
    /// No test can prove it, with the reason.
    NoTest,
    /// The column says nothing that the ledger understands.
    Unclear(String),
}

/// Prints how many rows of each app are proved.
pub(crate) fn run(json: bool) -> Result<bool> {
    let tree = Tree::load()?;
    let file = tree.file(LEDGER).with_context(|| format!("{LEDGER} is missing"))?;
    let counts = count(&rows(file));
    if json {
        println!("{}", serde_json::to_string_pretty(&counts)?);
    } else {
        print!("{}", table(&counts));
    }
    Ok(true)
}

/// The rows of every table with the columns `id`, `requirement` and `proved by`.
pub(crate) fn rows(file: &File) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (number, line) in file.text.lines().enumerate() {
        let cells = cells(line);
        if cells.is_empty() {
            inside = false;
        } else if cells == ["id", "requirement", "proved by"] {
            inside = true;
        } else if let ([id, rest @ ..], true) = (cells.as_slice(), inside && !is_rule(&cells)) {
            let requirement = rest.first().cloned().unwrap_or_default();
            let standing = standing(rest.get(1).map_or("", String::as_str));
            rows.push(Row { id: id.clone(), requirement, line: number + 1, standing });
        }
    }
    rows
}

/// Rows that are malformed, or name the same requirement twice.
pub(crate) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let rows = rows(file);
    let mut say = |line, what: String| problems.push(Problem::on(&file.path, line, what));
    for Row { id, requirement, line, standing } in &rows {
        if group(id).is_none() {
            say(*line, format!("`{id}` is no requirement id"));
        }
        if !seen.insert(id) {
            say(*line, format!("{id} has a row already"));
        }
        if requirement.is_empty() {
            say(*line, format!("{id} does not say what is required"));
        }
        if let Standing::Unclear(cell) = standing {
            say(
                *line,
                format!("{id}: `{cell}` names no test in backticks, and is neither `open` nor `none: …`"),
            );
        }
    }
    for (number, line) in file.text.lines().enumerate() {
        let id = cells(line).into_iter().next().unwrap_or_default();
        let counted = rows.iter().any(|row| row.line == number + 1);
        if !counted && group(&id).is_some() {
            say(
                number + 1,
                format!("{id} is in no table `| id | requirement | proved by |` and is not counted"),
            );
        }
    }
    problems
}

/// The cells of a table row, trimmed; none if the line is no table row. `\|` does not part cells.
fn cells(line: &str) -> Vec<String> {
    let Some(row) = line.trim().strip_prefix('|') else { return Vec::new() };
    let row = row.replace("\\|", "\u{0}");
    let row = row.strip_suffix('|').unwrap_or(&row);
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// Whether this is the line `|---|---|---|` under a table's head.
fn is_rule(cells: &[String]) -> bool {
    cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|letter| matches!(letter, '-' | ':')))
}

fn standing(cell: &str) -> Standing {
    if cell.strip_prefix("none:").is_some_and(|reason| !reason.trim().is_empty()) {
        return Standing::NoTest;
    }
    if cell == "open" || cell.starts_with("open:") {
        return Standing::Open(Vec::new());
    }
    let (named, open) = cell.split_once("; open").map_or((cell, false), |(named, _)| (named, true));
    let tests: Vec<_> = named.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    match (tests.is_empty(), open) {
        (true, _) => Standing::Unclear(cell.into()),
        (false, true) => Standing::Open(tests),
        (false, false) => Standing::Proved(tests),
    }
}

/// Whose requirement this is; none if the id is malformed.
fn group(id: &str) -> Option<&'static str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(number) = id.strip_prefix('I').filter(|number| is_number(number)) {
        let invariant = !number.starts_with('0') && number.parse().is_ok_and(|number: u8| number <= 12);
        return invariant.then_some("engine");
    }
    if let Some(number) = id.strip_prefix('F').filter(|number| is_number(number)) {
        let fault = !number.starts_with('0') && number.parse().is_ok_and(|number: u8| number <= 25);
        return fault.then_some("faults");
    }
    let (prefix, number) = id.split_once('-')?;
    let app = match prefix {
        "ISMF" => "race-logger",
        "INS" => "insight",
        "IRON" => "ironflow",
        "REP" => "repensar",
        "CT" | "TR" | "GP" => "all apps",
        "E" => "engine",
        _ => return None,
    };
    is_number(number).then_some(app)
}

/// How many rows stand how.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Count {
    rows: usize,
    proved: usize,
    no_test_can: usize,
    open: usize,
}

fn count(rows: &[Row]) -> BTreeMap<&'static str, Count> {
    let mut counts: BTreeMap<_, Count> = BTreeMap::new();
    for row in rows {
        for name in [group(&row.id).unwrap_or("malformed"), "total"] {
            let count = counts.entry(name).or_default();
            count.rows += 1;
            match row.standing {
                Standing::Proved(_) => count.proved += 1,
                Standing::NoTest => count.no_test_can += 1,
                Standing::Open(_) | Standing::Unclear(_) => count.open += 1,
            }
        }
    }
    counts
}

fn table(counts: &BTreeMap<&str, Count>) -> String {
    let mut text = format!("{:12} {:>6} {:>8} {:>13} {:>6}\n", "", "rows", "proved", "no test can", "open");
    let total = counts.iter().filter(|(name, _)| **name == "total");
    for (name, count) in counts.iter().filter(|(name, _)| **name != "total").chain(total) {
        let Count { rows, proved, no_test_can, open } = count;
        text += &format!("{name:12} {rows:>6} {proved:>8} {no_test_can:>13} {open:>6}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::lines;
    use crate::tree::tree;

    const HEAD: &str = "| id | requirement | proved by |\n|---|:--|---|\n";

    fn file(rows: &str) -> File {
        tree(&[(LEDGER, &format!("{HEAD}{rows}"))]).files.remove(0)
    }

    #[test]
    fn rows_are_counted_by_app_and_standing() {
        let file = file(
            "| ISMF-001 | a \\| b | `core::a` |\n| ISMF-002 | c | open |\n| ISMF-003 | c | `core::a`; open: the page |\n\
             | I1 | d | `a.toml#b`, `c.rs::d` |\n| GP-04 | e | none: a plan, not behaviour |\n",
        );
        assert_eq!(check(&file), []);
        let counts = count(&rows(&file));
        assert_eq!(counts["race-logger"], Count { rows: 3, proved: 1, no_test_can: 0, open: 2 });
        assert_eq!(counts["engine"], Count { rows: 1, proved: 1, ..Count::default() });
        assert_eq!(counts["total"], Count { rows: 5, proved: 2, no_test_can: 1, open: 2 });
        assert!(table(&counts).trim_end().ends_with('2'), "the total comes last");
    }

    #[test]
    fn a_malformed_id_is_a_problem() {
        for id in ["ISMF1", "ISMF-", "ISMF-1a", "FOO-1", "I0", "I13", "F0", "F26", "E1", "", "x"] {
            let found = check(&file(&format!("| {id} | a | open |\n")));
            assert_eq!(lines(&found), [format!("{LEDGER}:3: `{id}` is no requirement id")]);
        }
        for id in
            ["ISMF-1", "INS-20", "IRON-003", "REP-4", "CT-5", "TR-6", "GP-7", "I1", "I12", "F1", "F25", "E-9"]
        {
            assert_eq!(check(&file(&format!("| {id} | a | open |\n"))), [], "{id}");
        }
    }

    #[test]
    fn a_repeated_an_empty_and_an_unclear_row_are_problems() {
        assert_eq!(check(&file("| I1 | a | open |\n| I1 | a | open |\n")).len(), 1);
        assert_eq!(check(&file("| I1 |  | open |\n")).len(), 1);
        for cell in ["", "later", "none:", "opened", "—"] {
            assert_eq!(check(&file(&format!("| I1 | a | {cell} |\n"))).len(), 1, "{cell}");
        }
    }

    #[test]
    fn a_row_outside_the_table_is_a_problem() {
        assert_eq!(check(&file("\n| I1 | a | open |\n")).len(), 1);
    }
}
