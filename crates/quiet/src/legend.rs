//! Unit and source of every field of a certificate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a figure is counted in and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    pub unit: String,
    pub source: String,
}

/// Field path (below `evidence`; `*` is any key) → meaning.
#[must_use]
pub fn legend() -> BTreeMap<String, Meaning> {
    let rows = LEGEND.lines().filter_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (path, unit, source) = (columns.next()?, columns.next()?, columns.next()?);
        Some((
            path.to_owned(),
            Meaning {
                unit: unit.to_owned(),
                source: source.to_owned(),
            },
        ))
    });
    rows.collect()
}

const LEGEND: &str = "\
run_id | id | the node
container_id | id | the container engine
image | reference | the container engine
argv | words | the container engine
class | name | label of the job
tick_mode | name | the node's profile
platform.kernel | release | uname -r
platform.cmdline | text | /proc/cmdline
platform.cpu_model | text | /proc/cpuinfo, model name
platform.hypervisor | flag | CPUID, in /proc/cpuinfo flags
platform.agent_version | version | the node's agent
job_cpus | CPU list | cpuset.cpus of the job
housekeeping_cpus | CPU list | cpuset.cpus of everything else
*.clocksource | name | /sys/devices/system/clocksource/clocksource0/current_clocksource
*.nohz_full | CPU list | /sys/devices/system/cpu/nohz_full
*.boot_isolated | CPU list | /sys/devices/system/cpu/isolated
*.partition | type | cpuset.cpus.partition of the job's cgroup
*.cpu_max | quota and period, µs | cpu.max of the job's cgroup
*.fair_server_runtime_ns | ns per period, by CPU | /sys/kernel/debug/sched/fair_server/cpuN/runtime
*.rt_runtime_us | µs per period | /proc/sys/kernel/sched_rt_runtime_us
*.siblings_online | CPU list | /sys/devices/system/cpu/cpuN/topology/thread_siblings_list
*.frequency | governor; kHz; by CPU | /sys/devices/system/cpu/cpuN/cpufreq/scaling_*
*.swap | on or off | /proc/swaps
*.irqs_on_job_cpus | interrupts | /proc/irq/N/effective_affinity_list
*.tsc_watchdog | on or off | /proc/cmdline (tsc=) or the TSC flags of /proc/cpuinfo
*.movable_threads | threads | Cpus_allowed_list of /proc/TID/status
*.drift | ns CLOCK_MONOTONIC_RAW; knobs | the node, reading its knobs again
windows.name | name | the node
windows.start_ns | ns CLOCK_MONOTONIC_RAW | first snapshot
windows.end_ns | ns CLOCK_MONOTONIC_RAW | last snapshot
windows.steps | count | pairs of snapshots that follow each other
windows.longest_step_ns | ns | between two snapshots
windows.cpus.*.interrupts | count | /proc/interrupts, named lines
windows.cpus.*.device | count | /proc/interrupts, numbered lines
windows.cpus.*.softirqs | count | /proc/softirqs
windows.cpus.*.timeslices | count | /proc/schedstat, ninth field of cpuN
windows.cpus.*.irq_ticks | ticks of 10 ms | /proc/stat, cpuN irq
windows.cpus.*.softirq_ticks | ticks of 10 ms | /proc/stat, cpuN softirq
windows.cpus.*.steal_ticks | ticks of 10 ms | /proc/stat, cpuN steal
windows.threads | count | /proc/PID/task of the job
windows.foreign_timeslices | count | /proc/schedstat less /proc/TID/schedstat of the job's threads
windows.unattributable_steps | count | steps in which a thread of the job ended or may have lived unseen
windows.unattributed_timeslices | count | /proc/schedstat in those steps
windows.residents | count by thread | third field of /proc/TID/schedstat
windows.run_ns | ns | first field of /proc/TID/schedstat
windows.voluntary_switches | count | voluntary_ctxt_switches of /proc/TID/status
windows.involuntary_switches | count | nonvoluntary_ctxt_switches of /proc/TID/status
windows.pgmajfault | count | memory.stat of the job, or /proc/vmstat without it
windows.swapped_in_pages | pages, whole system | /proc/vmstat, pswpin
windows.swapped_out_pages | pages, whole system | /proc/vmstat, pswpout
windows.nr_throttled | periods | cpu.stat of the job's cgroup
windows.psi_cpu_us | µs | cpu.pressure of the job's cgroup, some total
windows.psi_memory_us | µs | memory.pressure of the job's cgroup, some total
windows.psi_io_us | µs | io.pressure of the job's cgroup, some total
windows.flaws | sentences | the snapshots' times
interruptions | null: not asked for | label stillmetal.trace
interruptions.status | recorded or unobservable | the node
interruptions.why | text | the node
interruptions.dropped | count by CPU, seen and not kept | per_cpu/cpuN/stats of the tracer
interruptions.events.cpu | CPU | osnoise tracer
interruptions.events.at_ns | ns CLOCK_MONOTONIC_RAW | osnoise tracer, end to the µs less the duration
interruptions.events.duration_ns | ns, without what interrupted it in turn | osnoise tracer
interruptions.events.kind | nmi, irq, softirq or thread | osnoise:*_noise
interruptions.events.name | name and vector, number or tid | osnoise tracer
hardware.smi | count, whole run, worst CPU | MSR_SMI_COUNT (MSR 34H)
hardware.aperf_mperf | ppm from the fixed frequency, worst CPU and window | IA32_APERF over IA32_MPERF (MSR E8H, E7H), scaling_max_freq over base_frequency
hardware.throttle | count, whole run, worst CPU | /sys/devices/system/cpu/cpuN/thermal_throttle
hardware.temperature | m°C from canary to canary, worst sensor | IA32_THERM_STATUS (MSR 19CH) of the job's CPUs, or k10temp in hwmon
hardware.cstate_residency | µs, around the job, all its CPUs | /sys/devices/system/cpu/cpuN/cpuidle/stateN/time but POLL
hardware.energy | µJ, around the job, the packages of its CPUs | energy_uj in /sys/class/powercap/intel-rapl:N
hardware.host_steal | ticks of 10 ms, whole run, all its CPUs | /proc/stat, cpuN steal
troubles | text | the node's agent
actions_in_window | ns CLOCK_MONOTONIC_RAW | the node's own log
job.exit_code | code | wait status
job.signal | number | wait status
job.oom_killed | yes or no | memory.events of the job's cgroup
job.timed_out | yes or no | the node
job.gate | ns CLOCK_MONOTONIC_RAW | the node
job.ended_ns | ns CLOCK_MONOTONIC_RAW | cgroup.events of the job's cgroup
job.settings | on or off; name; priority; nice value | /proc/PID/personality and /proc/PID/stat before the release
job.output | SHA-256; bytes | what the container engine kept of stdout and stderr
";
