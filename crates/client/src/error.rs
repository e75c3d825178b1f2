//! What a call can come to besides its answer.

use std::time::Duration;

use api::problem::Problem;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The controller understood, and says no.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
    /// No connection, or it broke before the answer was there.
    #[error("reach the controller at {url}")]
    Unreachable { url: String, source: reqwest::Error },
    /// No answer, or no more of it.
    #[error("{call}: nothing came from the controller in {} s", within.as_secs_f64())]
    Deadline { call: String, within: Duration },
    /// Something answered that does not keep to the API.
    #[error("{call}: not the answer of a controller")]
    Protocol { call: String, source: Strange },
    /// Certificates or key of the context are of no use.
    #[error("use the context's certificates")]
    Certificates(#[from] pki::Error),
    /// The HTTP client could not be made.
    #[error("make an HTTP client")]
    Setup(#[source] reqwest::Error),
    /// A name that can be no part of an address.
    #[error("{0:?} is no name")]
    Name(String),
    /// What was to be sent could not be read.
    #[error("{call}: read what is to be sent")]
    Source {
        call: String,
        source: std::io::Error,
    },
    /// What came could not be written.
    #[error("{call}: write what came")]
    Sink {
        call: String,
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("get random numbers from the system")]
    Random(#[source] getrandom::Error),
}

/// How an answer was not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Strange {
    #[error("status {status} with {text:?}")]
    Status { status: u16, text: String },
    #[error("not the JSON that was expected")]
    Json(#[source] serde_json::Error),
    #[error("more than {limit} bytes")]
    TooLong { limit: u64 },
    #[error("{got} bytes of {expected}")]
    Length { expected: u64, got: u64 },
    #[error("its SHA-256 is {got}, not {expected}")]
    Digest { expected: String, got: String },
    #[error("asked for bytes from {from} on, it gives others")]
    Range { from: u64 },
    #[error("not a stream of events")]
    Events(#[source] crate::sse::TooLong),
    #[error("content type {0:?}")]
    ContentType(String),
}

impl Error {
    /// What the controller objects to.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// What was asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.problem().is_some_and(|problem| problem.status == 404)
    }
}
