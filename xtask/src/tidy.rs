//! `cargo xtask tidy`: runs every check and prints what it found.

use anyhow::Result;

use crate::metadata::Metadata;
use crate::problem::Problem;
use crate::tree::Tree;
use crate::{arrows, docs, files, forbidden, functions, proofs, stack};

/// True if the house is tidy.
pub(crate) fn run() -> Result<bool> {
    let tree = Tree::load()?;
    let metadata = Metadata::load()?;
    let linked = stack::linked()?;
    let checks = [
        ("arrows", arrows::check(&metadata)),
        ("stack", stack::check(&linked)),
        ("files", files::check(&tree)),
        ("functions", functions::check(&tree)),
        ("forbidden", forbidden::check(&tree)),
        ("docs", docs::check(&tree)),
        ("proofs", proofs::check(&tree)),
    ];
    let found = checks.iter().map(|(_, problems)| problems.len()).sum::<usize>();
    for (name, problems) in checks {
        report(name, problems);
    }
    println!("tidy: {} files, {found} problems", tree.files.len());
    Ok(found == 0)
}

fn report(name: &str, mut problems: Vec<Problem>) {
    problems.sort();
    match problems.len() {
        0 => println!("tidy: {name:10} ok"),
        count => println!("tidy: {name:10} {count} problems"),
    }
    for problem in problems {
        println!("  {problem}");
    }
}
