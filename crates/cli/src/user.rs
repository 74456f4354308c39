//! `user`: the people of this node. They are each node's own and never sync.

use crate::{
    config::Mode,
    failure::{Exit, Failure},
    open::Opened,
    output::Output,
    show,
};
use anyhow::Result;
use ropeway_replica::NewMember;
use serde_json::{Value, json};
use std::io::{self, BufRead};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Add a person; without --password-stdin a password is drawn and shown once
    #[command(after_help = "Examples:
  ropeway user add jury@example.org --role jury_president
  ropeway user add jury@example.org --role jury_president --password-stdin < password.txt")]
    Add {
        /// E-mail address
        email: String,
        /// Their role in the profile
        #[arg(long)]
        role: String,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Everybody on this node
    #[command(after_help = "Example:\n  ropeway user ls")]
    Ls,
    /// Lock a person out
    #[command(after_help = "Example:\n  ropeway user disable jury@example.org")]
    Disable {
        /// E-mail address
        email: String,
    },
}

/// Runs a command about people.
pub(crate) async fn run(command: UserCommand, opened: &Opened, output: Output) -> Result<Exit> {
    match command {
        UserCommand::Add { email, role, password_stdin } => {
            only_one_on_a_device(opened).await?;
            let password = password_stdin.then(read_password).transpose()?;
            let new = NewMember { email, space: opened.space.clone(), role, password };
            let (member, drawn) = opened.node.add_member(new).await?;
            let mut json = show::member(&member);
            if let Some(drawn) = &drawn {
                json["password"] = json!(drawn);
            }
            output.either(&json, || match &drawn {
                Some(drawn) => format!(
                    "{} is {} now\nPassword: {drawn}\nIt is shown this once.",
                    member.email, member.role
                ),
                None => format!("{} is {} now", member.email, member.role),
            })?;
        }
        UserCommand::Ls => {
            let members = opened.node.members().await?;
            let rows = members.iter().map(|m| {
                let state = if m.disabled { "disabled" } else { "active" };
                vec![
                    m.email.clone(),
                    m.role.clone(),
                    m.space.to_string(),
                    state.into(),
                    m.created_at.to_string(),
                ]
            });
            let json: Vec<Value> = members.iter().map(show::member).collect();
            output.table(&["e-mail", "role", "space", "state", "since"], rows.collect(), &json)?;
        }
        UserCommand::Disable { email } => {
            let member = opened.node.disable_member(&email).await?;
            output.either(&show::member(&member), || format!("{} is locked out", member.email))?;
        }
    }
    Ok(Exit::Done)
}

/// A Pi has one person, who is there before the race (ISMF-027).
async fn only_one_on_a_device(opened: &Opened) -> Result<()> {
    let active = opened.node.members().await?.into_iter().find(|member| !member.disabled);
    match active {
        Some(member) if opened.config.mode == Mode::OfflineDevice => {
            let what = format!("this device has its person, {}; nobody was added", member.email);
            Err(Failure::new(what).next("lock them out first with `ropeway user disable`").into())
        }
        _ => Ok(()),
    }
}

fn read_password() -> Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    match password {
        "" => Err(Failure::usage("there is no password on standard input").into()),
        password => Ok(password.to_owned()),
    }
}
