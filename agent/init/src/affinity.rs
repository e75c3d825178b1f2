//! PID 1 keeps off the CPUs that the command line isolates, before it starts anything; all that it starts inherits that.
//!
//! Not for its own few cycles: a kernel timer that re-arms itself, such as a network device's transmit watchdog, stays for
//! ever on the CPU where it was first armed. Bringing an interface up from an isolated CPU therefore costs that CPU an
//! interrupt every five seconds from then on (seen with the `csd_queue_cpu` tracepoint on 6.12: `dev_watchdog` →
//! `irq_work_queue_on` → `nohz_full_kick_func`).

use std::fs;

use cpulist::CpuSet;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;

use crate::log;

const CPUS: &str = "/sys/devices/system/cpu";

/// Moves this process to the housekeeping CPUs. Without isolation, or when something cannot be read, it stays free.
pub(crate) fn keep_off_isolated_cpus() {
    let read = |name: &str| -> CpuSet {
        let text = fs::read_to_string(format!("{CPUS}/{name}")).unwrap_or_default();
        text.parse().unwrap_or_default()
    };
    let isolated = read("nohz_full").union(&read("isolated"));
    let Some(housekeeping) = housekeeping(&read("online"), &isolated) else {
        return;
    };
    let mut set = nix::sched::CpuSet::new();
    let moved = housekeeping
        .iter()
        .try_for_each(|cpu| set.set(cpu as usize))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = moved {
        log::warn(&format!("init stays on all CPUs: {error}"));
    }
}

/// `None`: nothing is isolated, or nothing would be left.
fn housekeeping(online: &CpuSet, isolated: &CpuSet) -> Option<CpuSet> {
    let rest = online.difference(isolated);
    (!isolated.is_empty() && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_split_moves_anything() {
        let set = |list: &str| -> CpuSet { list.parse().unwrap() };
        assert_eq!(housekeeping(&set("0-3"), &set("1-3")), Some(set("0")));
        assert_eq!(housekeeping(&set("0-3"), &set("")), None);
        assert_eq!(housekeeping(&set("0-1"), &set("0-1")), None);
    }
}
