//! A node with counters that tests turn up, and the evidence of a run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use cpulist::CpuSet;
use quiet::{
    Conditions, Evidence, Hardware, JobClass, JobOutcome, Platform, Release, Resident, Snapshot,
    Switch, TaskCounts, Texts, TickMode, Value, Watch, Window, WindowName,
};

pub(crate) const JOB_CPU: u32 = 1;

pub(crate) const INTERRUPTS: [(&str, &str); 14] = [
    ("24", "PCI-MSIX-0000:00:03.0 0-edge virtio0-input.0"),
    ("LOC", "Local timer interrupts"),
    ("NMI", "Non-maskable interrupts"),
    ("PMI", "Performance monitoring interrupts"),
    ("IWI", "IRQ work interrupts"),
    ("RES", "Rescheduling interrupts"),
    ("CAL", "Function call interrupts"),
    ("TLB", "TLB shootdowns"),
    ("SPU", "Spurious interrupts"),
    ("TRM", "Thermal event interrupts"),
    ("THR", "Threshold APIC interrupts"),
    ("DFR", "Deferred Error APIC interrupts"),
    ("MCE", "Machine check exceptions"),
    ("MCP", "Machine check polls"),
];
pub(crate) const SOFTIRQS: [&str; 10] = [
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
];
pub(crate) const FILES: [&str; 7] = [
    "interrupts",
    "softirqs",
    "schedstat",
    "vmstat",
    "cpu_stat",
    "pressure_cpu",
    "pressure_io",
];

/// Counters by name; what is in `hidden` is not printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) hidden: BTreeSet<String>,
    pub(crate) tasks: BTreeMap<u32, TaskCounts>,
    pub(crate) residents: BTreeMap<u32, Resident>,
}

