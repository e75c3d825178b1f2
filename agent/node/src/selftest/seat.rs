//! One self-test on one CPU: silence, then each disturbance in turn. Blocks for about 20 s, with a
//! deadline on every wait; whatever it changes is put back when its guard goes out of scope.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::report::Report;
use cpulist::CpuSet;
use host::cgroup::{Cgroups, ROOT};
use host::{Msrs, Tree};
use quiet::selftest::{Findings, INTRUSIONS, Probe, SHOOTDOWNS, SelfTest, Trial};
use quiet::{
    Conditions, Drift, Evidence, Hardware, JobClass, JobOutcome, TickMode, Watch, Window,
    WindowName,
};
use stillmetal_tune::Plan;
use tokio_util::sync::CancellationToken;

use super::intruder::Intruder;
use super::knob::{LeftBehind, Turned, Undo};
use crate::certify::canary::{Canaries, Perch};
use crate::certify::conditions::Place;
use crate::certify::desk::Desk;
use crate::certify::guard::Guard;
use crate::certify::raw_ns;
use crate::certify::rhythm::{PERIOD, Rhythm};
use crate::certify::run::{platform, settled, take};
use crate::certify::sampler::Sampler;
use crate::certify::witness::Witness;
use crate::cgroups;
use crate::placement::ledger::Token;

/// Long enough for what comes once a second.
const SILENCE: Duration = Duration::from_secs(5);
/// Windows of silence, when the sampler was late in those before.
const ATTEMPTS: u32 = 3;
const QUOTA: Duration = Duration::from_secs(1);
const FAIR_SERVER: Duration = Duration::from_millis(3200);
/// After the last of a series: what it set off is over.
const ECHO: Duration = Duration::from_millis(200);
const BETWEEN_SHOOTDOWNS: Duration = Duration::from_millis(10);
/// One probe, in an emulator on a loaded machine.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);
/// When the canary ends by itself: all probes at their deadlines.
const LIFE: Duration = Duration::from_secs(300);

const INTRUSION: Duration = Duration::from_millis(1);
const COMPANY: Duration = Duration::from_secs(1);
const BETWEEN_INTRUSIONS: Duration = Duration::from_millis(10);
const POLL: Duration = Duration::from_millis(2);
const STOPPED: &str = "the self-test was stopped";
/// Quota and period, µs.
const HALF: &str = "50000 100000";
/// The kernel's own default: 50 ms in each second.
const FAIR_SERVER_NS: &str = "50000000";

/// The CPU that is disturbed, and what that needs.
pub(super) struct Seat<'a> {
    pub(super) tree: &'a Arc<dyn Tree>,
    pub(super) msrs: &'a dyn Msrs,
    pub(super) run_dir: &'a Path,
    /// This program.
    pub(super) agent: &'a Path,
    pub(super) gate: &'a Path,
    /// Its cgroup is a partition of that CPU already.
    pub(super) token: &'a Token,
    pub(super) cpu: u32,
    pub(super) housekeeping: CpuSet,
    pub(super) hypervisor: Option<bool>,
    pub(super) report: Option<Report>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) stop: &'a CancellationToken,
}

