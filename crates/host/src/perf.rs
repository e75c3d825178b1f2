//! Events of programs, counted by the kernel and the CPU: perf_event_open(2).
//!
//! Only counting, never sampling: no event here ever interrupts the CPU that it happens on, and none is
//! multiplexed, since that takes a timer on that CPU. An event for which no counter is free is not
//! counted at all, and says so. But making the *first* event and closing the *last* one rewrites code of
//! the kernel, which interrupts every CPU: see [`Subject::Nobody`].
//!
//! `unsafe` is for the system call, which no crate of ours has.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// An event as the kernel numbers it (`linux/perf_event.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventCode {
    /// `perf_event_attr.type`.
    pub kind: u32,
    /// `perf_event_attr.config`.
    pub config: u64,
}

/// Which part of what happens counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The program's own and what the kernel does for it.
    All,
    /// The program's own: all that an agent without privileges may see.
    User,
}

/// Whose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Nobody's: nothing is counted. It shows that the event can be, and as long as it is open, opening
    /// and closing others of its kind interrupts nobody.
    Nobody,
    /// Of a process that will become its program: from its next execve(2) on, with all that it makes.
    Program(u32),
    /// Of whatever runs in the cgroup of this absolute path, on one CPU, from now on.
    Cgroup { path: &'a str, cpu: u32 },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub value: u64,
    /// How long it was to be counted, ns of the program's time on CPUs.
    pub enabled_ns: u64,
    /// How long it was; less than that: a counter was taken away meanwhile.
    pub running_ns: u64,
}

/// Makes counters.
pub trait Perf: Send + Sync {
    /// # Errors
    /// The kernel's: `EACCES` and `EPERM` (`/proc/sys/kernel/perf_event_paranoid`), `ENOENT`,
    /// `EOPNOTSUPP` (this CPU does not count it), `ESRCH`, `ENOSYS`.
    fn open(
        &self,
        event: EventCode,
        scope: Scope,
        subject: Subject<'_>,
    ) -> io::Result<Box<dyn Counter>>;
}

/// One event of one subject, until it is dropped.
pub trait Counter: Send + Sync {
    /// What it came to so far. Of programs that run, reading it interrupts their CPUs; when they have
    /// ended, nobody's.
    ///
    /// # Errors
    /// The kernel's; `ResourceBusy` when the CPU had no counter free for it.
    fn read(&self) -> io::Result<Count>;
}

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelPerf;

/// The first version of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`, 64 bytes), which every kernel
/// takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

const DISABLED: u64 = 1;
const INHERIT: u64 = 1 << 1;
/// It is counted all the time or never.
const PINNED: u64 = 1 << 2;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const ENABLE_ON_EXEC: u64 = 1 << 12;
/// `PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING`
const FORMAT_TIMES: u64 = 1 | 2;
const PERF_FLAG_PID_CGROUP: libc::c_ulong = 1 << 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// Of what is read: the count and two times.
const COUNT_BYTES: usize = 24;

impl Perf for KernelPerf {
    fn open(
        &self,
        event: EventCode,
        scope: Scope,
        subject: Subject<'_>,
    ) -> io::Result<Box<dyn Counter>> {
        let scope = match scope {
            Scope::All => 0,
            Scope::User => EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR,
        };
        // kept open until the call is over: the number of it is handed to the kernel
        let mut cgroup = None;
        let (own, pid, cpu, flags) = match subject {
            Subject::Nobody => (DISABLED, 0, -1, 0),
            Subject::Program(pid) => {
                let pid = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
                (DISABLED | INHERIT | PINNED | ENABLE_ON_EXEC, pid, -1, 0)
            }
            Subject::Cgroup { path, cpu } => {
                let folder = cgroup.insert(File::open(path)?);
                let cpu = i32::try_from(cpu).map_err(|_| Errno::ENODEV)?;
                (PINNED, folder.as_raw_fd(), cpu, PERF_FLAG_PID_CGROUP)
            }
        };
        let attributes = Attributes {
            kind: event.kind,
            size: u32::try_from(size_of::<Attributes>()).map_err(io::Error::other)?,
            config: event.config,
            read_format: FORMAT_TIMES,
            flags: own | scope,
            ..Attributes::default()
        };
        let no_group: libc::c_int = -1;
        // SAFETY: the attributes are a `perf_event_attr` of the size that they say, and live until the
        // call is over; the kernel only reads them. The other arguments are numbers, each as wide as
        // the kernel's.
        let number = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                pid,
                cpu,
                no_group,
                flags | PERF_FLAG_FD_CLOEXEC,
            )
        };
        let number = match i32::try_from(number) {
            Ok(number) if number >= 0 => number,
            _ => return Err(io::Error::last_os_error()),
        };
        drop(cgroup);
        // SAFETY: the kernel has just given this descriptor to us, and nobody else knows of it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Box::new(Open(File::from(descriptor))))
    }
}

struct Open(File);

impl Counter for Open {
    fn read(&self) -> io::Result<Count> {
        let mut bytes = [0; COUNT_BYTES];
        let read = (&self.0).read(&mut bytes)?;
        if read == 0 {
            // a pinned event that found no counter: perf_event_open(2), "pinned"
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let number = |index: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            u64::from_ne_bytes(eight)
        };
        match read {
            COUNT_BYTES => Ok(Count {
                value: number(0),
                enabled_ns: number(1),
                running_ns: number(2),
            }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
