//! A container as its user described it: placement puts back what the proxy had rewritten.

use hop::Answer;
use hop::headers::strip_hop_by_hop;
use hyper::Response;
use hyper::header::CONTENT_LENGTH;

use crate::engine_client::{EngineError, collect};
use crate::forward::{Context, without_extensions};
use crate::respond::{Refusal, full};
use crate::traits::Body;

/// The engine's answer with the placement undone. An answer that placement leaves alone passes byte
/// for byte.
pub(crate) async fn restore(
    context: &Context,
    response: Response<Answer>,
) -> Result<Response<Body>, Refusal> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let bytes = collect(body, context.shared.limits.inspect_bytes).await?;
    let mut value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|_| EngineError::NotJson {
            target: "a container's inspect".to_owned(),
        })?;
    let before = value.clone();
    context.shared.parts.placement.restore_view(&mut value);
    if value == before {
        return Ok(Response::from_parts(without_extensions(parts), full(bytes)));
    }
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(
        without_extensions(parts),
        full(format!("{value}\n")),
    ))
}
