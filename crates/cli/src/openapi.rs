//! `openapi`: the document of the native protocol and of an app's own API, as a node of this version serves it.

use crate::{apps, failure::Exit, failure::Failure, output::Output};
use anyhow::Result;
use std::path::Path;

/// Prints the document of the app of this name, or of the first one.
pub(crate) fn run(app: Option<&str>, output: Output) -> Result<Exit> {
    let app = app.unwrap_or(apps::APPS[0].name);
    let none = || Failure::usage(format!("there is no built-in app `{app}`"));
    let routes = (apps::of(app).ok_or_else(none)?.routes)(Path::new(""));
    let document = ropeway_server::document(env!("CARGO_PKG_VERSION"), vec![routes]);
    let document = serde_json::to_value(document)?;
    output.either(&document, || serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(Exit::Done)
}