impl Node {
    pub(crate) fn new(threads: u32) -> Self {
        let task = TaskCounts {
            start_ticks: 5,
            timeslices: 9,
            ..TaskCounts::default()
        };
        let kworker = Resident {
            name: "kworker/1:1".to_owned(),
            start_ticks: 2,
            timeslices: 70,
        };
        Self {
            tasks: (100..100 + threads).map(|tid| (tid, task)).collect(),
            residents: BTreeMap::from([(30, kworker)]),
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, name: &str, events: u64) {
        *self.counts.entry(name.to_owned()).or_default() += events;
    }

    fn count(&self, name: &str) -> u64 {
        1000 + self.counts.get(name).copied().unwrap_or(0)
    }

    fn file(&self, name: &str, text: String) -> Option<String> {
        (!self.hidden.contains(name)).then_some(text)
    }

    pub(crate) fn snapshot(&self, taken_ns: u64) -> Snapshot {
        let mut interrupts = "     CPU0  CPU1\n".to_owned();
        for (name, text) in INTERRUPTS {
            if !self.hidden.contains(name) {
                writeln!(interrupts, "{name}: 5 {} {text}", self.count(name))
                    .expect("a String takes all");
            }
        }
        let mut softirqs = "     CPU0  CPU1\n".to_owned();
        for name in SOFTIRQS {
            if !self.hidden.contains(name) {
                writeln!(softirqs, "{name}: 5 {}", self.count(name)).expect("a String takes all");
            }
        }
        let pressure = |name: &str| {
            self.file(
                name,
                format!(
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n",
                    self.count(name)
                ),
            )
        };
        let interrupts = self.file("interrupts", interrupts).unwrap_or_default();
        let softirqs = self.file("softirqs", softirqs).unwrap_or_default();
        let schedstat = self.file(
            "schedstat",
            format!(
                "version 15\ncpu1 0 0 0 0 0 0 1 2 {}\n",
                self.count("timeslices")
            ),
        );
        let vmstat = self.file(
            "vmstat",
            format!(
                "pswpin {}\npswpout {}\npgmajfault {}\n",
                self.count("pswpin"),
                self.count("pswpout"),
                self.count("pgmajfault")
            ),
        );
        let cpu_stat = self.file(
            "cpu_stat",
            format!("nr_throttled {}\n", self.count("nr_throttled")),
        );
        let stat = format!(
            "cpu1 0 0 0 0 0 1 2 3 0 0\nprocesses {}\n",
            self.count("processes")
        );
        let (cpu, memory, io) = (
            pressure("pressure_cpu"),
            pressure("pressure_memory"),
            pressure("pressure_io"),
        );
        let texts = Texts {
            interrupts: &interrupts,
            softirqs: &softirqs,
            schedstat: schedstat.as_deref(),
            stat: Some(&stat),
            vmstat: vmstat.as_deref(),
            cpu_stat: cpu_stat.as_deref(),
            memory_stat: None,
            pressure_cpu: cpu.as_deref(),
            pressure_memory: memory.as_deref(),
            pressure_io: io.as_deref(),
        };
        let mut snapshot = Snapshot::parse(taken_ns, &job_cpus(), &texts);
        snapshot.tasks = self.tasks.clone();
        snapshot.residents = self.residents.clone();
        snapshot
    }

    /// `act` runs before each snapshot but the first.
    pub(crate) fn watch(
        &mut self,
        name: WindowName,
        mut act: impl FnMut(u64, &mut Self),
    ) -> Window {
        let (start, steps, step_ns) = span(name);
        let mut watch = Watch::new(self.snapshot(start));
        for step in 0..steps {
            act(step, self);
            watch.push(self.snapshot(start + (step + 1) * step_ns));
        }
        watch.finish().named(name)
    }
}

/// Start, ns, steps, and the length of one, ns.
fn span(name: WindowName) -> (u64, u64, u64) {
    const SECOND: u64 = 1_000_000_000;
    match name {
        WindowName::CanaryPre => (SECOND, 4, SECOND / 2),
        WindowName::Job => (4 * SECOND, 6, SECOND / 2),
        WindowName::Exit => (7 * SECOND, 2, SECOND / 10),
        WindowName::CanaryPost => (8 * SECOND, 4, SECOND / 2),
    }
}

pub(crate) fn job_cpus() -> CpuSet {
    [JOB_CPU].into_iter().collect()
}

pub(crate) fn conditions() -> Conditions {
    Conditions {
        clocksource: Some("tsc".to_owned()),
        nohz_full: Some(job_cpus()),
        boot_isolated: Some(CpuSet::new()),
        partition: Some("isolated".to_owned()),
        cpu_max: Some("max 100000".to_owned()),
        fair_server_runtime_ns: BTreeMap::from([(JOB_CPU, Value::Measured(0))]),
        rt_runtime_us: Some(-1),
        siblings_online: Some(CpuSet::new()),
        frequency: BTreeMap::new(),
        swap: Some(Switch::Off),
        irqs_on_job_cpus: Some(Vec::new()),
        tsc_watchdog: Some(Switch::Off),
        movable_threads: Some(Vec::new()),
        drift: Vec::new(),
    }
}

/// A run of `threads` threads; `act` is told the window, the step and the node.
pub(crate) fn evidence(
    class: JobClass,
    threads: u32,
    mut act: impl FnMut(WindowName, u64, &mut Node),
) -> Evidence {
    let windows = WindowName::ALL
        .map(|name| Node::new(threads).watch(name, |step, node| act(name, step, node)));
    Evidence {
        run_id: "r1".to_owned(),
        container_id: "c1".to_owned(),
        image: "bench:1".to_owned(),
        argv: vec!["spin".to_owned()],
        class,
        tick_mode: TickMode::NohzFull,
        platform: Platform {
            kernel: "6.12.0".to_owned(),
            cmdline: "nohz_full=1 tsc=reliable".to_owned(),
            cpu_model: "QEMU TCG CPU".to_owned(),
            hypervisor: Some(true),
            agent_version: "0.1.0".to_owned(),
        },
        job_cpus: job_cpus(),
        housekeeping_cpus: [0].into_iter().collect(),
        before: conditions(),
        after: conditions(),
        windows: windows.into(),
        interruptions: None,
        hardware: Hardware::unobservable("a virtual machine"),
        actions_in_window: Vec::new(),
        troubles: Vec::new(),
        job: JobOutcome {
            exit_code: Some(0),
            gate: Release {
                released_ns: Some(4_050_000_000),
                exec_ns: None,
            },
            ..JobOutcome::default()
        },
    }
}
