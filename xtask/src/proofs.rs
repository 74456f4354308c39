//! Every test that the ledger names exists.

use crate::functions::{functions, is_test_file};
use crate::ledger::{LEDGER, Row, Standing, check as check_rows, rows};
use crate::problem::Problem;
use crate::tree::{File, Tree};

/// Malformed rows, and rows that name a test that is not there.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(file) = tree.file(LEDGER) else {
        return vec![Problem::at(LEDGER, "this page must exist")];
    };
    let mut problems = check_rows(file);
    for Row { id, line, standing, .. } in rows(file) {
        let (Standing::Proved(tests) | Standing::Open(tests)) = standing else { continue };
        for test in tests {
            if let Err(why) = find(tree, &test) {
                problems.push(Problem::on(LEDGER, line, format!("{id}: `{test}`: {why}")));
            }
        }
    }
    problems
}

/// Finds `crate::path::test`, `crates/x/tests/y.rs::test` or `cases.toml#case`; else says what is missing.
fn find(tree: &Tree, test: &str) -> Result<(), String> {
    if let Some((file, case)) = test.split_once(".toml#") {
        return find_case(tree, &format!("{file}.toml"), case);
    }
    if let Some((file, path)) = test.split_once(".rs::") {
        let path: Vec<_> = path.split("::").collect();
        let file = tree.file(&format!("{file}.rs")).ok_or("there is no such file")?;
        return if holds_test(file, &path) { Ok(()) } else { Err("that file has no such test".into()) };
    }
    match test.split("::").collect::<Vec<_>>().as_slice() {
        [name, path @ ..] if !path.is_empty() => find_in_crate(tree, name, path),
        _ => Err("write `crate::path::test`, `crates/x/tests/y.rs::test` or `cases.toml#case`".into()),
    }
}

fn find_in_crate(tree: &Tree, name: &str, path: &[&str]) -> Result<(), String> {
    let directory = crate_directory(tree, name).ok_or_else(|| format!("there is no crate {name}"))?;
    let files = tree.rust().filter(|file| file.path.starts_with(&directory));
    let found = files.into_iter().any(|file| holds_test(file, path));
    if found { Ok(()) } else { Err(format!("no such test in {directory}")) }
}

/// The directory, with its last `/`, of the crate with this name, spelled with `-` or `_`.
fn crate_directory(tree: &Tree, name: &str) -> Option<String> {
    let spelled = |name: &str| name.replace('-', "_");
    tree.files.iter().find_map(|file| {
        let directory = file.path.strip_suffix("Cargo.toml").filter(|directory| !directory.is_empty())?;
        let manifest: toml::Table = file.text.parse().ok()?;
        let own = manifest.get("package")?.get("name")?.as_str()?;
        (spelled(own) == spelled(name)).then(|| directory.to_owned())
    })
}

/// Whether the file has the test at the end of this path, each module before it being a part of the file's
/// own path or a `mod` in it. A conformance suite's cases are tests that a harness of our own runs, by function or by quoted name.
fn holds_test(file: &File, path: &[&str]) -> bool {
    let Some((name, modules)) = path.split_last() else { return false };
    let suite = is_test_file(&file.path) || file.path.contains("conformance");
    let function = functions(file).iter().any(|function| function.name == *name && (function.test || suite));
    let quoted = suite && file.text.contains(&format!("\"{name}\""));
    let module_is_here = |module: &&str| {
        let in_path = file.path.trim_end_matches(".rs").split('/').any(|part| part == *module);
        in_path || file.source().code().contains(&format!("mod {module}"))
    };
    (function || quoted) && modules.iter().all(module_is_here)
}

fn find_case(tree: &Tree, path: &str, case: &str) -> Result<(), String> {
    let suffix = format!("/{path}");
    let mut files = tree.files.iter().filter(|file| file.path == path || file.path.ends_with(&suffix));
    let file = files.next().ok_or("there is no such file")?;
    if files.next().is_some() {
        return Err("several files are named so: give the whole path".into());
    }
    let table: toml::Table = file.text.parse().map_err(|error| format!("not TOML: {error}"))?;
    if names_case(&toml::Value::Table(table), case, 2) {
        Ok(())
    } else {
        Err("that file has no such case".into())
    }
}

/// Whether a table in here has this case as its key, or as its `name`; keys count down to this depth.
fn names_case(value: &toml::Value, case: &str, depth: usize) -> bool {
    match value {
        toml::Value::Array(items) => items.iter().any(|item| names_case(item, case, depth)),
        toml::Value::Table(table) => {
            let named = table.get("name").and_then(toml::Value::as_str) == Some(case);
            let keyed = table.get(case).is_some_and(toml::Value::is_table);
            let deeper = |inner| depth > 1 && names_case(inner, case, depth - 1);
            named || keyed || table.values().any(deeper)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    fn found(test: &str) -> Result<(), String> {
        let ledger = format!("| id | requirement | proved by |\n|---|---|---|\n| I1 | a | `{test}` |\n");
        let tree = tree(&[
            (LEDGER, &ledger),
            ("crates/core/Cargo.toml", "[package]\nname = \"ropeway-core\"\n"),
            (
                "crates/core/src/ingest/merge.rs",
                "fn plain() {}\n#[cfg(test)]\nmod tests {\n#[test]\nfn a_law() {}\n}",
            ),
            ("crates/store/Cargo.toml", "[package]\nname = \"ropeway-store\"\n"),
            ("crates/store/src/conformance/feed.rs", "pub async fn never_skips() {}"),
            ("crates/cli/tests/crash.rs", "#[test]\nfn kill() {}\n// fn commented() {}\n"),
            ("crates/core/tests/cases/twins.toml", "[[case]]\nname = \"21 s apart\"\n[far]\nname = \"x\"\n"),
            ("apps/a/cases/same.toml", ""),
            ("apps/b/cases/same.toml", ""),
        ]);
        match check(&tree).first() {
            None => Ok(()),
            Some(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn tests_that_exist_are_found() {
        for test in [
            "ropeway_core::ingest::merge::tests::a_law",
            "ropeway-core::a_law",
            "ropeway_store::conformance::feed::never_skips",
            "crates/cli/tests/crash.rs::kill",
            "crates/core/tests/cases/twins.toml#21 s apart",
            "twins.toml#far",
        ] {
            assert_eq!(found(test), Ok(()), "{test}");
        }
    }

    #[test]
    fn tests_that_do_not_are_problems() {
        for test in [
            "ropeway_core::ingest::merge::tests::gone",
            "ropeway_core::ingest::merge::plain",
            "ropeway_core::absorb::tests::a_law",
            "ropeway_gone::a_law",
            "ropeway_store::a_law",
            "crates/cli/tests/crash.rs::commented",
            "crates/cli/tests/gone.rs::kill",
            "twins.toml#gone",
            "gone.toml#far",
            "same.toml#any",
            "a_law",
            "ropeway demo --once",
        ] {
            assert!(found(test).is_err(), "{test}");
        }
    }

    #[test]
    fn a_missing_ledger_is_a_problem() {
        assert_eq!(check(&tree(&[])).len(), 1);
    }
}
