//! Certified runs: a container with label `stillmetal.certify=true` gets a noise certificate for
//! each of its starts.
//!
//! ```text
//! create   placement takes the CPUs; the engine starts the container by the runtime `stillmetal`
//! start    a run is begun (`desk`), the runtime puts the gate before the program (`bundle`)
//! then     canary on each CPU · the gate opens, the program runs · canary again (`run`)
//! always   ten snapshots a second from a housekeeping CPU (`sampler`), judged by the crate `quiet`
//! end      the certificate is kept (`store`), the CPUs are free again
//! ```

mod bundle;
pub(crate) mod canary;
pub(crate) mod conditions;
pub(crate) mod desk;
mod effort;
pub(crate) mod ended;
mod events;
pub(crate) mod exit;
pub(crate) mod guard;
mod page;
pub(crate) mod prompt;
pub(crate) mod rhythm;
pub(crate) mod run;
pub(crate) mod sampler;
mod seal;
mod settings;
mod sources;
mod store;
mod tracer;
mod unproven;
pub(crate) mod witness;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use api::report::Report;
use futures_util::future::BoxFuture;
use host::{Msrs, Tree};
use nix::time::{ClockId, clock_gettime};
use policy::{Denial, NodeFacts, Pin};
use quiet::{Certificate, TickMode};
use stillmetal_proxy::{Claimed, EventLog, Placement};
use stillmetal_tune::Plan;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bundle::{GATE, Inserted, RUNTIME, Unready, insert_gate};
pub use desk::mount as mount_desks;
pub use effort::Effort;
pub(crate) use sampler::tids_below;
pub use seal::{Broken, verify};
pub use settings::inherit_fixed_addresses;

use crate::SharedReport;
use crate::engine::client::EngineClient;
use crate::placement::Placer;
use crate::placement::ledger::Token;
use crate::tools::Meter;
use crate::unproven::Unproven;
use desk::Desk;
use run::Run;
use seal::Sealer;
use store::Store;

/// When a container started that never did, as the engine writes it.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// What certified runs need of their node.
#[derive(Clone)]
pub struct Parts {
    pub placer: Arc<Placer>,
    pub tree: Arc<dyn Tree>,
    pub msrs: Arc<dyn Msrs>,
    pub client: EngineClient,
    /// `/run/stillmetal` on the appliance.
    pub run_dir: PathBuf,
    /// This program, which enters a cgroup and then becomes another.
    pub agent: PathBuf,
    pub tasks: TaskTracker,
    /// The node is going down: no canary is worth waiting for.
    pub stop: CancellationToken,
    /// What tuning found, once it has finished.
    pub report: SharedReport,
    /// What tuning set, once it has finished.
    pub plan: Arc<OnceLock<Plan>>,
    /// Nothing can be proven on this host; `None`: it can.
    pub unproven: Option<Arc<Unproven>>,
    /// Where the identity is that the node got from its controller.
    pub join_dir: PathBuf,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Parts {
    pub(crate) fn report(&self) -> Option<Report> {
        let report = self.report.read();
        report.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Begins runs when their containers start, and keeps the certificates.
pub struct Certifier {
    parts: Parts,
    store: Arc<Store>,
    events: EventLog,
    /// Containers whose run is under way.
    running: Arc<Mutex<HashMap<String, Underway>>>,
    /// Containers whose run an earlier agent had begun.
    left: Mutex<HashMap<String, Left>>,
    /// All of those are known.
    settled: watch::Sender<bool>,
    /// What counts events of the next run of a container.
    meters: Mutex<HashMap<String, Arc<Meter>>>,
}

/// A run that this agent has begun.
#[derive(Debug, Clone)]
struct Underway {
    /// When its container had started before, as the engine writes it.
    started_before: String,
    /// It is to be over soon: nothing is worth waiting for.
    hurry: CancellationToken,
}

/// A run of which the agent that began it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its program was let go, and may have run to its end. If not, it never does.
    pub(crate) begun: bool,
    /// When it is ended at its time limit.
    pub(crate) limit: Option<tokio::time::Instant>,
}

impl std::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certifier").finish_non_exhaustive()
    }
}

/// What is known of a container's certificate.
#[derive(Debug)]
pub enum Found {
    /// The text of the JSON document.
    Certificate(String),
    /// Its run is not over yet.
    Measuring,
    Nothing,
}

