//! Commands with a deadline: run to the end, or kept running with pipes or a terminal.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};

use crate::capture::Capture;
use crate::error::{Error, Result};
use crate::process::{Process, guarded, guarded_on_terminal};
use crate::running::{Running, Sink};

/// Time that a command gets unless told.
const WITHIN: Duration = Duration::from_secs(120);

/// Where a command's standard input comes from.
#[derive(Debug, Clone)]
enum Input {
    Null,
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    args: Vec<OsString>,
    env: Option<Vec<(OsString, OsString)>>,
    input: Input,
    within: Duration,
    folder: Option<PathBuf>,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit status; `None` after death by a signal.
    pub code: Option<i32>,
    /// Standard output (of a terminal: everything it showed).
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub duration: Duration,
}

impl Output {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself, if it ended with status 0.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with all that it printed.
    pub fn ok(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        let status = match self.code {
            Some(code) => format!("exit status {code}"),
            None => "killed by a signal".into(),
        };
        let output = both(&self.stdout, &self.stderr);
        Err(Error::CommandFailed {
            command: self.command,
            status,
            output,
        })
    }
}

pub(crate) fn both(stdout: &[u8], stderr: &[u8]) -> String {
    /// Enough of each stream to see why.
    const KEEP: usize = 4000;
    let end = |bytes: &[u8]| {
        let from = bytes.len().saturating_sub(KEEP);
        String::from_utf8_lossy(&bytes[from..])
            .trim_end()
            .to_owned()
    };
    format!("--- stdout\n{}\n--- stderr\n{}", end(stdout), end(stderr))
}

impl Invocation {
    /// A program with no arguments, no input, and two minutes of time.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: None,
            input: Input::Null,
            within: WITHIN,
            folder: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an option and its file.
    #[must_use]
    pub fn arg_path(self, option: &str, path: &Path) -> Self {
        self.args([OsStr::new(option), path.as_os_str()])
    }

    /// Runs with exactly this environment.
    #[must_use]
    pub fn only_env<I: IntoIterator<Item = (K, V)>, K: Into<OsString>, V: Into<OsString>>(
        mut self,
        env: I,
    ) -> Self {
        self.env = Some(
            env.into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        );
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env
            .get_or_insert_with(|| std::env::vars_os().collect())
            .push((key.into(), value.into()));
        self
    }

