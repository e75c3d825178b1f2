//! Whatever is sent, to whatever call: an answer that the document knows, never a fault.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::http::openapi;
use crate::http::operation::Operation;

/// JSON of any shape, with words that the API knows in it.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("image"),
        Just("command"),
        Just("argv"),
        Just("env"),
        Just("place"),
        Just("nodes"),
        Just("measure"),
        Just("fifo"),
        Just("limits"),
        Just("on_loss"),
        Just("policy"),
        Just("fail"),
        Just("reason"),
        Just("fingerprint"),
        Just("csr_pem"),
        Just("machine"),
        Just("hostname"),
        Just("token"),
        Just("draining"),
        Just("labels"),
        Just("capacity"),
        Just("users"),
        Just("valid_seconds"),
        Just("queue"),
        Just("default"),
        Just("x"),
    ]
    .prop_map(str::to_owned);
    let text = prop_oneof![word.clone(), ".{0,8}", Just("\0".to_owned())];
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..5)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Bytes that may be JSON.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => any_json().prop_map(|json| json.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (any_json(), any::<prop::sample::Index>()).prop_map(|(json, end)| {
            let text = json.to_string().into_bytes();
            let end = end.index(text.len() + 1);
            text[..end].to_vec()
        }),
    ]
}

/// A part of a path or a query, as it may stand in a URI.
fn any_part() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1".to_owned()),
        Just("default".to_owned()),
        Just("n1".to_owned()),
        "[0-9]{1,22}",
        "[a-zA-Z0-9._~-]{1,12}",
        "(%[0-9a-fA-F]{2}){1,4}",
        "%[0-9a-g]{0,2}[a-z]{0,3}",
    ]
}

fn any_query(operation: Operation) -> impl Strategy<Value = String> {
    let names: Vec<_> = operation
        .spec()
        .query
        .iter()
        .map(|parameter| parameter.name)
        .collect();
    let name = match names.as_slice() {
        [] => any_part().boxed(),
        _ => prop_oneof![
            9 => prop::sample::select(names).prop_map(str::to_owned),
            1 => any_part(),
        ]
        .boxed(),
    };
    // waiting is tested elsewhere
    let value = prop_oneof![
        Just("0"),
        Just("5"),
        Just("queued,done"),
        Just("j1"),
        Just("n6e31"),
        Just("asc"),
        Just("stderr"),
        Just("true"),
        Just("n1"),
    ];
    let value = prop_oneof![3 => value.prop_map(str::to_owned), 1 => any_part()];
    let pair = (name, value).prop_map(|(name, value)| match name.as_str() {
        "wait" => "wait=0".to_owned(),
        "follow" => "follow=false".to_owned(),
        _ => format!("{name}={value}"),
    });
    prop::collection::vec(pair, 0..3).prop_map(|pairs| pairs.join("&"))
}

/// Bytes of a header's value.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![b' '..=b'~', 0x80_u8..=0xff], 0..40)
}

#[derive(Debug, Clone)]
struct Shot {
    operation: Operation,
    parts: Vec<String>,
    query: String,
    json: bool,
    body: Vec<u8>,
    headers: Vec<(&'static str, Vec<u8>)>,
}

fn any_shot() -> impl Strategy<Value = Shot> {
    let operation = prop::sample::select(Operation::ALL.to_vec());
    let header = prop::sample::select(vec![
        "idempotency-key",
        "range",
        "if-range",
        "if-none-match",
        "last-event-id",
        "accept",
    ]);
    operation.prop_flat_map(move |operation| {
        (
            prop::collection::vec(any_part(), 3),
            any_query(operation),
            prop::bool::weighted(0.9),
            any_body(),
            prop::collection::vec((header.clone(), any_header()), 0..2),
        )
            .prop_map(move |(parts, query, json, body, headers)| Shot {
                operation,
                parts,
                query,
                json,
                body,
                headers,
            })
    })
}

async fn fire(bench: &Bench, shot: &Shot, peer: Peer) -> Got {
    let spec = shot.operation.spec();
    let mut parts = shot.parts.iter();
    let path: Vec<_> = spec
        .path
        .split('/')
        .map(|part| match part.starts_with('{') {
            true => parts.next().unwrap().as_str(),
            false => part,
        })
        .collect();
    let uri = format!("{}?{}", path.join("/"), shot.query);
    let mut ask = bench.ask(peer, spec.method.as_str(), &uri);
    if !shot.body.is_empty() && spec.changes {
        let format = match shot.json {
            true => "application/json",
            false => "application/x-tar",
        };
        ask = ask.bytes(format, shot.body.clone());
    }
    for (name, value) in &shot.headers {
        ask = ask.header(name, value);
    }
    ask.send().await
}

/// Also when the controller's parts fail or refuse.
#[test]
fn no_call_is_a_fault_and_every_answer_is_documented() {
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(async {
        let bench = Bench::new();
        let (job, nodes) = bench.placed(&["n1"]).await;
        bench
            .fake
            .store_document(job, &nodes[0], "default", "0123456789");
        bench
    });
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(1500)
    });
    let mut statuses = std::collections::BTreeMap::new();
    let seen = std::cell::RefCell::new(&mut statuses);
    let result = runner.run(&any_shot(), |shot| {
        let spec = shot.operation.spec();
        let peer = match shot.operation {
            Operation::Renew => node(),
            _ => root(),
        };
        let got = runtime.block_on(soon(fire(&bench, &shot, peer)));
        let path = spec.path.replace("{*", "{");
        let responses = &document["paths"][path][spec.method.as_str().to_lowercase()]["responses"];
        prop_assert!(got.status.as_u16() < 500, "{got:?}");
        prop_assert!(
            !responses[got.status.as_str()].is_null(),
            "undocumented: {got:?}"
        );
        if got.status.as_u16() >= 400 {
            let name: Problem = serde_json::from_slice(&got.body).unwrap();
            let kind = name.kind.strip_prefix("stillmetal:").unwrap();
            got.problem(got.status.as_u16(), kind);
        }
        *seen.borrow_mut().entry(got.status.as_u16()).or_insert(0) += 1;
        Ok(())
    });
    result.unwrap();
    // it went through, and it was refused, often enough to mean something
    for status in [200, 400, 404] {
        assert!(
            statuses.get(&status).is_some_and(|count| *count > 10),
            "{statuses:?}"
        );
    }
}
