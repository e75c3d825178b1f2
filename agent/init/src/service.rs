//! The processes that init keeps running, and how long it waits before it starts one again.
//!
//! `unsafe` is for `pre_exec` only: what a child does between fork and exec.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Pid, chdir, chroot, setsid};

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: &'static str,
    /// An absolute path, inside `root` if there is one.
    pub program: &'static str,
    pub args: &'static [&'static str],
    /// The directory that the service sees as `/`.
    pub root: Option<PathBuf>,
    /// The lower, the later the kernel kills it when memory ends.
    pub oom_score_adj: i16,
}

impl Spec {
    /// The agent: the last to go when memory ends, because it is what can say so.
    #[must_use]
    pub fn agent() -> Self {
        Self {
            name: "agent",
            program: "/sbin/stillmetal-agent",
            args: &["stillmetal-agent", "serve"],
            root: None,
            oom_score_adj: -900,
        }
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Whoever ran this long was healthy: the next failure is a new one.
const HEALTHY: Duration = Duration::from_secs(60);

/// How long to wait before the next start: 0.2 s doubling to 10 s, and it never gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_DELAY }
    }
}

impl Backoff {
    /// The delay after a run that lasted `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            *self = Self::default();
        }
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST_DELAY);
        delay
    }
}

/// A service and what is known about it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: Spec,
    pub(crate) state: State,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
}

impl Service {
    /// Due at once.
    pub(crate) fn new(spec: Spec, now: Instant) -> Self {
        Self {
            spec,
            state: State::Waiting { until: now },
            backoff: Backoff::default(),
        }
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } => None,
        }
    }

    pub(crate) fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => None,
            State::Waiting { until } => Some(until),
        }
    }

    /// Starts it, or schedules the next try.
    pub(crate) fn start(&mut self, now: Instant) -> io::Result<Pid> {
        match spawn(&self.spec) {
            Ok(pid) => {
                self.state = State::Running { pid, since: now };
                Ok(pid)
            }
            Err(error) => {
                self.state = State::Waiting {
                    until: now + self.backoff.after(Duration::ZERO),
                };
                Err(error)
            }
        }
    }

    /// Schedules the next start after the process ended, and says in how long.
    pub(crate) fn ended(&mut self, now: Instant) -> Duration {
        let ran = match self.state {
            State::Running { since, .. } => now.saturating_duration_since(since),
            State::Waiting { .. } => Duration::ZERO,
        };
        let delay = self.backoff.after(ran);
        self.state = State::Waiting { until: now + delay };
        delay
    }
}

/// Runs a program to its end, before the supervisor's loop begins to wait for everybody.
pub(crate) fn run_once(spec: &Spec, patience: Duration) -> io::Result<()> {
    let mut child = command(spec)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// Starts a service.
fn spawn(spec: &Spec) -> io::Result<Pid> {
    let child = command(spec).spawn()?;
    // Dropping the handle neither kills nor waits: whoever ends is found by the one `waitpid` of init.
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Pid::from_raw(pid))
}

/// A session of its own, on the console, in init's cgroup, with nothing of init's signal set-up.
fn command(spec: &Spec) -> Command {
    let mut command = Command::new(spec.program);
    if let Some((name, rest)) = spec.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(console())
        .stderr(console());
    let root = spec.root.clone();
    let oom_score_adj = spec.oom_score_adj;
    // SAFETY: the closure runs in the forked child. Init is single-threaded, so no lock can be held by a thread that
    // the child lacks, and everything that it calls, allocation included, works there.
    unsafe {
        command.pre_exec(move || prepare_child(root.as_deref(), oom_score_adj));
    }
    command
}

fn prepare_child(root: Option<&std::path::Path>, oom_score_adj: i16) -> io::Result<()> {
    setsid()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: the default action is no handler of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    // Before the chroot: there may be no /proc in it. Not being allowed to is no reason not to run.
    let _unprivileged = std::fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string());
    if let Some(root) = root {
        chroot(root)?;
        chdir("/")?;
    }
    Ok(())
}

/// Without a console (a test, a kernel without one) the service still runs.
fn console() -> Stdio {
    OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NOCTTY)
        .open("/dev/console")
        .map_or_else(|_| Stdio::null(), Stdio::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_ten_seconds_and_start_again_after_a_healthy_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u128> = (0..8).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(HEALTHY), FIRST_DELAY);
        assert_eq!(backoff.after(short), FIRST_DELAY * 2);
    }

    #[test]
    fn a_program_that_is_not_there_is_tried_again() {
        let spec = Spec {
            program: "/nonexistent/agent",
            ..Spec::agent()
        };
        let now = Instant::now();
        let mut service = Service::new(spec, now);
        assert!(service.start(now).is_err());
        assert_eq!(service.due_at(), Some(now + FIRST_DELAY));
        assert!(service.start(now).is_err());
        assert_eq!(service.due_at(), Some(now + FIRST_DELAY * 2));
    }
}
