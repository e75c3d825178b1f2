//! Answers of the proxy's own, in the engine's shape.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use policy::Denial;

use crate::engine_client::EngineError;
use crate::traits::Body;

/// A body that is at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{value}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error in the engine's shape, `{"message": …}`.
pub fn message(status: StatusCode, text: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "message": text }))
}

/// Why a request was not served.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request is at fault, or not allowed.
    Denied(Denial),
    /// The engine does not listen yet, or no more.
    EngineStarting { why: String },
    /// The engine was asked and failed to answer.
    Engine(EngineError),
    /// The engine's own refusal, passed on as it is.
    Passed(Box<Response<Body>>),
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Denied(Denial {
            status: status.as_u16(),
            message: message.into(),
        })
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        match self {
            Self::Denied(denial) => {
                tracing::debug!(status = denial.status, reason = %denial.message, "refused");
                let status = StatusCode::from_u16(denial.status)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                message(status, &denial.message)
            }
            Self::EngineStarting { why } => starting(&why),
            Self::Engine(error @ EngineError::Connect { .. }) => starting(&error.to_string()),
            Self::Engine(error) => {
                tracing::warn!(error = %error.chain(), "engine failed to answer");
                let status = if matches!(error, EngineError::Slow { .. }) {
                    StatusCode::GATEWAY_TIMEOUT
                } else {
                    StatusCode::BAD_GATEWAY
                };
                message(status, &error.chain())
            }
            Self::Passed(response) => *response,
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

fn starting(why: &str) -> Response<Body> {
    let mut response = message(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!("engine starting: {why}"),
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
