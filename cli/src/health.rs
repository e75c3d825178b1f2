//! `still health`.

use api::health::{HealthCheck, HealthCheckView};
use clap::{Args, Subcommand};

use crate::context::Chosen;
use crate::nodes::state;
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::Output;
use crate::quantity::{moment, parse_limit, seconds};
use crate::run::JobArguments;

/// A job that every node has to pass from time to time; one that does not is put in quarantine.
#[derive(Debug, Args)]
#[command(
    after_help = "The controller submits it for each node by itself: at the given distance, and when a node joins, boots or
leaves quarantine (`still node resume`). Give it a queue with a high priority, so that it comes before others'
jobs. A run that is noisy, too, means that the node is not as it should be.

Examples:
  still queue create health --priority 1000
  still health set --every 1d --queue health --cpus 1 --timeout 1m busybox true
  still health show
  still health off"
)]
pub(crate) struct HealthArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show the check, and when each node passed it.
    Show,
    /// Set the check; all nodes are due.
    Set(Box<Set>),
    /// End the checks.
    Off,
}

#[derive(Debug, Args)]
struct Set {
    /// How often: a minute or more.
    #[arg(long, value_name = "DURATION", value_parser = parse_limit)]
    every: u32,
    #[command(flatten)]
    job: JobArguments,
}

pub(crate) async fn run(arguments: HealthArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::Show => show(&client.health_check().await?, output)?,
        Task::Set(set) => {
            let job = set.job.request()?;
            if job.place.node.is_some() || job.place.nodes != 1 {
                return Err(Misuse::CheckOfOneNode.into());
            }
            let check = HealthCheck {
                every_seconds: set.every.into(),
                job,
            };
            show(&client.set_health_check(&check).await?, output)?;
        }
        Task::Off => {
            client.remove_health_check().await?;
            let value = serde_json::json!({ "check": null });
            output.value(&value, || "no node is checked any more".into())?;
        }
    }
    Ok(Outcome::Done)
}

fn show(view: &HealthCheckView, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.value(view, String::new);
    }
    match &view.check {
        None => eprintln!("no node is checked: still health set"),
        Some(check) => {
            let job = &check.job;
            let program = job.image.iter().chain(&job.argv);
            let program = program.chain(job.command.iter().flatten());
            let program: Vec<_> = program.map(String::as_str).collect();
            eprintln!(
                "each node, every {}, in queue {}: {}",
                seconds(check.every_seconds),
                job.queue,
                crate::text::clean_line(&program.join(" ")),
            );
        }
    }
    let headings = ["NODE", "STATE", "PASSED", "CHECK"];
    output.list(&view.nodes, &headings, |node| {
        vec![
            node.name.clone(),
            state(&node.state),
            node.passed_ms.map_or_else(|| "-".into(), moment),
            node.job
                .map_or_else(|| "-".into(), |job| format!("job {job}")),
        ]
    })
}
