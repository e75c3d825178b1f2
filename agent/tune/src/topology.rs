//! What the machine is: CPUs, siblings, memory nodes, and the knobs that exist.
//!
//! Reading never fails as a whole: what cannot be read is missing from the result and listed in
//! [`Topology::gaps`] with the reason.

use std::collections::BTreeMap;
use std::io;

use cpulist::CpuSet;
use host::Tree;
use host::threads::{self, KernelThread};

mod inventory;
pub use inventory::{Frequencies, IdleState, Irq, Policy, Queue, highest_without_turbo};

pub(crate) const CPU: &str = "/sys/devices/system/cpu";
/// `/proc/cpuinfo` of a machine with 1,024 CPUs is about 2 MiB.
const MAX_CPUINFO_BYTES: u64 = 16 * 1024 * 1024;

/// A file that should tell something and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub path: String,
    pub reason: String,
}

/// What matters of `/proc/cpuinfo`'s flags (of the first CPU).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFlags {
    pub hypervisor: bool,
    pub tsc: bool,
    /// `constant_tsc`, `nonstop_tsc` and `tsc_adjust`: the kernel then needs no watchdog for it.
    pub stable_tsc: bool,
}

/// The machine as it is now.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub online: CpuSet,
    pub present: CpuSet,
    pub nohz_full: CpuSet,
    /// CPUs under `isolcpus=domain`.
    pub boot_isolated: CpuSet,
    /// Where benchmarks may run.
    pub isolated: CpuSet,
    pub housekeeping: CpuSet,
    /// Online CPU → the online threads of its core, itself included.
    pub siblings: BTreeMap<u32, CpuSet>,
    pub numa_nodes: BTreeMap<u32, CpuSet>,
    pub smt_control: Option<String>,
    pub clocksource: Option<String>,
    pub cmdline: String,
    pub flags: CpuFlags,
    pub policies: Vec<Policy>,
    pub idle_states: Vec<IdleState>,
    /// CPUs that have a fair server.
    pub fair_servers: CpuSet,
    /// CPUs that have an energy performance bias.
    pub energy_biases: CpuSet,
    pub irqs: Vec<Irq>,
    pub queues: Vec<Queue>,
    /// Workqueues that show their CPU mask, by name.
    pub workqueues: Vec<String>,
    pub kernel_threads: Vec<KernelThread>,
    pub gaps: Vec<Gap>,
}

impl Topology {
    /// Online threads that share a core with a lower numbered online thread: those that go away
    /// when SMT is switched off.
    #[must_use]
    pub fn secondary_threads(&self) -> CpuSet {
        self.siblings
            .iter()
            .filter(|(cpu, core)| core.first().is_some_and(|first| first != **cpu))
            .map(|(cpu, _)| *cpu)
            .collect()
    }

    /// Isolated and housekeeping CPUs, if `offline` went away.
    #[must_use]
    pub fn without(&self, offline: &CpuSet) -> (CpuSet, CpuSet) {
        divide(
            &self.nohz_full,
            &self.boot_isolated,
            &self.online.difference(offline),
        )
    }
}

/// Isolated and housekeeping CPUs. There is always a housekeeping CPU: when a command line leaves
/// none, the first online CPU is it.
fn divide(nohz_full: &CpuSet, boot_isolated: &CpuSet, online: &CpuSet) -> (CpuSet, CpuSet) {
    let mut isolated = nohz_full.union(boot_isolated).intersection(online);
    if isolated == *online {
        isolated = isolated.iter().skip(1).collect();
    }
    let housekeeping = online.difference(&isolated);
    (isolated, housekeeping)
}

/// Reads files and keeps account of those that could not be read.
struct Reader<'tree> {
    tree: &'tree dyn Tree,
    gaps: Vec<Gap>,
}

