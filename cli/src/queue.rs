//! `still queue`.

use api::queue::{QueueSettings, QueueView};
use clap::{Args, Subcommand};
use client::Client;

use crate::context::Chosen;
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::quantity::{parse_limit, seconds};

/// Queues order the jobs: who may submit, how many, and what comes first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still queue list
  still queue create night --priority -10 --limit 8h --user anna --user ben
  still queue drain night            it takes nothing new and starts nothing
  still queue resume night")]
pub(crate) struct QueueArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// List the queues, with what waits and runs in them.
    List,
    /// Make a queue, or change the settings of one: what is not given is as a new queue has it.
    Create(Create),
    /// Take nothing new, start nothing.
    Drain { name: String },
    /// End a drain.
    Resume { name: String },
    /// Remove an empty queue.
    Remove { name: String },
}

#[derive(Debug, Args)]
struct Create {
    name: String,
    /// Queues with a higher one come first.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// How many jobs may wait.
    #[arg(long, default_value_t = QueueSettings::default().capacity)]
    capacity: usize,
    /// The longest that an attempt may take [default: 1d].
    #[arg(long, value_name = "DURATION", value_parser = parse_limit)]
    limit: Option<u32>,
    /// Who may submit; repeatable [default: everybody].
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
}

pub(crate) async fn run(arguments: QueueArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::List => list(&client.queues().await?, output)?,
        Task::Create(create) => {
            let default = QueueSettings::default();
            let settings = QueueSettings {
                priority: create.priority,
                capacity: create.capacity,
                users: (!create.users.is_empty()).then(|| create.users.into_iter().collect()),
                limit_seconds: create.limit.map_or(default.limit_seconds, Into::into),
                draining: false,
            };
            let queue = client.put_queue(&create.name, &settings).await?;
            output.value(&queue, || format!("queue {} is there", queue.name))?;
        }
        Task::Drain { name } => drain(&client, &name, true, output).await?,
        Task::Resume { name } => drain(&client, &name, false, output).await?,
        Task::Remove { name } => {
            client.delete_queue(&name).await?;
            let text = || format!("queue {name} is gone");
            output.value(&serde_json::json!({ "removed": name }), text)?;
        }
    }
    Ok(Outcome::Done)
}

async fn drain(client: &Client, name: &str, draining: bool, output: Output) -> anyhow::Result<()> {
    let queues = client.queues().await?;
    let known = || queues.iter().map(|queue| queue.name.clone()).collect();
    let queue = queues.iter().find(|queue| queue.name == name);
    let queue = queue.ok_or_else(|| Misuse::NoSuchQueue {
        name: name.to_owned(),
        known: known(),
    })?;
    let settings = QueueSettings {
        draining,
        ..queue.settings.clone()
    };
    let queue = client.put_queue(name, &settings).await?;
    output.value(&queue, || {
        let (waiting, running) = (queue.waiting, queue.running);
        match draining {
            true => format!("{name} takes nothing new; {waiting} wait, {running} run to their end"),
            false => format!("{name} takes jobs again; {waiting} wait, {running} run"),
        }
    })
}

fn list(queues: &[QueueView], output: Output) -> anyhow::Result<()> {
    let headings = [
        "QUEUE", "PRIORITY", "WAITING", "RUNNING", "CAPACITY", "LIMIT", "USERS", "STATE",
    ];
    output.list(queues, &headings, |queue| {
        let settings = &queue.settings;
        let users = settings.users.as_ref().map(|users| {
            let users: Vec<_> = users.iter().cloned().collect();
            users.join(" ")
        });
        vec![
            queue.name.clone(),
            settings.priority.to_string(),
            queue.waiting.to_string(),
            queue.running.to_string(),
            settings.capacity.to_string(),
            seconds(settings.limit_seconds),
            users.unwrap_or_else(|| "all".into()),
            if settings.draining {
                "draining"
            } else {
                "open"
            }
            .into(),
        ]
    })
}
