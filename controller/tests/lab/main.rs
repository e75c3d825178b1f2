//! A whole lab in one process tree: the real controller, killed and started again, and nodes that join
//! it over real mutual TLS, speak the real protocol, and only pretend to work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crowd;
mod identity;
mod keeping;
mod kills;
mod weather;

use std::path::Path;

use api::job::{JobId, JobRequest, JobState, JobStatus};
use client::Client;
use stillmetal_fakes::lab::{Controller, until};

async fn controller() -> Controller {
    Controller::start(Path::new(env!("CARGO_BIN_EXE_stillmetal-controller"))).await
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
