//! Every SQL statement in the sources is prepared on the database that it is for: one that names a column that is
//! not there, or a type that does not fit, fails here and not on the day when it is first needed.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod server;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use ropeway_core::id::Epoch;
use ropeway_store::{Options, PostgresOptions, PostgresStore, SqliteStore, conformance::hand::NOW};
use server::Database;
use std::{collections::BTreeMap, fs, path::Path, str::FromStr};

/// What a statement begins with.
const VERBS: [&str; 5] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];

/// A macro that makes text: its arguments' names and what it becomes.
type Macros = BTreeMap<String, (Vec<String>, TokenStream)>;

/// The text constants of all files of a directory, as `file::NAME`, in the order in which they stand there.
fn constants(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(directory);
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |file: &Path| TokenStream::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut shared = Macros::new();
    find_macros(read(files.iter().find(|file| file.ends_with("rows.rs")).unwrap()), &mut shared);
    let mut all = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut macros = shared.clone();
        find_macros(read(&file), &mut macros);
        find_constants(read(&file), &mut |constant, value| {
            let text = text(value.into_iter().collect(), &macros, &BTreeMap::new());
            all.push((format!("{name}::{constant}"), text));
        });
    }
    all
}

/// Finds `macro_rules! name { ($a:literal, …) => { … } }`.
fn find_macros(tokens: TokenStream, found: &mut Macros) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for window in tokens.windows(4) {
        let [TokenTree::Ident(word), _, TokenTree::Ident(name), TokenTree::Group(rules)] = window else {
            continue;
        };
        if word != "macro_rules" {
            continue;
        }
        let groups: Vec<Group> = rules
            .stream()
            .into_iter()
            .filter_map(|token| if let TokenTree::Group(group) = token { Some(group) } else { None })
            .collect();
        let named = |window: &[TokenTree]| match window {
            [TokenTree::Punct(dollar), TokenTree::Ident(name)] if dollar.as_char() == '$' => {
                Some(name.to_string())
            }
            _ => None,
        };
        let pattern: Vec<TokenTree> = groups[0].stream().into_iter().collect();
        let arguments = pattern.windows(2).filter_map(named).collect();
        found.insert(name.to_string(), (arguments, groups[1].stream()));
    }
}

/// Finds `const NAME: &str = …;`, those within functions too.
fn find_constants(tokens: TokenStream, found: &mut dyn FnMut(String, Vec<TokenTree>)) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.to_string() == word);
    for at in 0..tokens.len() {
        if is(at, "const") && is(at + 2, ":") && is(at + 3, "&") && is(at + 4, "str") && is(at + 5, "=") {
            let value = tokens[at + 6..].iter().take_while(|token| token.to_string() != ";").cloned();
            found(tokens[at + 1].to_string(), value.collect());
        }
        if let TokenTree::Group(group) = &tokens[at] {
            find_constants(group.stream(), found);
        }
    }
}

/// The text that these tokens are: a literal, a call of a macro, or several of them behind commas.
fn text(tokens: Vec<TokenTree>, macros: &Macros, bound: &BTreeMap<String, String>) -> String {
    let mut tokens = tokens.into_iter().peekable();
    let mut whole = String::new();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Literal(literal) => match syn::Lit::new(literal) {
                syn::Lit::Str(text) => whole.push_str(&text.value()),
                _ => panic!("a number is no text"),
            },
            TokenTree::Punct(punct) if punct.as_char() == '$' => {
                whole.push_str(&bound[&tokens.next().unwrap().to_string()]);
            }
            TokenTree::Ident(name) if tokens.next_if(|token| token.to_string() == "!").is_some() => {
                let Some(TokenTree::Group(given)) = tokens.next() else { panic!("{name} is given nothing") };
                whole.push_str(&called(&name.to_string(), &given, macros, bound));
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                whole.push_str(&text(group.stream().into_iter().collect(), macros, bound));
            }
            // Commas, and the path before a macro's name.
            TokenTree::Punct(_) | TokenTree::Ident(_) => {}
            TokenTree::Group(group) => panic!("{group} is not understood: write the text in another way"),
        }
    }
    whole
}

