//! What the demo shows: steps as they happen, outcomes beside what was expected, and the summary. For
//! people steps go to standard error and tables to standard output; for programs each is a line of JSON.

use anyhow::Result;
use comfy_table::{Cell, Color, ContentArrangement, Table, TableStyle, presets};
use ropeway_core::{digest::Digest, time::Time};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};

/// Something that was expected, and what is really there.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// What it is about.
    pub(super) what: String,
    /// Where it was made.
    pub(super) made: String,
    /// What should be there.
    pub(super) expected: String,
    /// What is there.
    pub(super) seen: String,
}

impl Outcome {
    /// Whether they are the same.
    pub(super) fn is_good(&self) -> bool {
        self.expected == self.seen
    }
}

/// What became of one case of the day.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) record: String,
    pub(super) case: String,
    pub(super) made: &'static str,
    pub(super) verdicts: String,
    pub(super) now: String,
    pub(super) reports: usize,
    /// Whether both nodes hold the same.
    pub(super) alike: bool,
}

/// Where everything is shown.
pub(super) struct Show<'w> {
    out: &'w mut (dyn Write + Send),
    json: bool,
    pub(super) outcomes: Vec<Outcome>,
}

impl<'w> Show<'w> {
    pub(super) fn new(out: &'w mut (dyn Write + Send), json: bool) -> Self {
        Self { out, json, outcomes: Vec::new() }
    }

    /// Something happens.
    pub(super) fn step(&mut self, at: Time, text: &str) -> Result<()> {
        if self.json {
            return self.object(&json!({ "event": "step", "at": at, "text": text }));
        }
        Ok(writeln!(io::stderr(), "{}  {text}", in_verbier(at))?)
    }

    /// Notes an outcome. It is shown with the others at the end.
    pub(super) fn outcome(&mut self, what: &str, made: &str, expected: String, seen: String) -> Result<()> {
        let outcome = Outcome { what: what.into(), made: made.into(), expected, seen };
        if self.json {
            let Outcome { what, made, expected, seen } = &outcome;
            let ok = outcome.is_good();
            self.object(&json!({
                "event": "outcome", "what": what, "made": made, "expected": expected, "seen": seen, "ok": ok,
            }))?;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    /// A line of text, or the same as an object for programs.
    pub(super) fn say(&mut self, text: &str, object: &Value) -> Result<()> {
        if self.json {
            return self.object(object);
        }
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// The table of all outcomes. In JSON they were shown as they came.
    pub(super) fn outcomes(&mut self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let mut table = table(
            &["what", "where made", "expected outcome", "seen outcome", ""],
            presets::UTF8_HORIZONTAL_ONLY,
        );
        for outcome in &self.outcomes {
            let Outcome { what, made, expected, seen } = outcome;
            let row = [what, made, expected, seen].map(Cell::new);
            table.add_row(row.into_iter().chain([mark(outcome.is_good())]));
        }
        Ok(writeln!(self.out, "\nWhat was to happen, and what is in both nodes\n{table}")?)
    }

    /// The table of all cases, record by record.
    pub(super) fn cases(&mut self, lines: &[Line]) -> Result<()> {
        if self.json {
            for line in lines {
                let Line { record, case, made, verdicts, now, reports, alike } = line;
                self.object(&json!({
                    "event": "record", "id": record, "case": case, "made": made, "verdicts": verdicts, "now": now,
                    "reports": reports, "alike": alike,
                }))?;
            }
            return Ok(());
        }
        let header = ["record", "case", "made at", "verdicts", "now", "reports", "alike"];
        let mut table = table(&header, presets::UTF8_BORDERS_ONLY);
        for line in lines {
            table.add_row(vec![
                Cell::new(short(&line.record)),
                Cell::new(&line.case),
                Cell::new(line.made),
                Cell::new(&line.verdicts),
                Cell::new(&line.now),
                Cell::new(line.reports),
                mark(line.alike),
            ]);
        }
        Ok(writeln!(self.out, "\nRecord by record\n{table}")?)
    }

    fn object(&mut self, object: &Value) -> Result<()> {
        writeln!(self.out, "{object}")?;
        Ok(self.out.flush()?)
    }
}

/// The end of an id: enough to tell the records of one day apart.
pub(super) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(6)..).unwrap_or(id)
}

/// A digest as one word: how many records count, and the sum of their hashes.
pub(super) fn digest_word(digest: Digest) -> String {
    format!("{}:{:016x}", digest.count, digest.sum.cast_unsigned())
}

/// Hours and minutes as the clock on the wall in Verbier shows them, an hour ahead of UTC.
pub(super) fn in_verbier(at: Time) -> String {
    let minutes = at.0.div_euclid(60_000_000) + 60;
    format!("{:02}:{:02}", minutes.div_euclid(60).rem_euclid(24), minutes.rem_euclid(60))
}

fn mark(good: bool) -> Cell {
    if good { Cell::new("✓").fg(Color::Green) } else { Cell::new("✗").fg(Color::Red) }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the cli may read the environment: NO_COLOR is a word to the terminal"
)]
fn table(header: &[&str], style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header.to_vec());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.force_no_tty().set_width(170);
    } else if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        let width = table.width();
        table.force_no_tty();
        if let Some(width) = width {
            table.set_width(width);
        }
    }
    table
}
