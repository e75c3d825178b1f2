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

/// Whether a request only brings its container to an end.
pub(crate) fn only_ends(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::ContainerStop { .. }
            | Endpoint::ContainerKill { .. }
            | Endpoint::ContainerRemove { .. }
    )
}

/// Checks the containers of a request, those whose namespaces they share, and their volumes.
///
/// A container may have outlived the one whose namespace it shares, of which nothing can be known
/// any more: it can be ended, and nothing else.
pub(crate) async fn check(
    engine: &EngineClient,
    role: Role,
    containers: &[String],
    only_ends: bool,
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
        let found = engine.inspect(&container).await?;
        if matches!(found, Found::Refused(StatusCode::NOT_FOUND, _))
            && !containers.contains(&container)
        {
            if only_ends {
                continue;
            }
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!(
                    "this container shares a namespace with {container}, which is gone, and it cannot be known any more whether that was for role user: end and remove this one, and create it anew"
                ),
            ));
        }
        let inspect = known(found)?;
        policy::check_existing(role, &inspect)?;
        check_volumes(engine, role, &policy::mounted_volumes(&inspect)).await?;
        waiting.extend(policy::linked_containers(&inspect));
        seen.push(container);
    }
    Ok(())
}

/// Checks volumes that exist; the engine makes the others when they are first used.
pub(crate) async fn check_volumes(
    engine: &EngineClient,
    role: Role,
    volumes: &[String],
) -> Result<(), Refusal> {
    if role == Role::Admin {
        return Ok(());
    }
    for volume in volumes {
        let target = format!("/volumes/{}", segment(volume));
        match engine.get_json(&target).await? {
            Found::Refused(StatusCode::NOT_FOUND, _) => {}
            found => policy::check_volume(role, &known(found)?)?,
        }
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
    check(engine, role, &[container], false).await
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
