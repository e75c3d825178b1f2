//! Host processes: a program of the node itself, run with the placement and accounting of a
//! container but without one (the `taskset` of the old tools, as an API call).
//!
//! Each run is one cgroup: below its claim's partition when it asked for CPUs, below the
//! housekeeping group when not. The whole cgroup is killed at the end, so nothing it forked stays.

mod capture;
pub(crate) mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::process::{ProcessRequest, ProcessState, ProcessStatus};
use host::Tree;
use policy::Denial;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::placement::Placer;
use crate::placement::ledger::{Holder, Token};

/// Ended runs kept for reading; older ones are forgotten.
const KEPT: usize = 64;
/// Runs at once.
const RUNNING: usize = 16;

/// All host-process runs of this agent.
pub struct Processes {
    runs: Mutex<BTreeMap<u64, Run>>,
    placer: Arc<Placer>,
    tree: Arc<dyn Tree>,
    /// This program, which enters the cgroup and then becomes the command.
    agent: PathBuf,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// Claims of processes that an earlier agent had started, and who held them.
    inherited: Vec<(Token, String)>,
}

#[derive(Debug)]
struct Run {
    status: watch::Receiver<ProcessStatus>,
    kill: CancellationToken,
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").finish_non_exhaustive()
    }
}

impl Processes {
    #[must_use]
    pub fn new(
        placer: Arc<Placer>,
        tree: Arc<dyn Tree>,
        agent: PathBuf,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let claims = placer.claims().into_iter();
        let inherited = claims.filter_map(|(token, claim)| match claim.holder {
            Holder::Process { id } => Some((token, id)),
            Holder::Container { .. } | Holder::SelfTest => None,
        });
        Self {
            runs: Mutex::default(),
            inherited: inherited.collect(),
            placer,
            tree,
            agent,
            tasks,
            shutdown,
        }
    }

    /// What starting a process takes.
    pub(crate) fn ground(&self) -> run::Ground {
        run::Ground {
            placer: Arc::clone(&self.placer),
            tree: Arc::clone(&self.tree),
            agent: self.agent.clone(),
        }
    }

    /// Ends what an earlier agent had started and nobody goes on with, and frees its CPUs. Once, and
    /// before a process is started by this agent under a name that one of those may have.
    pub(crate) fn clear(&self, adopted: &BTreeSet<String>) {
        for (token, id) in &self.inherited {
            if !adopted.contains(id) {
                tracing::info!(process = id, "host process of an earlier agent: ended");
                run::end_left(&*self.tree, &self.placer, token);
            }
        }
    }

    /// Starts a run and returns its first status (it is running, or could not be started).
    ///
    /// # Errors
    /// A [`Denial`] when the request is not valid or the CPUs are taken.
    pub async fn start(&self, request: ProcessRequest) -> Result<ProcessStatus, Denial> {
        run::check(&request)?;
        let id = self.reserve_id()?;
        let kill = self.shutdown.child_token();
        let (sender, status) = watch::channel(ProcessStatus::starting(id, &request));
        let name = id.to_string();
        let run = run::prepare(&name, request, &self.placer, Arc::clone(&self.tree)).await?;
        self.runs().insert(
            id,
            Run {
                status: status.clone(),
                kill: kill.clone(),
            },
        );
        self.tasks
            .spawn(run.drive(self.agent.clone(), Arc::clone(&self.placer), sender, kill));
        Ok(status.borrow().clone())
    }

    #[must_use]
    pub fn list(&self) -> Vec<ProcessStatus> {
        self.runs()
            .values()
            .map(|run| run.status.borrow().clone())
            .collect()
    }

    /// The status, after it ended or `wait` passed, whichever is first; `None`: no such run.
    pub async fn get(&self, id: u64, wait: Duration) -> Option<ProcessStatus> {
        let mut status = self.runs().get(&id)?.status.clone();
        let ended = status.wait_for(|status| status.state != ProcessState::Running);
        // still running at the end of the wait, or its task is gone: what is known is told
        drop(tokio::time::timeout(wait, ended).await);
        Some(status.borrow().clone())
    }

    /// Kills a run; false: no such run.
    pub fn kill(&self, id: u64) -> bool {
        self.runs().get(&id).map(|run| run.kill.cancel()).is_some()
    }

    fn reserve_id(&self) -> Result<u64, Denial> {
        let mut runs = self.runs();
        let running = runs
            .values()
            .filter(|run| run.status.borrow().state == ProcessState::Running)
            .count();
        if running >= RUNNING {
            return Err(Denial {
                status: 429,
                message: format!("{running} host processes run already; wait for one to end"),
            });
        }
        while runs.len() >= KEPT {
            let ended = runs
                .iter()
                .find(|(_, run)| run.status.borrow().state != ProcessState::Running)
                .map(|(id, _)| *id);
            match ended {
                Some(id) => runs.remove(&id),
                None => break,
            };
        }
        Ok(runs.last_key_value().map_or(1, |(last, _)| last + 1))
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
