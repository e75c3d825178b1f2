//! Canary mode: occupies one CPU without a system call and counts how often it was interrupted.
//!
//! Time is the time stamp counter, calibrated once; an iteration that took too long is a gap.

use core::arch::x86_64::_rdtsc;
use core::ffi::CStr;
use core::hint::spin_loop;
use core::sync::atomic::Ordering::Relaxed;

use gate::page::{Command, State};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::message::{self, Reason};
use crate::{Vectors, clock, control, syscall};

/// Long against the time of reading both clocks (parts per million), short for the one who waits.
const CALIBRATION_NS: u64 = 20_000_000;

pub(crate) fn run(vectors: &Vectors) -> ! {
    let (Some(control), Some(cpu)) = (vectors.argument(1), vectors.argument(2).and_then(cpu))
    else {
        message::fail(2, &[b"usage: stillmetal-canary CONTROL CPU"]);
    };
    let page = control::open_or_exit(control);
    let mut affinity = CpuSet::new();
    affinity.set(cpu);
    settle(sched_setaffinity(None, &affinity), b"stay on one CPU: ");
    let everything = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE;
    settle(mlockall(everything), b"lock memory: ");

    let rate = Rate::measure();
    let threshold = rate.ticks(page.orders.gap_threshold_ns.load(Relaxed));
    control::tell(page, State::Spinning);
    let now = clock::now();
    let mut last = ticks();
    let left = page.orders.deadline_ns.load(Relaxed).saturating_sub(now);
    let end = last.saturating_add(rate.ticks(left));
    let (mut loops, mut gaps, mut longest, mut sum) = (0, 0, 0, 0);
    while last < end && page.orders.command.load(Relaxed) != Command::GiveUp as u32 {
        let now = ticks();
        let gap = now.saturating_sub(last);
        last = now;
        if gap > threshold {
            gaps += 1;
            longest = gap.max(longest);
            sum += gap;
            page.report.gaps.store(gaps, Relaxed);
            page.report.gap_max_ns.store(rate.ns(longest), Relaxed);
            page.report.gap_sum_ns.store(rate.ns(sum), Relaxed);
        }
        loops += 1;
        page.report.loops.store(loops, Relaxed);
    }
    syscall::exit(0)
}

/// A CPU number that a `CpuSet` has room for.
fn cpu(argument: &CStr) -> Option<usize> {
    let number: usize = argument.to_str().ok()?.parse().ok()?;
    (number < CpuSet::MAX_CPU).then_some(number)
}

/// A canary that may move or fault is no witness.
fn settle(result: rustix::io::Result<()>, action: &[u8]) {
    if let Err(errno) = result {
        let reason = Reason::of(errno);
        let [words, number] = reason.text();
        message::fail(gate::exit::NOT_RUN, &[action, words, number]);
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 has the instruction, and Linux lets user space have it.
    unsafe { _rdtsc() }
}

/// How many ticks went by in how many nanoseconds.
struct Rate {
    ticks: u64,
    ns: u64,
}

impl Rate {
    fn measure() -> Self {
        let (from, from_ticks) = (clock::now(), ticks());
        while clock::now() < from + CALIBRATION_NS {
            spin_loop();
        }
        let (to, to_ticks) = (clock::now(), ticks());
        Self {
            // a counter that stands still must not divide by zero
            ticks: (to_ticks - from_ticks).max(1),
            ns: to - from,
        }
    }

    fn ticks(&self, ns: u64) -> u64 {
        scale(ns, self.ticks, self.ns)
    }

    fn ns(&self, ticks: u64) -> u64 {
        scale(ticks, self.ns, self.ticks)
    }
}

fn scale(value: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
