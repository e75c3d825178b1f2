//! The cgroups of a node, by name, and what is done to them.
//!
//! ```text
//! /agent             PID 1 and the agent               housekeeping CPUs
//! /engine            containerd, dockerd, shims        housekeeping CPUs
//! /housekeeping      containers without a claim        housekeeping CPUs
//! /stillmetal-TOKEN  one claim: a cpuset partition of its own CPUs, its container inside
//! ```

use std::io;

use cpulist::CpuSet;
use host::Tree;
use host::cgroup::{self, Cgroups, Kind, State};

use crate::placement::ledger::Token;

pub use host::cgroup::ROOT;
pub const AGENT: &str = "/agent";
pub const ENGINE: &str = "/engine";
pub const HOUSEKEEPING: &str = "/housekeeping";
const PARTITION_PREFIX: &str = "stillmetal-";

/// A cgroup file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("create cgroup {cgroup}")]
    Create { cgroup: String, source: io::Error },
    #[error("write {file} of cgroup {cgroup}")]
    Write {
        cgroup: String,
        file: &'static str,
        source: io::Error,
    },
    #[error("remove cgroup {cgroup}")]
    Remove { cgroup: String, source: io::Error },
}

/// The name of a claim's cgroup, directly below the root.
#[must_use]
pub fn partition_name(token: &Token) -> String {
    format!("{PARTITION_PREFIX}{}", token.0)
}

/// The claim that a cgroup name or `CgroupParent` belongs to.
#[must_use]
pub fn token_of(cgroup: &str) -> Option<Token> {
    let token = cgroup
        .strip_prefix('/')
        .unwrap_or(cgroup)
        .strip_prefix(PARTITION_PREFIX)?;
    let sound = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    sound.then(|| Token(token.to_owned()))
}

/// Confines agent, engine and unpinned containers to the housekeeping CPUs.
///
/// # Errors
/// [`cgroup::Error`], naming the cgroup and the kernel's answer.
pub fn set_up(tree: &dyn Tree, housekeeping: &CpuSet) -> Result<(), cgroup::Error> {
    for name in [AGENT, ENGINE, HOUSEKEEPING] {
        Cgroups::new(tree).ensure_group(name.trim_start_matches('/'), housekeeping)?;
    }
    Ok(())
}

/// Makes a claim's partition, or keeps the one that is there and right (the agent was killed
/// between making it and the container's start).
///
/// One CPU: `isolated`, no load balancing at all. Several: `root`, because in an `isolated`
/// partition all threads pile up on one CPU (quiet.md §0.5).
pub(crate) fn make_partition(
    tree: &dyn Tree,
    name: &str,
    cpus: &CpuSet,
    mems: &CpuSet,
) -> Result<(), cgroup::Error> {
    let kind = if cpus.len() == 1 {
        Kind::Isolated
    } else {
        Kind::Root
    };
    let cgroups = Cgroups::new(tree);
    match cgroups.create_partition(name, cpus, mems, kind) {
        Err(error) if error.already_exists() => {
            let same = partition_sets(tree, name) == Some((cpus.clone(), mems.clone()));
            if same && cgroups.state(name)? == State::Valid(kind) {
                return Ok(());
            }
            cgroups.remove(name)?;
            cgroups.create_partition(name, cpus, mems, kind)
        }
        made => made,
    }
}

/// An ordinary group for a CPU that `isolcpus=domain` took out of load balancing at boot. Linux 6.12
/// refuses it any partition, also the `isolated` one that its documentation promises
/// (kernel/cgroup/cpuset.c asks `prstate_housekeeping_conflict` about the old state); and the CPU
/// needs none: nothing runs there unless it is put there, and only this group's tasks are.
pub(crate) fn make_member(
    tree: &dyn Tree,
    name: &str,
    cpus: &CpuSet,
    mems: &CpuSet,
) -> Result<(), cgroup::Error> {
    Cgroups::new(tree).ensure_member(name, cpus, mems)
}

