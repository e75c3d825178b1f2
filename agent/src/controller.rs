//! The node's side of its controller: it joins, takes work, and lets the controller's callers reach
//! its router.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::fleet::MachineHints;
use host::Tree;
use policy::Role;
use stillmetal_init::cmdline::BootConfig;
use stillmetal_join::{
    Caller, Controller, JoinOptions, JoinStatus, Joiner, Phase, Quiet, Services, Serving, machine,
};
use stillmetal_node::facts::facts;
use stillmetal_node::jobs::Jobs;
use stillmetal_node::{Node, since_boot};
use stillmetal_proxy::Service;
use stillmetal_work::journal::Directory;
use stillmetal_work::worker::{self, Worker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::Stream;

use crate::say::marker;

/// Between two looks at what the node is.
const LOOK: Duration = Duration::from_secs(2);

/// A node that knows its controller, before it has called it.
pub(crate) struct Membership {
    joiner: Joiner,
    quiet: Quiet,
    status: (watch::Sender<JoinStatus>, watch::Receiver<JoinStatus>),
}

/// What a node is told of its controller.
pub(crate) struct Papers {
    pub(crate) controller: Controller,
    /// Of the controller's authority.
    pub(crate) pin: pki::Pin,
    /// Where the identity is kept.
    pub(crate) state: PathBuf,
    /// Taken away at once.
    pub(crate) token: Option<PathBuf>,
    pub(crate) machine: MachineHints,
}

impl Papers {
    /// As the kernel's command line says. `None`: this node has no controller.
    ///
    /// # Errors
    /// When the command line names a controller and not its authority, or the state directory cannot
    /// be used.
    pub(crate) fn of_boot(
        boot: &BootConfig,
        run_dir: &Path,
        tree: &dyn Tree,
    ) -> anyhow::Result<Option<Self>> {
        let Some(address) = &boot.controller else {
            return Ok(None);
        };
        let pin = boot.controller_ca.as_deref().context(
            "the command line names a controller and not its authority: add \
             stillmetal.ca=sha256:… (the controller prints it when it starts)",
        )?;
        let state = run_dir.join("join");
        std::fs::create_dir_all(&state).with_context(|| format!("make {}", state.display()))?;
        Ok(Some(Self {
            controller: Controller {
                host: address.host.clone(),
                port: address.port,
            },
            pin: pin.parse().context("read stillmetal.ca")?,
            machine: machine::read(tree, &state).context("tell this machine from others")?,
            state,
            token: Some(run_dir.join("config/join-token")),
        }))
    }
}

impl Membership {
    /// Takes the join token away from where others could read it.
    ///
    /// # Errors
    /// When the state directory or the token cannot be used.
    pub(crate) fn open(papers: Papers) -> anyhow::Result<Self> {
        let Papers {
            controller,
            pin,
            state,
            token,
            machine,
        } = papers;
        let mut options = JoinOptions::new(controller, pin, state, machine);
        options.token_file = token.filter(|token| token.exists());
        let quiet = options.quiet.clone();
        let status = watch::channel(JoinStatus::new(&options.controller));
        let joiner = Joiner::open(options).context("prepare to join the controller")?;
        Ok(Self {
            joiner,
            quiet,
            status,
        })
    }

    /// Joins, and stays joined until `stop`.
    ///
    /// # Errors
    /// When the journal of work cannot be read.
    pub(crate) async fn start(
        self,
        run_dir: &Path,
        node: &Arc<Node>,
        tree: &Arc<dyn Tree>,
        router: Service,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Worker> {
        let journal = Directory::open(&run_dir.join("work")).context("open the journal of work")?;
        let (told, known) = watch::channel(look(node, tree).await);
        let jobs = Jobs::new(Arc::clone(node), tasks.clone());
        let worker = Worker::start(worker::Parts {
            facts: known,
            journal: Arc::new(journal),
            executor: Arc::new(jobs),
            clock: Arc::new(since_boot),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let worker = worker.await.context("read the journal of work")?;
        node.set_work(worker.clone());
        let services = Arc::new(Doors {
            worker: worker.clone(),
            router,
        });
        let (status, phases) = self.status;
        tasks.spawn(self.joiner.run(services, stop.clone(), status));
        tasks.spawn(show(phases, stop.clone()));
        tasks.spawn(hush(worker.silent(), self.quiet, stop.clone()));
        tasks.spawn(watch_facts(
            Arc::clone(node),
            Arc::clone(tree),
            told,
            stop.clone(),
        ));
        Ok(worker)
    }
}

/// What the controller finds here.
struct Doors {
    worker: Worker,
    router: Service,
}

impl Services for Doors {
    fn control(&self, stream: Stream) -> Serving {
        let worker = self.worker.clone();
        Box::pin(async move {
            if let Err(error) = worker.serve(stream).await {
                tracing::info!(
                    error = stillmetal_node::chain(&error),
                    "control stream ended"
                );
            }
        })
    }

    fn router(&self, stream: Stream, caller: Caller) -> Serving {
        let router = self.router.clone();
        let gone = stream.gone();
        let role = match caller.role {
            pki::RoleName::Admin => Role::Admin,
            pki::RoleName::User => Role::User,
        };
        Box::pin(async move { router.serve_stream(stream, gone, role, &caller.user).await })
    }
}

/// While something is measured this node sends nothing, and asks for nothing.
async fn hush(mut silent: watch::Receiver<bool>, quiet: Quiet, stop: CancellationToken) {
    let mut held = None;
    loop {
        let now = *silent.borrow_and_update();
        held = match (now, held) {
            (true, None) => Some(quiet.silence()),
            (true, held) => held,
            (false, _) => None,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = silent.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(node: &Arc<Node>, tree: &Arc<dyn Tree>) -> api::fleet::NodeFacts {
    let (node, tree) = (Arc::clone(node), Arc::clone(tree));
    let read = tokio::task::spawn_blocking(move || facts(&node.status(), &*tree));
    read.await.unwrap_or_else(|error| {
        tracing::error!(%error, "looking at the node died");
        api::fleet::NodeFacts {
            unfit: Some("the node cannot say what it is: see its log".into()),
            ..api::fleet::NodeFacts::default()
        }
    })
}

async fn watch_facts(
    node: Arc<Node>,
    tree: Arc<dyn Tree>,
    told: watch::Sender<api::fleet::NodeFacts>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = look(&node, &tree).await;
        told.send_if_modified(|known| {
            let other = *known != now;
            if other {
                *known = now;
            }
            other
        });
    }
}

/// What somebody before the machine's console should know.
async fn show(mut status: watch::Receiver<JoinStatus>, stop: CancellationToken) {
    let mut shown = None;
    let mut joined = false;
    loop {
        let phase = status.borrow_and_update().phase.clone();
        let line = match &phase {
            Phase::Pending { fingerprint } => Some(format!(
                "waiting for approval by the controller, fingerprint {fingerprint}"
            )),
            Phase::Connected { .. } => {
                joined = true;
                Some("joined the controller".to_owned())
            }
            // later it comes back by itself, and the log tells why it was gone
            Phase::Waiting { why, .. } if !joined => Some(format!("not joined yet: {why}")),
            Phase::Refused { why, .. } => Some(format!("the controller refused this node: {why}")),
            _ => None,
        };
        if line.is_some() && line != shown {
            marker(line.as_deref().unwrap_or_default());
            shown = line;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}
