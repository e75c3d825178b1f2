//! Child processes that never outlive the test.
//!
//! Every child is started through `setpriv --pdeathsig KILL` (util-linux), so the kernel kills it
//! when its parent goes, even by `kill -9` or abort. That signal is tied to the parent *thread*,
//! and test threads end long before a shared machine should, so one thread that lives as long as
//! the process does all the starting. Children lead their own process group, which is what a
//! deadline kills.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait::{Deadline, POLL, poll};

struct Request {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

static STARTER: LazyLock<Option<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Request>();
    let thread = std::thread::Builder::new()
        .name("starter".into())
        .spawn(move || {
            for mut request in receiver {
                let child = request.command.spawn();
                if let Err(mpsc::SendError(Ok(mut orphan))) = request.reply.send(child) {
                    // The asker is gone: nobody would ever reap it. Already dead is fine too.
                    drop(orphan.kill());
                    drop(orphan.wait());
                }
            }
        });
    thread.ok().map(|_| sender)
});

/// Words that start a program so that it dies with us and can be interrupted: a shell that runs us
/// in the background has had SIGINT ignored, and children inherit that.
const GUARD: [&str; 6] = [
    "--pdeathsig",
    "KILL",
    "--",
    "env",
    "--default-signal=HUP,INT,QUIT,PIPE,TERM",
    "--",
];

/// A command whose process dies with the thread that starts it, even when that is killed: start it from
/// one that lives as long as the process.
#[must_use]
pub fn guarded(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(GUARD).arg(program);
    command
}

/// Like [`guarded`], for a program that gets its standard input as controlling terminal.
pub(crate) fn guarded_on_terminal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(GUARD).args(["setsid", "--ctty"]).arg(program);
    command
}

/// A running child; killed with its process group when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        Self::start_as_is(command)
    }

    /// Starts `command` without a new group, for [`guarded_on_terminal`]: `setsid` makes one, and
    /// would have to fork if its process already led a group.
    pub(crate) fn start_as_is(command: Command) -> io::Result<Self> {
        let (reply, answer) = mpsc::channel();
        let gone = || io::Error::other("the thread that starts processes is not running");
        let starter = STARTER.as_ref().ok_or_else(gone)?;
        starter
            .send(Request { command, reply })
            .map_err(|_| gone())?;
        let child = answer.recv().map_err(|_| gone())??;
        Ok(Self { child, ended: None })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for the end; `None` when the deadline passes first.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> io::Result<Option<ExitStatus>> {
        poll(deadline, POLL, || self.try_wait().transpose()).transpose()
    }

    /// Kills the process group and reaps the child.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        // Not reaped yet, so the number cannot belong to anybody else.
        if let Ok(pid) = i32::try_from(self.child.id())
            && killpg(Pid::from_raw(pid), Signal::SIGKILL).is_err()
        {
            // `setsid` may not have made the group yet.
            self.child.kill()?;
        }
        match self.wait(Deadline::after(Duration::from_secs(10)))? {
            Some(status) => Ok(status),
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "killed, but does not end",
            )),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("testkit: cannot kill process {}: {error}", self.child.id());
        }
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Looks a program up in `PATH`.
#[must_use]
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    search(&path, program)
}

fn search(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_whole_group_is_killed() {
        let mut command = guarded(Path::new("/bin/sh"));
        command
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut process = Process::start(command).unwrap();
        let mut line = String::new();
        let stdout = process.child().stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let grandchild = PathBuf::from(format!("/proc/{}/stat", line.trim()));
        assert!(grandchild.exists());
        assert_eq!(describe(process.kill().unwrap()), "killed by signal 9");
        // Its new parent reaps it in its own time: dead is enough.
        let dead = || match std::fs::read_to_string(&grandchild) {
            Ok(stat) => stat.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        };
        assert!(poll(Deadline::after(Duration::from_secs(10)), POLL, dead).is_some());
    }

    #[test]
    fn the_parent_death_signal_is_set() {
        // The signal that `setpriv` reports for itself is the one it was started with.
        let mut command = guarded(Path::new("setpriv"));
        command.arg("--dump").stdout(Stdio::piped());
        let mut process = Process::start(command).unwrap();
        let mut text = String::new();
        let mut stdout = process.child().stdout.take().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
        assert!(text.contains("Parent death signal: KILL"), "{text}");
        assert!(
            process
                .wait(Deadline::after(Duration::from_secs(10)))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn programs_are_found_in_path_order() {
        assert_eq!(
            search(OsStr::new("/nonexistent:/bin"), "sh"),
            Some(PathBuf::from("/bin/sh"))
        );
        assert_eq!(search(OsStr::new("/nonexistent"), "sh"), None);
    }
}
