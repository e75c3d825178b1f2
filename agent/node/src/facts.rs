//! What a node tells its controller of itself: what there is to give to jobs.

use std::collections::{BTreeMap, BTreeSet};

use api::fleet::{Domain, NodeFacts};
use api::node::NodeStatus;
use api::report::{NodeState, Report};
use cpulist::CpuSet;
use host::Tree;
use quiet::TickMode;

/// Where devices are that jobs ask for; terminals, disks of the system and the like are not listed.
const DEVICE_FOLDERS: [&str; 4] = ["/dev/dri", "/dev/infiniband", "/dev/vfio", "/dev/accel"];
/// What devices in `/dev` itself begin with.
const DEVICE_NAMES: [&str; 4] = ["nvidia", "kfd", "nvme", "uio"];
/// Longest list that is told.
const DEVICES: usize = 256;

/// What a node in this status is.
#[must_use]
pub fn facts(status: &NodeStatus, tree: &dyn Tree) -> NodeFacts {
    let report = status.tuning.as_ref();
    let isolated = report
        .map(|report| report.cpus.isolated.clone())
        .unwrap_or_default();
    let host = status.host.clone().unwrap_or_default();
    let unfit = match &status.state {
        // it is so for good, and jobs may accept it
        NodeState::Unfit { .. } if host.unproven.is_some() && report.is_some() => not_ready(status),
        NodeState::Fit => not_ready(status),
        NodeState::Unfit { reason } => Some(reason.clone()),
    };
    let mut labels = BTreeMap::from([("arch".to_owned(), std::env::consts::ARCH.to_owned())]);
    if status.virtual_machine {
        labels.insert("virtual".into(), "yes".into());
    }
    NodeFacts {
        hostname: status.hostname.clone(),
        agent_version: status.agent_version.clone(),
        boot_id: status.boot_id.clone(),
        kernel: status.kernel.clone(),
        cmdline: status.cmdline.clone(),
        virtual_machine: status.virtual_machine,
        unfit,
        class: class(tree),
        labels,
        domains: report
            .map(|report| match &host.unproven {
                None => domains(&report.cpus.isolated, report, status, tree),
                Some(_) => domains(&host.cpus, report, status, tree),
            })
            .unwrap_or_default(),
        devices: devices(tree),
        // of a host whose CPUs are nobody's a job cannot ask for more
        tick: report
            .filter(|_| host.unproven.is_none())
            .and_then(|report| tick(report, &isolated)),
        isolated: !isolated.is_empty() && host.unproven.is_none(),
        share: false,
        unproven: host.unproven,
        lacks: host.lacks,
    }
}

fn not_ready(status: &NodeStatus) -> Option<String> {
    let engine = &status.engine;
    (!engine.ready).then(|| format!("the container engine is not ready: {}", engine.detail))
}

