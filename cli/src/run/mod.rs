//! `still run`: from a request to an exit code.

mod follow;
mod metrics;
mod narrate;
mod request;

pub(crate) use request::{JobArguments, RunArguments};

use anyhow::Context as _;
use api::job::{JobState, JobStatus};
use client::{Client, LogStream};
use serde_json::json;

use crate::context::Chosen;
use crate::interrupts::Interrupts;
use crate::job::copy;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::progress::Progress;
use crate::result;
use follow::{End, Follow, Printed};

/// It was left before its end was known.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(
        "left; job {id} goes on: still job show {id} looks at it, still job cancel {id} ends it"
    )]
    Running { id: api::job::JobId },
    #[error("left before the controller answered: still jobs shows whether it took the job")]
    Submitting,
}

pub(crate) async fn run(arguments: RunArguments, chosen: &Chosen, output: Output) -> Ended {
    let request = arguments.job.request()?;
    let client = chosen.client()?;
    // from here on control-C means the job
    let interrupts = Interrupts::listen().context("listen for signals")?;
    let job = tokio::select! {
        job = client.submit(&request) => job?,
        () = interrupted_twice(&interrupts) => return Err(Left::Submitting.into()),
    };
    // once, while it was being submitted: then it is ended
    let interrupted = interrupts.any();
    if arguments.detach && !interrupted {
        output.value(&job, || job.id.to_string())?;
        eprintln!("job {0} is queued: still job show {0}", job.id);
        return Ok(Outcome::Done);
    }
    let progress = Progress::stages();
    let streams = arguments.follow && !output.is_json();
    let follow = Follow {
        client: &client,
        progress: &progress,
        streams,
    };
    let id = job.id;
    let ended = tokio::select! {
        ended = follow.to_the_end(job, &interrupts) => Some(ended),
        () = interrupts.reach(2) => None,
    };
    progress.clear();
    let End { job, printed } = ended.ok_or(Left::Running { id })??;
    if !output.is_json() {
        print_output(&client, &job, printed).await?;
    }
    let results = result::fetch(&client, &job).await?;
    let value = json!({ "job": job, "verdict": job.verdict(), "results": results });
    output.value(&value, || result::block(&job, &results))?;
    judge(&job)
}

async fn interrupted_twice(interrupts: &Interrupts) {
    interrupts.reach(1).await;
    eprintln!(
        "still: interrupted: the job is cancelled as soon as the controller has it; once more leaves at once"
    );
    interrupts.reach(2).await;
}

/// What it wrote, without what was printed already.
async fn print_output(client: &Client, job: &JobStatus, printed: Printed) -> anyhow::Result<()> {
    for (index, part) in job.parts.iter().enumerate() {
        if job.parts.len() > 1 {
            eprintln!("--- {}", crate::text::clean_line(&part.node_name));
        }
        for (stream, already) in [
            (LogStream::Stdout, printed.stdout),
            (LogStream::Stderr, printed.stderr),
        ] {
            let already = if index == 0 { already } else { 0 };
            match client.logs(job.id, stream, Some(part.node.as_str())).await {
                Ok(mut log) => copy(&mut log, stream, already).await?,
                // it ended before it wrote
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The exit code.
fn judge(job: &JobStatus) -> Ended {
    /// The node or the controller could not do it.
    #[derive(Debug, thiserror::Error)]
    #[error("job {0} could not be run or measured: {1}")]
    struct NotRun(api::job::JobId, String);

    if job.state == JobState::Done {
        return Ok(Outcome::Done);
    }
    let ending = job.parts.iter().filter_map(|part| part.ending.as_ref());
    let mut errors = ending.filter(|it| it.outcome == api::work::PartOutcome::Error);
    if job.state == JobState::Failed
        && let Some(error) = errors.next()
    {
        let reason = error.reason.clone().or_else(|| job.reason.clone());
        return Err(NotRun(
            job.id,
            reason.unwrap_or_else(|| "no reason is known".into()),
        )
        .into());
    }
    Ok(Outcome::Failed)
}
