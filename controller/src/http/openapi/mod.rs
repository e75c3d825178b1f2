//! The OpenAPI 3.1 document: paths from the table of calls, schemas from the wire types.
//!
//! `controller/openapi.json` is a copy of it; a test fails when they differ.

mod describe;
mod schemas;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::call::LONGEST_KEY;
use super::operation::{Operation, Spec, Takes};
use super::peer::Access;
use super::query::{MOST, Parameter, Shape};
use crate::check;
use describe::{Content, Description, describe};

const TAGS: [(&str, &str); 9] = [
    ("jobs", "What to run, and what became of it."),
    ("nodes", "The machines that run jobs."),
    ("joining", "How machines become nodes."),
    ("queues", "Where jobs wait."),
    ("bookings", "Nodes that are kept for somebody."),
    ("health", "What nodes have to pass."),
    ("images", "What jobs run, kept without a registry."),
    ("events", "What happened."),
    ("controller", "The controller itself."),
];

/// The same as it is sent.
pub(crate) static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi().into());

/// The document, as JSON for people to read: the same bytes for the same program.
#[must_use]
pub fn openapi() -> String {
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stillmetal controller",
            "summary": "Jobs, nodes, queues and results of a lab of quiet machines.",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{
            "url": "https://{controller}",
            "variables": { "controller": { "default": "localhost:7443" } },
        }],
        "security": [{ "certificate": [] }],
        "tags": TAGS.map(|(name, about)| json!({ "name": name, "description": about })),
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of the controller's own authority. Its role is `admin`, `user` or `node`.",
                },
            },
            "responses": { "Problem": problem() },
            "schemas": schemas::all(),
        },
    });
    // a value of strings and numbers can always be written
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

const ABOUT: &str = "\
Times are milliseconds since the epoch by the controller's clock. \
Whatever is not answered as asked is answered with `application/problem+json` (RFC 9457): what \
went wrong, why, the field or resource it is about, and what to do next. \
Unknown fields and unknown query parameters are refused. \
A submission that carries an Idempotency-Key can be sent again: it is one submission.";

fn paths() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let path = spec.path.replace("{*", "{");
        let method = spec.method.as_str().to_ascii_lowercase();
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method] = call(&spec, &describe(operation));
    }
    Value::Object(paths)
}

fn call(spec: &Spec, about: &Description) -> Value {
    let mut call = json!({
        "operationId": about.id,
        "tags": [about.tag],
        "summary": about.summary,
        "description": format!("{} For {}.", about.text, spec.access.words()).trim(),
    });
    if spec.access == Access::Everybody {
        call["security"] = json!([]);
    }
    let mut parameters: Vec<Value> = path_parameters(spec.path);
    parameters.extend(spec.query.iter().map(query_parameter));
    parameters.extend(about.headers.iter().map(|header| header_parameter(header)));
    if !parameters.is_empty() {
        call["parameters"] = parameters.into();
    }
    match spec.body {
        Takes::Nothing => {}
        Takes::Json { optional, .. } => {
            call["requestBody"] = json!({
                "required": !optional,
                "content": { "application/json": { "schema": about.body } },
            });
        }
        Takes::Archive => {
            let formats = super::images::ARCHIVES;
            let content: Map<String, Value> = formats
                .into_iter()
                .map(|format| (format.to_owned(), json!({})))
                .collect();
            call["requestBody"] = json!({ "required": true, "content": content });
        }
    }
    call["responses"] = responses(spec, about);
    call
}

