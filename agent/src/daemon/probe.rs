//! Looks at the host for [`super::footing`].

use std::path::Path;
use std::time::Duration;

use cpulist::CpuSet;
use host::Tree;
use stillmetal_node::certify::GATE;
use stillmetal_node::engine::client::{Abilities, EngineClient};

use super::footing::{POWERS, Probe};

const CGROUP: &str = "/sys/fs/cgroup";
/// The engine may be starting beside us.
const ENGINE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(500);

/// Looks. Blocking: no other thread is there yet.
pub(super) fn look(
    tree: &dyn Tree,
    client: &EngineClient,
    socket: &Path,
    power_allowed: bool,
) -> anyhow::Result<Probe> {
    let topology = stillmetal_tune::topology::read(tree);
    let has = |capability| {
        let found = caps::has_cap(None, caps::CapSet::Effective, capability);
        found.unwrap_or(false)
    };
    let missing = POWERS.iter().map(|(it, _)| *it).filter(|it| !has(*it));
    Ok(Probe {
        missing: missing.collect(),
        cgroup: cgroup(tree),
        engine: engine(client, socket, !topology.isolated.is_empty())?,
        gate: match Path::new(GATE).is_file() {
            true => Ok(()),
            false => Err(format!("{GATE} is not there: the package brings it")),
        },
        power_allowed,
        allowed: allowed(),
        online: topology.online,
        isolated: topology.isolated,
    })
}

/// CPUs that this process may use; of a container or a session not all.
fn allowed() -> CpuSet {
    let Ok(set) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) else {
        return CpuSet::new();
    };
    (0..nix::sched::CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

fn cgroup(tree: &dyn Tree) -> Result<(), String> {
    let controllers = tree.read(&format!("{CGROUP}/cgroup.controllers"));
    let controllers = controllers.map_err(|error| format!("{CGROUP} is no cgroup2: {error}"))?;
    if !controllers.split_whitespace().any(|name| name == "cpuset") {
        return Err(format!("{CGROUP} has no cpuset controller"));
    }
    // the root of the hierarchy has no type; of a namespace's root it can be read
    if tree.exists(&format!("{CGROUP}/cgroup.type")) {
        return Err(format!(
            "{CGROUP} is not the root of the hierarchy: this agent runs in a container"
        ));
    }
    let file = format!("{CGROUP}/cgroup.procs");
    nix::unistd::access(Path::new(&file), nix::unistd::AccessFlags::W_OK)
        .map_err(|errno| format!("{file} is not writable: {errno}"))
}

/// An answer is waited for where much depends on it.
fn engine(
    client: &EngineClient,
    socket: &Path,
    wait: bool,
) -> anyhow::Result<Result<Abilities, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut last = String::new();
    let asked = runtime.block_on(async {
        let ask = async {
            loop {
                match client.abilities().await {
                    Ok(abilities) => return Some(abilities),
                    Err(error) => last = stillmetal_node::chain(&error),
                }
                if !wait {
                    return None;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::time::timeout(ENGINE, ask).await.ok().flatten()
    });
    Ok(asked.ok_or_else(|| format!("no engine answers at {}: {last}", socket.display())))
}
