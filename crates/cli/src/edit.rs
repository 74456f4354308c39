//! `write` and `delete`: local edits at the node's own desk. Exit 0 means durable.

use crate::{
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show,
};
use anyhow::{Context, Result};
use ropeway_core::{
    change::Op,
    doc::Fields,
    id::{ChangeId, Collection, Key, RecordId},
    receipt::Receipt,
};
use ropeway_replica::{Desk, Edit};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

/// Who makes an edit.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeskArgs {
    /// The person, as it will stand in history
    #[arg(long)]
    pub(crate) person: Option<String>,
    /// Their role in the profile [default: the one that may write everything]
    #[arg(long)]
    pub(crate) role: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ropeway write incident '{\"race\":\"race-1\",\"bib_number\":34}'
  ropeway write incident incident-7 '{\"description\":\"skis badly fixed\"}' --person 'Referee 2'
  ropeway dump --data-dir OLD | ropeway write --data-dir NEW --upstream URL --from -

Exit 0 says that the edit is durable here, whatever the network does.")]
pub(crate) struct WriteArgs {
    /// COLLECTION [ID] JSON: the named fields are written, others stay; JSON `-` reads standard input
    #[arg(value_names = ["COLLECTION", "ID", "JSON"], num_args = 1..=3, required_unless_present = "from")]
    what: Vec<String>,
    /// A file with one edit a line, {"collection":…,"id":…,"data":{…}}; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "what")]
    from: Option<String>,
    /// The version that the person saw [default: the one stored now]
    #[arg(long, conflicts_with = "from")]
    version: Option<u64>,
    /// An id for this change, so that the command may be repeated safely
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    change: Option<String>,
    /// The upstream of a node that begins here [default: as configured, or the one followed before]
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    desk: DeskArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ropeway delete report report-12 --person 'Jury president'")]
pub(crate) struct DeleteArgs {
    /// Its collection
    collection: String,
    /// Its id
    id: String,
    /// The version that the person saw [default: the one stored now]
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    desk: DeskArgs,
}

/// One line of `--from`: also what `dump` prints.
#[derive(Debug, Deserialize)]
struct Line {
    collection: Collection,
    #[serde(default)]
    id: Option<RecordId>,
    data: Fields,
    #[serde(default)]
    change: Option<ChangeId>,
    #[serde(default)]
    state: Option<String>,
}

/// Writes one record, or one a line.
pub(crate) async fn write(args: WriteArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let desk = opened.desk(
        args.desk.person.clone(),
        args.desk.role.clone(),
        args.what.first().map(String::as_str),
    )?;
    if let Some(from) = &args.from {
        return write_lines(from, opened, &desk, output).await;
    }
    let (collection, id, json) = match args.what.as_slice() {
        [collection, json] => (collection, None, json),
        [collection, id, json] => (collection, Some(id), json),
        _ => {
            return Err(Failure::usage("write COLLECTION [ID] JSON")
                .next("see `ropeway write --help`")
                .into());
        }
    };
    let collection = Collection::parse(collection).map_err(|e| Failure::usage(e.to_string()))?;
    let record = id.map(|id| RecordId::parse(id)).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let change =
        args.change.map(|id| ChangeId::parse(&id)).transpose().map_err(|e| Failure::usage(e.to_string()))?;
    let fields = fields(json)?;
    let op = op_for(record.as_ref());
    let edit = Edit { change, collection, record, op, fields, version: args.version };
    let receipt = opened.node.write(&opened.space, &desk, edit).await?;
    tell(&receipt, output)
}

/// Deletes a record.
pub(crate) async fn delete(args: DeleteArgs, opened: &Opened, output: Output) -> Result<Exit> {
    let desk = opened.desk(args.desk.person, args.desk.role, Some(&args.collection))?;
    let Key { collection, id } = show::key(&args.collection, &args.id)?;
    let (op, record, fields) = (Op::Delete, Some(id), Fields::new());
    let edit = Edit { change: None, collection, record, op, fields, version: args.version };
    let receipt = opened.node.write(&opened.space, &desk, edit).await?;
    tell(&receipt, output)
}

/// Each line is its own edit, durable before its receipt is printed. A refused one does not stop the rest.
async fn write_lines(from: &str, opened: &Opened, desk: &Desk, output: Output) -> Result<Exit> {
    let mut worst = Exit::Done;
    for (number, text) in lines(from)?.enumerate() {
        let text = text.with_context(|| format!("{from} cannot be read"))?;
        if text.trim().is_empty() {
            continue;
        }
        let place = || format!("{from}:{}: not an edit; every line before this one is durable", number + 1);
        let line: Line =
            serde_json::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", place())))?;
        if line.state.as_deref().is_some_and(|s| s != "live")
            || &*line.collection == ropeway_core::id::CONFLICT
        {
            continue;
        }
        let op = op_for(line.id.as_ref());
        let Line { change, collection, id: record, data: fields, .. } = line;
        let edit = Edit { change, collection, record, op, fields, version: None };
        let receipt = opened.node.write(&opened.space, desk, edit).await.with_context(place)?;
        worst = match tell(&receipt, output)? {
            Exit::Done => worst,
            _ => Exit::Partly,
        };
    }
    Ok(worst)
}

fn lines(from: &str) -> Result<Box<dyn Iterator<Item = io::Result<String>>>> {
    if from == "-" {
        return Ok(Box::new(io::stdin().lines()));
    }
    let file = File::open(from).map_err(|e| Failure::usage(format!("{from}: {e}")))?;
    Ok(Box::new(BufReader::new(file).lines()))
}

/// A patch of a record that is not here creates it: the same command means the same, whoever was there first.
fn op_for(id: Option<&RecordId>) -> Op {
    if id.is_some() { Op::Patch } else { Op::Create }
}

/// Reads the fields of an edit.
pub(crate) fn fields(json: &str) -> Result<Fields> {
    let mut text = json.to_owned();
    if json == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text)?;
    }
    let usage =
        |e| Failure::usage(format!("the fields must be a JSON object like {{\"bib_number\":34}}: {e}"));
    Ok(serde_json::from_str(&text).map_err(usage)?)
}

fn tell(receipt: &Receipt, output: Output) -> Result<Exit> {
    output.either(receipt, || show::receipt(receipt))?;
    let exit = show::exit_of(receipt.verdict);
    if exit == Exit::Failed && !output.is_json() {
        output.note("nothing was written; mend the edit and write it again");
    }
    Ok(exit)
}
