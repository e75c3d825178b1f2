//! Why a request did not reach its node, in the words of the one who asks.

use axum::body::Body;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::json;

use crate::refusal::{Kind, Refusal};

/// What kind of client reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Of the container API: `{"message": …}`, and nothing else is understood.
    Docker,
    /// Of our own: a problem (RFC 9457).
    Ours,
}

impl Reader {
    /// By what is asked of the node.
    pub(super) fn of(target: &str) -> Self {
        if target.starts_with("/stillmetal/") {
            Self::Ours
        } else {
            Self::Docker
        }
    }

    pub(super) fn refuse(self, refusal: &Refusal) -> Response {
        let problem = refusal.problem();
        let (media, body) = match self {
            Self::Docker => {
                let text = match &refusal.next {
                    Some(next) => format!("{}; {next}", refusal.detail),
                    None => refusal.detail.clone(),
                };
                ("application/json", json!({ "message": text }).to_string())
            }
            Self::Ours => ("application/problem+json", json!(problem).to_string()),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if matches!(refusal.kind, Kind::NodeOffline | Kind::Busy) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
