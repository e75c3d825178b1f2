//! Runs the program in a home of its own.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use client::Context;
use client::fake::FakeController;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Only keeps a broken test from hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home with nothing in it.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Ran {
    /// It ended with 0.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// It ended with this code, and said so.
    pub(crate) fn failed(self, code: i32, said: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(said), "{self:?}");
        self
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    /// One with a context for this controller.
    pub(crate) fn with(fake: &FakeController) -> Self {
        let home = Self::new();
        home.write_context("fake", &fake.context());
        std::fs::write(home.config().join("current"), "fake\n").unwrap();
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config/stillmetal")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state/stillmetal")
    }

    fn write_context(&self, name: &str, context: &Context) {
        let folder = self.config().join("contexts").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let address = format!("controller = \"https://{}\"\n", context.authority());
        for (file, text) in [
            ("context.toml", &address),
            ("ca.pem", &context.ca_pem),
            ("cert.pem", &context.cert_pem),
            ("key.pem", &context.key_pem),
        ] {
            let mut options = std::fs::OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(folder.join(file)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// `line` is split at blanks.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_still"));
        command
            .args(line.split_whitespace())
            .env_clear()
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // no docker but what a test says
            .env("STILLMETAL_DOCKER", "/nonexistent/docker")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, line: &str) -> Ran {
        ended(self.command(line).spawn().unwrap()).await
    }
}

/// Waits for the end of a process.
pub(crate) async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.expect("the program ends").unwrap().into()
}