/// # Errors
/// [`cgroup::Error::Remove`] while something still runs in it.
pub(crate) fn remove_partition(tree: &dyn Tree, name: &str) -> Result<(), cgroup::Error> {
    Cgroups::new(tree).remove(name)
}

/// The claims whose cgroups exist.
pub(crate) fn partitions(tree: &dyn Tree) -> Vec<Token> {
    let names = tree.list(ROOT).unwrap_or_default();
    names.iter().filter_map(|name| token_of(name)).collect()
}

/// CPUs and memory nodes of an existing partition.
pub(crate) fn partition_sets(tree: &dyn Tree, name: &str) -> Option<(CpuSet, CpuSet)> {
    let set = |file: &str| {
        tree.read(&format!("{ROOT}/{name}/{file}"))
            .ok()?
            .parse()
            .ok()
    };
    Some((set("cpuset.cpus")?, set("cpuset.mems")?))
}

/// A cgroup without children, for one host process.
pub(crate) fn make_leaf(
    tree: &dyn Tree,
    cgroup: &str,
    memory_bytes: Option<u64>,
) -> Result<(), LeafError> {
    let parent = cgroup.rsplit_once('/').map_or("", |(parent, _)| parent);
    // so that the leaf has accounting and limits of its own
    write(
        tree,
        parent,
        "cgroup.subtree_control",
        "+cpuset +cpu +memory +pids",
    )?;
    tree.create_dir(&format!("{ROOT}{cgroup}"))
        .map_err(|source| LeafError::Create {
            cgroup: cgroup.into(),
            source,
        })?;
    match memory_bytes {
        Some(bytes) => write(tree, cgroup, "memory.max", &bytes.to_string()),
        None => Ok(()),
    }
}

/// SIGKILL to every task in it.
pub(crate) fn kill(tree: &dyn Tree, cgroup: &str) -> Result<(), LeafError> {
    write(tree, cgroup, "cgroup.kill", "1")
}

pub(crate) fn remove_leaf(tree: &dyn Tree, cgroup: &str) -> Result<(), LeafError> {
    match tree.remove_dir(&format!("{ROOT}{cgroup}")) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LeafError::Remove {
            cgroup: cgroup.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// What a cgroup used. `None`: the kernel does not say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_usec: Option<u64>,
    pub(crate) memory_peak_bytes: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) cpus: Option<CpuSet>,
}

pub(crate) fn usage(tree: &dyn Tree, cgroup: &str) -> Usage {
    let read = |file: &str| tree.read(&format!("{ROOT}{cgroup}/{file}")).ok();
    let field = |file: &str, name: &str| {
        let text = read(file)?;
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        words.find(|(key, _)| *key == name)?.1.trim().parse().ok()
    };
    Usage {
        cpu_usec: field("cpu.stat", "usage_usec"),
        memory_peak_bytes: read("memory.peak").and_then(|text| text.trim().parse().ok()),
        oom_kills: field("memory.events", "oom_kill"),
        cpus: read("cpuset.cpus.effective").and_then(|text| text.parse().ok()),
    }
}

fn write(tree: &dyn Tree, cgroup: &str, file: &'static str, text: &str) -> Result<(), LeafError> {
    tree.write(&format!("{ROOT}{cgroup}/{file}"), text)
        .map_err(|source| LeafError::Write {
            cgroup: cgroup.into(),
            file,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_cgroups_have_a_token() {
        assert_eq!(token_of("/stillmetal-1a2b"), Some(Token("1a2b".into())));
        assert_eq!(token_of("stillmetal-1a2b"), Some(Token("1a2b".into())));
        for other in [
            "",
            "/",
            "/housekeeping",
            "/stillmetal-",
            "/stillmetal-a/b",
            "/stillmetal-..",
        ] {
            assert_eq!(token_of(other), None, "{other}");
        }
        let token = Token("7f".into());
        assert_eq!(
            token_of(&format!("/{}", partition_name(&token))),
            Some(token)
        );
    }
}
