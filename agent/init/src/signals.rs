//! Signals as events, and the one place that waits for children.
//!
//! The signals are blocked, which for PID 1 also means that the kernel no longer throws them away, and read from a
//! signalfd or taken one at a time.

use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

pub(crate) fn handled() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGPWR,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}

/// Blocks what [`open`] reads, from the start of the boot, so that a request for power that comes early is kept.
pub(crate) fn block_all_handled() {
    // The only documented failure is an invalid `how`, which is not ours to pass.
    let _cannot_fail = handled().thread_block();
}

pub(crate) fn open() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&handled(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Every signal that is waiting.
pub(crate) fn drain(fd: &SignalFd) -> Vec<Signal> {
    let mut signals = Vec::new();
    while let Ok(Some(info)) = fd.read_signal() {
        if let Some(signal) = i32::try_from(info.ssi_signo)
            .ok()
            .and_then(|n| Signal::try_from(n).ok())
        {
            signals.push(signal);
        }
    }
    signals
}

/// Waits for handled signals, at most `timeout`.
pub(crate) fn wait(timeout: Duration) -> Vec<Signal> {
    let Ok(fd) = open() else {
        // Out of file descriptors: without this the caller would spin.
        std::thread::sleep(timeout.min(Duration::from_secs(1)));
        return Vec::new();
    };
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => drain(&fd),
        Err(_) => Vec::new(),
    }
}

/// Collects every child that has ended. SIGCHLD is one signal however many children it stands for.
pub(crate) fn reap_all(mut ended: impl FnMut(Pid, WaitStatus)) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(status) => {
                if let Some(pid) = status.pid() {
                    ended(pid, status);
                }
            }
            Err(Errno::EINTR) => {}
            // Nothing else is documented; another round comes with the next SIGCHLD.
            Err(_) => return,
        }
    }
}

/// Whether this process has children, ended or not.
pub(crate) fn has_children() -> bool {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
    !matches!(
        nix::sys::wait::waitid(nix::sys::wait::Id::All, flags),
        Err(Errno::ECHILD)
    )
}

/// How a child ended, in words.
pub(crate) fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        other => format!("{other:?}"),
    }
}
