//! A process of this program that disturbs a CPU when it is told to (`stillmetal-agent disturb`).
//!
//! It lives on the CPU in a cgroup beside the canary's, so that the sampler takes it for a
//! stranger. It says `ready`, runs each time that a byte comes, says `done`, and ends when its
//! standard input does: with this process, whatever ends that. It is woken from here, from another
//! CPU, because its own timer would wake it without an interrupt from elsewhere (*measured*: 20
//! sleeps, no `RES`).

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// It enters its cgroup and is executed twice, in an emulator beside a spinning canary.
const START_DEADLINE: Duration = Duration::from_secs(20);
const END_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// `ready` and `done` are shorter.
const MAX_WORD: usize = 64;

pub(super) struct Intruder {
    child: Child,
    /// `None` once it is to end.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
    word: Vec<u8>,
}

impl Intruder {
    /// Starts it in `cgroup` (absolute name) and waits until it is there. It runs for `run` each
    /// time.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub(super) fn start(agent: &Path, cgroup: &str, run: Duration) -> Result<Self, String> {
        let mut command = Command::new(agent);
        command
            .args(["enter", "--cgroup", cgroup, "--oom-score-adj=0", "--"])
            .arg(agent)
            .args(["disturb", "--run-us", &run.as_micros().to_string()])
            .env_clear();
        Self::ready(&mut command)
    }

    fn ready(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("start the intruder: {error}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or("the intruder has no pipes")?;
        let mut intruder = Self {
            child,
            orders: Some(orders),
            answers,
            word: Vec::new(),
        };
        if intruder.said("ready", START_DEADLINE)? {
            Ok(intruder)
        } else {
            Err(format!(
                "the intruder was not ready within {START_DEADLINE:?}"
            ))
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it has ended.
    pub(super) fn go(&mut self) -> Result<(), String> {
        let orders = self.orders.as_mut().ok_or("the intruder was sent away")?;
        orders
            .write_all(b"\n")
            .map_err(|error| format!("the intruder cannot be told: {error}"))
    }

    /// Whether it has run, once for each time that it was told.
    ///
    /// # Errors
    /// When it has ended, or says something else.
    pub(super) fn is_done(&mut self) -> Result<bool, String> {
        self.said("done", Duration::ZERO)
    }

    fn said(&mut self, word: &str, patience: Duration) -> Result<bool, String> {
        let deadline = Instant::now() + patience;
        while !self.word.ends_with(b"\n") {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(format!("listen to the intruder: {error}")),
            }
            let mut byte = [0];
            let read = self.answers.read(&mut byte);
            if !matches!(read, Ok(1)) || self.word.len() >= MAX_WORD {
                return Err(format!("the intruder ended before it said `{word}`"));
            }
            self.word.extend(byte);
        }
        let found = std::mem::take(&mut self.word);
        if found.trim_ascii() == word.as_bytes() {
            Ok(true)
        } else {
            let found = String::from_utf8_lossy(&found);
            Err(format!(
                "the intruder said `{}`, not `{word}`",
                found.trim()
            ))
        }
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.orders = None;
        let deadline = Instant::now() + END_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                tracing::warn!("the self-test's intruder did not end by itself: killed");
                drop(self.child.kill());
                drop(self.child.wait());
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in the agent's place.
    fn start(script: &str) -> Result<Intruder, String> {
        Intruder::ready(Command::new("/bin/sh").args(["-c", script]))
    }

    fn done(intruder: &mut Intruder) -> Result<bool, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match intruder.is_done() {
                Ok(false) if Instant::now() < deadline => std::thread::sleep(POLL),
                end => return end,
            }
        }
    }

    #[test]
    fn it_acts_when_told_and_goes_when_let_go() {
        let mut intruder = start("echo ready; read go; echo done; cat > /dev/null").unwrap();
        assert_eq!(intruder.is_done(), Ok(false));
        intruder.go().unwrap();
        assert_eq!(done(&mut intruder), Ok(true));
        let pid = intruder.child.id();
        drop(intruder);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn one_that_ends_too_early_or_says_something_else_is_told() {
        let why = start("exit 3").err().unwrap();
        assert!(why.contains("ended before it said `ready`"), "{why}");
        let why = start("echo what; cat").err().unwrap();
        assert!(why.contains("said `what`, not `ready`"), "{why}");
        let mut intruder = start("echo ready; read go").unwrap();
        intruder.go().unwrap();
        assert!(done(&mut intruder).is_err());
    }
}
