//! `controller.dispatch.*`: how many jobs a second come in, are made durable, given a place, told to a
//! node, reported ended and stored, when the node only pretends to run them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::job::JobState;
use futures_util::future::try_join_all;
use stillmetal_fakes::lab::{Options, facts};
use stillmetal_work::fakes::{FakeExecutor, Play};

use super::bed::{Bed, rate, request};
use super::rivals::{self, Slots};
use crate::bench::figure::Figure;

pub(super) const IDS: [&str; 2] = [BATCHED, SINGLE];
const BATCHED: &str = "controller.dispatch.batched";
const SINGLE: &str = "controller.dispatch.single";

/// Pretended nodes, and places on each.
const NODES: usize = 64;
const PLACES: &str = "0-3";
/// Jobs of one submission, and submissions.
const BATCH: usize = 1_000;
const BATCHES: usize = 20;
const SUBMITTERS: usize = 2;
/// Clients that submit one job after the other, and jobs of each.
const CLIENTS: usize = 64;
const EACH: usize = 150;
const PATIENCE: Duration = Duration::from_secs(240);

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let batched = batched().await?;
    let single = single().await?;
    let (queue, hyperqueue) = rivals::hyperqueue(Slots::Many);
    let (batch, slurm) = rivals::slurm(Slots::Many);
    let beside = format!("{hyperqueue}; {slurm}");
    let theirs = [queue, batch].into_iter().flatten().reduce(f64::max);
    let what = |how: &str| {
        format!(
            "jobs a second from the submission of the first to the stored end of the last, {how}, \
             {NODES} pretended nodes, SQLite with every commit on the disk; theirs: the faster of HyperQueue and Slurm"
        )
    };
    let note = |rates: &Rates| format!("accepted (durable) {:.0} jobs/s; {beside}", rates.accepted);
    Ok(vec![
        Figure::new(
            BATCHED,
            &what("1,000 in a call"),
            "jobs/s",
            "≥ 10,000",
            busy,
        )
        .values(batched.through, theirs)
        .met(batched.through >= 10_000.0)
        .note(note(&batched)),
        Figure::new(
            SINGLE,
            &what("one in a call, 64 clients"),
            "jobs/s",
            "≥ 2,000",
            busy,
        )
        .values(single.through, theirs)
        .met(single.through >= 2_000.0)
        .note(note(&single)),
    ])
}

/// Jobs a second.
struct Rates {
    /// Until the submitters had all of their answers.
    accepted: f64,
    /// Until nothing was left to do.
    through: f64,
}

async fn lab() -> anyhow::Result<Bed> {
    let mut bed = Bed::start().await?;
    for number in 0..NODES {
        let name = format!("bench{number}");
        let mut options = Options::pretending(&name);
        options.facts = facts(&name, PLACES);
        options.executor = Arc::new(|world| {
            // what ends at once and leaves nothing
            let play = |_: &_| Play {
                documents: BTreeMap::new(),
                ..Play::default()
            };
            Arc::new(FakeExecutor::directed(world, play))
        });
        bed.join(options).await;
    }
    Ok(bed)
}

async fn batched() -> anyhow::Result<Rates> {
    let bed = lab().await?;
    let jobs = vec![request(&["/bin/true"])?; BATCH];
    let began = Instant::now();
    let submitters = bed.clients(SUBMITTERS).into_iter().map(|client| {
        let jobs = &jobs;
        async move {
            for _ in 0..BATCHES / SUBMITTERS {
                client.submit_all(jobs).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(submitters).await?;
    rates(&bed, "batched", began, BATCH * BATCHES).await
}

async fn single() -> anyhow::Result<Rates> {
    let bed = lab().await?;
    let job = request(&["/bin/true"])?;
    let began = Instant::now();
    let submitters = bed.clients(CLIENTS).into_iter().map(|client| {
        let job = &job;
        async move {
            for _ in 0..EACH {
                client.submit(job).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(submitters).await?;
    rates(&bed, "single", began, CLIENTS * EACH).await
}

async fn rates(bed: &Bed, how: &str, began: Instant, jobs: usize) -> anyhow::Result<Rates> {
    let accepted = rate(jobs, began.elapsed());
    bed.idle(PATIENCE).await?;
    let through = rate(jobs, began.elapsed());
    let done = bed.count(JobState::Done).await.context("count the jobs")?;
    ensure!(done == jobs, "{done} of {jobs} jobs are done");
    eprintln!(
        "bench: controller.dispatch {how}: {jobs} jobs, accepted {accepted:.0}/s, through {through:.0}/s"
    );
    Ok(Rates { accepted, through })
}