fn responses(spec: &Spec, about: &Description) -> Value {
    let mut responses = Map::new();
    for (status, text, content) in about.answers {
        let mut response = json!({ "description": text });
        match content {
            Content::Nothing => {}
            content => response["content"] = content.json(),
        }
        if *status == 201 && about.id == "submitJob" {
            response["headers"] = json!({
                "Location": { "description": "The job.", "required": true, "schema": { "type": "string" } },
            });
        }
        if !about.links.is_empty() {
            response["links"] = about
                .links
                .iter()
                .map(|(call, parameter, value)| {
                    let link = json!({ "operationId": call, "parameters": { *parameter: value } });
                    ((*call).to_owned(), link)
                })
                .collect();
        }
        responses.insert(status.to_string(), response);
    }
    let mut problems = vec![400, 500, 503, 504];
    if spec.access != Access::Everybody {
        problems.extend([401, 403]);
    }
    if spec.body != Takes::Nothing {
        problems.push(415);
    }
    if matches!(spec.body, Takes::Json { .. }) {
        problems.extend([408, 413]);
    }
    if spec.changes {
        problems.push(507);
    }
    problems.extend(about.problems);
    problems.sort_unstable();
    problems.dedup();
    for status in problems {
        responses.insert(
            status.to_string(),
            json!({ "$ref": "#/components/responses/Problem" }),
        );
    }
    Value::Object(responses)
}

fn problem() -> Value {
    json!({
        "description": "Not answered as asked: what went wrong, why, what it is about, and what to do next.",
        "headers": {
            "Retry-After": {
                "description": "Seconds until it is worth another try.",
                "schema": { "type": "integer", "minimum": 0 },
            },
        },
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    })
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.trim_start_matches('*'))
    });
    names
        .map(|name| {
            let (about, schema) = path_parameter(path, name);
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": about,
                "schema": schema,
            })
        })
        .collect()
}

fn path_parameter(path: &str, name: &str) -> (&'static str, Value) {
    let node = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    match (path, name) {
        (path, "id") if path.starts_with("/v1/jobs") => (
            "The job's number.",
            json!({ "type": "integer", "minimum": 0, "maximum": MOST }),
        ),
        (path, "id") if path.starts_with("/v1/tokens") => (
            "The token's public part.",
            json!({ "type": "string", "pattern": "^[!-~]{1,256}$" }),
        ),
        (_, "node" | "id") => ("Id or name of the node.", node),
        (path, _) if path.starts_with("/v1/queues") => (
            "The queue's name.",
            json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$" }),
        ),
        _ => (
            "The document's name; may have slashes, as they are or as %2F.",
            json!({ "type": "string", "minLength": 1, "maxLength": 512 }),
        ),
    }
}

fn query_parameter(parameter: &Parameter) -> Value {
    let mut value = json!({
        "name": parameter.name,
        "in": "query",
        "description": parameter.about,
    });
    value["schema"] = match parameter.shape {
        Shape::Integer { least, last } => {
            json!({ "type": "integer", "minimum": least, "maximum": last })
        }
        Shape::Text => json!({
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "pattern": r"^[^\u0000-\u001f\u007f]*$",
        }),
        Shape::Choice(choices) => json!({ "type": "string", "enum": choices }),
        Shape::States => {
            value["style"] = "form".into();
            value["explode"] = false.into();
            json!({
                "type": "array",
                "minItems": 1,
                "items": { "$ref": "#/components/schemas/JobState" },
            })
        }
        Shape::Token { letter, digits } => json!({
            "type": "string",
            "pattern": format!("^{letter}[0-9a-f]{{1,{digits}}}$"),
        }),
        Shape::Flag => json!({ "type": "boolean" }),
    };
    value
}

fn header_parameter(name: &str) -> Value {
    let (about, schema) = match name {
        "Idempotency-Key" => (
            "Makes the submission safe to repeat: the same key of the same user with the same jobs gives the jobs of the first time.",
            json!({ "type": "string", "pattern": format!("^[!-~]([ -~]{{0,{}}}[!-~])?$", LONGEST_KEY - 2) }),
        ),
        "Last-Event-ID" => (
            "Of a stream: only events behind this one. Comes before `after`.",
            json!({ "type": "integer", "minimum": 0, "maximum": MOST }),
        ),
        "Range" => (
            "A single range of bytes, as in RFC 9110; any other is as if it were not there.",
            json!({ "type": "string", "examples": ["bytes=0-999"] }),
        ),
        _ => (
            "As in RFC 9110; a document's tag is its SHA-256.",
            json!({ "type": "string" }),
        ),
    };
    json!({ "name": name, "in": "header", "description": about, "schema": schema })
}

/// A batch of jobs.
fn batch() -> Value {
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": check::BATCH,
        "items": { "$ref": "#/components/schemas/JobRequest" },
    })
}