impl Seat<'_> {
    /// Does all of it.
    pub(super) fn test(&self) -> SelfTest {
        let started_ns = raw_ns();
        let partition = cgroups::partition_name(self.token);
        let cpus = CpuSet::from_iter([self.cpu]);
        let left_behind = RefCell::default();
        let mut ground = ground(
            &**self.tree,
            self.hypervisor,
            cpus.clone(),
            self.housekeeping.clone(),
        );
        let mut trials = Vec::new();
        let mut witness = self.witness(&cpus);
        let silence = self
            .perched(&partition)
            .and_then(|(desk, canary, company)| {
                let place = Place {
                    tree: &**self.tree,
                    cpus: &cpus,
                    partition: &partition,
                    cgroup: canary.cgroup(),
                };
                ground.before = place.conditions(self.report.as_ref());
                ground.after = ground.before.clone();
                let tickless = ground.before.nohz_full.as_ref();
                if !tickless.is_some_and(|tickless| cpus.is_subset(tickless)) {
                    ground.tick_mode = TickMode::Tick;
                }
                witness.before(WindowName::CanaryPre);
                let bench = Bench {
                    seat: self,
                    place: &place,
                    company: &company,
                    desk: &desk,
                    canary: &canary,
                    canaries: RefCell::default(),
                    undo: Undo::below(self.run_dir),
                    left_behind: &left_behind,
                };
                bench.spin()?;
                let window = bench.silence(&ground)?;
                witness.after(WindowName::CanaryPre);
                witness.before(WindowName::Job);
                let silent = SelfTest::is_silent(&ground, &window);
                let trial = |probe| {
                    if silent {
                        bench.try_out(probe)
                    } else {
                        unfounded()
                    }
                };
                trials = Probe::ALL.map(|probe| (probe, trial(probe))).into();
                witness.after(WindowName::Job);
                witness.before(WindowName::CanaryPost);
                witness.after(WindowName::CanaryPost);
                ground.after = place.conditions(self.report.as_ref());
                Ok(window)
            });
        ground.hardware = witness.finish();
        Desk::at(self.run_dir, self.token).close();
        SelfTest::judge(Findings {
            ground,
            started_ns,
            ended_ns: raw_ns(),
            silence,
            trials,
            left_behind: left_behind.into_inner(),
        })
    }

    /// What certified runs ask the hardware, in the same way: what it cannot tell here, it cannot
    /// tell of them.
    fn witness<'w>(&'w self, cpus: &'w CpuSet) -> Witness<'w> {
        let housekeeping = self.housekeeping.clone();
        Witness::new(&**self.tree, self.msrs, cpus, housekeeping, raw_ns)
    }

    /// Pages, and the cgroups of the canary and of its company. A cgroup goes when the value does.
    fn perched(&self, partition: &str) -> Result<(Desk, Perch, Perch), String> {
        let desk = Desk::at(self.run_dir, self.token);
        desk.clear()
            .map_err(|error| format!("place for the canary's page: {error}"))?;
        let parent = format!("/{partition}");
        let canary = Perch::make(self.tree, &parent)?;
        let company = Perch::named(self.tree, &parent, "disturb")?;
        Ok((desk, canary, company))
    }
}

/// The evidence of a run without a job.
fn ground(
    tree: &dyn Tree,
    hypervisor: Option<bool>,
    job_cpus: CpuSet,
    housekeeping_cpus: CpuSet,
) -> Evidence {
    Evidence {
        run_id: format!("selftest-{}", raw_ns()),
        container_id: String::new(),
        image: String::new(),
        argv: Vec::new(),
        class: JobClass::Compute,
        tick_mode: TickMode::NohzFull,
        platform: platform(tree, hypervisor),
        job_cpus,
        housekeeping_cpus,
        before: Conditions::default(),
        after: Conditions::default(),
        windows: Vec::new(),
        interruptions: None,
        hardware: Hardware::unobservable("nobody has asked it"),
        actions_in_window: Vec::new(),
        troubles: Vec::new(),
        job: JobOutcome::default(),
    }
}

/// The answer of a node that has no CPU to try it on.
pub(super) fn impossible(tree: &dyn Tree, hypervisor: Option<bool>, why: String) -> SelfTest {
    let now_ns = raw_ns();
    SelfTest::judge(Findings {
        ground: ground(tree, hypervisor, CpuSet::new(), CpuSet::new()),
        started_ns: now_ns,
        ended_ns: now_ns,
        silence: Err(why),
        trials: Vec::new(),
        left_behind: Vec::new(),
    })
}

fn unfounded() -> Trial {
    Trial::Inapplicable(
        "the CPU was not quiet to begin with: a disturbance more would show nothing".into(),
    )
}

/// A spinning canary, and what it takes to disturb it.
struct Bench<'a> {
    seat: &'a Seat<'a>,
    place: &'a Place<'a>,
    company: &'a Perch,
    desk: &'a Desk,
    canary: &'a Perch,
    canaries: RefCell<Option<Canaries>>,
    undo: Undo,
    left_behind: &'a LeftBehind,
}

