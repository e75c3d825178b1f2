//! The files that every snapshot reads, kept open: finding one costs more than reading it.

use std::io;

use cpulist::CpuSet;
use host::cgroup::ROOT;
use host::{Kept, Tree};
use quiet::{Snapshot, Texts};

/// `/proc/interrupts` of a large machine.
const MAX_BYTES: u64 = 32 << 20;

/// `None`: this kernel has no such file, or the cgroup is gone.
type Source = Option<Box<dyn Kept>>;

/// The system's tables and one cgroup's files.
pub(super) struct Sources {
    interrupts: Source,
    softirqs: Source,
    schedstat: Source,
    stat: Source,
    vmstat: Source,
    cpu_stat: Source,
    memory_stat: Source,
    pressure_cpu: Source,
    pressure_memory: Source,
    pressure_io: Source,
}

impl Sources {
    pub(super) fn open(tree: &dyn Tree, cgroup: &str) -> Self {
        let system = |name: &str| tree.keep_open(&format!("/proc/{name}")).ok();
        let own = |name: &str| tree.keep_open(&format!("{ROOT}/{cgroup}/{name}")).ok();
        Self {
            interrupts: system("interrupts"),
            softirqs: system("softirqs"),
            schedstat: system("schedstat"),
            stat: system("stat"),
            vmstat: system("vmstat"),
            cpu_stat: own("cpu.stat"),
            memory_stat: own("memory.stat"),
            pressure_cpu: own("cpu.pressure"),
            pressure_memory: own("memory.pressure"),
            pressure_io: own("io.pressure"),
        }
    }

    /// What they say now, of these CPUs; the job's threads are not in it.
    ///
    /// # Errors
    /// When interrupts or softirqs cannot be read; no other file is needed.
    pub(super) fn snapshot(&self, taken_ns: u64, cpus: &CpuSet) -> io::Result<Snapshot> {
        // the counters of CPUs first and close together
        let interrupts = required(&self.interrupts)?;
        let softirqs = required(&self.softirqs)?;
        let memory_stat = optional(&self.memory_stat);
        let schedstat = optional(&self.schedstat);
        let stat = optional(&self.stat);
        let vmstat = optional(&self.vmstat);
        let cpu_stat = optional(&self.cpu_stat);
        let pressure_cpu = optional(&self.pressure_cpu);
        let pressure_memory = optional(&self.pressure_memory);
        let pressure_io = optional(&self.pressure_io);
        let texts = Texts {
            interrupts: &interrupts,
            softirqs: &softirqs,
            schedstat: schedstat.as_deref(),
            stat: stat.as_deref(),
            vmstat: vmstat.as_deref(),
            cpu_stat: cpu_stat.as_deref(),
            memory_stat: memory_stat.as_deref(),
            pressure_cpu: pressure_cpu.as_deref(),
            pressure_memory: pressure_memory.as_deref(),
            pressure_io: pressure_io.as_deref(),
        };
        Ok(Snapshot::parse(taken_ns, cpus, &texts))
    }
}

fn required(source: &Source) -> io::Result<String> {
    let source = source.as_ref().ok_or(io::ErrorKind::NotFound)?;
    source.read_up_to(MAX_BYTES)
}

fn optional(source: &Source) -> Option<String> {
    source.as_ref()?.read_up_to(MAX_BYTES).ok()
}
