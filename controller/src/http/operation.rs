//! Every call of the API: one table of where it is, who may make it, and what it takes.
//!
//! The router, the checks of access and the OpenAPI document are all made from it.

use std::time::Duration;

use axum::http::Method;

use super::peer::Access;
use super::query::{MOST, Parameter, Shape};

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Health,
    OpenApi,
    Metrics,
    Version,
    Enrol,
    Renew,
    Submit,
    SubmitBatch,
    Jobs,
    Job,
    Why,
    Cancel,
    Document,
    Logs,
    Nodes,
    Pending,
    Approve,
    Node,
    ChangeNode,
    RevokeNode,
    Queues,
    SetQueue,
    RemoveQueue,
    Bookings,
    Book,
    Unbook,
    HealthCheck,
    SetHealthCheck,
    RemoveHealthCheck,
    Tokens,
    MakeToken,
    RevokeToken,
    Images,
    PushImage,
    Events,
}

/// Where a call is, who may make it, and what it takes.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) method: Method,
    /// In axum's syntax.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) query: &'static [Parameter],
    pub(crate) body: Takes,
    /// It is written to the audit log also when it is carried out.
    pub(crate) changes: bool,
    /// Until the head of the answer; `None`: the call has deadlines of its own.
    pub(crate) within: Option<Duration>,
}

/// A call's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Json {
        /// Bytes.
        limit: usize,
        /// Until it is here.
        within: Duration,
        /// It may be left out.
        optional: bool,
    },
    /// Streamed; of any length.
    Archive,
}

const MIB: usize = 1024 * 1024;

const JSON: Takes = Takes::Json {
    limit: MIB,
    within: Duration::from_secs(30),
    optional: false,
};

/// Calls that answer at once do so within this, or not at all.
const PROMPT: Duration = Duration::from_secs(60);

/// The longest that a call may wait for a job, seconds.
pub(crate) const LONGEST_WAIT: u64 = 60;
/// Items of a page.
pub(crate) const LONGEST_PAGE: u64 = 1000;

const LIMIT: Parameter = Parameter {
    name: "limit",
    shape: Shape::Integer {
        least: 1,
        last: LONGEST_PAGE,
    },
    about: "Items of the page at most.",
};

pub(crate) const JOB_TOKEN: char = 'j';
pub(crate) const NODE_TOKEN: char = 'n';

const JOBS: &[Parameter] = &[
    Parameter {
        name: "state",
        shape: Shape::States,
        about: "In one of these states.",
    },
    Parameter {
        name: "user",
        shape: Shape::Text,
        about: "Submitted by this user.",
    },
    Parameter {
        name: "queue",
        shape: Shape::Text,
        about: "Submitted to this queue.",
    },
    Parameter {
        name: "node",
        shape: Shape::Text,
        about: "With a part on this node, in any attempt; by id or name.",
    },
    Parameter {
        name: "after",
        shape: Shape::Token {
            letter: JOB_TOKEN,
            digits: 16,
        },
        about: "The `next` of the page before.",
    },
    LIMIT,
    Parameter {
        name: "order",
        shape: Shape::Choice(&["asc", "desc"]),
        about: "By id; `asc`, the oldest first, if it is not given.",
    },
];

const JOB: &[Parameter] = &[
    Parameter {
        name: "wait",
        shape: Shape::Integer {
            least: 0,
            last: LONGEST_WAIT,
        },
        about: "Answer only when the job is over, or has another state than `seen`, or after so many seconds.",
    },
    Parameter {
        name: "seen",
        shape: Shape::Choice(&STATES),
        about: "The state that the caller knows; without `wait` it has no effect.",
    },
];

/// As `JobState::ALL`, which a test compares.
const STATES: [&str; 11] = [
    "queued",
    "assigned",
    "preparing",
    "measuring",
    "collecting",
    "done",
    "failed",
    "noisy",
    "timed-out",
    "cancelled",
    "lost",
];

const LOGS: &[Parameter] = &[
    Parameter {
        name: "stream",
        shape: Shape::Choice(&["stdout", "stderr"]),
        about: "Which of the two; `stdout` if it is not given.",
    },
    Parameter {
        name: "node",
        shape: Shape::Text,
        about: "Whose, by id or name; needed when the job has several parts.",
    },
    Parameter {
        name: "follow",
        shape: Shape::Flag,
        about: "Of a job that is not over: what there is, and then more until its end. That makes traffic while it is measured.",
    },
];

const NODES: &[Parameter] = &[
    Parameter {
        name: "after",
        shape: Shape::Token {
            letter: NODE_TOKEN,
            digits: 128,
        },
        about: "The `next` of the page before.",
    },
    LIMIT,
];

const EVENTS: &[Parameter] = &[
    Parameter {
        name: "after",
        shape: Shape::Integer {
            least: 0,
            last: MOST,
        },
        about: "Only events with a higher number; all if it is not given. The header Last-Event-ID comes first.",
    },
    Parameter {
        name: "limit",
        shape: Shape::Integer {
            least: 1,
            last: LONGEST_PAGE,
        },
        about: "Items of the page at most; a stream ends after so many.",
    },
    Parameter {
        name: "job",
        shape: Shape::Integer {
            least: 0,
            last: MOST,
        },
        about: "Only of this job.",
    },
    Parameter {
        name: "node",
        shape: Shape::Text,
        about: "Only of this node, by id or name.",
    },
];

