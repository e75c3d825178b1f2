//! Schemas of everything that is on the wire.

use api::booking::{BookingRequest, BookingView};
use api::event::Event;
use api::fleet::{
    EnrolAnswer, EnrolRequest, NodeChange, NodeView, PendingNode, RenewAnswer, RenewRequest,
    TokenRequest, TokenView,
};
use api::health::{HealthCheck, HealthCheckView};
use api::image::ImageView;
use api::job::{JobRequest, JobStatus};
use api::problem::Problem;
use api::queue::{QueueSettings, QueueView};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::super::jobs::CancelRequest;
use super::super::nodes::ApproveRequest;
use super::super::system::{Health, VersionView};

type Named = Vec<(String, RefOr<Schema>)>;

/// A type and all types that it refers to.
fn add<T: ToSchema>(all: &mut Named) {
    T::schemas(all);
    all.push((T::name().into_owned(), T::schema()));
}

/// By name.
pub(super) fn all() -> Value {
    let mut named = Named::new();
    add::<JobRequest>(&mut named);
    add::<JobStatus>(&mut named);
    add::<CancelRequest>(&mut named);
    add::<NodeView>(&mut named);
    add::<NodeChange>(&mut named);
    add::<PendingNode>(&mut named);
    add::<ApproveRequest>(&mut named);
    add::<EnrolRequest>(&mut named);
    add::<EnrolAnswer>(&mut named);
    add::<RenewRequest>(&mut named);
    add::<RenewAnswer>(&mut named);
    add::<TokenRequest>(&mut named);
    add::<TokenView>(&mut named);
    add::<QueueSettings>(&mut named);
    add::<QueueView>(&mut named);
    add::<BookingRequest>(&mut named);
    add::<BookingView>(&mut named);
    add::<HealthCheck>(&mut named);
    add::<HealthCheckView>(&mut named);
    add::<ImageView>(&mut named);
    add::<Event>(&mut named);
    add::<Problem>(&mut named);
    add::<VersionView>(&mut named);
    add::<Health>(&mut named);
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named.dedup_by(|(a, _), (b, _)| a == b);
    let mut schemas: Map<String, Value> = named
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    schemas.insert("Explanation".into(), explanation());
    refine(&mut schemas);
    schemas.sort_keys();
    Value::Object(schemas)
}

/// What the derived schemas cannot say: rules between fields.
fn refine(schemas: &mut Map<String, Value>) {
    let absent = json!({ "type": "null" });
    if let Some(request) = schemas.get_mut("JobRequest") {
        request["oneOf"] = json!([
            {
                "title": "a container",
                "required": ["image"],
                "properties": { "image": { "type": "string" }, "command": absent },
            },
            {
                "title": "a program of the node",
                "required": ["command"],
                "properties": {
                    "command": { "type": "array" },
                    "image": absent,
                    "argv": { "maxItems": 0 },
                    "artifacts": { "maxItems": 0 },
                },
            },
        ]);
    }
    if let Some(loss) = schemas.get_mut("OnLoss") {
        for variant in 0..2 {
            loss["oneOf"][variant]["additionalProperties"] = false.into();
        }
    }
    if let Some(metric) = schemas.get_mut("Metric") {
        metric["oneOf"] = json!([
            { "required": ["regex"], "properties": { "regex": { "type": "string" }, "pointer": absent } },
            { "required": ["pointer"], "properties": { "pointer": { "type": "string" }, "regex": absent } },
        ]);
    }
    if let Some(measure) = schemas.get_mut("Measure") {
        measure["anyOf"] = json!([
            { "properties": { "nice": absent } },
            { "properties": { "fifo": absent } },
        ]);
    }
}

fn explanation() -> Value {
    json!({
        "description": "Why a job has not started, in codes and in words.",
        "type": "object",
        "required": ["state", "reasons", "text"],
        "properties": {
            "state": { "$ref": "#/components/schemas/JobState" },
            "reasons": {
                "type": "array",
                "items": {
                    "description": "What else it has depends on the code.",
                    "type": "object",
                    "required": ["code"],
                    "properties": {
                        "code": { "type": "string", "description": "Such as `held`, `behind`, `no-such-nodes`." },
                    },
                },
            },
            "could_start_ms": {
                "description": "`null`: not as the nodes are, or not known.",
                "type": ["integer", "null"],
                "minimum": 0,
            },
            "text": {
                "description": "One sentence for each reason.",
                "type": "array",
                "items": { "type": "string" },
            },
        },
    })
}
