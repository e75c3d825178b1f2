//! Certified runs in series: warm-ups, repetitions, and each repetition again until it is quiet.
//!
//! Each run is a container of its own, made and judged as a user's is; the series only decides what
//! comes next ([`series`]) and holds the CPUs from the first run to the last. Series live in this
//! agent's memory: one that was under way when the agent ended is over, and its containers are
//! removed ([`Runs::clear`]). The certificates of its runs stay. Only a controller's jobs go on
//! ([`Runs::adopt`]): they are kept on disk by whoever follows them ([`Watcher`]).

mod attempt;
mod check;
mod driver;
pub(crate) mod metrics;
mod resume;
mod series;
mod text;
pub(crate) mod unproven;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
use crate::tools::Toolbox;
use crate::unproven::Unproven;
use driver::Driver;
pub use series::figures;
use series::next;
use watcher::Nobody;

pub(crate) use attempt::Made;
pub(crate) use resume::Ended;
pub(crate) use series::Next;
pub(crate) use text::render;
pub(crate) use watcher::{Collected, Watcher};

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
    /// Marks the containers of this agent where others may be at the same engine.
    pub owner: Option<String>,
    /// Gets a line for each image that is run: whoever asked for it takes them away again.
    pub images_used: Option<PathBuf>,
    pub tools: Arc<Toolbox>,
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

impl Series {
    fn id(&self) -> String {
        self.status.borrow().id.clone()
    }
}

/// What a series has beside its request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Paths of the node's devices, there under the same name.
    pub(crate) devices: Vec<String>,
    /// The attempt of a controller's job that it is.
    pub(crate) job: Option<String>,
}

/// A series that has its CPUs and its first container and was not begun.
#[derive(Debug)]
pub(crate) struct Prepared {
    role: Role,
    seat: Seat,
    status: RunStatus,
    made: Made,
}

impl Prepared {
    pub(crate) fn status(&self) -> &RunStatus {
        &self.status
    }

    pub(crate) fn made(&self) -> &Made {
        &self.made
    }
}