impl Certifier {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let store = Arc::new(Store::new(parts.run_dir.join("certificates")));
        Self {
            parts,
            store,
            events: EventLog::default(),
            running: Arc::default(),
            left: Mutex::default(),
            settled: watch::Sender::new(false),
            meters: Mutex::default(),
        }
    }

    /// What there is instead, where no run can be proven.
    #[must_use]
    pub fn unproven(&self) -> Option<&Unproven> {
        self.parts.unproven.as_deref()
    }

    /// Where the verdicts are told.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Gives the runs that an earlier agent had begun the certificates they are due: nothing is
    /// proven of them. Once, when the engine answers.
    pub async fn settle_interrupted(&self) {
        if self.parts.placer.measures_only(None) {
            tracer::sweep(&*self.parts.tree);
        }
        for (token, container) in Desk::all(&self.parts.run_dir) {
            if self.running().contains_key(&container) {
                continue; // this agent's own
            }
            match Run::of(&self.parts, token.clone(), container.clone()).await {
                Some(run) => {
                    let left = run.time_left();
                    let known = Left {
                        begun: run.has_begun(),
                        limit: left.map(|left| tokio::time::Instant::now() + left),
                    };
                    lock(&self.left).insert(container.clone(), known);
                    let certificate = run.interrupted();
                    if keep(&self.parts, &self.store, &container, &certificate) {
                        let now = SystemTime::now();
                        let event = events::verdict(run.about(), &certificate, now);
                        self.events.tell(event);
                    }
                    if let Some(left) = left {
                        self.parts.tasks.spawn(run.end_after(left));
                    }
                }
                None => Desk::at(&self.parts.run_dir, &token).close(),
            }
        }
        self.settled.send_replace(true);
    }

    /// Waits until it is known what an earlier agent had begun: the engine answers from then on.
    pub(crate) async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // its sender is part of self
        drop(settled.wait_for(|settled| *settled).await);
    }

    /// What an earlier agent left of a container's run; `None`: nothing, or an agent before that.
    pub(crate) fn left(&self, container: &str) -> Option<Left> {
        lock(&self.left).get(container).copied()
    }

    /// Whether the program of a container whose run is under way has been let go.
    pub(crate) fn has_begun(&self, token: &Token) -> bool {
        if self.parts.unproven.is_some() {
            return true; // there is no gate: a started container's program runs
        }
        run::begun_ns(&Desk::at(&self.parts.run_dir, token)).is_some()
    }

    /// Has events of a container's next run counted.
    pub(crate) fn count(&self, container: &str, meter: Arc<Meter>) {
        lock(&self.meters).insert(container.to_owned(), meter);
    }

    /// Has a run end without canaries: what it would prove is not wanted any more.
    pub(crate) fn hurry(&self, container: &str) {
        if let Some(underway) = self.running().get(container) {
            underway.hurry.cancel();
        }
    }

    /// The newest certificate of a container, by id or the beginning of one, after it is there or
    /// `wait` has passed.
    pub async fn certificate(&self, id: &str, wait: Duration) -> Found {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let found = self.look(id);
            if !matches!(found, Found::Measuring) || tokio::time::Instant::now() >= deadline {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn look(&self, id: &str) -> Found {
        if id.is_empty() {
            return Found::Nothing;
        }
        if self.running().keys().any(|running| running.starts_with(id)) {
            return Found::Measuring;
        }
        match self.store.find(id).as_slice() {
            [only] => self
                .store
                .read(only)
                .map_or(Found::Nothing, Found::Certificate),
            _ => Found::Nothing,
        }
    }

    /// Ids of the containers that have a certificate.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let mut all = self.store.find("");
        all.sort();
        all
    }

    /// Makes ready for a certified container's start.
    async fn begin(&self, id_or_name: &str) -> Result<(), Denial> {
        let Some((token, container)) = self.certified(id_or_name).await else {
            return Ok(());
        };
        let failed = |error: &dyn std::error::Error| Denial {
            status: 500,
            message: format!("the run could not be prepared: {}", crate::chain(error)),
        };
        let about = self.parts.client.about(&container).await;
        let about = about.map_err(|error| failed(&error))?;
        let certify = self.parts.placer.certify(&token);
        let certify = certify.ok_or_else(|| Denial {
            status: 409,
            message: "the container lost its CPUs meanwhile: start it again".into(),
        })?;
        Desk::at(&self.parts.run_dir, &token)
            .open(&container, &certify)
            .map_err(|error| failed(&error))?;
        self.parts.placer.keep(&token);
        let underway = Underway {
            started_before: about.started_at,
            hurry: self.parts.stop.child_token(),
        };
        self.running().insert(container, underway);
        Ok(())
    }

    /// Measures the run that has begun, in the background.
    async fn follow(&self, id_or_name: &str) {
        let Some((token, container)) = self.certified(id_or_name).await else {
            return;
        };
        let meter = lock(&self.meters).remove(&container);
        let Some(underway) = self.running().get(&container).cloned() else {
            return;
        };
        let run = match Run::of(&self.parts, token, container.clone()).await {
            Some(run) if run.started_at() != underway.started_before => {
                let run = run.hurried_by(underway.hurry).counted_by(meter);
                match underway.started_before.as_str() {
                    NEVER => run,
                    _ => run.again(),
                }
            }
            run => {
                if let Some(run) = run {
                    run.give_up().await;
                }
                self.running().remove(&container);
                return;
            }
        };
        let (store, running) = (Arc::clone(&self.store), Arc::clone(&self.running));
        let (parts, told) = (self.parts.clone(), self.events.clone());
        let about = run.about().clone();
        self.parts.tasks.spawn(async move {
            let (container, certificate) = run.drive().await;
            let kept =
                certificate.filter(|certificate| keep(&parts, &store, &container, certificate));
            lock(&running).remove(&container);
            // last: who hears of it can read the certificate at once
            if let Some(certificate) = kept {
                told.tell(events::verdict(&about, &certificate, SystemTime::now()));
            }
        });
    }

    /// The claim and the id of a container whose runs are measured.
    async fn certified(&self, id_or_name: &str) -> Option<(Token, String)> {
        if !self.parts.placer.certifies() {
            return None;
        }
        let (token, container) = self.parts.placer.claim_of(id_or_name).await?;
        self.parts.placer.certify(&token)?;
        Some((token, container))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Underway>> {
        lock(&self.running)
    }

    /// [`Placer::claim_container`], on CPUs that tick as was asked for.
    pub(crate) async fn claim_container(
        &self,
        pin: &Pin,
        name: Option<&str>,
        earlier: Option<&Token>,
    ) -> Result<Claimed, Denial> {
        let placer = &self.parts.placer;
        let claimed = placer.claim_container(pin, name, earlier).await?;
        let wanted = pin.certify.as_ref().and_then(|certify| certify.tick);
        if let Err(denial) = self.check_tick(&claimed.token, wanted) {
            placer.abandoned(&claimed.token).await;
            return Err(denial);
        }
        Ok(claimed)
    }

    /// Whether the CPUs of a new claim tick as was asked for: they do as the kernel was booted.
    fn check_tick(&self, token: &str, wanted: Option<TickMode>) -> Result<(), Denial> {
        let Some(wanted) = wanted else { return Ok(()) };
        let claims = self.parts.placer.claims();
        let own = claims.into_iter().find(|(other, _)| other.0 == token);
        let cpus = own.map(|(_, claim)| claim.cpus).unwrap_or_default();
        let found = conditions::tick_mode(&*self.parts.tree, &cpus);
        if found == Some(wanted) {
            return Ok(());
        }
        let found = found.map_or("of both kinds".to_owned(), |mode| mode.to_string());
        Err(Denial {
            status: 409,
            message: format!(
                "tick mode {wanted} was asked for and CPUs {cpus} are {found}: that is decided when \
                 the kernel boots (nohz_full=); choose other CPUs, or boot the node otherwise"
            ),
        })
    }

    /// `pending` before the first run, then `measuring`, then the verdict of the newest run.
    fn verdict(&self, container: &str) -> String {
        match self.look(container) {
            Found::Nothing => "pending".into(),
            Found::Measuring => "measuring".into(),
            Found::Certificate(text) => serde_json::from_str::<Certificate>(&text).map_or_else(
                |_| "unreadable".into(),
                |certificate| certificate.verdict.to_string(),
            ),
        }
    }
}

fn lock<T>(map: &Mutex<HashMap<String, T>>) -> MutexGuard<'_, HashMap<String, T>> {
    // each change is one call: a panic leaves nothing half done
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it lies in the store.
fn keep(parts: &Parts, store: &Store, container: &str, certificate: &Certificate) -> bool {
    tracing::info!(container, verdict = %certificate.verdict, "run certified");
    let text = match Sealer::new(&parts.run_dir, &parts.join_dir).seal(certificate) {
        Ok(text) => text,
        Err(why) => {
            tracing::error!(container, %why, "the certificate could not be signed: not kept");
            return false;
        }
    };
    let saved = store.save(container, &text);
    if let Err(error) = &saved {
        tracing::error!(container, %error, "the certificate could not be kept");
    }
    saved.is_ok()
}

fn platform_of(tree: &dyn Tree, report: Option<&Report>) -> quiet::Platform {
    run::platform(tree, report.map(|report| report.hypervisor))
}

/// Nanoseconds of CLOCK_MONOTONIC_RAW, the clock of everything in a certificate: no NTP slewing.
pub(crate) fn raw_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)
        .map(Duration::from)
        .expect("CLOCK_MONOTONIC_RAW exists since Linux 2.6.28");
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Placement as the placer does it, with a run begun and followed at each start.
impl Placement for Certifier {
    fn facts(&self) -> NodeFacts {
        self.parts.placer.facts()
    }

    fn claim<'a>(
        &'a self,
        pin: &'a Pin,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Claimed, Denial>> {
        Box::pin(self.claim_container(pin, name, None))
    }

    fn created<'a>(&'a self, token: &'a str, container_id: &'a str) -> BoxFuture<'a, ()> {
        self.parts.placer.created(token, container_id)
    }

    fn abandoned<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        self.parts.placer.abandoned(token)
    }

    fn starting<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<(), Denial>> {
        Box::pin(async move {
            self.parts.placer.starting(id_or_name).await?;
            self.begin(id_or_name).await
        })
    }

    fn started<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.parts.placer.started(id_or_name).await;
            self.follow(id_or_name).await;
        })
    }

    fn restore_view(&self, inspect: &mut serde_json::Value) {
        self.parts.placer.restore_view(inspect);
        let asked = inspect.pointer("/Config/Labels/stillmetal.certify")
            == Some(&serde_json::Value::from("true"));
        let id = inspect.get("Id").and_then(|id| id.as_str());
        if let Some(id) = id.filter(|_| asked) {
            let verdict = self.verdict(id);
            inspect["Config"]["Labels"]["stillmetal.verdict"] = verdict.into();
        }
    }
}
