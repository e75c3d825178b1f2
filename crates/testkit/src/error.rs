//! One error for the whole harness: a variant per failed action, with what a reader of a failed
//! test needs (the machine, the command, the last console lines). No variant prints its source.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Result of the harness.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the harness could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that has to be built or installed first is not there.
    #[error("find {what} at {}: {hint}", path.display())]
    Missing {
        /// What it is for.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    File {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// QEMU ended before the machine ran.
    #[error("start virtual machine {vm}: qemu ended ({status}): {stderr}")]
    Launch {
        /// The machine.
        vm: String,
        /// How QEMU ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A machine description contradicts itself.
    #[error("describe virtual machine {vm}: {why}")]
    Describe {
        /// The machine.
        vm: String,
        /// The contradiction.
        why: String,
    },
    /// Something did not happen on a console, terminal or output stream in time.
    #[error("wait for {what} from {whom}: nothing in {within:?}; the last lines:\n{tail}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// Who should have said it.
        whom: String,
        /// For how long.
        within: Duration,
        /// The last lines seen.
        tail: String,
    },
    /// The other side ended while something was still expected of it.
    #[error("wait for {what} from {whom}: it ended first; the last lines:\n{tail}")]
    EndedFirst {
        /// What was waited for.
        what: String,
        /// Who should have said it.
        whom: String,
        /// The last lines seen.
        tail: String,
    },
    /// The guest kernel died before it reached its first user process.
    #[error("boot {vm}: the guest died early: {line}; the last lines:\n{tail}")]
    DiedEarly {
        /// The machine.
        vm: String,
        /// The line that shows it.
        line: String,
        /// The last lines seen.
        tail: String,
    },
    /// The QMP connection failed.
    #[error("talk QMP with {vm} ({action})")]
    Qmp {
        /// The machine.
        vm: String,
        /// The step.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// QEMU answered a QMP command with an error.
    #[error("QMP command {command} on {vm}: {answer}")]
    QmpRefused {
        /// The machine.
        vm: String,
        /// The command.
        command: String,
        /// QEMU's words.
        answer: String,
    },
    /// A TCP or TLS step of an API request failed.
    #[error("{action} {method} {url}")]
    Http {
        /// The step.
        action: &'static str,
        /// The method.
        method: String,
        /// The address and path.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// The API did not answer in time.
    #[error(
        "wait for {what} at {url}: nothing in {within:?}; last answer: {last}; console:\n{tail}"
    )]
    ApiTimedOut {
        /// What was waited for.
        what: &'static str,
        /// Where.
        url: String,
        /// For how long.
        within: Duration,
        /// The last failure or answer.
        last: String,
        /// The last console lines.
        tail: String,
    },
    /// Certificates could not be made.
    #[error("make {what}")]
    Certificates {
        /// Which.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A command did not end in time and was killed.
    #[error("run {command}: killed after {within:?}; its output so far:\n{output}")]
    CommandTimedOut {
        /// The command line.
        command: String,
        /// The deadline.
        within: Duration,
        /// What it printed.
        output: String,
    },
    /// A command that had to succeed did not.
    #[error("run {command}: {status}; its output:\n{output}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// A command's stream could not be read or written.
    #[error("exchange data with {command}")]
    CommandStream {
        /// The command line.
        command: String,
        /// The cause.
        source: io::Error,
    },
    /// A terminal could not be made.
    #[error("open a pseudo-terminal for {command}")]
    Terminal {
        /// The command line.
        command: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Maker of [`Error::File`] for `map_err`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

/// The error and its causes on one line, for a test's message.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
