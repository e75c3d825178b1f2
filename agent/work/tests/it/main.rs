//! The worker against a controller that is played by the test: over streams in memory, in paused
//! time, with work that is pretended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;
mod cuts;
mod http;
mod many;
mod sessions;
mod silence;

use std::sync::Arc;

use api::fleet::NodeFacts;
use api::job::JobId;
use api::work::{Assignment, Key};
use stillmetal_work::Worker;
use stillmetal_work::fakes::FakeExecutor;
use stillmetal_work::simulated::Machine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn key(job: u64, fence: u64) -> Key {
    Key {
        job: JobId(job),
        attempt: 1,
        fence,
    }
}

/// `words`: see `Play::of`.
fn assignment(key: Key, words: &str) -> Assignment {
    let words: Vec<&str> = words.split_whitespace().collect();
    let request = serde_json::json!({"image": "fake", "argv": words});
    Assignment {
        key,
        user: "ada".into(),
        role: "user".into(),
        request: serde_json::from_value(request).unwrap(),
        cpus: "1".parse().unwrap(),
        devices: Vec::new(),
        lease_seconds: 3600,
        wait_for_begin: false,
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        hostname: "pretended".into(),
        ..NodeFacts::default()
    }
}

/// A machine and the agent that runs on it now.
struct Node {
    machine: Machine,
    worker: Worker,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    async fn new() -> Self {
        Self::on(Machine::new(facts())).await
    }

    async fn on(machine: Machine) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let executor = Arc::new(FakeExecutor::new(machine.world.clone()));
        let worker = machine.agent(executor, &tasks, stop.clone()).await.unwrap();
        Self {
            machine,
            worker,
            stop,
            tasks,
        }
    }

    /// As `kill -9` and the start of the next agent: nothing it has not written down is known.
    async fn killed(self) -> Self {
        self.stop.cancel();
        // what it did for itself is gone; the world goes on
        let Self { machine, .. } = self;
        Self::on(machine).await
    }
}
