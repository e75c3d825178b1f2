//! `controller.exec.*`: `/bin/true`, really executed, on two slots of this machine: ours with everything
//! durable, HyperQueue and Slurm as they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::job::JobState;
use stillmetal_fakes::lab::{Options, facts};
use tokio::sync::mpsc;

use super::bed::{Bed, rate, request};
use super::rivals::{self, Slots};
use super::run::Runs;
use crate::bench::figure::{Figure, median};

pub(super) const ID: &str = "controller.exec.hyperqueue";
pub(super) const AGAINST_SLURM: &str = "controller.exec.slurm";

const JOBS: usize = 2_000;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(240);

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut hyperqueue = String::new();
    // by turns: what else the machine does is the same for both
    for _ in 0..ROUNDS {
        ours.push(round().await?);
        let (queue, note) = rivals::hyperqueue(Slots::Two);
        theirs.extend(queue);
        hyperqueue = note;
    }
    let rounds = format!("ours {ours:.0?}, theirs {theirs:.0?}");
    let ours = median(&mut ours).context("no rounds")?;
    let theirs = median(&mut theirs);
    let (slurm_rate, slurm) = rivals::slurm(Slots::Two);
    let what =
        "really executed /bin/true, 2 slots of this machine, submitted in one call, jobs a second";
    let own = "ours: real protocol, journal and process; SQLite with every commit on the disk, the nodes' \
               journals in memory as on the appliance; placement in cgroups and certificates are no part of it";
    let first = Figure::new(ID, what, "jobs/s", "ours/theirs ≥ 1", busy).values(ours, theirs);
    let met = first.ratio.is_some_and(|ratio| ratio >= 1.0);
    let second = Figure::new(AGAINST_SLURM, what, "jobs/s", "ours/theirs ≥ 10", busy)
        .values(ours, slurm_rate);
    let met_too = second.ratio.is_some_and(|ratio| ratio >= 10.0);
    Ok(vec![
        first
            .met(met)
            .note(format!("{rounds}; {own}; {hyperqueue}")),
        second.met(met_too).note(format!("{own}; {slurm}")),
    ])
}

async fn round() -> anyhow::Result<f64> {
    let mut bed = Bed::start().await?;
    // a slot each: while one measures, its node says nothing
    for name in ["local0", "local1"] {
        let (started, _) = mpsc::unbounded_channel();
        let mut options = Options::pretending(name);
        options.facts = facts(name, "0");
        options.durable = true;
        let runs = Arc::new(Runs { started });
        options.executor = Arc::new(move |_| runs.clone());
        bed.join(options).await;
    }
    let jobs = vec![request(&["/bin/true"])?; JOBS];
    let began = Instant::now();
    bed.controller.client.submit_all(&jobs).await?;
    bed.idle(PATIENCE).await?;
    let rate = rate(JOBS, began.elapsed());
    let done = bed.count(JobState::Done).await?;
    ensure!(done == JOBS, "{done} of {JOBS} jobs are done");
    eprintln!("bench: controller.exec: {rate:.0} jobs/s");
    Ok(rate)
}
