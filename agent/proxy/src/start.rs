//! Starting a container: its CPUs first.

use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::engine_client::{EngineClient, EngineError, Found, segment};
use crate::forward::{Context, stream};
use crate::respond::Refusal;
use crate::traits::Body;

/// Takes the container's CPUs and forwards the start or restart. In a task of its own: CPUs that
/// were taken for a start are followed by that start, even if the client leaves in between.
pub(crate) async fn run(
    context: Context,
    container: String,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let tasks = context.shared.tasks.clone();
    let task = tasks.spawn(async move { start(&context, &container, request).await });
    task.await.unwrap_or_else(|_| {
        Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the start was given up half way",
        ))
    })
}

async fn start(
    context: &Context,
    container: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    if let Err(denial) = context.shared.parts.placement.starting(container).await {
        remove_if_asked(&context.engine, container).await;
        return Err(denial.into());
    }
    let deadline = context.shared.limits.engine_change;
    let answer = tokio::select! {
        () = context.shared.cut.cancelled() => {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the node is going down"))
        }
        answer = timeout(deadline, context.engine.send(request)) => {
            match answer {
                Ok(answer) => answer.map(stream).map_err(Into::into),
                Err(_) => Err(EngineError::Slow { seconds: deadline.as_secs() }.into()),
            }
        }
    };
    context.shared.parts.placement.started(container).await;
    answer
}

/// The engine removes a `--rm` container whose start it refuses. When the refusal is ours it never
/// hears of it, and `docker run --rm` waits for the removal before it reports the error.
async fn remove_if_asked(engine: &EngineClient, container: &str) {
    let inspect = match engine.inspect(container).await {
        Ok(Found::Json(inspect)) => inspect,
        Ok(Found::Refused(..)) => return,
        Err(error) => {
            tracing::warn!(error = %error.chain(), "refused container not looked up");
            return;
        }
    };
    if inspect.pointer("/HostConfig/AutoRemove") != Some(&serde_json::Value::Bool(true)) {
        return;
    }
    // Not forced: a running one, whose restart was refused, goes on running. Anonymous volumes go
    // with it, as in the engine's own automatic removal.
    let id = inspect
        .get("Id")
        .and_then(|id| id.as_str())
        .unwrap_or(container);
    match engine
        .ask(Method::DELETE, &format!("/containers/{}?v=1", segment(id)))
        .await
    {
        Ok((status, _)) if status.is_success() => {}
        Ok((status, _)) => tracing::warn!(%status, "refused container not removed"),
        Err(error) => tracing::warn!(error = %error.chain(), "refused container not removed"),
    }
}