/// A series that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) status: watch::Receiver<RunStatus>,
    pub(crate) cancel: CancellationToken,
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
        if !request.artifacts.is_empty() {
            return Err(attempt::bad(
                "`artifacts`: a series of the node's own API has nowhere to keep them; run it as a job of \
                 a controller (`still run --artifact`), or have the program write what you need to stdout"
                    .into(),
            ));
        }
        if !request.tools.is_empty() {
            return Err(attempt::bad(
                "`tools`: a series of the node's own API has nowhere to keep what they see; run it as a job of \
                 a controller (`still run --tool`)"
                    .into(),
            ));
        }
        let prepared = self.prepare(role, request, Seat::default()).await?;
        let begun = self.begin(prepared, Arc::new(Nobody));
        let status = begun.status.borrow().clone();
        Ok(status)
    }

    /// Makes everything ready for the first run. The CPUs are taken from here on, and are to be kept
    /// by [`Runs::renew`].
    ///
    /// # Errors
    /// As [`Runs::start`].
    pub(crate) async fn prepare(
        &self,
        role: Role,
        request: RunRequest,
        seat: Seat,
    ) -> Result<Prepared, Denial> {
        let prepared = self.try_prepare(role, request, seat).await;
        if prepared.is_err() {
            self.parts.tools.settle().await;
        }
        prepared
    }

    async fn try_prepare(
        &self,
        role: Role,
        request: RunRequest,
        seat: Seat,
    ) -> Result<Prepared, Denial> {
        check::check(&request)?;
        let request = match self.parts.certifier.unproven() {
            Some(unproven) => unprovable(unproven, request)?,
            None => request,
        };
        self.check_tools(&request).await?;
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
        if let Some(file) = &self.parts.images_used {
            note_image(file, &image)?;
        }
        let number = self.reserve()?;
        let id = format!("{number:08x}");
        let first = next(&request, &[]);
        let made = attempt::make(
            &self.parts,
            role,
            (&id, 1),
            &request,
            &image,
            first,
            &seat,
            None,
        );
        let made = made.await?;
        let status = RunStatus {
            id,
            state: RunState::Running,
            error: None,
            request,
            image,
            cpus: Some(made.cpus.clone()),
            attempts: Vec::new(),
            duration_ns: None,
            metrics: BTreeMap::new(),
            left_out: Vec::new(),
        };
        Ok(Prepared {
            role,
            seat,
            status,
            made,
        })
    }

    /// Whether the tools that a series cannot be without can run here.
    async fn check_tools(&self, request: &RunRequest) -> Result<(), Denial> {
        let asked = check::tools(request)?;
        if asked.is_empty() {
            return Ok(());
        }
        let tools = Arc::clone(&self.parts.tools);
        let checked = tokio::task::spawn_blocking(move || tools.check(&asked)).await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(unable)) if unable.for_now => Err(Denial {
                status: 409,
                message: unable.why,
            }),
            Ok(Err(unable)) => Err(attempt::bad(unable.why)),
            Err(_) => Err(Denial {
                status: 500,
                message: "looking for its tools died".into(),
            }),
        }
    }

    /// What looks at runs of this node.
    pub(crate) fn tools(&self) -> &Arc<Toolbox> {
        &self.parts.tools
    }

    /// Keeps the CPUs of a series that has not begun for another while.
    pub(crate) fn renew(&self, prepared: &Prepared) {
        self.parts.placer.renew(&prepared.made.token);
    }

    /// Takes back what [`Runs::prepare`] did.
    pub(crate) async fn give_up(&self, prepared: &Prepared) {
        attempt::remove(&self.parts, &prepared.made).await;
        self.parts.placer.reconcile().await;
        self.parts.tools.settle().await;
    }

    /// Lets it run.
    pub(crate) fn begin(&self, prepared: Prepared, watcher: Arc<dyn Watcher>) -> Begun {
        let Prepared {
            role,
            seat,
            status,
            made,
        } = prepared;
        let (driver, begun) = self.enter(role, seat, status, watcher);
        self.parts.tasks.spawn(driver.drive(made));
        begun
    }

    /// Goes on with a series that an earlier agent had begun, from the container it had made last;
    /// `over`: the run of that one is in `status` already.
    pub(crate) fn adopt(
        &self,
        role: Role,
        seat: Seat,
        status: RunStatus,
        (made, over): (Made, bool),
        watcher: Arc<dyn Watcher>,
    ) -> Begun {
        let (duration_ns, left_out) = figures(&status.attempts);
        let status = RunStatus {
            state: RunState::Running,
            duration_ns,
            metrics: metrics::figures(&status.request.metrics, &status.attempts),
            left_out,
            ..status
        };
        let (driver, begun) = self.enter(role, seat, status, watcher);
        self.parts.tasks.spawn(driver.resume(made, over));
        begun
    }

    fn enter(
        &self,
        role: Role,
        seat: Seat,
        status: RunStatus,
        watcher: Arc<dyn Watcher>,
    ) -> (Driver, Begun) {
        let number = number(&status.id);
        let (sender, status) = watch::channel(status);
        let cancel = self.parts.stop.child_token();
        if let Some(number) = number {
            let series = Series {
                status: status.clone(),
                cancel: cancel.clone(),
            };
            self.series().insert(number, series);
        }
        let driver = Driver {
            parts: self.parts.clone(),
            role,
            seat,
            status: sender,
            cancel: cancel.clone(),
            watcher,
        };
        (driver, Begun { status, cancel })
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

    /// Removes the containers that series of an earlier agent left, but for those of jobs. Once, when
    /// the engine answers.
    pub async fn clear(&self) {
        let own: BTreeSet<String> = self.series().values().map(Series::id).collect();
        self.remove_left(|labels| {
            let series = labels.get(attempt::LABEL);
            !labels.contains_key(attempt::JOB) && series.is_none_or(|id| !own.contains(id))
        })
        .await;
    }

    /// Removes the containers of jobs that are not among these; once, before there are others.
    pub(crate) async fn clear_jobs(&self, adopted: &BTreeSet<String>) {
        self.remove_left(|labels| {
            let job = labels.get(attempt::JOB);
            job.is_some_and(|job| !adopted.contains(job))
        })
        .await;
        self.parts.placer.reconcile().await;
    }

    async fn remove_left(&self, is_left: impl Fn(&BTreeMap<String, String>) -> bool) {
        let found = match self.parts.client.labelled(attempt::LABEL).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "old runs not looked for");
                return;
            }
        };
        // other agents' are none of ours
        let own = |labels: &BTreeMap<String, String>| {
            labels.get(attempt::OWNER) == self.parts.owner.as_ref()
        };
        let left = found
            .iter()
            .filter(|(_, labels)| own(labels) && is_left(labels));
        for (id, _labels) in left {
            tracing::info!(container = id, "container of an interrupted run: removed");
            if let Err(error) = self.parts.client.remove(id).await {
                tracing::warn!(error = %crate::chain(&error), "it could not be removed");
            }
        }
    }

    /// Cancelled when the node goes down.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.parts.stop
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

fn note_image(file: &Path, image: &str) -> Result<(), Denial> {
    use std::io::Write;
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let noted = opened.and_then(|mut file| file.write_all(format!("{image}\n").as_bytes()));
    noted.map_err(|error| Denial {
        status: 500,
        message: format!("note the image in {}: {error}", file.display()),
    })
}

/// Removes all containers of one agent; returns how many.
///
/// # Errors
/// [`ContainersError`] at the first that stays.
pub async fn sweep(client: &EngineClient, owner: &str) -> Result<usize, ContainersError> {
    let found = client.labelled(attempt::OWNER).await?;
    let own = found
        .iter()
        .filter(|(_, labels)| labels.get(attempt::OWNER).is_some_and(|of| of == owner));
    let mut removed = 0;
    for (id, _labels) in own {
        match client.remove(id).await {
            Ok(()) | Err(ContainersError::NoSuch { .. }) => removed += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// The request as it is carried out where nothing can be proven: there is no canary, and so it is not
/// tried again for the sake of a verdict.
fn unprovable(unproven: &Unproven, request: RunRequest) -> Result<RunRequest, Denial> {
    if let Some(message) = unproven.refuse(&request) {
        return Err(Denial {
            status: 409,
            message,
        });
    }
    Ok(RunRequest {
        canary_seconds: 0,
        ..request
    })
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok()
}

#[cfg(test)]
mod tests;
