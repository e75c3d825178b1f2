//! Learns when and how a job's first process ended.
//!
//! Its parent, the engine's shim, reaps it, and what the engine then tells does not separate a
//! program that exits with 137 from one that SIGKILL ended. The kernel shows the wait status of a
//! zombie in field 52 of its `stat` (proc_pid_stat(5)): it is read in the moment between the end
//! and the reaping, by a thread that is told of the end before the parent is (`exit_notify` in the
//! kernel) and that runs before everything else on a housekeeping CPU. Should the shim be faster all
//! the same, the status is not known, and nobody guesses.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{raw_ns, settings};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Signalled(i32),
}

/// The end of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// CLOCK_MONOTONIC_RAW.
    pub(crate) at_ns: u64,
    pub(crate) status: Option<Status>,
}

/// Watches one process from a thread of its own, which ends with it.
pub(crate) struct ExitWatch(Receiver<End>);

impl ExitWatch {
    /// # Errors
    /// The kernel's, when there is no such process.
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let stat = File::open(format!("/proc/{pid}/stat"))?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("exit".into())
            .spawn(move || {
                settings::go_first();
                let mut ends = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
                while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
                let at_ns = raw_ns();
                let mut text = [0; 1024];
                let length = stat.read_at(&mut text, 0).unwrap_or(0);
                let status = std::str::from_utf8(&text[..length]).ok().and_then(status);
                // nobody waits any more: the run was given up
                sender.send(End { at_ns, status }).ok();
            })?;
        Ok(Self(receiver))
    }

    /// `None`: it has not ended within `patience`.
    pub(crate) fn within(&self, patience: Duration) -> Option<End> {
        self.0.recv_timeout(patience).ok()
    }
}

/// The wait status in a zombie's `stat`; `None`: it is none.
fn status(stat: &str) -> Option<Status> {
    let state: char = host::threads::stat_field(stat, 3)?;
    if !matches!(state, 'Z' | 'X') {
        return None;
    }
    let word: i32 = host::threads::stat_field(stat, 52)?;
    // bits/waitstatus.h: the low seven bits are the signal, the next byte the exit code
    Some(match word & 0x7f {
        0 => Status::Exited((word >> 8) & 0xff),
        signal => Status::Signalled(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn stat(state: char, word: i32) -> String {
        let between = vec!["0"; 48].join(" ");
        format!("77 (a) b) {state} {between} {word}\n")
    }

    #[test]
    fn exits_and_signals_are_told_apart() {
        assert_eq!(status(&stat('Z', 137 << 8)), Some(Status::Exited(137)));
        assert_eq!(status(&stat('Z', 9)), Some(Status::Signalled(9)));
        // 0x80: with a core dump
        assert_eq!(status(&stat('X', 0x80 | 11)), Some(Status::Signalled(11)));
        assert_eq!(status(&stat('R', 0)), None);
        assert_eq!(status(""), None);
    }

    #[test]
    fn the_end_of_a_real_process_is_seen() {
        for (script, wanted) in [
            ("read line; exit 137", Status::Exited(137)),
            ("read line; kill -9 $$", Status::Signalled(9)),
        ] {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let watch = ExitWatch::start(child.id()).unwrap();
            let before = raw_ns();
            drop(child.stdin.take());
            let end = watch.within(Duration::from_secs(60)).unwrap();
            assert!(end.at_ns >= before);
            // not reaped yet, so it cannot have been missed
            assert_eq!(end.status, Some(wanted), "{script}");
            child.wait().unwrap();
        }
        assert!(ExitWatch::start(u32::MAX).is_err());
    }
}