    /// Gives it these bytes on standard input, then the end.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Gives it a file on standard input.
    #[must_use]
    pub fn stdin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.input = Input::File(path.into());
        self
    }

    /// The time it gets.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// The folder it runs in.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// The command line, for messages.
    #[must_use]
    pub fn line(&self) -> String {
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        let words = std::iter::once(program).chain(self.args.iter().map(OsString::as_os_str));
        words
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Runs it to its end, whatever its status.
    ///
    /// # Errors
    /// [`Error::Spawn`], [`Error::CommandStream`], [`Error::CommandTimedOut`].
    pub fn run(&self) -> Result<Output> {
        let mut running = self.start(false)?;
        match &self.input {
            Input::Bytes(bytes) => running.feed(bytes.clone())?,
            Input::Null | Input::File(_) => running.close_stdin(),
        }
        running.wait(self.within)
    }

    /// Runs it to its end, which must be status 0.
    ///
    /// # Errors
    /// As [`Invocation::run`], and [`Error::CommandFailed`].
    pub fn run_ok(&self) -> Result<Output> {
        self.run()?.ok()
    }

    /// Starts it and leaves it running, standard input open.
    ///
    /// # Errors
    /// [`Error::Spawn`], [`Error::CommandStream`].
    pub fn spawn(&self) -> Result<Running> {
        self.start(true)
    }

    fn start(&self, open_stdin: bool) -> Result<Running> {
        let mut command = guarded(&self.program);
        self.prepare(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(match &self.input {
            Input::File(path) => File::open(path).map_err(Error::file("open", path))?.into(),
            Input::Null if !open_stdin => Stdio::null(),
            Input::Null | Input::Bytes(_) => Stdio::piped(),
        });
        let started = Instant::now();
        let mut process = Process::start(command).map_err(|source| self.not_started(source))?;
        let failed = |source| self.stream(source);
        let child = process.child();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Running {
            line: self.line(),
            process,
            input: stdin.map(Sink::Pipe),
            stdout: Capture::of("stdout", stdout).map_err(failed)?,
            stderr: Capture::of("stderr", stderr).map_err(failed)?,
            started,
        })
    }

    /// Starts it on a terminal of 80 columns and 24 lines.
    ///
    /// # Errors
    /// [`Error::Terminal`], [`Error::Spawn`], [`Error::CommandStream`].
    pub fn spawn_on_terminal(&self) -> Result<Running> {
        let failed = |source: io::Error| Error::Terminal {
            command: self.line(),
            source,
        };
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = openpty(Some(&size), None).map_err(|errno| failed(errno.into()))?;
        for end in [&ends.master, &ends.slave] {
            // A copy in another child would keep the terminal open after this one's end.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
                .map_err(|errno| failed(errno.into()))?;
        }
        let mut command = guarded_on_terminal(&self.program);
        self.prepare(&mut command);
        command
            .stdin(ends.slave.try_clone().map_err(failed)?)
            .stdout(ends.slave.try_clone().map_err(failed)?)
            .stderr(ends.slave);
        let started = Instant::now();
        let process = Process::start_as_is(command).map_err(|source| self.not_started(source))?;
        let screen = File::from(ends.master.try_clone().map_err(failed)?);
        Ok(Running {
            line: self.line(),
            process,
            input: Some(Sink::Terminal(File::from(ends.master))),
            stdout: Capture::of("terminal", Some(screen)).map_err(failed)?,
            stderr: Capture::of("stderr", None::<File>).map_err(failed)?,
            started,
        })
    }

    fn prepare(&self, command: &mut std::process::Command) {
        command.args(&self.args);
        if let Some(env) = &self.env {
            command
                .env_clear()
                .envs(env.iter().map(|(key, value)| (key, value)));
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
    }

    fn not_started(&self, source: io::Error) -> Error {
        Error::Spawn {
            program: self.program.display().to_string(),
            source,
        }
    }

    fn stream(&self, source: io::Error) -> Error {
        Error::CommandStream {
            command: self.line(),
            source,
        }
    }
}

/// A program of this project: the variable's path, else beside the running executable.
pub(crate) fn own_program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let exe = std::env::current_exe().ok()?;
    let folder = exe.parent()?;
    // A test runs in target/PROFILE/deps, a binary in target/PROFILE.
    let profile = if folder.ends_with("deps") {
        folder.parent()?
    } else {
        folder
    };
    let target = profile.parent().unwrap_or(profile);
    let folders = [
        profile.to_path_buf(),
        target.join("release"),
        target.join("debug"),
    ];
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|file: &PathBuf| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Invocation {
        Invocation::new("/bin/sh").args(["-c", script])
    }

    #[test]
    fn output_and_status() {
        let output = sh("echo out; echo err >&2; exit 3").run().unwrap();
        assert_eq!(
            (output.code, output.text(), output.error_text()),
            (Some(3), "out\n".into(), "err\n".into())
        );
        let error = output.ok().unwrap_err().to_string();
        assert!(
            error.contains("exit status 3") && error.contains("err"),
            "{error}"
        );
    }

    #[test]
    fn bytes_and_files_reach_standard_input() {
        let big = vec![b'x'; 1 << 20];
        assert_eq!(sh("cat").stdin(big.clone()).run_ok().unwrap().stdout, big);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file").unwrap();
        assert_eq!(
            sh("cat").stdin_file(file.path()).run_ok().unwrap().text(),
            "from a file"
        );
        assert_eq!(sh("cat").run_ok().unwrap().text(), "");
    }

    #[test]
    fn a_deadline_kills_the_group() {
        let before = Instant::now();
        let error = sh("echo started; sleep 1000 & sleep 1000").within(Duration::from_millis(300));
        let error = error.run().unwrap_err();
        assert!(
            matches!(&error, Error::CommandTimedOut { output, .. } if output.contains("started"))
        );
        assert!(before.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_environment_can_be_replaced() {
        let output = sh("echo $A:$HOME").only_env([("A", "b")]).run_ok().unwrap();
        assert_eq!(output.text(), "b:\n");
    }
}
