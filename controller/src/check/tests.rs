use api::job::JobRequest;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn request(change: impl FnOnce(&mut Value)) -> JobRequest {
    let mut json = json!({ "image": "bench/demo:1" });
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

/// Kind and JSON pointer of the refusal.
fn refused(request: &JobRequest, role: Role) -> Option<(Kind, String)> {
    let refusal = job(request, role, "").err()?;
    assert!(
        refusal.next.is_some(),
        "{refusal:?} does not say what to do"
    );
    assert!(!refusal.detail.is_empty());
    Some((refusal.kind, refusal.instance.unwrap()))
}

#[test]
fn each_wrong_field_is_named() {
    let cases: Vec<(Value, &str)> = vec![
        (json!({}), "/image"),
        (
            json!({ "image": "a", "command": ["/bin/true"] }),
            "/command",
        ),
        (json!({ "image": "" }), "/image"),
        (json!({ "image": "-v" }), "/image"),
        (json!({ "image": "a b" }), "/image"),
        (json!({ "image": "a".repeat(513) }), "/image"),
        (json!({ "image": "a", "name": "" }), "/name"),
        (json!({ "image": "a", "name": "a\nb" }), "/name"),
        (json!({ "image": "a", "name": "a".repeat(201) }), "/name"),
        (json!({ "image": "a", "queue": "" }), "/queue"),
        (json!({ "image": "a", "queue": "Fast" }), "/queue"),
        (json!({ "image": "a", "queue": "-a" }), "/queue"),
        (json!({ "image": "a", "queue": "a".repeat(65) }), "/queue"),
        (json!({ "image": "a", "argv": ["x", "a\0b"] }), "/argv/1"),
        (
            json!({ "image": "a", "argv": ["a".repeat(32_001)] }),
            "/argv/0",
        ),
        (json!({ "image": "a", "argv": vec!["a"; 4097] }), "/argv"),
        (
            json!({ "image": "a", "argv": vec!["a".repeat(32_000); 9] }),
            "/",
        ),
        (json!({ "command": [] }), "/command"),
        (json!({ "command": ["true"] }), "/command/0"),
        (json!({ "command": ["/bin/true", "\0"] }), "/command/1"),
        (json!({ "command": ["/bin/true"], "argv": ["x"] }), "/argv"),
        (json!({ "image": "a", "env": { "": "x" } }), "/env/"),
        (json!({ "image": "a", "env": { "A=B": "x" } }), "/env/A=B"),
        (json!({ "image": "a", "env": { "A B": "x" } }), "/env/A B"),
        (
            json!({ "image": "a", "env": { "A/~B": "\0" } }),
            "/env/A~1~0B",
        ),
        (
            json!({ "image": "a", "place": { "nodes": 0 } }),
            "/place/nodes",
        ),
        (
            json!({ "image": "a", "place": { "nodes": 4097 } }),
            "/place/nodes",
        ),
        (
            json!({ "image": "a", "place": { "cpus": 0 } }),
            "/place/cpus",
        ),
        (
            json!({ "image": "a", "place": { "memory_bytes": 1 } }),
            "/place/memory_bytes",
        ),
        (
            json!({ "image": "a", "place": { "memory_bytes": u64::MAX } }),
            "/place/memory_bytes",
        ),
        (
            json!({ "image": "a", "place": { "node": "" } }),
            "/place/node",
        ),
        (
            json!({ "image": "a", "place": { "class": "\u{7f}" } }),
            "/place/class",
        ),
        (
            json!({ "image": "a", "place": { "labels": { "/": "x" } } }),
            "/place/labels/~1",
        ),
        (
            json!({ "image": "a", "place": { "labels": { "a": "\n" } } }),
            "/place/labels/a",
        ),
        (
            json!({ "image": "a", "place": { "devices": ["/dev/null", ""] } }),
            "/place/devices/1",
        ),
        (
            json!({ "image": "a", "place": { "devices": vec!["a"; 65] } }),
            "/place/devices",
        ),
        (
            json!({ "image": "a", "measure": { "repetitions": 0 } }),
            "/measure/repetitions",
        ),
        (
            json!({ "image": "a", "measure": { "warmups": 101 } }),
            "/measure/warmups",
        ),
        (
            json!({ "image": "a", "measure": { "attempts": 0 } }),
            "/measure/attempts",
        ),
        (
            json!({ "image": "a", "measure": { "canary_seconds": 3601 } }),
            "/measure/canary_seconds",
        ),
        (
            json!({ "image": "a", "measure": { "nice": 20 } }),
            "/measure/nice",
        ),
        (
            json!({ "image": "a", "measure": { "fifo": 0 } }),
            "/measure/fifo",
        ),
        (
            json!({ "image": "a", "measure": { "fifo": 1, "nice": 1 } }),
            "/measure/fifo",
        ),
        (
            json!({ "image": "a", "limits": { "run_seconds": 0 } }),
            "/limits/run_seconds",
        ),
        (
            json!({ "image": "a", "limits": { "total_seconds": 0 } }),
            "/limits/total_seconds",
        ),
        (
            json!({ "image": "a", "limits": { "output_seconds": 31_536_001 } }),
            "/limits/output_seconds",
        ),
        (
            json!({ "image": "a", "limits": { "queued_seconds": 0 } }),
            "/limits/queued_seconds",
        ),
        (
            json!({ "image": "a", "on_loss": { "policy": "requeue", "attempts": 0 } }),
            "/on_loss/attempts",
        ),
    ];
    for (json, pointer) in cases.into_iter().chain(wrong_outputs()) {
        let request: JobRequest = serde_json::from_value(json.clone()).unwrap();
        let found = refused(&request, Role::Admin);
        assert_eq!(found, Some((Kind::Invalid, pointer.to_owned())), "{json}");
    }
}

/// Metrics and artifacts; all that can be wrong with them is tested where it is checked.
fn wrong_outputs() -> Vec<(Value, &'static str)> {
    let metric = |metric: Value| json!({ "image": "a", "metrics": [{ "name": "m", "regex": "(a)" }, metric] });
    vec![
        (
            metric(json!({ "name": "m", "regex": "(a)" })),
            "/metrics/1/name",
        ),
        (
            metric(json!({ "name": "n", "regex": "(a" })),
            "/metrics/1/regex",
        ),
        (metric(json!({ "name": "n" })), "/metrics/1/regex"),
        (
            metric(json!({ "name": "n", "pointer": "a" })),
            "/metrics/1/pointer",
        ),
        (
            metric(json!({ "name": "n", "pointer": "", "unit": "\n" })),
            "/metrics/1/unit",
        ),
        (
            metric(json!({ "name": "n", "pointer": "", "from": { "file": "a" } })),
            "/metrics/1/from/file",
        ),
        (
            json!({ "image": "a", "metrics": vec![json!({ "name": "m", "pointer": "" }); 65] }),
            "/metrics",
        ),
        (
            json!({ "image": "a", "artifacts": ["/a", "/b/../c"] }),
            "/artifacts/1",
        ),
        (
            json!({ "image": "a", "artifacts": vec!["/a"; 33] }),
            "/artifacts",
        ),
        (
            json!({ "command": ["/bin/true"], "artifacts": ["/a"] }),
            "/artifacts",
        ),
        (json!({ "image": "a", "tools": ["cpu", "gpu"] }), "/tools/1"),
        (
            json!({ "image": "a", "tools": ["cpu", "cpu:2s"] }),
            "/tools/1",
        ),
        (json!({ "image": "a", "tools": vec!["all"; 17] }), "/tools"),
    ]
}

#[test]
fn a_wrong_pattern_is_shown_with_its_metric() {
    let wrong =
        request(|json| json["metrics"] = json!([{ "name": "rate", "regex": "rate: ([0-9" }]));
    let refusal = job(&wrong, Role::User, "").unwrap_err();
    for part in ["metric \"rate\"", "rate: ([0-9", "unclosed character class"] {
        assert!(refusal.detail.contains(part), "{}", refusal.detail);
    }
    let good = request(|json| {
        json["metrics"] =
            json!([{ "name": "rate", "from": { "file": "/out" }, "pointer": "/a/0" }]);
        json["artifacts"] = json!(["/out"]);
    });
    assert_eq!(refused(&good, Role::User), None);
}

/// The document's list of what may be asked for is the one that is checked.
#[test]
fn each_tool_and_set_is_taken() {
    let words = &schema("JobRequest")["properties"]["tools"];
    let most = usize::try_from(words["maxItems"].as_u64().unwrap()).unwrap();
    assert_eq!(words["items"]["pattern"], api::tool::PATTERN);
    let tools = [
        "cpu:100ms",
        "interrupts",
        "memory",
        "disk",
        "network:999s",
        "frequency",
        "temperature?",
        "energy:2s?",
        "perf:cycles,page-faults?",
        "light",
        "medium",
        "all:10s",
    ];
    let repeated = std::iter::repeat("light");
    let all: Vec<&str> = tools.into_iter().chain(repeated).take(most).collect();
    let request = request(|json| json["tools"] = json!(all));
    assert_eq!(refused(&request, Role::User), None);
    let wrong = job(
        &self::request(|json| json["tools"] = json!(["gpu"])),
        Role::User,
        "",
    );
    let wrong = wrong.unwrap_err();
    assert!(
        wrong.next.unwrap().contains("cpu, interrupts, memory"),
        "what there is"
    );
}

/// The schema's bounds of metrics and artifacts, as those of numbers below.
#[test]
fn documented_bounds_of_metrics_are_the_checked_ones() {
    let metric = schema("Metric");
    let longest = |field: &str| {
        usize::try_from(metric["properties"][field]["maxLength"].as_u64().unwrap()).unwrap()
    };
    let try_with = |more: Value| {
        let mut metric = json!({ "name": "m" });
        metric
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let request = request(|json| json["metrics"] = json!([metric]));
        job(&request, Role::User, "").is_ok()
    };
    for (fine, over) in [(true, 0), (false, 1)] {
        let regex = format!("({})", "a".repeat(longest("regex") - 2 + over));
        assert_eq!(try_with(json!({ "regex": regex })), fine);
        let pointer = format!("/{}", "a".repeat(longest("pointer") - 1 + over));
        assert_eq!(try_with(json!({ "pointer": pointer })), fine);
        let unit = "a".repeat(longest("unit") + over);
        assert_eq!(try_with(json!({ "pointer": "", "unit": unit })), fine);
    }
    let most = |field: &str| {
        let property = &schema("JobRequest")["properties"][field];
        usize::try_from(property["maxItems"].as_u64().unwrap()).unwrap()
    };
    for (fine, over) in [(true, 0), (false, 1)] {
        let taken = request(|json| {
            let all = (0..most("metrics") + over)
                .map(|n| json!({ "name": n.to_string(), "pointer": "" }));
            json["metrics"] = all.collect();
        });
        assert_eq!(job(&taken, Role::User, "").is_ok(), fine);
        let taken = request(|json| {
            json["artifacts"] = (0..most("artifacts") + over)
                .map(|n| json!(format!("/{n}")))
                .collect();
        });
        assert_eq!(job(&taken, Role::User, "").is_ok(), fine);
    }
}

#[test]
fn a_batch_says_which_of_its_jobs() {
    let wrong = request(|json| json["place"] = json!({ "cpus": 0 }));
    let refusal = job(&wrong, Role::User, "/17").unwrap_err();
    assert_eq!(refusal.instance.as_deref(), Some("/17/place/cpus"));
}

#[test]
fn what_only_an_admin_may_ask() {
    let command: JobRequest = serde_json::from_value(json!({ "command": ["/bin/true"] })).unwrap();
    let fifo = request(|json| json["measure"] = json!({ "fifo": 1 }));
    for (request, pointer) in [(command, "/command"), (fifo, "/measure/fifo")] {
        assert_eq!(refused(&request, Role::Admin), None);
        let expected = (Kind::Forbidden, pointer.to_owned());
        assert_eq!(refused(&request, Role::User), Some(expected));
    }
}

#[test]
fn what_a_stranger_says_is_bounded() {
    let good = json!({
        "csr_pem": "x",
        "machine": { "hostname": "a", "uuid": "0a-1b", "macs": ["52:54:00:12:34:56"], "boot_id": "ff" },
    });
    let check = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        let request: EnrolRequest = serde_json::from_value(json).unwrap();
        enrolment(&request)
            .err()
            .map(|refusal| refusal.instance.unwrap())
    };
    assert_eq!(check(&|_| {}), None);
    let cases: [(&str, Value, &str); 8] = [
        ("/csr_pem", json!(""), "/csr_pem"),
        ("/csr_pem", json!("a".repeat(16_385)), "/csr_pem"),
        ("/token", json!("a b"), "/token"),
        (
            "/machine/hostname",
            json!("a\u{1b}[2J"),
            "/machine/hostname",
        ),
        ("/machine/uuid", json!("ABC"), "/machine/uuid"),
        ("/machine/boot_id", json!(""), "/machine/boot_id"),
        (
            "/machine/macs",
            json!(["5254.0012.3456"]),
            "/machine/macs/0",
        ),
        (
            "/machine/macs",
            json!(["52:54:00:12:34:5"]),
            "/machine/macs/0",
        ),
    ];
    for (field, value, pointer) in cases {
        let found = check(&|json| match field.rsplit_once('/') {
            Some(("", name)) => json[name] = value.clone(),
            Some((_, name)) => json["machine"][name] = value.clone(),
            None => unreachable!("pointers begin with a slash"),
        });
        assert_eq!(found.as_deref(), Some(pointer), "{value}");
    }
}

