//! From a machine to the list of steps. Pure: nothing is read or written here.
//!
//! The order of the steps matters, and so does its reverse, in which `restore` goes:
//! - `sched_rt_runtime_us` before the fair servers, which answer `EBUSY` otherwise;
//! - turbo before the limits, energy preference before the governor (which locks it);
//! - interrupts before SMT: a vector whose last CPU goes offline is moved anywhere by the kernel,
//!   and restoring its old place needs those CPUs back first.

use api::report::{Need, Warning};
use cpulist::CpuSet;
use host::threads::Binding;

use crate::cell::Cell;
use crate::topology::{CPU, Topology};
use crate::warnings;

mod frequency;
mod system;
mod want;
pub use want::Want;

/// What becomes of SMT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Smt {
    /// One thread a core.
    #[default]
    Off,
    Keep,
}

/// Who will keep `/dev/cpu_dma_latency` open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    /// The caller, by keeping [`crate::Applied::hold`].
    Hold,
    /// Nobody: the process ends. The idle states are limited by their own switches either way.
    #[default]
    Skip,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub smt: Smt,
    pub latency: Latency,
}

/// One knob to turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name for people: a sysctl's name, or what it is about.
    pub knob: String,
    pub cell: Cell,
    pub want: Want,
    pub need: Need,
    /// Which noise it removes.
    pub why: &'static str,
}

/// What will be done, in this order.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub warnings: Vec<Warning>,
    /// The machine that it was made for.
    pub topology: Topology,
    /// The sets as they will be when SMT siblings are gone.
    pub isolated: CpuSet,
    pub housekeeping: CpuSet,
}

/// Collects steps.
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, knob: impl Into<String>, cell: Cell, want: Want, why: &'static str) {
        self.0.push(Step {
            knob: knob.into(),
            cell,
            want,
            need: Need::BestEffort,
            why,
        });
    }

    fn require(&mut self, knob: impl Into<String>, cell: Cell, want: Want, why: &'static str) {
        self.0.push(Step {
            knob: knob.into(),
            cell,
            want,
            need: Need::Required,
            why,
        });
    }

    fn sysctl(&mut self, name: &str, value: i64, why: &'static str) {
        self.add(
            name,
            Cell::file(sysctl_path(name)),
            Want::Number(value),
            why,
        );
    }
}

fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Makes the plan.
#[must_use]
pub fn plan(topology: &Topology, options: &Options) -> Plan {
    let leaving = match options.smt {
        Smt::Off if smt_can_change(topology) => topology.secondary_threads(),
        _ => CpuSet::new(),
    };
    let (isolated, housekeeping) = topology.without(&leaving);
    let mut steps = Steps(Vec::new());
    scheduler(&mut steps, topology, &isolated);
    interrupts(&mut steps, topology, &housekeeping);
    frequency::plan(&mut steps, topology, &leaving);
    frequency::idle(&mut steps, topology, &isolated, options.latency);
    system::plan(&mut steps, topology, &housekeeping);
    threads(&mut steps, topology, &housekeeping);
    smt(&mut steps, topology, options.smt, &leaving);
    Plan {
        steps: steps.0,
        warnings: warnings::of_boot(topology),
        topology: topology.clone(),
        isolated,
        housekeeping,
    }
}

fn scheduler(steps: &mut Steps, topology: &Topology, isolated: &CpuSet) {
    steps.require(
        "kernel.sched_rt_runtime_us",
        Cell::file(sysctl_path("kernel.sched_rt_runtime_us")),
        Want::Number(-1),
        "real-time throttling; also unlocks the fair servers' switches",
    );
    let why =
        "the fair server reschedules an idle-looking CPU once a second (1 timer interrupt, 2 IPIs)";
    let directory = "/sys/kernel/debug/sched/fair_server";
    if topology.fair_servers.is_empty() {
        let reason = "no such file: debugfs is not mounted, or the kernel is older than 6.12";
        steps.add(
            "fair_server",
            Cell::file(directory),
            Want::Absent(reason.into()),
            why,
        );
    }
    for cpu in topology.fair_servers.intersection(&topology.online).iter() {
        let cell = Cell::file(format!("{directory}/cpu{cpu}/runtime"));
        let knob = format!("fair_server.cpu{cpu}");
        if isolated.contains(cpu) {
            steps.require(knob, cell, Want::Number(0), why);
        } else {
            steps.add(knob, cell, Want::Number(0), why);
        }
    }
}

/// CPUs that are offline before anything is done.
fn offline(topology: &Topology) -> CpuSet {
    topology.present.difference(&topology.online)
}

fn interrupts(steps: &mut Steps, topology: &Topology, housekeeping: &CpuSet) {
    let why = "device interrupts";
    steps.add(
        "irq.default",
        Cell::file("/proc/irq/default_smp_affinity"),
        Want::MaskWithin(housekeeping.clone()),
        "where interrupts of later devices go",
    );
    for irq in &topology.irqs {
        steps.add(
            format!("irq.{}", irq.number),
            Cell::file(format!("/proc/irq/{}/smp_affinity_list", irq.number)),
            Want::ListWithin {
                cpus: housekeeping.clone(),
                ignored: offline(topology),
            },
            why,
        );
    }
}

fn threads(steps: &mut Steps, topology: &Topology, housekeeping: &CpuSet) {
    for thread in &topology.kernel_threads {
        let disturbing = thread
            .allowed
            .intersection(&topology.online)
            .difference(housekeeping);
        if thread.binding == Binding::Movable && !disturbing.is_empty() {
            steps.add(
                format!("kthread.{}", thread.name),
                Cell::Thread {
                    tid: thread.tid,
                    name: thread.name.clone(),
                },
                Want::ListWithin {
                    cpus: housekeeping.clone(),
                    ignored: offline(topology),
                },
                "a kernel thread that may be scheduled on isolated CPUs",
            );
        }
    }
}

/// `forceoff`, `notsupported` and `notimplemented` cannot be changed.
fn smt_can_change(topology: &Topology) -> bool {
    matches!(topology.smt_control.as_deref(), Some("on" | "off"))
}

fn smt(steps: &mut Steps, topology: &Topology, wish: Smt, leaving: &CpuSet) {
    let why = "a sibling competes for the core that a measurement runs on";
    let control = Cell::file(format!("{CPU}/smt/control"));
    let want = match (topology.smt_control.as_deref(), wish) {
        (None, _) => Want::Absent("the kernel has no SMT control".into()),
        (Some(state), _) if !smt_can_change(topology) => Want::Absent(format!("SMT is {state}")),
        (_, Smt::Keep) => Want::Record,
        (_, Smt::Off) => Want::Text("off".into()),
    };
    let switching = topology.smt_control.as_deref() == Some("on") && matches!(want, Want::Text(_));
    if switching {
        // One by one first: where the global switch refuses, this may still work. CPUs that are
        // offline already are named too, so that `restore`, which switches SMT on as a whole, takes
        // them offline again.
        for cpu in leaving.union(&offline(topology)).iter() {
            steps.add(
                format!("cpu{cpu}.online"),
                Cell::file(format!("{CPU}/cpu{cpu}/online")),
                Want::Number(0),
                why,
            );
        }
    }
    steps.add("smt.control", control, want, why);
}
