//! Hears what the hardware itself says of a run: readings around each window, never within one.
//!
//! Each register that is read interrupts its CPU once, so that the readings are taken before a
//! canary is started and after its last snapshot, before the gate is told to spin (it then waits
//! until nothing has struck its CPU for a while) and after the exit window. Only CPUs of the run or
//! of housekeeping are interrupted: others may be within a window of another run.
//!
//! In a virtual machine no register is read at all: they would say zero whatever happens.

mod edge;

use std::collections::BTreeSet;

use cpulist::CpuSet;
use host::{Msrs, Tree};
use quiet::{Hardware, HardwareSnapshot, HardwareSpan, Processor, WindowName, witnesses};

/// `/proc/cpuinfo` of 1,024 CPUs is about 2 MiB.
const MAX_CPUINFO_BYTES: u64 = 16 << 20;

/// Readings for one run.
pub(crate) struct Witness<'a> {
    tree: &'a dyn Tree,
    msrs: &'a dyn Msrs,
    cpus: &'a CpuSet,
    /// CPUs that may be interrupted besides.
    housekeeping: CpuSet,
    /// `CLOCK_MONOTONIC_RAW`, ns.
    clock: fn() -> u64,
    /// Bare metal, or why nothing here is believed.
    processor: Result<Processor, String>,
    spans: Vec<HardwareSpan>,
    begun: Option<(WindowName, HardwareSnapshot)>,
}

impl<'a> Witness<'a> {
    pub(crate) fn new(
        tree: &'a dyn Tree,
        msrs: &'a dyn Msrs,
        cpus: &'a CpuSet,
        housekeeping: CpuSet,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            tree,
            msrs,
            cpus,
            housekeeping,
            clock,
            processor: bare_metal(tree),
            spans: Vec::new(),
            begun: None,
        }
    }

    /// Before anything of a window has begun.
    pub(crate) fn before(&mut self, window: WindowName) {
        self.begun = self.edge().map(|begin| (window, begin));
    }

    /// After its last snapshot; of a canary, while that still spins: so the temperatures of two
    /// canaries are both those of CPUs under the same load.
    pub(crate) fn after(&mut self, window: WindowName) {
        let Some((began, begin)) = self.begun.take() else {
            return;
        };
        if began == window {
            self.spans
                .extend(self.edge().map(|end| HardwareSpan { window, begin, end }));
        }
    }

    /// What all of it says.
    pub(crate) fn finish(self) -> Hardware {
        match self.processor {
            Ok(_) => witnesses(&self.spans),
            Err(why) => Hardware::unobservable(&why),
        }
    }

    fn edge(&self) -> Option<HardwareSnapshot> {
        let processor = self.processor.as_ref().ok()?;
        Some(self.read(processor))
    }

    /// Whether reading something that the kernel reads on CPU `cpu` leaves other runs in peace.
    fn may_interrupt(&self, cpu: u32) -> bool {
        self.cpus.contains(cpu) || self.housekeeping.contains(cpu)
    }

    /// Numbers of the packages that hold the job's CPUs, with their CPUs that are online.
    fn packages(&self) -> BTreeSet<(u32, Option<CpuSet>)> {
        let topology = |cpu: u32, file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}");
            Some(self.tree.read(&path).ok()?.trim().to_owned())
        };
        let of_cpu = |cpu: u32| {
            let number = topology(cpu, "physical_package_id")?.parse().ok()?;
            let cpus = topology(cpu, "package_cpus_list").and_then(|list| list.parse().ok());
            Some((number, cpus))
        };
        self.cpus.iter().filter_map(of_cpu).collect()
    }
}

fn bare_metal(tree: &dyn Tree) -> Result<Processor, String> {
    let text = tree
        .read_up_to("/proc/cpuinfo", MAX_CPUINFO_BYTES)
        .map_err(|error| format!("/proc/cpuinfo cannot be read: {error}"))?;
    match Processor::parse(&text) {
        Some(processor) if processor.is_virtual() => {
            Err("a virtual machine: its registers say zero whatever happens".to_owned())
        }
        Some(processor) => Ok(processor),
        None => Err("/proc/cpuinfo does not say whether this is a virtual machine".to_owned()),
    }
}

#[cfg(test)]
mod tests;
