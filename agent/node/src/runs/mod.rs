//! Certified runs in series: warm-ups, repetitions, and each repetition again until it is quiet.
//!
//! Each run is a container of its own, made and judged as a user's is; the series only decides what
//! comes next ([`series`]) and holds the CPUs from the first run to the last. Series live in this
//! agent's memory: one that was under way when the agent ended is over, and its containers are
//! removed ([`Runs::clear`]). The certificates of its runs stay.

mod attempt;
mod check;
mod series;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::run::{RunRequest, RunState, RunStatus};
use policy::{Denial, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certify::Certifier;
use crate::engine::client::EngineClient;
use crate::placement::Placer;
use crate::placement::containers::ContainersError;
use attempt::Made;
use series::{Next, figures, next};

pub(crate) use text::render;

/// Ended series kept for reading; older ones are forgotten.
const KEPT: usize = 16;
/// Series at once; each holds CPUs, so there are never many.
const RUNNING: usize = 16;
/// Output that is kept of one series; of what comes later only the certificates' digests tell.
const OUTPUT_BYTES: usize = 4 << 20;

/// What series need of their node.
#[derive(Debug, Clone)]
pub struct Parts {
    pub certifier: Arc<Certifier>,
    pub placer: Arc<Placer>,
    pub client: EngineClient,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// All series of this agent.
#[derive(Debug)]
pub struct Runs {
    parts: Parts,
    series: Mutex<BTreeMap<u64, Series>>,
}

#[derive(Debug)]
struct Series {
    status: watch::Receiver<RunStatus>,
    cancel: CancellationToken,
}

impl Runs {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            series: Mutex::default(),
        }
    }

    /// Starts a series; its first container is made when this returns.
    ///
    /// # Errors
    /// A [`Denial`] when the request is not valid, the image is not there or the CPUs are taken.
    pub async fn start(&self, role: Role, request: RunRequest) -> Result<RunStatus, Denial> {
        check::check(&request)?;
        let image = self.parts.client.image_digest(&request.image).await;
        let image = image.map_err(|error| match error {
            ContainersError::NoSuch { .. } => Denial {
                status: 404,
                message: format!(
                    "image {:?} is not on this node: `docker load` or `docker build` it first",
                    request.image
                ),
            },
            other => attempt::engine_denial(&other),
        })?;
        let number = self.reserve()?;
        let id = format!("{number:08x}");
        let first = next(&request, &[]);
        let made = attempt::make(&self.parts, role, (&id, 1), &request, &image, first, None);
        let made = made.await?;
        let (sender, status) = watch::channel(RunStatus {
            id,
            state: RunState::Running,
            error: None,
            request,
            image,
            cpus: Some(made.cpus.clone()),
            attempts: Vec::new(),
            duration_ns: None,
            left_out: Vec::new(),
        });
        let cancel = self.parts.stop.child_token();
        self.series().insert(
            number,
            Series {
                status: status.clone(),
                cancel: cancel.clone(),
            },
        );
        let driver = Driver {
            parts: self.parts.clone(),
            role,
            status: sender,
            cancel,
        };
        self.parts.tasks.spawn(driver.drive(made));
        let status = status.borrow().clone();
        Ok(status)
    }

    /// All of them, without what their runs wrote.
    #[must_use]
    pub fn list(&self) -> Vec<RunStatus> {
        let series = self.series();
        let shown = series.values().map(|series| {
            let mut status = series.status.borrow().clone();
            for run in &mut status.attempts {
                run.truncated |= !(run.stdout.is_empty() && run.stderr.is_empty());
                (run.stdout, run.stderr) = (String::new(), String::new());
            }
            status
        });
        shown.collect()
    }

    /// The status, after it ended or `wait` passed, whichever is first; `None`: no such series.
    pub async fn get(&self, id: &str, wait: Duration) -> Option<RunStatus> {
        let mut status = self.series().get(&number(id)?)?.status.clone();
        let ended = status.wait_for(|status| status.state != RunState::Running);
        // still running at the end of the wait, or its task is gone: what is known is told
        drop(tokio::time::timeout(wait, ended).await);
        let status = status.borrow().clone();
        Some(status)
    }

    /// Ends a series; false: no such series.
    pub fn cancel(&self, id: &str) -> bool {
        let series = self.series();
        let found = number(id).and_then(|number| series.get(&number));
        found.map(|series| series.cancel.cancel()).is_some()
    }

    /// Removes the containers that series of an earlier agent left. Once, when the engine answers.
    pub async fn clear(&self) {
        if !self.series().is_empty() {
            return; // this agent's own
        }
        let left = match self.parts.client.labelled(attempt::LABEL).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "old runs not looked for");
                return;
            }
        };
        for id in left {
            tracing::info!(container = id, "container of an interrupted run: removed");
            if let Err(error) = self.parts.client.remove(&id).await {
                tracing::warn!(error = %crate::chain(&error), "it could not be removed");
            }
        }
    }

    /// Makes room for another series and names it.
    fn reserve(&self) -> Result<u64, Denial> {
        let mut series = self.series();
        let running = |series: &Series| series.status.borrow().state == RunState::Running;
        let count = series.values().filter(|series| running(series)).count();
        if count >= RUNNING {
            return Err(Denial {
                status: 429,
                message: format!("{count} series run already; wait for one to end"),
            });
        }
        while series.len() >= KEPT {
            let ended = series.iter().find(|(_, series)| !running(series));
            let Some(number) = ended.map(|(number, _)| *number) else {
                break;
            };
            series.remove(&number);
        }
        // not used before this agent either: containers are named after it
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("getrandom(2) works on every Linux since 3.17");
        Ok(u32::from_le_bytes(bytes).into())
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<u64, Series>> {
        // each change is one call: a panic leaves nothing half done
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok()
}

/// Takes one series to its end.
struct Driver {
    parts: Parts,
    role: Role,
    status: watch::Sender<RunStatus>,
    cancel: CancellationToken,
}

impl Driver {
    async fn drive(self, mut made: Made) {
        let ended = loop {
            if let Err(why) = self.once(&made).await {
                break Err(why);
            }
            let (request, image, id, number, next) = {
                let status = self.status.borrow();
                let next = next(&status.request, &status.attempts);
                let number = u32::try_from(status.attempts.len()).unwrap_or(u32::MAX) + 1;
                let (request, image) = (status.request.clone(), status.image.clone());
                (request, image, status.id.clone(), number, next)
            };
            if let Next::End(state) = next {
                break Ok(state);
            }
            attempt::remove(&self.parts, &made).await;
            let following = attempt::make(
                &self.parts,
                self.role,
                (&id, number),
                &request,
                &image,
                next,
                Some(&made),
            );
            made = match following.await {
                Ok(made) => made,
                Err(denial) => break Err(denial.message),
            };
        };
        attempt::remove(&self.parts, &made).await;
        self.parts.placer.let_go(&made.token).await;
        self.status.send_modify(|status| match ended {
            Ok(state) => status.state = state,
            Err(_) if self.cancel.is_cancelled() => status.state = RunState::Cancelled,
            Err(why) => {
                status.state = RunState::Error;
                status.error = Some(why);
            }
        });
    }

    /// Measures one run and adds it to the status.
    async fn once(&self, made: &Made) -> Result<(), String> {
        let (request, number) = {
            let status = self.status.borrow();
            let number = u32::try_from(status.attempts.len()).unwrap_or(u32::MAX) + 1;
            (status.request.clone(), number)
        };
        let measured = attempt::measure(&self.parts, made, number, &request, &self.cancel);
        let mut run = measured.await?;
        self.status.send_modify(|status| {
            let kept: usize = status
                .attempts
                .iter()
                .map(|run| run.stdout.len() + run.stderr.len())
                .sum();
            if kept + run.stdout.len() + run.stderr.len() > OUTPUT_BYTES {
                (run.stdout, run.stderr) = (String::new(), String::new());
                run.truncated = true;
            }
            status.attempts.push(run);
            (status.duration_ns, status.left_out) = figures(&status.attempts);
        });
        Ok(())
    }
}
