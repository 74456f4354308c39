//! Every request and answer that the race logger's documents show, replayed word for word against the running
//! binary. The stories are files under `apps/race-logger/tests/documented/`.

use crate::{
    described,
    rig::{Node, call},
};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    #[serde(default)]
    write: Vec<Write>,
    step: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    collection: String,
    id: String,
    data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    row: String,
    method: String,
    path: String,
    #[serde(default)]
    body: String,
    status: u16,
    answer: String,
}

/// Values by the names that a story gives them: `<int:existing>`.
type Names = BTreeMap<String, Value>;

/// Replays one file.
fn replay(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../apps/race-logger/tests/documented");
    let text = fs::read_to_string(path.join(file)).unwrap();
    let story: Story = toml::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = Node::new(dir.path().join("cloud"));
    for Write { collection, id, data } in &story.write {
        cloud.write(collection, id, serde_json::from_str(data).unwrap());
    }
    let added = cloud.ask(&["device", "add", "Start Line Pi", "--role", "admin"]);
    let token = added["api_token"].as_str().unwrap();
    let url = cloud.serve(&[]);
    let mut names = Names::new();
    for Step { row, method, path, body, status, answer } in story.step {
        let path = fill_in(&path, &names);
        let (came, text) =
            call(&url, &method, &path, &[("authorization", &format!("Bearer {token}"))], &body);
        described::is_documented(&method, &path, came);
        let got: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{row}: {e}: {text}"));
        assert_eq!(came, status, "{file}: {row}: {got:#}");
        let wanted: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{row}: {e}"));
        if let Err(why) = matches(&wanted, &got, &mut names) {
            panic!("{file}: {row}: {why}\nwanted {wanted:#}\ngot {got:#}");
        }
    }
}

/// Puts what earlier answers named into an address: `{existing}`.
fn fill_in(path: &str, names: &Names) -> String {
    names.iter().fold(path.to_owned(), |path, (name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        path.replace(&format!("{{{name}}}"), &text)
    })
}

/// Whether everything that is wanted is there.
fn matches(wanted: &Value, got: &Value, names: &mut Names) -> Result<(), String> {
    match (wanted, got) {
        (Value::String(text), got) if text.starts_with('<') && text.ends_with('>') => {
            let inner = &text[1..text.len() - 1];
            let (kind, name) = inner.split_once(':').map_or((inner, None), |(kind, name)| (kind, Some(name)));
            let fits = match kind {
                "int" => got.is_i64(),
                "text" => got.is_string(),
                "any" => true,
                _ => got == wanted,
            };
            let before = name.map(|name| names.entry(name.to_owned()).or_insert_with(|| got.clone()));
            match before {
                _ if !fits => Err(format!("{got} is no {kind}")),
                Some(before) if before != got => Err(format!("{text} was {before} and is {got}")),
                _ => Ok(()),
            }
        }
        (Value::Object(wanted), Value::Object(got)) => wanted.iter().try_for_each(|(key, value)| {
            let there = got.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
            matches(value, there, names).map_err(|why| format!("{key}: {why}"))
        }),
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            wanted.iter().zip(got).try_for_each(|(wanted, got)| matches(wanted, got, names))
        }
        (wanted, got) if wanted == got => Ok(()),
        (wanted, got) => Err(format!("{wanted} is wanted, {got} came")),
    }
}

/// ISMF-088, ISMF-089, ISMF-092, ISMF-078: the documented uploads.
#[test]
pub(crate) fn the_documented_uploads() {
    replay("upload.toml");
}

/// ISMF-132, ISMF-133, ISMF-134, ISMF-090, ISMF-091, ISMF-157: the documents' own tests of the three layers.
#[test]
pub(crate) fn the_documented_layers() {
    replay("layers.toml");
}

/// ISMF-086, ISMF-087, ISMF-094, ISMF-038, CT-20: the documented download.
#[test]
pub(crate) fn the_documented_download() {
    replay("download.toml");
}

/// ISMF-125, ISMF-126, ISMF-127, ISMF-128, ISMF-154, ISMF-155: two decisions and their answers.
#[test]
pub(crate) fn the_documented_decisions() {
    replay("decisions.toml");
}
