//! Whether a role may touch the containers that a request is about, by what the engine knows of
//! them. Admins may touch all, so for them nothing is asked.

use std::collections::VecDeque;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use policy::{Endpoint, Role};

use crate::engine_client::{EngineClient, Found, segment};
use crate::respond::{self, Refusal};

/// A container sharing namespaces with one that shares with one …: more is not followed.
const LONGEST_CHAIN: usize = 16;

/// Checks the containers of a request, and those whose namespaces they share.
pub(crate) async fn check(
    engine: &EngineClient,
    role: Role,
    containers: &[String],
) -> Result<(), Refusal> {
    if role == Role::Admin {
        return Ok(());
    }
    let mut waiting: VecDeque<String> = containers.iter().cloned().collect();
    let mut seen: Vec<String> = Vec::new();
    while let Some(container) = waiting.pop_front() {
        if seen.contains(&container) {
            continue;
        }
        if seen.len() >= LONGEST_CHAIN.max(containers.len()) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!("more than {LONGEST_CHAIN} containers share namespaces with this one"),
            ));
        }
        let inspect = known(engine.inspect(&container).await?)?;
        policy::check_existing(role, &inspect)?;
        waiting.extend(policy::linked_containers(&inspect));
        seen.push(container);
    }
    Ok(())
}

/// Checks the exec of a start or resize, and the container that it runs in.
pub(crate) async fn check_exec(
    engine: &EngineClient,
    role: Role,
    endpoint: &Endpoint,
) -> Result<(), Refusal> {
    let (Endpoint::ExecStart { id } | Endpoint::ExecResize { id }) = endpoint else {
        return Ok(());
    };
    if role == Role::Admin {
        return Ok(());
    }
    let exec = known(exec(engine, id).await?)?;
    let container = policy::check_exec(role, &exec)?;
    check(engine, role, &[container]).await
}

/// What the engine knows of an exec.
pub(crate) async fn exec(engine: &EngineClient, id: &str) -> Result<Found, Refusal> {
    Ok(engine
        .get_json(&format!("/exec/{}/json", segment(id)))
        .await?)
}

/// "No such container" is best said in the engine's own words.
fn known(found: Found) -> Result<serde_json::Value, Refusal> {
    match found {
        Found::Json(value) => Ok(value),
        Found::Refused(status, bytes) => {
            let mut response = Response::new(respond::full(bytes));
            *response.status_mut() = status;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            Err(Refusal::Passed(Box::new(response)))
        }
    }
}
