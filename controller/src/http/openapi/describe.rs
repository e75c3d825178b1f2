//! What each call is for, in words, and what it answers.

use serde_json::{Map, Value, json};

use super::super::operation::Operation;
use super::batch;

/// A call for its reader.
pub(super) struct Description {
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// More than the summary; may be empty.
    pub(super) text: &'static str,
    /// Schema of the body.
    pub(super) body: Value,
    pub(super) headers: &'static [&'static str],
    pub(super) answers: &'static [(u16, &'static str, Content)],
    /// Statuses of problems, beside those that every such call has.
    pub(super) problems: &'static [u16],
    /// Calls that go on from a success: their name, their parameter, and where its value is.
    pub(super) links: &'static [(&'static str, &'static str, &'static str)],
}

/// What an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    /// JSON of this schema.
    One(&'static str),
    List(&'static str),
    Page(&'static str),
    /// A page, or a stream of them.
    Events,
    Document,
    Text,
    OpenMetrics,
    AnyJson,
}

impl Content {
    pub(super) fn json(self) -> Value {
        let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        let as_json = |schema: Value| json!({ "application/json": { "schema": schema } });
        match self {
            Self::Nothing => json!({}),
            Self::One(name) => as_json(reference(name)),
            Self::List(name) => as_json(json!({ "type": "array", "items": reference(name) })),
            Self::Page(name) => as_json(page(&reference(name))),
            Self::Events => json!({
                "application/json": { "schema": page(&reference("Event")) },
                "text/event-stream": { "schema": {
                    "type": "string",
                    "description": "Each message has the event's number as `id`, its kind as `event`, and the Event as `data`.",
                } },
            }),
            Self::Document => any(&["application/octet-stream", "application/json", "text/plain"]),
            Self::Text => any(&["text/plain"]),
            Self::OpenMetrics => any(&["application/openmetrics-text"]),
            Self::AnyJson => as_json(json!({ "type": "object" })),
        }
    }
}

fn any(formats: &[&str]) -> Value {
    let formats = formats.iter();
    Value::Object(
        formats
            .map(|format| ((*format).to_owned(), json!({})))
            .collect::<Map<_, _>>(),
    )
}

fn page(item: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": { "type": "array", "items": item },
            "next": {
                "type": ["string", "null"],
                "description": "Give it as `after` for the next page; `null`: this was the last.",
            },
        },
    })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

const BASE: Description = Description {
    id: "",
    tag: "controller",
    summary: "",
    text: "",
    body: Value::Null,
    headers: &[],
    answers: &[],
    problems: &[],
    links: &[],
};

/// The whole document's words, in the order of the table of calls.
pub(super) fn describe(operation: Operation) -> Description {
    match operation {
        Operation::Health
        | Operation::OpenApi
        | Operation::Metrics
        | Operation::Version
        | Operation::Events => controller(operation),
        Operation::Enrol
        | Operation::Renew
        | Operation::Pending
        | Operation::Approve
        | Operation::Tokens
        | Operation::MakeToken
        | Operation::RevokeToken => joining(operation),
        Operation::Bookings
        | Operation::Book
        | Operation::Unbook
        | Operation::HealthCheck
        | Operation::SetHealthCheck
        | Operation::RemoveHealthCheck => keeping(operation),
        Operation::Nodes
        | Operation::Node
        | Operation::ChangeNode
        | Operation::RevokeNode
        | Operation::Queues
        | Operation::SetQueue
        | Operation::RemoveQueue
        | Operation::Images
        | Operation::PushImage => lab(operation),
        Operation::Submit
        | Operation::SubmitBatch
        | Operation::Jobs
        | Operation::Job
        | Operation::Why
        | Operation::Cancel
        | Operation::Document
        | Operation::Logs => jobs(operation),
    }
}

