//! `openapi`: the document of the native protocol, as a node of this version serves it.

use crate::{failure::Exit, output::Output};
use anyhow::Result;

/// Prints the document.
pub(crate) fn run(output: Output) -> Result<Exit> {
    let document = serde_json::to_value(ropeway_server::document(env!("CARGO_PKG_VERSION"), Vec::new()))?;
    output.either(&document, || serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(Exit::Done)
}
