//! Answers that are not problems.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde::Serialize;

use super::audit::Subject;
use super::fault::Fault;
use crate::refusal::Kind;

pub(crate) fn json<T: Serialize + ?Sized>(
    status: StatusCode,
    value: &T,
) -> Result<Response<Body>, Fault> {
    let bytes = serde_json::to_vec(value)
        .map_err(|_| Fault::new(Kind::Internal, "the answer cannot be written as JSON"))?;
    Ok(bytes_of(status, "application/json", bytes))
}

pub(crate) fn ok<T: Serialize + ?Sized>(value: &T) -> Result<Response<Body>, Fault> {
    json(StatusCode::OK, value)
}

pub(crate) fn bytes_of(
    status: StatusCode,
    format: &'static str,
    bytes: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format));
    response
}

pub(crate) fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Tells the audit log what it was about.
pub(crate) fn about(mut response: Response<Body>, subject: String) -> Response<Body> {
    response.extensions_mut().insert(Subject(subject));
    response
}
