//! A command that keeps running: talked to through pipes or a terminal.

use std::fs::File;
use std::io::{self, Write};
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::capture::Capture;
use crate::command::{Output, both};
use crate::error::{Error, Result};
use crate::process::{Process, describe};
use crate::wait::Deadline;

/// After a command has ended, its output can only still be on the way; a process that it left
/// behind can hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Sink {
    Pipe(ChildStdin),
    Terminal(File),
}

/// A command that runs. Dropping it kills it with everything it started in its process group.
#[derive(Debug)]
pub struct Running {
    pub(crate) line: String,
    pub(crate) process: Process,
    pub(crate) input: Option<Sink>,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    pub(crate) started: Instant,
}

impl Running {
    /// Writes to its standard input (on a terminal: types).
    ///
    /// # Errors
    /// [`Error::CommandStream`], also when standard input is closed already.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let sent = match &mut self.input {
            Some(Sink::Pipe(pipe)) => pipe.write_all(bytes).and_then(|()| pipe.flush()),
            Some(Sink::Terminal(terminal)) => terminal.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|source| Error::CommandStream {
            command: self.line.clone(),
            source,
        })
    }

    /// Ends its standard input. A terminal stays open: send it control-D instead.
    pub fn close_stdin(&mut self) {
        if matches!(self.input, Some(Sink::Pipe(_))) {
            self.input = None;
        }
    }

    /// Writes in the background, then closes: a command may print before it has read all.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) -> Result<()> {
        let Some(Sink::Pipe(mut pipe)) = self.input.take() else {
            return Ok(());
        };
        let write = move || match pipe.write_all(&bytes) {
            Ok(()) => {}
            // It ended without reading everything, as `head` does; its status tells the rest.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => eprintln!("testkit: feeding a command: {error}"),
        };
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(write)
            .map(drop)
            .map_err(|source| Error::CommandStream {
                command: self.line.clone(),
                source,
            })
    }

    /// Waits until standard output holds `text`; returns the host time since the start.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::EndedFirst`].
    pub fn wait_output(&self, text: &str, within: Duration) -> Result<Duration> {
        let found = self.stdout.wait_for(text, within);
        if found.held {
            return Ok(self.started.elapsed());
        }
        let (what, whom) = (format!("{text:?}"), self.line.clone());
        let tail = both(&self.stdout.bytes(), &self.stderr.bytes());
        Err(if found.closed {
            Error::EndedFirst { what, whom, tail }
        } else {
            Error::TimedOut {
                what,
                whom,
                within,
                tail,
            }
        })
    }

    /// Standard output so far.
    #[must_use]
    pub fn output_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Sends it SIGTERM.
    ///
    /// # Errors
    /// [`Error::CommandStream`].
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Sends it SIGINT, as control-C would.
    ///
    /// # Errors
    /// [`Error::CommandStream`].
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        let pid = i32::try_from(self.process.id()).map_err(io::Error::other);
        pid.and_then(|pid| kill(Pid::from_raw(pid), signal).map_err(io::Error::from))
            .map_err(|source| Error::CommandStream {
                command: self.line.clone(),
                source,
            })
    }

    /// Waits for its end; kills it when the time is over.
    ///
    /// # Errors
    /// [`Error::CommandTimedOut`], [`Error::CommandStream`].
    pub fn wait(mut self, within: Duration) -> Result<Output> {
        let failed = |line: &str, source| Error::CommandStream {
            command: line.into(),
            source,
        };
        let ended = self.process.wait(Deadline::after(within));
        let Some(status) = ended.map_err(|source| failed(&self.line, source))? else {
            let killed = self.process.kill();
            killed.map_err(|source| failed(&self.line, source))?;
            let output = both(&self.stdout.bytes(), &self.stderr.bytes());
            return Err(Error::CommandTimedOut {
                command: self.line,
                within,
                output,
            });
        };
        let duration = self.started.elapsed();
        let drain = Deadline::after(DRAIN);
        for stream in [&self.stdout, &self.stderr] {
            if !stream.wait_closed(drain.remaining()) {
                eprintln!(
                    "testkit: {}: {} but its output stays open",
                    self.line,
                    describe(status)
                );
            }
        }
        Ok(Output {
            command: self.line,
            code: status.code(),
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
            duration,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Invocation;

    fn sh(script: &str) -> Invocation {
        Invocation::new("/bin/sh").args(["-c", script])
    }

    #[test]
    fn a_conversation_over_pipes() {
        let mut running = sh("while read line; do echo got $line; done; echo end")
            .spawn()
            .unwrap();
        running.send("one\n").unwrap();
        running
            .wait_output("got one", Duration::from_secs(10))
            .unwrap();
        running.close_stdin();
        let output = running.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(output.text(), "got one\nend\n");
    }

    #[test]
    fn a_conversation_on_a_terminal() {
        let script = "tty; stty size; echo ready; read line; echo got $line; exit 4";
        let mut running = sh(script).spawn_on_terminal().unwrap();
        running
            .wait_output("ready", Duration::from_secs(10))
            .unwrap();
        running.send("hello\n").unwrap();
        let output = running.wait(Duration::from_secs(10)).unwrap();
        let text = output.text();
        assert!(
            text.contains("/dev/pts/") && text.contains("24 80"),
            "{text}"
        );
        assert!(text.contains("got hello"), "{text}");
        assert_eq!(output.code, Some(4));
    }

    #[test]
    fn interrupts_arrive_even_below_a_shell_that_ignores_them() {
        let mut running = sh("echo ready; exec sleep 1000").spawn().unwrap();
        running
            .wait_output("ready", Duration::from_secs(10))
            .unwrap();
        running.interrupt().unwrap();
        assert_eq!(running.wait(Duration::from_secs(10)).unwrap().code, None);
    }

    #[test]
    fn control_c_on_a_terminal_interrupts() {
        let mut running = sh("echo ready; exec sleep 1000")
            .spawn_on_terminal()
            .unwrap();
        running
            .wait_output("ready", Duration::from_secs(10))
            .unwrap();
        running.send([3]).unwrap();
        assert_eq!(running.wait(Duration::from_secs(10)).unwrap().code, None);
    }
}