impl Reader<'_> {
    fn gap(&mut self, path: &str, reason: impl std::fmt::Display) {
        self.gaps.push(Gap {
            path: path.to_owned(),
            reason: reason.to_string(),
        });
    }

    /// Trimmed text; a failure is a gap.
    fn text(&mut self, path: &str) -> Option<String> {
        self.optional(path).or_else(|| {
            if self.gaps.last().is_none_or(|gap| gap.path != path) {
                self.gap(path, io::ErrorKind::NotFound);
            }
            None
        })
    }

    /// Trimmed text of a file that many machines do not have; other failures are gaps.
    fn optional(&mut self, path: &str) -> Option<String> {
        match self.tree.read(path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.gap(path, error);
                None
            }
        }
    }

    fn cpus(&mut self, path: &str) -> CpuSet {
        let Some(text) = self.text(path) else {
            return CpuSet::new();
        };
        match text.parse() {
            Ok(cpus) => cpus,
            Err(error) => {
                self.gap(path, error);
                CpuSet::new()
            }
        }
    }

    fn number(&mut self, path: &str) -> Option<u64> {
        self.optional(path)?.parse().ok()
    }

    /// Names in a directory; none when it is missing.
    fn list(&mut self, path: &str) -> Vec<String> {
        match self.tree.list(path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.gap(path, error);
                Vec::new()
            }
        }
    }
}

/// Reads the machine.
#[must_use]
pub fn read(tree: &dyn Tree) -> Topology {
    let mut reader = Reader {
        tree,
        gaps: Vec::new(),
    };
    let online = reader.cpus(&format!("{CPU}/online"));
    let nohz_full = reader.cpus(&format!("{CPU}/nohz_full"));
    let boot_isolated = reader.cpus(&format!("{CPU}/isolated"));
    let (isolated, housekeeping) = divide(&nohz_full, &boot_isolated, &online);
    let mut topology = Topology {
        present: present(&mut reader),
        siblings: siblings(&mut reader, &online),
        numa_nodes: numa_nodes(&mut reader),
        smt_control: reader.optional(&format!("{CPU}/smt/control")),
        clocksource: reader
            .optional("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        cmdline: reader.text("/proc/cmdline").unwrap_or_default(),
        flags: cpu_flags(&mut reader),
        online,
        nohz_full,
        boot_isolated,
        isolated,
        housekeeping,
        ..Topology::default()
    };
    inventory::fill(&mut reader, &mut topology);
    match threads::kernel_threads(tree) {
        Ok(threads) => topology.kernel_threads = threads,
        Err(error) => reader.gap("/proc", error),
    }
    topology.gaps = reader.gaps;
    topology
}

fn present(reader: &mut Reader<'_>) -> CpuSet {
    let present = reader.cpus(&format!("{CPU}/present"));
    if !present.is_empty() {
        return present;
    }
    // Every CPU has its directory, offline ones too.
    reader
        .list(CPU)
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .filter(|cpu| *cpu < cpulist::MAX_CPUS)
        .collect()
}

fn siblings(reader: &mut Reader<'_>, online: &CpuSet) -> BTreeMap<u32, CpuSet> {
    let mut cores: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for cpu in online.iter() {
        let path = format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
        let core = reader.cpus(&path).intersection(online);
        // Each thread of a core names all of it: one that is not readable is known by the others.
        for member in core.iter() {
            let known = cores.entry(member).or_default();
            *known = known.union(&core);
        }
    }
    cores
}

fn numa_nodes(reader: &mut Reader<'_>) -> BTreeMap<u32, CpuSet> {
    const NODES: &str = "/sys/devices/system/node";
    reader
        .list(NODES)
        .into_iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .map(|node: u32| (node, reader.cpus(&format!("{NODES}/node{node}/cpulist"))))
        .collect()
}

fn cpu_flags(reader: &mut Reader<'_>) -> CpuFlags {
    let text = match reader.tree.read_up_to("/proc/cpuinfo", MAX_CPUINFO_BYTES) {
        Ok(text) => text,
        Err(error) => {
            reader.gap("/proc/cpuinfo", error);
            return CpuFlags::default();
        }
    };
    let flags: Vec<&str> = text
        .lines()
        .find(|line| line.starts_with("flags"))
        .and_then(|line| line.split_once(':'))
        .map(|(_, flags)| flags.split_ascii_whitespace().collect())
        .unwrap_or_default();
    let has = |flag: &str| flags.contains(&flag);
    CpuFlags {
        hypervisor: has("hypervisor"),
        tsc: has("tsc"),
        stable_tsc: has("constant_tsc") && has("nonstop_tsc") && has("tsc_adjust"),
    }
}
