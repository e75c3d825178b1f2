//! One connection per request to the engine's unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hop::Answer;
use http_body_util::{BodyExt, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::respond::{Refusal, full};
use crate::service::Shared;
use crate::traits::{Body, BodyError, EngineStatus};

/// Why the engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("connect to the engine at {socket}")]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the engine ended the connection before it answered")]
    Broken(#[source] hyper::Error),
    #[error("the engine's answer broke off or is too long")]
    Answer(#[source] BodyError),
    #[error("the engine did not answer within {seconds} s")]
    Slow { seconds: u64 },
    #[error("the engine's answer to {target} is not the JSON expected")]
    NotJson { target: String },
}

impl EngineError {
    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Asks the engine on behalf of one request.
#[derive(Debug, Clone)]
pub(crate) struct EngineClient {
    socket: Arc<Path>,
    shared: Arc<Shared>,
}

impl EngineClient {
    /// # Errors
    /// When the engine is not ready.
    pub(crate) fn open(shared: &Arc<Shared>) -> Result<Self, Refusal> {
        match shared.parts.engine.engine() {
            EngineStatus::Ready(socket) => Ok(Self {
                socket: socket.into(),
                shared: Arc::clone(shared),
            }),
            EngineStatus::NotReady { why } => Err(Refusal::EngineStarting { why }),
        }
    }

    /// Sends a request and returns as soon as the answer's head is there. Dropping the future or
    /// the answer's body closes the connection.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Answer>, EngineError> {
        let failed = |source| EngineError::Connect {
            socket: self.socket.to_path_buf(),
            source,
        };
        let stream = timeout(
            self.shared.limits.engine_connect,
            UnixStream::connect(&self.socket),
        )
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
        hop::ask(stream, request, &self.shared.tasks)
            .await
            .map_err(EngineError::Broken)
    }

    /// A question of the proxy's own with a short answer.
    pub(crate) async fn ask(
        &self,
        method: hyper::Method,
        target: &str,
    ) -> Result<(StatusCode, Bytes), EngineError> {
        let mut request = Request::new(full(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| EngineError::NotJson {
            target: target.to_owned(),
        })?;
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("docker"));
        let limits = &self.shared.limits;
        let answer = async {
            let response = self.send(request).await?;
            let status = response.status();
            Ok((
                status,
                collect(response.into_body(), limits.inspect_bytes).await?,
            ))
        };
        timeout(limits.engine_answer, answer)
            .await
            .map_err(|_| EngineError::Slow {
                seconds: limits.engine_answer.as_secs(),
            })?
    }

    /// `GET` of a JSON document; `None` with the answer if the status is not 200.
    pub(crate) async fn get_json(&self, target: &str) -> Result<Found, EngineError> {
        let (status, bytes) = self.ask(hyper::Method::GET, target).await?;
        if status != StatusCode::OK {
            return Ok(Found::Refused(status, bytes));
        }
        serde_json::from_slice(&bytes)
            .map(Found::Json)
            .map_err(|_| EngineError::NotJson {
                target: target.to_owned(),
            })
    }

    /// What the engine knows of a container. Names come from `policy`, which rebuilt the path.
    pub(crate) async fn inspect(&self, container: &str) -> Result<Found, EngineError> {
        self.get_json(&format!("/containers/{}/json", segment(container)))
            .await
    }
}

/// The engine's word on something that may not exist.
#[derive(Debug)]
pub(crate) enum Found {
    Json(serde_json::Value),
    Refused(StatusCode, Bytes),
}

/// Reads a whole answer of bounded length.
pub(crate) async fn collect(body: Answer, limit: usize) -> Result<Bytes, EngineError> {
    let collected = Limited::new(body, limit)
        .collect()
        .await
        .map_err(EngineError::Answer)?;
    Ok(collected.to_bytes())
}

/// One path segment that cannot change the path around it.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
