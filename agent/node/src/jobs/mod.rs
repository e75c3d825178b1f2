//! The jobs of a controller, as this node does them: the [`Executor`] behind `stillmetal-work`.
//!
//! ```text
//! request     what an assignment asks for, or why this node cannot do that; pure
//! image       a container, run as a certified series
//! artifacts   what is kept of its files
//! command     a program of the node on exact CPUs
//! outcome     what came of it, in the controller's words; pure
//! provenance  what was measured on, and with what
//! ```
//! Both go on when the agent is killed, and are adopted by the next one: the series from the run it
//! was at, the program by its process id.

mod artifacts;
mod command;
mod image;
mod log;
mod outcome;
mod provenance;
mod request;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::work::{Ending, Key, PartOutcome, Stage};
use futures_util::future::BoxFuture;
use stillmetal_work::executor::{Executor, Refused, Task};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::Node;
pub use log::KEPT as KEPT_OUTPUT_BYTES;
pub use outcome::verdict;
use request::Wanted;

/// How long the first assignment after a start of the agent waits for the engine.
const ENGINE: Duration = Duration::from_secs(60);

/// Does jobs.
#[derive(Debug)]
pub struct Jobs {
    node: Arc<Node>,
    tasks: TaskTracker,
    /// What an earlier agent left and nobody goes on with is gone.
    swept: watch::Sender<bool>,
}

impl Jobs {
    #[must_use]
    pub fn new(node: Arc<Node>, tasks: TaskTracker) -> Self {
        Self {
            node,
            tasks,
            swept: watch::Sender::new(false),
        }
    }

    /// Waits until containers of jobs can be made.
    async fn swept(&self, task: &Task, within: Duration) -> Result<(), String> {
        let mut swept = self.swept.subscribe();
        tokio::select! {
            biased;
            _swept = swept.wait_for(|swept| *swept) => Ok(()),
            () = task.cancelled().cancelled() => Err("cancelled".into()),
            () = tokio::time::sleep(within) => {
                Err("the container engine of the node is not ready".into())
            }
        }
    }

    async fn begin(&self, task: Task) -> Result<Ending, Refused> {
        match request::wanted(task.assignment()).map_err(Refused::anywhere)? {
            Wanted::Image(wanted) => {
                self.swept(&task, ENGINE).await.map_err(Refused::here)?;
                image::run(&self.node, task, *wanted).await
            }
            Wanted::Command(wanted) => {
                if let Some(host) = self.node.certifier().unproven() {
                    return Err(Refused::here(format!(
                        "this host's agent runs no programs of the host itself, only images: {}",
                        host.why()
                    )));
                }
                command::run(&self.node, &task, *wanted).await
            }
        }
    }

    async fn take_over(&self, task: Task) -> Ending {
        let lost = |why: String| Task::ending(PartOutcome::Error, Some(why));
        match request::wanted(task.assignment()) {
            Ok(Wanted::Image(wanted)) => {
                // its lease ends the wait
                match self.swept(&task, Duration::MAX).await {
                    Ok(()) => image::adopt(&self.node, task, *wanted).await,
                    Err(_) => Task::ending(PartOutcome::Cancelled, None),
                }
            }
            Ok(Wanted::Command(_)) => command::adopt(&self.node, &task).await,
            Err(why) => lost(why),
        }
    }
}

impl Executor for Jobs {
    fn start(&self, adopted: &[Key]) {
        let names = adopted
            .iter()
            .map(|key| stillmetal_work::attempt::name(*key));
        let names: BTreeSet<String> = names.collect();
        let holders = names.iter().map(|name| command::holder(name)).collect();
        self.node.processes().clear(&holders);
        let (node, swept) = (Arc::clone(&self.node), self.swept.clone());
        self.tasks.spawn(async move {
            let sweep = async {
                node.certifier().settled().await;
                node.runs().clear_jobs(&names).await;
            };
            tokio::select! {
                () = node.runs().stop().cancelled() => {}
                () = sweep => {
                    swept.send_replace(true);
                }
            }
        });
    }

    fn run(self: Arc<Self>, task: Task) -> BoxFuture<'static, Result<Ending, Refused>> {
        Box::pin(async move { self.begin(task).await })
    }

    fn adopt(self: Arc<Self>, task: Task, _stage: Stage) -> BoxFuture<'static, Ending> {
        Box::pin(async move { self.take_over(task).await })
    }
}

/// What the policy forbids and what makes no sense is so on any node; the rest is this one's trouble.
fn refused(denial: policy::Denial) -> Refused {
    match denial.status {
        400 | 403 => Refused::anywhere(denial.message),
        _ => Refused::here(denial.message),
    }
}

/// Milliseconds since the epoch by this node's clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
