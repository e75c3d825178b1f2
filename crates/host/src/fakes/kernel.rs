//! CPUs, SMT, interrupts and the scheduler's traps, as Linux 6.12 has them.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use nix::errno::Errno;

use super::cpufreq;
use super::files::Files;
use super::tree::{Rule, Verdict};

const CPU: &str = "/sys/devices/system/cpu";
const FAIR_SERVER: &str = "/sys/kernel/debug/sched/fair_server/";

/// - `fair_server/cpuN/runtime` gives `EBUSY` until `sched_rt_runtime_us` is -1;
/// - `smt/control` takes SMT siblings on- and offline, and their `topology` with them;
///   `cpuN/online` of a sibling gives `EPERM` while SMT is off;
/// - an interrupt's affinity needs an online CPU, and its effective list follows;
/// - `watchdog` and the two watchdogs that it stands for agree;
/// - `perf_event_max_sample_rate` is fixed while throttling is off;
/// - cpufreq: see `cpufreq.rs`.
#[derive(Debug, Default)]
pub struct KernelRules {
    /// `topology` files of offline CPUs.
    hidden: BTreeMap<u32, BTreeMap<String, String>>,
    /// CPU → every thread of its core, online or not; as seen at the first write.
    cores: BTreeMap<u32, CpuSet>,
}

impl KernelRules {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn set_online(&mut self, files: &mut Files, cpu: u32, online: bool) {
        let topology = format!("{CPU}/cpu{cpu}/topology");
        if online {
            for (path, text) in self.hidden.remove(&cpu).unwrap_or_default() {
                files.set(&path, &text);
            }
        } else {
            let taken = files.remove(&topology);
            self.hidden.entry(cpu).or_default().extend(taken);
        }
        files.update(
            &format!("{CPU}/cpu{cpu}/online"),
            if online { "1" } else { "0" },
        );
        let mut all = list(files, &format!("{CPU}/online"));
        if online {
            all.insert(cpu);
        } else {
            all = all.difference(&[cpu].into_iter().collect());
        }
        files.update(&format!("{CPU}/online"), &all.to_string());
        self.retell_siblings(files);
    }

    /// `thread_siblings_list` names online siblings only; `smt/active` follows.
    fn retell_siblings(&self, files: &mut Files) {
        let online = list(files, &format!("{CPU}/online"));
        let mut active = false;
        for (cpu, core) in &self.cores {
            let siblings = core.intersection(&online);
            if online.contains(*cpu) {
                active |= siblings.len() > 1;
                files.update(
                    &format!("{CPU}/cpu{cpu}/topology/thread_siblings_list"),
                    &siblings.to_string(),
                );
            }
        }
        files.update(&format!("{CPU}/smt/active"), if active { "1" } else { "0" });
    }

    fn learn_cores(&mut self, files: &Files) {
        if !self.cores.is_empty() {
            return;
        }
        for (path, text) in files.under(&format!("{CPU}/cpu")) {
            if path.ends_with("/topology/thread_siblings_list")
                && let Ok(core) = text.parse::<CpuSet>()
            {
                for member in core.iter() {
                    let known = self.cores.entry(member).or_default();
                    *known = known.union(&core);
                }
            }
        }
    }

    /// All threads but the first of each core.
    fn secondary(&self) -> CpuSet {
        self.cores
            .iter()
            .filter(|(cpu, core)| core.first() != Some(**cpu))
            .map(|(cpu, _)| *cpu)
            .collect()
    }

    fn smt_control(&mut self, files: &mut Files, text: &str) -> Verdict {
        let path = format!("{CPU}/smt/control");
        match files.get(&path) {
            Some("forceoff") => return Verdict::Fail(Errno::EPERM),
            Some("notsupported" | "notimplemented") => return Verdict::Fail(Errno::ENODEV),
            _ => {}
        }
        let online = match text {
            "on" => true,
            "off" | "forceoff" => false,
            _ => return Verdict::Fail(Errno::EINVAL),
        };
        for cpu in self.secondary().iter() {
            self.set_online(files, cpu, online);
        }
        files.set(&path, text);
        Verdict::Done
    }

    fn cpu_online(&mut self, files: &mut Files, cpu: u32, text: &str) -> Verdict {
        let online = match text {
            "0" => false,
            "1" => true,
            _ => return Verdict::Fail(Errno::EINVAL),
        };
        let smt_off = files.get(&format!("{CPU}/smt/control")) == Some("off");
        if online && smt_off && self.secondary().contains(cpu) {
            return Verdict::Fail(Errno::EPERM);
        }
        self.set_online(files, cpu, online);
        Verdict::Done
    }
}

fn list(files: &Files, path: &str) -> CpuSet {
    files
        .get(path)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

impl Rule for KernelRules {
    fn on_write(&mut self, files: &mut Files, path: &str, text: &str) -> Verdict {
        self.learn_cores(files);
        if path.starts_with(FAIR_SERVER) && path.ends_with("/runtime") {
            let unlocked = files.get("/proc/sys/kernel/sched_rt_runtime_us") == Some("-1");
            return if unlocked {
                Verdict::Pass
            } else {
                Verdict::Fail(Errno::EBUSY)
            };
        }
        if path == format!("{CPU}/smt/control") {
            return self.smt_control(files, text);
        }
        if let Some(cpu) = path
            .strip_prefix(&format!("{CPU}/cpu"))
            .and_then(|rest| rest.strip_suffix("/online"))
            .and_then(|number| number.parse().ok())
        {
            return self.cpu_online(files, cpu, text);
        }
        if let Some(irq) = path
            .strip_prefix("/proc/irq/")
            .and_then(|rest| rest.strip_suffix("/smp_affinity_list"))
        {
            return irq_affinity(files, irq, text);
        }
        match path {
            "/proc/sys/kernel/watchdog" => {
                for name in ["watchdog", "soft_watchdog", "nmi_watchdog"] {
                    files.update(&format!("/proc/sys/kernel/{name}"), text);
                }
                Verdict::Done
            }
            "/proc/sys/kernel/soft_watchdog" | "/proc/sys/kernel/nmi_watchdog" => {
                files.set(path, text);
                let on = ["soft_watchdog", "nmi_watchdog"]
                    .iter()
                    .any(|name| files.get(&format!("/proc/sys/kernel/{name}")) == Some("1"));
                files.update("/proc/sys/kernel/watchdog", if on { "1" } else { "0" });
                Verdict::Done
            }
            "/proc/sys/kernel/perf_event_max_sample_rate"
                if matches!(
                    files.get("/proc/sys/kernel/perf_cpu_time_max_percent"),
                    Some("0" | "100")
                ) =>
            {
                Verdict::Fail(Errno::EINVAL)
            }
            _ => cpufreq::on_write(files, path, text),
        }
    }
}

fn irq_affinity(files: &mut Files, irq: &str, text: &str) -> Verdict {
    let Ok(cpus) = text.parse::<CpuSet>() else {
        return Verdict::Fail(Errno::EINVAL);
    };
    let usable = cpus.intersection(&list(files, &format!("{CPU}/online")));
    let Some(first) = usable.first() else {
        return Verdict::Fail(Errno::EINVAL);
    };
    files.set(
        &format!("/proc/irq/{irq}/smp_affinity_list"),
        &cpus.to_string(),
    );
    files.update(&format!("/proc/irq/{irq}/smp_affinity"), &cpus.to_mask());
    files.update(
        &format!("/proc/irq/{irq}/effective_affinity_list"),
        &first.to_string(),
    );
    Verdict::Done
}
