//! What a command prints: lines and tables for people, or JSON for programs. Standard output carries the
//! result and nothing else; notes go to standard error.

use crate::failure::Told;
use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One JSON document on one line, or else the text.
    pub(crate) fn either(
        self,
        json: &(impl Serialize + ?Sized),
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.json { self.document(json) } else { self.line(&text()) }
    }

    /// One JSON document on one line.
    pub(crate) fn document(self, json: &(impl Serialize + ?Sized)) -> Result<()> {
        self.line(&serde_json::to_string(json)?)
    }

    /// One line of text, flushed: whoever waits for it gets it now.
    pub(crate) fn line(self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// A table, or one JSON document with the same in full.
    pub(crate) fn table(
        &self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        json: &(impl Serialize + ?Sized),
    ) -> Result<()> {
        if self.json {
            return self.document(json);
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.to_vec()).add_rows(rows);
        if io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        self.line(&table.to_string())
    }

    /// A note for people beside the result.
    pub(crate) fn note(self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// How a command failed.
    pub(crate) fn failure(self, told: &Told) {
        if self.json {
            let _ = self.document(&told.json());
            return;
        }
        self.note(&format!("error: {}", told.what));
        if let Some(next) = &told.next {
            self.note(&format!("next:  {next}"));
        }
    }
}