impl Operation {
    /// All calls, in the order of the document.
    pub const ALL: [Self; 35] = [
        Self::Health,
        Self::OpenApi,
        Self::Metrics,
        Self::Version,
        Self::Enrol,
        Self::Renew,
        Self::Submit,
        Self::SubmitBatch,
        Self::Jobs,
        Self::Job,
        Self::Why,
        Self::Cancel,
        Self::Document,
        Self::Logs,
        Self::Nodes,
        Self::Pending,
        Self::Approve,
        Self::Node,
        Self::ChangeNode,
        Self::RevokeNode,
        Self::Queues,
        Self::SetQueue,
        Self::RemoveQueue,
        Self::Bookings,
        Self::Book,
        Self::Unbook,
        Self::HealthCheck,
        Self::SetHealthCheck,
        Self::RemoveHealthCheck,
        Self::Tokens,
        Self::MakeToken,
        Self::RevokeToken,
        Self::Images,
        Self::PushImage,
        Self::Events,
    ];

    pub(crate) fn spec(self) -> Spec {
        use Access::{Admin, Client, Everybody, Node};
        match self {
            Self::Health => get("/healthz", Everybody, &[]),
            Self::OpenApi => get("/openapi.json", Client, &[]),
            Self::Metrics => get("/metrics", Client, &[]),
            Self::Version => get("/v1/version", Client, &[]),
            Self::Enrol => Spec {
                body: Takes::Json {
                    limit: 64 * 1024,
                    within: Duration::from_secs(10),
                    optional: false,
                },
                ..change(Method::POST, "/v1/enrol", Everybody)
            },
            Self::Renew => with_json(Method::POST, "/v1/renew", Node),
            Self::Submit => with_json(Method::POST, "/v1/jobs", Client),
            Self::SubmitBatch => Spec {
                body: Takes::Json {
                    limit: 32 * MIB,
                    within: Duration::from_secs(120),
                    optional: false,
                },
                within: Some(Duration::from_secs(180)),
                ..change(Method::POST, "/v1/jobs/batch", Client)
            },
            Self::Jobs => get("/v1/jobs", Client, JOBS),
            Self::Job => Spec {
                within: Some(Duration::from_secs(LONGEST_WAIT) + PROMPT),
                ..get("/v1/jobs/{id}", Client, JOB)
            },
            Self::Why => get("/v1/jobs/{id}/why", Client, &[]),
            Self::Cancel => Spec {
                body: Takes::Json {
                    limit: 64 * 1024,
                    within: Duration::from_secs(30),
                    optional: true,
                },
                ..change(Method::POST, "/v1/jobs/{id}/cancel", Client)
            },
            Self::Document => get("/v1/jobs/{id}/documents/{node}/{*name}", Client, &[]),
            Self::Logs => get("/v1/jobs/{id}/logs", Client, LOGS),
            Self::Nodes => get("/v1/nodes", Client, NODES),
            Self::Pending => get("/v1/nodes/pending", Client, &[]),
            Self::Approve => with_json(Method::POST, "/v1/nodes/approve", Admin),
            Self::Node => get("/v1/nodes/{id}", Client, &[]),
            Self::ChangeNode => with_json(Method::PATCH, "/v1/nodes/{id}", Admin),
            Self::RevokeNode => change(Method::POST, "/v1/nodes/{id}/revoke", Admin),
            Self::Queues => get("/v1/queues", Client, &[]),
            Self::SetQueue => with_json(Method::PUT, "/v1/queues/{name}", Admin),
            Self::RemoveQueue => change(Method::DELETE, "/v1/queues/{name}", Admin),
            Self::Bookings => get("/v1/bookings", Client, &[]),
            Self::Book => with_json(Method::POST, "/v1/bookings", Client),
            Self::Unbook => change(Method::DELETE, "/v1/bookings/{id}", Client),
            Self::HealthCheck => get("/v1/health-check", Client, &[]),
            Self::SetHealthCheck => with_json(Method::PUT, "/v1/health-check", Admin),
            Self::RemoveHealthCheck => change(Method::DELETE, "/v1/health-check", Admin),
            Self::Tokens => get("/v1/tokens", Admin, &[]),
            Self::MakeToken => with_json(Method::POST, "/v1/tokens", Admin),
            Self::RevokeToken => change(Method::DELETE, "/v1/tokens/{id}", Admin),
            Self::Images => get("/v1/images", Client, &[]),
            Self::PushImage => Spec {
                body: Takes::Archive,
                within: None,
                ..change(Method::POST, "/v1/images", Client)
            },
            Self::Events => get("/v1/events", Client, EVENTS),
        }
    }
}

fn get(path: &'static str, access: Access, query: &'static [Parameter]) -> Spec {
    Spec {
        method: Method::GET,
        path,
        access,
        query,
        body: Takes::Nothing,
        changes: false,
        within: Some(PROMPT),
    }
}

fn change(method: Method, path: &'static str, access: Access) -> Spec {
    Spec {
        method,
        changes: true,
        ..get(path, access, &[])
    }
}

fn with_json(method: Method, path: &'static str, access: Access) -> Spec {
    Spec {
        body: JSON,
        ..change(method, path, access)
    }
}