fn called(name: &str, given: &Group, macros: &Macros, bound: &BTreeMap<String, String>) -> String {
    let given: Vec<TokenTree> = given.stream().into_iter().collect();
    if name == "concat" {
        return text(given, macros, bound);
    }
    let (names, body) = macros.get(name).unwrap_or_else(|| panic!("the macro {name} is not in sight"));
    let values = given.split(|token| token.to_string() == ",").map(|one| text(one.to_vec(), macros, bound));
    let inner: BTreeMap<String, String> = names.iter().cloned().zip(values).collect();
    text(body.clone().into_iter().collect(), macros, &inner)
}

/// The statements among the constants. What ends in `VALUES` is put together with the row behind it. Views are
/// made of a profile, and their own test makes them.
fn statements(directory: &str) -> Vec<(String, String)> {
    let all = constants(directory);
    let mut found = Vec::new();
    for (at, (name, text)) in all.iter().enumerate() {
        let is_statement = VERBS.iter().any(|verb| text.starts_with(verb));
        if is_statement && !name.starts_with("views::") {
            let row = if text.ends_with("VALUES") { all[at + 1].1.as_str() } else { "" };
            found.push((name.clone(), format!("{text} {row}")));
        }
    }
    found
}

/// No statement hides from the others: text that begins like one stands in a constant.
fn no_statement_stands_elsewhere(directory: &str, made: &[&str]) {
    fn literals(tokens: TokenStream, within: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(word) if word == "const" || word == "macro_rules" => {
                    while at < tokens.len() && !matches!(tokens[at].to_string().as_str(), ";" | "}") {
                        if word == "macro_rules" && matches!(tokens[at], TokenTree::Group(_)) {
                            break;
                        }
                        at += 1;
                    }
                }
                // Tests of a room write to tables of their own.
                TokenTree::Ident(word) if word == "mod" && tokens[at + 1].to_string() == "tests" => at += 2,
                TokenTree::Literal(literal) => {
                    if let syn::Lit::Str(text) = syn::Lit::new(literal.clone()) {
                        within.push(text.value());
                    }
                }
                TokenTree::Group(group) => literals(group.stream(), within),
                _ => {}
            }
            at += 1;
        }
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(directory);
    for file in fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        if made.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let mut within = Vec::new();
        literals(TokenStream::from_str(&fs::read_to_string(&path).unwrap()).unwrap(), &mut within);
        for text in within {
            let is_statement = VERBS.iter().any(|verb| text.starts_with(verb));
            assert!(!is_statement, "{}: put this into a constant: {text}", path.display());
        }
    }
}

/// Made of names at run time, and run by other tests: views of a profile, tables that are moved.
const MADE: [&str; 2] = ["views.rs", "transfer.rs"];

#[test]
fn sqlite_statements_are_all_prepared() {
    no_statement_stands_elsewhere("sqlite", &MADE);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.db");
    drop(SqliteStore::open(&file, Options::new(Epoch::trusted("one"), NOW)).unwrap());
    let db = rusqlite::Connection::open(&file).unwrap();
    let all = statements("sqlite");
    for (name, sql) in &all {
        if let Err(error) = db.prepare(sql) {
            panic!("{name}: {error}: {sql}");
        }
    }
    assert!(all.len() > 100, "only {} statements were found", all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_statements_are_all_prepared() {
    no_statement_stands_elsewhere("postgres", &MADE);
    let database = Database::create().await;
    let options = PostgresOptions::new(database.url(), Epoch::trusted("one"), NOW);
    drop(PostgresStore::open(options).await.unwrap());
    let client = database.connect().await;
    let all = statements("postgres");
    for (name, sql) in &all {
        if let Err(error) = client.prepare(sql).await {
            panic!("{name}: {}: {sql}", std::error::Error::source(&error).unwrap());
        }
    }
    assert!(all.len() > 100, "only {} statements were found", all.len());
}
