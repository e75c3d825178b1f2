//! What the agent wants changed about the process before the program starts.
//!
//! It happens with the container's own capabilities and below its seccomp filter, so some of it may
//! be refused; that is reported and no reason not to run.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use gate::page::{OPTION_FIFO, OPTION_NICE, OPTION_NO_ASLR, Orders, Page};
use rustix::io::Result;
use rustix::process::setpriority_process;

use crate::syscall;

type Change = fn(&Orders) -> Result<()>;

const CHANGES: [(u32, Change); 3] = [
    (OPTION_NO_ASLR, |_| syscall::no_aslr()),
    (OPTION_NICE, |orders| {
        setpriority_process(None, orders.nice.load(Relaxed))
    }),
    (OPTION_FIFO, |orders| {
        syscall::fifo(orders.priority.load(Relaxed))
    }),
];

pub(crate) fn apply(page: &Page) {
    let asked = page.orders.options.load(Acquire);
    let mut done = 0;
    let mut errno = 0;
    for (bit, change) in CHANGES {
        if asked & bit == 0 {
            continue;
        }
        match change(&page.orders) {
            Ok(()) => done |= bit,
            Err(error) if errno == 0 => errno = error.raw_os_error(),
            Err(_) => {}
        }
    }
    page.report.done.store(done, Relaxed);
    page.report.errno.store(errno, Relaxed);
}
