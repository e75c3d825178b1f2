//! Hijacked connections: attach, exec and buildkit sessions turn HTTP into a raw stream.

use std::sync::Arc;

use hop::headers::{asked_upgrade, set_upgrade, strip_hop_by_hop};
use hop::{Answer, BusyGuard, Hijack, Resets, Traffic};
use hyper::header::{HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use policy::{Checked, Endpoint, Route};

use crate::create::query_value;
use crate::engine_client::{EngineClient, Found};
use crate::forward::{Context, without_extensions};
use crate::peer::Line;
use crate::respond::{Refusal, full};
use crate::service::Shared;
use crate::subjects;
use crate::traits::Body;

/// What the connection is to become, if the client asks for that and the endpoint can.
pub(crate) fn asked(
    headers: &HeaderMap,
    endpoint: &Endpoint,
) -> Result<Option<HeaderValue>, Refusal> {
    let can = matches!(
        endpoint,
        Endpoint::ContainerAttach { .. }
            | Endpoint::ExecStart { .. }
            | Endpoint::Session
            | Endpoint::Grpc
    );
    if !can {
        return Ok(None);
    }
    let protocol = asked_upgrade(headers).and_then(|value| value.to_str().ok());
    match protocol {
        Some(protocol) => ["tcp", "h2c"]
            .into_iter()
            .find(|known| protocol.eq_ignore_ascii_case(known))
            .map(|known| Some(HeaderValue::from_static(known)))
            .ok_or_else(|| {
                Refusal::bad_request(format!(
                    "cannot upgrade to {protocol:?}; this request takes Upgrade: tcp or h2c"
                ))
            }),
        None if matches!(endpoint, Endpoint::Session | Endpoint::Grpc) => {
            Err(needs_upgrade("a session"))
        }
        None => Ok(None),
    }
}

fn needs_upgrade(what: &str) -> Refusal {
    Refusal::bad_request(format!(
        "{what} needs Connection: Upgrade and Upgrade: tcp; without them there is no way to send \
         to the container"
    ))
}

/// Without an upgrade the answer can be streamed, but nothing can be sent: refuse what would wait
/// for input for ever.
pub(crate) async fn without(
    engine: &EngineClient,
    route: &Route,
    body: Option<&Checked>,
) -> Result<(), Refusal> {
    match &route.endpoint {
        Endpoint::ContainerAttach { .. } => {
            let on = |value: String| !matches!(value.as_str(), "" | "0" | "no" | "false" | "none");
            if query_value(&route.target, "stdin").is_some_and(on) {
                return Err(needs_upgrade("attach with stdin"));
            }
        }
        Endpoint::ExecStart { id } => {
            let detach = body.and_then(|checked| checked.body.get("Detach")?.as_bool());
            if detach == Some(true) {
                return Ok(());
            }
            // Whether there is an input was said when the exec was created.
            let known = subjects::exec(engine, id).await?;
            if let Found::Json(known) = known
                && known.get("OpenStdin").and_then(serde_json::Value::as_bool) != Some(false)
            {
                return Err(needs_upgrade("exec with stdin"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Passes the engine's 101 on and joins both connections in a task of their own.
pub(crate) fn hand_over(
    context: &Context,
    busy: &BusyGuard,
    client: OnUpgrade,
    mut response: Response<Answer>,
) -> Result<Response<Body>, Refusal> {
    let protocol = response
        .headers()
        .get(UPGRADE)
        .cloned()
        .unwrap_or_else(|| HeaderValue::from_static("tcp"));
    let server = hyper::upgrade::on(&mut response);
    let (mut parts, answer) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    set_upgrade(&mut parts.headers, protocol);
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    busy.hijack();
    let hijack = Hijack {
        client,
        server,
        answer,
        resets: Resets::AreEnds,
    };
    let (shared, line) = (Arc::clone(&context.shared), Arc::clone(&context.line));
    context.shared.tasks.spawn(pass_on(hijack, shared, line));
    Ok(Response::from_parts(without_extensions(parts), full("")))
}

/// The line counts as a connection until the stream has ended.
async fn pass_on(hijack: Hijack, shared: Arc<Shared>, line: Arc<Line>) {
    let limits = &shared.limits;
    let traffic = Traffic::default();
    let passing = hijack.run(limits.handshake_deadline, limits.half_closed_idle, &traffic);
    tokio::select! {
        () = shared.cut.cancelled() => {}
        () = line.gone() => tracing::debug!("client of a hijacked stream vanished"),
        ended = passing => match ended {
            Ok(()) => tracing::debug!(?traffic, "hijacked stream ended"),
            Err(error) => tracing::debug!(%error, "hijacked stream broke"),
        }
    }
}
