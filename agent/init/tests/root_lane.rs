//! What needs root: a PID namespace in which a child of the test is process 1, and a network namespace with a real DHCP
//! server. Nothing here touches the machine itself: the child has its own PID, mount and network namespaces, and the
//! last act of init is injected.
#![allow(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are not seen as tests by clippy.toml"
)]

#[path = "root_lane/dhcp.rs"]
mod dhcp;
#[path = "root_lane/namespace.rs"]
mod namespace;
#[path = "root_lane/pid_one.rs"]
mod pid_one;
