//! The client against the fake controller, over mutual TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod calls;
mod documents;
mod events;
mod faults;
mod trust;

use api::job::JobRequest;
use client::Client;
use client::fake::FakeController;

/// Only keeps a broken test from hanging.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

async fn start() -> (FakeController, Client) {
    let fake = FakeController::start().await.unwrap();
    let client = Client::new(&fake.context()).unwrap();
    (fake, client)
}

fn request(image: &str) -> JobRequest {
    serde_json::from_value(serde_json::json!({ "image": image })).unwrap()
}
