//! The agent's end of a control page (layout: crate `gate`).
//!
//! The container's program can write, truncate or fill that file. So it is read and written as a
//! file, nothing read from it is believed further than it is needed, and the mapping is only an
//! address for waking the gate.
#![expect(
    unsafe_code,
    reason = "futex(2) wants an address, and no crate here has it for a shared mapping"
)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use gate::page::{
    COMMAND_OFFSET, Command, ORDERS_OFFSET, Orders, RELEASE_OFFSET, REPORT_OFFSET, REPORT_SIZE,
    Report, SIZE, State,
};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::raw_ns;

/// One control page.
pub(crate) struct Page {
    file: File,
    mapping: NonNull<c_void>,
}

// SAFETY: the mapping is never read or written through; it is an address for the kernel, valid as
// long as the value lives, on whatever thread.
unsafe impl Send for Page {}

impl Page {
    /// # Errors
    /// The file system's, or the kernel's for the mapping.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = NonZeroUsize::new(SIZE).expect("a page is not empty");
        // SAFETY: a new mapping at an address of the kernel's choice replaces no other; nothing
        // is read or written through it.
        let mapping = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }?;
        Ok(Self { file, mapping })
    }

    /// Orders to hold, for a gate or canary that ends by itself after `life`.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn prepare(&self, life: Duration) -> io::Result<()> {
        let life_ns = u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        let mut orders = Orders::new(raw_ns().saturating_add(life_ns));
        *orders.gap_threshold_ns.get_mut() = 1_000;
        write_at(&self.file, ORDERS_OFFSET, &orders.to_bytes())
    }

    /// Tells the gate what to do, and wakes it.
    pub(crate) fn command(&self, command: Command) {
        if let Err(error) = write_at(&self.file, COMMAND_OFFSET, &(command as u32).to_le_bytes()) {
            // the gate ends at its deadline
            tracing::warn!(%error, "a gate could not be commanded");
        }
        // SAFETY: the address lies within the mapping, which lives as long as `self`, and is a
        // multiple of four; FUTEX_WAKE (value 1) reads no memory of ours but that word, and
        // answers EFAULT if it is not there any more.
        let woken = unsafe {
            let word = self.mapping.as_ptr().cast::<u8>().add(COMMAND_OFFSET);
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX)
        };
        if woken < 0 {
            tracing::warn!(error = %io::Error::last_os_error(), "a gate could not be woken");
        }
    }

    /// Lets the program start at this instant of CLOCK_MONOTONIC_RAW.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn release_at(&self, instant_ns: u64) -> io::Result<()> {
        write_at(&self.file, RELEASE_OFFSET, &instant_ns.to_le_bytes())
    }

    /// `None`: somebody else wrote there.
    pub(crate) fn state(&self) -> Option<State> {
        State::try_from(self.report()?.state.into_inner()).ok()
    }

    pub(crate) fn report(&self) -> Option<Report> {
        let mut bytes = [0; REPORT_SIZE];
        let offset = u64::try_from(REPORT_OFFSET).ok()?;
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        Some(Report::from_bytes(&bytes))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this length, unmapped nowhere else, and nothing points
        // into it.
        let unmapped = unsafe { munmap(self.mapping, SIZE) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "a control page stays mapped");
        }
    }
}

fn write_at(file: &File, offset: usize, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, u64::try_from(offset).map_err(io::Error::other)?)
}
