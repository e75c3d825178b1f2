//! A controller as a process, and somebody with `still`.

#![expect(
    clippy::unwrap_used,
    reason = "in a helper of tests a panic is the report"
)]
#![allow(clippy::missing_panics_doc, reason = "as above: each of them panics")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Deadline, Invocation, Output, POLL, Running, free_ports, images, places, poll};

/// Whatever is waited for here takes a second or two, and an emulated node a minute.
const WITHIN: Duration = Duration::from_secs(180);
/// By which guests of QEMU's user network call this machine.
const SEEN_FROM_GUESTS: &str = "10.0.2.2";

/// A program of this build of the workspace.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // …/debug/deps/host-…
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.is_file(),
        "{} is not built: scripts/test-root builds it",
        path.display()
    );
    path
}

/// A program that `make lab` has put into the build's folder.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    places::build_dir().join(name)
}

/// Waits for something that is bound to come.
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let found = poll(Deadline::after(WITHIN), POLL, || look().then_some(()));
    assert!(found.is_some(), "not in time: {what}");
}

/// Somebody's home, with a controller in it.
#[derive(Debug)]
pub struct People {
    /// Of this build, or that of `make lab`.
    programs: fn(&str) -> PathBuf,
    pub home: TempDir,
    controller: Running,
    port: u16,
}

impl People {
    /// With an image.
    #[must_use]
    pub fn start(programs: fn(&str) -> PathBuf) -> Self {
        let home = testkit::scratch_folder("people").unwrap();
        let top = home.path().to_owned();
        let at = |name: &str| top.join(name);
        let port = free_ports(1).unwrap()[0];
        let controller = Invocation::new(programs("stillmetal-controller"))
            .args(["serve", "--name", "127.0.0.1", "--name", SEEN_FROM_GUESTS])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg_path("--state", &at("controller"))
            .arg_path("--admin-bundle", &at("admin"))
            .spawn()
            .unwrap();
        let people = Self {
            programs,
            home,
            controller,
            port,
        };
        eventually("the controller has certificates", || {
            let mut names = ["ca.pem", "cert.pem", "key.pem"].iter();
            names.all(|name| at("admin").join(name).is_file())
        });
        let add = ["context", "add", "lab", "--controller"];
        let address = format!("127.0.0.1:{port}");
        people
            .command(add.into_iter().chain([address.as_str()]))
            .arg_path("--ca", &at("admin/ca.pem"))
            .arg_path("--cert", &at("admin/cert.pem"))
            .arg_path("--key", &at("admin/key.pem"))
            .run_ok()
            .unwrap();
        eventually("the controller answers", || {
            people.still(["nodes"]).success()
        });
        let archive = images::busybox().unwrap();
        people
            .still(["image", "push", archive.to_str().unwrap()])
            .ok()
            .unwrap();
        people
    }

    fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Invocation {
        still(self.programs, self.home.path(), words)
    }

    pub fn still<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(words).run().unwrap()
    }

    /// What it prints as JSON.
    pub fn json<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Value {
        let output = self.still(["--json"].into_iter().chain(words));
        let value = serde_json::from_slice(&output.stdout);
        value.unwrap_or_else(|error| panic!("{error}: {}", output.error_text()))
    }

    /// Its port, for guests of QEMU.
    #[must_use]
    pub fn guests_address(&self) -> String {
        format!("{SEEN_FROM_GUESTS}:{}", self.port)
    }

    /// `HOST:PORT` and the hash of its authority.
    #[must_use]
    pub fn address(&self) -> (String, String) {
        let ca = std::fs::read_to_string(self.home.path().join("admin/ca.pem")).unwrap();
        let pin = pki::Pin::of_pem(&ca).unwrap();
        (format!("127.0.0.1:{}", self.port), pin.to_string())
    }

    /// A file with a fresh token, for its owner only.
    pub fn token(&self, path: &Path) {
        let token = self.still(["token", "create"]).ok().unwrap().text();
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        file.open(path)
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
    }

    /// The only node; nothing before it has joined.
    #[must_use]
    pub fn node(&self) -> Value {
        let nodes = self.json(["nodes"]);
        nodes.get(0).cloned().unwrap_or_default()
    }

    /// The only node, once it is in this state.
    #[must_use]
    pub fn node_in(&self, state: &str) -> Value {
        let mut node = Value::Null;
        eventually(state, || {
            node = self.node();
            node["state"] == state
        });
        node
    }

    /// The job, once it is in this state.
    #[must_use]
    pub fn job_in(&self, id: &str, state: &str) -> Value {
        let mut job = Value::Null;
        eventually(state, || {
            job = self.json(["job", "show", id])["job"].take();
            job["state"] == state
        });
        job
    }

    pub fn stop(mut self) {
        self.controller.terminate().unwrap();
        self.controller.wait(WITHIN).unwrap().ok().unwrap();
    }
}

/// `still` of whoever lives there.
pub fn still<'a>(
    programs: fn(&str) -> PathBuf,
    home: &Path,
    words: impl IntoIterator<Item = &'a str>,
) -> Invocation {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let agent = programs("stillmetal-agent").into_os_string();
    let env = [
        (OsStr::new("PATH"), path),
        (OsStr::new("HOME"), home.as_os_str().to_owned()),
        (OsStr::new("STILLMETAL_AGENT"), agent),
    ];
    Invocation::new(programs("still"))
        .args(words)
        .only_env(env)
        .within(WITHIN)
}

/// An agent as somebody starts it by hand.
#[derive(Debug)]
pub struct Agent {
    running: Running,
}

impl Agent {
    /// `home`: its directories.
    pub fn start(people: &People, engine: &Path, home: &Path, more: &[&str]) -> Self {
        let (address, pin) = people.address();
        let running = Invocation::new(program("stillmetal-agent"))
            .args(["daemon", "--controller", &address, "--ca", &pin])
            .arg_path("--engine", engine)
            .arg_path("--state-dir", &home.join("state"))
            .arg_path("--run-dir", &home.join("run"))
            .arg_path("--token-file", &home.join("token"))
            .args(more)
            .spawn()
            .unwrap();
        Self { running }
    }

    /// SIGTERM; it ends by itself, soon.
    pub fn end(mut self) -> Output {
        self.running.terminate().unwrap();
        let ended = self.running.wait(Duration::from_secs(20)).unwrap();
        ended.ok().unwrap()
    }
}
