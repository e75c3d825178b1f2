//! Gate mode: wait for the agent's word asleep, for the instant awake, then run the program.

use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use gate::page::{Command, Page, State};
use gate::search::PATH_MAX;
use rustix::thread::futex;

use crate::message::Decimal;
use crate::{Vectors, clock, control, message, program};

/// Why the program will not run.
enum Refusal {
    /// The agent said so.
    Withdrawn,
    /// The agent said nothing; perhaps it was restarted and knows us no more.
    Forgotten,
}

pub(crate) fn run(vectors: &Vectors) -> ! {
    let started = clock::now();
    let page = control::open_or_exit(gate::CONTROL_FILE);
    let mut buffer = [0; PATH_MAX];
    let file = program::find_or_exit(vectors, page, &mut buffer);

    control::tell(page, State::Waiting);
    let released = sleep(page).and_then(|()| {
        // the last wake of the agent: behind the instant of release there is nothing but execve
        control::tell(page, State::Spinning);
        spin(page)
    });
    match released {
        Ok(instant) => {
            page.report.exec_ns.store(instant, Relaxed);
            page.report.state.store(State::Executing as u32, Release);
            // the page is not unmapped: execve drops all mappings, and a failure is still told in it
            program::execute(vectors, page, file)
        }
        Err(refusal) => refuse(page, &refusal, clock::now() - started),
    }
}

/// Until the command is to spin.
fn sleep(page: &Page) -> Result<(), Refusal> {
    let command = &page.orders.command;
    loop {
        match command.load(Acquire) {
            word if word == Command::Spin as u32 => return Ok(()),
            word if word == Command::GiveUp as u32 => return Err(Refusal::Withdrawn),
            word => {
                let deadline = page.orders.deadline_ns.load(Relaxed);
                let left = deadline.saturating_sub(clock::now());
                if left == 0 {
                    return Err(Refusal::Forgotten);
                }
                // a wake, a signal, a timeout: the loop judges what it was
                let timeout = clock::timespec(left);
                futex::wait(command, futex::Flags::empty(), word, Some(&timeout)).ok();
            }
        }
    }
}

/// Until the instant of release, which is returned as it was met.
fn spin(page: &Page) -> Result<u64, Refusal> {
    let orders = &page.orders;
    loop {
        let release = orders.release_ns.load(Acquire);
        let now = clock::now();
        if release != 0 && now >= release {
            return Ok(now);
        }
        if orders.command.load(Relaxed) == Command::GiveUp as u32 {
            return Err(Refusal::Withdrawn);
        }
        if now >= orders.deadline_ns.load(Relaxed) {
            return Err(Refusal::Forgotten);
        }
        spin_loop();
    }
}

fn refuse(page: &Page, refusal: &Refusal, waited_ns: u64) -> ! {
    control::tell(page, State::Failed);
    let waited = Decimal::new(clock::seconds(waited_ns));
    let (before, after): (&[u8], &[u8]) = match refusal {
        Refusal::Withdrawn => (b"the node withdrew this benchmark after ", b" s: not run"),
        Refusal::Forgotten => (
            b"the node did not release this benchmark within ",
            b" s (its agent may have been restarted): not run",
        ),
    };
    message::fail(gate::exit::NOT_RUN, &[before, waited.text(), after])
}
