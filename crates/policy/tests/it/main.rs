//! The rules, seen through the public functions only.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml's leave does not reach helpers of tests"
)]

mod captured;
mod create;
mod existing;
mod other_bodies;
mod properties;
mod routes;

use policy::{Checked, Denial, Endpoint, NodeFacts, Role, check_body};
use serde_json::{Value, json};

/// CPUs 0-1 keep house, 2-5 are isolated.
fn node() -> NodeFacts {
    NodeFacts {
        isolated: "2-5".parse().unwrap(),
        housekeeping: "0-1".parse().unwrap(),
        unfit: None,
    }
}

fn create(role: Role, body: &Value) -> Result<Checked, Denial> {
    create_raw(role, &body.to_string())
}

fn create_raw(role: Role, body: &str) -> Result<Checked, Denial> {
    check_body(role, &Endpoint::ContainerCreate, &node(), body.as_bytes())
}

fn host_config(config: &Value) -> Value {
    json!({"Image": "alpine", "HostConfig": config})
}

/// A denial that a person can act on: what, why, next step, on one line.
#[track_caller]
fn assert_denied<T: std::fmt::Debug>(result: Result<T, Denial>, status: u16, part: &str) {
    let denial = result.unwrap_err();
    assert_eq!(denial.status, status, "{denial}");
    assert!(
        denial.message.contains(part),
        "`{denial}` does not mention `{part}`"
    );
    assert!(!denial.message.contains('\n'), "{denial}");
    assert_eq!(denial.body(), json!({"message": denial.message}));
}
