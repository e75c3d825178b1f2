//! Registers in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::Msrs;

#[derive(Debug, Default)]
struct Cpu {
    registers: BTreeMap<u32, Result<u64, Errno>>,
    reads: u64,
}

/// CPUs with the registers that were set, and nothing else. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct FakeMsrs {
    cpus: Arc<Mutex<BTreeMap<u32, Cpu>>>,
}

impl FakeMsrs {
    /// Without any CPU: the msr device is not there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(&self, cpu: u32, register: u32, value: u64) {
        let mut cpus = self.lock();
        let cpu = cpus.entry(cpu).or_default();
        cpu.registers.insert(register, Ok(value));
    }

    /// As the register counts on; one that was not set begins at zero.
    pub fn add(&self, cpu: u32, register: u32, events: u64) {
        let mut cpus = self.lock();
        let cpu = cpus.entry(cpu).or_default();
        let value = cpu.registers.entry(register).or_insert(Ok(0));
        *value = value.map(|count| count.wrapping_add(events));
    }

    /// Makes reading it fail.
    pub fn fail(&self, cpu: u32, register: u32, errno: Errno) {
        let mut cpus = self.lock();
        let cpu = cpus.entry(cpu).or_default();
        cpu.registers.insert(register, Err(errno));
    }

    /// Takes the CPU's device away.
    pub fn remove(&self, cpu: u32) {
        self.lock().remove(&cpu);
    }

    /// How often the CPU was interrupted by a read.
    #[must_use]
    pub fn reads(&self, cpu: u32) -> u64 {
        self.lock().get(&cpu).map_or(0, |cpu| cpu.reads)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Cpu>> {
        // each change is one call: a panic leaves nothing half done
        self.cpus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Msrs for FakeMsrs {
    fn read(&self, cpu: u32, register: u32) -> io::Result<u64> {
        let mut cpus = self.lock();
        let cpu = cpus.get_mut(&cpu).ok_or(Errno::ENOENT)?;
        cpu.reads += 1;
        let value = cpu.registers.get(&register);
        Ok(value.copied().unwrap_or(Err(Errno::EIO))?)
    }
}
