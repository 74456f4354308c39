//! Every mistake a profile can have: the snippets of `profile_mistakes.txt`, each with all its mistakes.

use ropeway_core::profile::parse;

/// Stands before every snippet whose title does not end in `(bare)`.
const PRELUDE: &str = "name = \"app\"\nroles.boss = { write = \"*\", resolve = true }\n";

struct Case {
    title: String,
    snippet: String,
    expected: Vec<String>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("profile_mistakes.txt");
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { title: title.to_owned(), snippet: String::new(), expected: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("=> ") {
                Some(mistake) => case.expected.push(mistake.to_owned()),
                None if line.is_empty() => {}
                None => case.snippet.push_str(&format!("{line}\n")),
            }
        }
    }
    cases
}

/// The mistakes in a snippet, its own first line counted as 1.
fn mistakes(case: &Case) -> Vec<String> {
    let prelude = if case.title.ends_with("(bare)") { "" } else { PRELUDE };
    let found = parse(&format!("{prelude}{}", case.snippet), "app.toml").err().unwrap_or_default();
    let before = prelude.lines().count();
    let shown = found.iter().map(|m| {
        assert_eq!(m.to_string(), format!("app.toml:{}:{}: {}", m.line, m.column, m.text));
        format!("{}:{}: {}", m.line.saturating_sub(before), m.column, m.text)
    });
    shown.collect()
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let cases = cases();
    assert!(cases.len() > 50, "only {} cases were read", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let found = mistakes(case);
        if found != case.expected || found.is_empty() {
            let shown: String = found.iter().map(|m| format!("=> {m}\n")).collect();
            wrong.push_str(&format!("## {}\n{}{shown}\n", case.title, case.snippet));
        }
    }
    assert!(wrong.is_empty(), "these cases are now:\n{wrong}");
}
