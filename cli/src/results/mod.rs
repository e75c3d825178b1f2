//! `still results`: what jobs came to.

mod export;

use api::job::{JobId, JobStatus};
use clap::{Args, Subcommand};
use client::{Client, JobFilter};
use serde_json::{Value, json};

use crate::bundle::admit::Blocked;
use crate::context::Chosen;
use crate::job::show_with_result;
use crate::jobs::{name, newest, nodes, took};
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::{ago, now_ms};

/// Look at results, and take them along as bundles that prove themselves.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still results list
  still results show 7
  still results export 7                    writes job-7.tar: all documents, and what they are checked with
  still results export 7 8 --out night.tar
  still verify --ca ca.pem job-7.tar        checks it, without a controller and without a network")]
pub(crate) struct ResultsArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// List the jobs that are over, the newest first.
    List {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Show a job's result and its documents.
    Show { id: JobId },
    /// Write results into one file, with all that is needed to check them.
    Export(export::ExportArguments),
}

pub(crate) async fn run(arguments: ResultsArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::List { limit } => {
            let over = |job: &JobStatus| job.state.is_over();
            let jobs = newest(&client, JobFilter::default(), limit, over).await?;
            list(&jobs, output)?;
        }
        Task::Show { id } => show(&client, id, output).await?,
        Task::Export(arguments) => return export::run(&client, &arguments, chosen, output).await,
    }
    Ok(Outcome::Done)
}

fn list(jobs: &[JobStatus], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    if output.is_json() {
        let values: Vec<_> = jobs.iter().map(value).collect();
        return output.list(&values, &[], |_| Vec::new());
    }
    let headings = [
        "JOB", "VERDICT", "STATE", "IMAGE", "NODE", "MEDIAN", "TOOK", "ENDED",
    ];
    output.list(jobs, &headings, |job| {
        vec![
            job.id.to_string(),
            job.verdict().map(|it| it.to_string()).unwrap_or_default(),
            job.state.to_string(),
            ran(job),
            nodes(job),
            medians(job).join(" "),
            took(job, now).unwrap_or_default(),
            job.ended_ms.map(|end| ago(end, now)).unwrap_or_default(),
        ]
    })
}

fn value(job: &JobStatus) -> Value {
    let nodes: Vec<_> = job.parts.iter().map(|part| &part.node_name).collect();
    let took = job.started_ms.zip(job.ended_ms);
    json!({
        "id": job.id,
        "verdict": job.verdict(),
        "state": job.state,
        "name": job.request.name,
        "image": job.request.image,
        "command": job.request.command,
        "nodes": nodes,
        "medians": medians(job),
        "took_ms": took.map(|(start, end)| end.saturating_sub(start)),
        "ended_ms": job.ended_ms,
    })
}

/// Its image, or its program.
fn ran(job: &JobStatus) -> String {
    job.request.image.clone().unwrap_or_else(|| name(job))
}

/// Of its quiet runs, one of each node that has some.
fn medians(job: &JobStatus) -> Vec<String> {
    let endings = job.parts.iter().filter_map(|part| part.ending.as_ref());
    let medians = endings.filter_map(|ending| ending.figures.get("median").cloned());
    medians.collect()
}

async fn show(client: &Client, id: JobId, output: Output) -> anyhow::Result<()> {
    let job = client.job_status(id).await?;
    if !job.state.is_over() {
        let state = job.state;
        return Err(Blocked::NotOver { job: id, state }.into());
    }
    show_with_result(client, &job, output).await
}
