//! tracefs instances with the osnoise tracer, as Linux 6.12 has them.

use cpulist::CpuSet;

use super::files::Files;
use super::tree::{Rule, Verdict};

const TRACING: &str = "/sys/kernel/tracing";

/// Emulates `/sys/kernel/tracing`.
#[derive(Clone, Debug)]
pub struct TracefsRules {
    cpus: CpuSet,
}

impl TracefsRules {
    /// A machine with these CPUs.
    #[must_use]
    pub fn new(cpus: CpuSet) -> Self {
        Self { cpus }
    }

    /// A tree with the files at the top, and no instance.
    #[must_use]
    pub fn tree(self) -> super::FakeTree {
        let tree = super::FakeTree::new();
        for (file, text) in [
            ("available_tracers", "timerlat osnoise hwlat nop".to_owned()),
            ("osnoise/cpus", self.cpus.to_string()),
            (
                "osnoise/options",
                "DEFAULTS OSNOISE_WORKLOAD NO_PANIC_ON_STOP".to_owned(),
            ),
            // for the sake of its directory
            ("instances/.keep", String::new()),
        ] {
            tree.set(&format!("{TRACING}/{file}"), &text);
        }
        tree.remove(&format!("{TRACING}/instances/.keep"));
        tree.with_rule(self)
    }
}

/// The file's path below its instance, if it is in one.
fn in_instance(path: &str) -> Option<(&str, &str)> {
    let name = path.strip_prefix(TRACING)?.strip_prefix("/instances/")?;
    Some(name.split_once('/').unwrap_or((name, "")))
}

impl Rule for TracefsRules {
    fn on_create_dir(&mut self, files: &mut Files, path: &str) -> Verdict {
        if !matches!(in_instance(path), Some((_, ""))) {
            return Verdict::Pass;
        }
        for (file, text) in [
            ("trace_clock", "[local] global mono mono_raw boot"),
            ("buffer_size_kb", "1410"),
            ("current_tracer", "nop"),
            ("tracing_on", "1"),
            ("options/overwrite", "1"),
            ("events/osnoise/thread_noise/filter", "none"),
            ("events/osnoise/enable", "0"),
            ("events/sched/sched_process_fork/enable", "0"),
        ] {
            files.set(&format!("{path}/{file}"), text);
        }
        files.set(&format!("{path}/tracing_cpumask"), &self.cpus.to_mask());
        for cpu in self.cpus.iter() {
            let of_cpu = format!("{path}/per_cpu/cpu{cpu}");
            files.set(&format!("{of_cpu}/trace"), "# tracer: nop");
            files.set(
                &format!("{of_cpu}/stats"),
                "entries: 0\noverrun: 0\ncommit overrun: 0\ndropped events: 0",
            );
        }
        Verdict::Done
    }

    /// With everything below: its files are no obstacle.
    fn on_remove_dir(&mut self, files: &mut Files, path: &str) -> Verdict {
        if !matches!(in_instance(path), Some((_, ""))) {
            return Verdict::Pass;
        }
        files.remove(path);
        Verdict::Done
    }

    fn on_write(&mut self, files: &mut Files, path: &str, text: &str) -> Verdict {
        if path == format!("{TRACING}/osnoise/options") {
            let plain = text.trim_start_matches("NO_").to_owned();
            let before = files.get(path).unwrap_or_default();
            let options: Vec<&str> = before
                .split_ascii_whitespace()
                .map(|option| {
                    if option.trim_start_matches("NO_") == plain {
                        text
                    } else {
                        option
                    }
                })
                .collect();
            let options = options.join(" ");
            files.set(path, &options);
            return Verdict::Done;
        }
        match in_instance(path) {
            Some((_, "trace_clock")) => {
                files.set(path, &format!("local global mono [{text}] boot"));
            }
            Some((_, "buffer_size_kb")) => {
                let kib: u64 = text.parse().unwrap_or_default();
                files.set(path, &(kib + 2).to_string());
            }
            _ => return Verdict::Pass,
        }
        Verdict::Done
    }
}
