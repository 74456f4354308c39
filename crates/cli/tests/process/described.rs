//! The OpenAPI document of the race logger's API: whatever a test asks there must be in it, with the status that
//! came back.

use crate::rig::{Ran, ropeway};
use serde_json::Value;
use std::{collections::BTreeSet, sync::OnceLock};

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT
        .get_or_init(|| Ran::from(ropeway().args(["openapi", "--json"]).output().unwrap()).exits(0).json())
}

/// Every path of the app's own API, with its methods.
fn own() -> impl Iterator<Item = (&'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap().iter();
    paths.filter_map(|(path, methods)| Some((path.strip_prefix("/api/v1/sync")?, methods)))
}

/// The path of the document that a router takes for this one: a literal segment comes before a name.
fn described(path: &str) -> Option<&'static Value> {
    let asked: Vec<&str> = path.split('?').next().unwrap_or(path).split('/').collect();
    let fits = |named: &str| {
        let named: Vec<&str> = named.split('/').collect();
        let each = |(named, asked): (&&str, &&str)| named.starts_with('{') || named == asked;
        named.len() == asked.len() && named.iter().zip(&asked).all(each)
    };
    let names = |path: &&str| path.matches('{').count();
    let best = own().filter(|(path, _)| fits(path)).min_by_key(|(path, _)| names(path));
    best.map(|(_, methods)| methods)
}

/// Fails where the document does not have this answer. A method that an address does not take has none.
#[track_caller]
pub(crate) fn is_documented(method: &str, path: &str, status: u16) {
    let Some(own) = path.strip_prefix("/api/v1/sync").filter(|_| status != 405) else { return };
    let Some(methods) = described(own) else {
        assert_eq!(status, 404, "{method} {path} is in no document");
        return;
    };
    let answers = &methods[method.to_ascii_lowercase()]["responses"];
    assert!(
        answers[status.to_string()].is_object(),
        "{method} {path} answers {status}, and may: {answers:#}"
    );
}

/// The guide's table and the document name the same addresses, and each operation has a name of its own.
#[test]
fn the_guide_and_the_document_name_the_same_addresses() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/race-logger-api.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let cells = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mut told = BTreeSet::new();
    for cell in cells {
        for address in cell.split('`').filter(|part| part.starts_with("GET") || part.starts_with("POST")) {
            let (method, path) = address.split_once(' ').unwrap();
            told.insert((method.to_ascii_lowercase(), path.split('?').next().unwrap().to_owned()));
        }
    }
    let in_document: BTreeSet<(String, String)> = own()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.to_owned()))
        })
        .collect();
    assert_eq!(told, in_document);
    let operations = document()["paths"].as_object().unwrap().values();
    let names = operations.flat_map(|methods| methods.as_object().unwrap().values());
    let names: Vec<&str> = names.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}
