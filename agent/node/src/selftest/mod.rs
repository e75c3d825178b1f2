//! The self-test: disturbs a CPU of its own in known ways and shows that each is seen, so that a
//! person reads whether this node can prove quiet, and what it cannot see.
//!
//! ```text
//! here        who may run it, on which CPU, one at a time; the claim is always given back
//! seat        silence and the probes, on one CPU
//! intruder    the foreign thread
//! knob        what is turned is put back
//! standalone  the same without a serving agent (`stillmetal-agent selftest`)
//! ```
//!
//! It uses the canary, sampler and guard of certified runs, and `quiet` judges it by the rules of a
//! certificate: what it does not see, no certificate would.

mod intruder;
mod knob;
mod seat;
mod standalone;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cpulist::CpuSet;
use host::cgroup::Cgroups;
use policy::Denial;
use quiet::selftest::SelfTest;
use stillmetal_proxy::Placement;

pub use standalone::{Host, HostError};

use crate::certify::desk::Desk;
use crate::certify::{GATE, Parts, prompt};
use crate::cgroups;
use crate::placement::ledger::{Holder, Token, Wish};
use knob::Undo;
use seat::Seat;

/// What was killed is gone within this time.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// How it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: any isolated CPU that is free.
    pub cpu: Option<u32>,
    pub company: Company,
}

/// What to do while others use isolated CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Company {
    /// Refuse: the probes could disturb them.
    #[default]
    Refuse,
    /// The caller answers for it.
    Accept,
}

impl Wanted {
    /// `?cpu=1&force=true`.
    ///
    /// # Errors
    /// 400 for anything that is neither.
    pub fn from_query(query: &BTreeMap<String, String>) -> Result<Self, Denial> {
        let bad = |message: String| Denial {
            status: 400,
            message,
        };
        let mut wanted = Self::default();
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("cpu", number) => {
                    let number = number
                        .parse()
                        .map_err(|_| bad(format!("`cpu={number}`: give the number of one CPU")))?;
                    wanted.cpu = Some(number);
                }
                ("force", "true") => wanted.company = Company::Accept,
                ("force", "false") | ("format", _) => {}
                _ => {
                    return Err(bad(format!(
                        "`{name}={value}` is not understood: cpu=NUMBER, force=true, format=text"
                    )));
                }
            }
        }
        Ok(wanted)
    }
}

/// Runs self-tests of a serving node, and keeps the last result.
#[derive(Debug)]
pub struct SelfTester {
    parts: Parts,
    running: Arc<AtomicBool>,
    last: Arc<Mutex<Option<SelfTest>>>,
}

