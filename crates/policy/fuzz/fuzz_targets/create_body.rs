//! No bytes make the check of a create panic, and nothing accepted for a user is privileged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Endpoint, NodeFacts, Role, check_body};
use serde_json::Value;

/// `true` under any key that Go's case-folding decoder would take for `Privileged`.
fn says_privileged(value: &Value) -> bool {
    let fold = |key: &str| {
        key.replace('\u{17f}', "s")
            .replace('\u{212a}', "k")
            .to_lowercase()
    };
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            (fold(key) == "privileged" && value.as_bool() == Some(true)) || says_privileged(value)
        }),
        Value::Array(items) => items.iter().any(says_privileged),
        _ => false,
    }
}

fuzz_target!(|body: &[u8]| {
    let node = NodeFacts {
        isolated: [2, 3].into_iter().collect(),
        housekeeping: [0, 1].into_iter().collect(),
        unfit: None,
    };
    let check = |role, body: &[u8]| check_body(role, &Endpoint::ContainerCreate, &node, body);
    let Ok(checked) = check(Role::User, body) else {
        return;
    };
    assert!(!says_privileged(&checked.body));
    let again = check(Role::User, checked.body.to_string().as_bytes());
    assert_eq!(
        again.expect("accepted once, accepted again").body,
        checked.body
    );
    assert!(
        check(Role::Admin, body).is_ok(),
        "an admin may do what a user may"
    );
});
