//! The real program, on a state directory that outlives it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use client::{Client, Context, controller_address};
use tempfile::TempDir;

use crate::until;

pub(crate) struct Controller {
    child: Child,
    dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) pin: pki::Pin,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        pki::install();
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = spawn(dir.path(), address);
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
            child,
            dir,
            address,
            client,
            pin,
        };
        controller.ready().await;
        controller
    }

    /// For nodes' state.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn ready(&self) {
        until("the controller answers", async || {
            self.client.healthy_now().await.is_ok()
        })
        .await;
    }

    /// `kill -9`, and its next start.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.dir.path(), self.address);
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

fn spawn(dir: &Path, address: SocketAddr) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"));
    Command::new(env!("CARGO_BIN_EXE_stillmetal-controller"))
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
