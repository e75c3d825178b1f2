//! `still jobs`: the list.

use api::job::{JobState, JobStatus};
use clap::Args;
use client::{Client, JobFilter, JobOrder};

use crate::context::Chosen;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::{ago, now_ms, seconds};

/// List jobs, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still jobs
  still jobs --state queued --queue night
  still jobs --user anna --limit 100 --json")]
pub(crate) struct JobsArguments {
    /// Only jobs in this state: queued, assigned, preparing, measuring, collecting, done, failed, noisy,
    /// timed-out, cancelled or lost.
    #[arg(long, value_parser = parse_state)]
    state: Option<JobState>,
    /// Only jobs of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only jobs of this queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only jobs that have run or run on this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Not a state.
#[derive(Debug, thiserror::Error)]
#[error("no state of a job: {}", JobState::ALL.map(JobState::as_str).join(", "))]
struct NoState;

fn parse_state(text: &str) -> Result<JobState, NoState> {
    JobState::parse(text).ok_or(NoState)
}

/// Jobs of one page.
const PAGE: usize = 500;

pub(crate) async fn run(arguments: JobsArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    let filter = JobFilter {
        state: arguments.state,
        user: arguments.user,
        queue: arguments.queue,
        node: arguments.node,
        ..JobFilter::default()
    };
    let jobs = newest(&client, filter, arguments.limit, |_| true).await?;
    list(&jobs, output)?;
    Ok(Outcome::Done)
}

/// The newest jobs that are to be kept, at most `limit`, page after page.
pub(crate) async fn newest(
    client: &Client,
    mut filter: JobFilter,
    limit: usize,
    keep: impl Fn(&JobStatus) -> bool,
) -> anyhow::Result<Vec<JobStatus>> {
    filter.order = JobOrder::NewestFirst;
    let mut jobs = Vec::new();
    while jobs.len() < limit {
        let wanted = (limit - jobs.len()).min(PAGE);
        filter.limit = u32::try_from(wanted).ok();
        let page = client.jobs(&filter).await?;
        jobs.extend(page.items.into_iter().filter(&keep));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    jobs.truncate(limit);
    Ok(jobs)
}

/// From the beginning of its last attempt to its end, or until now.
pub(crate) fn took(job: &JobStatus, now: u64) -> Option<String> {
    let end = job.ended_ms.unwrap_or(now);
    let started = job.started_ms?;
    Some(seconds(end.saturating_sub(started) / 1000))
}

fn list(jobs: &[JobStatus], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    let headings = [
        "JOB",
        "STATE",
        "VERDICT",
        "NAME",
        "USER",
        "QUEUE",
        "NODE",
        "SUBMITTED",
        "TOOK",
    ];
    output.list(jobs, &headings, |job| {
        vec![
            job.id.to_string(),
            state(job),
            job.verdict().map(|it| it.to_string()).unwrap_or_default(),
            name(job),
            job.user.clone(),
            job.request.queue.clone(),
            nodes(job),
            ago(job.submitted_ms, now),
            took(job, now).unwrap_or_default(),
        ]
    })
}

pub(crate) fn state(job: &JobStatus) -> String {
    match job.cancelling && !job.state.is_over() {
        true => format!("{}, to be cancelled", job.state),
        false => job.state.to_string(),
    }
}

/// Its own, or what it runs.
pub(crate) fn name(job: &JobStatus) -> String {
    let request = &job.request;
    let command = request.command.as_ref().and_then(|command| command.first());
    let named = request.name.as_ref().or(request.image.as_ref()).or(command);
    named.cloned().unwrap_or_default()
}

/// Where it runs or ran.
pub(crate) fn nodes(job: &JobStatus) -> String {
    let nodes: Vec<_> = job
        .parts
        .iter()
        .map(|part| part.node_name.clone())
        .collect();
    nodes.join(" ")
}
