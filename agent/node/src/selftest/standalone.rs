//! The self-test of a host on which no agent serves: takes a CPU by a partition of its own, and
//! gives it back.

use std::path::PathBuf;
use std::sync::Arc;

use cpulist::CpuSet;
use host::cgroup::{Cgroups, ROOT};
use host::{DevCpu, Tree};
use quiet::selftest::SelfTest;
use stillmetal_tune::topology;
use tokio_util::sync::CancellationToken;

use super::knob::Undo;
use super::seat::Seat;
use super::{end_all, put_back};
use crate::cgroups;
use crate::placement::ledger::Token;

/// What a claim's cgroup needs of the root.
const CONTROLLERS: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];

/// A self-test could not be run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("this needs root: CPUs are set apart and knobs are turned")]
    NotRoot,
    #[error("cgroup v2 is not mounted at {ROOT} (no cgroup.controllers there)")]
    NoCgroups,
    #[error(
        "an agent serves this node (process {pid}) and hands out its CPUs: ask it, GET /stillmetal/v1/selftest"
    )]
    Served { pid: u32 },
    #[error(
        "no CPU is isolated: boot with nohz_full= (isolated CPUs: {isolated}, asked for: {asked})"
    )]
    NotIsolated { isolated: String, asked: String },
    #[error("CPU {cpu} is in the partition {cgroup}: wait for what runs there to end")]
    Taken { cpu: u32, cgroup: String },
    #[error("the canary's program {} is not there: give --gate", gate.display())]
    NoGate { gate: PathBuf },
    #[error("an earlier self-test left a knob turned: {why}")]
    LeftBehind { why: String },
    #[error("CPU {cpu} could not be set apart")]
    Partition {
        cpu: u32,
        source: host::cgroup::Error,
    },
    #[error("let cgroups use the controller {controller}")]
    Controller {
        controller: &'static str,
        source: host::cgroup::Error,
    },
}

/// The host, and what the test uses.
pub struct Host {
    pub tree: Arc<dyn Tree>,
    /// For its pages and its note of what to put back.
    pub run_dir: PathBuf,
    /// This program.
    pub agent: PathBuf,
    pub gate: PathBuf,
    /// Effective user id of this process.
    pub uid: u32,
    /// Ends it early.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// Runs one on `cpu`, or on the first isolated CPU that nobody holds.
    ///
    /// # Errors
    /// [`HostError`]; nothing is changed then.
    pub fn test(&self, cpu: Option<u32>) -> Result<SelfTest, HostError> {
        let tree = &*self.tree;
        if self.uid != 0 {
            return Err(HostError::NotRoot);
        }
        if !tree.exists(&format!("{ROOT}/cgroup.controllers")) {
            return Err(HostError::NoCgroups);
        }
        if let Some(pid) = serving(tree) {
            return Err(HostError::Served { pid });
        }
        if !self.gate.exists() {
            let gate = self.gate.clone();
            return Err(HostError::NoGate { gate });
        }
        let topology = topology::read(tree);
        // one at a time, under one name: what a killed one left is found again
        let token = Token("selftest".into());
        end_all(tree, &token);
        let name = cgroups::partition_name(&token);
        cgroups::remove_partition(tree, &name).map_err(|source| HostError::Partition {
            cpu: cpu.unwrap_or_default(),
            source,
        })?;
        let undo = Undo::below(&self.run_dir);
        undo.replay(tree)
            .map_err(|why| HostError::LeftBehind { why })?;
        let cpu = choose(tree, &topology.isolated, cpu)?;
        let cpus = CpuSet::from_iter([cpu]);
        let node = topology
            .numa_nodes
            .iter()
            .find(|(_, cpus)| cpus.contains(cpu));
        let mems = CpuSet::from_iter([node.map_or(0, |(node, _)| *node)]);
        let _controllers = Controllers::enable(tree)?;
        let made = if topology.boot_isolated.contains(cpu) {
            cgroups::make_member(tree, &name, &cpus, &mems)
        } else {
            cgroups::make_partition(tree, &name, &cpus, &mems)
        };
        made.map_err(|source| HostError::Partition { cpu, source })?;
        let partition = Partition { tree, name };
        let seat = Seat {
            tree: &self.tree,
            msrs: &DevCpu::live(),
            run_dir: &self.run_dir,
            agent: &self.agent,
            gate: &self.gate,
            token: &token,
            cpu,
            housekeeping: topology.housekeeping.clone(),
            hypervisor: Some(topology.flags.hypervisor),
            report: None,
            plan: None,
            stop: &self.stop,
        };
        let test = seat.test();
        drop(partition);
        // what could not be put back from within the partition
        put_back(tree, &self.run_dir);
        Ok(test)
    }
}

/// The process id of `stillmetal-agent serve`.
fn serving(tree: &dyn Tree) -> Option<u32> {
    let pids = tree.list("/proc").unwrap_or_default().into_iter();
    let mut pids = pids.filter_map(|name| name.parse::<u32>().ok());
    pids.find(|pid| {
        let line = tree.read(&format!("/proc/{pid}/cmdline"));
        let line = line.unwrap_or_default();
        let mut words = line.split('\0');
        let program = words.next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        name == "stillmetal-agent" && words.next() == Some("serve")
    })
}

