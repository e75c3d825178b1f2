//! One machine for all tests that only look at it: an emulated boot is too dear for one each.
//! It is killed, and its files are removed, when the process ends (see `testkit`).

use std::sync::{Arc, LazyLock};

use anyhow::{Result, anyhow};
use testkit::{ConfigOptions, Credentials, Node, chain, node};

static READY: LazyLock<Result<Node, String>> = LazyLock::new(|| {
    let boot = || {
        let credentials = Arc::new(Credentials::generate()?);
        let options = ConfigOptions {
            engine_tls: true,
            ..ConfigOptions::default()
        };
        let nic = testkit::Nic::user()
            .forward(node::API_PORT)
            .forward(node::ENGINE_PORT)
            .forward(2375)
            .forward(22);
        let description = node::describe("shared", &credentials, &options)?
            .cpus(3)
            .memory_mib(2048)
            .without_nics()
            .nic(nic);
        Node::boot_ready(&description, &credentials)
    };
    boot().map_err(|error| chain(&error))
});

/// A node with 3 CPUs and 2 GiB whose engine is ready; the engine also has its own TLS, and guest
/// ports 2375 and 22 are forwarded so that tests can knock there.
pub(crate) fn ready() -> Result<&'static Node> {
    READY
        .as_ref()
        .map_err(|why| anyhow!("the shared node did not boot: {why}"))
}
