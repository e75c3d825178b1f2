//! `controller.latency`: from a submission to the start of its process, on an idle controller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stillmetal_fakes::lab::{Options, facts};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bed::{Bed, quantile, request};
use super::run::Runs;
use crate::bench::figure::Figure;

pub(super) const ID: &str = "controller.latency";

const ROUNDS: usize = 300;
const WARM: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing happens in between, so that each one is the first.
const PAUSE: Duration = Duration::from_millis(30);

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let mut bed = Bed::start().await?;
    let (started, mut starts) = mpsc::unbounded_channel();
    let mut options = Options::pretending("local");
    options.facts = facts("local", "0-1");
    options.durable = true;
    let runs = Arc::new(Runs { started });
    options.executor = Arc::new(move |_| runs.clone());
    bed.join(options).await;
    let job = request(&["/bin/true"])?;
    let client = &bed.controller.client;
    let mut took = Vec::with_capacity(ROUNDS);
    for round in 0..WARM + ROUNDS {
        let began = Instant::now();
        let submitted = client.submit(&job).await?;
        let start = timeout(PATIENCE, starts.recv()).await;
        let start = start.with_context(|| format!("no start within {PATIENCE:?}"))?;
        let (id, at) = start.context("nothing will start any more")?;
        ensure!(id == submitted.id, "job {id} started, not {}", submitted.id);
        if round >= WARM {
            took.push(at.duration_since(began).as_secs_f64() * 1000.0);
        }
        bed.idle(PATIENCE).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let p50 = quantile(&mut took, 0.5).context("no rounds")?;
    let p99 = quantile(&mut took, 0.99).context("no rounds")?;
    let most = quantile(&mut took, 1.0).context("no rounds")?;
    Ok(vec![
        Figure::new(
            ID,
            "from POST /v1/jobs to the started process of /bin/true, idle, durable, median",
            "ms",
            "p50 ≤ 10, p99 ≤ 50",
            busy,
        )
        .values(p50, None)
        .met(p50 <= 10.0 && p99 <= 50.0)
        .note(format!(
            "{ROUNDS} rounds: p99 {p99:.1} ms, longest {most:.1} ms"
        )),
    ])
}
