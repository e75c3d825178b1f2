//! Model-specific registers, one CPU's at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Reads registers of CPUs. Each read interrupts its CPU (one function call interrupt, *measured*,
/// quiet.md §4), so never while that is being measured.
pub trait Msrs: Send + Sync {
    /// Register `register` of CPU `cpu`. That it can be read does not mean that it is there: some
    /// hypervisors answer zero for all that they do not know.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` or `ENXIO` (no such CPU, or no msr device), `EIO` (the CPU has no such
    /// register), `EPERM` (locked down).
    fn read(&self, cpu: u32, register: u32) -> io::Result<u64>;
}

/// `/dev/cpu/N/msr` (msr(4)) under a root: `/` on a live system.
#[derive(Clone, Debug)]
pub struct DevCpu {
    root: PathBuf,
}

impl DevCpu {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The running system.
    #[must_use]
    pub fn live() -> Self {
        Self::new("/")
    }
}

impl Msrs for DevCpu {
    fn read(&self, cpu: u32, register: u32) -> io::Result<u64> {
        let file = File::open(self.root.join(format!("dev/cpu/{cpu}/msr")))?;
        let mut bytes = [0; 8];
        // the offset is the register's number, and a read gives its eight bytes
        file.read_exact_at(&mut bytes, register.into())?;
        Ok(u64::from_le_bytes(bytes))
    }
}
