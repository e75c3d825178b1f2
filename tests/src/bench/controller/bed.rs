//! A controller and its nodes, and what is asked of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::job::{JobRequest, JobState};
use client::{Client, JobFilter};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stillmetal_fakes::lab::{Controller, Node, Options};
use tempfile::TempDir;

/// Between two looks at what is left to do.
const LOOK: Duration = Duration::from_millis(20);
/// The longest page of a list.
const PAGE: u32 = 1000;

/// A running controller and the nodes that joined it.
pub(super) struct Bed {
    pub(super) controller: Controller,
    pub(super) nodes: Vec<Node>,
    /// For nodes' state: in memory, as on the appliance.
    pub(super) memory: TempDir,
}

/// The controller that was built with this program.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe().context("find this program")?;
    Ok(bench.with_file_name("stillmetal-controller"))
}

/// As many open files as this process may have; its children inherit that.
pub(super) fn raise_limits() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).context("raise the limit of open files")
}

impl Bed {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let controller = Controller::start(&program()?).await;
        let memory = tempfile::Builder::new()
            .prefix("stillmetal-bench-")
            .tempdir_in("/dev/shm")
            .context("make a folder in /dev/shm")?;
        Ok(Self {
            controller,
            nodes: Vec::new(),
            memory,
        })
    }

    pub(super) async fn join(&mut self, options: Options) {
        let controller = &self.controller;
        let (client, dir) = (&controller.client, self.memory.path());
        let node = Node::join_as(options, client, dir, controller.pin, controller.address);
        self.nodes.push(node.await);
    }

    /// Until no job waits or runs; a moment's figure each time, for nobody to be in the way.
    pub(super) async fn idle(&self, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let left = self.left().await?;
            if left == 0 {
                return Ok(());
            }
            ensure!(
                began.elapsed() < within,
                "{left} jobs are left after {within:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many jobs are not over.
    pub(super) async fn left(&self) -> anyhow::Result<usize> {
        let queues = self.controller.client.queues().await?;
        Ok(queues.iter().map(|it| it.waiting + it.running).sum())
    }

    /// How many jobs are in this state, counted one by one.
    pub(super) async fn count(&self, state: JobState) -> anyhow::Result<usize> {
        let mut filter = JobFilter {
            state: Some(state),
            limit: Some(PAGE),
            ..JobFilter::default()
        };
        let mut count = 0;
        loop {
            let page = self.controller.client.jobs(&filter).await?;
            count += page.items.len();
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Clients with a connection each.
    pub(super) fn clients(&self, count: usize) -> Vec<Client> {
        (0..count)
            .map(|_| self.controller.another_client())
            .collect()
    }
}

/// A program of the node on one CPU, not measured: nothing is proven of it.
pub(super) fn request(command: &[&str]) -> anyhow::Result<JobRequest> {
    let request = serde_json::json!({
        "command": command,
        "place": { "share": true },
        "measure": { "canary_seconds": 0 },
    });
    serde_json::from_value(request).context("write a job")
}

/// So many in so long.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The value below which this share of them is. They are sorted on the way.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of a list"
)]
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), Some(50.0));
        assert_eq!(quantile(&mut values, 0.99), Some(99.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
