//! `still context`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use client::{Client, Context, controller_address};
use serde::Serialize;

use super::{Chosen, ContextName, Contexts};
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::{Output, fields};

/// Contexts say where controllers are and as whom you call them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still context add work --controller lab.example:7443 --ca ca.pem --cert me.pem --key me.key
  still context use work
  still --context lab nodes")]
pub(crate) struct ContextArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// List all contexts.
    List,
    /// Make one the context that is used unless another is named.
    Use { name: String },
    /// Show one: its controller and where its files are.
    Show {
        /// [default: the one in use]
        name: Option<String>,
    },
    /// Take in a controller that runs elsewhere.
    Add(Add),
    /// Forget one; its controller is not touched.
    Remove { name: String },
}

#[derive(Debug, Args)]
struct Add {
    name: String,
    /// Its address; the port is 7443 unless given.
    #[arg(long, value_name = "HOST[:PORT]")]
    controller: String,
    /// Certificate of the controller's authority (PEM).
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Your certificate (PEM).
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    current: bool,
    controller: Option<String>,
    /// Why it cannot be used.
    error: Option<String>,
}

pub(crate) fn run(arguments: ContextArguments, chosen: &Chosen, output: Output) -> Ended {
    let contexts = Contexts::of_user()?;
    match arguments.command {
        Task::List => list(&contexts, output)?,
        Task::Use { name } => {
            let name = known(&contexts, name)?;
            contexts.set_current(&name)?;
        }
        Task::Show { name } => {
            let name = match name {
                Some(name) => known(&contexts, name)?,
                None => chosen.name(&contexts)?,
            };
            show(&contexts, &name, output)?;
        }
        Task::Add(add) => {
            let name = take(&contexts, &add)?;
            let text = || format!("context {name} is in use now");
            output.value(&serde_json::json!({ "name": name.as_str() }), text)?;
        }
        Task::Remove { name } => {
            let name = known(&contexts, name)?;
            contexts.remove(&name)?;
        }
    }
    Ok(Outcome::Done)
}

fn known(contexts: &Contexts, name: String) -> anyhow::Result<ContextName> {
    let chosen = Chosen {
        context: Some(name),
    };
    chosen.name(contexts)
}

fn list(contexts: &Contexts, output: Output) -> anyhow::Result<()> {
    let current = contexts.current()?;
    let rows = contexts.names()?.into_iter().map(|name| {
        let read = contexts.read(&name);
        Row {
            current: Some(&name) == current.as_ref(),
            name: name.to_string(),
            error: read.as_ref().err().map(|error| {
                let error = anyhow::Error::msg(error.to_string());
                format!("{error:#}")
            }),
            controller: read.ok().map(|context| context.authority()),
        }
    });
    let rows: Vec<_> = rows.collect();
    output.list(&rows, &["CONTEXT", "IN USE", "CONTROLLER"], |row| {
        let controller = row.controller.clone();
        let error = row.error.clone().unwrap_or_default();
        vec![
            row.name.clone(),
            if row.current { "yes" } else { "" }.into(),
            controller.unwrap_or_else(|| format!("unusable: {error}")),
        ]
    })
}

fn show(contexts: &Contexts, name: &ContextName, output: Output) -> anyhow::Result<()> {
    let context = contexts
        .read(name)
        .with_context(|| format!("read context {name}"))?;
    let folder = contexts.folder(name);
    let value = serde_json::json!({
        "name": name.as_str(),
        "controller": context.authority(),
        "folder": folder,
    });
    output.value(&value, || {
        fields(&[
            ("name", Some(name.to_string())),
            ("controller", Some(context.authority())),
            ("files", Some(folder.display().to_string())),
        ])
    })
}

fn take(contexts: &Contexts, add: &Add) -> anyhow::Result<ContextName> {
    let name = ContextName::parse(&add.name)?;
    if contexts.names()?.contains(&name) {
        return Err(Misuse::ContextExists(add.name.clone()).into());
    }
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let context = Context {
        controller: controller_address(&add.controller)?,
        ca_pem: read(&add.ca)?,
        cert_pem: read(&add.cert)?,
        key_pem: read(&add.key)?,
    };
    // whether key and certificates fit is known without calling anybody
    drop(Client::new(&context)?);
    contexts.write(&name, &context)?;
    contexts.set_current(&name)?;
    Ok(name)
}
