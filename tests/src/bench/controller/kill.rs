//! `controller.kill.*`: the controller is killed again and again while a campaign comes in, runs and is
//! collected. What it had accepted is counted afterwards, one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::job::{JobId, JobState, JobStatus};
use client::{Client, JobFilter};
use futures_util::{StreamExt, TryStreamExt, stream};
use stillmetal_fakes::lab::{Options, facts};

use super::bed::{Bed, quantile, request};
use crate::bench::figure::Figure;

pub(super) const IDS: [&str; 5] = [LOST, RESULTS, INTERRUPTED, TWICE, READY];
const LOST: &str = "controller.kill.lost";
const RESULTS: &str = "controller.kill.results";
const INTERRUPTED: &str = "controller.kill.interrupted";
const TWICE: &str = "controller.kill.twice";
const READY: &str = "controller.kill.ready";

const KILLS: u64 = 200;
const JOBS: usize = 10_000;
/// Of one submission.
const BATCH: usize = 25;
const NODES: usize = 4;
const PLACES: &str = "0-7";
/// A job takes so long, seconds: most kills meet some at work, and it is not over before the last.
const TAKES: &str = "0.25";
/// The longest time between two kills, ms.
const LIFE: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let mut bed = Bed::start().await?;
    for number in 0..NODES {
        let name = format!("bench{number}");
        let mut options = Options::pretending(&name);
        options.facts = facts(&name, PLACES);
        bed.join(options).await;
    }
    let submitter = tokio::spawn(submit(bed.controller.another_client()));
    let mut ready = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..KILLS {
        // xorshift, so that it comes again
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_millis(random % LIFE)).await;
        ready.push(bed.controller.kill_and_time().await.as_secs_f64());
        if kill % 50 == 49 {
            eprintln!("bench: controller.kill: {} kills", kill + 1);
        }
    }
    let left = bed.left().await?;
    let submitted = tokio::time::timeout(PATIENCE, submitter).await;
    let submitted = submitted.context("not all jobs were taken in time")???;
    bed.idle(PATIENCE).await?;
    for node in &bed.nodes {
        node.holds_nothing().await;
    }
    let counted = count(&bed, &submitted.accepted).await?;
    let slowest = quantile(&mut ready, 1.0).context("no kills")?;
    let middle = quantile(&mut ready, 0.5).context("no kills")?;
    let note = format!(
        "{KILLS} times kill -9 at random instants, up to {LIFE} ms apart, while {JOBS} jobs of {TAKES} s with a \
         document each were submitted {BATCH} at a time, run on {NODES} pretended nodes and collected; {} accepted, \
         {} submissions were asked again by the client, {} known jobs, {} of more than one attempt, {left} not over \
         after the last kill",
        submitted.accepted.len(),
        submitted.repeated,
        counted.known,
        counted.more_attempts,
    );
    let figure = |id: &str, what: &str, count: usize| {
        Figure::new(id, what, "jobs", "0", busy)
            .values(float(count), None)
            .met(count == 0 && left > 0 && submitted.accepted.len() >= JOBS)
            .note(note.clone())
    };
    Ok(vec![
        figure(
            LOST,
            "accepted jobs that are not there, or did not come to their end",
            counted.lost,
        ),
        figure(
            RESULTS,
            "results of them that are not there byte for byte",
            counted.results,
        ),
        figure(
            INTERRUPTED,
            "measurements that were begun and not ended by themselves",
            counted.interrupted,
        ),
        figure(TWICE, "jobs that ran more than once", counted.twice),
        Figure::new(
            READY,
            "from the controller's next start to its first answer, the longest",
            "s",
            "≤ 2",
            busy,
        )
        .values(slowest, None)
        .met(slowest <= 2.0)
        .note(format!("median {middle:.2} s; {note}")),
    ])
}

struct Submitted {
    accepted: BTreeSet<JobId>,
    /// Submissions whose first try came to nothing.
    repeated: usize,
}

/// Under one idempotency key each until it is answered, however often the controller dies meanwhile.
async fn submit(client: Client) -> anyhow::Result<Submitted> {
    let jobs = vec![request(&["/pretended", "sleep", TAKES])?; BATCH];
    let mut submitted = Submitted {
        accepted: BTreeSet::new(),
        repeated: 0,
    };
    let mut number = 0;
    while submitted.accepted.len() < JOBS {
        number += 1;
        let key = format!("campaign-{number}");
        let mut tries = 0;
        let taken = loop {
            match client.submit_all_as(&jobs, &key).await {
                Ok(taken) => break taken,
                Err(error) => {
                    tries += 1;
                    ensure!(tries < 100, "not taken after {tries} tries: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        submitted.repeated += usize::from(tries > 0);
        ensure!(
            taken.len() == BATCH,
            "{} of {BATCH} jobs were taken",
            taken.len()
        );
        submitted.accepted.extend(taken.iter().map(|job| job.id));
    }
    Ok(submitted)
}

#[derive(Default)]
struct Counted {
    known: usize,
    lost: usize,
    results: usize,
    interrupted: usize,
    twice: usize,
    more_attempts: usize,
}

async fn count(bed: &Bed, accepted: &BTreeSet<JobId>) -> anyhow::Result<Counted> {
    let mut begun: BTreeMap<JobId, u32> = BTreeMap::new();
    for node in &bed.nodes {
        for (key, times) in node.machine.world.begun() {
            *begun.entry(key.job).or_default() += times;
        }
    }
    let jobs = all(&bed.controller.client).await?;
    let known: BTreeMap<JobId, &JobStatus> = jobs.iter().map(|job| (job.id, job)).collect();
    let mut counted = Counted {
        known: known.len(),
        twice: begun.values().filter(|times| **times > 1).count(),
        more_attempts: jobs.iter().filter(|job| job.attempts > 1).count(),
        ..Counted::default()
    };
    let mut done = Vec::new();
    for id in accepted {
        match known.get(id) {
            Some(job) if job.state == JobState::Done => done.push(*job),
            Some(job) if begun.contains_key(id) => {
                eprintln!("bench: controller.kill: interrupted: {job:?}");
                counted.interrupted += 1;
            }
            other => {
                eprintln!("bench: controller.kill: lost: job {id}: {other:?}");
                counted.lost += 1;
            }
        }
    }
    let client = &bed.controller.client;
    let intact = stream::iter(done).map(|job| async move {
        let [part] = &job.parts[..] else {
            return Ok(false);
        };
        let Some(document) = part.documents.iter().find(|it| it.name == "result.json") else {
            return Ok(false);
        };
        let bytes = client.fetch_document(job.id, part.node.as_str(), document, 1 << 20);
        anyhow::Ok(bytes.await? == b"{}")
    });
    let intact: Vec<bool> = intact.buffer_unordered(16).try_collect().await?;
    counted.results = intact.iter().filter(|intact| !**intact).count();
    Ok(counted)
}

async fn all(client: &Client) -> anyhow::Result<Vec<JobStatus>> {
    let mut filter = JobFilter {
        limit: Some(1000),
        ..JobFilter::default()
    };
    let mut jobs = Vec::new();
    loop {
        let page = client.jobs(&filter).await?;
        jobs.extend(page.items);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return Ok(jobs),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
