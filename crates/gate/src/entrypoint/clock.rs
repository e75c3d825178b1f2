//! `CLOCK_MONOTONIC_RAW`: the clock of the page. Read in the vDSO, without a system call.

use rustix::time::{ClockId, Timespec, clock_gettime};

const SECOND: u64 = 1_000_000_000;

pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicRaw);
    now.tv_sec.cast_unsigned() * SECOND + now.tv_nsec.cast_unsigned()
}

pub(crate) fn seconds(ns: u64) -> u64 {
    ns / SECOND
}

pub(crate) fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: (ns / SECOND).cast_signed(),
        tv_nsec: (ns % SECOND).cast_signed(),
    }
}
