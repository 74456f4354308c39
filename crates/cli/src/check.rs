//! `check`: reads a profile or a configuration file and shows every mistake with its place.

use crate::{
    config,
    failure::{Exit, Failure},
    limits::{self, Limits},
    output::Output,
};
use anyhow::Result;
use ropeway_core::profile::{self, Mistake};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ropeway check my-app.toml\n  ropeway check ropeway.toml\n  ropeway check --limits"
)]
pub(crate) struct CheckArgs {
    /// A profile or a ropeway.toml
    #[arg(required_unless_present = "limits")]
    file: Option<PathBuf>,
    /// Instead of a file: every limit that can be set, with its default
    #[arg(long, conflicts_with = "file")]
    limits: bool,
}

/// Checks a file. It opens no node.
pub(crate) fn run(args: &CheckArgs, output: Output) -> Result<Exit> {
    let Some(file) = &args.file else { return list_limits(output) };
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
    if is_configuration(&text) {
        return match config::check(&text, &name) {
            Ok(()) => {
                tell(&name, "configuration", &format!("{name}: a configuration without mistakes"), output)
            }
            Err(mistake) => refuse(&name, "configuration", &[json!({ "text": mistake })], &mistake, output),
        };
    }
    match profile::parse(&text, &name) {
        Ok(profile) => {
            let (app, version, count) = (&profile.name, profile.version, profile.collections.len());
            let said =
                format!("{name}: profile `{app}` version {version}, {count} collections, without mistakes");
            tell(&name, "profile", &said, output)
        }
        Err(mistakes) => {
            let said = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let json: Vec<Value> = mistakes.iter().map(mistake).collect();
            refuse(&name, "profile", &json, &said, output)
        }
    }
}

fn list_limits(output: Output) -> Result<Exit> {
    let limits = Limits::default();
    let rows = limits.listed().map(|(bound, value)| {
        let variable = format!("{}{}", limits::PREFIX, bound.name.to_ascii_uppercase());
        vec![bound.name.to_owned(), variable, value.to_string(), bound.what.to_owned()]
    });
    let json: Vec<Value> = limits
        .listed()
        .map(|(bound, value)| json!({ "name": bound.name, "default": value, "what": bound.what }))
        .collect();
    output.table(&["[limits]", "environment", "default", "what"], rows.collect(), &json)?;
    Ok(Exit::Done)
}

/// A configuration has none of the keys without which there is no profile.
fn is_configuration(text: &str) -> bool {
    let keys = ["name", "version", "resolver", "collections", "roles", "views"];
    text.parse::<toml::Table>().is_ok_and(|table| keys.iter().all(|key| !table.contains_key(*key)))
}

fn mistake(mistake: &Mistake) -> Value {
    json!({ "file": mistake.file, "line": mistake.line, "column": mistake.column, "text": mistake.text })
}

fn tell(file: &str, kind: &str, text: &str, output: Output) -> Result<Exit> {
    output.either(&json!({ "ok": true, "file": file, "kind": kind, "mistakes": [] }), || text.to_owned())?;
    Ok(Exit::Done)
}

fn refuse(file: &str, kind: &str, mistakes: &[Value], text: &str, output: Output) -> Result<Exit> {
    output.either(&json!({ "ok": false, "file": file, "kind": kind, "mistakes": mistakes }), || {
        text.to_owned()
    })?;
    Ok(Exit::Failed)
}
