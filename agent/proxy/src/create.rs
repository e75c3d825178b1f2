//! Creating a container: CPUs first, then the engine.

use bytes::Bytes;
use hop::headers::strip_hop_by_hop;
use hyper::{Response, StatusCode};
use policy::{Checked, PlacementRequest};
use tokio::time::timeout;

use crate::body::Prepared;
use crate::engine_client::{EngineError, collect};
use crate::forward::{Context, Head, without_extensions};
use crate::respond::{Refusal, full};
use crate::traits::{Body, Claimed};

/// Claims what the container needs, forwards the request and tells the placement what came of it.
/// Once CPUs are claimed the rest happens in a task of its own, so that a client that leaves in the
/// middle cannot leave a claim without an owner.
pub(crate) async fn run(
    context: Context,
    head: Head,
    target: &str,
    body: Prepared,
) -> Result<Response<Body>, Refusal> {
    let name = query_value(target, "name");
    let tasks = context.shared.tasks.clone();
    let task = tasks.spawn(async move { create(&context, head, name.as_deref(), body).await });
    task.await.unwrap_or_else(|_| {
        Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the create was given up half way",
        ))
    })
}

async fn create(
    context: &Context,
    head: Head,
    name: Option<&str>,
    body: Prepared,
) -> Result<Response<Body>, Refusal> {
    let Prepared::Judged(checked, _) = body else {
        return Err(Refusal::bad_request("a create request needs a JSON body"));
    };
    let Checked {
        mut body,
        placement,
        ..
    } = *checked;
    let placement_of = &context.shared.parts.placement;
    let claimed = match &placement {
        Some(PlacementRequest::Pinned(pin)) => {
            let claimed = placement_of.claim(pin, name).await?;
            policy::set_cgroup_parent(&mut body, &claimed.cgroup_parent);
            if let Some(runtime) = claimed.runtime {
                policy::set_runtime(&mut body, runtime);
            }
            Some(claimed)
        }
        Some(PlacementRequest::Housekeeping) | None => None,
    };
    let outcome = ask(context, head, full(body.to_string())).await;
    if let Some(Claimed { token, .. }) = &claimed {
        match outcome.as_ref().ok().and_then(Outcome::container_id) {
            Some(id) => placement_of.created(token, &id).await,
            None => placement_of.abandoned(token).await,
        }
    }
    outcome.map(|Outcome { parts, bytes }| Response::from_parts(parts, full(bytes)))
}

struct Outcome {
    parts: hyper::http::response::Parts,
    bytes: Bytes,
}

impl Outcome {
    fn container_id(&self) -> Option<String> {
        if self.parts.status != StatusCode::CREATED {
            return None;
        }
        let answer: serde_json::Value = serde_json::from_slice(&self.bytes).ok()?;
        answer.get("Id")?.as_str().map(str::to_owned)
    }
}

async fn ask(context: &Context, head: Head, body: Body) -> Result<Outcome, Refusal> {
    let limits = &context.shared.limits;
    let answer = async {
        let response = context.engine.send(head.request(body)).await?;
        let (mut parts, body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        let bytes = collect(body, limits.inspect_bytes).await?;
        Ok::<_, EngineError>(Outcome {
            parts: without_extensions(parts),
            bytes,
        })
    };
    tokio::select! {
        () = context.shared.cut.cancelled() => {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the node is going down"))
        }
        answer = timeout(limits.engine_change, answer) => Ok(answer
            .map_err(|_| EngineError::Slow { seconds: limits.engine_change.as_secs() })??),
    }
}

/// A value of a query string, decoded.
pub(crate) fn query_value(target: &str, key: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_the_query() {
        let of = |target: &str| query_value(target, "name");
        assert_eq!(
            of("/containers/create?platform=&name=a%2Fb+c"),
            Some("a/b c".into())
        );
        assert_eq!(of("/containers/create?rename=x"), None);
        assert_eq!(of("/containers/create?name=%zz"), None);
        assert_eq!(of("/containers/create?name=%f"), None);
        assert_eq!(of("/containers/create"), None);
    }
}
