//! A whole lab in one process tree: the real controller, killed and started again, and nodes that join
//! it over real mutual TLS, speak the real protocol, and only pretend to work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;
mod identity;
mod keeping;
mod kills;
mod line;
mod nodes;
mod weather;

use std::time::Duration;

use api::job::{JobId, JobRequest, JobState, JobStatus};
use client::Client;

/// For whatever has to come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    assert!(seen.is_ok(), "within {PATIENCE:?}: {what}");
}

/// A pretended program: see `Play::of`.
fn work(words: &str) -> JobRequest {
    let mut command = vec!["/pretended"];
    command.extend(words.split_whitespace());
    let request = serde_json::json!({ "command": command, "place": { "share": true } });
    serde_json::from_value(request).unwrap()
}

async fn submit(client: &Client, words: &str) -> JobId {
    client.submit(&work(words)).await.unwrap().id
}

async fn state(client: &Client, id: JobId) -> JobState {
    client.job_status(id).await.unwrap().state
}

async fn ended(client: &Client, id: JobId) -> JobStatus {
    until(&format!("job {id} is over"), async || {
        // while the controller is started again nobody answers
        let status = client.job_status(id).await;
        status.is_ok_and(|status| status.state.is_over())
    })
    .await;
    client.job_status(id).await.unwrap()
}
