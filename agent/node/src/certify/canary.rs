//! Canaries: one thread that spins on each CPU of a job, before and after it. What strikes a canary
//! cannot be the job's own doing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpulist::CpuSet;
use gate::page::{Command as Order, State};
use host::Tree;

use super::bundle::GATE;
use super::desk::Desk;
use super::page::Page;
use crate::cgroups;

/// A canary enters its cgroup, locks its memory and calibrates its clock.
const START_DEADLINE: Duration = Duration::from_secs(20);
const END_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// Where the canaries of one run live. One cgroup for all of them, until the run is over: when a
/// cgroup goes, the kernel clears up after it on the CPU that was its own (`cgroup_release`).
pub(crate) struct Perch {
    tree: Arc<dyn Tree>,
    /// Absolute name.
    cgroup: String,
}

impl Perch {
    /// Makes it below the claim's cgroup `parent`, such as `/stillmetal-TOKEN`.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub(crate) fn make(tree: &Arc<dyn Tree>, parent: &str) -> Result<Self, String> {
        Self::named(tree, parent, "canary")
    }

    /// One under another name, for company.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub(crate) fn named(tree: &Arc<dyn Tree>, parent: &str, name: &str) -> Result<Self, String> {
        let cgroup = format!("{parent}/{name}");
        cgroups::make_leaf(&**tree, &cgroup, None)
            .map_err(|error| format!("cgroup of the {name}: {}", crate::chain(&error)))?;
        Ok(Self {
            tree: Arc::clone(tree),
            cgroup,
        })
    }

    /// Its name without the leading slash.
    pub(crate) fn cgroup(&self) -> &str {
        self.cgroup.trim_start_matches('/')
    }
}

impl Drop for Perch {
    fn drop(&mut self) {
        if let Err(error) = cgroups::remove_leaf(&*self.tree, &self.cgroup) {
            tracing::warn!(cgroup = %self.cgroup, error = %crate::chain(&error), "cgroup stays");
        }
    }
}

/// Running canaries; dropping them ends them.
pub(crate) struct Canaries(Vec<(u32, Child, Page)>);

impl Canaries {
    /// Starts one on each CPU, and waits until all of them spin. `life` is when they end by
    /// themselves.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub(crate) fn start(
        agent: &Path,
        desk: &Desk,
        perch: &Perch,
        cpus: &CpuSet,
        life: Duration,
    ) -> Result<Self, String> {
        Self::of(Path::new(GATE), agent, desk, perch, cpus, life)
    }

    /// [`Canaries::start`] of a gate that lies elsewhere.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub(crate) fn of(
        gate: &Path,
        agent: &Path,
        desk: &Desk,
        perch: &Perch,
        cpus: &CpuSet,
        life: Duration,
    ) -> Result<Self, String> {
        let mut canaries = Self(Vec::new());
        for cpu in cpus.iter() {
            let canary = start_one(gate, agent, desk, perch, cpu, life)
                .map_err(|error| format!("canary on CPU {cpu}: {error}"))?;
            canaries.0.push(canary);
        }
        canaries.wait_until_spinning()?;
        Ok(canaries)
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(_, child, _)| child.id())
    }

    fn wait_until_spinning(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_DEADLINE;
        for (cpu, child, page) in &mut self.0 {
            while page.state() != Some(State::Spinning) {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("canary on CPU {cpu} ended: {status}"));
                }
                if Instant::now() >= deadline {
                    return Err(format!("canary on CPU {cpu} did not begin to spin in time"));
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        for (_, _, page) in &self.0 {
            page.command(Order::GiveUp);
        }
        let deadline = Instant::now() + END_DEADLINE;
        for (cpu, child, _) in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= deadline {
                    tracing::warn!(cpu, "a canary did not end by itself: killed");
                    drop(child.kill());
                    drop(child.wait());
                    break;
                }
                std::thread::sleep(POLL);
            }
        }
    }
}

fn start_one(
    gate: &Path,
    agent: &Path,
    desk: &Desk,
    perch: &Perch,
    cpu: u32,
    life: Duration,
) -> std::io::Result<(u32, Child, Page)> {
    let path = desk.page(&format!("canary-{cpu}"))?;
    let page = Page::open(&path)?;
    page.prepare(START_DEADLINE + life)?;
    let child = Command::new(agent)
        .args(["enter", "--cgroup", &perch.cgroup, "--oom-score-adj=0"])
        // the name makes it a canary
        .args(["--arg0", gate::CANARY_NAME, "--"])
        .arg(gate)
        .arg(&path)
        .arg(cpu.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((cpu, child, page))
}
