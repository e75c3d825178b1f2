//! Builds run on the housekeeping CPUs: checked on the query of `POST /build`, and on the OCI
//! configuration of each BuildKit step, because BuildKit's own protocol passes the proxy unread.

use serde_json::Value;

use crate::denial::{Denial, shown};
use crate::target::Target;
use crate::{Role, hostconfig};

pub(crate) fn check(role: Role, target: &Target) -> Result<(), Denial> {
    for key in [
        "cpusetcpus",
        "cpusetmems",
        "cpuquota",
        "cpuperiod",
        "cgroupparent",
    ] {
        let value = target.param(key)?;
        let zero = value == "0" && matches!(key, "cpuquota" | "cpuperiod");
        if !value.is_empty() && !zero {
            return Err(Denial::malformed(format!(
                "build option {key} is refused: builds run on the housekeeping CPUs and are not measured; leave it out"
            )));
        }
    }
    let version = target.param("version")?;
    if !matches!(version, "" | "1" | "2") {
        let version = shown(version);
        return Err(Denial::malformed(format!(
            "builder version {version} is neither 1 nor 2"
        )));
    }
    if !matches!(target.param("isolation")?, "" | "default") {
        return Err(Denial::malformed(
            "--isolation is for Windows: leave it out",
        ));
    }
    if target
        .query
        .iter()
        .any(|(key, value)| key == "securityopt" && !value.is_empty())
    {
        return Err(Denial::malformed(
            "--security-opt is refused for builds: the engine has no such builds on Linux; leave it out",
        ));
    }
    let network = target.param("networkmode")?;
    if network.contains(':') {
        return Err(Denial::malformed(format!(
            "build network {} is refused: a build cannot join a container; use default, none or a network's name",
            shown(network)
        )));
    }
    if role == Role::User && hostconfig::is_host(network) {
        return Err(Denial::role(
            "build network `host`",
            "it shares a namespace of the node",
        ));
    }
    Ok(())
}

/// Whether a BuildKit step may start: only in a cgroup below `housekeeping` (such as
/// `/housekeeping`). `config` is its OCI runtime configuration (`config.json`).
///
/// # Errors
/// 400, naming the cgroup that the step asked for.
pub fn check_build_step(config: &Value, housekeeping: &str) -> Result<(), Denial> {
    let cgroup = config.pointer("/linux/cgroupsPath").and_then(Value::as_str);
    let below = cgroup.and_then(|cgroup| cgroup.strip_prefix(housekeeping)?.strip_prefix('/'));
    let plain = |name: &str| !matches!(name, "" | "." | "..");
    if below.is_some_and(|rest| rest.split('/').all(plain)) {
        return Ok(());
    }
    let cgroup = cgroup.map_or_else(|| "of its own choice".to_owned(), shown);
    Err(Denial::malformed(format!(
        "build step in cgroup {cgroup} is refused: builds run on the housekeeping CPUs and are not measured; leave --cgroup-parent out"
    )))
}
