//! Which knobs exist: cpufreq policies, idle states, interrupts, network queues, workqueues.

use cpulist::CpuSet;

use super::{CPU, Reader, Topology};

/// Frequencies of a policy, where the driver tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frequencies {
    pub hardware_max_khz: Option<u64>,
    /// What the maker promises without turbo.
    pub base_khz: Option<u64>,
    /// The same from ACPI's collaborative processor performance control.
    pub nominal_khz: Option<u64>,
    /// Highest entry of the driver's table that is no turbo.
    pub table_max_khz: Option<u64>,
}

/// A cpufreq policy: CPUs that share a frequency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `policy0`.
    pub name: String,
    pub cpus: CpuSet,
    pub driver: String,
    pub frequencies: Frequencies,
    pub has_boost: bool,
    pub has_preference: bool,
}

impl Policy {
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{CPU}/cpufreq/{}/{name}", self.name)
    }
}

/// An idle state of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleState {
    pub cpu: u32,
    pub index: u32,
    pub name: String,
}

/// An interrupt that has a directory in `/proc/irq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irq {
    pub number: u32,
    /// `None`: not readable, or no list.
    pub affinity: Option<CpuSet>,
}

/// A network device's queue: the file with its CPU mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `eth0/rx-0`.
    pub name: String,
    pub path: String,
}

pub(super) fn fill(reader: &mut Reader<'_>, topology: &mut Topology) {
    topology.policies = policies(reader);
    topology.idle_states = idle_states(reader, &topology.online);
    topology.fair_servers = reader
        .list("/sys/kernel/debug/sched/fair_server")
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .collect();
    topology.energy_biases = topology
        .online
        .iter()
        .filter(|cpu| {
            reader
                .tree
                .exists(&format!("{CPU}/cpu{cpu}/power/energy_perf_bias"))
        })
        .collect();
    topology.irqs = irqs(reader);
    topology.queues = queues(reader);
    topology.workqueues = reader
        .list("/sys/devices/virtual/workqueue")
        .into_iter()
        .filter(|name| {
            reader
                .tree
                .exists(&format!("/sys/devices/virtual/workqueue/{name}/cpumask"))
        })
        .collect();
}

fn policies(reader: &mut Reader<'_>) -> Vec<Policy> {
    let mut numbers: Vec<u32> = reader
        .list(&format!("{CPU}/cpufreq"))
        .iter()
        .filter_map(|name| name.strip_prefix("policy")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .map(|number| policy(reader, number))
        .collect()
}

fn policy(reader: &mut Reader<'_>, number: u32) -> Policy {
    let mut policy = Policy {
        name: format!("policy{number}"),
        ..Policy::default()
    };
    // Unlike the CPU lists elsewhere, these are separated by blanks.
    policy.cpus = reader
        .text(&policy.file("related_cpus"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|cpu| cpu.parse().ok())
        .collect();
    policy.driver = reader
        .text(&policy.file("scaling_driver"))
        .unwrap_or_default();
    policy.has_boost = reader.tree.exists(&policy.file("boost"));
    policy.has_preference = reader
        .tree
        .exists(&policy.file("energy_performance_preference"));
    let table = reader
        .optional(&policy.file("scaling_available_frequencies"))
        .unwrap_or_default();
    policy.frequencies = Frequencies {
        hardware_max_khz: reader.number(&policy.file("cpuinfo_max_freq")),
        base_khz: reader.number(&policy.file("base_frequency")),
        nominal_khz: policy
            .cpus
            .first()
            .and_then(|cpu| reader.number(&format!("{CPU}/cpu{cpu}/acpi_cppc/nominal_freq")))
            .filter(|mhz| *mhz > 0)
            .and_then(|mhz| mhz.checked_mul(1000)),
        table_max_khz: highest_without_turbo(&table),
    };
    policy
}

/// Of the frequencies in `scaling_available_frequencies`, kHz, the highest that is no turbo. ACPI
/// tables of Intel machines stand for turbo with an entry 1 MHz above the base frequency.
#[must_use]
pub fn highest_without_turbo(table: &str) -> Option<u64> {
    let mut khz: Vec<u64> = table
        .split_ascii_whitespace()
        .filter_map(|entry| entry.parse().ok())
        .collect();
    khz.sort_unstable();
    let highest = khz.pop()?;
    match khz.pop() {
        Some(second) if highest.checked_sub(second) == Some(1000) => Some(second),
        _ => Some(highest),
    }
}

fn idle_states(reader: &mut Reader<'_>, online: &CpuSet) -> Vec<IdleState> {
    let mut states = Vec::new();
    for cpu in online.iter() {
        let directory = format!("{CPU}/cpu{cpu}/cpuidle");
        let mut indexes: Vec<u32> = reader
            .list(&directory)
            .iter()
            .filter_map(|name| name.strip_prefix("state")?.parse().ok())
            .collect();
        indexes.sort_unstable();
        for index in indexes {
            let name = reader
                .text(&format!("{directory}/state{index}/name"))
                .unwrap_or_default();
            states.push(IdleState { cpu, index, name });
        }
    }
    states
}

fn irqs(reader: &mut Reader<'_>) -> Vec<Irq> {
    let mut numbers: Vec<u32> = reader
        .list("/proc/irq")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .map(|number| {
            let text = reader.text(&format!("/proc/irq/{number}/smp_affinity_list"));
            Irq {
                number,
                affinity: text.and_then(|text| text.parse().ok()),
            }
        })
        .collect()
}

fn queues(reader: &mut Reader<'_>) -> Vec<Queue> {
    const NET: &str = "/sys/class/net";
    let mut queues = Vec::new();
    for device in reader.list(NET) {
        let directory = format!("{NET}/{device}/queues");
        for queue in reader.list(&directory) {
            let mask = if queue.starts_with("rx-") {
                "rps_cpus"
            } else {
                "xps_cpus"
            };
            queues.push(Queue {
                name: format!("{device}/{queue}"),
                path: format!("{directory}/{queue}/{mask}"),
            });
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::highest_without_turbo;

    #[test]
    fn the_turbo_entry_of_acpi_tables_is_no_frequency() {
        assert_eq!(
            highest_without_turbo("2401000 2400000 1200000"),
            Some(2_400_000)
        );
        assert_eq!(
            highest_without_turbo("3400000 2800000 2200000"),
            Some(3_400_000)
        );
        assert_eq!(highest_without_turbo("1000000"), Some(1_000_000));
        assert_eq!(highest_without_turbo(""), None);
    }
}
