//! An engine that somebody started by hand.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Deadline, Invocation, Output, POLL, Running, images, poll};

/// It makes its folders and its containerd.
const READY: Duration = Duration::from_secs(60);

/// A real engine with everything it owns below one folder. Dropped, it ends.
pub(crate) struct Engine {
    daemon: Option<Running>,
    folder: TempDir,
}

impl Engine {
    pub(crate) fn start() -> Self {
        // not in $TMPDIR, which may be too long a path for sockets
        let folder = tempfile::Builder::new()
            .prefix("sm-host")
            .tempdir_in("/tmp");
        let folder = folder.unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let daemon = Invocation::new("dockerd")
            .args([
                format!("--host=unix://{}", at("engine.sock")),
                format!("--data-root={}", at("data")),
                format!("--exec-root={}", at("exec")),
                format!("--pidfile={}", at("pid")),
            ])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .spawn()
            .unwrap();
        let engine = Self {
            daemon: Some(daemon),
            folder,
        };
        let answers = || engine.docker(["version"]).success().then_some(());
        poll(Deadline::after(READY), POLL, answers).expect("the engine answers");
        engine
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// The stock client, past everything that is ours.
    pub(crate) fn docker<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        Invocation::new("docker")
            .args(["-H", &format!("unix://{}", self.socket().display())])
            .args(words)
            .run()
            .unwrap()
    }

    pub(crate) fn text<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        self.docker(words).ok().unwrap().text().trim().to_owned()
    }

    /// Brings an image that is not the lab's.
    pub(crate) fn load_busybox(&self) {
        let archive = images::busybox().unwrap();
        self.text(["load", "-q", "-i", archive.to_str().unwrap()]);
    }

    /// Containers, running or not.
    pub(crate) fn containers(&self) -> String {
        self.text(["ps", "-a", "--format", "{{.Names}}"])
    }
}

impl Drop for Engine {
    /// Ended in order, so that it unmounts what it mounted; also after a failed test.
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.terminate());
            drop(daemon.wait(READY));
            // it leaves the name of its own network namespace behind, and that keeps the folder
            let name = self.folder.path().join("exec/netns/default");
            drop(Invocation::new("umount").args([name]).run());
        }
    }
}