/// That one is under way, as long as this lives.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl SelfTester {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            running: Arc::default(),
            last: Arc::default(),
        }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// What the last one found.
    ///
    /// # Errors
    /// 404 when there was none since the agent started.
    pub fn last(&self) -> Result<SelfTest, Denial> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().ok_or_else(|| Denial {
            status: 404,
            message: "no self-test has been run since the agent started: \
                      GET /stillmetal/v1/selftest runs one (role `admin`, about 20 s)"
                .into(),
        })
    }

    /// Runs one to its end, also when the caller goes away meanwhile.
    ///
    /// # Errors
    /// A [`Denial`]: another one is under way, no CPU is free, somebody would be disturbed.
    pub async fn run(&self, wanted: &Wanted) -> Result<SelfTest, Denial> {
        let conflict = |message: String| Denial {
            status: 409,
            message,
        };
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(conflict(
                "a self-test is under way: wait for it, then read /stillmetal/v1/selftest/last"
                    .into(),
            ));
        }
        let running = Running(Arc::clone(&self.running));
        let Some(report) = self.parts.report() else {
            return Err(Denial {
                status: 503,
                message: "tuning has not finished: ask again".into(),
            });
        };
        if let Some(unfit) = self.parts.placer.facts().unfit {
            let why = format!("the node is unfit for pinned work: {unfit}");
            let hypervisor = Some(report.hypervisor);
            return Ok(seat::impossible(&*self.parts.tree, hypervisor, why));
        }
        if wanted.company == Company::Refuse {
            let claims = self.parts.placer.claims();
            if let Some((_, claim)) = claims.iter().find(|(_, claim)| claim.holds()) {
                return Err(conflict(format!(
                    "CPU {} is held by {}, whose work the self-test could disturb: wait for it to \
                     end, or ask with ?force=true",
                    claim.cpus, claim.holder
                )));
            }
        }
        let wish = wanted
            .cpu
            .map_or(Wish::Count(1), |cpu| Wish::Exact(CpuSet::from_iter([cpu])));
        let (token, cpus) = self.parts.placer.claim_own(wish, Holder::SelfTest).await?;
        let (parts, last) = (self.parts.clone(), Arc::clone(&self.last));
        let tested = self.parts.tasks.spawn(async move {
            let own = (parts.clone(), token.clone());
            let tested = prompt::on_thread("self-test", move || test(&own.0, &own.1, &cpus)).await;
            parts.placer.release(&token);
            // what could not be put back from within the partition
            put_back(&*parts.tree, &parts.run_dir);
            if let Ok(test) = &tested {
                tracing::info!(can_prove_quiet = %test.can_prove_quiet, "self-test");
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(test.clone());
            }
            drop(running);
            tested
        });
        let tested = tested.await.map_err(|error| error.to_string());
        tested.flatten().map_err(|error| Denial {
            status: 500,
            message: format!("the self-test died: {error}"),
        })
    }

    /// Clears up after a self-test during which the agent was killed: ends its processes, frees its
    /// CPU, puts back its knob. Once, before anything is measured or tuned.
    pub fn clear_up(&self) {
        let tree = &*self.parts.tree;
        for (token, claim) in self.parts.placer.claims() {
            if claim.holder == Holder::SelfTest {
                tracing::warn!(cpus = %claim.cpus, "freed after a self-test that was killed");
                end_all(tree, &token);
                Desk::at(&self.parts.run_dir, &token).close();
                self.parts.placer.release(&token);
            }
        }
        // outside of a partition, see `seat`
        put_back(tree, &self.parts.run_dir);
    }
}

/// Puts back a knob that is noted as turned.
fn put_back(tree: &dyn host::Tree, run_dir: &Path) {
    match Undo::below(run_dir).replay(tree) {
        Ok(None) => {}
        Ok(Some(what)) => tracing::warn!(%what, "put back late, after a self-test"),
        Err(why) => tracing::error!(%why, "a self-test left a knob turned"),
    }
}

/// Kills what runs below a claim's cgroup and waits for its end.
fn end_all(tree: &dyn host::Tree, token: &Token) {
    let name = cgroups::partition_name(token);
    let cgroups = Cgroups::new(tree);
    if let Err(error) = cgroups.kill(&name) {
        // most likely it is gone already, and then nothing is populated
        tracing::debug!(%name, error = %crate::chain(&error), "cgroup.kill");
    }
    let deadline = Instant::now() + KILL_DEADLINE;
    while cgroups.populated(&name).unwrap_or(false) && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
}

fn test(parts: &Parts, token: &Token, cpus: &CpuSet) -> SelfTest {
    let report = parts.report();
    let seat = Seat {
        tree: &parts.tree,
        msrs: &*parts.msrs,
        run_dir: &parts.run_dir,
        agent: &parts.agent,
        gate: Path::new(GATE),
        token,
        cpu: cpus.first().unwrap_or_default(),
        housekeeping: report
            .as_ref()
            .map(|report| report.cpus.housekeeping.clone())
            .unwrap_or_default(),
        hypervisor: report.as_ref().map(|report| report.hypervisor),
        report,
        plan: parts.plan.get(),
        stop: &parts.stop,
    };
    seat.test()
}

#[cfg(test)]
mod tests;
