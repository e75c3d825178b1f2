//! Hijacked connections: attach, exec and buildkit sessions turn HTTP into a raw stream.

use std::sync::Arc;

use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use policy::{Checked, Endpoint, Route};
use tokio::time::timeout;

use crate::clock::BusyGuard;
use crate::create::query_value;
use crate::engine_client::{EngineBody, EngineClient, Found};
use crate::forward::{Context, without_extensions};
use crate::headers;
use crate::listener::Shared;
use crate::peer::Line;
use crate::respond::{Refusal, full};
use crate::splice;
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
    let wants = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    match (can, wants, protocol) {
        (false, ..) => Ok(None),
        (true, true, Some(protocol)) => ["tcp", "h2c"]
            .into_iter()
            .find(|known| protocol.eq_ignore_ascii_case(known))
            .map(|known| Some(HeaderValue::from_static(known)))
            .ok_or_else(|| {
                Refusal::bad_request(format!(
                    "cannot upgrade to {protocol:?}; this request takes Upgrade: tcp or h2c"
                ))
            }),
        (true, ..) if matches!(endpoint, Endpoint::Session | Endpoint::Grpc) => {
            Err(needs_upgrade("a session"))
        }
        (true, ..) => Ok(None),
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
    mut response: Response<EngineBody>,
) -> Result<Response<Body>, Refusal> {
    let protocol = response
        .headers()
        .get(UPGRADE)
        .cloned()
        .unwrap_or_else(|| HeaderValue::from_static("tcp"));
    let engine = hyper::upgrade::on(&mut response);
    let (mut parts, engine_body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    headers::set_upgrade(&mut parts.headers, protocol);
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    busy.hijack();
    let joined = Joined {
        shared: Arc::clone(&context.shared),
        line: Arc::clone(&context.line),
        engine_body,
    };
    context.shared.tasks.spawn(joined.run(client, engine));
    Ok(Response::from_parts(without_extensions(parts), full("")))
}

struct Joined {
    shared: Arc<Shared>,
    /// The connection counts until it is closed.
    line: Arc<Line>,
    /// Keeps the engine's connection alive until hyper has handed it over.
    engine_body: EngineBody,
}

impl Joined {
    async fn run(self, client: OnUpgrade, engine: OnUpgrade) {
        let limits = &self.shared.limits;
        // Both sides have agreed; what is left is the 101 on its way to the client.
        let both = timeout(limits.handshake_deadline, async {
            tokio::try_join!(client, engine)
        });
        let streams = tokio::select! {
            () = self.shared.cut.cancelled() => return,
            both = both => both,
        };
        let (client, engine) = match streams {
            Ok(Ok(streams)) => streams,
            Ok(Err(error)) => {
                tracing::debug!(%error, "upgrade given up");
                return;
            }
            Err(_) => {
                tracing::debug!("upgrade not completed in time");
                return;
            }
        };
        drop(self.engine_body);
        tokio::select! {
            () = self.shared.cut.cancelled() => {}
            () = self.line.died() => tracing::debug!("client of a hijacked stream vanished"),
            result = splice::join(TokioIo::new(client), TokioIo::new(engine), limits.half_closed_idle) => {
                match result {
                    Ok(bytes) => tracing::debug!(?bytes, "hijacked stream ended"),
                    Err(error) => tracing::debug!(%error, "hijacked stream broke"),
                }
            }
        }
    }
}
