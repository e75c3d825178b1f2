//! Work that the kernel does on its own: workqueues, packets, memory, watchdogs.

use cpulist::CpuSet;

use super::{Steps, Want};
use crate::cell::Cell;
use crate::topology::Topology;

const WORKQUEUES: &str = "/sys/devices/virtual/workqueue";

pub(super) fn plan(steps: &mut Steps, topology: &Topology, housekeeping: &CpuSet) {
    let within = || Want::MaskWithin(housekeeping.clone());
    steps.add(
        "workqueue.cpumask",
        Cell::file(format!("{WORKQUEUES}/cpumask")),
        within(),
        "unbound kernel work",
    );
    for name in &topology.workqueues {
        let cell = Cell::file(format!("{WORKQUEUES}/{name}/cpumask"));
        steps.add(
            format!("workqueue.{name}.cpumask"),
            cell,
            within(),
            "unbound kernel work",
        );
    }
    for queue in &topology.queues {
        let cell = Cell::file(queue.path.clone());
        steps.add(
            format!("net.{}", queue.name),
            cell,
            within(),
            "packet processing",
        );
    }
    sysctls(steps);
    let ksm = Cell::file("/sys/kernel/mm/ksm/run");
    steps.add(
        "ksm.run",
        ksm,
        Want::Number(0),
        "page merging scans and write faults",
    );
    records(steps, topology);
}

fn sysctls(steps: &mut Steps) {
    steps.sysctl("vm.stat_interval", 120, "per-CPU statistics folding");
    steps.sysctl(
        "kernel.numa_balancing",
        0,
        "page unmapping to sample memory use",
    );
    // Setting the sum of the two watchdogs sets both, so it comes last and is restored first.
    steps.sysctl("kernel.nmi_watchdog", 0, "NMIs, and a performance counter");
    steps.sysctl(
        "kernel.soft_watchdog",
        0,
        "a timer and a stopper thread on every CPU",
    );
    steps.sysctl("kernel.watchdog", 0, "both lockup detectors");
    steps.sysctl(
        "kernel.timer_migration",
        0,
        "timers of idle CPUs moving to busy ones",
    );
    steps.sysctl("vm.swappiness", 0, "paging");
    // In this order: the rate cannot be set (nor restored) while the percentage is 0 or 100.
    let why = "performance monitoring interrupts";
    steps.sysctl("kernel.perf_cpu_time_max_percent", 1, why);
    steps.sysctl("kernel.perf_event_max_sample_rate", 1, why);
    steps.sysctl("kernel.hung_task_timeout_secs", 600, "scans over all tasks");
}

/// The job's own matters, and what identifies a result.
fn records(steps: &mut Steps, topology: &Topology) {
    for (knob, path, why) in [
        (
            "kernel.randomize_va_space",
            "/proc/sys/kernel/randomize_va_space",
            "layout bias is the job's policy: fixed or sampled",
        ),
        (
            "transparent_hugepage.enabled",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "changes results: the job's policy",
        ),
        (
            "transparent_hugepage.defrag",
            "/sys/kernel/mm/transparent_hugepage/defrag",
            "changes results: the job's policy",
        ),
        (
            "machinecheck.check_interval",
            "/sys/devices/system/machinecheck/machinecheck0/check_interval",
            "one poll in so many seconds; hiding memory errors would be worse",
        ),
        (
            "machinecheck.ignore_ce",
            "/sys/devices/system/machinecheck/machinecheck0/ignore_ce",
            "one poll in so many seconds; hiding memory errors would be worse",
        ),
    ] {
        steps.add(knob, Cell::file(path), Want::Record, why);
    }
    let clocksource =
        Cell::file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let why = "with an unstable TSC the kernel keeps the tick on isolated CPUs";
    if topology.flags.tsc {
        // Nothing can be written, and a warning tells what follows: no requirement.
        steps.add("clocksource", clocksource, Want::Expect("tsc".into()), why);
    } else {
        steps.add("clocksource", clocksource, Want::Record, why);
    }
}
