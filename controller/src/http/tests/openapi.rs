//! The document.

use serde_json::Map;

use super::*;
use crate::http::openapi;
use crate::http::operation::Operation;

const COMMITTED: &str = include_str!("../../../openapi.json");

#[test]
fn the_committed_document_is_the_generated_one() {
    assert!(
        COMMITTED == openapi(),
        "controller/openapi.json is out of date. Renew it with\n  \
         cargo run -p stillmetal-controller -- openapi > controller/openapi.json"
    );
}

fn document() -> Value {
    serde_json::from_str(&openapi()).unwrap()
}

/// All `$ref`s below a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                found.push(target.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn every_call_is_described() {
    let document = document();
    let empty = Map::new();
    let mut ids = std::collections::HashSet::new();
    let tags: Vec<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let path = spec.path.replace("{*", "{");
        let call = &document["paths"][&path][spec.method.as_str().to_lowercase()];
        let id = call["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(!call["summary"].as_str().unwrap().is_empty(), "{id}");
        assert!(tags.contains(&&call["tags"][0]), "{id}");
        let responses = call["responses"].as_object().unwrap_or(&empty);
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{id}"
        );
        assert!(responses.contains_key("500"), "{id}");
        // each part of the path is a parameter
        let named = path.matches('{').count();
        let parameters = call["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path").count();
        assert_eq!(named, in_path, "{id}");
        for parameter in &parameters {
            assert!(
                !parameter["description"].as_str().unwrap().is_empty(),
                "{id}"
            );
        }
    }
    let calls = document["paths"].as_object().unwrap().values();
    let count: usize = calls.map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(count, Operation::ALL.len());
}

#[test]
fn states_are_all_of_them() {
    let document = document();
    let states = &document["components"]["schemas"]["JobState"]["enum"];
    let all = api::job::JobState::ALL.map(api::job::JobState::as_str);
    assert_eq!(states, &json!(all));
    let parameters = document["paths"]["/v1/jobs/{id}"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let seen = parameters
        .iter()
        .find(|parameter| parameter["name"] == "seen")
        .unwrap();
    assert_eq!(seen["schema"]["enum"], json!(all));
}

/// Refused where the document says that nothing else is allowed, taken where it says nothing.
#[tokio::test]
async fn unknown_fields_are_what_the_document_says() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for name in [
        "JobRequest",
        "Place",
        "Measure",
        "JobLimits",
        "NodeChange",
        "QueueSettings",
        "BookingRequest",
        "HealthCheck",
        "TokenRequest",
        "EnrolRequest",
        "MachineHints",
        "CancelRequest",
        "ApproveRequest",
        "RenewRequest",
    ] {
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
    }
    let bench = Bench::new();
    for (index, loss) in [
        json!({ "policy": "requeue", "attempts": 1, "x": 1 }),
        json!({ "policy": "fail", "x": 1 }),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "image": "a", "on_loss": loss });
        let got = bench
            .ask(alice(), "POST", "/v1/jobs")
            .json(&body)
            .send()
            .await;
        let closed = schemas["OnLoss"]["oneOf"][index]["additionalProperties"] == false;
        assert_eq!(got.status == 400, closed, "{loss}: {got:?}");
    }
}
