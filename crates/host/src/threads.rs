//! Kernel threads: which there are, where they may run, and whether they may be moved.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use cpulist::CpuSet;
use nix::time::{ClockId, clock_gettime};

use crate::tree::Tree;

/// `PF_KTHREAD` and `PF_NO_SETAFFINITY` of the kernel's `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;
const PF_NO_SETAFFINITY: u64 = 0x0400_0000;

/// May `sched_setaffinity` change it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    Movable,
    /// The kernel answers `EINVAL`.
    Fixed,
}

/// A thread of the kernel's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelThread {
    pub tid: u32,
    pub name: String,
    pub allowed: CpuSet,
    pub binding: Binding,
}

/// All kernel threads, by tid. Threads that end while we look are left out.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn kernel_threads(tree: &dyn Tree) -> io::Result<Vec<KernelThread>> {
    let mut tids: Vec<u32> = tree
        .list("/proc")?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    tids.sort_unstable();
    Ok(tids
        .into_iter()
        .filter_map(|tid| kernel_thread(tree, tid))
        .collect())
}

/// One kernel thread; `None` when it is gone or is no kernel thread.
#[must_use]
pub fn kernel_thread(tree: &dyn Tree, tid: u32) -> Option<KernelThread> {
    let (name, flags) = parse_stat(&tree.read(&format!("/proc/{tid}/stat")).ok()?)?;
    if flags & PF_KTHREAD == 0 {
        return None;
    }
    Some(KernelThread {
        tid,
        name,
        allowed: allowed_cpus(tree, tid)?,
        binding: if flags & PF_NO_SETAFFINITY == 0 {
            Binding::Movable
        } else {
            Binding::Fixed
        },
    })
}

/// `Cpus_allowed_list` of a thread.
#[must_use]
pub fn allowed_cpus(tree: &dyn Tree, tid: u32) -> Option<CpuSet> {
    let status = tree.read(&format!("/proc/{tid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?
        .parse()
        .ok()
}

/// Whether a thread is there and has not ended: a zombie only waits for somebody to ask how it did.
#[must_use]
pub fn runs(tree: &dyn Tree, tid: u32) -> bool {
    let stat = tree.read(&format!("/proc/{tid}/stat")).ok();
    let state: Option<char> = stat.and_then(|stat| stat_field(&stat, 3));
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A field of a `/proc/PID/stat` by its number in proc_pid_stat(5), from 3 on: the name before it
/// stands in parentheses and may itself hold some, and blanks.
#[must_use]
pub fn stat_field<T: FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_ascii_whitespace();
    fields.nth(number.checked_sub(3)?)?.parse().ok()
}

/// CPU time of the calling thread.
#[must_use]
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .expect("CLOCK_THREAD_CPUTIME_ID exists since Linux 2.6.12")
}

/// The name in a `/proc/PID/stat`.
#[must_use]
pub fn stat_name(stat: &str) -> Option<&str> {
    let (head, _) = stat.rsplit_once(')')?;
    Some(head.split_once('(')?.1)
}

/// Name and flags.
fn parse_stat(stat: &str) -> Option<(String, u64)> {
    Some((stat_name(stat)?.to_owned(), stat_field(stat, 9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_flags_behind_an_awkward_name() {
        let stat = "77 (kworker/R-a) b) I 2 0 0 0 -1 69238880 0 0";
        assert_eq!(
            parse_stat(stat),
            Some(("kworker/R-a) b".into(), 69_238_880))
        );
        assert_eq!(
            69_238_880 & (PF_KTHREAD | PF_NO_SETAFFINITY),
            PF_KTHREAD | PF_NO_SETAFFINITY
        );
        assert_eq!(parse_stat("nonsense"), None);
    }
}
