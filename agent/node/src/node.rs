//! The node as a whole: what it is, what runs on it, what it can say of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use api::counters::TaskCounters;
use api::node::{ClaimStatus, CountersSnapshot, EngineStatus, HostStatus, Memory, NodeStatus};
use api::report::{Drift, Knob, NodeState, Report, Status};
use cpulist::CpuSet;
use host::Tree;
use policy::{Denial, NodeFacts};
use stillmetal_tune::Plan;
use stillmetal_tune::apply::{Reach, drift};
use stillmetal_work::Worker;

use crate::certify::Certifier;
use crate::cgroups;
use crate::engine::client::EngineClient;
use crate::engine::{Engine, EngineState};
use crate::placement::Placer;
use crate::placement::ledger::{Hold, Pool};
use crate::power::Power;
use crate::process::Processes;
use crate::runs::Runs;
use crate::selftest::SelfTester;
use crate::unproven::Unproven;

/// Where the image keeps its bill of materials.
const MANIFEST: &str = "/usr/share/stillmetal/manifest.json";
const MANIFEST_BYTES: u64 = 16 << 20;

/// One node; shared by the API, the console and the background tasks.
#[derive(Debug)]
pub struct Node {
    parts: Parts,
    work: OnceLock<Worker>,
}

/// What tuning found, once it has finished.
pub type SharedReport = Arc<RwLock<Option<Report>>>;

/// What a node is made of.
pub struct Parts {
    pub tree: Arc<dyn Tree>,
    pub engine: Engine,
    pub client: EngineClient,
    pub placer: Arc<Placer>,
    pub processes: Processes,
    pub certifier: Arc<Certifier>,
    pub runs: Runs,
    pub selftest: SelfTester,
    pub report: SharedReport,
    /// Why the engine is not started, when there is too little memory for it.
    pub memory_low: Option<String>,
    /// Of an agent on an ordinary host; `None`: this is the appliance.
    pub host: Option<Host>,
}