/// An isolated CPU that is in no partition.
fn choose(tree: &dyn Tree, isolated: &CpuSet, wanted: Option<u32>) -> Result<u32, HostError> {
    let not_isolated = || HostError::NotIsolated {
        isolated: if isolated.is_empty() {
            "none".into()
        } else {
            isolated.to_string()
        },
        asked: wanted.map_or("any".into(), |cpu| cpu.to_string()),
    };
    if wanted.is_some_and(|cpu| !isolated.contains(cpu)) {
        return Err(not_isolated());
    }
    let holder = |cpu: u32| {
        let names = tree.list(ROOT).unwrap_or_default().into_iter();
        let mut partitions = names.filter(|name| {
            let state = tree.read(&format!("{ROOT}/{name}/cpuset.cpus.partition"));
            cgroups::token_of(name).is_some() || state.is_ok_and(|state| state.trim() != "member")
        });
        partitions.find(|name| {
            let cpus = cgroups::partition_sets(tree, name);
            cpus.is_some_and(|(cpus, _)| cpus.contains(cpu))
        })
    };
    let candidates: Vec<u32> = wanted.map_or_else(|| isolated.iter().collect(), |cpu| vec![cpu]);
    let mut taken = None;
    for cpu in candidates {
        match holder(cpu) {
            None => return Ok(cpu),
            Some(cgroup) => taken = taken.or(Some(HostError::Taken { cpu, cgroup })),
        }
    }
    Err(taken.unwrap_or_else(not_isolated))
}

/// Removes the claim's cgroup.
struct Partition<'a> {
    tree: &'a dyn Tree,
    name: String,
}

impl Drop for Partition<'_> {
    fn drop(&mut self) {
        if let Err(error) = cgroups::remove_partition(self.tree, &self.name) {
            tracing::warn!(name = %self.name, error = %crate::chain(&error), "partition stays");
        }
    }
}

/// Controllers that were not offered to the root's children before.
struct Controllers<'a> {
    tree: &'a dyn Tree,
    enabled: Vec<&'static str>,
}

impl<'a> Controllers<'a> {
    fn enable(tree: &'a dyn Tree) -> Result<Self, HostError> {
        let path = format!("{ROOT}/cgroup.subtree_control");
        let offered = tree.read(&path).unwrap_or_default();
        let mut own = Self {
            tree,
            enabled: Vec::new(),
        };
        for controller in CONTROLLERS {
            if offered
                .split_ascii_whitespace()
                .any(|name| name == controller)
            {
                continue;
            }
            Cgroups::new(tree)
                .enable("", &[controller])
                .map_err(|source| HostError::Controller { controller, source })?;
            own.enabled.push(controller);
        }
        Ok(own)
    }
}

impl Drop for Controllers<'_> {
    fn drop(&mut self) {
        for controller in &self.enabled {
            let path = format!("{ROOT}/cgroup.subtree_control");
            if let Err(error) = self.tree.write(&path, &format!("-{controller}")) {
                tracing::warn!(controller, %error, "controller stays enabled");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use host::fakes::{CgroupRules, FakeTree};

    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    fn host(tree: &FakeTree, folder: &tempfile::TempDir, uid: u32) -> Host {
        Host {
            tree: Arc::new(tree.clone()),
            run_dir: folder.path().to_owned(),
            agent: "/nowhere/stillmetal-agent".into(),
            gate: "/proc/self/exe".into(),
            uid,
            stop: CancellationToken::new(),
        }
    }

    fn tree() -> FakeTree {
        CgroupRules::new(cpus("0-3"), cpus("0"), CpuSet::new()).tree()
    }

    #[test]
    fn it_refuses_where_it_cannot_or_must_not_run_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |tree: &FakeTree, uid| {
            let before = tree.snapshot();
            let error = host(tree, &folder, uid).test(None).unwrap_err();
            assert_eq!(tree.snapshot(), before, "{error}");
            error
        };
        assert!(matches!(refused(&tree(), 1000), HostError::NotRoot));
        assert!(matches!(refused(&FakeTree::new(), 0), HostError::NoCgroups));
        let served = tree();
        served.set(
            "/proc/77/cmdline",
            "/usr/bin/stillmetal-agent\0serve\0--listen\0",
        );
        assert!(matches!(refused(&served, 0), HostError::Served { pid: 77 }));
        let idle = tree();
        idle.set("/proc/77/cmdline", "/usr/bin/stillmetal-agent\0selftest\0");
        assert!(matches!(refused(&idle, 0), HostError::NotIsolated { .. }));
        let gateless = Host {
            gate: folder.path().join("gate"),
            ..host(&tree(), &folder, 0)
        };
        assert!(matches!(gateless.test(None), Err(HostError::NoGate { .. })));
    }

    #[test]
    fn a_cpu_of_another_partition_is_left_alone() {
        let tree = tree();
        let other = "stillmetal-7f";
        cgroups::make_partition(&tree, other, &cpus("2"), &cpus("0")).unwrap();
        assert_eq!(choose(&tree, &cpus("2-3"), None).unwrap(), 3);
        let taken = choose(&tree, &cpus("2-3"), Some(2)).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "CPU 2 is in the partition stillmetal-7f: wait for what runs there to end"
        );
        assert!(matches!(
            choose(&tree, &cpus("2-3"), Some(1)),
            Err(HostError::NotIsolated { .. })
        ));
        assert!(matches!(
            choose(&tree, &cpus("2"), None),
            Err(HostError::Taken { .. })
        ));
    }

    #[test]
    fn controllers_are_enabled_for_as_long_as_they_are_needed() {
        let tree = FakeTree::new();
        let path = format!("{ROOT}/cgroup.subtree_control");
        tree.set(&path, "memory pids");
        drop(Controllers::enable(&tree).unwrap());
        let wrote: Vec<String> = tree
            .take_writes()
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(wrote, ["+cpuset", "+cpu", "-cpuset", "-cpu"]);
    }
}
