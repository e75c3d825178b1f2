//! Pretended agents in processes of their own: one process may not have as many open files as ten thousand
//! agents need.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use client::{Client, controller_address};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use stillmetal_fakes::lab::{Controller, Node, Options};
use tunnel::Backoff;

/// Join at the same time, of one flock.
const AT_ONCE: usize = 16;
/// What a flock says when all of its agents have joined.
const JOINED: &str = "joined";
const PATIENCE: Duration = Duration::from_secs(900);

/// Who joins whom.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    from: usize,
    count: usize,
    controller: SocketAddr,
    /// Certificates of an administrator.
    admin: PathBuf,
    /// For agents' state.
    state: PathBuf,
}

/// Agents in a process of their own; they are gone when it is dropped, or when this process ends.
#[derive(Debug)]
pub(super) struct Flock(Child);

impl Flock {
    /// Starts so many, numbered from `from`. They join; see [`Flock::joined`].
    pub(super) fn start(
        controller: &Controller,
        state: &Path,
        from: usize,
        count: usize,
    ) -> anyhow::Result<Self> {
        let orders = Orders {
            from,
            count,
            controller: controller.address,
            admin: controller.dir().join("admin"),
            state: state.into(),
        };
        let child = testkit::guarded(&std::env::current_exe().context("find this program")?)
            .args(["--flock", &serde_json::to_string(&orders)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a process of agents")?;
        Ok(Self(child))
    }

    /// Until all of them have.
    pub(super) async fn joined(&mut self) -> anyhow::Result<()> {
        let stdout = self.0.stdout.take().context("it was waited for before")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(PATIENCE, line).await;
        let line = line.with_context(|| format!("not joined within {PATIENCE:?}"))???;
        ensure!(line.trim() == JOINED, "its agents did not join: {line:?}");
        Ok(())
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// In the process of its own: joins, says so, and stays until nobody holds the other end of its input.
///
/// # Errors
/// When the orders are none, or somebody cannot join.
pub(super) async fn serve(orders: &str) -> anyhow::Result<()> {
    let orders: Orders = serde_json::from_str(orders).context("understand the orders")?;
    let url = controller_address(&orders.controller.to_string())?;
    let context = client::Context::read(url, &orders.admin)?;
    let client = Client::new(&context)?;
    let pin = pki::Pin::of_pem(&context.ca_pem)?;
    let join = |number: usize| {
        let mut options = Options::pretending(&format!("agent{number:05}"));
        // as agents have it
        options.backoff = Backoff::default();
        Node::join_as(options, &client, &orders.state, pin, orders.controller)
    };
    let joined = stream::iter(orders.from..orders.from + orders.count).map(join);
    let nodes: Vec<Node> = joined.buffer_unordered(AT_ONCE).collect().await;
    println!("{JOINED}");
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    end.await??;
    drop(nodes);
    Ok(())
}
