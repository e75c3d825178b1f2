//! Which process was meant: its number alone may be somebody else's by now.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process, told apart from any other of this machine, at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessIdentity {
    pub(super) pid: i32,
    /// When it was started, in the kernel's ticks since boot.
    started: u64,
    /// Of which boot.
    boot: String,
}

impl ProcessIdentity {
    /// Of a process that lives; `None`: there is none of that number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self {
            pid,
            started: started(pid)?,
            boot: boot()?,
        })
    }

    /// Of this process.
    pub(super) fn own() -> io::Result<Self> {
        Self::of(std::process::id()).ok_or_else(|| io::Error::other("cannot read /proc/self/stat"))
    }

    /// Whether it still lives. One that has ended and was not waited for does not.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid.unsigned_abs()).as_ref() == Some(self)
    }

    /// Sends it a signal, if it is still that process.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

fn started(pid: i32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start of a process from its `stat` (proc_pid_stat(5), field 22), unless it is a zombie.
fn parse(stat: &str) -> Option<u64> {
    // the name stands in parentheses and may hold anything, parentheses too
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn stat_is_read_past_any_name() {
        let line = |name: &str, state: &str| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1")
        };
        assert_eq!(parse(&line("sh", "S")), Some(12_345));
        assert_eq!(parse(&line("a) R (b", "R")), Some(12_345));
        assert_eq!(parse(&line("sh", "Z")), None);
        assert_eq!(parse("7 (sh"), None);
    }

    #[test]
    fn a_process_is_itself_until_it_ends() {
        let own = ProcessIdentity::own().unwrap();
        assert!(own.is_alive());
        let other_start = ProcessIdentity {
            started: own.started + 1,
            ..own.clone()
        };
        assert!(!other_start.is_alive());
        other_start.signal(Signal::SIGKILL).unwrap();

        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert!(identity.is_alive());
        identity.signal(Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!identity.is_alive());
        identity.signal(Signal::SIGKILL).unwrap();
    }
}