fn jobs(operation: Operation) -> Description {
    let base = Description {
        tag: "jobs",
        ..BASE
    };
    match operation {
        Operation::Submit => Description {
            id: "submitJob",
            summary: "Submits a job",
            text: "It is durable when this answers.",
            body: schema("JobRequest"),
            headers: &["Idempotency-Key"],
            answers: &[(201, "The job.", Content::One("JobStatus"))],
            problems: &[404, 409, 429],
            links: &[
                ("getJob", "id", "$response.body#/id"),
                ("explainJob", "id", "$response.body#/id"),
                ("cancelJob", "id", "$response.body#/id"),
                ("getLogs", "id", "$response.body#/id"),
            ],
            ..base
        },
        Operation::SubmitBatch => Description {
            id: "submitJobs",
            summary: "Submits many jobs, all or none",
            text: "They are durable when this answers, and numbered in their order.",
            body: batch(),
            headers: &["Idempotency-Key"],
            answers: &[(
                201,
                "The jobs, in the order of the requests.",
                Content::List("JobStatus"),
            )],
            problems: &[404, 409, 429],
            ..base
        },
        Operation::Jobs => Description {
            id: "listJobs",
            summary: "Lists jobs, page by page",
            answers: &[(
                200,
                "A page, in the order of ids.",
                Content::Page("JobStatus"),
            )],
            problems: &[404],
            ..base
        },
        Operation::Job => Description {
            id: "getJob",
            summary: "A job as it stands, at once or when something happens",
            answers: &[(200, "The job.", Content::One("JobStatus"))],
            problems: &[404, 429],
            ..base
        },
        Operation::Why => Description {
            id: "explainJob",
            summary: "What a job waits for, and when it could start",
            answers: &[(200, "The reasons.", Content::One("Explanation"))],
            problems: &[404],
            ..base
        },
        Operation::Cancel => Description {
            id: "cancelJob",
            summary: "Asks for a job's end",
            text: "Of one's own jobs; role admin: of any.",
            body: schema("CancelRequest"),
            answers: &[(
                200,
                "The job; it may take a moment until it is over.",
                Content::One("JobStatus"),
            )],
            problems: &[404, 409],
            ..base
        },
        Operation::Document => Description {
            id: "getDocument",
            summary: "A document that a part of a job left behind",
            headers: &["Range", "If-Range", "If-None-Match"],
            answers: &[
                (200, "All of it.", Content::Document),
                (206, "The range that was asked for.", Content::Document),
                (304, "The caller has it already.", Content::Nothing),
            ],
            problems: &[404, 416],
            ..base
        },
        _ => Description {
            id: "getLogs",
            summary: "What a part of a job wrote",
            text: "Of a part that has not ended it is read from the node, as far as it has been written.",
            headers: &["Range", "If-Range", "If-None-Match"],
            answers: &[
                (200, "All of it.", Content::Text),
                (206, "The range that was asked for.", Content::Text),
                (304, "The caller has it already.", Content::Nothing),
            ],
            problems: &[404, 416, 502],
            ..base
        },
    }
}

fn lab(operation: Operation) -> Description {
    let nodes = Description {
        tag: "nodes",
        ..BASE
    };
    let queues = Description {
        tag: "queues",
        ..BASE
    };
    let images = Description {
        tag: "images",
        ..BASE
    };
    match operation {
        Operation::Nodes => Description {
            id: "listNodes",
            summary: "Lists nodes, page by page",
            answers: &[(
                200,
                "A page, in the order of ids.",
                Content::Page("NodeView"),
            )],
            ..nodes
        },
        Operation::Node => Description {
            id: "getNode",
            summary: "A node",
            answers: &[(200, "The node.", Content::One("NodeView"))],
            problems: &[404],
            ..nodes
        },
        Operation::ChangeNode => Description {
            id: "changeNode",
            summary: "Drains a node, ends its quarantine, or changes its labels",
            body: schema("NodeChange"),
            answers: &[(200, "The node as it is now.", Content::One("NodeView"))],
            problems: &[404, 409],
            ..nodes
        },
        Operation::RevokeNode => Description {
            id: "revokeNode",
            summary: "Takes a node's right to connect away",
            text: "Its certificate is worth nothing from then on, and its connection ends.",
            answers: &[(200, "The node as it is now.", Content::One("NodeView"))],
            problems: &[404, 409],
            ..nodes
        },
        Operation::Queues => Description {
            id: "listQueues",
            summary: "Lists queues",
            answers: &[(200, "All queues.", Content::List("QueueView"))],
            ..queues
        },
        Operation::SetQueue => Description {
            id: "setQueue",
            summary: "Makes a queue, or changes one",
            body: schema("QueueSettings"),
            answers: &[(200, "The queue as it is now.", Content::One("QueueView"))],
            problems: &[409],
            links: &[("removeQueue", "name", "$response.body#/name")],
            ..queues
        },
        Operation::RemoveQueue => Description {
            id: "removeQueue",
            summary: "Removes a queue in which no job waits",
            answers: &[(204, "It is gone.", Content::Nothing)],
            problems: &[404, 409],
            ..queues
        },
        Operation::Images => Description {
            id: "listImages",
            summary: "Lists images",
            answers: &[(200, "All images.", Content::List("ImageView"))],
            ..images
        },
        _ => Description {
            id: "pushImage",
            summary: "Adds an image",
            text: "The body is an archive as `docker save` writes it; it may be compressed.",
            answers: &[(201, "The image.", Content::One("ImageView"))],
            problems: &[408, 409, 413],
            ..images
        },
    }
}