impl Bench<'_> {
    /// Starts the canary, or another in its place: for a moment the CPU is idle.
    fn spin(&self) -> Result<(), String> {
        drop(self.canaries.take());
        let Seat { gate, agent, .. } = *self.seat;
        let canaries = Canaries::of(gate, agent, self.desk, self.canary, self.place.cpus, LIFE)?;
        self.canaries.replace(Some(canaries));
        Ok(())
    }

    /// A window of the canary alone.
    fn silence(&self, ground: &Evidence) -> Result<Window, String> {
        let mut attempts = 1;
        loop {
            let (window, ()) = self.watch(|| Ok(()), |(), spent| Ok(spent >= SILENCE))?;
            let window = window.named(WindowName::CanaryPre);
            if attempts == ATTEMPTS || !SelfTest::is_late(ground, &window) {
                return Ok(window);
            }
            attempts += 1;
        }
    }

    fn try_out(&self, probe: Probe) -> Trial {
        if self.seat.stop.is_cancelled() {
            return Trial::Failed(STOPPED.into());
        }
        let made = match probe {
            Probe::Intrusions => self.intrude(INTRUSIONS, INTRUSION),
            Probe::SecondTask => self.intrude(1, COMPANY),
            Probe::Quota => self.quota(),
            Probe::Shootdowns => self.shootdowns(),
            Probe::FairServer => self.fair_server(),
            Probe::Partition => self.dissolve(),
        };
        made.unwrap_or_else(Trial::Failed)
    }

    /// A window from when nothing strikes the CPU any more: `act` is done after its first snapshot,
    /// and its last is taken when `over` says so.
    fn watch<T>(
        &self,
        act: impl FnOnce() -> Result<T, String>,
        mut over: impl FnMut(&mut T, Duration) -> Result<bool, String>,
    ) -> Result<(Window, T), String> {
        let mut sampler = Sampler::new(
            Arc::clone(self.seat.tree),
            self.place.cpus.clone(),
            self.place.cgroup.to_owned(),
            None,
        );
        let mut watch = Watch::new(settled(&sampler)?);
        let began = Instant::now();
        let mut acted = act()?;
        let mut rhythm = Rhythm::begin();
        loop {
            if self.seat.stop.is_cancelled() {
                return Err(STOPPED.into());
            }
            if began.elapsed() >= PROBE_DEADLINE {
                return Err(format!("it was not over within {PROBE_DEADLINE:?}"));
            }
            std::thread::sleep(rhythm.rest());
            let last = over(&mut acted, began.elapsed())?;
            watch.push(take(&sampler)?);
            if last {
                // dear, so in a step of its own
                sampler.look_for_residents();
                watch.push(take(&sampler)?);
                return Ok((watch.finish(), acted));
            }
        }
    }

    /// Wakes a foreign thread so often, and each time only when it sleeps again.
    fn intrude(&self, times: u64, run: Duration) -> Result<Trial, String> {
        let cgroup = format!("/{}", self.company.cgroup());
        let mut intruder = Intruder::start(self.seat.agent, &cgroup, run)?;
        let asleep = format!("/proc/{}/stat", intruder.pid());
        let (mut left, mut quiet_since) = (times, None);
        let (window, _intruder) = self.watch(
            || {
                intruder.go()?;
                Ok(intruder)
            },
            |intruder, _| {
                // a period's worth of them, so that snapshots are not late
                let pause = Instant::now() + PERIOD;
                while left > 0 && Instant::now() < pause {
                    if !intruder.is_done()? {
                        std::thread::sleep(POLL);
                        continue;
                    }
                    left -= 1;
                    if left == 0 {
                        quiet_since = Some(Instant::now());
                        break;
                    }
                    while !self.sleeps(&asleep) {
                        if Instant::now() >= pause + PROBE_DEADLINE {
                            return Err("the intruder did not go back to sleep".into());
                        }
                        std::thread::sleep(POLL);
                    }
                    std::thread::sleep(BETWEEN_INTRUSIONS);
                    intruder.go()?;
                }
                Ok(quiet_since.is_some_and(|since: Instant| since.elapsed() >= ECHO))
            },
        )?;
        Ok(seen(window, Vec::new()))
    }

    /// Whether a thread waits for something, by its `/proc/TID/stat`.
    fn sleeps(&self, stat: &str) -> bool {
        let stat = self.seat.tree.read(stat).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, tail)| tail.trim_start().starts_with('S'))
    }

    fn quota(&self) -> Result<Trial, String> {
        let path = format!("{ROOT}/{}/cpu.max", self.place.cgroup);
        let guard = Guard::new(self.place, self.seat.plan);
        let tree = &**self.seat.tree;
        let (window, turned) = self.watch(
            || Turned::to(HALF, path, tree, None, self.left_behind),
            |_, spent| Ok(spent >= QUOTA),
        )?;
        let drift = guard.finish();
        drop(turned);
        Ok(seen(window, drift))
    }

    fn shootdowns(&self) -> Result<Trial, String> {
        let pids = Cgroups::new(&**self.seat.tree)
            .procs(self.place.cgroup)
            .map_err(|error| format!("find the canary: {}", crate::chain(&error)))?;
        let pid = pids.first().ok_or("the canary is gone")?;
        // 4: forget which pages were written to. Whatever the kernel keeps of that, it flushes the
        // process's translations on every CPU that runs it (fs/proc/task_mmu.c, clear_refs_write).
        let path = format!("/proc/{pid}/clear_refs");
        if !self.seat.tree.exists(&path) {
            return Ok(Trial::Inapplicable(format!("this kernel has no {path}")));
        }
        let mut left = SHOOTDOWNS;
        let (window, ()) = self.watch(
            || {
                while left > 0 {
                    left -= 1;
                    let shot = self.seat.tree.write(&path, "4");
                    shot.map_err(|error| format!("write {path}: {error}"))?;
                    std::thread::sleep(BETWEEN_SHOOTDOWNS);
                }
                Ok(())
            },
            |(), _| Ok(true),
        )?;
        Ok(seen(window, Vec::new()))
    }

    fn fair_server(&self) -> Result<Trial, String> {
        let cpu = self.seat.cpu;
        let path = format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
        if !self.seat.tree.exists(&path) {
            return Ok(Trial::Inapplicable(format!(
                "this kernel has no fair server, or does not show it ({path})"
            )));
        }
        let guard = Guard::new(self.place, self.seat.plan);
        let (undo, tree) = (Some(&self.undo), &**self.seat.tree);
        let turned = Turned::to(FAIR_SERVER_NS, path, tree, undo, self.left_behind)?;
        // the server of a CPU on which a thread runs already may stay asleep (*measured*)
        let watched = self
            .spin()
            .and_then(|()| self.watch(|| Ok(()), |(), spent| Ok(spent >= FAIR_SERVER)));
        let drift = guard.finish();
        // In an isolated partition Linux 6.12 may refuse to take the server's share back (EBUSY,
        // *measured* on a CPU with a tick), by the bandwidth limit of a root domain that never heard
        // of sched_rt_runtime_us=-1. Outside there is no limit.
        let outside = self.partition()?.map(|path| self.member(path)).transpose();
        drop(turned);
        drop(outside?);
        let (window, ()) = watched?;
        Ok(seen(window, drift))
    }

    /// The state file of the claim's partition; `None` if it needs none.
    fn partition(&self) -> Result<Option<String>, String> {
        let path = format!("{ROOT}/{}/cpuset.cpus.partition", self.place.partition);
        let state = self.seat.tree.read(&path);
        let state = state.map_err(|error| format!("read {path}: {error}"))?;
        Ok((state.trim() != "member").then_some(path))
    }

    /// Dissolves the partition until the value goes.
    fn member(&self, path: String) -> Result<Turned<'_>, String> {
        Turned::to("member", path, &**self.seat.tree, None, self.left_behind)
    }

    /// Of the claim's own cgroup, which goes with it. Takes a few ms; seen by the look at the knobs.
    fn dissolve(&self) -> Result<Trial, String> {
        let Some(path) = self.partition()? else {
            return Ok(Trial::Inapplicable(
                "the CPU was isolated at boot (isolcpus=) and needs no partition".into(),
            ));
        };
        let guard = Guard::new(self.place, self.seat.plan);
        let turned = self.member(path)?;
        let drift = guard.finish();
        drop(turned);
        Ok(Trial::Made {
            window: None,
            drift,
        })
    }
}

fn seen(window: Window, drift: Vec<Drift>) -> Trial {
    Trial::Made {
        window: Some(Box::new(window)),
        drift,
    }
}
