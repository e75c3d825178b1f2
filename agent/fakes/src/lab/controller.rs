//! The real program, on a state directory that outlives it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Context, controller_address};
use tempfile::TempDir;

use super::until;

/// A running controller; killed when dropped, or when this process ends.
#[derive(Debug)]
pub struct Controller {
    program: PathBuf,
    child: Child,
    dir: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its administrator.
    pub client: Client,
    /// What nodes know it by.
    pub pin: pki::Pin,
}

impl Controller {
    /// Starts this program on a new state directory, and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(program: &Path) -> Self {
        pki::install();
        let dir = testkit::scratch_folder("controller").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = spawn(program, dir.path(), address);
        let admin = dir.path().join("admin");
        until("the administrator's certificate is written", async || {
            // the last one that is written
            admin.join("ca.pem").exists()
        })
        .await;
        let context = Context::read(controller_address(&address.to_string()).unwrap(), &admin);
        let context = context.unwrap();
        let client = Client::new(&context).unwrap();
        let pin = pki::Pin::of_pem(&context.ca_pem).unwrap();
        let controller = Self {
            program: program.into(),
            child,
            dir,
            address,
            client,
            pin,
        };
        controller.ready().await;
        controller
    }

    /// For nodes' state, too: it holds `state` and `admin` of the controller.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its administrator's certificates, in PEM: the authority's, its own, and the key.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn admin(&self) -> [String; 3] {
        ["ca.pem", "cert.pem", "key.pem"]
            .map(|name| std::fs::read_to_string(self.dir.path().join("admin").join(name)).unwrap())
    }

    /// A client with connections of its own.
    ///
    /// # Panics
    /// When the administrator's certificate cannot be read.
    #[must_use]
    pub fn another_client(&self) -> Client {
        let url = controller_address(&self.address.to_string()).unwrap();
        let context = Context::read(url, &self.dir.path().join("admin")).unwrap();
        Client::new(&context).unwrap()
    }

    /// Until it answers.
    pub async fn ready(&self) {
        until("the controller answers", async || {
            self.client.healthy_now().await.is_ok()
        })
        .await;
    }

    /// `kill -9`, and its next start.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn kill(&mut self) {
        self.end();
        self.child = spawn(&self.program, self.dir.path(), self.address);
    }

    /// `kill -9`, and how long it took from its next start until it answered.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn kill_and_time(&mut self) -> Duration {
        self.end();
        let began = Instant::now();
        self.child = spawn(&self.program, self.dir.path(), self.address);
        until("the controller answers again", async || {
            let asked = tokio::time::timeout(Duration::from_millis(500), self.client.healthy_now());
            matches!(asked.await, Ok(Ok(_)))
        })
        .await;
        began.elapsed()
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            let log = log.unwrap_or_default();
            let from = log.lines().count().saturating_sub(40);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("the controller's last words:\n{}", tail.join("\n"));
        }
    }
}

fn spawn(program: &Path, dir: &Path, address: SocketAddr) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"));
    testkit::guarded(program)
        .arg("serve")
        .arg("--state")
        .arg(dir.join("state"))
        .args(["--listen", &address.to_string(), "--name", "127.0.0.1"])
        .arg("--admin-bundle")
        .arg(dir.join("admin"))
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}
