//! What holds for every request, whatever a client sends.

use policy::{Endpoint, Role, check_body, route};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{create_raw, node};

/// Keys that matter, tricks with them, and noise.
fn key() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        4 => prop::sample::select(vec![
            "HostConfig", "Privileged", "Binds", "Mounts", "Type", "Source", "Target", "CapAdd",
            "PidMode", "NetworkMode", "SecurityOpt", "Devices", "Labels", "CpusetCpus", "Sysctls",
            "stillmetal.cpus", "VolumesFrom", "PortBindings", "80/tcp", "HostPort", "MaskedPaths",
            "NetworkingConfig", "EndpointsConfig", "VolumeOptions", "DriverConfig", "Options",
        ]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![
            "hostconfig", "PRIVILEGED", "privileged", "Networ\u{212a}Mode", "Ho\u{17f}tConfig",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z]{0,6}",
    ]
}

fn leaf() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "host",
            "container:a",
            "2",
            "2-3",
            "bind",
            "volume",
            "/etc:/x",
            "data:/x",
            "ALL",
        ])
        .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> + Clone {
    leaf().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Bodies whose upper layers have the right shape, so that the rules below are reached.
fn body() -> impl Strategy<Value = Value> {
    let config = prop::collection::vec((key(), value()), 0..6)
        .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>()));
    prop_oneof![
        value(),
        config
            .clone()
            .prop_map(|config| json!({"HostConfig": config})),
        (config, value())
            .prop_map(|(config, labels)| json!({"HostConfig": config, "Labels": labels})),
        privileged(),
    ]
}

/// Every spelling that Go would read as `HostConfig.Privileged`.
fn privileged() -> impl Strategy<Value = Value> {
    (spelling("HostConfig"), spelling("Privileged"), value())
        .prop_map(|(outer, inner, noise)| json!({outer: {"Init": noise, inner: true}}))
}

fn spelling(word: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(0..3_u8, word.len()).prop_map(move |choices| {
        word.chars()
            .zip(choices)
            .map(
                |(letter, choice)| match (choice, letter.to_ascii_lowercase()) {
                    (1, _) => letter.to_ascii_uppercase(),
                    (2, 's') => '\u{17f}',
                    (2, 'k') => '\u{212a}',
                    (2, lower) => lower,
                    _ => letter,
                },
            )
            .collect()
    })
}

/// `true` under any key that Go would take for `Privileged`, at any depth outside maps of data.
fn says_privileged(value: &Value) -> bool {
    let fold = |key: &str| {
        key.replace('\u{17f}', "s")
            .replace('\u{212a}', "k")
            .to_lowercase()
    };
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            (fold(key) == "privileged" && value == &json!(true)) || says_privileged(value)
        }),
        Value::Array(items) => items.iter().any(says_privileged),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_creates_are_stable_and_unprivileged(body in body()) {
        let text = body.to_string();
        if let Ok(checked) = create_raw(Role::User, &text) {
            prop_assert!(!says_privileged(&checked.body), "{text}");
            let again = create_raw(Role::User, &checked.body.to_string());
            prop_assert_eq!(&again.expect("accepted once, accepted again").body, &checked.body);
            prop_assert!(create_raw(Role::Admin, &text).is_ok());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in [
            Endpoint::ContainerCreate,
            Endpoint::ContainerUpdate { id: "a".into() },
            Endpoint::NetworkCreate,
            Endpoint::Commit,
        ] {
            if let Err(denial) = check_body(Role::User, &endpoint, &node(), &bytes) {
                prop_assert!((400..500).contains(&denial.status));
            }
        }
    }

    #[test]
    fn routes_are_stable(
        method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD"]),
        target in prop_oneof![
            "/(v1\\.[0-9]{2}/)?(containers|images|networks|exec|volumes)/[a-z%./:@0-9]{0,12}(/(json|start|exec|archive|get))?(\\?[a-z]{1,4}=[ -~]{0,6})?",
            "[ -~]{0,24}",
            ".{0,24}",
        ],
    ) {
        if let Ok(routed) = route(Role::User, method, &target) {
            let path = routed.target.split('?').next().unwrap_or_default();
            prop_assert!(path.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
            prop_assert!(routed.target.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            prop_assert_eq!(route(Role::User, method, &routed.target), Ok(routed));
        }
    }
}
