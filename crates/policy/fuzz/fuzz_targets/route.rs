//! No request line makes routing panic, and what is forwarded reads the same a second time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Role, route};

fuzz_target!(|line: &str| {
    let Some((method, target)) = line.split_once(' ') else {
        return;
    };
    for role in [Role::User, Role::Admin] {
        let Ok(routed) = route(role, method, target) else {
            continue;
        };
        let path = routed.target.split('?').next().unwrap_or_default();
        assert!(
            path.split('/')
                .skip(1)
                .all(|part| !matches!(part, "" | "." | ".."))
        );
        assert!(routed.target.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(route(role, method, &routed.target), Ok(routed));
    }
});