/// What an agent knows of the host that it is on.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// By which it is known, instead of the kernel's name for the machine.
    pub name: Option<String>,
    /// What the agent cannot do there, each with the reason.
    pub lacks: Vec<String>,
    pub power: Power,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Node {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            work: OnceLock::new(),
        }
    }

    /// From here on the API shows what the node does for its controller.
    pub fn set_work(&self, work: Worker) {
        // there is one controller, and one worker for it
        drop(self.work.set(work));
    }

    /// `None`: the node has no controller, or does not work for it yet.
    #[must_use]
    pub fn work(&self) -> Option<&Worker> {
        self.work.get()
    }

    pub(crate) fn tree(&self) -> &dyn Tree {
        &*self.parts.tree
    }

    /// Takes over what tuning found: from here on pinned work can be judged.
    pub fn set_report(&self, report: Report) {
        let unfit = self.unfit_reason(&report);
        let cpus = &report.cpus;
        let (facts, pool) = match self.parts.certifier.unproven() {
            None => (
                NodeFacts {
                    isolated: cpus.isolated.clone(),
                    housekeeping: cpus.housekeeping.clone(),
                    unfit,
                },
                Pool {
                    isolated: cpus.isolated.clone(),
                    boot_isolated: cpus.boot_isolated.clone(),
                    nodes: cpus.numa_nodes.clone(),
                },
            ),
            // no CPU is promised to anybody; jobs are kept apart from each other all the same
            Some(host) => (
                NodeFacts {
                    isolated: CpuSet::new(),
                    housekeeping: cpus.online.clone(),
                    unfit,
                },
                Pool {
                    isolated: host.cpus().clone(),
                    boot_isolated: CpuSet::new(),
                    nodes: cpus.numa_nodes.clone(),
                },
            ),
        };
        self.parts.placer.set_facts(facts, pool);
        *self
            .parts
            .report
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// Looks whether the knobs are still as tuning left them, without disturbing pinned work; what
    /// is not goes into the report, once.
    pub fn look_for_drift(&self, plan: &Plan) {
        if self.parts.selftest.is_running() {
            return; // it turns knobs, and puts them back itself
        }
        let busy = self.parts.placer.claims();
        let reach = if busy.iter().any(|(_, claim)| claim.holds()) {
            Reach::Undisturbing
        } else {
            Reach::All
        };
        let now_ns = u64::try_from(since_boot().as_nanos()).unwrap_or(u64::MAX);
        let found = drift(plan, &*self.parts.tree, reach, now_ns);
        self.update_report(|report| {
            for drift in found {
                let held = |knob: &Knob| {
                    knob.path == drift.path
                        && matches!(knob.status, Status::Verified | Status::Unchanged)
                };
                let known = |old: &Drift| old.path == drift.path && old.found == drift.found;
                if report.knobs.iter().any(held) && !report.drift.iter().any(known) {
                    tracing::warn!(path = %drift.path, wanted = %drift.wanted, found = %drift.found, "drift");
                    report.drift.push(drift);
                }
            }
        });
    }

    /// Changes the report in place (interrupts that appeared later).
    pub fn update_report(&self, change: impl FnOnce(&mut Report)) {
        if let Some(report) = &mut *self
            .parts
            .report
            .write()
            .unwrap_or_else(PoisonError::into_inner)
        {
            change(report);
        }
    }

    #[must_use]
    pub fn processes(&self) -> &Processes {
        &self.parts.processes
    }

    #[must_use]
    pub fn certifier(&self) -> &Arc<Certifier> {
        &self.parts.certifier
    }

    #[must_use]
    pub fn runs(&self) -> &Runs {
        &self.parts.runs
    }

    #[must_use]
    pub fn selftest(&self) -> &SelfTester {
        &self.parts.selftest
    }

    #[must_use]
    pub fn placer(&self) -> &Arc<Placer> {
        &self.parts.placer
    }

    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    pub(crate) fn power(&self) -> Power {
        self.parts
            .host
            .as_ref()
            .map_or(Power::Init, |host| host.power)
    }

    fn host(&self) -> Option<HostStatus> {
        let host = self.parts.host.as_ref()?;
        let unproven = self.parts.certifier.unproven();
        let mut lacks = host.lacks.clone();
        lacks.extend(unproven.and_then(Unproven::unpinned));
        Some(HostStatus {
            unproven: unproven.map(|unproven| unproven.why().to_owned()),
            cpus: unproven.map(|it| it.cpus().clone()).unwrap_or_default(),
            lacks,
        })
    }

    #[must_use]
    pub fn client(&self) -> &EngineClient {
        &self.parts.client
    }

    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let tree = &*self.parts.tree;
        let line = |path: &str| tree.read(path).ok().map(|text| text.trim().to_owned());
        let report = self
            .parts
            .report
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let state = match &report {
            None => NodeState::Unfit {
                reason: "tuning has not finished".into(),
            },
            Some(report) => match self.unfit_reason(report) {
                Some(reason) => NodeState::Unfit { reason },
                None => NodeState::Fit,
            },
        };
        let own_name = self.parts.host.as_ref().and_then(|host| host.name.clone());
        NodeStatus {
            schema: "stillmetal-node/1".into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            hostname: own_name
                .or_else(|| line("/proc/sys/kernel/hostname"))
                .unwrap_or_default(),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            uptime_seconds: since_boot().as_secs(),
            kernel: line("/proc/sys/kernel/osrelease"),
            cmdline: line("/proc/cmdline"),
            virtual_machine: report.as_ref().is_some_and(|report| report.hypervisor),
            state,
            memory: self.memory(),
            engine: self.engine_status(),
            host: self.host(),
            tuning: report,
            claims: self.claims(),
        }
    }

    /// The image's bill of materials.
    ///
    /// # Errors
    /// 404 on a host that is not the appliance.
    pub fn manifest(&self) -> Result<String, Denial> {
        self.parts
            .tree
            .read_up_to(MANIFEST, MANIFEST_BYTES)
            .map_err(|error| Denial {
                status: 404,
                message: format!("{MANIFEST}: {error}; only the appliance's image carries one"),
            })
    }

    /// Reads the counters now.
    ///
    /// # Errors
    /// 404 for an unknown container, 500 when the kernel's files cannot be read.
    pub async fn counters(
        &self,
        cpus: Option<CpuSet>,
        container: Option<&str>,
    ) -> Result<CountersSnapshot, Denial> {
        let pid = match container {
            None => 0,
            Some(id) => self.parts.client.pid(id).await.map_err(|error| Denial {
                status: 404,
                message: crate::chain(&error),
            })?,
        };
        let tree = &*self.parts.tree;
        let taken_ns = u64::try_from(since_boot().as_nanos()).unwrap_or(u64::MAX);
        let failed = |error: std::io::Error| Denial {
            status: 500,
            message: crate::chain(&error),
        };
        let cpus = match cpus {
            Some(cpus) => cpus,
            None => online(tree).map_err(failed)?,
        };
        let cpus = host::counters::cpu_counters(tree, &cpus).map_err(failed)?;
        let threads = (pid > 0).then(|| container_threads(tree, pid)).flatten();
        Ok(CountersSnapshot {
            taken_ns,
            cpus,
            threads,
        })
    }

    /// Why pinned work is refused.
    fn unfit_reason(&self, report: &Report) -> Option<String> {
        let unproven = self.parts.certifier.unproven();
        self.parts
            .memory_low
            .clone()
            .or_else(|| unproven.map(|unproven| unproven.why().to_owned()))
            .or_else(|| report.unfit().map(str::to_owned))
    }

    fn memory(&self) -> Memory {
        let text = self.parts.tree.read("/proc/meminfo").unwrap_or_default();
        let known = collect::parse::meminfo(&text);
        Memory {
            total_bytes: known.get("MemTotal").copied(),
            available_bytes: known.get("MemAvailable").copied(),
            too_little: self.parts.memory_low.clone(),
        }
    }

    fn engine_status(&self) -> EngineStatus {
        use stillmetal_proxy::EngineGate;
        let detail = match self.parts.engine.engine() {
            stillmetal_proxy::EngineStatus::Ready(_) => "ready".into(),
            stillmetal_proxy::EngineStatus::NotReady { why } => why,
        };
        EngineStatus {
            ready: matches!(self.parts.engine.state(), EngineState::Ready { .. }),
            detail,
        }
    }

    fn claims(&self) -> Vec<ClaimStatus> {
        let unproven = self.parts.certifier.unproven();
        let claims = self.parts.placer.claims().into_iter();
        claims
            .map(|(token, claim)| ClaimStatus {
                holder: claim.holder.to_string(),
                state: match claim.hold {
                    Hold::Running => "running",
                    Hold::Reserved { .. } => "reserved",
                    Hold::Stopped => "stopped",
                }
                .into(),
                cgroup: unproven
                    .is_none()
                    .then(|| format!("/{}", cgroups::partition_name(&token))),
                cpus: claim.cpus,
                mems: claim.mems,
            })
            .collect()
    }
}

/// `CLOCK_BOOTTIME`.
#[must_use]
pub fn since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .expect("CLOCK_BOOTTIME exists since Linux 2.6.39")
}

fn online(tree: &dyn Tree) -> std::io::Result<CpuSet> {
    tree.read("/sys/devices/system/cpu/online")?
        .parse()
        .map_err(std::io::Error::other)
}

/// Threads of every process in the cgroup of `pid`.
fn container_threads(tree: &dyn Tree, pid: i64) -> Option<BTreeMap<u32, TaskCounters>> {
    let name = host::cgroup::of_process(tree, u32::try_from(pid).ok()?).ok()?;
    let pids = host::cgroup::Cgroups::new(tree).procs(&name).ok()?;
    // a process that ended between the two reads has no counts any more
    let threads = pids
        .into_iter()
        .filter_map(|pid| host::counters::tasks(tree, pid).ok());
    Some(threads.flatten().collect())
}

#[cfg(test)]
pub(crate) mod tests;
