//! Nodes that join over real mutual TLS and work as they are told to: pretended work unless it is said
//! otherwise.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::fleet::{Domain, MachineHints, NodeFacts, TokenRequest};
use client::Client;
use stillmetal_join::{
    Caller, Controller, JoinOptions, JoinStatus, Joiner, Phase, Services, Serving,
};
use stillmetal_proxy::Service;
use stillmetal_work::fakes::{FakeExecutor, World};
use stillmetal_work::journal::Directory;
use stillmetal_work::simulated::{Machine, serve_router};
use stillmetal_work::worker::Parts;
use stillmetal_work::{Executor, Worker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::{Backoff, Stream};

use super::until;

/// Who does a machine's work, on a world that outlives its agents.
pub type MakeExecutor = Arc<dyn Fn(World) -> Arc<dyn Executor> + Send + Sync>;
/// Who answers at its router.
pub type Route = Arc<dyn Fn(Stream, Caller) -> Serving + Send + Sync>;

/// What kind of node it is.
#[derive(Clone)]
pub struct Options {
    pub name: String,
    pub facts: NodeFacts,
    /// When to dial again.
    pub backoff: Backoff,
    /// A journal on disk, below its state directory, as a real node has it; otherwise in memory.
    pub durable: bool,
    pub executor: MakeExecutor,
    /// Instead of the documents of its work.
    pub router: Option<Route>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Pretended work, as the words of a job say; it does not wait long before it dials again.
    #[must_use]
    pub fn pretending(name: &str) -> Self {
        Self {
            name: name.into(),
            facts: facts(name, "1-2"),
            // tests do not wait for minutes
            backoff: Backoff {
                base: Duration::from_millis(50),
                cap: Duration::from_millis(500),
                settled: Duration::from_secs(5),
            },
            durable: false,
            executor: Arc::new(|world| Arc::new(FakeExecutor::new(world))),
            router: None,
        }
    }
}

/// The container API of a node at its router, as the agent serves it.
#[must_use]
pub fn container_api(service: Service) -> Route {
    Arc::new(move |stream, caller| {
        let service = service.clone();
        Box::pin(async move {
            let role = caller.role.as_str().parse();
            // both know the same roles
            if let Ok(role) = role {
                let gone = stream.gone();
                service.serve_stream(stream, gone, role, &caller.user).await;
            }
        })
    })
}

/// Of a pretended machine with these CPUs.
///
/// # Panics
/// When they are no list of CPUs.
#[must_use]
pub fn facts(name: &str, cpus: &str) -> NodeFacts {
    NodeFacts {
        hostname: name.into(),
        boot_id: Some(format!("boot-of-{name}")),
        domains: vec![Domain {
            cpus: cpus.parse().unwrap(),
            memory_bytes: 1 << 30,
        }],
        isolated: true,
        share: true,
        ..NodeFacts::default()
    }
}

struct Doors {
    worker: Worker,
    router: Option<Route>,
}

impl Services for Doors {
    fn control(&self, stream: Stream) -> Serving {
        let worker = self.worker.clone();
        Box::pin(async move { drop(worker.serve(stream).await) })
    }

    fn router(&self, stream: Stream, caller: Caller) -> Serving {
        if let Some(router) = &self.router {
            return router(stream, caller);
        }
        let worker = self.worker.clone();
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
pub struct Node {
    options: Options,
    /// What is pretended there, and goes on without an agent.
    pub machine: Machine,
    state: PathBuf,
    pin: pki::Pin,
    /// Where it finds the controller: itself, or something in between.
    controller: SocketAddr,
    agent: Agent,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.options.name)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// A pretending one that is let in by a token of `client`, and connected.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn join(
        name: &str,
        client: &Client,
        dir: &Path,
        pin: pki::Pin,
        controller: SocketAddr,
    ) -> Self {
        Self::join_as(Options::pretending(name), client, dir, pin, controller).await
    }

    /// One that is let in by a token of `client`, and connected.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn join_as(
        options: Options,
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
        let state = dir.join(&options.name);
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("token"), token).unwrap();
        let machine = Machine::new(options.facts.clone());
        let agent = start(&options, &machine, &state, pin, controller).await;
        let node = Self {
            options,
            machine,
            state,
            pin,
            controller,
            agent,
        };
        node.connected().await;
        node
    }

    /// Until it is.
    pub async fn connected(&self) {
        let mut status = self.agent.status.clone();
        let connected = status.wait_for(|now| matches!(now.phase, Phase::Connected { .. }));
        let connected = tokio::time::timeout(super::PATIENCE, connected).await;
        let name = &self.options.name;
        assert!(
            matches!(connected, Ok(Ok(_))),
            "{name} is not connected within {:?}: {:?}",
            super::PATIENCE,
            self.phase()
        );
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.agent.status.borrow().phase.clone()
    }

    /// As `kill -9` of the agent, and its next start. What runs on the machine goes on.
    pub async fn kill(&mut self) {
        self.agent.stop.cancel();
        self.agent.tasks.close();
        self.agent.tasks.wait().await;
        let (options, machine) = (&self.options, &self.machine);
        self.agent = start(options, machine, &self.state, self.pin, self.controller).await;
    }

    /// Another machine that somebody has made from a copy of this one's state.
    ///
    /// # Panics
    /// When the state cannot be copied.
    pub async fn clone_of(&self, dir: &Path) -> Self {
        let state = dir.join(format!("{}-clone", self.options.name));
        std::fs::create_dir_all(&state).unwrap();
        for entry in std::fs::read_dir(&self.state).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, state.join(path.file_name().unwrap())).unwrap();
            }
        }
        let options = self.options.clone();
        let machine = Machine::new(options.facts.clone());
        let agent = start(&options, &machine, &state, self.pin, self.controller).await;
        Self {
            options,
            machine,
            state,
            pin: self.pin,
            controller: self.controller,
            agent,
        }
    }

    /// How many attempts its agent holds.
    ///
    /// # Panics
    /// When its agent is going down.
    pub async fn holds(&self) -> usize {
        self.agent.worker.overview().await.unwrap().parts.len()
    }

    /// Until it holds nothing: all that it had is acknowledged.
    pub async fn holds_nothing(&self) {
        until("all results are acknowledged", async || {
            self.holds().await == 0
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.agent.stop.cancel();
    }
}

async fn start(
    node: &Options,
    machine: &Machine,
    state: &Path,
    pin: pki::Pin,
    controller: SocketAddr,
) -> Agent {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let executor = (node.executor)(machine.world.clone());
    let worker = if node.durable {
        let booted = Instant::now();
        let (_, facts) = watch::channel(node.facts.clone());
        Worker::start(Parts {
            facts,
            journal: Arc::new(Directory::open(&state.join("journal")).unwrap()),
            executor,
            clock: Arc::new(move || booted.elapsed()),
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
        .await
    } else {
        machine.agent(executor, &tasks, stop.clone()).await
    };
    let worker = worker.unwrap();
    let hints = MachineHints {
        hostname: node.name.clone(),
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
    options.backoff = node.backoff;
    let (told, status) = watch::channel(JoinStatus::new(&options.controller));
    let joiner = Joiner::open(options).unwrap();
    let doors = Arc::new(Doors {
        worker: worker.clone(),
        router: node.router.clone(),
    });
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
    let sum = state.bytes().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
    });
    let [.., a, b, c, d, e] = sum.to_be_bytes();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}