/// Machines with the same processor and the same number of CPUs are of one kind.
fn class(tree: &dyn Tree) -> String {
    let text = tree.read("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let count = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    model
        .map(|model| format!("{model} x{count}"))
        .unwrap_or_default()
}

/// CPUs for jobs and what memory is near them, by NUMA node.
fn domains(given: &CpuSet, report: &Report, status: &NodeStatus, tree: &dyn Tree) -> Vec<Domain> {
    let nodes = report.cpus.numa_nodes.iter();
    let near = nodes.filter_map(|(number, cpus)| {
        let cpus = cpus.intersection(given);
        (!cpus.is_empty()).then(|| Domain {
            cpus,
            memory_bytes: memory(*number, tree)
                .or(status.memory.total_bytes)
                .unwrap_or_default(),
        })
    });
    let mut all: Vec<Domain> = near.collect();
    // a kernel that tells no memory nodes has one
    if all.is_empty() && !given.is_empty() {
        all.push(Domain {
            cpus: given.clone(),
            memory_bytes: status.memory.total_bytes.unwrap_or_default(),
        });
    }
    all
}

/// `Node 0 MemTotal:  984020 kB`.
fn memory(node: u32, tree: &dyn Tree) -> Option<u64> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = tree.read(&path).ok()?;
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    let (_, amount) = line.split_once("MemTotal:")?;
    let kib: u64 = amount.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// `None` where some of the CPUs tick and some do not.
fn tick(report: &Report, isolated: &CpuSet) -> Option<TickMode> {
    let tickless = isolated.intersection(&report.cpus.nohz_full);
    if tickless.is_empty() {
        Some(TickMode::Tick)
    } else {
        (tickless == *isolated).then_some(TickMode::NohzFull)
    }
}

fn devices(tree: &dyn Tree) -> BTreeSet<String> {
    let list = |folder: &str| tree.list(folder).unwrap_or_default();
    let folders = DEVICE_FOLDERS.into_iter().flat_map(|folder| {
        let names = list(folder).into_iter();
        names.map(move |name| format!("{folder}/{name}"))
    });
    let plain = list("/dev")
        .into_iter()
        .filter(|name| DEVICE_NAMES.iter().any(|known| name.starts_with(known)));
    let all = folders.chain(plain.map(|name| format!("/dev/{name}")));
    all.take(DEVICES).collect()
}

#[cfg(test)]
mod tests {
    use api::node::{EngineStatus, Memory};
    use api::report::CpuSets;
    use host::fakes::FakeTree;

    use super::*;

    fn status(nohz_full: &str, ready: bool) -> NodeStatus {
        let isolated: CpuSet = "1-3,5".parse().unwrap();
        let report = Report {
            state: NodeState::Fit,
            cpus: CpuSets {
                isolated,
                nohz_full: nohz_full.parse().unwrap(),
                numa_nodes: [(0, "0-3".parse().unwrap()), (1, "4-7".parse().unwrap())].into(),
                ..CpuSets::default()
            },
            cpufreq_drivers: BTreeMap::new(),
            hypervisor: true,
            clocksource: None,
            warnings: Vec::new(),
            knobs: Vec::new(),
            irqs_unmovable: Vec::new(),
            kthreads_unmovable: Vec::new(),
            drift: Vec::new(),
        };
        NodeStatus {
            schema: String::new(),
            agent_version: "1".into(),
            hostname: "bench".into(),
            boot_id: Some("b".into()),
            uptime_seconds: 1,
            kernel: None,
            cmdline: None,
            virtual_machine: true,
            state: NodeState::Fit,
            memory: Memory {
                total_bytes: Some(1 << 30),
                ..Memory::default()
            },
            engine: EngineStatus {
                ready,
                detail: "starting".into(),
            },
            host: None,
            tuning: Some(report),
            claims: Vec::new(),
        }
    }

    fn tree() -> FakeTree {
        FakeTree::from_fixture(
            "/proc/cpuinfo = processor : 0\\nmodel name : Some CPU\\nprocessor : 1\\nmodel name : Some CPU\n\
             /sys/devices/system/node/node1/meminfo = Node 1 MemTotal:  2048 kB\\nNode 1 MemFree: 1 kB\n\
             /dev/dri/renderD128 = x\n\
             /dev/tty0 = x\n\
             /dev/nvme0n1 = x\n",
        )
    }

    #[test]
    fn jobs_get_isolated_cpus_and_the_memory_near_them() {
        let facts = facts(&status("1-7", true), &tree());
        assert_eq!(facts.unfit, None);
        assert_eq!(facts.class, "Some CPU x2");
        assert!(facts.isolated);
        assert_eq!(facts.tick, Some(TickMode::NohzFull));
        let domains: Vec<_> = facts
            .domains
            .iter()
            .map(|it| (it.cpus.to_string(), it.memory_bytes))
            .collect();
        // of the first node's memory the kernel says nothing: at most all there is
        assert_eq!(
            domains,
            [("1-3".to_owned(), 1 << 30), ("5".to_owned(), 2048 * 1024)]
        );
        let devices: Vec<_> = facts.devices.iter().map(String::as_str).collect();
        assert_eq!(devices, ["/dev/dri/renderD128", "/dev/nvme0n1"]);
    }

    #[test]
    fn a_node_whose_cpus_differ_has_no_tick_mode() {
        assert_eq!(facts(&status("1-3", true), &tree()).tick, None);
        assert_eq!(facts(&status("", true), &tree()).tick, Some(TickMode::Tick));
    }

    #[test]
    fn without_its_engine_a_node_takes_no_jobs() {
        let unfit = facts(&status("1-7", false), &tree()).unfit.unwrap();
        assert!(unfit.contains("starting"), "{unfit}");
    }
}