/// A schema of the OpenAPI document.
fn schema(name: &str) -> Value {
    let document: Value = serde_json::from_str(&crate::http::openapi()).unwrap();
    document["components"]["schemas"][name].clone()
}

/// The bounds that the document promises are those that are checked: at each bound a request is taken,
/// one behind it it is not.
#[test]
fn documented_bounds_are_the_checked_ones() {
    let mut checked = 0;
    for (schema_name, field) in [
        ("Place", "place"),
        ("Measure", "measure"),
        ("JobLimits", "limits"),
    ] {
        let schema = schema(schema_name);
        for (name, property) in schema["properties"].as_object().unwrap() {
            let is_integer = property["type"] == "integer"
                || property["type"]
                    .as_array()
                    .is_some_and(|t| t.contains(&json!("integer")));
            if !is_integer {
                continue;
            }
            let try_with = |value: i128| {
                let text = format!(r#"{{"image":"a","{field}":{{"{name}":{value}}}}}"#);
                let request: Result<JobRequest, _> = serde_json::from_str(&text);
                request.is_ok_and(|request| job(&request, Role::Admin, "").is_ok())
            };
            for (bound, outside) in [("minimum", -1), ("maximum", 1)] {
                let bound = property[bound]
                    .as_i64()
                    .unwrap_or_else(|| panic!("{schema_name}.{name} has no {bound}"));
                assert!(try_with(bound.into()), "{schema_name}.{name} = {bound}");
                let outside = i128::from(bound) + outside;
                assert!(!try_with(outside), "{schema_name}.{name} = {outside}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 2 * (3 + 6 + 4), "fields came or went");
}

#[test]
fn documented_bounds_of_queues_are_the_checked_ones() {
    let schema = schema("QueueSettings");
    for name in ["priority", "capacity", "limit_seconds"] {
        let property = &schema["properties"][name];
        for (bound, outside) in [("minimum", -1), ("maximum", 1)] {
            let bound = property[bound].as_i64().unwrap();
            for (value, fine) in [(bound, true), (bound + outside, false)] {
                let settings: Result<QueueSettings, _> =
                    serde_json::from_str(&format!(r#"{{"{name}":{value}}}"#));
                let taken = settings.is_ok_and(|settings| queue(&settings).is_ok());
                assert_eq!(taken, fine, "{name} = {value}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is taken fits into a frame to a node, and has no NUL for the store to trip over.
    #[test]
    fn what_is_taken_can_be_stored_and_sent(
        image in "[a-z0-9:/ ]{0,20}",
        argv in prop::collection::vec(".{0,100}", 0..60),
        env in prop::collection::btree_map(".{0,20}", ".{0,100}", 0..20),
        labels in prop::collection::btree_map("[a-z/]{0,4}", ".{0,5}", 0..3),
        name in prop::option::of(".{0,40}"),
        long in 0_usize..40_000,
    ) {
        let mut argv = argv;
        argv.push("\u{1}".repeat(long));
        let request: JobRequest = serde_json::from_value(json!({
            "name": name, "image": image, "argv": argv, "env": env, "place": { "labels": labels },
        })).unwrap();
        if job(&request, Role::User, "").is_ok() {
            let text = serde_json::to_string(&request).unwrap();
            prop_assert!(text.len() <= REQUEST_BYTES);
            prop_assert!(!text.contains("\\u0000"));
            prop_assert!(REQUEST_BYTES < api::work::FRAME / 2);
        }
    }
}