/// How nodes are kept: for somebody, and in order.
fn keeping(operation: Operation) -> Description {
    let bookings = Description {
        tag: "bookings",
        ..BASE
    };
    let health = Description {
        tag: "health",
        ..BASE
    };
    match operation {
        Operation::Bookings => Description {
            id: "listBookings",
            summary: "Lists bookings that are not over",
            answers: &[(200, "All bookings.", Content::List("BookingView"))],
            ..bookings
        },
        Operation::Book => Description {
            id: "book",
            summary: "Keeps nodes for users for a time",
            text: "Jobs of others start there only if they are over before it begins. Refused where what runs, \
                   or another booking, might be in its way. Role user: for 6 hours at most, 7 days ahead, \
                   and the caller must be one of the users.",
            body: schema("BookingRequest"),
            answers: &[(201, "The booking.", Content::One("BookingView"))],
            problems: &[404, 409],
            links: &[("unbook", "id", "$response.body#/id")],
            ..bookings
        },
        Operation::Unbook => Description {
            id: "unbook",
            summary: "Ends a booking before its time",
            text: "One's own; role admin: any.",
            answers: &[(204, "It is over.", Content::Nothing)],
            problems: &[404],
            ..bookings
        },
        Operation::HealthCheck => Description {
            id: "getHealthCheck",
            summary: "The job that nodes have to pass, and when each of them did",
            answers: &[(200, "The check.", Content::One("HealthCheckView"))],
            ..health
        },
        Operation::SetHealthCheck => Description {
            id: "setHealthCheck",
            summary: "Sets the job that every node has to pass from time to time",
            text: "It is submitted for each node by itself, also when one joins, boots or leaves quarantine. \
                   A node on which it does not end as `done` is put in quarantine.",
            body: schema("HealthCheck"),
            answers: &[(
                200,
                "The check; all nodes are due.",
                Content::One("HealthCheckView"),
            )],
            problems: &[404],
            ..health
        },
        _ => Description {
            id: "removeHealthCheck",
            summary: "Ends the checks",
            answers: &[(204, "Nothing is checked any more.", Content::Nothing)],
            ..health
        },
    }
}

fn joining(operation: Operation) -> Description {
    let base = Description {
        tag: "joining",
        ..BASE
    };
    match operation {
        Operation::Enrol => Description {
            id: "enrol",
            summary: "Asks to be let in as a node",
            text: "With a token at once, without one when somebody has approved. Ask again with the same CSR until then.",
            body: schema("EnrolRequest"),
            answers: &[
                (
                    200,
                    "It is a node; here is its certificate.",
                    Content::One("EnrolAnswer"),
                ),
                (202, "Somebody has to approve.", Content::One("EnrolAnswer")),
            ],
            problems: &[403, 409, 429],
            ..base
        },
        Operation::Renew => Description {
            id: "renew",
            summary: "A new certificate for a node that has one",
            body: schema("RenewRequest"),
            answers: &[(200, "The certificate.", Content::One("RenewAnswer"))],
            problems: &[404, 409],
            ..base
        },
        Operation::Pending => Description {
            id: "listPendingNodes",
            summary: "Lists machines that wait for approval",
            answers: &[(200, "All of them.", Content::List("PendingNode"))],
            ..base
        },
        Operation::Approve => Description {
            id: "approveNode",
            summary: "Lets a machine in",
            text: "It becomes a node when it asks again.",
            body: schema("ApproveRequest"),
            answers: &[(200, "The machine.", Content::One("PendingNode"))],
            problems: &[404, 409],
            ..base
        },
        Operation::Tokens => Description {
            id: "listTokens",
            summary: "Lists tokens, without their secrets",
            answers: &[(
                200,
                "All that have not expired.",
                Content::List("TokenView"),
            )],
            ..base
        },
        Operation::MakeToken => Description {
            id: "makeToken",
            summary: "Makes a token that lets one machine join",
            text: "The secret is in this answer only.",
            body: schema("TokenRequest"),
            answers: &[(
                201,
                "The token, with its secret.",
                Content::One("TokenView"),
            )],
            problems: &[409],
            links: &[("revokeToken", "id", "$response.body#/id")],
            ..base
        },
        _ => Description {
            id: "revokeToken",
            summary: "Makes a token worthless",
            answers: &[(204, "It is gone.", Content::Nothing)],
            problems: &[404, 409],
            ..base
        },
    }
}

fn controller(operation: Operation) -> Description {
    match operation {
        Operation::Health => Description {
            id: "health",
            summary: "Whether the controller takes calls",
            answers: &[(200, "It does.", Content::One("Health"))],
            ..BASE
        },
        Operation::OpenApi => Description {
            id: "openapi",
            summary: "This document",
            answers: &[(200, "OpenAPI 3.1.", Content::AnyJson)],
            ..BASE
        },
        Operation::Metrics => Description {
            id: "metrics",
            summary: "Metrics as OpenMetrics text",
            answers: &[(
                200,
                "All metrics; reading them changes nothing.",
                Content::OpenMetrics,
            )],
            ..BASE
        },
        Operation::Version => Description {
            id: "version",
            summary: "Versions of the controller and its API",
            answers: &[(200, "The versions.", Content::One("VersionView"))],
            ..BASE
        },
        _ => Description {
            id: "listEvents",
            tag: "events",
            summary: "What happened, page by page or as it happens",
            text: "With `Accept: text/event-stream` it is a stream that does not end by itself.",
            headers: &["Last-Event-ID"],
            answers: &[(200, "A page, or a stream.", Content::Events)],
            problems: &[404, 429],
            ..BASE
        },
    }
}
