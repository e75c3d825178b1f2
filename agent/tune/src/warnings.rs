//! What an operator should change about the boot, each under a name that stays.

use api::report::Warning;
use cpulist::CpuSet;

use crate::topology::Topology;

fn warning(name: &str, text: String) -> Warning {
    Warning {
        name: name.to_owned(),
        text,
    }
}

/// Looks at the kernel command line and what came of it.
#[must_use]
pub fn of_boot(topology: &Topology) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let ticking = topology.boot_isolated.difference(&topology.nohz_full);
    if !ticking.is_empty() {
        warnings.push(warning(
            "nohz-full-partial",
            format!(
                "isolated CPUs {ticking} are not in nohz_full ({}): they keep the scheduling tick; \
                 boot with nohz_full={}",
                topology.nohz_full,
                topology.boot_isolated.union(&topology.nohz_full),
            ),
        ));
    }
    if !topology.boot_isolated.is_empty() {
        warnings.push(warning(
            "isolcpus-domain",
            format!(
                "CPUs {} are under isolcpus=domain: threads of one job are not balanced over them, \
                 so jobs on several CPUs need it gone from the command line",
                topology.boot_isolated
            ),
        ));
    }
    let trusted = parameters(&topology.cmdline)
        .any(|(name, value)| name == "tsc" && matches!(value, "reliable" | "nowatchdog"));
    if topology.flags.tsc && !topology.flags.stable_tsc && !trusted {
        warnings.push(warning(
            "tsc-watchdog",
            "the TSC is not known to be stable and tsc=reliable (or tsc=nowatchdog) is missing: a \
             watchdog timer visits every CPU each second, and may void nohz_full"
                .to_owned(),
        ));
    }
    warnings
}

/// `name=value` pairs of a command line; quotes are not taken apart, no value needed here has any.
fn parameters(cmdline: &str) -> impl Iterator<Item = (&str, &str)> {
    cmdline
        .split_ascii_whitespace()
        .filter_map(|parameter| parameter.split_once('='))
}

/// Why no CPU is isolated; `None` when one is.
#[must_use]
pub fn unfit_reason(before: &Topology, after: &Topology) -> Option<String> {
    if !after.isolated.is_empty() {
        return None;
    }
    let asked =
        parameters(&before.cmdline).any(|(name, _)| matches!(name, "nohz_full" | "isolcpus"));
    Some(if !before.isolated.is_empty() {
        format!(
            "no isolated CPU is left: {} shared a core with a housekeeping CPU and went offline \
             with SMT; isolate whole cores, or boot with stillmetal.smt=keep",
            before.isolated
        )
    } else if before.present.len() == 1 && before.online.len() == 1 {
        "no isolated CPU: the machine has only one CPU".to_owned()
    } else if asked {
        format!(
            "no isolated CPU: the command line asks for some, but none of them is online ({})",
            before.online
        )
    } else {
        "no isolated CPU: boot with nohz_full=1-N on the kernel command line".to_owned()
    })
}

/// What the state after tuning still leaves to wish for.
#[must_use]
pub fn of_result(after: &Topology) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let sharing: CpuSet = after
        .isolated
        .iter()
        .filter(|cpu| after.siblings.get(cpu).is_some_and(|core| core.len() > 1))
        .collect();
    if !sharing.is_empty() {
        warnings.push(warning(
            "smt-sibling-online",
            format!("isolated CPUs {sharing} share a core with another CPU that is online"),
        ));
    }
    if let Some(clocksource) = &after.clocksource
        && after.flags.tsc
        && clocksource != "tsc"
    {
        warnings.push(warning(
            "clocksource",
            format!(
                "the clocksource is {clocksource}, not tsc: if the kernel gave the TSC up as \
                 unstable, isolated CPUs keep the scheduling tick"
            ),
        ));
    }
    warnings
}
