mod histories;
mod scenes;

use std::sync::Arc;
use std::time::Duration;

use api::job::{JobId, JobRequest};
use api::work::{Assignment, Ending, Key, Order, PartOutcome, Report, Stage};

use super::*;
use crate::journal::{Change, Contents};

pub(crate) fn key(job: u64, attempt: u32, fence: u64) -> Key {
    Key {
        job: JobId(job),
        attempt,
        fence,
    }
}

pub(crate) fn request() -> JobRequest {
    let text = serde_json::json!({"image": "b"});
    serde_json::from_value(text).unwrap()
}

pub(crate) fn assignment(key: Key) -> Assignment {
    Assignment {
        key,
        user: "ada".into(),
        role: "user".into(),
        request: request(),
        cpus: "1".parse().unwrap(),
        devices: Vec::new(),
        lease_seconds: 3600,
        wait_for_begin: false,
    }
}

fn done() -> Ending {
    Task::ending(PartOutcome::Done, None)
}

fn cancelled() -> Ending {
    Task::ending(PartOutcome::Cancelled, None)
}
