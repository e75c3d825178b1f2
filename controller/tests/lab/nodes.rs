//! Pretended nodes that join over real mutual TLS and do pretended work.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Domain, MachineHints, NodeFacts, TokenRequest};
use client::Client;
use stillmetal_join::{
    Caller, Controller, JoinOptions, JoinStatus, Joiner, Phase, Services, Serving,
};
use stillmetal_work::Worker;
use stillmetal_work::fakes::FakeExecutor;
use stillmetal_work::simulated::{Machine, serve_router};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::{Backoff, Stream};

use crate::until;

struct Doors(Worker);

impl Services for Doors {
    fn control(&self, stream: Stream) -> Serving {
        let worker = self.0.clone();
        Box::pin(async move { drop(worker.serve(stream).await) })
    }

    fn router(&self, stream: Stream, _caller: Caller) -> Serving {
        let worker = self.0.clone();
        Box::pin(async move { drop(serve_router(&worker, stream).await) })
    }
}

/// What is started of a node's agent.
struct Agent {
    worker: Worker,
    status: watch::Receiver<JoinStatus>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A machine with its state directory, and the agent that runs on it now.
pub(crate) struct Node {
    name: String,
    pub(crate) machine: Machine,
    state: PathBuf,
    pin: pki::Pin,
    /// Where it finds the controller: itself, or something in between.
    controller: SocketAddr,
    agent: Agent,
}

impl Node {
    /// Let in by a token of `client`, and connected.
    pub(crate) async fn join(
        name: &str,
        client: &Client,
        dir: &Path,
        pin: pki::Pin,
        controller: SocketAddr,
    ) -> Self {
        let request = TokenRequest {
            valid_seconds: 600,
            machine: None,
        };
        let token = client.create_token(&request).await.unwrap().token.unwrap();
        let state = dir.join(name);
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("token"), token).unwrap();
        let machine = Machine::new(facts(name));
        let agent = start(name, &machine, &state, pin, controller).await;
        let node = Self {
            name: name.into(),
            machine,
            state,
            pin,
            controller,
            agent,
        };
        node.connected().await;
        node
    }

    pub(crate) async fn connected(&self) {
        let status = self.agent.status.clone();
        until(&format!("{} is connected", self.name), async || {
            matches!(status.borrow().phase, Phase::Connected { .. })
        })
        .await;
    }

    pub(crate) fn phase(&self) -> Phase {
        self.agent.status.borrow().phase.clone()
    }

    /// As `kill -9` of the agent, and its next start. What runs on the machine goes on.
    pub(crate) async fn kill(&mut self) {
        self.agent.stop.cancel();
        self.agent.tasks.close();
        self.agent.tasks.wait().await;
        self.agent = start(
            &self.name,
            &self.machine,
            &self.state,
            self.pin,
            self.controller,
        )
        .await;
    }

    /// Another machine that somebody has made from a copy of this one's state.
    pub(crate) async fn clone_of(&self, dir: &Path) -> Self {
        let state = dir.join(format!("{}-clone", self.name));
        std::fs::create_dir_all(&state).unwrap();
        for entry in std::fs::read_dir(&self.state).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, state.join(path.file_name().unwrap())).unwrap();
            }
        }
        let machine = Machine::new(facts(&self.name));
        let agent = start(&self.name, &machine, &state, self.pin, self.controller).await;
        Self {
            name: self.name.clone(),
            machine,
            state,
            pin: self.pin,
            controller: self.controller,
            agent,
        }
    }

    /// What its agent holds.
    pub(crate) async fn holds(&self) -> usize {
        self.agent.worker.overview().await.unwrap().parts.len()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.agent.stop.cancel();
    }
}

async fn start(
    name: &str,
    machine: &Machine,
    state: &Path,
    pin: pki::Pin,
    controller: SocketAddr,
) -> Agent {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let executor = Arc::new(FakeExecutor::new(machine.world.clone()));
    let worker = machine.agent(executor, &tasks, stop.clone()).await.unwrap();
    let hints = MachineHints {
        hostname: name.into(),
        uuid: None,
        macs: [mac(&state.to_string_lossy())].into(),
        boot_id: None,
    };
    let controller = Controller {
        host: controller.ip().to_string(),
        port: controller.port(),
    };
    let mut options = JoinOptions::new(controller, pin, state, hints);
    let token = state.join("token");
    options.token_file = token.exists().then_some(token);
    // tests do not wait for minutes
    options.backoff = Backoff {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(500),
        settled: Duration::from_secs(5),
    };
    let (told, status) = watch::channel(JoinStatus::new(&options.controller));
    let joiner = Joiner::open(options).unwrap();
    let doors = Arc::new(Doors(worker.clone()));
    tasks.spawn(joiner.run(doors, stop.clone(), told));
    Agent {
        worker,
        status,
        stop,
        tasks,
    }
}

/// A card for each state directory.
fn mac(state: &str) -> String {
    let sum = state.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let [a, b, c, d] = sum.to_be_bytes();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn facts(name: &str) -> NodeFacts {
    NodeFacts {
        hostname: name.into(),
        boot_id: Some(format!("boot-of-{name}")),
        domains: vec![Domain {
            cpus: "1-2".parse().unwrap(),
            memory_bytes: 1 << 30,
        }],
        isolated: true,
        share: true,
        ..NodeFacts::default()
    }
}
